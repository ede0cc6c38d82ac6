"""The HTTP front on real sockets, plain and through TLS: what is read, answered, and bounded."""

import json
import random
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import httpx
import psutil
import pytest

from pushsvc.server.embedded import EmbeddedServer
from pushsvc.web.bodies import AT_ONCE
from pushsvc.web.http_connection import MAX_AHEAD, READ_BYTES
from tests.support.backend import problem
from tests.support.certificates import Authority
from tests.support.nodes import PLAIN, Node, publisher_token, token, wait_until
from tests.support.raw import TEXT, Ended, Raw, RawSocket, frame, request

MIB = 1 << 20
GET = b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module", params=["plain", "tls"])
def node(
    request: pytest.FixtureRequest,
    valkey: EmbeddedServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Node]:
    directory = tmp_path_factory.mktemp("front")
    options: dict[str, Any] = {}
    if request.param == "tls":
        authority = Authority(directory)
        certificate, key = authority.issue(directory)
        options = {"tls": authority.context(), "tls_cert_file": certificate, "tls_key_file": key}
    with Node(
        valkey.url, directory, prefix=f"front-{request.param}", request_timeout_seconds=2,
        max_bodies_bytes=MIB, **options,
    ) as running:  # fmt: skip
        yield running


@pytest.fixture(scope="module")
def small(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with room for 100 connections that are no sockets, 75 of them with a request."""
    with Node(
        valkey.url, tmp_path_factory.mktemp("small"), prefix="front-small",
        max_connections=1_000_000, request_timeout_seconds=20,
    ) as running:  # fmt: skip
        yield running


def post(
    body: bytes, *fields: str, path: str = "/v1/notifications", length: str | None = None,
    auth: str | None = None,
) -> bytes:  # fmt: skip
    """A publish request; ``length`` takes the place of its Content-Length line."""
    lines = [
        f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json",
        f"Authorization: Bearer {auth or publisher_token()}",
        f"Content-Length: {len(body)}" if length is None else length, *fields,
    ]  # fmt: skip
    return "\r\n".join([*(line for line in lines if line), "", ""]).encode() + body


def note(user: str, data: Any = 1) -> bytes:
    return json.dumps({"to": {"user": user}, "data": data}).encode()


def chunks(data: bytes, size: int) -> bytes:
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)


def kept(raw: Raw) -> None:
    """Check that the connection serves another request."""
    raw.send(GET)
    problem(raw.answer(), 404, "not_found")


def over(raw: Raw, answer: httpx.Response) -> None:
    """Check that an answer was the last one."""
    assert "close" in answer.headers["Connection"]
    assert raw.ended() < 4


# --- bodies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_body_in_chunks_is_read_and_its_trailers_are_ignored(
    node: Node, user: str, size: int
) -> None:
    chunked = "Transfer-Encoding: chunked"
    with Raw(node) as raw:
        for trailer in (b"", b"X-Sum: 1\r\n"):
            body = chunks(note(user, "x" * 200), size) + b"0\r\n" + trailer + b"\r\n"
            raw.send(post(b"", length=chunked) + body)
            assert raw.answer().status_code == 202
        raw.send(post(b"", length=chunked) + b"zz\r\n")
        answer = raw.answer()
        problem(answer, 400, "invalid")
        over(raw, answer)


def test_chunks_count_against_the_limit_of_the_route(node: Node, user: str) -> None:
    with Raw(node) as raw:
        raw.send(
            post(b"", length="Transfer-Encoding: chunked", path="/v1/ack", auth=token(user))
            + chunks(b" " * 5000, 1000)
        )
        answer = raw.answer()
        problem(answer, 413, "too_large")
        over(raw, answer)


def test_continue_is_said_to_who_is_let_in_and_a_refusal_to_who_is_not(
    node: Node, user: str
) -> None:
    body, expect = note(user), "Expect: 100-continue"
    with Raw(node) as raw:
        raw.send(post(body, expect)[: -len(body)])
        assert raw.answer().status_code == 100
        raw.send(body)
        assert raw.answer().status_code == 202
        kept(raw)
        raw.send(post(body, expect, auth="wrong")[: -len(body)])
        answer = raw.answer()
        problem(answer, 401, "invalid_token")
        over(raw, answer)


@pytest.mark.parametrize("auth", ["wrong", None])
def test_a_refusal_arrives_although_the_client_sends_on(node: Node, auth: str | None) -> None:
    size = 4 * MIB
    with Raw(node) as raw:
        raw.send(post(b"", length=f"Content-Length: {size}", auth=auth))
        for _ in range(size // 65_536):
            raw.send(b" " * 65_536)
        answer = raw.answer()
        problem(answer, *((401, "invalid_token") if auth else (413, "too_large")))
        over(raw, answer)


def test_a_connection_outlives_the_refusal_of_a_body_that_is_not_too_large(node: Node) -> None:
    body = b" " * 100_000
    with Raw(node) as raw:
        for sent in (0, 1000, len(body)):
            head = post(b"", length=f"Content-Length: {len(body)}", auth="wrong")
            raw.send(head + body[:sent])
            problem(raw.answer(), 401, "invalid_token")
            raw.send(body[sent:])
        kept(raw)


def test_who_goes_on_sending_for_ever_is_cut_off(node: Node) -> None:
    with Raw(node) as raw:
        raw.send(post(b"", length="Content-Length: 9999999999"))
        problem(raw.answer(), 413, "too_large")
        with pytest.raises(Ended):
            raw.send(b" " * 65_536 * 1000)


def test_a_head_that_comes_late_is_told_so(node: Node) -> None:
    with Raw(node) as raw:
        kept(raw)
        raw.send(b"GET / HTTP/1.1\r\nHos")
        answer = raw.answer()
        problem(answer, 408, "request_timeout")
        over(raw, answer)


def test_all_bodies_together_are_bounded_and_the_room_comes_back(node: Node, user: str) -> None:
    """495 unfinished bodies of 1 MiB took 500 MB, and so did those that waited for Redis."""
    part = b" " * 200_000
    head = post(b"", length="Content-Length: 400000", path="/v1/notifications/batch")
    before = psutil.Process(node.process.pid).memory_info().rss
    with ExitStack() as stack:
        peers = [stack.enter_context(Raw(node)) for _ in range(30)]
        for raw in peers:
            raw.send(head + part)
        refused = 0
        for raw in peers:
            answer = raw.answer()
            if answer.status_code == 503:
                assert "bodies of all requests" in problem(answer, 503, "overloaded")["detail"]
                refused += 1
            else:
                problem(answer, 408, "request_timeout")
        assert refused >= 30 - 1 - MIB // len(part)
        assert psutil.Process(node.process.pid).memory_info().rss - before < 16 * MIB
    node.publish(user, "there is room again")
    body = b'{"notifications":[%b]}' % b",".join([note(user, "x" * 1000)] * 300)
    with Raw(node) as raw:  # none of it leaked
        for _ in range(4):
            raw.send(post(body, path="/v1/notifications/batch"))
            assert raw.answer().status_code == 202


def slow(auth: str, path: str = "/v1/ack") -> bytes:
    """The head of a request whose body does not come."""
    return post(b"", length="Content-Length: 100", path=path, auth=auth)


def test_one_client_has_few_requests_whose_body_is_waited_for(small: Node, user: str) -> None:
    """With a token that may only listen, one took the places of everybody's requests."""
    with ExitStack() as stack:
        waiting = [stack.enter_context(Raw(small)) for _ in range(80)]
        for raw in waiting:
            raw.send(slow(token(user)))
        for raw in waiting[AT_ONCE:]:
            answer = raw.answer()
            problem(answer, 429, "rate_limited")
            assert int(answer.headers["Retry-After"]) > 0
        small.publish(user, "others publish")
        with Raw(small) as raw:
            raw.send(slow(publisher_token()) + b" " * 100)  # a backend's own, and another user's
            problem(raw.answer(), 400, "invalid_json")
            raw.send(slow(token(f"{user}-2")) + b" " * 100)
            problem(raw.answer(), 400, "invalid_json")
        waiting[0].send(b" " * 100)
        problem(waiting[0].answer(), 400, "invalid_json")
        waiting[0].send(slow(token(user)))  # its turn is given back
        waiting[0].send(b" " * 100)
        problem(waiting[0].answer(), 400, "invalid_json")


@pytest.mark.parametrize("path", ["/v1/poll", "/v1/ws", "/v1/stream"])
@pytest.mark.parametrize("length", ["Content-Length: 1", "Transfer-Encoding: chunked"])
def test_nobody_is_waited_for_who_asks_for_messages_with_a_body(
    node: Node, path: str, length: str
) -> None:
    """Without a token, such requests took all the places of requests for ten seconds."""
    extra = {} if path != "/v1/ws" else {"Authorization": None}
    name, _, value = length.partition(": ")
    with Raw(node) as raw:
        raw.send(request(target=path, headers={**extra, name: value}))
        answer = raw.answer()
        assert "without a body" in problem(answer, 400, "invalid")["detail"]


# --- answers -------------------------------------------------------------------------------------


def test_answers_that_nobody_reads_share_what_they_are_made_of(node: Node) -> None:
    """Each held a copy of the page: 1,800 who read nothing took 280 MB."""
    ask = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    process = psutil.Process(node.process.pid)
    with ExitStack() as stack:
        peers = [stack.enter_context(Raw(node, receive_buffer=4096)) for _ in range(150)]
        before = process.memory_info().rss
        for raw in peers:
            raw.send(ask * 60)
        count = -1.0
        while count < (count := node.metric("pushsvc_http_requests_total", route="openapi")):
            time.sleep(0.2)  # until nothing more is answered
        assert process.memory_info().rss - before < 8 * MIB


@pytest.mark.parametrize("node", ["plain"], indirect=True)  # TLS closes both halves
@pytest.mark.parametrize("count", [1, 40])
def test_who_closes_one_half_gets_all_answers_however_slowly_it_reads(
    node: Node, count: int
) -> None:
    ask = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    last = ask.replace(b"Host", b"Connection: close\r\nHost")
    for end in (ask, last):
        with Raw(node, receive_buffer=4096) as raw:
            raw.send(ask * (count - 1) + end)
            raw.socket.shutdown(socket.SHUT_WR)
            for _ in range(3):
                node.post("/v1/notifications", {})  # the node has seen it
            assert [raw.answer().status_code for _ in range(count)] == [200] * count
            assert raw.ended() < 2


def test_pipelined_requests_are_answered_in_order(node: Node, user: str) -> None:
    bad = b'{"to":1}'
    with Raw(node) as raw:
        sent = [post(note(user)), GET, post(bad), b"GET /docs HTTP/1.1\r\nHost: x\r\n\r\n"] * 10
        raw.send(b"".join(sent))
        assert [raw.answer().status_code for _ in sent] == [202, 404, 400, 200] * 10


def test_a_refusal_does_not_hold_up_what_is_pipelined_behind_it(node: Node) -> None:
    named = b"POST /v1/users/%zz/disconnect HTTP/1.1\r\nHost: x\r\n\r\n"
    with Raw(node) as raw:
        raw.send(GET + named + GET)
        assert [raw.answer().status_code for _ in range(3)] == [404, 400, 404]


def test_what_is_sent_ahead_of_an_answer_is_not_read(node: Node, user: str) -> None:
    auth = token(user)
    poll = f"GET /v1/poll?wait=2 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {auth}\r\n\r\n"
    before = psutil.Process(node.process.pid).memory_info().rss
    with Raw(node) as raw:
        raw.send(poll.encode())
        raw.socket.settimeout(0.5)
        sent = 0
        with suppress(TimeoutError):
            for _ in range(64 * MIB // len(GET)):
                raw.send(GET * 100)
                sent += 100 * len(GET)
        assert sent < 64 * MIB  # the kernel's buffers are full
        assert psutil.Process(node.process.pid).memory_info().rss - before < 4 * MIB
        assert MAX_AHEAD + READ_BYTES < MIB
        raw.socket.settimeout(10)
        assert raw.answer().status_code == 200
        for _ in range(1000):
            problem(raw.answer(), 404, "not_found")


def test_answers_that_are_not_read_hold_up_what_follows(node: Node) -> None:
    ask = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    answered = node.metric("pushsvc_http_requests_total", status="200")
    with Raw(node, receive_buffer=4096) as raw:
        raw.send(ask * 200)
        wait_until(
            lambda: node.metric("pushsvc_http_requests_total", status="200") > answered,
            "the first answer",
        )
        before = psutil.Process(node.process.pid).memory_info().rss
        for _ in range(3):
            node.post("/v1/notifications", {})  # others are served meanwhile
        assert node.metric("pushsvc_http_requests_total", status="200") - answered < 150
        assert psutil.Process(node.process.pid).memory_info().rss - before < 4 * MIB
        for _ in range(200):
            assert raw.answer().status_code == 200


def test_http_1_0_is_answered_and_closed_and_head_has_no_body(node: Node) -> None:
    with Raw(node) as raw:
        raw.send(b"GET /v1/nothing HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        answer = raw.answer()
        problem(answer, 404, "not_found")
        over(raw, answer)
    with Raw(node) as raw:
        for path in (b"/client.js", b"/v1/notifications"):
            raw.send(b"HEAD " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            while b"\r\n\r\n" not in raw._held:
                raw._more()
            head, _, raw._held = raw._held.partition(b"\r\n\r\n")
            assert int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]) > 100
            assert b"\r\ndate: " in head.lower()
        kept(raw)


def test_who_closes_one_half_gets_the_answer(small: Node, user: str) -> None:
    with Raw(small) as raw:
        raw.send(post(note(user)))
        raw.socket.shutdown(socket.SHUT_WR)
        assert raw.answer().status_code == 202
        assert raw.ended() < 2


def test_an_upgrade_to_something_else_is_an_ordinary_request(node: Node, user: str) -> None:
    h2c = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    with Raw(node) as raw:
        raw.send(post(note(user), *h2c))
        assert raw.answer().status_code == 202
        kept(raw)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (post(b"{}", "Content-Length: 2"), "two Content-Length"),
        (post(b"{}", "Transfer-Encoding: chunked"), "send one of them"),
        (b"GET / HTTP/1.1\r\n\r\n", "Host"),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", "HTTP/1.1"),
        (b"NONSENSE\r\n\r\n", "request line"),
        (b"GET / HTTP/1.1\nHost: x\n\n", "CRLF"),
        (b"GET / HTTP/1.1\r\nHost: x:" + b"1" * 5000 + b"\r\n\r\n", "Host"),
        (b"GET http://x:" + b"1" * 5000 + b"/ HTTP/1.1\r\nHost: x\r\n\r\n", "target"),
    ],
)
def test_what_is_malformed_is_told_what_to_change(node: Node, data: bytes, why: str) -> None:
    with Raw(node) as raw:
        raw.send(data)
        answer = raw.answer()
        assert why in problem(answer, 400, "invalid")["detail"]
        over(raw, answer)


