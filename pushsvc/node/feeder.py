"""Feeds one connection from one feed: reads on from a cursor, and hands over what the cursor says.

Nothing is awaited per connection, and nothing waits in a queue: a read is made when there is
something to read and room to send it.
"""

import asyncio
import functools
from collections.abc import Callable
from typing import Any, Final, Protocol

from pushsvc import metrics
from pushsvc.errors import PushError, Unavailable
from pushsvc.feeds.feed import Feeds
from pushsvc.feeds.journal import SENT, Journal
from pushsvc.node.spans import Spans
from pushsvc.node.withdrawals import Withdrawals
from pushsvc.protocol import messages
from pushsvc.protocol.delivery import Backlog, Cursor, Deliver, Gap, Step, Withdrawn
from pushsvc.protocol.feeds import MAILBOX, fields_of
from pushsvc.protocol.session import Policy, Session
from pushsvc.protocol.wire import Wire

CHUNK: Final = 16 * 1024
"""Bytes of small frames that are sent with one system call."""

Then = Callable[[Backlog], None]


class Listener(Protocol):
    """A connection, as those see it who feed it."""

    number: int
    session: Session
    open: bool

    @property
    def wire(self) -> Wire:
        """How messages are written to it."""

    def writable(self) -> bool:
        """Whether the next frame may be handed over."""

    def write(self, data: bytes) -> None:
        """Hand over frames."""

    def send(self, payload: bytes) -> None:
        """Send one message that is no entry of a feed."""

    def watch(self) -> None:
        """Something of the session is due earlier than before."""


class Reader:
    """Reads feeds on; a read that fails is tried again with the next tick."""

    def __init__(self, feeds: Feeds) -> None:
        self._feeds = feeds
        self._stalled: list[tuple[Cursor, Then]] = []

    def read(self, cursor: Cursor, cause: str, then: Then) -> None:
        """Read on from a cursor, and hand the answer to ``then``."""
        metrics.feed_reads.labels(cause).inc()
        self._read(cursor, then)

    def _read(self, cursor: Cursor, then: Then) -> None:
        cursor.reading = True
        # The answer tells the newest id. One that was known before may be of entries that Redis
        # has lost since, and would be read for again and again.
        cursor.head = cursor.sent
        try:
            future = self._feeds.read(cursor.feed, cursor.device, cursor.sent)
        except Unavailable:
            self._stalled.append((cursor, then))
            return
        future.add_done_callback(functools.partial(self._was_read, cursor, then))

    def _was_read(self, cursor: Cursor, then: Then, future: asyncio.Future[list[Any]]) -> None:
        try:
            backlog = Feeds.backlog(future.result()[0])
        except PushError:
            self._stalled.append((cursor, then))
            return
        then(own(cursor, backlog))

    def tick(self) -> None:
        """Try again what failed; to be called once a second."""
        stalled, self._stalled = self._stalled, []
        for cursor, then in stalled:
            self._read(cursor, then)


def own(cursor: Cursor, backlog: Backlog) -> Backlog:
    """An answer of a feed that keeps no position of the device: nobody acknowledged elsewhere."""
    if cursor.device:
        return backlog
    acked = backlog.start if backlog.gap == "reset" else cursor.acked
    return backlog._replace(cursor=acked)


def told(feed: str, step: Step) -> tuple[int, bytes]:
    """What a step of a cursor says to the client, and the id that the client then holds."""
    if isinstance(step, Deliver):
        entry_id, body, _ = step.entry
        return entry_id, messages.notification(entry_id, body or b"", step.attempt)
    if isinstance(step, Gap):
        return step.after, messages.gap(step.after, step.reason, **fields_of(feed))
    return step.id, messages.withdrawn(step.id, step.reason)


