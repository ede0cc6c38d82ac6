"""A mailbox as an operator looks at it: its devices, where each is, and what waits for it."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from pushsvc.feeds.nodes import Leases, node_of
from pushsvc.protocol import ids
from pushsvc.store import schema
from pushsvc.store.redis import Redis

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
    """A device that has a position in the mailbox, or is connected."""

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
        redis: any queue without a tail.
        leases: who is live.
    """

    def __init__(self, redis: Redis, leases: Leases) -> None:
        self._redis = redis
        self._leases = leases

    async def view(self, feed: str) -> Mailbox:
        """A mailbox as it is now; one that never was is empty.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        keys = self._redis.keys
        length, oldest, newest, fields, listeners, upto, kept = await self._redis.run(
            "look", (keys.log(feed), keys.cursors(feed), keys.listeners(feed)), LOOKS, LOOK_BYTES
        )
        cursors = schema.cursors(fields)
        held = schema.registrations(listeners)
        dead = frozenset(await self._leases.dead(held))
        connections: dict[str, list[Held]] = {}
        for connection, (device, since) in sorted(held.items()):
            if connection not in dead:
                here = Held(connection, node_of(connection), since)
                connections.setdefault(device, []).append(here)
        names = cursors.devices.keys() | connections.keys()
        waiting: dict[str, list[int]] = {}
        for entry_id, whose in reversed(schema.addressed(kept)):
            waiting.setdefault(whose, []).append(entry_id)
        seen_from = ids.parse(upto) if upto else ids.START
        return Mailbox(
            length,
            ids.parse(oldest) if oldest else None,
            ids.parse(newest) if newest else None,
            [
                _device(name, cursors, connections.get(name, ()), waiting, seen_from)
                for name in sorted(names)
            ],
        )


def _device(
    name: str,
    cursors: schema.Cursors,
    connections: Sequence[Held],
    kept: Mapping[str, Sequence[int]],
    seen_from: int,
) -> Device:
    """A device, by what is kept for each, and for all under no name, in order of the ids.

    All of it is after ``seen_from``.
    """
    acked = cursors.devices.get(name, ids.START)
    return Device(
        name,
        connections,
        acked or None,
        cursors.broadcast.get(name) or None,
        sum(
            len(its) - bisect_left(its, acked + 1) for its in (kept.get("", ()), kept.get(name, ()))
        ),
        acked + 1 < seen_from,
    )
