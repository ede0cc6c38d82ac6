"""All that is kept of a user, on request: erased, or told.

A mailbox is erased in one step, so what is published meanwhile is erased or kept whole. What Redis
keeps elsewhere goes by itself or after it, and nodes are told to forget.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from pushsvc.feeds.history import EVERYTHING, History, Retained
from pushsvc.feeds.nodes import ControlMessage, Leases, Outbox
from pushsvc.feeds.pushes import Pushes
from pushsvc.feeds.schedule import Schedule, Start, Waiting
from pushsvc.feeds.work_queue import WorkQueue
from pushsvc.protocol import ids
from pushsvc.store import schema
from pushsvc.store.inspection import NotPermitted, key_names
from pushsvc.store.redis import Redis
from pushsvc.store.server_connection import StoreConnection

ERASED: Final = "erased"
"""The kind of the control message that has nodes forget a user; its value: the user."""
PAGE: Final = 100
"""Most notifications of one part of what is told."""
SCHEDULED_PAGE: Final = 16
"""Most scheduled publishes of one part."""


class Erased(NamedTuple):
    """What came of an erasure."""

    keys: int
    """How many keys Redis had of the user."""
    left: bool
    """Whether names of idempotency keys and of what was scheduled stay until they expire."""


class Place(NamedTuple):
    """A device's positions, None where there is none."""

    device: str
    acked: int | None
    began: int | None
    broadcast: int | None


class Connected(NamedTuple):
    """A connection that is registered."""

    connection: str
    device: str
    since: int
    """Milliseconds since the epoch."""


class Registered(NamedTuple):
    """A device that is registered for pushes, without what would let others reach it."""

    device: str
    provider: str
    host: str
    """Of an endpoint; empty where there is none."""
    at: int
    """Milliseconds since the epoch."""


class Part(NamedTuple):
    """A part of what is kept of a user; places and connections are in the first one, else None."""

    places: Sequence[Place] | None
    connections: Sequence[Connected]
    notifications: Sequence[Retained]
    scheduled: Sequence[Waiting]
    following: str
    """Names the next part; empty in the last one."""
    registered: Sequence[Registered] = ()
    """Of the first part: devices that are reached while they are away."""
    pending: Sequence[tuple[int, int]] = ()
    """Of the first part: notifications whose pushes are pending, each with the next look (ms)."""


