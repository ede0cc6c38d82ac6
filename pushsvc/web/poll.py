"""``GET /v1/poll``: listening by requests that are answered when there is something to say."""

import asyncio
import contextlib
import select
import time
from typing import Any, ClassVar, Final

from tornado.iostream import IOStream

from pushsvc import metrics
from pushsvc.errors import PushError
from pushsvc.node.connections import Connections
from pushsvc.node.dispatcher import Dispatcher
from pushsvc.node.topics import Topics
from pushsvc.protocol import encoding
from pushsvc.protocol.session import Session
from pushsvc.protocol.wire import Lines, position
from pushsvc.web.admission import Admission
from pushsvc.web.connection_request import ConnectionRequest, listening_request
from pushsvc.web.cors import CrossOriginHandler
from pushsvc.web.query import Query

WAIT: Final = 25.0
"""Seconds that a request waits for a message, where it does not say."""
MAX_WAIT: Final = 60.0
MAX_ANSWER: Final = 256 * 1024
"""Bytes from which on an answer is full; the last message may go over it."""

CHECK_SECONDS: Final = 2.0
"""Seconds between two checks whether the connection was reset."""
READ_SECONDS: Final = 0.005
"""Seconds between two checks whether all there is was read."""
MOST_READING: Final = 2.0
"""Most seconds for that beyond what the client would wait."""


class Poll:
    """A listener whose messages are collected until they are asked for.

    Args:
        number: unique in this process.
        session: its rules.
    """

    def __init__(self, number: int, session: Session) -> None:
        self.number = number
        self.session = session
        self.wire: Lines = Lines()
        self.open = True
        self.came = asyncio.Event()
        self.departing = False
        """Whether it is to be answered now, with what there is."""
        self._lines: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        """Whether more fits into the answer."""
        return self.open and self._size < MAX_ANSWER

    def write(self, data: bytes) -> None:
        if self.open and data:
            self._lines.append(data)
            self._size += len(data)
            self.came.set()

    def send(self, payload: bytes) -> None:
        self.write(self.wire.message(payload))

    def depart(self, retry_after: float) -> None:  # noqa: ARG002 - the next poll comes by itself
        """Answer now: the client asks another node next."""
        self.departing = True
        self.came.set()

    def watch(self) -> None:
        """Nothing falls due within a request."""

    def messages(self) -> bytes:
        """What was collected, as the items of a JSON array."""
        return b"".join(self._lines).rstrip(b"\n").replace(b"\n", b",")


class PollHandler(CrossOriginHandler):
    """Answers with what there is, or with what comes.

    Args:
        admission: who may come in.
        connections: whose numbers are shared.
        dispatcher: what is listened to.
        topics: what may be listened to besides.
        polls: those that wait.
    """

    route: ClassVar[str] = "poll"
    allow: ClassVar[str] = "GET, OPTIONS"

    def initialize(
        self,
        *,
        admission: Admission,
        connections: Connections,
        dispatcher: Dispatcher,
        topics: Topics,
        polls: set[Poll],
    ) -> None:
        self._admission = admission
        self._connections = connections
        self._dispatcher = dispatcher
        self._topics = topics
        self._polls = polls
        self._poll: Poll | None = None
        self._gone = False

    async def get(self) -> None:
        """Answer with messages, at once or when one comes."""
        query = Query(self.request.query)
        request = listening_request(self.request.headers, query)
        wait = query.seconds("wait", MAX_WAIT, WAIT)
        try:
            with self._admission.handshake():
                claims = await self._admission.authenticate(request, poll=True)
                session = request.session(claims, answers=False)
                poll = Poll(self._connections.number(), session)
                # A client that does not acknowledge would get the same with each poll, and at once.
                backlog = await self._admission.join(poll, request, claims, withdrawn=False)
        except PushError as error:
            metrics.handshakes.labels(error.code).inc()
            raise
        metrics.handshakes.labels("accepted").inc()
        metrics.connections.inc()
        try:
            self._poll = poll
            self._polls.add(poll)
            self._dispatcher.start(poll, backlog, b"")
            await self._listen(poll, request, min(wait, session.expires - time.monotonic()))
            self._admission.check(claims)
        finally:
            poll.open = False
            self._polls.discard(poll)
            self._dispatcher.left(poll)
            metrics.connections.dec()
        connection: Any = self.request.connection
        if self._gone or connection is None or connection.stream.closed() or self._finished:
            return
        at = encoding.encode(position(poll.wire.positions))
        self.set_header("Content-Type", "application/json")
        self.finish(b'{"messages":[%b],"position":%b}\n' % (poll.messages(), at))

    async def _listen(self, poll: Poll, request: ConnectionRequest, wait: float) -> None:
        # A stream that closed before the request was complete is not told of.
        connection: Any = self.request.connection
        if self._gone or connection is None or connection.stream.closed():
            return
        until = time.monotonic() + wait
        subscribed = asyncio.Event()
        if request.topics:
            self._topics.subscribe(poll, request.subscription(), subscribed.set)
        else:
            subscribed.set()
        # What is kept belongs into the answer, however short the client would wait.
        await subscribed.wait()
        latest = time.monotonic() + MOST_READING
        while _reads(poll.session) and not poll.departing and time.monotonic() <= latest:
            await asyncio.sleep(READ_SECONDS)
        while not poll.came.is_set() and (left := until - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, CHECK_SECONDS)):
                    await poll.came.wait()
            if not connection.stream.closed() and _is_reset(connection.stream):
                connection.stream.close()
                return

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self.application.log_request(self)
        self._gone = True
        if self._poll is not None:
            self._poll.came.set()


def _is_reset(stream: IOStream) -> bool:
    """Whether the connection has an error: uvloop stops to watch such a socket, silently."""
    watched = select.poll()
    watched.register(stream.fileno(), 0)  # errors are told without being asked for
    return bool(watched.poll(0))


def _reads(session: Session) -> bool:
    """Whether something may still come that is kept already."""
    cursors = [session.cursor, session.broadcast, *(session.topics or {}).values()]
    return any(cursor is not None and cursor.reading for cursor in cursors)
