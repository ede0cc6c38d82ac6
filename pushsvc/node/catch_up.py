"""Catch-up: reads on from a cursor, and hands over what the cursor makes of the answer.

Nothing is awaited per connection, and nothing waits in a queue: a read is made when there is
something to read and room to send it.
"""

import asyncio
import functools
from collections.abc import Callable
from typing import Final

from pushsvc.errors import PushError, Unavailable, checked
from pushsvc.feeds.feed import Feeds
from pushsvc.node.listener import Listener
from pushsvc.node.observer import Observer
from pushsvc.node.tombstones import Tombstones
from pushsvc.protocol import messages
from pushsvc.protocol.delivery import Backlog, Cursor, Deliver, Gap, Step, Withdrawn
from pushsvc.protocol.feeds import fields_of
from pushsvc.protocol.session import Policy

CHUNK: Final = 16 * 1024
"""Bytes of small frames that are sent with one system call."""

Then = Callable[[Backlog], None]


class Reader:
    """Reads feeds on; a read that fails is tried again with the next tick.

    Args:
        feeds: what is read.
        observer: told of each read.
    """

    def __init__(self, feeds: Feeds, observer: Observer) -> None:
        self._feeds = feeds
        self._observer = observer
        self._stalled: dict[Cursor, Then] = {}

    def read(self, cursor: Cursor, cause: str, then: Then) -> None:
        """Read on from a cursor, and hand the answer to ``then``."""
        self._observer.reads(cause)
        self._read(cursor, then)

    def _read(self, cursor: Cursor, then: Then) -> None:
        cursor.begin_read()
        try:
            future = self._feeds.read(cursor.feed, cursor.device, cursor.sent)
        except Unavailable:
            self._stalled[cursor] = then
            return
        future.add_done_callback(functools.partial(self._was_read, cursor, then))

    def _was_read(
        self, cursor: Cursor, then: Then, future: asyncio.Future[list[Backlog | PushError]]
    ) -> None:
        try:
            backlog = checked(future.result()[0])
        except PushError:
            self._stalled[cursor] = then
            return
        then(own(cursor, backlog))

    def tick(self) -> None:
        """Try again what failed; to be called once a second."""
        stalled, self._stalled = self._stalled, {}
        for cursor, then in stalled.items():
            self._read(cursor, then)


def own(cursor: Cursor, backlog: Backlog) -> Backlog:
    """An answer of a feed that keeps no position of the device: nobody acknowledged elsewhere."""
    if cursor.device:
        return backlog
    acked = backlog.start if backlog.gap == "reset" else cursor.acked
    return backlog._replace(cursor=acked)


def message_of(feed: str, step: Step) -> tuple[int, bytes]:
    """What a step of a cursor says to the client, and the id that the client then holds."""
    if isinstance(step, Deliver):
        entry_id, body, _, state = step.entry
        return entry_id, messages.notification(entry_id, body or b"", step.attempt, state)
    if isinstance(step, Gap):
        fields = fields_of(feed)
        if step.unread is not None:
            fields["unread"] = step.unread
        return step.after, messages.gap(step.after, step.reason, **fields)
    return step.id, messages.withdrawn(step.id, step.reason)


class CatchUp:
    """Brings the connections of a node back into step with their feeds.

    Args:
        reader: of the feeds.
        policy: the rules of every session.
        clock: seconds on a monotonic clock.
        observer: told of what is sent.
    """

    def __init__(
        self, reader: Reader, policy: Policy, clock: Callable[[], float], observer: Observer
    ) -> None:
        self._reader = reader
        self._policy = policy
        self._clock = clock
        self._observer = observer
        self.tombstones = Tombstones()
        """What is not to be delivered any more, though an answer may hold it."""
        self.caught_up: Callable[[Listener, Cursor], None] = lambda _listener, _cursor: None
        """Told when there is nothing more to read for a cursor, or no room for it."""

    def read_on(self, listener: Listener, cursor: Cursor, cause: str) -> None:
        """Read on where there is something to read and room to send it."""
        if listener.writable() and cursor.wants(self._policy.window):
            self.read(listener, cursor, cause)

    def read(self, listener: Listener, cursor: Cursor, cause: str) -> None:
        """Read on, whatever the cursor knows of the feed."""
        self._reader.read(
            cursor, cause, lambda backlog: self.carry_out(listener, cursor, backlog, cause)
        )

    def tick(self) -> None:
        """Try again what failed, and forget old tombstones; to be called once a second."""
        self._reader.tick()
        self.tombstones.tick(self._clock())

    def carry_out(
        self, listener: Listener, cursor: Cursor, backlog: Backlog, cause: str, first: bytes = b""
    ) -> None:
        """Send ``first``, and then what the cursor makes of an answer of the feed."""
        if cursor.over:
            return
        if not listener.writable():
            cursor.put_off(backlog)
            return
        self._hand_over(listener, cursor, backlog, cause, first)
        listener.wire.at(cursor.feed, cursor.sent)
        if cursor.unacked is not None:
            listener.watch()
        self.read_on(listener, cursor, cause)
        if not cursor.reading:
            self.caught_up(listener, cursor)

    def _hand_over(
        self, listener: Listener, cursor: Cursor, backlog: Backlog, cause: str, first: bytes
    ) -> None:
        now = self._clock()
        chunk = [first] if first else []
        size = len(first)
        for step in cursor.plan(backlog, self._policy.window, now):
            entry_id, payload = message_of(cursor.feed, step)
            if isinstance(step, Deliver) and self.tombstones.holds(cursor.feed, entry_id):
                cursor.skip(entry_id)  # the answer is older than the withdrawal
                continue
            if isinstance(step, Withdrawn):
                frame = listener.wire.message(payload)  # it may lie before what the client holds
            else:
                frame = listener.wire.entry(cursor.feed, entry_id, payload)
            if isinstance(step, Deliver):
                cursor.take(entry_id, now)
                self._observer.delivered(listener, cursor, step)
            elif isinstance(step, Gap):
                self._observer.gap(step, listener, begins=cause == "backlog")
            chunk.append(frame)
            size += len(frame)
            if size >= CHUNK:
                listener.write(b"".join(chunk))
                chunk, size = [], 0
                if not listener.writable():
                    break
        if chunk:
            listener.write(b"".join(chunk))
        self._observer.flush()
