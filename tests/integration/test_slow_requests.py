"""Requests that arrive too slowly, or are too large, and what they cost everybody else."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

import httpx
import psutil
import pytest

from pushsvc.server.embedded import EmbeddedServer
from tests.support.backend import problem
from tests.support.nodes import Node, publisher_token, wait_until
from tests.support.raw import Ended, Raw, RawSocket, request

TIMEOUT = 1.0
LATEST = TIMEOUT + 2.5
"""The deadline, a turn of the clock that enforces it, and a slow machine."""
MAX_BODY = 2 * 1024 * 1024


@pytest.fixture(scope="module")
def node(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node(
        valkey.url, tmp_path_factory.mktemp("slow"), prefix="slow",
        request_timeout_seconds=TIMEOUT, max_body_bytes=MAX_BODY,
    ) as running:  # fmt: skip
        yield running


def post(**headers: str) -> bytes:
    """The head of a publish request."""
    fields = {
        "Host": "127.0.0.1", "Authorization": f"Bearer {publisher_token()}",
        "Content-Type": "application/json", **headers,
    }  # fmt: skip
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join(["POST /v1/notifications HTTP/1.1", *lines, "", ""]).encode()


@contextmanager
def others(node: Node) -> Iterator[list[float]]:
    """Another caller's requests meanwhile: how long each took, in seconds."""
    seconds: list[float] = []
    stop = Event()

    def ask() -> None:
        with httpx.Client(timeout=10) as client:
            while not stop.is_set():
                started = time.monotonic()
                assert client.get(f"{node.url}/v1/nothing").status_code == 404
                seconds.append(time.monotonic() - started)

    thread = Thread(target=ask)
    thread.start()
    wait_until(lambda: len(seconds) > 5, "the other caller's first answers")
    seconds.clear()
    try:
        yield seconds
    finally:
        stop.set()
        thread.join()


def drip(raw: Raw, data: bytes) -> float:
    """Send a byte at a time, ten a second, until the node ends it; seconds until then."""
    started = time.monotonic()
    raw.socket.settimeout(0.1)
    for number in range(len(data)):
        try:
            raw.send(data[number : number + 1])
            raw._more()
        except TimeoutError:
            continue
        except Ended:
            return time.monotonic() - started
        else:
            break  # an answer came
    raw.socket.settimeout(10)
    raw.ended()
    return time.monotonic() - started


def test_headers_that_drip_in_are_cut_off(node: Node) -> None:
    with Raw(node) as raw:
        assert drip(raw, request()) < LATEST


def test_who_makes_no_request_in_time_is_cut_off_and_who_made_one_may_idle(
    node: Node, user: str
) -> None:
    with (
        Raw(node) as pooled,
        RawSocket(node, user) as socket,
        Raw(node) as silent,
        Raw(node) as unfinished,
    ):
        get = b"GET /v1/nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        pooled.send(get)
        problem(pooled.answer(), 404, "not_found")
        unfinished.send(b"GET /" + b"x" * 1000)
        assert silent.ended() + unfinished.ended() < LATEST
        pooled.send(get)
        problem(pooled.answer(), 404, "not_found")
        socket.pong()


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 17_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 17_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/ws HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 3_000 + b"\r\n",
        b"GET /v1/ws HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 2_000_000,
    ],
    ids=["one large header", "a large target", "many headers", "headers without end"],
)
def test_headers_over_16_kib_are_refused(node: Node, head: bytes) -> None:
    with Raw(node) as raw, others(node) as seconds:
        try:
            raw.send(head)
            status = raw.answer().status_code
        except Ended:
            status = 0
        assert status in (0, 400, 431)
        assert raw.ended() < LATEST
    assert max(seconds, default=0) < 0.5


def test_headers_just_below_16_kib_are_read_quickly(node: Node) -> None:
    many: dict[str, str | None] = {f"X-{number}": "a" for number in range(1_000)}
    cookies: dict[str, str | None] = {"Cookie": "; ".join(f"a{n}=b" for n in range(1_500))}
    for headers in (many, cookies):
        with Raw(node) as raw:
            started = time.monotonic()
            raw.send(request(headers=headers))
            raw.answer()
            assert time.monotonic() - started < 0.5


def test_a_body_that_drips_in_is_cut_off_with_408(node: Node) -> None:
    with Raw(node) as raw:
        raw.send(post(Content_Length="1000"))
        assert drip(raw, b"x" * 1000) < LATEST
        assert b"408" in raw._held[:20]


@pytest.mark.parametrize("sent", [b"", b'{"to":'])
def test_a_body_that_never_comes_is_cut_off_with_408(node: Node, sent: bytes) -> None:
    with Raw(node) as raw:
        raw.send(post(Content_Length="1000") + sent)
        problem(raw.answer(), 408, "request_timeout")
        assert raw.ended() < LATEST


def refused(node: Node, head: bytes, body: Callable[[], Iterator[bytes]]) -> httpx.Response:
    """The answer that comes while a body is still being sent."""
    with Raw(node) as raw:
        raw.send(head)
        try:
            for part in body():
                raw.send(part)
        except Ended:
            pass
        return raw.answer()


def test_a_million_one_byte_chunks_are_refused_and_the_loop_stays_responsive(node: Node) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(1000):
            yield b"1\r\nx\r\n" * 1000
        # no last chunk: however quickly the machine reads the others, the deadline ends it

    with others(node) as seconds:
        answer = refused(node, post(Transfer_Encoding="chunked"), lambda: iter(()))
        problem(answer, 408, "request_timeout")
        answer = refused(node, post(Transfer_Encoding="chunked"), chunks)
        problem(answer, 408, "request_timeout")
    assert max(seconds) < 0.5


def test_a_body_over_the_limit_is_refused_before_it_is_read(node: Node) -> None:
    before = psutil.Process(node.process.pid).memory_info().rss
    answer = refused(node, post(Content_Length=str(MAX_BODY + 1)), lambda: iter(()))
    found = problem(answer, 413, "too_large")
    assert str(MAX_BODY) in found["detail"]
    answer = refused(node, post(Content_Length="9" * 30), lambda: iter(()))
    problem(answer, 413, "too_large")
    assert psutil.Process(node.process.pid).memory_info().rss - before < 10 * 2**20


def test_a_body_just_below_the_limit_is_read(node: Node, user: str) -> None:
    notes = [{"to": {"user": user}, "data": "x" * 60_000} for _ in range(33)]
    answer = node.post("/v1/notifications/batch", {"notifications": notes})
    assert answer.status_code == 202, answer.text
    assert len(answer.json()["results"]) == 33


def test_a_socket_that_closes_in_the_middle_of_a_body_leaves_nothing(node: Node) -> None:
    for _ in range(20):
        with Raw(node) as raw:
            raw.send(post(Content_Length="100") + b"x" * 50)
    wait_until(
        lambda: len(psutil.Process(node.process.pid).net_connections("tcp")) < 20,
        "the connections to be gone",
    )


@pytest.mark.parametrize(
    "head",
    [
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nNo colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA\0: b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused(node: Node, head: bytes) -> None:
    with Raw(node) as raw:
        raw.send(head)
        with suppress(Ended):
            assert raw.answer().status_code >= 400
        assert raw.ended() < LATEST


def test_a_flood_of_bad_requests_does_not_fill_the_log(node: Node) -> None:
    before = len(node.log_lines())
    for _ in range(200):
        with Raw(node) as raw:
            raw.send(b"NONSENSE\r\n\r\n")
            raw.ended()
    assert len(node.log_lines()) - before <= 20
