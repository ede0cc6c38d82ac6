"""A channel: a topic as one node has it, with a cursor that its subscribers share.

An entry costs each subscriber that is in step one system call and nothing else. One whose socket is
full falls behind: it gets a cursor of its own, reads on from the feed when there is room again, and
is in step once its cursor stands where the channel's does.

What goes to many takes several turns of the event loop (``Turns``). The channel's cursor stands
after an entry from the first of them on: whoever comes in step meanwhile has had it, and who leaves
gets nothing more.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from itertools import islice
from typing import Any

from pushsvc.node import turns
from pushsvc.node.catch_up import CatchUp
from pushsvc.node.dispatch import pass_on
from pushsvc.node.listener import Listener
from pushsvc.node.turns import Work, parts
from pushsvc.protocol.delivery import Cursor
from pushsvc.protocol.feeds import name_of
from pushsvc.protocol.wire import Wire

FanOut = Callable[[Iterable[Any], bytes], list[Any]]
"""Writes a frame to connections; those that could not take it."""
Send = Callable[[Wire | None, Iterable[Listener], int], None]
"""Sends to so many subscribers that are written to alike, or that are not."""


class Channel:
    """A topic that someone here listens to.

    Args:
        feed: the topic's.

    Attributes:
        cursor: the one that those in step share.
        in_step: the subscribers that are in step, by how they are written to; those that share no
            frame are together under None.
        behind: those that have a cursor of their own.
        registered: whether the first registration was answered.
        held: up to where all those in step were sent everything.
    """

    __slots__ = ("_gone", "_sending_after", "behind", "cursor", "in_step", "registered")

    def __init__(self, feed: str) -> None:
        self.cursor = Cursor(feed, acks=False)
        self.cursor.begin_read()  # until the registration is answered
        self.in_step: dict[Wire | None, dict[Listener, None]] = {}
        self.behind: dict[Listener, Cursor] = {}
        self.registered = False
        # Those that have left or fallen behind since the work under way began.
        self._gone: set[Listener] | None = None
        # Where all of them stood before it.
        self._sending_after: int | None = None

    @property
    def held(self) -> int:
        """See the class."""
        return self.cursor.sent if self._sending_after is None else self._sending_after

    def __len__(self) -> int:
        return len(self.behind) + sum(map(len, self.in_step.values()))

    def add(self, listener: Listener, cursor: Cursor) -> None:
        """Take a subscriber in, with a cursor of its own."""
        self.behind[listener] = cursor
        if listener.session.topics is None:
            listener.session.topics = {}
        listener.session.topics[name_of(cursor.feed)] = cursor

    def put_in_step(self, listener: Listener) -> None:
        """From now on the subscriber shares the channel's cursor."""
        self.behind.pop(listener, None)
        wire = listener.wire if listener.wire.shared else None
        self.in_step.setdefault(wire, {})[listener] = None
        (listener.session.topics or {})[name_of(self.cursor.feed)] = None

    def remove(self, listener: Listener) -> None:
        """Forget a subscriber."""
        if self.behind.pop(listener, None) is None:
            wire = listener.wire if listener.wire.shared else None
            self.in_step.get(wire, {}).pop(listener, None)
            if self._gone is not None:
                self._gone.add(listener)

    def fall_behind(self, listener: Listener, position: int) -> None:
        """A subscriber was sent entries up to a position only."""
        if listener.session.topics and listener.open:
            self.remove(listener)
            self.add(listener, self.cursor.fall_behind(position))

    def _to_those_in_step(self, send: Send, previous: int | None = None) -> Work:
        """Send to those that are in step now and stay so until their turn comes, in parts.

        Args:
            send: does it.
            previous: where they stand before, if they do not after it.
        """
        gone = self._gone = set()
        self._sending_after = previous
        # All of them now: one that comes in step meanwhile has had what is sent.
        everyone = [(wire, list(members)) for wire, members in self.in_step.items()]
        try:
            for wire, members in everyone:
                # A slice would touch each connection twice more, which costs next to the send.
                coming, left = iter(members), len(members)
                while left > 0:
                    size = min(left, turns.PART)
                    part: Iterable[Listener] = islice(coming, size)
                    if gone:
                        part = still = [each for each in part if each not in gone]
                        send(wire, still, len(still))
                    else:
                        send(wire, part, size)
                    left -= size
                    if left > 0:
                        yield
        finally:
            self._gone = self._sending_after = None

    def dispatch(
        self, entry_id: int, previous: int, payload: bytes, fan_out: FanOut, catch_up: CatchUp
    ) -> Generator[None, None, tuple[int, int]]:
        """Send the next entry to all subscribers, in parts.

        Returns:
            How many got it, and how many read it later.
        """
        feed = self.cursor.feed
        sent = late = 0
        frames: dict[Wire, bytes] = {}

        def send(wire: Wire | None, part: Iterable[Listener], size: int) -> None:
            nonlocal sent, late
            if wire is None:
                blocked = _one_by_one(part, feed, entry_id, payload)
            else:
                frame = frames.get(wire)
                if frame is None:
                    frame = frames[wire] = wire.entry(feed, entry_id, payload)
                blocked = fan_out(part, frame)
            for listener in blocked:
                self.fall_behind(listener, previous)
            sent += size - len(blocked)
            late += len(blocked)

        was_behind = list(self.behind.items())
        self.cursor.take(entry_id, 0.0)
        try:
            yield from self._to_those_in_step(send, previous)
        except Exception:
            # Nobody may miss it for a reason that nobody foresaw; some get it twice.
            for listener in [each for members in self.in_step.values() for each in members]:
                self.fall_behind(listener, previous)
            raise
        also, later = yield from self._to_those_behind(
            was_behind, entry_id, previous, payload, catch_up
        )
        return sent + also, late + later

    def _to_those_behind(
        self,
        behind: Sequence[tuple[Listener, Cursor]],
        entry_id: int,
        previous: int,
        payload: bytes,
        catch_up: CatchUp,
    ) -> Generator[None, None, tuple[int, int]]:
        sent = late = 0
        for place, part in enumerate(parts(behind)):
            if place:
                yield
            for listener, own_cursor in part:
                if self.behind.get(listener) is not own_cursor:
                    continue  # meanwhile it has left, or caught up
                if own_cursor.offer(entry_id, previous, 1) and listener.writable():
                    listener.write(listener.wire.entry(self.cursor.feed, entry_id, payload))
                    own_cursor.take(entry_id, 0.0)
                    sent += 1
                if own_cursor.sent >= entry_id:
                    self.caught_up(listener, own_cursor)
                else:
                    late += 1
                    catch_up.read_on(listener, own_cursor, "gap")
        return sent, late

    def pass_on(self, payload: bytes) -> Generator[None, None, tuple[int, int]]:
        """Hand over what is no entry to those in step, in parts.

        Returns:
            How many got it, and how many had no room for it.
        """
        frames: dict[Wire, bytes] = {}
        sent = dropped = 0

        def send(_: Wire | None, part: Iterable[Listener], _size: int) -> None:
            nonlocal sent, dropped
            here, full = pass_on(payload, part, frames)
            sent += here
            dropped += full

        yield from self._to_those_in_step(send)
        return sent, dropped

    def tell(
        self, position: int, payload: bytes, previous: int, told: Callable[[Listener], None]
    ) -> Work:
        """Tell those in step, in parts, what stands in place of an entry.

        Args:
            position: what they then hold.
            payload: what they are told.
            previous: where one stands that could not be told.
            told: called for each that was.
        """
        feed = self.cursor.feed

        def send(_: Wire | None, part: Iterable[Listener], _size: int) -> None:
            for listener in part:
                if listener.writable():
                    listener.write(listener.wire.entry(feed, position, payload))
                    told(listener)
                else:
                    self.fall_behind(listener, previous)

        self.cursor.hold()  # one that came in step meanwhile would not be told
        yield from self._to_those_in_step(send, previous)
        self.cursor.release()

    def caught_up(self, listener: Listener, cursor: Cursor) -> bool:
        """Let a subscriber that has caught up share the channel's cursor; whether it does."""
        shared = self.cursor
        if cursor.sent != shared.sent or shared.reading or cursor.reading or not cursor.complete:
            return False
        self.put_in_step(listener)
        return True


def _one_by_one(
    listeners: Iterable[Listener], feed: str, entry_id: int, payload: bytes
) -> list[Listener]:
    """Write an entry to those that share no frame; those that have no room for it."""
    blocked = []
    for listener in listeners:
        if listener.writable():
            listener.write(listener.wire.entry(feed, entry_id, payload))
        else:
            blocked.append(listener)
    return blocked
