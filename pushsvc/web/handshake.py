"""The handshakes of WebSockets and event streams, after which the core has the socket.

A handshake needs the headers only. The socket stays where it is: what the HTTP connection was in
the readiness set, the WebSocket or stream is from the answer on.
"""

import functools
import time
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import structlog

from pushsvc import errors, metrics
from pushsvc.codes import Close
from pushsvc.errors import PushError
from pushsvc.feeds.read_state import ReadStates
from pushsvc.logs import SampledLog
from pushsvc.node.connections import Connection, Connections
from pushsvc.node.dispatcher import Dispatcher
from pushsvc.node.tasks import Tasks
from pushsvc.node.topics import Topics
from pushsvc.protocol import messages
from pushsvc.protocol.answers import Pairs
from pushsvc.protocol.requests import Head
from pushsvc.protocol.wire import BY_SUBPROTOCOL, TEXT, EventStream, Wire
from pushsvc.web import event_stream, websocket
from pushsvc.web.admission import Admission
from pushsvc.web.connection_request import ConnectionRequest, device_of, listening_request
from pushsvc.web.cors import Origins, cross_origin
from pushsvc.web.handshake_queue import HandshakeQueue
from pushsvc.web.operation import SERVER, Answer, bearer, problem
from pushsvc.web.query import Query

SOCKETS: Final = frozenset({websocket.PATH, event_stream.PATH})
"""Where a GET asks for a socket."""

FIELD_BYTES: Final = 128
"""What a field takes besides its name and value."""
CLIENT_BYTES: Final = 1024
"""What a client takes besides its request."""

log = structlog.get_logger("pushsvc.socket")
sampled = SampledLog(log)


