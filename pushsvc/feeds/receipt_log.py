"""The receipts of a publisher, in order, as they are read and as they are sent on."""

from typing import Final, NamedTuple

from pushsvc.errors import PushError
from pushsvc.feeds.keys import Keys
from pushsvc.feeds.lane import Lane
from pushsvc.feeds.scripts import Scripts
from pushsvc.protocol import ids

READ_BYTES: Final = 1024 * 1024
"""Bytes after which a read ends; the last receipt may go over it."""
GONE_SECONDS: Final = 30 * 86_400
"""How long an address that wanted no more is left alone."""

_SENT, _FAILURES = "~sent", "~failures"
"""Fields of the cursors of a receipts' feed."""


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

    Args:
        lane: any without a tail.
        keys: the key names.
        scripts: the operations.
        keep: seconds that the position of a feed is kept without another receipt.
    """

    def __init__(self, lane: Lane, keys: Keys, scripts: Scripts, *, keep: float) -> None:
        self._lane = lane
        self._keep = round(keep * 1000)
        self._keys = keys
        self._digest = scripts.digests["read"]

    async def read(self, feed: str, after: int, most: int) -> Page:
        """Read what follows a position.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        keys = self._keys
        _, _, _, upto, gap, _, *entries = await self._lane.one(
            "EVALSHA", self._digest, 2, keys.log(feed), keys.cursors(feed),
            "", ids.render(after), most, READ_BYTES,
        )  # fmt: skip
        found = [
            Stored(ids.parse(entries[i]), entries[i + 1])
            for i in range(0, len(entries), 2)
            if entries[i + 1] is not None  # past its retention
        ]
        return Page(found, ids.parse(upto), gap.decode())

    async def position(self, feed: str) -> Position:
        """How far a feed was sent on.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        sent, failures = await self._lane.one("HMGET", self._keys.cursors(feed), _SENT, _FAILURES)
        return Position(ids.parse(sent) if sent else ids.START, int(failures or 0))

    async def moved(self, feed: str, position: Position) -> None:
        """Keep how far a feed was sent on.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        key = self._keys.cursors(feed)
        fields = (_SENT, ids.render(position.sent), _FAILURES, position.failures)
        for result in await self._lane.submit(
            [("HSET", key, *fields), ("PEXPIRE", key, self._keep, "NX")]
        ):
            if isinstance(result, PushError):
                raise result

    async def gone(self, address: str) -> bool:
        """Whether the address with this digest wants no more.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        return await self._lane.one("GET", self._keys.webhook_gone(address)) is not None

    async def set_gone(self, address: str) -> None:
        """Remember that the address with this digest wants no more.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        key = self._keys.webhook_gone(address)
        await self._lane.one("SET", key, "1", "EX", GONE_SECONDS)