def test_headers_that_are_too_large_are_told_so_although_more_come(node: Node) -> None:
    for head in (b"A: b\r\n" * 100_000, b"A: " + b"x" * 1_000_000, b"A: b\r\n" * 1500):
        with Raw(node) as raw:
            raw.send(b"GET / HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n")
            answer = raw.answer()
            problem(answer, 431, "headers_too_large")
            over(raw, answer)


# --- takeover ------------------------------------------------------------------------------------


def test_a_kept_connection_becomes_a_socket_with_what_came_behind(node: Node, user: str) -> None:
    with Raw(node) as raw:
        raw.send(post(note(user, "before")) + GET)
        assert raw.answer().status_code == 202
        raw.answer()
        auth = {"Authorization": f"Bearer {token(user)}"}
        behind = frame(TEXT, b'{"type":"ping","ref":"early"}')
        raw.send(GET + request(headers={**auth}) + behind + behind[:5])
        problem(raw.answer(), 404, "not_found")
        assert raw.answer().status_code == 101
        raw.send(behind[5:])
        said = b""
        while said.count(b"early") < 2:
            raw._more()
            said, raw._held = said + raw._held, b""
        assert b'"data":"before"' in said


def test_a_kept_connection_becomes_a_stream(node: Node, user: str) -> None:
    with Raw(node) as raw:
        kept(raw)
        raw.send(
            f"GET /v1/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token(user)}\r\n\r\n"
            "what follows is not read".encode()
        )
        assert raw.answer().status_code == 200
        node.publish(user, "streamed")
        while b"streamed" not in raw._held:
            raw._more()


