"""What a mailbox holds, who has acknowledged it, who is there, and taking something back."""

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from pushsvc.errors import PushError
from pushsvc.feeds.nodes import ControlMessage, Leases, Outbox, node_of
from pushsvc.feeds.read_state import up_to_date
from pushsvc.protocol import ids
from pushsvc.protocol.names import named
from pushsvc.protocol.read_state import ARCHIVED, READ, UNREAD
from pushsvc.store import schema
from pushsvc.store.redis import Redis

PAGE_BYTES: Final = 512 * 1024
"""Bytes of bodies after which a page ends."""
PAGE_LOOKS: Final = 1000
"""Most entries that are looked at for a page, whether their time to live has passed or not; and
most acks, past which the time of one is told as not known."""


class Acked(NamedTuple):
    """A device that has acknowledged something, and when."""

    device: str
    time: int | None
    """Milliseconds since the epoch; None where it is no longer known."""


class Retained(NamedTuple):
    """A notification that is kept."""

    id: int
    expires: int
    """Milliseconds since the epoch."""
    body: bytes
    acked: Sequence[Acked]
    device: str = ""
    """The one device that it is for, empty for all."""
    state: str | None = None
    """Its read state, empty for a signal, which has none; None where it was not asked for."""


class Page(NamedTuple):
    """A part of what is kept, newest first."""

    entries: Sequence[Retained]
    following: int | None
    """The id before which the next page begins, None at the end."""
    unread: int = 0
    """How many of the mailbox are unread."""


class Wanted(NamedTuple):
    """Which notifications are asked for."""

    states: str
    """Their read states, each by its letter."""
    event: str = ""
    """Their event, empty for any."""


SIGNALS: Final = "s"
"""What has no read state."""
UNARCHIVED: Final = "ur"
UNFILTERED: Final = Wanted(UNARCHIVED + SIGNALS)
EVERYTHING: Final = Wanted(UNARCHIVED + SIGNALS + "a")
_STATES: Final = {b"u": UNREAD, b"r": READ, b"a": ARCHIVED, b"s": ""}


class Present(NamedTuple):
    """A device that is connected."""

    device: str
    connections: int
    since: int
    """Milliseconds since the epoch: when the longest of its connections began."""


class Device(NamedTuple):
    """A device that has a position in the mailbox, or is connected."""

    device: str
    acked: int | None
    """Its position, None where it has acknowledged nothing."""
    connections: int


class Acks:
    """Who acknowledged what, and when.

    Acks are cumulative: a device has acknowledged an entry once it has acknowledged that or a later
    one.

    Args:
        cursors: device to the last id that it acknowledged.
        starts: device to the id at which it began.
        acks: for each ack that is known its time (ms), device and id, in order.
        since: the time (ms) from which on all acks are known.
    """

    def __init__(
        self,
        cursors: Mapping[str, int],
        starts: Mapping[str, int],
        acks: Sequence[tuple[int, str, int]],
        since: int,
    ) -> None:
        self._cursors = cursors
        self._starts = starts
        self._since = since
        self._acks: dict[str, list[tuple[int, int]]] = {}
        for time, device, entry_id in acks:
            self._acks.setdefault(device, []).append((entry_id, time))
        # A device may have lost its cursor to a newer one.
        self._devices = sorted(cursors.keys() | self._acks.keys())

    def of(self, entry_id: int, only: str = "") -> list[Acked]:
        """The devices that have acknowledged an entry, of which one alone may do so."""
        found = []
        for device in self._devices:
            if only not in ("", device) or entry_id <= self._starts.get(device, ids.START):
                continue
            acks = self._acks.get(device, [])
            index = bisect_left(acks, (entry_id, 0))
            later = index < len(acks)
            if later or entry_id <= self._cursors.get(device, ids.START):
                # The first ack that is known is the first one of all, if none before it is lost.
                certain = index > 0 or self._since < ids.milliseconds(entry_id)
                found.append(Acked(device, acks[index][1] if later and certain else None))
        return found