class UserData:
    """What is kept of users.

    A coroutine that asks Redis raises ``PushError`` where that cannot be reached or refuses.

    Args:
        redis: any queue without a tail.
        connect: opens a connection, for what looks through all names.
        leases: who is live.
        outbox: for the nodes.
        queues: in which mailboxes, and feeds of receipts, may wait for a look.
        history: of the mailboxes.
        schedule: what is scheduled.
        pushes: to the users' devices, and where these are registered.
        retention: seconds.
    """

    def __init__(
        self,
        redis: Redis,
        connect: Callable[[], StoreConnection],
        *,
        leases: Leases,
        outbox: Outbox,
        queues: Sequence[WorkQueue],
        history: History,
        schedule: Schedule,
        pushes: Pushes,
        retention: float,
    ) -> None:
        self._redis = redis
        self._connect = connect
        self._leases = leases
        self._outbox = outbox
        self._queues = queues
        self._history = history
        self._schedule = schedule
        self._pushes = pushes
        self._keep = round(2000 * retention)

    async def erase(self, user: str, mailbox: str, receipts: str) -> Erased:
        """Erase what is kept of a user; doing it again does no harm.

        Args:
            user: the name.
            mailbox: its feed.
            receipts: the feed of the receipts that it was given as a publisher.
        """
        keys = self._redis.keys
        removed, head, until = 0, ids.START, {}
        for feed in (receipts, mailbox):
            newest, count, now = await self._redis.run("erase", keys.all_of(feed))
            removed += count
            head = ids.parse(newest)
            # Where an erasure failed on its way, the names are there and the head is not.
            until[feed] = max(head, ids.parse(now) - 1)
        # Under a digest: it tells those that come back that Redis has not lost what they hold.
        known = max(head, await self._erased_until(mailbox))
        if known:
            mark = keys.erased(_digest(mailbox))
            await self._redis.one("SET", mark, ids.render(known), "PX", self._keep)
        removed += await self._redis.one("DEL", keys.stored(mailbox))
        registered = await self._pushes.registrations.remove_all(mailbox)
        removed += registered + bool(registered)  # each has a key of its own, and there is the hash
        for queue in self._queues:
            await queue.hasten((mailbox, receipts))
        for node in await self._leases.fetch_live():
            self._outbox.notify(node, ControlMessage(ERASED, mailbox, [user]))
        left = False
        for feed, last in until.items():
            count, permitted = await self._erase_names(feed, last)
            removed += count
            left |= not permitted
        return Erased(removed, left)

    async def is_erased(self, mailbox: str, position: int) -> bool:
        """Whether a mailbox was erased since it had a position."""
        return position <= await self._erased_until(mailbox)

    async def _erased_until(self, mailbox: str) -> int:
        until = await self._redis.one("GET", self._redis.keys.erased(_digest(mailbox)))
        return ids.START if until is None else ids.parse(until)

    async def _erase_names(self, feed: str, until: int) -> tuple[int, bool]:
        """Remove what idempotency keys and scheduled publishes left of what is erased.

        Returns:
            How many keys there were, and whether they may be looked for.
        """
        connection, removed = self._connect(), 0
        try:
            async for names in key_names(connection, self._redis.keys.below(feed)):
                for name in names:
                    removed += await self._erase_name(feed, name, until)
        except NotPermitted:
            return removed, False
        finally:
            await connection.aclose()
        return removed, True

    async def _erase_name(self, feed: str, name: bytes, until: int) -> int:
        """Remove one of them, unless it is of something newer."""
        keys = self._redis.keys
        what = schema.left_by(name)
        if what is None:
            return 0
        scheduled_id = what
        if not what:
            value = await self._redis.one("GET", name)
            if value is None:
                return 0
            scheduled_id = value.decode()
        if scheduled_id.startswith("s-"):
            newer = await self._redis.one("ZSCORE", keys.times(feed), scheduled_id) is not None
            if not newer:
                became = await self._redis.one("GET", keys.became(feed, scheduled_id))
                newer = became not in (None, b"recalled") and ids.parse(became) > until
        else:
            newer = ids.parse(scheduled_id) > until
        return 0 if newer else int(await self._redis.one("DEL", name))

    async def part(self, mailbox: str, place: str) -> Part | None:
        """A part of what is kept of a user.

        Args:
            mailbox: its feed.
            place: the ``following`` of the part before, empty for the first one.

        Returns:
            None where the place is none.
        """
        kind, _, at = place.partition(":")
        if place and (kind not in ("n", "s") or not at):
            return None
        places, connections = (None, ()) if place else await self._devices(mailbox)
        pushes = ((), ()) if place else await self._of_pushes(mailbox)
        before = None
        waiting: Sequence[Waiting] = ()
        if kind == "n":
            before = ids.parse_untrusted(at)
        else:
            # This comes first: what goes out meanwhile is among the notifications then.
            start = _start(at or "0:")
            if start is None:
                return None
            waiting, more = await self._schedule.waiting(mailbox, start, SCHEDULED_PAGE)
            if more is not None:
                return Part(places, connections, (), waiting, f"s:{more.at}:{more.id}", *pushes)
        page = await self._history.page(mailbox, before, PAGE, EVERYTHING)
        following = "" if page.following is None else f"n:{ids.render(page.following)}"
        return Part(places, connections, page.entries, waiting, following, *pushes)

    async def _of_pushes(
        self, mailbox: str
    ) -> tuple[Sequence[Registered], Sequence[tuple[int, int]]]:
        held = await self._pushes.registrations.of(mailbox)
        registered = [
            Registered(
                device,
                each.provider,
                (urlsplit(each.address).hostname or "") if each.provider == "web" else "",
                each.at,
            )
            for device, each in sorted(held.items())
        ]
        return registered, await self._pushes.pending(mailbox)

    async def _devices(self, mailbox: str) -> tuple[Sequence[Place] | None, Sequence[Connected]]:
        keys = self._redis.keys
        fields = await self._redis.one("HGETALL", keys.cursors(mailbox))
        listeners = schema.registrations(await self._redis.one("HGETALL", keys.listeners(mailbox)))
        cursors = schema.cursors(fields)
        names = sorted(cursors.devices.keys() | cursors.broadcast.keys())
        return [
            Place(
                name,
                cursors.devices.get(name) or None,
                cursors.began.get(name) or None,
                cursors.broadcast.get(name) or None,
            )
            for name in names
        ], [
            Connected(connection, device, since)
            for connection, (device, since) in sorted(listeners.items())
        ]


def _start(text: str) -> Start | None:
    at, colon, name = text.partition(":")
    if not (colon and at.isascii() and at.isdigit() and len(at) < 16):
        return None
    return Start(int(at), name)


def _digest(mailbox: str) -> str:
    return hashlib.sha256(mailbox.encode()).hexdigest()[:32]
