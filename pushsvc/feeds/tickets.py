"""Tickets: what stands for a token in a place that is logged, once and for seconds."""

from pushsvc.store.redis import Redis


class Tickets:
    """The tickets of one Redis; neither a ticket nor a token is in it, only digests and claims.

    A coroutine that asks Redis raises ``PushError`` where that cannot be reached or refuses.

    Args:
        redis: any queue without a tail.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._key = redis.keys.ticket

    async def keep(self, digest: str, value: bytes, seconds: int) -> None:
        """Hold what a ticket stands for.

        Args:
            digest: of the ticket.
            value: what it stands for.
            seconds: how long.
        """
        await self._redis.one("SET", self._key(digest), value, "EX", seconds)

    async def take(self, digest: str) -> bytes | None:
        """Take what a ticket stands for: of those who try at the same time, one is given it.

        Returns:
            None where there is no such ticket, or no more.
        """
        value: bytes | None = await self._redis.one("GETDEL", self._key(digest))
        return value
