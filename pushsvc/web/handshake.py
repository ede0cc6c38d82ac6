"""The handshakes of WebSockets and event streams, after which the core has the socket.

A handshake needs the headers only, and most of the cost of a request is what follows them. So the
socket leaves Tornado as soon as they are read, and is answered from here.
"""

import asyncio
import contextlib
import functools
import os
from collections.abc import Sequence
from http import HTTPStatus

import structlog
from tornado.httputil import HTTPHeaders, RequestStartLine
from tornado.iostream import IOStream, StreamClosedError

from pushsvc import errors, metrics
from pushsvc.codes import Close
from pushsvc.errors import PushError
from pushsvc.logs import SampledLog
from pushsvc.node.connections import Connection, Connections
from pushsvc.node.dispatcher import Dispatcher
from pushsvc.node.tasks import Tasks
from pushsvc.node.topics import Topics
from pushsvc.protocol import messages
from pushsvc.protocol.wire import BY_SUBPROTOCOL, TEXT, EventStream, Wire
from pushsvc.web import event_stream, websocket
from pushsvc.web.admission import Admission
from pushsvc.web.connection_request import ConnectionRequest, device_of, listening_request
from pushsvc.web.cors import Origins, Pairs, cross_origin
from pushsvc.web.operation import bearer, problem
from pushsvc.web.query import Query
from pushsvc.web.tls import TLSStream

log = structlog.get_logger("pushsvc.socket")
sampled = SampledLog(log)


class Handshakes:
    """Answers requests for sockets: with the first messages, or with a problem.

    A WebSocket and an event stream differ in how they ask and how they are written to, and in
    nothing else.

    Args:
        admission: who may come in.
        origins: of pages that may connect.
        connections: what an accepted socket becomes part of.
        dispatcher: what an accepted connection listens to.
        topics: what it may listen to besides.
    """

    def __init__(
        self,
        admission: Admission,
        origins: Origins,
        connections: Connections,
        dispatcher: Dispatcher,
        topics: Topics,
    ) -> None:
        self._admission = admission
        self._origins = origins
        self._connections = connections
        self._dispatcher = dispatcher
        self._topics = topics
        self._under_way = Tasks("handshakes")

    def begin(self, start_line: RequestStartLine, headers: HTTPHeaders, stream: IOStream) -> None:
        """Answer a request whose stream has left Tornado."""
        taken = take_socket(stream)
        if taken is not None:
            self._under_way.spawn(self._handle(start_line, headers, *taken))

    async def finished(self, seconds: float) -> None:
        """Wait until the handshakes under way are answered, or the time has passed."""
        await self._under_way.wait(seconds)

    async def _handle(
        self, start_line: RequestStartLine, headers: HTTPHeaders, fd: int, early: bytes
    ) -> None:
        outcome = "lost"
        joined: Connection | None = None
        try:
            request, wire, head = self._read(start_line, headers)
            with self._admission.handshake():
                claims = await self._admission.authenticate(request)
                session = request.session(claims, answers=wire.answers)
                connection = self._connections.new(session, wire)
                backlog = await self._admission.join(connection, request, claims)
            joined = connection
            first = head + self._welcome(connection, claims.expires)
            self._connections.readiness.add(connection, fd)
            self._connections.adopt(connection, fd)
            fd = -1
            self._dispatcher.start(connection, backlog, first)
            if request.topics and connection.open:
                self._topics.subscribe(
                    connection,
                    request.subscription(),
                    functools.partial(_subscribed, connection, request.topics),
                )
            if early:
                self._connections.received(connection, early)
            outcome = "accepted"
        except PushError as error:
            sampled.warning("handshake refused", code=error.code, detail=error.detail)
            outcome = self._give_up(error, headers, fd, joined)
        except Exception:
            log.exception("unexpected error", route=_route(start_line))
            outcome = self._give_up(errors.internal(), headers, fd, joined)
        finally:
            metrics.handshakes.labels(outcome).inc()
            if fd >= 0:
                self._connections.transport.close(fd)

    def _give_up(
        self, error: PushError, headers: HTTPHeaders, fd: int, joined: Connection | None
    ) -> str:
        """Tell the client what is wrong, and forget what was registered for it; the outcome."""
        if fd < 0:
            if joined is not None:
                self._connections.abort(joined, None)
            return error.code
        if joined is not None:
            self._dispatcher.left(joined)
        # A fresh socket takes this whole; to a peer that is gone nothing can be said.
        with contextlib.suppress(OSError):
            answer = refusal(error, cross_origin(self._origins, headers))
            self._connections.transport.write(fd, answer)
        return error.code

    def _read(
        self, start_line: RequestStartLine, headers: HTTPHeaders
    ) -> tuple[ConnectionRequest, Wire, bytes]:
        """What is asked for, how it is written to, and the answer up to the first message.

        Raises:
            PushError: the request is not a proper one, or its page may not connect.
        """
        path, _, text = start_line.path.partition("?")
        query = Query(text)
        if path == event_stream.PATH:
            self._origins.check(headers)
            request = listening_request(headers, query)
            return (
                request,
                EventStream(),
                event_stream.streaming(cross_origin(self._origins, headers)),
            )
        key = websocket.websocket_key(start_line.version, headers)
        self._origins.check(headers)
        subprotocol, token = websocket.subprotocol_of(headers)
        wire = TEXT if subprotocol is None else BY_SUBPROTOCOL[subprotocol]
        request = ConnectionRequest(device_of(query), token or bearer(headers), query.one("ticket"))
        return request, wire, websocket.switching(key, subprotocol)

    def _welcome(self, connection: Connection, expires_at: int) -> bytes:
        policy = self._connections.policy
        session = connection.session
        return connection.wire.message(
            messages.welcome(
                connection=self._dispatcher.connection_id(connection),
                user=session.user,
                device=session.device,
                heartbeat=policy.heartbeat,
                window=policy.window,
                expires_at=expires_at,
            )
        )


def _route(start_line: RequestStartLine) -> str:
    """The route of a request, as handlers name theirs; a query may hold a ticket."""
    is_stream = start_line.path.partition("?")[0] == event_stream.PATH
    return event_stream.StreamHandler.route if is_stream else websocket.WebSocketHandler.route


def _subscribed(connection: Connection, topics: Sequence[str]) -> None:
    """Tell a stream its positions in its topics; a client that was refused one must ask again."""
    if not connection.open:
        return
    if any(name not in (connection.session.topics or ()) for name in topics):
        connection.end(Close.GOING_AWAY)
    elif isinstance(connection.wire, EventStream):
        connection.write(connection.wire.position_event())


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


def refusal(error: PushError, cors: Pairs) -> bytes:
    """The answer to a handshake with a problem, which says that the connection ends."""
    answer = problem(error)
    lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}", "Server: pushsvc"]
    headers = {**dict(answer.headers), **dict(cors), "Content-Length": str(len(answer.body))}
    headers["Connection"] = ", ".join(filter(None, [headers.get("Connection"), "close"]))
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + answer.body
