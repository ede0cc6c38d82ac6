"""Feeds on a real server, and a look behind them."""

from typing import Any, Final

import redis

from pushsvc.errors import checked
from pushsvc.feeds.feed import (
    AckKind,
    Acknowledged,
    Acknowledgement,
    Appended,
    Bounds,
    Feeds,
    Join,
    Rest,
)
from pushsvc.protocol import ids
from pushsvc.protocol.delivery import Backlog
from pushsvc.protocol.feeds import mailbox
from pushsvc.protocol.notifications import Append
from tests.support.redis import redis_at

FEED: Final = mailbox("u1")


class Store:
    """One mailbox, and whatever other feed a test names."""

    def __init__(self, url: str, prefix: str, bounds: Bounds, *, sends: bool = False) -> None:
        self.url = url
        self.commands = redis_at(url, prefix)
        self.keys = self.commands.keys
        self.feeds = Feeds(bounds, publishing=self.commands, sessions=self.commands, sends=sends)
        self.redis = redis.Redis.from_url(url, decode_responses=True)

    async def append(self, body: str = "x", feed: str = FEED, **fields: Any) -> Appended:
        (result,), _ = await self.feeds.append([Append(feed, body.encode(), **fields)])
        assert isinstance(result, Appended), result
        return result

    async def publish(self, body: str = "x", feed: str = FEED, **fields: Any) -> int:
        return (await self.append(body, feed, **fields)).id

    async def join(
        self, connection: str, device: str, held: int | None = None, broadcast: int = ids.START
    ) -> Backlog:
        (result,) = await self.feeds.join([Join(FEED, connection, device, held, broadcast)])
        return checked(result)

    async def subscribe(
        self, feed: str, node: str = "n1", count: int = 1, since: int | Rest | None = None
    ) -> Backlog:
        return checked((await self.feeds.subscribe([(feed, node, count, since)]))[0])

    async def read(self, device: str, held: int, feed: str = FEED) -> Backlog:
        return checked((await self.feeds.read(feed, device, held))[0])

    async def acknowledge(
        self, device: str, entry_id: int, kind: str = "", connection: str = ""
    ) -> Acknowledged:
        acks = [Acknowledgement(FEED, device, entry_id, AckKind(kind), connection)]
        return checked((await self.feeds.ack(acks))[0])

    async def ack(self, device: str, entry_id: int, kind: str = "") -> int:
        return (await self.acknowledge(device, entry_id, kind)).position

    async def withdraw(self, entry_id: int) -> bool:
        """Recall an entry of the mailbox; whether it was there."""
        return await self.recall(entry_id) is not None

    async def recall(self, entry_id: int) -> Any:
        """The same; what the script says of it."""
        keys = self.keys
        return await self.commands.run(
            "withdraw",
            (keys.log(FEED), keys.listeners(FEED), keys.cursors(FEED), keys.marks(FEED)),
            ids.render(entry_id),
            60_000,
        )

    async def aclose(self) -> None:
        await self.commands.aclose()
        self.redis.close()