class Feeder:
    """Feeds the connections of a worker.

    Args:
        reader: of the feeds.
        policy: the rules of every session.
        clock: seconds on a monotonic clock.
        journal: remembers what was sent.
        redis_time: seconds since the epoch, by Redis time.
        spans: of what is sent; None where nothing is traced.
    """

    def __init__(
        self,
        reader: Reader,
        policy: Policy,
        clock: Callable[[], float],
        journal: Journal,
        redis_time: Callable[[], float],
        spans: Spans | None = None,
    ) -> None:
        self._reader = reader
        self._policy = policy
        self._clock = clock
        self._journal = journal
        self._redis_time = redis_time
        self._spans = spans
        self.withdrawals = Withdrawals()
        """What is not to be delivered any more, though an answer may hold it."""
        self.caught_up: Callable[[Listener, Cursor], None] = lambda _listener, _cursor: None
        """Told when there is nothing more to read for a cursor, or no room for it."""

    def catch_up(self, listener: Listener, cursor: Cursor, cause: str) -> None:
        """Read on where there is something to read and room to send it."""
        if listener.writable() and cursor.wants(self._policy.window):
            self.read(listener, cursor, cause)

    def read(self, listener: Listener, cursor: Cursor, cause: str) -> None:
        """Read on, whatever the cursor knows of the feed."""
        self._reader.read(
            cursor, cause, lambda backlog: self.feed(listener, cursor, backlog, cause)
        )

    def tick(self) -> None:
        """Try again what failed; to be called once a second."""
        self._reader.tick()

    def feed(
        self, listener: Listener, cursor: Cursor, backlog: Backlog, cause: str, first: bytes = b""
    ) -> None:
        """Carry out what the cursor makes of an answer of the feed, after sending ``first``."""
        cursor.reading = False
        if cursor.over:
            return
        if not listener.writable():
            # A gap is to be told once there is room, even if nothing comes after it.
            told_later = cursor.sent + 1 if backlog.gap else cursor.sent
            cursor.head = max(cursor.head, backlog.head, told_later)
            return
        self._hand_over(listener, cursor, backlog, first)
        listener.wire.at(cursor.feed, cursor.sent)
        if cursor.unacked is not None:
            listener.watch()
        self.catch_up(listener, cursor, cause)
        if not cursor.reading:
            self.caught_up(listener, cursor)

    def _hand_over(
        self, listener: Listener, cursor: Cursor, backlog: Backlog, first: bytes
    ) -> None:
        now = self._clock()
        chunk = [first] if first else []
        size = len(first)
        delivered = redelivered = 0
        # What goes to many is one event, and that is where it comes in.
        remembered = cursor.feed.startswith(MAILBOX)
        at = self._redis_time()
        for step in cursor.plan(backlog, self._policy.window, now):
            entry_id, payload = told(cursor.feed, step)
            if isinstance(step, Deliver) and self.withdrawals.holds(cursor.feed, entry_id):
                cursor.skip(entry_id)  # the answer is older than the withdrawal
                continue
            if isinstance(step, Withdrawn):
                frame = listener.wire.message(payload)  # it may lie before what the client holds
            else:
                frame = listener.wire.entry(cursor.feed, entry_id, payload)
            if isinstance(step, Deliver):
                cursor.take(entry_id, now)
                delivered += step.attempt == 1
                redelivered += step.attempt > 1
                if remembered:
                    self._remember(listener, cursor, step, at)
            elif isinstance(step, Gap):
                metrics.gaps.labels(step.reason).inc()
            chunk.append(frame)
            size += len(frame)
            if size >= CHUNK:
                listener.write(b"".join(chunk))
                chunk, size = [], 0
                if not listener.writable():
                    break
        if chunk:
            listener.write(b"".join(chunk))
        metrics.delivered.inc(delivered)
        metrics.redelivered.inc(redelivered)

    def _remember(self, listener: Listener, cursor: Cursor, step: Deliver, at: float) -> None:
        entry_id, body, _ = step.entry
        number, attempt = listener.number, step.attempt
        if self._journal.takes(entry_id):
            self._journal.add((at, SENT, cursor.feed, entry_id, cursor.device, number, attempt))
        if self._spans is not None:
            delivery = self._spans.delivery(cursor.feed, entry_id, body)
            if delivery is not None:
                delivery.to(number, attempt)
