"""How far a notification is with each device of its user, and why it is no further."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from pushsvc.feeds.event_log import SENT, Answer, ConnectionPosition, Seen
from pushsvc.feeds.nodes import node_of
from pushsvc.feeds.trace_answers import Kept
from pushsvc.protocol import ids


class DeviceStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a notification is with one device."""

    device: str
    status: str
    """``acked``, ``sent``, ``waiting`` or ``offline``."""
    time: int | None = None
    """When that was, where it is known."""
    why: str = ""


def device_statuses(
    entry_id: int,
    kept: Kept,
    answers: Mapping[str, Answer | None],
    seen: Sequence[Seen],
    acked: Mapping[str, int | None],
) -> list[DeviceStatus]:
    """How far it is with every device that it concerns, by name.

    Args:
        entry_id: its id.
        kept: what its mailbox says.
        answers: what each of the live nodes answered.
        seen: what they saw of it, in order.
        acked: the devices that have acknowledged it, and when.
    """
    return list(_DeviceStatuses(entry_id, kept, answers, seen, acked).all())


class _DeviceStatuses:
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
        self._positions = {
            each.connection: each for a in answers.values() if a for each in a.positions
        }
        self._connections: dict[str, list[str]] = {}
        for connection, device in kept.listeners.items():
            if node_of(connection) in answers:
                self._connections.setdefault(device, []).append(connection)

    def all(self) -> Iterator[DeviceStatus]:
        """Every device that it concerns, by name."""
        kept = self._kept
        concerned = self._acked.keys() | self._sent.keys()
        if self._kept.owed:
            known = kept.cursors.keys() | self._connections.keys()
            if kept.device:
                known &= {kept.device}
            concerned |= {each for each in known if kept.starts.get(each, ids.START) < self._id}
        for device in sorted(concerned):
            yield self._one(device)

    def _one(self, device: str) -> DeviceStatus:
        if device in self._acked:
            return DeviceStatus(device, "acked", self._acked[device])
        sent = self._sent.get(device, [])
        connections = self._connections.get(device, [])
        positions = [self._positions[each] for each in connections if each in self._positions]
        at = sent[-1].ms if sent else None
        if not self._kept.owed:
            return DeviceStatus(device, "sent", at, "it was not acknowledged")
        if not connections:
            return DeviceStatus(device, "offline", at, self._offline(device, sent))
        holds = any(ids.parse(each.acked) < self._id <= ids.parse(each.sent) for each in positions)
        if holds or any(each.connection in connections for each in sent):
            return DeviceStatus(device, "sent", at, _unanswered(sent))
        return DeviceStatus(device, "waiting", None, _waits(connections, positions))

    def _offline(self, device: str, sent: Sequence[Seen]) -> str:
        position = self._kept.cursors.get(device, ids.START)
        older = sum(each > position and whose in ("", device) for each, whose in self._kept.before)
        if sent:
            sent_before = "it was sent and not acknowledged before the connection ended"
            return f"{sent_before}: it is sent again when the device comes back"
        waits = f", after {many(older, 'other')}" if older else ""
        return f"not connected: it is sent when the device comes back{waits}"


def _unanswered(sent: Sequence[Seen]) -> str:
    tries = max((each.attempt for each in sent), default=1)
    return f"sent {tries} times, not acknowledged" if tries > 1 else "not acknowledged yet"


def _waits(connections: Sequence[str], positions: Sequence[ConnectionPosition]) -> str:
    """Why a connected device was not sent it."""
    if not positions:
        node = node_of(connections[0])
        return f"connected to node {node}, which did not tell where the connection stands"
    for position in positions:
        if position.unacked >= position.window:
            return f"{position.unacked} before it are not acknowledged: the window is full"
    if not any(position.writable for position in positions):
        return "the client reads too slowly: its socket is full"
    return "connected, waiting for its turn"


def many(count: int, what: str) -> str:
    """So many of something, in words."""
    return f"{count} {what}" if count == 1 or what == "more" else f"{count} {what}s"
