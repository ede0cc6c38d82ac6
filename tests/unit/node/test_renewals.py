"""New tokens on live connections, and what breaks there that nobody foresaw."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any

import pytest
from structlog.testing import capture_logs

from pushsvc.auth.tokens import Claims
from pushsvc.node.connections import Connection, Connections
from pushsvc.node.readiness import ReadinessSet
from pushsvc.node.renewals import Renewals
from pushsvc.protocol.limits import Rate
from pushsvc.protocol.session import Policy
from pushsvc.protocol.wire import TEXT
from tests.support.hubs import session_of

MUCH = Rate(1e6, 1e6)
POLICY = Policy(
    heartbeat=25, window=64, ack_timeout=30, ack_attempts=3,
    messages=MUCH, bytes=MUCH, control=MUCH,
)  # fmt: skip


class Broken:
    """A verifier with a bug on the way to its keys."""

    async def verify(self, token: str) -> Claims:
        raise ZeroDivisionError(token)

    def verify_cached(self, _token: str) -> None:
        return None

    namespaces: Mapping[str, str] = MappingProxyType({"": ""})

    def looked_at(self, token: str) -> str:
        raise AssertionError(token)

    async def aclose(self) -> None:
        pass


class Another(Broken):
    """A verifier of tokens of another issuer, which are the namespace of their user."""

    def verify_cached(self, token: str) -> Claims:  # type: ignore[override]
        return Claims("u1", 2_000_000_000, namespace=token, issuer="another")


class Nobody:
    """The owner of a connection that is sent nothing."""

    def drained(self, *_: object) -> None: ...

    def acked(self, *_: object) -> None: ...
    def redeliver(self, *_: object) -> None: ...
    def left(self, *_: object) -> None: ...

    def written(self, *_: object) -> None: ...


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Connection, socket.socket]]:
    def nothing(*_: object) -> None: ...

    watched = ReadinessSet()
    core = Connections(POLICY, 1024, Nobody(), nothing, nothing, watched)
    here, there = socket.socketpair()
    here.setblocking(False)
    there.setblocking(False)
    connection = core.new(session_of("u1", "phone"), TEXT)
    fd = here.detach()
    watched.add(connection, fd)
    core.adopt(connection, fd)
    with there:
        yield connection, there
        watched.close()


async def test_a_connection_is_of_the_issuer_whose_token_it_has_now(
    pair: tuple[Connection, socket.socket],
) -> None:
    connection, _ = pair
    renewals = Renewals(Another(), POLICY, lambda: 0.0)
    held = []
    for namespace in ("", "elsewhere"):
        connection.session.issuer = ""
        renewals.renew(connection, namespace, None)
        held.append((connection.session.issuer, connection.open))
    assert held == [("another", True), ("", False)]
    await renewals.aclose()


async def test_a_bug_in_a_renewal_is_logged_and_answered_and_the_connection_lives(
    pair: tuple[Connection, socket.socket],
) -> None:
    connection, there = pair
    renewals = Renewals(Broken(), POLICY, lambda: 0.0)
    with capture_logs() as log:
        renewals.renew(connection, "the-token", 7)
        async with asyncio.timeout(10):
            data = await asyncio.get_running_loop().sock_recv(there, 4096)
    said: dict[str, Any] = json.loads(data[data.index(b"{") :])  # behind the frame's header
    assert (said["type"], said["code"], said["ref"]) == ("error", "internal", 7)
    ((event, level),) = [(each["event"], each["log_level"]) for each in log]
    assert (event, level) == ("unexpected error", "error")
    assert connection.open
    await renewals.aclose()
