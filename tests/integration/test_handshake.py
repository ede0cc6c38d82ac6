"""Who may connect, and what everybody else is told."""

import asyncio
import base64
import os
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import jwt
import pytest
from redis import Redis
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from pushsvc.server.embedded import EmbeddedServer
from tests.support.backend import problem, publish
from tests.support.nodes import SECRET, Node, nodes, token, wait_until
from tests.support.phone import Phone
from tests.support.raw import ACCEPT, Raw, RawSocket, frame, request

pytestmark = pytest.mark.promise

ORIGIN = "https://app.example"


@pytest.fixture(scope="module")
def node(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node(
        valkey.url, tmp_path_factory.mktemp("handshake"), prefix="handshake",
        allowed_origins=ORIGIN,
    ) as running:  # fmt: skip
        yield running


def shake(
    node: Node, headers: dict[str, str | None] | None = None, *,
    method: str = "GET", target: str = "/v1/ws", version: str = "HTTP/1.1",
) -> httpx.Response:  # fmt: skip
    """The answer to a handshake."""
    with Raw(node) as raw:
        raw.send(request(method, target, headers, version=version))
        return raw.answer()


def signed(claims: dict[str, Any] | None = None, *, key: str = SECRET, alg: str = "HS256",
           **header: Any) -> str:  # fmt: skip
    """A token with these claims instead of good ones; None leaves a claim out."""
    payload = {"sub": "u1", "aud": "pushsvc", "exp": int(time.time()) + 600, **(claims or {})}
    payload = {name: value for name, value in payload.items() if value is not None}
    return jwt.encode(payload, key, alg, headers=header)


NOW = int(time.time())
BAD_TOKENS = {
    "alg none": lambda: signed(key="", alg="none"),
    "another secret": lambda: signed(key="x" * 48),
    "an algorithm outside the allowlist": lambda: signed(key=SECRET * 2, alg="HS512"),
    "another audience": lambda: signed({"aud": "other"}),
    "an audience that begins like ours": lambda: signed({"aud": "pushsvc-2"}),
    "no audience": lambda: signed({"aud": None}),
    "no expiry": lambda: signed({"exp": None}),
    "expired beyond the leeway": lambda: signed({"exp": NOW - 60}),
    "not valid yet": lambda: signed({"nbf": NOW + 3600}),
    "no subject": lambda: signed({"sub": None}),
    "a subject that is no name": lambda: signed({"sub": "a\nb"}),
    "a subject of 257 bytes": lambda: signed({"sub": "\u00e9" * 128 + "x"}),
    "a kid that is a path": lambda: signed(kid="../../etc/passwd\0"),
    "a kid that is SQL": lambda: signed(kid="1' OR '1'='1"),
    "jku": lambda: signed(jku="http://127.0.0.1:1/keys"),
    "x5u": lambda: signed(x5u="http://127.0.0.1:1/keys"),
    "jwk": lambda: signed(jwk={"kty": "oct", "k": "AAAA"}),
    "crit": lambda: signed(crit=["exp"]),
    "two parts": lambda: signed().rpartition(".")[0],
    "a padded part": lambda: signed() + "=",
    "9 kB": lambda: signed({"pad": "x" * 9000}),
}


@pytest.mark.parametrize("make", BAD_TOKENS.values(), ids=BAD_TOKENS)
def test_a_bad_token_is_refused_before_the_upgrade(node: Node, make: Any) -> None:
    answer = shake(node, {"Authorization": f"Bearer {make()}"})
    problem(answer, 401, "invalid_token")
    assert "Upgrade" not in answer.headers


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic dTpw", "Bearer a.b.c", "Bearer \xff.\xfe.\xfd"]
)
def test_no_token_is_refused(node: Node, header: str | None) -> None:
    problem(shake(node, {"Authorization": header}), 401, "invalid_token")


# --- origin --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example", "null", "", "http://app.example", "https://app.example.evil.example",
        "https://app.example:8443", "https://evil.example/https://app.example", "https://[::1", "*",
    ],
)  # fmt: skip
def test_a_page_of_another_origin_is_refused(node: Node, origin: str) -> None:
    problem(shake(node, {"Origin": origin}), 403, "origin_refused")


@pytest.mark.parametrize("origin", [ORIGIN, "HTTPS://APP.EXAMPLE", None])
def test_an_allowed_origin_or_none_may_connect(node: Node, origin: str | None) -> None:
    assert shake(node, {"Origin": origin}).status_code == 101