def test_a_refused_handshake_ends_the_connection(node: Node) -> None:
    with Raw(node) as raw:
        raw.send(request(headers={"Authorization": None}) + GET)
        answer = raw.answer()
        problem(answer, 401, "invalid_token")
        over(raw, answer)


def test_a_client_that_goes_during_its_handshake_leaves_nothing(node: Node, user: str) -> None:
    for _ in range(20):
        with Raw(node) as raw:
            raw.send(request(headers={"Authorization": f"Bearer {token(user)}"}))
            raw.socket.close()
    wait_until(lambda: node.metric("pushsvc_connections") == 0, "all to be gone")
    with RawSocket(node, user) as peer:
        peer.pong()


# --- room ----------------------------------------------------------------------------------------


def test_who_has_been_idle_for_longest_goes_and_the_newcomer_stays(small: Node, user: str) -> None:
    """Idle connections without a token kept publishers and handshakes out for 75 s."""
    with ExitStack() as stack:
        idle = []
        for _ in range(130):
            idle.append(stack.enter_context(Raw(small)))
            kept(idle[-1])
        assert small.is_ready()
        with RawSocket(small, user) as peer:
            small.publish(user, "still served")
            assert peer.message()["data"] == "still served"
        assert idle[0].ended() < 1
        kept(idle[-1])


