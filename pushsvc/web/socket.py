"""``GET /v1/ws``: the handshake, after which the socket belongs to the connection core."""

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Collection
from http import HTTPStatus
from typing import Any, ClassVar, Final, cast
from urllib.parse import parse_qs

import structlog
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import IOStream, StreamClosedError

from pushsvc import errors, metrics
from pushsvc.auth.tokens import Verifier
from pushsvc.errors import PushError
from pushsvc.feeds.keys import mailbox
from pushsvc.logs import SampledLog
from pushsvc.node.connections import Connection, Connections
from pushsvc.node.hub import Hub
from pushsvc.node.renewals import deadline
from pushsvc.protocol import frames, messages
from pushsvc.protocol.delivery import Backlog
from pushsvc.protocol.names import require_name
from pushsvc.protocol.session import Session
from pushsvc.web.base import Handler, bearer, problem

PATH: Final = "/v1/ws"
BEARER_SUBPROTOCOL: Final = "bearer."
"""How a browser, which can set no header, offers its token."""

log = SampledLog(structlog.get_logger("pushsvc.socket"))


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


class Handshakes:
    """The handshake: who, from where, and is there room?

    It needs the headers only, and most of the cost of a request is what follows them. So the socket
    leaves Tornado as soon as they are read, and is answered from here.

    Args:
        verifier: of tokens.
        origins: of pages that may connect.
        admission: whether there is room.
        connections: what an accepted socket becomes part of.
        hub: what an accepted connection listens to.
    """

    def __init__(
        self,
        verifier: Verifier,
        origins: Origins,
        admission: Admission,
        connections: Connections,
        hub: Hub,
    ) -> None:
        self._verifier = verifier
        self._origins = origins
        self._admission = admission
        self._connections = connections
        self._hub = hub
        self._under_way: set[asyncio.Task[None]] = set()

    def begin(self, start_line: RequestStartLine, headers: HTTPHeaders, stream: IOStream) -> None:
        """Answer a request whose stream has left Tornado."""
        taken = take_socket(stream)
        if taken is not None:
            coroutine = self._handle(start_line, headers, *taken)
            task = asyncio.get_running_loop().create_task(coroutine)
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def finished(self) -> None:
        """Wait until the handshakes under way are answered."""
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def _handle(
        self, start_line: RequestStartLine, headers: HTTPHeaders, fd: int, early: bytes
    ) -> None:
        """Answer with 101 and the first messages, or with a problem."""
        outcome = "lost"
        try:
            key, subprotocol, token, device = self._read(start_line, headers)
            connection, backlog, expires_at = await self._admit(token, device)
            first = switching(key, subprotocol) + self._welcome(connection, expires_at)
            self._connections.adopt(connection, fd)
            fd = -1
            self._hub.start(connection, backlog, first)
            if early:
                self._connections.received(connection, early)
            outcome = "accepted"
        except PushError as error:
            outcome = error.code
            log.warning("handshake refused", code=error.code)
            _refuse(fd, error)
        finally:
            metrics.handshakes.labels(outcome).inc()
            if fd >= 0:
                os.close(fd)

    def _read(
        self, start_line: RequestStartLine, headers: HTTPHeaders
    ) -> tuple[str, str | None, str, str]:
        """The key, the subprotocol, the token and the device that a request names."""
        key = websocket_key(start_line.version, headers)
        self._origins.check(headers)
        subprotocol, token = _offered(headers)
        token = token or bearer(headers)
        if not token:
            raise errors.InvalidToken(
                "send a token: Authorization: Bearer <token>, or the subprotocol bearer.<token>"
            )
        query = parse_qs(start_line.path.partition("?")[2], keep_blank_values=True)
        device = require_name(query.get("device", ["default"])[-1], "device")
        return key, subprotocol, token, device

    async def _admit(self, token: str, device: str) -> tuple[Connection, Backlog, int]:
        """A registered connection, what it is owed, and when its token expires."""
        admission = self._admission
        admission.check()
        admission.in_flight += 1
        try:
            claims = self._verifier.verify_cached(token) or await self._verifier.verify(token)
            now = time.monotonic()
            session = Session(claims.user, device, expires=deadline(claims.expires, now), seen=now)
            connection = self._connections.new(mailbox(claims.user), session)
            return connection, await self._hub.join(connection), claims.expires
        finally:
            admission.in_flight -= 1

    def _welcome(self, connection: Connection, expires_at: int) -> bytes:
        policy = self._connections.policy
        return frames.text(
            messages.welcome(
                connection=self._hub.connection_id(connection),
                user=connection.session.user,
                device=connection.session.device,
                heartbeat=policy.heartbeat,
                window=policy.window,
                expires_at=expires_at,
            )
        )


