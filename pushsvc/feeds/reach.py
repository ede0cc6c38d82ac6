"""How far a notification is with each device of its user, and why it is no further."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from pushsvc.feeds.history import Acked
from pushsvc.feeds.journal import SENT, Answer, Place, Seen
from pushsvc.feeds.nodes import node_of
from pushsvc.protocol import ids


class Kept(NamedTuple):
    """What a feed keeps of an entry, and of those who are owed it.

    The defaults are those of a feed that knows nothing.
    """

    now: int
    """Milliseconds since the epoch, like all times here."""
    expires: int | None = None
    """None where the entry is not kept."""
    body: bytes = b""
    withdrawn: str = ""
    """Why it was withdrawn."""
    ended: tuple[str, int] | None = None
    """How it ended, and when, where a receipt is to tell that."""
    listeners: Mapping[str, str] = {}
    """Of a mailbox: connection id to device."""
    cursors: Mapping[str, int] = {}
    """Device to the last id that it acknowledged."""
    starts: Mapping[str, int] = {}
    """Device to the id at which it began."""
    acked: Sequence[Acked] = ()
    """The devices that have acknowledged this id, or a later one."""
    head: int = ids.START
    trimmed: int = ids.START
    before: Sequence[int] = ()
    """The ids of those kept before it, newest first."""

    @property
    def owed(self) -> bool:
        """Whether who has not had it is still to be sent it."""
        return self.expires is not None and self.expires > self.now


class Device(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far it is with one device."""

    device: str
    status: str
    """``acked``, ``sent``, ``waiting`` or ``offline``."""
    time: int | None = None
    """When that was, where it is known."""
    why: str = ""


def reach(
    entry_id: int,
    kept: Kept,
    answers: Mapping[str, Answer | None],
    seen: Sequence[Seen],
    acked: Mapping[str, int | None],
) -> list[Device]:
    """How far it is with every device that it concerns, by name.

    Args:
        entry_id: its id.
        kept: what its mailbox says.
        answers: what each of the live nodes answered.
        seen: what they saw of it, in order.
        acked: who has acknowledged it, and when.
    """
    return list(_Devices(entry_id, kept, answers, seen, acked).all())


class _Devices:
    """How far it is with each device of the user."""

    def __init__(
        self,
        entry_id: int,
        kept: Kept,
        answers: Mapping[str, Answer | None],
        seen: Sequence[Seen],
        acked: Mapping[str, int | None],
    ) -> None:
        self._id = entry_id
        self._kept = kept
        self._acked = acked
        self._sent: dict[str, list[Seen]] = {}
        for event in seen:
            if event.what == SENT:
                self._sent.setdefault(event.device, []).append(event)
        self._places = {
            place.connection: place for a in answers.values() if a for place in a.places
        }
        self._connections: dict[str, list[str]] = {}
        for connection, device in kept.listeners.items():
            if node_of(connection) in answers:
                self._connections.setdefault(device, []).append(connection)

    def all(self) -> Iterator[Device]:
        """Every device that it concerns, by name."""
        kept = self._kept
        concerned = self._acked.keys() | self._sent.keys()
        if self._kept.owed:
            known = kept.cursors.keys() | self._connections.keys()
            concerned |= {each for each in known if kept.starts.get(each, ids.START) < self._id}
        for device in sorted(concerned):
            yield self._one(device)

    def _one(self, device: str) -> Device:
        if device in self._acked:
            return Device(device, "acked", self._acked[device])
        sent = self._sent.get(device, [])
        connections = self._connections.get(device, [])
        places = [self._places[each] for each in connections if each in self._places]
        at = sent[-1].ms if sent else None
        if not self._kept.owed:
            return Device(device, "sent", at, "it was not acknowledged")
        if not connections:
            return Device(device, "offline", at, self._offline(device, sent))
        holds = any(ids.parse(each.acked) < self._id <= ids.parse(each.sent) for each in places)
        if holds or any(each.connection in connections for each in sent):
            return Device(device, "sent", at, _unanswered(sent))
        return Device(device, "waiting", None, _waits(connections, places))

    def _offline(self, device: str, sent: Sequence[Seen]) -> str:
        position = self._kept.cursors.get(device, ids.START)
        older = sum(each > position for each in self._kept.before)
        if sent:
            told = "it was sent and not acknowledged before the connection ended"
            return f"{told}: it is sent again when the device comes back"
        waits = f", after {many(older, 'other')}" if older else ""
        return f"not connected: it is sent when the device comes back{waits}"


def _unanswered(sent: Sequence[Seen]) -> str:
    tries = max((each.attempt for each in sent), default=1)
    return f"sent {tries} times, not acknowledged" if tries > 1 else "not acknowledged yet"


def _waits(connections: Sequence[str], places: Sequence[Place]) -> str:
    """Why a connected device was not sent it."""
    if not places:
        node = node_of(connections[0])
        return f"connected to node {node}, which did not tell where the connection stands"
    for place in places:
        if place.unacked >= place.window:
            return f"{place.unacked} before it are not acknowledged: the window is full"
    if not any(place.writable for place in places):
        return "the client reads too slowly: its socket is full"
    return "connected, waiting for its turn"


def many(count: int, what: str) -> str:
    """So many of something, in words."""
    return f"{count} {what}" if count == 1 or what == "more" else f"{count} {what}s"