def test_who_says_nothing_loses_its_place_too(small: Node, user: str) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(Raw(small)) for _ in range(130)]

        def served() -> bool:
            try:
                answer = small.post("/v1/notifications", {"to": {"user": user}, "data": 1})
            except httpx.TransportError:
                return False
            assert answer.status_code in (202, 503)
            return answer.status_code == 202

        wait_until(served, "a silent one to go", 10)
        assert len(silent) == 130


def test_requests_leave_room_for_handshakes_and_readiness_tells(small: Node, user: str) -> None:
    def poll(number: int) -> bytes:
        auth = token(f"{user}-{number}")
        return (
            f"GET /v1/poll?wait=60 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {auth}\r\n\r\n"
        ).encode()

    wait_until(small.is_ready, "room")
    with ExitStack() as stack:
        for number in range(75):
            stack.enter_context(Raw(small)).send(poll(number))
        wait_until(lambda: small.metric("pushsvc_connections") == 75, "the polls")
        with Raw(small) as raw:
            raw.send(GET)
            answer = raw.answer()
            problem(answer, 503, "overloaded")
            over(raw, answer)
        assert small.metric("pushsvc_http_requests_total", route="accept", status="503") > 0
        ready = httpx.get(f"{small.admin_url}/readyz", timeout=5, verify=PLAIN)
        assert ready.status_code == 503
        assert "no room" in ready.json()["troubles"][0]
        with RawSocket(small, user) as peer:
            peer.pong()
    wait_until(small.is_ready, "room again")
    with Raw(small) as raw:
        kept(raw)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 60,
        b"GET /openapi.json HTTP/1.1\r\nConnection: close\r\nHost: x\r\n\r\n",
        slow("wrong"),
    ],
    ids=["unread", "unread and the last", "a refused body that does not come"],
)
def test_who_does_not_go_on_loses_its_place(small: Node, user: str, sent: bytes) -> None:
    """Without a token, 100 who read none of their answers kept everybody out for 75 s."""
    with ExitStack() as stack:
        for _ in range(110):
            stack.enter_context(Raw(small, receive_buffer=4096)).send(sent)

        def served() -> bool:
            with Raw(small) as raw, suppress(Ended):
                raw.send(GET)
                return raw.answer().status_code == 404
            return False

        wait_until(served, "others to go", 10)
        with RawSocket(small, user) as peer:
            peer.pong()


