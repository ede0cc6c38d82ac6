"""The Redis of some nodes, from behind."""

from typing import Any

import httpx
import redis

from pushsvc.feeds.feed import Appended, Bounds, Feeds
from pushsvc.protocol.feeds import mailbox
from pushsvc.protocol.notifications import Append
from pushsvc.store.schema import Keys
from tests.support.nodes import Node
from tests.support.redis import redis_at

FEED = mailbox("u1")


class Store:
    """The nodes' Redis, from behind."""

    def __init__(self, url: str, prefix: str) -> None:
        self.url = url
        self.keys = Keys(prefix)
        self.redis: Any = redis.Redis.from_url(url, decode_responses=False)

    def inbox(self, node: Node) -> str:
        return self.keys.inbox(node_id(node))

    def listeners(self) -> set[bytes]:
        return set(self.redis.hkeys(self.keys.listeners(FEED)))

    async def append(self, count: int, body: str = '"data":"quiet"}') -> list[Appended]:
        """Append as a publisher that dies before it has sent a copy to anyone."""
        commands = redis_at(self.url, self.keys.prefix)
        feeds = Feeds(Bounds(1000, 3600, 32), publishing=commands, sessions=commands)
        results, _ = await feeds.append([Append(FEED, body.encode())] * count)
        await commands.aclose()
        return [result for result in results if isinstance(result, Appended)]


def node_id(node: Node) -> str:
    name: str = httpx.get(f"{node.admin_url}/readyz").json()["node"]
    return name
