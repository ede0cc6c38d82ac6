"""``GET /v1/poll``: listening by requests that are answered when there is something to say."""

import asyncio
import contextlib
import time
from typing import ClassVar, Final

from pushsvc import metrics
from pushsvc.errors import InvalidRequest, PushError
from pushsvc.feeds.read_state import ReadStates
from pushsvc.node.connections import Connections
from pushsvc.node.dispatcher import Dispatcher
from pushsvc.node.topics import Topics
from pushsvc.protocol import encoding
from pushsvc.protocol.session import Session
from pushsvc.protocol.wire import Lines, position
from pushsvc.web.admission import Admission
from pushsvc.web.connection_request import ConnectionRequest, listening_request
from pushsvc.web.cors import Origins
from pushsvc.web.operation import ANYONE, Admitted, Answer, Operation, Request
from pushsvc.web.query import Query

WAIT: Final = 25.0
"""Seconds that a request waits for a message, where it does not say."""
MAX_WAIT: Final = 60.0
MAX_ANSWER: Final = 256 * 1024
"""Bytes from which on an answer is full; the last message may go over it."""

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

    @property
    def empty(self) -> bool:
        """Whether nothing came."""
        return not self._lines

    def messages(self) -> bytes:
        """What was collected, as the items of a JSON array."""
        return b"".join(self._lines).rstrip(b"\n").replace(b"\n", b",")


class PollOperation(Operation):
    """Answers with what there is, or with what comes.

    Args:
        admission: who may come in.
        connections: whose numbers are shared.
        dispatcher: what is listened to.
        topics: what may be listened to besides.
        polls: those that wait.
        read_states: for how many are unread.
        origins: which pages may poll.
    """

    route: ClassVar[str] = "poll"
    allow: ClassVar[str] = "GET, OPTIONS"
    abandons: ClassVar[bool] = True

    def __init__(
        self,
        *,
        admission: Admission,
        connections: Connections,
        dispatcher: Dispatcher,
        topics: Topics,
        polls: set[Poll],
        read_states: ReadStates,
        origins: Origins,
    ) -> None:
        super().__init__(origins)
        self._admission = admission
        self._connections = connections
        self._dispatcher = dispatcher
        self._topics = topics
        self._polls = polls
        self._read_states = read_states

    async def admit(self, request: Request) -> Admitted:
        """Refuse what is no poll; who polls is found out when it is answered.

        Raises:
            OriginRefused: a page calls that may not.
            MethodNotAllowed: the method is another one.
            InvalidRequest: it has a body, for which nobody is waited who has shown no token.
        """
        self.check_method(request)
        if request.length:
            raise InvalidRequest("ask for messages without a body")
        return Admitted(ANYONE, 0)

    async def answer(self, request: Request, admitted: Admitted, body: bytes) -> Answer:  # noqa: ARG002 - the interface
        """Answer with messages, at once or when one comes."""
        query = Query(request.query)
        asked = listening_request(request.headers, query)
        wait, known = query.seconds("wait", MAX_WAIT, WAIT), query.one("unread")
        try:
            with self._admission.handshake():
                claims = await self._admission.authenticate(asked, poll=True)
                session = asked.session(claims, answers=False)
                poll = Poll(self._connections.number(), session)
                # A client that does not acknowledge would get the same with each poll, and at once.
                backlog = await self._admission.join(poll, asked, claims, withdrawn=False)
        except PushError as error:
            metrics.handshakes.labels(error.code).inc()
            raise
        metrics.handshakes.labels("accepted").inc()
        metrics.connections.inc()
        try:
            self._polls.add(poll)
            self._dispatcher.start(poll, backlog, b"")
            if known is not None and known != str(backlog.unread):
                wait = 0.0  # something was read or archived between two polls
            await self._listen(poll, asked, min(wait, session.expires - time.monotonic()))
            self._admission.check(claims)
            unread = backlog.unread
            if unread is None or not poll.empty:
                unread = await self._read_states.count(session.cursor.feed)
        finally:
            poll.open = False
            self._polls.discard(poll)
            self._dispatcher.left(poll)
            metrics.connections.dec()
        at = encoding.encode(position(poll.wire.positions))
        told = poll.messages(), at, unread
        return Answer(200, b'{"messages":[%b],"position":%b,"unread":%d}\n' % told)

    async def _listen(self, poll: Poll, asked: ConnectionRequest, wait: float) -> None:
        until = time.monotonic() + wait
        if asked.topics:
            subscribed = asyncio.Event()
            self._topics.subscribe(poll, asked.subscription(), subscribed.set)
            await subscribed.wait()
        # What is kept belongs into the answer, however short the client would wait.
        latest = time.monotonic() + MOST_READING
        while _reads(poll.session) and not poll.departing and time.monotonic() <= latest:
            await asyncio.sleep(READ_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                await poll.came.wait()


def _reads(session: Session) -> bool:
    """Whether something may still come that is kept already."""
    cursors = [session.cursor, session.broadcast, *(session.topics or {}).values()]
    return any(cursor is not None and cursor.reading for cursor in cursors)
