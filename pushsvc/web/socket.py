"""``GET /v1/ws`` and ``/v1/stream``: the handshakes, after which the core has the socket."""

import asyncio
import contextlib
import functools
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, ClassVar, Final, cast

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
from pushsvc.auth.gate import Gate
from pushsvc.codes import Close
from pushsvc.errors import PushError
from pushsvc.logs import SampledLog
from pushsvc.node.connections import Connection, Connections
from pushsvc.node.hub import Hub
from pushsvc.node.topics import Topics
from pushsvc.protocol import frames, messages
from pushsvc.protocol.delivery import Backlog
from pushsvc.protocol.feeds import topic
from pushsvc.protocol.names import require_name
from pushsvc.protocol.session import Subscribe
from pushsvc.protocol.wire import BY_SUBPROTOCOL, TEXT, EventStream, Wire
from pushsvc.web.base import Handler, bearer, problem
from pushsvc.web.cors import CrossOriginHandler, Origins, cross_origin
from pushsvc.web.listening import (
    admitted,
    allow_topics,
    arguments_of,
    held_by,
    listening,
    session_of,
)
from pushsvc.web.tls import TLSStream

PATH: Final = "/v1/ws"
STREAM_PATH: Final = "/v1/stream"
RETRY_MS: Final = (1000, 5000)
"""After how many milliseconds an event stream comes back that was cut off, at random."""
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
        """Whether load balancers are told to send nobody here any more."""
        self.closed = False
        """Whether whoever comes nevertheless is sent away."""
        self._connections = connections
        self._max_connections = max_connections
        self._max_handshakes = max_handshakes

    def check(self) -> None:
        """Whether one more handshake may begin.

        Raises:
            Overloaded: the node is at a limit, or takes nobody any more.
        """
        if self.closed:
            raise errors.Overloaded("this node is draining: reconnect", retry_after=1.0)
        if self.in_flight >= self._max_handshakes:
            raise errors.Overloaded("too many handshakes at once: retry", retry_after=2.0)
        if len(self._connections) + self.in_flight >= self._max_connections:
            raise errors.Overloaded("this node holds all it can: retry", retry_after=5.0)


@dataclass(slots=True)
class Opening:
    """What a request for a connection asks for."""

    device: str
    token: str | None
    ticket: str | None
    wire: Wire
    head: bytes
    """The answer that accepts it, up to the first message."""
    held: dict[str, int] = field(default_factory=dict)
    """The positions that the client says it holds, as ``parse_position`` reads them."""
    topics: Sequence[str] = ()


class Handshakes:
    """The handshake: who, from where, and is there room?

    It needs the headers only, and most of the cost of a request is what follows them. So the socket
    leaves Tornado as soon as they are read, and is answered from here. A WebSocket and an event
    stream differ in how they ask and how they are written to, and in nothing else.

    Args:
        gate: who may come in.
        origins: of pages that may connect.
        admission: whether there is room.
        connections: what an accepted socket becomes part of.
        hub: what an accepted connection listens to.
        topics: what it may listen to besides.
    """

    def __init__(
        self,
        gate: Gate,
        origins: Origins,
        admission: Admission,
        connections: Connections,
        hub: Hub,
        topics: Topics,
    ) -> None:
        self._gate = gate
        self._origins = origins
        self._admission = admission
        self._connections = connections
        self._hub = hub
        self._topics = topics
        self._under_way: set[asyncio.Task[None]] = set()

    def begin(self, start_line: RequestStartLine, headers: HTTPHeaders, stream: IOStream) -> None:
        """Answer a request whose stream has left Tornado."""
        taken = take_socket(stream)
        if taken is not None:
            coroutine = self._handle(start_line, headers, *taken)
            task = asyncio.get_running_loop().create_task(coroutine)
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def finished(self, seconds: float) -> None:
        """Wait until the handshakes under way are answered, or the time has passed."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=seconds)

    async def _handle(
        self, start_line: RequestStartLine, headers: HTTPHeaders, fd: int, early: bytes
    ) -> None:
        """Answer with the first messages, or with a problem."""
        outcome = "lost"
        try:
            opening = self._read(start_line, headers)
            connection, backlog, expires_at = await self._admit(opening)
            _begin_at(connection, opening)
            first = opening.head + self._welcome(connection, expires_at)
            self._connections.adopt(connection, fd)
            fd = -1
            self._hub.start(connection, backlog, first)
            if opening.topics and connection.open:
                self._subscribe(connection, opening)
            if early:
                self._connections.received(connection, early)
            outcome = "accepted"
        except PushError as error:
            outcome = error.code
            log.warning("handshake refused", code=error.code)
            # A fresh socket takes this whole; to a peer that is gone nothing can be said.
            with contextlib.suppress(OSError):
                answer = refusal(error, cross_origin(self._origins, headers))
                self._connections.transport.write(fd, answer)
        finally:
            metrics.handshakes.labels(outcome).inc()
            if fd >= 0:
                self._connections.transport.close(fd)

    def _read(self, start_line: RequestStartLine, headers: HTTPHeaders) -> Opening:
        path, _, query = start_line.path.partition("?")
        arguments = arguments_of(query)
        if path == STREAM_PATH:
            self._origins.check(headers)
            return stream_opening(headers, arguments, cross_origin(self._origins, headers))
        key = websocket_key(start_line.version, headers)
        self._origins.check(headers)
        subprotocol, token = _offered(headers)
        wire = TEXT if subprotocol is None else BY_SUBPROTOCOL[subprotocol]
        return Opening(
            require_name(arguments.get("device", ["default"])[-1], "device"),
            token or bearer(headers),
            arguments.get("ticket", [None])[-1],
            wire,
            switching(key, subprotocol),
        )

    async def _admit(self, opening: Opening) -> tuple[Connection, Backlog, int]:
        """A registered connection, what it is owed, and when its token expires."""
        admission = self._admission
        admission.check()
        admission.in_flight += 1
        try:
            claims = await admitted(self._gate, opening.token, opening.ticket)
            allow_topics(claims, opening.topics)
            session = session_of(claims, opening.device, answers=opening.wire.answers)
            connection = self._connections.new(session, opening.wire)
            held = held_by(claims.user, opening.held)
            backlog = await self._hub.join(connection, held)
            try:
                self._gate.check(claims)
            except PushError:
                self._hub.left(connection)
                raise
            return connection, backlog, claims.expires
        finally:
            admission.in_flight -= 1

    def _welcome(self, connection: Connection, expires_at: int) -> bytes:
        policy = self._connections.policy
        session = connection.session
        return connection.wire.message(
            messages.welcome(
                connection=self._hub.connection_id(connection),
                user=session.user,
                device=session.device,
                heartbeat=policy.heartbeat,
                window=policy.window,
                expires_at=expires_at,
            )
        )

    def _subscribe(self, connection: Connection, opening: Opening) -> None:
        positions = {name: opening.held.get(topic(name)) for name in opening.topics}
        self._topics.subscribe(
            connection,
            Subscribe(positions, many=True, ref=None),
            functools.partial(_subscribed, connection, opening.topics),
        )


def _begin_at(connection: Connection, opening: Opening) -> None:
    """Tell the peer's place with the first message: it may be cut off before the second."""
    session = connection.session
    for cursor in (session.cursor, session.broadcast):
        connection.wire.at(cursor.feed, cursor.sent)
    for name in opening.topics:
        if topic(name) in opening.held:
            connection.wire.at(topic(name), opening.held[topic(name)])