# --- whatever comes ------------------------------------------------------------------------------

EXPECTED = {"200", "202", "204", "304", "400", "401", "403", "404", "405", "408", "411", "413",
            "415", "422", "426", "429", "431", "501", "503"}  # fmt: skip


def test_mutated_requests_leave_the_node_as_it_was(node: Node, user: str) -> None:
    source = random.Random(20_261_130)
    seeds = [
        post(note(user)), GET, post(b"{}", "Expect: 100-continue"),
        post(b"", length="Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\n\r\n",
        request(headers={"Authorization": f"Bearer {token(user)}"}),
        b"OPTIONS /v1/ack HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\n\r\n",
        b"GET /v1/users/a/notifications HTTP/1.1\r\nHost: x\r\n\r\n",
    ]  # fmt: skip
    pieces = [b"\r\n", b"\n", b"\0", b" ", b":", b"chunked", b"0", b"-1", b"\xff", b"HTTP/1.1",
              b"Content-Length: 5\r\n", b"%", b"?", b"\t"]  # fmt: skip
    begin = len(node.log_lines())
    seen = set()
    for _ in range(150):
        data = bytearray(b"".join(source.choices(seeds, k=source.randint(1, 3))))
        for _ in range(source.randint(1, 5)):
            at = source.randrange(len(data))
            data[at : at + source.randint(0, 8)] = source.choice(pieces)
        with Raw(node) as raw, suppress(Ended, OSError, ValueError):
            raw.socket.settimeout(0.05)
            cut = source.randrange(len(data))
            raw.send(bytes(data[:cut]))
            raw.send(bytes(data[cut:]))
            while True:
                raw._more()
                seen.update(re.findall(r"HTTP/1\.1 (\d{3}) ", raw._held.decode("latin-1")))
    assert seen - {"100", "101"} <= EXPECTED
    assert len(seen) > 5
    bad = [line for line in node.log_lines()[begin:] if line.get("level") in ("error", "critical")]
    assert bad == []
    node.publish(user, "alive")


def test_connections_that_come_and_go_leave_no_descriptor(node: Node) -> None:
    process = psutil.Process(node.process.pid)

    def some(count: int) -> None:
        for number in range(count):
            with Raw(node) as raw:
                raw.send(
                    (GET, GET * 3, b"GET /", post(b"x" * 10, auth="wrong"), b"BAD\r\n\r\n")[
                        number % 5
                    ]
                )
                if number % 2:
                    raw.answer() if number % 5 != 2 else None

    some(20)
    wait_until(lambda: process.num_fds() < 60, "those before to be closed")
    before = process.num_fds()
    some(100)
    wait_until(lambda: process.num_fds() <= before + 2, "the descriptors to be closed")
