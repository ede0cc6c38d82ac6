"""Positions in one feed: what was sent, what was acknowledged, what comes next.

Three positions in the feed say it all. ``acked <= sent <= head``: entries up to ``acked`` are done,
those up to ``sent`` were handed to the socket, those up to ``head`` are known to exist. Entries
are not kept here; whatever is not sent at once is read from the feed later, so a connection that is
slow, throttled or silent costs no memory.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from pushsvc.protocol import ids

UNKNOWN = -1
"""The ``prev`` of an entry whose predecessor is not known: never equal to a position."""


class LogEntry(NamedTuple):
    """One entry of a feed, as read from it; ``body`` is None once its time to live has passed."""

    id: int
    body: bytes | None
    withdrawn: str = ""
    """Why it was withdrawn, if it was: ``recalled``, or ``acked`` by another device."""
    state: str = ""
    """Of a mailbox what its user has made of it: ``read``, ``archived``, or nothing yet."""


class Backlog(NamedTuple):
    """An answer of the feed: all there is after ``start``, up to ``upto``."""

    cursor: int
    """The device's acknowledged position."""
    head: int
    """The newest id of the feed."""
    start: int
    """Where reading began."""
    upto: int
    """Everything in ``(start, upto]`` is in ``entries`` or is gone."""
    gap: str
    """Why entries after ``start`` are missing: ``trimmed``, ``reset`` or empty."""
    entries: Sequence[LogEntry]
    broadcast: int = ids.START
    """The device's position in the broadcast, in the answer to a join."""
    unread: int | None = None
    """How many of a mailbox are unread, in the answer to a join and after a reset.

    None elsewhere, and where much is to be looked at first."""

    @property
    def size(self) -> int:
        """Bytes of the bodies."""
        return sum(len(entry.body or b"") for entry in self.entries)


class Deliver(NamedTuple):
    """Hand this entry to the socket; ``attempt`` counts from 1."""

    entry: LogEntry
    attempt: int


class Gap(NamedTuple):
    """Tell the client that entries after ``after`` are gone."""

    after: int
    reason: str
    claimed: bool = False
    """That ``after`` was ever a position in the feed is what the client says, and nobody else."""
    unread: int | None = None
    """How many of a mailbox are unread after a reset."""


class Withdrawn(NamedTuple):
    """Tell the client that an entry, which it may hold, is withdrawn."""

    id: int
    reason: str


Step = Deliver | Gap | Withdrawn


