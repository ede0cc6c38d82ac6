"""What a node did lately with notifications: a bounded ring, read by traces.

It is written on the paths that every notification takes, so it must cost next to nothing there. An
event is a plain tuple of strings and numbers that are there anyway, and nothing in it refers to a
connection. What goes to many at once (a topic, the broadcast) is one event with their number. Acks
are not in it: the mailbox itself keeps who acknowledged what, and when.

A busy node does not remember everything: the past that is kept would shrink to seconds, and an
event that is kept for long costs memory that has left the processor's cache when it is dropped. It
takes the notifications of every second, fourth, eighth ... millisecond, by their ids. So nodes that
are as busy remember the same ones, each with all of its steps.
"""

from collections import deque
from typing import Final, Literal

import msgspec

from pushsvc.feeds.nodes import connection_id
from pushsvc.protocol import ids
from pushsvc.protocol.feeds import namespace_of

ACCEPTED: Final = "accepted"
SENT: Final = "sent"
SPREAD: Final = "spread"
CLOSED: Final = "closed"
WITHDRAWN: Final = "withdrawn"
PUSHED: Final = "pushed"

SPAN: Final = 30
"""Seconds that the ring is to cover, where a node is busy."""
LARGEST_MASK: Final = 1023
EVERYTHING: Final = -1
MOST_SEEN: Final = 200
"""Most events of one answer; the newest are kept."""

Event = (
    # its publisher, the durability it reached ('' where that is not known), live connections,
    # nodes, the device that it is for ('' for all)
    tuple[float, Literal["accepted"], str, int, str, str, int, tuple[str, ...], str]
    # device, number of the connection, attempt
    | tuple[float, Literal["sent"], str, int, str, int, int]
    # connections that got it at once, and those that read it later
    | tuple[float, Literal["spread"], str, int, int, int]
    # device, number of the connection, the oldest that it owed an ack of; the id is the newest
    | tuple[float, Literal["closed"], str, int, str, int, int]
    # why
    | tuple[float, Literal["withdrawn"], str, int, str]
    # device, attempt, the push provider and what it said
    | tuple[float, Literal["pushed"], str, int, str, int, str]
)
"""Time (seconds since the epoch, by Redis), what, feed, id, and what follows by kind."""


class Seen(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event as a trace gets it."""

    time: float
    """Seconds since the epoch, by Redis time."""
    what: str
    feed: str
    node: str
    device: str = ""
    connection: str = ""
    by: str = ""
    """The publisher."""
    durability: str = ""
    count: int = 0
    """Connections that it was routed or written to."""
    late: int = 0
    """Connections that read it from the feed instead."""
    attempt: int = 0
    nodes: tuple[str, ...] = ()
    """Those that it was routed to."""
    reason: str = ""

    @property
    def ms(self) -> int:
        """The time, in milliseconds."""
        return round(self.time * 1000)


class EventLog:
    """The ring of one node.

    Args:
        size: most events; 0 remembers nothing.

    """

    __slots__ = ("_added", "_events", "_mask", "_most")

    def __init__(self, size: int) -> None:
        self._events: deque[Event] = deque(maxlen=size)
        self._most = max(1, size // SPAN)
        self._added = 0
        # Of an id's milliseconds, the bits that must be 0; all of them where nothing is remembered.
        self._mask = 0 if size else EVERYTHING

    def takes(self, entry_id: int) -> bool:
        """Whether what happens to an entry is remembered."""
        return not ids.milliseconds(entry_id) & self._mask

    def add(self, event: Event) -> None:
        """Remember an event."""
        self._events.append(event)
        self._added += 1
        if self._added >= self._most:
            self._added = 0
            self._mask = min(self._mask << 1 | 1, LARGEST_MASK) if self._mask >= 0 else self._mask

    def tick(self) -> None:
        """Take more again where there is room for it; to be called once a second."""
        if self._mask > 0 and self._added < self._most // 4:
            self._mask >>= 1
        self._added = 0

    def forget(self, mailbox: str, user: str) -> None:
        """Forget what happened in a mailbox, and what its user published."""
        namespace = namespace_of(mailbox)
        kept = [
            event
            for event in self._events
            if event[2] != mailbox
            and not (
                event[1] == "accepted" and event[4] == user and namespace_of(event[2]) == namespace
            )
        ]
        self._events.clear()
        self._events.extend(kept)

    def __len__(self) -> int:
        return len(self._events)

    def since(self) -> float | None:
        """From when on it remembers everything: seconds since the epoch, None for the start."""
        events = self._events
        return events[0][0] if events and len(events) == events.maxlen else None

    def about(
        self, entry_id: int, feed: str | None, node: str, namespace: str | None = None
    ) -> list[Seen]:
        """What it remembers of one notification, oldest first.

        Args:
            entry_id: its id.
            feed: where it was published; None for every feed that has one with this id.
            node: the node's id.
            namespace: of the feeds; None for all.
        """
        found: list[Seen] = []
        sent: set[tuple[str, int]] = set()
        for event in self._events:
            if event[3] < entry_id or (feed is not None and event[2] != feed):
                continue
            if event[1] == "closed":
                tells = (event[2], event[5]) in sent and event[6] <= entry_id
            else:
                tells = event[3] == entry_id
                if tells and event[1] == "sent":
                    sent.add((event[2], event[5]))
            if tells and (namespace is None or namespace_of(event[2]) == namespace):
                found.append(_to_seen(event, node))
        return found[-MOST_SEEN:]


def _to_seen(event: Event, node: str) -> Seen:
    """An event in words.

    The connection is named as the node is called now: under the name of an earlier lease nobody
    knows it any more.
    """
    time, what, feed = event[0], event[1], event[2]
    if event[1] == "accepted":
        _, _, _, _, by, durability, count, nodes, device = event
        return Seen(
            time, what, feed, node, device, by=by, durability=durability, count=count, nodes=nodes
        )
    if event[1] == "sent":
        _, _, _, _, device, number, attempt = event
        return Seen(time, what, feed, node, device, connection_id(node, number), attempt=attempt)
    if event[1] == "spread":
        return Seen(time, what, feed, node, count=event[4], late=event[5])
    if event[1] == "withdrawn":
        return Seen(time, what, feed, node, reason=event[4])
    if event[1] == "pushed":
        return Seen(time, what, feed, node, event[4], attempt=event[5], reason=event[6])
    _, _, _, _, device, number, _ = event
    return Seen(time, what, feed, node, device, connection_id(node, number))


class ConnectionPosition(msgspec.Struct, frozen=True):
    """Where a live connection stands in the mailbox."""

    connection: str
    device: str
    sent: str
    """The newest id that it was sent."""
    acked: str
    """The newest id that it acknowledged."""
    unacked: int
    """How many it was sent and has not acknowledged."""
    window: int
    """Most of them."""
    writable: bool
    """Whether its socket takes more."""


class Answer(msgspec.Struct, frozen=True, rename={"positions": "places"}):
    """What a node knows of a notification."""

    seen: list[Seen]
    positions: list[ConnectionPosition]
    since: float | None
    """From when on its event log remembers everything, None for its start."""
