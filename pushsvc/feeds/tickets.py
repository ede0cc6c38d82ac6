"""Tickets: what stands for a token in a place that is logged, once and for seconds."""

from pushsvc.feeds.keys import Keys
from pushsvc.feeds.lane import Lane


class Tickets:
    """The tickets of one Redis; neither a ticket nor a token is in it, only digests and claims.

    Args:
        lane: any without a tail.
        keys: the key names.
    """

    def __init__(self, lane: Lane, keys: Keys) -> None:
        self._lane = lane
        self._keys = keys

    async def keep(self, digest: str, value: bytes, seconds: int) -> None:
        """Hold what a ticket stands for.

        Args:
            digest: of the ticket.
            value: what it stands for.
            seconds: how long.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        await self._lane.one("SET", self._keys.ticket(digest), value, "EX", seconds)

    async def take(self, digest: str) -> bytes | None:
        """Take what a ticket stands for: of those who try at the same time, one is given it.

        Returns:
            None where there is no such ticket, or no more.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        value: bytes | None = await self._lane.one("GETDEL", self._keys.ticket(digest))
        return value
