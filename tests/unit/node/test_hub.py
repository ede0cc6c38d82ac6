"""A hub between real feeds and listeners that are no sockets."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis

from pushsvc.codes import Close
from pushsvc.embedded import EmbeddedServer
from pushsvc.feeds.connect import connector
from pushsvc.feeds.feed import Bounds, Feeds
from pushsvc.feeds.keys import Keys, mailbox
from pushsvc.feeds.lane import Lane
from pushsvc.feeds.nodes import Leases
from pushsvc.feeds.scripts import Scripts
from pushsvc.node.hub import BATCH, Hub
from pushsvc.protocol.limits import Rate
from pushsvc.protocol.session import Policy, Session

MUCH = Rate(1e6, 1e6)
POLICY = Policy(
    heartbeat=25, window=64, ack_timeout=30, ack_attempts=3,
    messages=MUCH, bytes=MUCH, control=MUCH,
)  # fmt: skip


class Listener:
    def __init__(self, number: int) -> None:
        self.number = number
        self.feed = mailbox(f"u{number}")
        self.session = Session(f"u{number}", "phone", expires=1e9, seen=0.0)
        self.open = True

    def writable(self) -> bool:
        return self.open

    def write(self, data: bytes) -> None:
        pass

    def send(self, payload: bytes) -> None:
        pass

    def watch(self) -> None:
        pass

    def end(self, code: Close) -> None:
        assert code
        self.open = False


class Node:
    def __init__(self, url: str, prefix: str) -> None:
        scripts = Scripts()
        self.keys = Keys(prefix)
        self.lane = Lane("test", connector(url)(5), scripts)
        bounds = Bounds(100, 3600, 8)
        feeds = Feeds(self.keys, scripts, bounds, publishing=self.lane, sessions=self.lane)
        leases = Leases(self.lane, self.keys, scripts, 10)
        self.hub = Hub("a", feeds, leases, POLICY, sweep_seconds=60)
        self.redis = redis.Redis.from_url(url, decode_responses=True)

    async def join(self, count: int) -> list[Listener]:
        listeners = [Listener(number) for number in range(count)]
        for listener in listeners:
            self.hub.start(listener, await self.hub.join(listener), b"")
        return listeners

    def registered(self) -> set[str]:
        keys = self.redis.scan_iter(self.keys.prefix + "*:listeners", count=1000)
        return {str(connection) for key in keys for connection in self.redis.hkeys(key)}


@pytest.fixture
async def node(valkey: EmbeddedServer, prefix: str) -> AsyncIterator[Node]:
    node = Node(valkey.url, prefix)
    yield node
    await node.hub.aclose()
    await node.lane.aclose()
    node.redis.close()


async def test_who_leaves_while_a_node_registers_anew_is_not_registered(node: Node) -> None:
    listeners = await node.join(2 * BATCH + 10)
    rejoining = asyncio.create_task(node.hub.rejoin("b"))
    await asyncio.sleep(0)
    leaving = [listeners[BATCH + 1], listeners[-1]]
    for listener in leaving:
        listener.open = False
        node.hub.left(listener)
    await rejoining
    await node.lane.one("PING")
    stay = [each for each in listeners if each not in leaving]
    assert node.registered() == {node.hub.connection_id(each) for each in stay}


async def test_everyone_is_registered_under_the_new_id_and_under_no_other(node: Node) -> None:
    listeners = await node.join(5)
    assert node.registered() == {f"a.{n:x}" for n in range(5)}
    await node.hub.rejoin("b")
    assert node.registered() == {node.hub.connection_id(each) for each in listeners}
    assert node.registered() == {f"b.{n:x}" for n in range(5)}
