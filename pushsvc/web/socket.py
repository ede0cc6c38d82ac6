"""``GET /v1/ws``: the handshake, after which the socket belongs to the connection core."""

import asyncio
import os
import time
from collections.abc import Collection
from typing import ClassVar, Final

import structlog
from tornado.httputil import HTTPHeaders
from tornado.iostream import IOStream

from pushsvc import errors, metrics
from pushsvc.auth.tokens import Claims, Verifier
from pushsvc.errors import PushError
from pushsvc.feeds.keys import mailbox
from pushsvc.node.connections import Connection, Connections
from pushsvc.node.hub import Hub
from pushsvc.node.renewals import deadline
from pushsvc.protocol import frames, messages
from pushsvc.protocol.delivery import Backlog
from pushsvc.protocol.names import require_name
from pushsvc.protocol.session import Session
from pushsvc.web.base import Handler, bearer

BEARER_SUBPROTOCOL: Final = "bearer."
"""How a browser, which can set no header, offers its token."""

log = structlog.get_logger("pushsvc.socket")


class Admission:
    """How many connections a node takes, and how many handshakes at once.

    Args:
        connections: those that are held.
        max_connections: most of them.
        max_handshakes: most handshakes in flight.
    """

    def __init__(
        self, connections: Connections, *, max_connections: int, max_handshakes: int
    ) -> None:
        self.in_flight = 0
        self.draining = False
        self._connections = connections
        self._max_connections = max_connections
        self._max_handshakes = max_handshakes

    def check(self) -> None:
        """Whether one more handshake may begin.

        Raises:
            Overloaded: the node is at a limit, or drains.
        """
        if self.draining:
            raise errors.Overloaded("this node is draining: reconnect", retry_after=1.0)
        if self.in_flight >= self._max_handshakes:
            raise errors.Overloaded("too many handshakes at once: retry", retry_after=2.0)
        if len(self._connections) + self.in_flight >= self._max_connections:
            raise errors.Overloaded("this node holds all it can: retry", retry_after=5.0)


class Origins:
    """Which pages may connect.

    Args:
        allowed: origins, or ``*`` for all; a page served under the same host as the node is always
            allowed.
    """

    def __init__(self, allowed: Collection[str]) -> None:
        self._all = "*" in allowed
        self._allowed = frozenset(origin.lower() for origin in allowed)

    def check(self, headers: HTTPHeaders) -> None:
        """Refuse a browser page of another origin (RFC 6455, section 10.2).

        Raises:
            OriginRefused: the page may not connect.
        """
        origin = headers.get("Origin")
        if origin is None:
            return
        origin = origin.lower()
        if origin != "null":
            if self._all or origin in self._allowed:
                return
            # An origin is scheme://host[:port], nothing that needs parsing.
            host = headers.get("Host", "").lower()
            if host and origin.partition("://")[2] == host:
                return
        raise errors.OriginRefused(
            "pages of this origin may not connect: add it to PUSHSVC_ALLOWED_ORIGINS"
        )