class Client(Protocol):
    """The connection that a request for a socket came on."""

    fd: int
    """Negative once the client has gone."""

    def release(self) -> tuple[int, bytes]:
        """Give the socket up; the descriptor, watched for input, and what came behind."""

    def answer_last(self, answer: Answer, headers: Pairs) -> None:
        """Refuse the request, and end the connection."""


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
        read_states: for how many are unread.
    """

    def __init__(
        self,
        admission: Admission,
        origins: Origins,
        connections: Connections,
        dispatcher: Dispatcher,
        topics: Topics,
        read_states: ReadStates,
    ) -> None:
        self._read_states = read_states
        self._admission = admission
        self._origins = origins
        self._connections = connections
        self._dispatcher = dispatcher
        self._topics = topics
        self._under_way = Tasks("handshakes")
        self._queue: HandshakeQueue[tuple[Head, Client]] = HandshakeQueue(
            admission.max_handshakes, self._begin, self._shed
        )

    def begin(self, head: Head, client: Client) -> None:
        """Answer a request that came on a connection, which waits for that, in its turn."""
        self._queue.put((head, client), _size(head))

    def gone(self, head: Head, client: Client) -> None:
        """Forget a request that waits for its turn, if it does: its client has gone."""
        self._queue.drop((head, client))

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._queue)

    @property
    def full(self) -> bool:
        """Whether so many wait that no more connections should be accepted."""
        return self._queue.full

    async def finished(self, seconds: float) -> None:
        """Wait until all handshakes are answered, or the time has passed."""
        deadline = time.monotonic() + seconds
        while self._under_way and (left := deadline - time.monotonic()) > 0:
            await self._under_way.wait(left)

    def _begin(self, handshake: tuple[Head, Client]) -> None:
        self._under_way.spawn(self._handle(*handshake))

    def _shed(self, handshake: tuple[Head, Client]) -> None:
        head, client = handshake
        error = errors.Overloaded("too many handshakes at once: retry", retry_after=2.0)
        sampled.warning("handshake refused", code=error.code, detail=error.detail)
        metrics.handshakes.labels(error.code).inc()
        self._refuse(error, head.headers, client)

    async def _handle(self, head: Head, client: Client) -> None:
        outcome = "lost"
        joined: Connection | None = None
        adopted: Connection | None = None
        try:
            if client.fd < 0:
                return
            request, wire, begin = self._read(head)
            with self._admission.entered():
                claims = await self._admission.authenticate(request, apart=self._queue.apart)
                with self._admission.handshake(entered=True):
                    session = request.session(claims, answers=wire.answers)
                    connection = self._connections.new(session, wire)
                    backlog = await self._admission.join(connection, request, claims)
                    joined = connection
                    unread = backlog.unread
                    if unread is None:
                        unread = await self._read_states.count(session.cursor.feed)
            first = begin + self._welcome(connection, claims.expires, unread)
            if client.fd < 0:
                self._dispatcher.left(connection)
                return
            fd, early = client.release()
            self._connections.adopt(connection, fd)
            joined, adopted = None, connection
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
            outcome = error.code
            self._give_up(error, head.headers, client, joined, adopted)
        except Exception:
            log.exception("unexpected error", route=_route(head))
            outcome = PushError.code
            self._give_up(errors.internal(), head.headers, client, joined, adopted)
        finally:
            metrics.handshakes.labels(outcome).inc()
            self._queue.ended()

    def _give_up(
        self,
        error: PushError,
        headers: Mapping[str, str],
        client: Client,
        joined: Connection | None,
        adopted: Connection | None,
    ) -> None:
        """Tell the client what is wrong, and forget what was registered for it."""
        if adopted is not None:
            self._connections.abort(adopted, None)
        if joined is not None:
            self._dispatcher.left(joined)
        self._refuse(error, headers, client)

    def _refuse(self, error: PushError, headers: Mapping[str, str], client: Client) -> None:
        answer = problem(error)
        cors = cross_origin(self._origins, headers)
        client.answer_last(answer, (*SERVER, *answer.headers, *cors))

    def _read(self, head: Head) -> tuple[ConnectionRequest, Wire, bytes]:
        """What is asked for, how it is written to, and the answer up to the first message.

        Raises:
            PushError: the request is not a proper one, or its page may not connect.
        """
        headers = head.headers
        if head.length:
            # What follows would be taken for frames.
            raise errors.InvalidRequest("ask for messages without a body")
        path, _, text = head.target.partition("?")
        query = Query(text)
        if path == event_stream.PATH:
            self._origins.check(headers)
            request = listening_request(headers, query)
            return (
                request,
                EventStream(),
                event_stream.streaming(cross_origin(self._origins, headers)),
            )
        key = websocket.websocket_key(head.version, headers)
        self._origins.check(headers)
        subprotocol, token = websocket.subprotocol_of(headers)
        wire = TEXT if subprotocol is None else BY_SUBPROTOCOL[subprotocol]
        request = ConnectionRequest(device_of(query), token or bearer(headers), query.one("ticket"))
        return request, wire, websocket.switching(key, subprotocol)

    def _welcome(self, connection: Connection, expires_at: int, unread: int) -> bytes:
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
                unread=unread,
            )
        )


def _size(head: Head) -> int:
    """About the bytes that a request keeps while it waits."""
    fields = sum(len(name) + len(value) + FIELD_BYTES for name, value in head.headers.items())
    return CLIENT_BYTES + len(head.target) + fields


def _route(head: Head) -> str:
    """The route of a request, as handlers name theirs; a query may hold a ticket."""
    is_stream = head.target.partition("?")[0] == event_stream.PATH
    return event_stream.StreamHandler.route if is_stream else websocket.WebSocketHandler.route


def _subscribed(connection: Connection, topics: Sequence[str]) -> None:
    """Tell a stream its positions in its topics; a client that was refused one must ask again."""
    if not connection.open:
        return
    if any(name not in (connection.session.topics or ()) for name in topics):
        connection.end(Close.GOING_AWAY)
    elif isinstance(connection.wire, EventStream):
        connection.write(connection.wire.position_event())
