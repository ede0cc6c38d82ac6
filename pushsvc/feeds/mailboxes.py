"""A mailbox as an operator looks at it: its devices, where each is, and what waits for it."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, NamedTuple

from pushsvc.feeds.feed import BROADCAST_PLACE
from pushsvc.feeds.history import OWN, STARTED, pairs
from pushsvc.feeds.keys import Keys
from pushsvc.feeds.lane import Lane
from pushsvc.feeds.nodes import Leases, node_of
from pushsvc.feeds.scripts import Scripts
from pushsvc.protocol import ids

EVICTED: Final = "~evicted"
"""The field of the cursors that holds a device and no position, as in lib.lua."""
LOOKS: Final = 1000
"""Most entries that are looked at to count what waits."""
LOOK_BYTES: Final = 4 * 1024 * 1024
"""Bytes of bodies after which the looking ends."""


class Held(NamedTuple):
    """A connection that a node holds."""

    connection: str
    node: str
    since: int
    """Milliseconds since the epoch."""


class Device(NamedTuple):
    """A device that has a place in the mailbox, or is connected."""

    device: str
    connections: Sequence[Held]
    acked: int | None
    """Its position in the mailbox, None where it has acknowledged nothing."""
    broadcast: int | None
    """Its position in the broadcast, None where it has none."""
    waiting: int
    """Notifications that are kept and that it has not acknowledged."""
    more: bool
    """Whether there may be more than ``waiting``: not all were looked at."""


class Mailbox(NamedTuple):
    """A mailbox, with its devices in order of their names."""

    length: int
    oldest: int | None
    newest: int | None
    devices: Sequence[Device]

    @property
    def online(self) -> bool:
        """Whether any device is connected."""
        return any(device.connections for device in self.devices)


class Mailboxes:
    """Looks at mailboxes.

    Args:
        lane: any without a tail.
        keys: the key names.
        scripts: the operations.
        leases: who is live.
    """

    def __init__(self, lane: Lane, keys: Keys, scripts: Scripts, leases: Leases) -> None:
        self._lane = lane
        self._keys = keys
        self._digest = scripts.digests["look"]
        self._leases = leases

    async def look(self, feed: str) -> Mailbox:
        """A mailbox as it is now; one that never was is empty.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        keys = self._keys
        length, oldest, newest, cursors, listeners, upto, kept = await self._lane.one(
            "EVALSHA", self._digest, 3, keys.log(feed), keys.cursors(feed), keys.listeners(feed),
            LOOKS, LOOK_BYTES,
        )  # fmt: skip
        places = {
            name: ids.parse(value)
            for name, value in pairs(cursors).items()
            if name != EVICTED and not name.startswith(STARTED)
        }
        held = pairs(listeners)
        dead = frozenset(await self._leases.dead(held))
        connections: dict[str, list[Held]] = {}
        for connection, value in sorted(held.items()):
            if connection not in dead:
                device, _, since = value.partition(" ")
                here = Held(connection, node_of(connection), int(since))
                connections.setdefault(device, []).append(here)
        names = {name for name in places if not name.startswith(OWN)} | connections.keys()
        waiting = [ids.parse(each) for each in reversed(kept)]
        seen_from = ids.parse(upto) if upto else ids.START
        return Mailbox(
            length,
            ids.parse(oldest) if oldest else None,
            ids.parse(newest) if newest else None,
            [
                _device(name, places, connections.get(name, ()), waiting, seen_from)
                for name in sorted(names)
            ],
        )


def _device(
    name: str,
    places: dict[str, int],
    connections: Sequence[Held],
    kept: Sequence[int],
    seen_from: int,
) -> Device:
    """A device, by what is kept in order of the ids, all of it after ``seen_from``."""
    acked = places.get(name, ids.START)
    return Device(
        name,
        connections,
        acked or None,
        places.get(BROADCAST_PLACE + name) or None,
        len(kept) - bisect_left(kept, acked + 1),
        acked + 1 < seen_from,
    )