def _subscribed(connection: Connection, topics: Sequence[str]) -> None:
    """Tell a stream its place in its topics; one that has them not must ask again."""
    if not connection.open:
        return
    if any(name not in (connection.session.topics or ()) for name in topics):
        connection.end(Close.GOING_AWAY)
    elif isinstance(connection.wire, EventStream):
        connection.write(connection.wire.place())


def stream_opening(
    headers: HTTPHeaders, arguments: dict[str, list[str]], cors: dict[str, str]
) -> Opening:
    """What a request for an event stream asks for.

    Raises:
        InvalidRequest: the device, a topic or a position is none.
    """
    asked = listening(headers, arguments)
    lines = [
        "HTTP/1.1 200 OK",
        "Server: pushsvc",
        "Content-Type: text/event-stream",
        "Cache-Control: no-store",
        # The stream ends with the connection; a proxy must not keep events back to fill a buffer.
        "Connection: close",
        "X-Accel-Buffering: no",
        *(f"{name}: {value}" for name, value in cors.items()),
        "",
        # Who was cut off together shall not come back together.
        f"retry: {random.randint(*RETRY_MS)}",  # noqa: S311 - not a secret
        "\n",
    ]
    head = "\r\n".join(lines[:-2]) + "\r\n" + lines[-2] + "\n\n"
    return Opening(
        asked.device,
        bearer(headers),
        asked.ticket,
        EventStream(),
        head.encode(),
        asked.held,
        asked.topics,
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
        if request.method == "GET" and request.path.partition("?")[0] in (PATH, STREAM_PATH):
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


class StreamPreflight(CrossOriginHandler):
    """Everything but GET where the event streams are."""

    route: ClassVar[str] = "stream"
    allow: ClassVar[str] = "GET, OPTIONS"


def take_socket(stream: IOStream) -> tuple[int, bytes] | None:
    """Take a socket out of Tornado, by public means only.

    Returns:
        The descriptor, and what the client sent behind its handshake; None if it has gone.
    """
    if stream.closed():
        return None
    # Without this the second small frame within a round trip waits for the first one's ACK.
    stream.set_nodelay(True)
    if isinstance(stream, TLSStream):
        fd = stream.release()
    else:
        fd = os.dup(stream.socket.fileno())
        stream.close()
    try:
        # What is left in the buffer of a closed stream can be read; an open one would be asked for
        # more first.
        early = asyncio.ensure_future(stream.read_bytes(65536, partial=True)).result()
    except StreamClosedError:
        early = b""
    return fd, early


def refusal(error: PushError, cors: dict[str, str]) -> bytes:
    """The answer to a handshake with a problem, which says that the connection ends."""
    status, headers, body = problem(error)
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "Server: pushsvc"]
    headers = {**headers, **cors, "Content-Length": str(len(body))}
    headers["Connection"] = ", ".join(filter(None, [headers.get("Connection"), "close"]))
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


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
    token = spoken = None
    for item in header.split(","):
        name = item.strip()
        if name.startswith(BEARER_SUBPROTOCOL):
            token = name[len(BEARER_SUBPROTOCOL) :]
        elif name in BY_SUBPROTOCOL and spoken is None:
            spoken = name  # the client's first choice (RFC 6455, section 4.1)
    if spoken is None:
        raise errors.InvalidRequest(f"offer a subprotocol: {' or '.join(BY_SUBPROTOCOL)}")
    return spoken, token


def switching(key: str, subprotocol: str | None) -> bytes:
    """The answer that accepts a handshake (RFC 6455, section 4.2.2)."""
    chosen = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {frames.accept_key(key)}\r\n{chosen}\r\n"
    ).encode()
