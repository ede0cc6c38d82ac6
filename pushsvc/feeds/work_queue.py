"""A queue of feeds that are to be looked at, which all nodes share and any node works off.

A feed is put on it before that happens for which it has to be looked at, so that a node that dies
in between forgets nothing. The node that looks has a lease that ends by itself, so that what a dead
node had taken is taken again. A feed that was put there a moment ago is not removed because there
was nothing to find: what is to come may be under way.
"""

import secrets
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from pushsvc.store.redis import Redis
from pushsvc.store.server_connection import Command

SETTLING: Final = 45.0
"""Seconds that may pass between putting a feed there and what it was put there for: longer than any
command waits for Redis."""
AGAIN: Final = 15.0
"""Seconds until the next look meanwhile."""


class Lease(NamedTuple):
    """A feed that this node works on."""

    feed: str
    token: bytes


class WorkQueue:
    """One of these queues.

    Args:
        name: what the feeds are looked at for.
        redis: any queue without a tail.
        hold: seconds that a lease lasts, longer than any look.
        keep: seconds that a feed may have to stay there.
        again: seconds until the next look at a feed that was put there a moment ago.
    """

    def __init__(
        self, name: str, redis: Redis, *, hold: float, keep: float, again: float = AGAIN
    ) -> None:
        self._redis = redis
        self._due = redis.keys.work_queue(name, "due")
        self._owed = redis.keys.work_queue(name, "owed")
        self._leases = redis.keys.work_queue(name, "claims")
        self._hold = round(hold * 1000)
        self._keep = round(keep * 1000)
        self._again = round(again * 1000)
        self._holder: Final = secrets.token_hex(6)

    async def enqueue(self, looks: Mapping[str, float]) -> None:
        """Put feeds there; of several looks at a feed the earliest counts.

        Args:
            looks: feed to seconds from now.

        Raises:
            PushError: Redis cannot be reached or refuses: they may not be there.
        """
        pairs = [each for feed, wait in looks.items() for each in (feed, round(wait * 1000))]
        await self._redis.run("owe", (self._due, self._owed), self._keep, *pairs)

    async def hasten(self, feeds: Iterable[str]) -> None:
        """Have those of some feeds that are there looked at now: there may be nothing left.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        for feed in feeds:
            await self._redis.one("ZADD", self._due, "XX", 1, feed)

    def at(self, times: Mapping[str, int]) -> Command:
        """The command that puts feeds there, for any queue.

        Args:
            times: feed to when it is to be looked at, in milliseconds since the epoch.
        """
        pairs = [each for feed, time in times.items() for each in (feed, f"@{time}")]
        return self._redis.script("owe", (self._due, self._owed), self._keep, *pairs)

    async def lease(self, most: int) -> list[Lease]:
        """Take feeds that are due.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        found = await self._redis.run(
            "claim", (self._due, self._leases), self._hold, most, self._holder, self._keep
        )
        return [Lease(found[i].decode(), found[i + 1]) for i in range(0, len(found), 2)]

    async def release(self, done: Iterable[tuple[Lease, float | None]]) -> None:
        """Give feeds back, each with the seconds until the next look, None if there is no need.

        Raises:
            PushError: Redis cannot be reached or refuses: the leases end by themselves.
        """
        await self._release([(lease, wait, False) for lease, wait in done])

    async def rest(self, lease: Lease, seconds: float) -> None:
        """Give a feed back that is not to be looked at for a while, whatever puts it there again.

        Raises:
            PushError: Redis cannot be reached or refuses: the lease ends by itself.
        """
        await self._release([(lease, seconds, True)])

    async def _release(self, done: Iterable[tuple[Lease, float | None, bool]]) -> None:
        fields: list[str | bytes | int] = []
        for lease, wait, rest in done:
            look = "" if wait is None else round(wait * 1000)
            fields += [lease.feed, lease.token, look, "1" if rest else ""]
        await self._redis.run(
            "release", (self._due, self._owed, self._leases),
            round(SETTLING * 1000), self._again, *fields,
        )  # fmt: skip
