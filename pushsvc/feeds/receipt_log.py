"""The receipts of a publisher, in order, as they are read and as they are sent on."""

from typing import Final, NamedTuple

from pushsvc.errors import PushError
from pushsvc.protocol import ids
from pushsvc.store.redis import Redis
from pushsvc.store.schema import FAILURES, SENT

READ_BYTES: Final = 1024 * 1024
"""Bytes after which a read ends; the last receipt may go over it."""
GONE_SECONDS: Final = 30 * 86_400
"""How long an address that wanted no more is left alone."""


class Stored(NamedTuple):
    """A receipt: its id and the end of its JSON object."""

    id: int
    body: bytes


class Page(NamedTuple):
    """Receipts that follow a position, oldest first."""

    receipts: list[Stored]
    upto: int
    """The position after them."""
    gap: str
    """Why some are missing before them: ``trimmed``, ``reset`` or empty."""


class Position(NamedTuple):
    """How far receipts were sent on, and how often the next one failed."""

    sent: int
    failures: int


class ReceiptLog:
    """The feeds of the receipts.

    A coroutine that asks Redis raises ``PushError`` where that cannot be reached or refuses.

    Args:
        redis: any queue without a tail.
        keep: seconds that the position of a feed is kept without another receipt.
    """

    def __init__(self, redis: Redis, *, keep: float) -> None:
        self._redis = redis
        self._keep = round(keep * 1000)
        self._keys = redis.keys

    async def read(self, feed: str, after: int, most: int) -> Page:
        """Read what follows a position."""
        _, _, _, upto, gap, _, *entries = await self._redis.run(
            "read", self._keys.read(feed), "", ids.render(after), most, READ_BYTES
        )
        found = [
            Stored(ids.parse(entries[i]), entries[i + 1])
            for i in range(0, len(entries), 2)
            if entries[i + 1] is not None  # past its retention
        ]
        return Page(found, ids.parse(upto), gap.decode())

    async def position(self, feed: str) -> Position:
        """How far a feed was sent on."""
        sent, failures = await self._redis.one("HMGET", self._keys.cursors(feed), SENT, FAILURES)
        return Position(ids.parse(sent) if sent else ids.START, int(failures or 0))

    async def moved(self, feed: str, position: Position) -> None:
        """Keep how far a feed was sent on."""
        key = self._keys.cursors(feed)
        fields = (SENT, ids.render(position.sent), FAILURES, position.failures)
        for result in await self._redis.submit(
            [("HSET", key, *fields), ("PEXPIRE", key, self._keep, "NX")]
        ):
            if isinstance(result, PushError):
                raise result

    async def gone(self, address: str) -> bool:
        """Whether the address with this digest wants no more."""
        return await self._redis.one("GET", self._keys.webhook_gone(address)) is not None

    async def set_gone(self, address: str) -> None:
        """Remember that the address with this digest wants no more."""
        key = self._keys.webhook_gone(address)
        await self._redis.one("SET", key, "1", "EX", GONE_SECONDS)