def test_a_page_of_the_node_itself_may_connect(node: Node) -> None:
    host = f"127.0.0.1:{node.port}"
    answer = shake(node, {"Host": host, "Origin": f"http://{host}"})
    assert answer.status_code == 101


# --- the opening handshake (RFC 6455, section 4) -------------------------------------------------


def test_the_answer_to_a_handshake_is_that_of_the_rfc(node: Node) -> None:
    answer = shake(node)
    assert answer.status_code == 101
    assert answer.headers["Upgrade"].lower() == "websocket"
    assert answer.headers["Connection"].lower() == "upgrade"
    assert answer.headers["Sec-WebSocket-Accept"] == ACCEPT
    assert "Sec-WebSocket-Protocol" not in answer.headers
    assert "Sec-WebSocket-Extensions" not in answer.headers


@pytest.mark.parametrize("version", ["8", "14", "0", "13, 8", "", None])
def test_another_version_is_told_which_one_is_served(node: Node, version: str | None) -> None:
    answer = shake(node, {"Sec-WebSocket-Version": version})
    problem(answer, 426, "upgrade_required")
    assert answer.headers["Sec-WebSocket-Version"] == "13"
    assert answer.headers["Upgrade"] == "websocket"


def test_a_plain_get_is_told_to_upgrade(node: Node) -> None:
    answer = httpx.get(f"{node.url}/v1/ws", headers={"Authorization": f"Bearer {token('u1')}"})
    problem(answer, 426, "upgrade_required")
    assert answer.headers["Upgrade"] == "websocket"


@pytest.mark.parametrize(
    "headers",
    [
        {"Upgrade": "h2c"}, {"Upgrade": "websockets"}, {"Connection": "keep-alive"},
        {"Connection": None}, {"Sec-WebSocket-Key": None}, {"Sec-WebSocket-Key": ""},
        {"Sec-WebSocket-Key": "c2hvcnQ="},
        {"Sec-WebSocket-Key": base64.b64encode(b"x" * 17).decode()},
        {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZ!=="},
    ],
)  # fmt: skip
def test_an_improper_handshake_is_refused(node: Node, headers: dict[str, str | None]) -> None:
    problem(shake(node, headers), 400, "invalid")


def test_http_1_0_cannot_upgrade(node: Node) -> None:
    problem(shake(node, version="HTTP/1.0"), 400, "invalid")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_another_method_is_not_allowed(node: Node, method: str) -> None:
    answer = shake(node, {"Content-Length": "0"}, method=method)
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET"


def test_header_names_and_upgrade_values_are_case_insensitive(node: Node) -> None:
    headers = {"Upgrade": "WebSocket", "Connection": "keep-alive, UPGRADE"}
    assert shake(node, {**headers}).status_code == 101


def test_what_is_sent_right_behind_the_handshake_is_read(node: Node, user: str) -> None:
    behind = frame(1, b'{"type":"ping","ref":"early"}')
    with RawSocket(node, user, behind=behind) as raw:
        assert raw.message() == {"type": "pong", "ref": "early"}


# --- where the token and the subprotocol are -----------------------------------------------------


@pytest.mark.parametrize("bearer_first", [False, True])
async def test_a_browser_offers_its_token_as_a_subprotocol_that_is_never_echoed(
    node: Node, user: str, *, bearer_first: bool
) -> None:
    offered = [Subprotocol("pushsvc.v1.json"), Subprotocol(f"bearer.{token(user)}")]
    if bearer_first:
        offered.reverse()
    async with connect(f"ws://127.0.0.1:{node.port}/v1/ws", subprotocols=offered) as socket:
        assert socket.subprotocol == "pushsvc.v1.json"
        assert "eyJ" not in str(socket.response.headers if socket.response else "")
        assert user in str(await socket.recv())


def test_a_refused_token_in_a_subprotocol_is_never_echoed(node: Node) -> None:
    bad = signed(key="x" * 48)
    answer = shake(
        node,
        {"Authorization": None, "Sec-WebSocket-Protocol": f"pushsvc.v1.json, bearer.{bad}"},
    )
    problem(answer, 401, "invalid_token")
    assert "eyJ" not in answer.text + str(answer.headers)


@pytest.mark.parametrize("offered", ["pushsvc.v2.json", "graphql-ws, mqtt", "PUSHSVC.V1.JSON", ","])
def test_an_unknown_subprotocol_is_refused(node: Node, offered: str) -> None:
    problem(shake(node, {"Sec-WebSocket-Protocol": offered}), 400, "invalid")


def test_a_bearer_subprotocol_alone_is_refused(node: Node) -> None:
    offered = f"bearer.{token('u1')}"
    answer = shake(node, {"Authorization": None, "Sec-WebSocket-Protocol": offered})
    problem(answer, 400, "invalid")


# --- devices and the welcome ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "device",
    [
        "", "phone%0a", "phone%0d%0a", "%0aphone", "phone%00", "%C2%85", "%ff", "%ED%A0%80",
        "x" * 257, "%C3%A9" * 129,
    ],
)  # fmt: skip
def test_a_bad_device_name_is_refused(node: Node, device: str) -> None:
    answer = shake(node, target=f"/v1/ws?device={device}")
    assert answer.status_code == 400
    assert answer.json()["type"] in (
        "urn:pushsvc:problem:invalid_name", "urn:pushsvc:problem:invalid",
    )  # fmt: skip
    problem(answer, 400, answer.json()["type"].rpartition(":")[2])


