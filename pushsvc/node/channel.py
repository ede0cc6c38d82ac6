"""A channel: a topic as one node has it, with a cursor that its subscribers share.

An entry costs each subscriber that is in step one system call and nothing else. One whose socket is
full falls behind: it gets a cursor of its own, reads on from the feed when there is room again, and
is in step once its cursor stands where the channel's does.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pushsvc.node.catch_up import CatchUp
from pushsvc.node.listener import Listener
from pushsvc.protocol.delivery import Cursor
from pushsvc.protocol.feeds import name_of
from pushsvc.protocol.wire import Wire

FanOut = Callable[[Iterable[Any], bytes], list[Any]]
"""Writes a frame to connections; those that could not take it."""


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
    """

    __slots__ = ("behind", "cursor", "in_step", "registered")

    def __init__(self, feed: str) -> None:
        self.cursor = Cursor(feed, acks=False)
        self.cursor.begin_read()  # until the registration is answered
        self.in_step: dict[Wire | None, dict[Listener, None]] = {}
        self.behind: dict[Listener, Cursor] = {}
        self.registered = False

    def __len__(self) -> int:
        return len(self.behind) + sum(map(len, self.in_step.values()))

    def listeners_in_step(self) -> Sequence[Listener]:
        """The subscribers that are in step."""
        return [listener for members in self.in_step.values() for listener in members]

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

    def fall_behind(self, listener: Listener, position: int) -> None:
        """A subscriber was sent entries up to a position only."""
        if listener.session.topics and listener.open:
            self.remove(listener)
            self.add(listener, self.cursor.fall_behind(position))

    def dispatch(
        self, entry_id: int, previous: int, payload: bytes, fan_out: FanOut, catch_up: CatchUp
    ) -> tuple[int, int]:
        """Send the next entry to all subscribers; how many got it, and how many read it later."""
        feed = self.cursor.feed
        sent = 0
        blocked: list[Listener] = []
        for wire, members in self.in_step.items():
            sent += len(members)
            if wire is not None:
                blocked += fan_out(list(members), wire.entry(feed, entry_id, payload))
                continue
            for listener in list(members):
                if listener.writable():
                    listener.write(listener.wire.entry(feed, entry_id, payload))
                elif listener.open:
                    blocked.append(listener)
                else:
                    sent -= 1
        was_behind = list(self.behind.items())
        self.cursor.take(entry_id, 0.0)
        for listener in blocked:
            self.fall_behind(listener, previous)
        late = len(blocked)
        for listener, own_cursor in was_behind:
            if own_cursor.offer(entry_id, previous, 1) and listener.writable():
                listener.write(listener.wire.entry(feed, entry_id, payload))
                own_cursor.take(entry_id, 0.0)
                sent += 1
            if own_cursor.sent >= entry_id:
                self.caught_up(listener, own_cursor)
            else:
                late += 1
                catch_up.read_on(listener, own_cursor, "gap")
        return sent - len(blocked), late

    def caught_up(self, listener: Listener, cursor: Cursor) -> bool:
        """Let a subscriber that has caught up share the channel's cursor; whether it does."""
        shared = self.cursor
        if cursor.sent != shared.sent or shared.reading or cursor.reading or not cursor.complete:
            return False
        self.put_in_step(listener)
        return True
