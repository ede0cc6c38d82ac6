"""Handshakes in which something breaks that nobody foresaw."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from types import MappingProxyType
from typing import Any

import pytest
import tornado.web
from structlog.testing import capture_logs

from pushsvc.auth.authenticator import Authenticator
from pushsvc.auth.tokens import Claims
from pushsvc.feeds.feed import Bounds
from pushsvc.feeds.nodes import Leases, Outbox
from pushsvc.feeds.read_state import ReadStates
from pushsvc.feeds.revocations import RevocationStore
from pushsvc.feeds.tickets import Tickets
from pushsvc.node.node import Node
from pushsvc.protocol.limits import Rate
from pushsvc.protocol.session import Policy
from pushsvc.server.embedded import EmbeddedServer
from pushsvc.web.admission import Admission
from pushsvc.web.api import Operations
from pushsvc.web.cors import Origins
from pushsvc.web.front import Front
from pushsvc.web.handshake import Handshakes
from pushsvc.web.rates import RequestRates
from tests.support.hubs import new_node
from tests.support.store import Store

MUCH = Rate(1e6, 1e6)
MOST = 2
"""Connections of a user."""
HEADERS = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Authorization": "Bearer any",
}


def policy(heartbeat: float = 25.0) -> Policy:
    return Policy(
        heartbeat=heartbeat, window=64, ack_timeout=30, ack_attempts=3,
        messages=MUCH, bytes=MUCH, control=MUCH,
    )  # fmt: skip


class Check:
    """Takes any token for that of one user, or has a bug."""

    def __init__(self) -> None:
        self.broken = False

    async def verify(self, token: str) -> Claims:
        raise AssertionError(token)

    def verify_cached(self, _token: str) -> Claims:
        if self.broken:
            raise ZeroDivisionError
        return Claims("u1", 4_000_000_000)

    namespaces: Mapping[str, str] = MappingProxyType({"": ""})

    def looked_at(self, token: str) -> str:
        raise AssertionError(token)

    async def aclose(self) -> None:
        pass


class World:
    """A node's handshakes, on a real server, and what they say to a client."""

    def __init__(self, url: str, prefix: str) -> None:
        self.store = store = Store(url, prefix, Bounds(100, 3600, MOST))
        self.leases = Leases(store.commands, 10)
        self.outbox = Outbox(store.commands)
        self.check = Check()
        self.authenticator = Authenticator(
            self.check,
            RevocationStore(store.commands),
            Tickets(store.commands),
        )
        self.nodes: list[Node] = []

    def handshakes(self, heartbeat: float = 25.0) -> tuple[Handshakes, Admission, Node]:
        node = new_node(
            "n1", self.store.feeds, self.leases, self.outbox, policy(heartbeat),
            sweep_seconds=60, clock=time.monotonic,
        )  # fmt: skip
        self.nodes.append(node)
        core, dispatcher = node.connections, node.dispatcher
        admission = Admission(
            self.authenticator, dispatcher, core, RequestRates(0), RequestRates(0),
            max_connections=10, max_handshakes=10,
        )  # fmt: skip
        self.parts = admission, node
        read_states = ReadStates(self.store.commands, self.outbox)
        handshakes = Handshakes(
            admission, Origins(()), core, dispatcher, node.topics, read_states
        )  # fmt: skip
        return handshakes, admission, node

    async def answer(
        self, handshakes: Handshakes, path: str = "/v1/ws", headers: Mapping[str, str] = HEADERS
    ) -> bytes:
        """All that the client of a request is sent until its connection ends."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            there = socket.create_connection(server.getsockname())
            here, _ = server.accept()
        there.setblocking(False)
        with there:
            here.setblocking(False)
            admission, node = self.parts
            front = Front(
                node.readiness, admission, handshakes, Operations({}, {}),
                tornado.web.Application(), request_timeout=10, max_places=10, max_bodies=1,
            )  # fmt: skip
            front.take(here)
            lines = [f"GET {path} HTTP/1.1", "Host: x", *(f"{k}: {v}" for k, v in headers.items())]
            there.send("\r\n".join([*lines, "", ""]).encode())
            answer = b""
            async with asyncio.timeout(10):
                while more := await asyncio.get_running_loop().sock_recv(there, 1 << 16):
                    answer += more
        return answer

    async def aclose(self) -> None:
        for node in self.nodes:
            await node.aclose()
        await self.outbox.aclose()
        await self.store.aclose()


@pytest.fixture
async def world(valkey: EmbeddedServer, prefix: str) -> AsyncIterator[World]:
    made = World(valkey.url, prefix)
    await made.leases.renew("n1", take=True)
    await made.authenticator.refresh()
    yield made
    await made.aclose()


def is_told_of_an_internal_error(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    said: dict[str, Any] = json.loads(body)
    return head.startswith(b"HTTP/1.1 500 ") and said["type"] == "urn:pushsvc:problem:internal"


async def test_a_bug_before_the_connection_is_registered_is_logged_and_answered(
    world: World,
) -> None:
    handshakes, admission, _ = world.handshakes()
    world.check.broken = True
    with capture_logs() as log:
        for path in ("/v1/ws", "/v1/stream?ticket="):
            assert is_told_of_an_internal_error(await world.answer(handshakes, path))
        await handshakes.finished(5)
    assert [(each["event"], each["route"], each["log_level"]) for each in log] == [
        ("unexpected error", "ws", "error"),
        ("unexpected error", "stream", "error"),
    ]
    assert all(each["exc_info"] for each in log)
    assert admission.in_flight == 0


async def test_a_bug_after_the_connection_is_registered_leaves_no_listener_behind(
    world: World,
) -> None:
    handshakes, _, node = world.handshakes(heartbeat=float("nan"))  # which no message can tell
    with capture_logs() as log:
        assert is_told_of_an_internal_error(await world.answer(handshakes))
        await handshakes.finished(5)
    assert [each["event"] for each in log] == ["unexpected error"]
    assert node.listeners.feeds() == []


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_good_handshake_is_accepted(world: World) -> None:
    handshakes, _, node = world.handshakes()
    answer = asyncio.create_task(world.answer(handshakes))
    await until(lambda: len(node.connections) > 0)
    for connection in node.connections:
        node.connections.abort(connection, None)
    assert (await answer).startswith(b"HTTP/1.1 101 ")


async def test_who_comes_back_before_its_loss_has_its_turn_is_let_in(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    handshakes, _, node = world.handshakes()
    monkeypatch.setattr(node.readiness.turns, "run", lambda *_: None)
    clients = [asyncio.create_task(world.answer(handshakes)) for _ in range(MOST)]
    await until(lambda: len(node.connections) == MOST)
    first = next(iter(node.connections))
    node.readiness.lose(first)
    clients.append(asyncio.create_task(world.answer(handshakes)))
    await until(lambda: not first.open or clients[-1].done())
    await until(lambda: len(node.connections) == MOST or clients[-1].done())
    for connection in list(node.connections):
        node.connections.abort(connection, None)
    for client in clients:
        assert (await client).startswith(b"HTTP/1.1 101 ")