class Entrance(HTTPMessageDelegate):
    """Parts the requests for sockets from all others once their headers are read.

    Args:
        handshakes: answers those for sockets.
        connection: that the request comes on.
        others: makes Tornado's own delegate, for the others.
        arrived: told that the headers are there.
    """

    def __init__(
        self,
        handshakes: Handshakes,
        connection: HTTPConnection,
        others: Callable[[], HTTPMessageDelegate],
        arrived: Callable[[], object],
    ) -> None:
        self._arrived = arrived
        self._handshakes = handshakes
        self._connection: Any = connection
        self._others = others
        self._other: HTTPMessageDelegate | None = None

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        """Decide."""
        self._arrived()
        request = cast("RequestStartLine", start_line)
        if request.method == "GET" and request.path.partition("?")[0] == PATH:
            # May be done here and nowhere later, by Tornado's rules.
            self._handshakes.begin(request, headers, self._connection.detach())
            return None
        self._other = self._others()
        return self._other.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """Pass on."""
        return None if self._other is None else self._other.data_received(chunk)

    def finish(self) -> None:
        """Pass on."""
        if self._other is not None:
            self._other.finish()

    def on_connection_close(self) -> None:
        """Pass on."""
        if self._other is not None:
            self._other.on_connection_close()


class OtherMethods(Handler):
    """Everything but GET where the sockets are."""

    route: ClassVar[str] = "ws"

    def prepare(self) -> None:
        """Refuse."""
        raise errors.MethodNotAllowed("connect with a WebSocket client: a handshake is a GET")


def take_socket(stream: IOStream) -> tuple[int, bytes] | None:
    """Take a socket out of Tornado, by public means only.

    Returns:
        The descriptor, and what the client sent behind its handshake; None if it has gone.
    """
    if stream.closed():
        return None
    # Without this the second small frame within a round trip waits for the first one's ACK.
    stream.set_nodelay(True)
    fd = os.dup(stream.socket.fileno())
    stream.close()
    try:
        # What is left in the buffer of a closed stream can be read; an open one would be asked for
        # more first.
        early = asyncio.ensure_future(stream.read_bytes(65536, partial=True)).result()
    except StreamClosedError:
        early = b""
    return fd, early


def _refuse(fd: int, error: PushError) -> None:
    """Answer with a problem, and say that the connection ends."""
    status, headers, body = problem(error)
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "Server: pushsvc"]
    headers = {**headers, "Content-Length": str(len(body))}
    headers["Connection"] = ", ".join(filter(None, [headers.get("Connection"), "close"]))
    lines += [f"{name}: {value}" for name, value in headers.items()]
    # A fresh socket takes this whole; to a peer that is gone nothing can be said.
    with contextlib.suppress(OSError):
        os.write(fd, "\r\n".join([*lines, "", ""]).encode() + body)


def websocket_key(version: str, headers: HTTPHeaders) -> str:
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
    if "Transfer-Encoding" in headers or headers.get("Content-Length", "0") != "0":
        raise errors.InvalidRequest("a handshake has no body")
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


def switching(key: str, subprotocol: str | None) -> bytes:
    """The answer that accepts a handshake (RFC 6455, section 4.2.2)."""
    chosen = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {frames.accept_key(key)}\r\n{chosen}\r\n"
    ).encode()
