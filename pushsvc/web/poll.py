"""``GET /v1/poll``: listening by requests that are answered when there is something to say."""

import asyncio
import contextlib
import re
import select
import time
from typing import Any, ClassVar, Final

from tornado.iostream import IOStream

from pushsvc import metrics
from pushsvc.auth.gate import Gate
from pushsvc.errors import InvalidRequest, PushError
from pushsvc.node.connections import Connections
from pushsvc.node.hub import Hub
from pushsvc.node.topics import Topics
from pushsvc.protocol import encoding
from pushsvc.protocol.feeds import topic
from pushsvc.protocol.session import Session, Subscribe
from pushsvc.protocol.wire import Lines, position
from pushsvc.web.base import bearer
from pushsvc.web.cors import CrossOriginHandler
from pushsvc.web.listening import (
    Listening,
    admitted,
    allow_topics,
    arguments_of,
    held_by,
    listening,
    session_of,
)
from pushsvc.web.rates import RequestRates
from pushsvc.web.socket import Admission

WAIT: Final = 25.0
"""Seconds that a request waits for a message, where it does not say."""
MAX_WAIT: Final = 60.0
MAX_ANSWER: Final = 256 * 1024
"""Bytes from which on an answer is full; the last message may go over it."""

LOOK: Final = 2.0
"""Seconds between two looks at whether the connection was reset."""
READING: Final = 0.005
"""Seconds between two looks at whether all there is was read."""
MOST_READING: Final = 2.0
"""Most seconds for that beyond what the client would wait."""

_seconds = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3})?").fullmatch


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
        """Collect messages."""
        if self.open and data:
            self._lines.append(data)
            self._size += len(data)
            self.came.set()

    def send(self, payload: bytes) -> None:
        """Collect one message."""
        self.write(self.wire.message(payload))

    def depart(self, retry_after: float) -> None:  # noqa: ARG002 - who polls comes back by itself
        """Answer now: the client asks another node next."""
        self.departing = True
        self.came.set()

    def watch(self) -> None:
        """Nothing falls due within a request."""

    def messages(self) -> bytes:
        """What was collected, as the items of a JSON array."""
        return b"".join(self._lines).rstrip(b"\n").replace(b"\n", b",")


class PollHandler(CrossOriginHandler):
    """Answers with what there is, or with what comes."""

    route: ClassVar[str] = "poll"
    allow: ClassVar[str] = "GET, OPTIONS"

    def initialize(
        self,
        *,
        gate: Gate,
        admission: Admission,
        connections: Connections,
        hub: Hub,
        topics: Topics,
        polls: set[Poll],
        rates: RequestRates,
    ) -> None:
        """Take what the application passes.

        Args:
            gate: who may come in.
            admission: whether there is room.
            connections: whose numbers are shared.
            hub: what is listened to.
            topics: what may be listened to besides.
            polls: those that wait.
            rates: how fast each device may ask.
        """
        self._gate = gate
        self._admission = admission
        self._connections = connections
        self._hub = hub
        self._topics = topics
        self._polls = polls
        self._rates = rates
        self._poll: Poll | None = None
        self._gone = False

    async def get(self) -> None:
        """Answer with messages, at once or when one comes."""
        arguments = arguments_of(self.request.query)
        asked = listening(self.request.headers, arguments)
        wait = _wait(arguments.get("wait", [f"{WAIT:g}"])[-1])
        self._admission.check()
        self._admission.in_flight += 1
        try:
            claims = await admitted(self._gate, bearer(self.request.headers), asked.ticket)
            self._rates.spend(f"{claims.user} {asked.device}", time.monotonic())
            allow_topics(claims, asked.topics)
            session = session_of(claims, asked.device, answers=False)
            poll = Poll(self._connections.number(), session)
            # Who does not acknowledge would be told the same with each poll, and at once.
            backlog = await self._hub.join(poll, held_by(claims.user, asked.held), withdrawn=False)
        except PushError as error:
            metrics.handshakes.labels(error.code).inc()
            raise
        finally:
            self._admission.in_flight -= 1
        metrics.handshakes.labels("accepted").inc()
        metrics.connections.inc()
        try:
            self._poll = poll
            self._polls.add(poll)
            self._hub.start(poll, backlog, b"")
            for cursor in (session.cursor, session.broadcast):
                poll.wire.at(cursor.feed, cursor.sent)
            for name in asked.topics:
                if topic(name) in asked.held:
                    poll.wire.at(topic(name), asked.held[topic(name)])
            await self._listen(poll, asked, min(wait, session.expires - time.monotonic()))
            self._gate.check(claims)
        finally:
            poll.open = False
            self._polls.discard(poll)
            self._hub.left(poll)
            metrics.connections.dec()
        connection: Any = self.request.connection
        if self._gone or connection is None or connection.stream.closed() or self._finished:
            return
        at = encoding.encode(position(poll.wire.positions))
        self.set_header("Content-Type", "application/json")
        self.finish(b'{"messages":[%b],"position":%b}\n' % (poll.messages(), at))

    async def _listen(self, poll: Poll, asked: Listening, wait: float) -> None:
        # A stream that closed before the request was complete is told of to nobody.
        connection: Any = self.request.connection
        if self._gone or connection is None or connection.stream.closed():
            return
        until = time.monotonic() + wait
        subscribed = asyncio.Event()
        if asked.topics:
            positions = {name: asked.held.get(topic(name)) for name in asked.topics}
            request = Subscribe(positions, many=True, ref=None)
            self._topics.subscribe(poll, request, subscribed.set)
        else:
            subscribed.set()
        # What is kept belongs into the answer, however short the client would wait.
        await subscribed.wait()
        latest = time.monotonic() + MOST_READING
        while _reads(poll.session) and not poll.departing and time.monotonic() <= latest:
            await asyncio.sleep(READING)
        while not poll.came.is_set() and (left := until - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, LOOK)):
                    await poll.came.wait()
            if not connection.stream.closed() and _is_reset(connection.stream):
                connection.stream.close()
                return

    def on_connection_close(self) -> None:
        """Nobody waits any more."""
        super().on_connection_close()
        self.application.log_request(self)
        self._gone = True
        if self._poll is not None:
            self._poll.came.set()


def _is_reset(stream: IOStream) -> bool:
    """Whether the connection has an error: uvloop stops to watch such a socket and tells nobody."""
    watched = select.poll()
    watched.register(stream.fileno(), 0)  # errors are told without being asked for
    return bool(watched.poll(0))


def _reads(session: Session) -> bool:
    """Whether something may still come that is kept already."""
    cursors = [session.cursor, session.broadcast, *(session.topics or {}).values()]
    return any(cursor is not None and cursor.reading for cursor in cursors)


def _wait(text: str) -> float:
    if _seconds(text) is None or float(text) > MAX_WAIT:
        raise InvalidRequest(f'"wait" is a number of seconds from 0 to {MAX_WAIT:g}')
    return float(text)