class SocketHandler(Handler):
    """The handshake: who, from where, and is there room?"""

    route: ClassVar[str] = "ws"

    def initialize(
        self,
        verifier: Verifier,
        origins: Origins,
        admission: Admission,
        connections: Connections,
        hub: Hub,
    ) -> None:
        """Take what the application passes."""
        self._verifier = verifier
        self._origins = origins
        self._admission = admission
        self._connections = connections
        self._hub = hub
        self._gone = False

    def on_connection_close(self) -> None:
        """The client did not wait."""
        self._gone = True

    async def get(self) -> None:
        """Answer with 101 and the first messages, or with a problem."""
        outcome = "lost"
        try:
            await self._shake_hands()
            outcome = "accepted"
        except PushError as error:
            outcome = error.code
            raise
        finally:
            metrics.handshakes.labels(outcome).inc()

    async def _shake_hands(self) -> None:
        headers = self.request.headers
        key = _websocket_key(self.request.version, headers)
        self._origins.check(headers)
        subprotocol, token = _offered(headers)
        token = token or bearer(self.request)
        if not token:
            raise errors.InvalidToken(
                "send a token: Authorization: Bearer <token>, or the subprotocol bearer.<token>"
            )
        device = require_name(self.get_query_argument("device", "default", strip=False), "device")
        admission = self._admission
        admission.check()
        admission.in_flight += 1
        try:
            claims = self._verifier.verify_cached(token) or await self._verifier.verify(token)
            now = time.monotonic()
            session = Session(claims.user, device, expires=deadline(claims.expires, now), now=now)
            connection = self._connections.new(mailbox(claims.user), session)
            backlog = await self._hub.join(connection)
            self._hand_over(connection, backlog, claims, _switching(key, subprotocol))
        finally:
            admission.in_flight -= 1

    def _hand_over(
        self, connection: Connection, backlog: Backlog, claims: Claims, switching: bytes
    ) -> None:
        """Take the socket out of Tornado, by public means only."""
        stream = None if self._gone else self.detach()
        if stream is None or stream.closed():
            self._hub.left(connection)
            return
        early = _read_already(stream)
        fd = os.dup(stream.socket.fileno())
        stream.close()
        policy = self._connections.policy
        welcome = messages.welcome(
            connection=self._hub.connection_id(connection),
            user=claims.user,
            device=connection.session.device,
            heartbeat=policy.heartbeat,
            window=policy.window,
            expires_at=claims.expires,
        )
        self._connections.adopt(connection, fd)
        self._hub.start(connection, backlog, switching + frames.text(welcome))
        if early:
            self._connections.received(connection, early)

    def on_finish(self) -> None:
        """Handshakes have a metric of their own."""


def _read_already(stream: IOStream) -> bytes:
    """What the client sent behind its handshake, which nothing else will read."""
    future = asyncio.ensure_future(stream.read_bytes(65536, partial=True))
    return future.result() if future.done() else b""


def _websocket_key(version: str, headers: HTTPHeaders) -> str:
    """The key of a proper opening handshake (RFC 6455, section 4.2.1).

    Raises:
        UpgradeRequired: it is no WebSocket request, or of another version than 13.
        InvalidRequest: it is not a proper one.
    """
    upgrade = headers.get("Upgrade")
    if upgrade is None:
        raise errors.UpgradeRequired(
            "connect with a WebSocket client: this path serves nothing else"
        )
    options = [option.strip().lower() for option in headers.get("Connection", "").split(",")]
    if upgrade.lower() != "websocket" or "upgrade" not in options or version != "HTTP/1.1":
        raise errors.InvalidRequest("a handshake is HTTP/1.1 with Upgrade: websocket")
    if headers.get("Sec-WebSocket-Version") != "13":
        raise errors.UpgradeRequired("only WebSocket version 13 is served: RFC 6455")
    key: str = headers.get("Sec-WebSocket-Key", "")
    if not frames.valid_key(key):
        raise errors.InvalidRequest("Sec-WebSocket-Key is the base64 of 16 random bytes")
    return key


def _offered(headers: HTTPHeaders) -> tuple[str | None, str | None]:
    """The subprotocol to answer with, and the token offered as another one.

    Raises:
        InvalidRequest: subprotocols are offered, but none that is spoken here.
    """
    header = headers.get("Sec-WebSocket-Protocol")
    if header is None:
        return None, None
    token = None
    spoken = False
    for item in header.split(","):
        name = item.strip()
        if name.startswith(BEARER_SUBPROTOCOL):
            token = name[len(BEARER_SUBPROTOCOL) :]
        elif name == messages.SUBPROTOCOL:
            spoken = True
    if not spoken:
        raise errors.InvalidRequest(f"offer the subprotocol {messages.SUBPROTOCOL}")
    return messages.SUBPROTOCOL, token


def _switching(key: str, subprotocol: str | None) -> bytes:
    chosen = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {frames.accept_key(key)}\r\n{chosen}\r\n"
    ).encode()