class History:
    """Questions about mailboxes.

    A coroutine that asks Redis raises ``PushError`` where that cannot be reached or refuses.

    Args:
        redis: for the questions.
        leases: who is live.
        outbox: for the nodes that hold a device of what was taken back.
        retention: seconds.
        receipts_due: called with mailboxes for which a receipt may be due.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        leases: Leases,
        outbox: Outbox,
        retention: float,
        receipts_due: Callable[[str], None],
    ) -> None:
        self._redis = redis
        self._leases = leases
        self._outbox = outbox
        self._retention = round(retention * 1000)
        self._receipts_due = receipts_due

    async def page(
        self,
        feed: str,
        before: int | None,
        most: int,
        wanted: Wanted = UNFILTERED,
    ) -> Page:
        """What a mailbox keeps, newest first, without what has outlived its time to live.

        A page may hold fewer than there are, or none at all; ``following`` tells whether it is the
        last.

        Args:
            feed: the mailbox.
            before: the ``following`` of the page before, None for the first one.
            most: most notifications.
            wanted: which of them.
        """
        keys = self._redis.keys
        command = self._redis.script(
            "list", (keys.log(feed), keys.cursors(feed), keys.acks(feed)),
            "" if before is None else ids.render(before), most, PAGE_BYTES, PAGE_LOOKS, *wanted,
        )  # fmt: skip
        return await up_to_date(self._redis, command, _page)

    async def recall(self, feed: str, entry_id: int) -> list[str] | None:
        """Recall a notification: a device that lacks it never gets it, one with it is told.

        Returns:
            The devices that had acknowledged it, None where it is not kept.
        """
        keys = self._redis.keys
        answer = await self._redis.run(
            "withdraw",
            (keys.log(feed), keys.listeners(feed), keys.cursors(feed), keys.marks(feed)),
            ids.render(entry_id),
            self._retention,
        )
        if answer is None:
            return None
        listeners, acked, receipt, device = answer
        told = [ids.render(entry_id), "recalled"]
        for node in {node_of(each) for each in await self._live(schema.devices(listeners))}:
            if device:
                # Nodes of before, which have sent it to all devices, go by what follows.
                whose = [*told, schema.device(device)]
                self._outbox.notify(node, ControlMessage("recalled", feed, whose))
            self._outbox.notify(node, ControlMessage("withdrawn", feed, told))
        if receipt:
            self._receipts_due(feed)
        return sorted(named(device.decode()) for device in acked)

    async def _live(self, connections: Mapping[str, str]) -> list[str]:
        """Those of some registrations whose node may be live."""
        try:
            dead = frozenset(await self._leases.dead(connections))
        except PushError:
            dead = frozenset()  # a control message too many does no harm
        return [each for each in connections if each not in dead]

    async def present(self, feed: str) -> list[Present]:
        """The devices of a mailbox that are connected."""
        key = self._redis.keys.listeners(feed)
        listeners = schema.registrations(await self._redis.one("HGETALL", key))
        dead = frozenset(await self._leases.dead(listeners))
        joined: dict[str, list[int]] = {}
        for connection, (device, since) in listeners.items():
            if connection not in dead:
                joined.setdefault(device, []).append(since)
        return [Present(device, len(times), min(times)) for device, times in sorted(joined.items())]

    async def devices(self, feed: str) -> list[Device]:
        """The devices of a mailbox, connected or not, in order of their names."""
        fields, present = await asyncio.gather(
            self._redis.one("HGETALL", self._redis.keys.cursors(feed)), self.present(feed)
        )
        positions = schema.cursors(fields).devices
        connections = {each.device: each.connections for each in present}
        return [
            Device(name, positions.get(name) or None, connections.get(name, 0))
            for name in sorted(positions.keys() | connections.keys())
        ]


def _page(answer: Any) -> Page:
    following, since, entries, cursors, acks, unread = answer
    positions = schema.cursors(cursors)
    who = Acks(positions.devices, positions.began, schema.ack_records(acks), int(since))
    retained = []
    for i in range(0, len(entries), 5):
        entry_id, device = ids.parse(entries[i]), schema.device(entries[i + 3])
        acked, state = who.of(entry_id, device), _STATES[entries[i + 4]]
        expires, body = int(entries[i + 1]), entries[i + 2]
        retained.append(Retained(entry_id, expires, body, acked, device, state))
    return Page(retained, ids.parse(following) if following else None, unread)