async def test_welcome_says_what_the_contract_says_and_nothing_else(node: Node, user: str) -> None:
    expires = int(time.time()) + 600
    async with Phone(node, user, "x" * 256, auth=token(user)) as phone:
        welcome = phone.welcome
        assert list(welcome) == [
            "type", "connection", "user", "device", "heartbeat", "window", "expires_at",
            "unread",
        ]  # fmt: skip
        assert welcome["type"] == "welcome"
        assert isinstance(welcome["connection"], str)
        assert welcome["user"] == user
        assert welcome["device"] == "x" * 256
        assert welcome["heartbeat"] == 25
        assert welcome["window"] == 64
        assert abs(welcome["expires_at"] - expires) <= 2
        async with Phone(node, user, "x" * 256) as other:
            assert other.welcome["connection"] != welcome["connection"]


def test_the_device_is_called_default_where_none_is_named(node: Node, user: str) -> None:
    headers: dict[str, str | None] = {"Authorization": f"Bearer {token(user)}"}
    with Raw(node) as raw:
        raw.send(request(headers=headers))
        assert raw.answer().status_code == 101
        size = raw.read(2)[1]
        size = int.from_bytes(raw.read(2)) if size == 126 else size
        assert b'"device":"default"' in raw.read(size)


# --- limits --------------------------------------------------------------------------------------


async def test_a_full_node_sheds_with_503_and_takes_connections_again(
    valkey: EmbeddedServer, tmp_path: Any, prefix: str
) -> None:
    with Node(valkey.url, tmp_path, prefix=prefix, max_connections=2) as node:
        async with Phone(node, "u1"), Phone(node, "u2"):
            problem(await asyncio.to_thread(shake, node), 503, "overloaded")
        await asyncio.to_thread(
            wait_until, lambda: shake(node).status_code == 101, "room for a connection"
        )
        assert node.metric("pushsvc_handshakes_total", outcome="overloaded") >= 1


async def test_a_user_holds_a_bounded_number_of_connections_over_all_nodes(
    valkey: EmbeddedServer, tmp_path: Any
) -> None:
    with nodes(2, valkey.url, tmp_path, max_connections_per_user=2, lease_seconds=1) as (a, b):
        async with Phone(a, "u1", "d1") as first, Phone(b, "u1", "d2"):
            for node in (a, b):
                answer = await asyncio.to_thread(shake, node)
                problem(answer, 429, "too_many_connections")
            async with Phone(a, "u2"):
                pass  # another user is not concerned
            await first.socket.close()

            def accepted() -> bool:
                return shake(b).status_code == 101

            await asyncio.to_thread(wait_until, accepted, "the closed connection's place")


async def test_connections_of_a_killed_node_count_until_its_lease_lapsed(
    valkey: EmbeddedServer, tmp_path: Any
) -> None:
    with ExitStack() as stack:
        a, b = stack.enter_context(
            nodes(2, valkey.url, tmp_path, max_connections_per_user=1, lease_seconds=1)
        )
        async with Phone(a, "u1"):
            problem(await asyncio.to_thread(shake, b), 429, "too_many_connections")
            a.kill()

        def accepted() -> bool:
            return shake(b).status_code == 101

        await asyncio.to_thread(wait_until, accepted, "the dead node's place", 5)