class Cursor(msgspec.Struct, gc=False, eq=False):
    """The cursor of a connection, a channel or a node in one feed.

    Args:
        feed: the feed.
        device: whose acknowledged position the feed keeps; empty where it keeps none.
        acks: whether entries are acknowledged. Where they are not, one that was handed to the
            socket is done.

    ``window``, an argument of several methods, is the most entries that may be sent and not
    acknowledged: the flow control of the feed. ``now`` is in seconds on a monotonic clock.

    As a struct without ``gc`` it is invisible to the garbage collector, which would else walk
    every connection of a worker at each full collection.
    """

    feed: str
    device: str = ""
    acks: bool = True
    acked: int = ids.START
    sent: int = ids.START
    head: int = ids.START
    unacked: list[int] | None = None
    """Ids that were sent and not acknowledged, oldest first; an idle connection holds no list."""
    attempt: int = 1
    progress: float = 0.0
    """When the oldest unacknowledged entry was sent, or an acknowledgement last moved on."""
    reading: bool = False
    """A read of the feed is under way: what comes meanwhile only moves the head."""
    over: bool = False
    """The listener has left; a read may still be under way."""
    claimed: bool = False
    """``sent`` is what the client says that it holds, of which the feed has not been asked yet."""

    @property
    def outstanding(self) -> int:
        """How many entries up to ``sent`` are not acknowledged."""
        return bisect_right(self.unacked, self.sent) if self.unacked else 0

    @property
    def complete(self) -> bool:
        """Whether all was sent that must come before anything else."""
        return True

    def offer(self, entry_id: int, previous: int, window: int) -> bool:
        """Learn of a new entry; whether it follows what was sent and may go out now."""
        self.head = max(self.head, entry_id)
        return previous == self.sent and not self.reading and self._room(window)

    def wants(self, window: int) -> bool:
        """Whether there is something to read and room to send it."""
        return self.sent < self.head and not self.reading and self.outstanding < window

    def _room(self, window: int) -> bool:
        """Whether one more entry may be sent for the first time."""
        return self.unacked is None or len(self.unacked) < window

    def begin_read(self) -> None:
        """A read from ``sent`` on begins; its answer goes to ``plan`` or ``put_off``.

        The answer tells the newest id. One that was known before may be of an entry that Redis has
        lost since, and would be read for again and again, so it is forgotten here.
        """
        self.reading = True
        self.head = self.sent

    def hold(self) -> None:
        """Something must be known before anything more is sent; ``release`` says that it is."""
        self.reading = True

    def release(self) -> None:
        """Go on after ``hold``."""
        self.reading = False

    def put_off(self, backlog: Backlog) -> None:
        """There is no room for an answer of the feed: it is to be read again later."""
        self.reading = False
        self.follow(backlog.head)
        if backlog.gap:
            self.must_read()  # to be told once there is room, even if nothing comes after it

    def follow(self, head: int) -> None:
        """Learn that entries up to ``head`` exist."""
        self.head = max(self.head, head)

    def must_read(self) -> None:
        """There is something to be told that is no newer entry: that entries are gone."""
        self.follow(self.sent + 1)

    def lost_after(self, head: int) -> None:
        """Learn that Redis lost the entries after ``head``: one that was sent some must read."""
        self.head = head
        if self.sent > head:
            self.must_read()

    def jump(self, position: int) -> None:
        """Stand at a position: nothing up to it is owed."""
        self.acked = self.sent = position
        self.follow(position)

    def fall_behind(self, position: int) -> "Cursor":
        """The cursor of a subscriber that shared this one and was sent entries up to a position.

        Something after the position was to be told to it, be it that entries are gone.
        """
        own = Cursor(self.feed, self.device, acks=self.acks)
        own.jump(position)
        own.follow(self.sent)
        own.must_read()
        return own

    def close(self) -> None:
        """The listener has left."""
        self.over = True

    def take(self, entry_id: int, now: float) -> None:
        """The entry was handed to the socket."""
        self.sent = entry_id
        if not self.acks:
            return
        if not self.unacked:
            self.unacked = [entry_id]
            self.progress = now
        elif entry_id > self.unacked[-1]:
            self.unacked.append(entry_id)

    def skip(self, entry_id: int) -> None:
        """The entry is done without having been handed to the socket."""
        self.sent = max(self.sent, entry_id)

    def ack(self, entry_id: int, now: float) -> bool:
        """Acknowledge everything up to an entry.

        Returns:
            Whether the position moved. It does not for an id that this connection was not sent.
        """
        if not self.unacked or entry_id not in self.unacked:
            return False
        self._settle(entry_id, now)
        return True

    def settle(self, entry_id: int, now: float) -> bool:
        """Learn that another connection of the device acknowledged up to an entry.

        Returns:
            Whether the position moved.
        """
        if entry_id <= self.acked:
            return False
        self._settle(entry_id, now)
        return True

    def withdraw(self, entry_id: int) -> bool:
        """Learn that an entry was withdrawn.

        Returns:
            Whether the client may hold it, and must be told.
        """
        if not self.acked < entry_id <= self.sent:
            return False
        if self.unacked and entry_id in self.unacked:
            self.unacked = [i for i in self.unacked if i != entry_id] or None
            if self.unacked is None:
                self.attempt = 1
        return True

    def begin(self, position: int, held: int | None = None) -> None:
        """Stand where a client begins, before the first plan.

        Args:
            position: what was acknowledged.
            held: what the client says that it holds beyond that.
        """
        self.acked = self.sent = position
        if held is not None and held > position:
            self.sent = held
            self.claimed = True

    def confirm(self) -> None:
        """Learn that the position is one of the feed, whoever says so."""
        self.claimed = False

    def plan(self, backlog: Backlog, window: int, now: float) -> Iterator[Step]:
        """What to do with an answer of the feed, step by step.

        The caller carries out a step, and says so by ``take`` for a ``Deliver``, before it asks for
        the next. Where the socket is full it stops asking: the cursor stands after the last entry
        taken, and a later read goes on from there.
        """
        self.reading = False
        held, claimed = self.sent, self.claimed
        self.confirm()  # or it is given up: the next position is one of the feed
        self._learn(backlog, now)
        if backlog.start > self.sent:
            return  # the cursor was rewound while the read was under way
        before = frozenset(self.unacked or ())
        self._forget_gone(backlog)
        missing = backlog.gap
        for entry in backlog.entries:
            if entry.id <= self.sent and not entry.withdrawn:
                continue
            again = entry.id in before
            if not (again or entry.withdrawn or self._room(window)):
                # What was sent since the rewind and is gone needs no further read.
                self.sent = max(self.sent, *(self.unacked or ()))
                return
            if entry.body is None and not entry.withdrawn:
                # A client that was sent an entry before its time to live passed does not miss it,
                # and one that needs no acknowledgement is owed to none.
                if not again and self.acks:
                    missing = missing or "trimmed"
                continue
            if missing:
                yield self._gap(missing, held, claimed, backlog.unread)
                missing = ""
            if entry.withdrawn:
                yield from self._withdrawn(entry)
            else:
                # An acknowledgement since the rewind has set the count back, not the history.
                yield Deliver(entry, max(2, self.attempt) if again else 1)
        if missing:
            yield self._gap(missing, held, claimed, backlog.unread)
        self.sent = max(self.sent, backlog.upto)

    def _gap(self, reason: str, held: int, claimed: bool, unread: int | None) -> Gap:  # noqa: FBT001 - as `plan` had it
        if reason == "reset":
            return Gap(held, reason, claimed, unread)
        return Gap(self.sent, reason)

    def _withdrawn(self, entry: LogEntry) -> Iterator[Withdrawn]:
        if entry.id > self.acked:
            yield Withdrawn(entry.id, entry.withdrawn)
        self.skip(entry.id)

    def overdue(self, now: float, timeout: float) -> bool:
        """Whether acknowledgements made no progress for ``timeout`` seconds."""
        return self.unacked is not None and now - self.progress >= timeout

    def rewind(self, now: float) -> None:
        """Go back to what was acknowledged: what was sent since goes out again, as an attempt."""
        self.head = max(self.head, self.sent)
        self.sent = self.acked
        self.attempt += 1
        self.progress = now

    def _learn(self, backlog: Backlog, now: float) -> None:
        if backlog.gap == "reset":
            # The feed lost its newest entries: ids that were held mean nothing any more.
            self.head = backlog.head
            self.sent = backlog.start
            self.acked = backlog.cursor
            self.unacked = None
            self.attempt = 1
            return
        self.head = max(self.head, backlog.head)
        if backlog.cursor > self.acked:
            # Another socket of the device acknowledged further.
            self._settle(backlog.cursor, now)

    def _settle(self, entry_id: int, now: float) -> None:
        self.acked = entry_id
        self.sent = max(self.sent, entry_id)
        self.progress = now
        self.attempt = 1
        if self.unacked:
            self.unacked = [i for i in self.unacked if i > entry_id] or None

    def _forget_gone(self, backlog: Backlog) -> None:
        """Stop waiting for acknowledgements of entries that the feed does not hold any more.

        Those behind one that is still waited for stay: an acknowledgement of them covers it.
        """
        if self.unacked:
            held = {entry.id for entry in backlog.entries if entry.body is not None}
            for place, i in enumerate(self.unacked):
                if not backlog.start < i <= backlog.upto or i in held:
                    self.unacked = self.unacked[place:]
                    return
            self.unacked = None
            self.attempt = 1


class StateCursor(Cursor, gc=False, eq=False):
    """The cursor of a subscriber that begins with the state of a topic, which takes several reads.

    The state is the newest entry of each collapse key. Until all of it is sent, up to ``upto``,
    nothing else is: the feed would tell the history.
    """

    upto: int = ids.START

    def ends_at(self, upto: int) -> None:
        """Learn where the state ends."""
        self.upto = upto

    @property
    def complete(self) -> bool:
        """Whether all of the state was sent."""
        return self.sent >= self.upto

    def offer(self, entry_id: int, previous: int, window: int) -> bool:
        """As of any cursor, once the state is complete."""
        return Cursor.offer(self, entry_id, previous, window) and self.complete

    def wants(self, window: int) -> bool:
        """As of any cursor, once the state is complete."""
        return self.complete and Cursor.wants(self, window)

    def _learn(self, backlog: Backlog, now: float) -> None:
        if backlog.gap == "reset" and self.complete:
            self.upto = ids.START  # what Redis lost since is no part of the state
        super()._learn(backlog, now)