async def test_a_user_at_the_limit_keeps_its_connections_when_its_node_was_paused(
    valkey: EmbeddedServer, tmp_path: Any, prefix: str
) -> None:
    with Node(
        valkey.url, tmp_path, prefix=prefix, max_connections_per_user=1, lease_seconds=1
    ) as node:
        async with Phone(node, "u1") as phone:
            node.pause()
            with Redis.from_url(valkey.url) as redis:

                def lapsed() -> bool:
                    now = redis.time()[0] * 1000
                    return not redis.zrange(f"{prefix}:nodes", now, "+inf", byscore=True)

                await asyncio.to_thread(wait_until, lapsed, "the end of the lease")
            node.resume()
            await asyncio.to_thread(
                wait_until, lambda: node.metric("pushsvc_lease_lapses_total") == 1, "the lapse"
            )
            await asyncio.to_thread(wait_until, node.is_ready, "the node to be back")
            sent = await publish(node, "u1", "still here")
            assert (await phone.notification())["id"] == sent


async def test_handshakes_in_flight_are_bounded(tmp_path: Any) -> None:
    with (
        EmbeddedServer() as server,
        Node(server.url, tmp_path, max_handshakes=2) as node,
        ExitStack() as stack,
    ):
        waiting: list[Raw] = []

        def shed() -> bool:
            raw = stack.enter_context(Raw(node))
            raw.socket.settimeout(0.2)
            raw.send(request())
            try:
                return problem(raw.answer(), 503, "overloaded") is not None
            except TimeoutError:  # it is in flight, or its refusal is late
                waiting.append(raw)
                return False

        os.kill(server.pid, signal.SIGSTOP)
        try:
            await asyncio.to_thread(wait_until, shed, "a handshake to be shed")
        finally:
            os.kill(server.pid, signal.SIGCONT)
        for raw in waiting:
            raw.socket.settimeout(10)
        assert [raw.answer().status_code for raw in waiting].count(101) == 2


@pytest.mark.parametrize("path", ["/v1/ws", "/v1/stream", "/v1/poll"])
def test_who_connects_with_ever_new_devices_is_told_to_wait(
    valkey: EmbeddedServer, tmp_path: Any, prefix: str, user: str, path: str
) -> None:
    auth: dict[str, str | None] = {"Authorization": f"Bearer {token(user)}"}
    rate = 1 if path == "/v1/poll" else 2  # ten times as many polls, five times as many others
    with Node(
        valkey.url, tmp_path, prefix=prefix, rate_messages_per_second=rate, rate_burst=1,
        max_connections_per_user=2,
    ) as node:  # fmt: skip
        began = time.monotonic()
        answers = [
            shake(node, auth, target=f"{path}?device=d{number}&wait=0") for number in range(40)
        ]
        seconds = time.monotonic() - began
        # Those before it may still count as connections.
        refused = [answer for answer in answers if b"rate_limited" in answer.content]
        assert len(answers) - len(refused) <= 10 + 10 * seconds + 1
        assert 0 < problem(refused[-1], 429, "rate_limited")["retry_after"] <= 0.1
        other: dict[str, str | None] = {"Authorization": f"Bearer {token(f'{user}-2')}"}
        assert shake(node, other, target=f"{path}?wait=0").status_code in {101, 200}


def test_who_subscribes_to_many_topics_with_each_new_connection_is_told_to_wait(
    valkey: EmbeddedServer, tmp_path: Any, prefix: str, user: str
) -> None:
    auth = token(user, topics={"subscribe": ["**"]})
    every = dict.fromkeys(f"room.{number}" for number in range(256))
    with Node(
        valkey.url, tmp_path, prefix=prefix, rate_messages_per_second=0.2, rate_burst=1
    ) as node:
        for _ in range(4):  # 64 at once, and 1 + 256 / 16 each
            with RawSocket(node, user, auth=auth) as raw:
                raw.say(type="subscribe", topics=every, ref=1)
                assert len(raw.message()["topics"]) == 256
        problem(shake(node, {"Authorization": f"Bearer {auth}"}), 429, "rate_limited")
        with RawSocket(node, f"{user}-2") as other:
            other.pong()


def test_who_speaks_tls_to_the_port_without_it_hears_so_at_once(node: Node) -> None:
    context = ssl.create_default_context()
    began = time.monotonic()
    with (
        socket.create_connection(("127.0.0.1", node.port), timeout=30) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(plain, server_hostname="localhost")
    assert time.monotonic() - began < 5  # the time for a request is twice that
    wait_until(lambda: any("speaks TLS" in line["event"] for line in node.log_lines()), "the log")
