"""A hub between real feeds and listeners that are no sockets."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import redis

from pushsvc.codes import Close
from pushsvc.embedded import EmbeddedServer
from pushsvc.errors import StoreUnavailable
from pushsvc.feeds.connect import connector
from pushsvc.feeds.feed import Acknowledgement, Append, Appended, Bounds, Feeds
from pushsvc.feeds.keys import Keys
from pushsvc.feeds.lane import Lane
from pushsvc.feeds.nodes import Copy, Leases, Notice, Outbox
from pushsvc.feeds.scripts import Scripts
from pushsvc.node.hub import BATCH
from pushsvc.protocol import ids
from pushsvc.protocol.feeds import BROADCAST
from pushsvc.protocol.limits import Rate
from pushsvc.protocol.session import Policy
from pushsvc.protocol.wire import TEXT
from tests.support.hubs import parts, session_of

MUCH = Rate(1e6, 1e6)
POLICY = Policy(
    heartbeat=25, window=64, ack_timeout=30, ack_attempts=3,
    messages=MUCH, bytes=MUCH, control=MUCH,
)  # fmt: skip


class Listener:
    def __init__(self, number: int) -> None:
        self.number = number
        self.session = session_of(f"u{number}", "phone")
        self.wire = TEXT
        self.written = b""
        self.sent: list[dict[str, Any]] = []
        self.open = True

    def writable(self) -> bool:
        return self.open

    def write(self, data: bytes) -> None:
        self.written += data

    def send(self, payload: bytes) -> None:
        self.sent.append(json.loads(payload))

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
        self.feeds = feeds = Feeds(
            self.keys, scripts, bounds, publishing=self.lane, sessions=self.lane
        )
        leases = Leases(self.lane, self.keys, scripts, 10)
        self.outbox = Outbox(self.lane, self.keys)
        self.parts = parts(
            "a", feeds, leases, self.outbox, POLICY, sweep_seconds=60, clock=time.monotonic
        )
        self.hub = self.parts.hub
        self.redis = redis.Redis.from_url(url, decode_responses=True)

    async def join(self, count: int) -> list[Listener]:
        listeners = [Listener(number) for number in range(count)]
        for listener in listeners:
            self.hub.start(listener, await self.hub.join(listener), b"")
        return listeners

    def registered(self) -> set[str]:
        keys = self.redis.scan_iter(self.keys.prefix + "*{u:*:listeners", count=1000)
        return {str(connection) for key in keys for connection in self.redis.hkeys(key)}


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
async def node(valkey: EmbeddedServer, prefix: str) -> AsyncIterator[Node]:
    node = Node(valkey.url, prefix)
    yield node
    await node.parts.aclose()
    await node.outbox.aclose()
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


class Cut:
    """Reads of the feeds that fail, at once or after a while."""

    def __init__(self, node: Node, monkeypatch: pytest.MonkeyPatch, *, later: bool) -> None:
        self.count = 0
        self._later = later
        self._patch = monkeypatch
        self._patch.setattr(node.feeds, "read", self._read)

    def _read(self, *_: object) -> asyncio.Future[list[Any]]:
        self.count += 1
        if not self._later:
            raise StoreUnavailable("cut", retry_after=1.0)
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        future.set_exception(StoreUnavailable("lost on the way", retry_after=1.0))
        return future

    def mend(self) -> None:
        self._patch.undo()


@pytest.mark.parametrize("later", [False, True])
async def test_a_read_that_fails_is_tried_again_with_each_tick(
    node: Node, monkeypatch: pytest.MonkeyPatch, *, later: bool
) -> None:
    (listener,) = await node.join(1)
    feed = listener.session.cursor.feed
    await node.feeds.append([Append(feed, b'"data":"first"}')])
    (result,), _ = await node.feeds.append([Append(feed, b'"data":"second"}')])
    assert isinstance(result, Appended)
    cut = Cut(node, monkeypatch, later=later)
    # The copy of the first was lost, so the second is read from the feed.
    node.hub.deliver([Copy(feed, result.id, result.previous, b'"data":"second"}')])
    await until(lambda: cut.count == 1)
    await asyncio.sleep(0)
    node.hub.tick()
    await until(lambda: cut.count == 2)
    await asyncio.sleep(0)
    cut.mend()
    assert listener.written == b""
    node.hub.tick()
    await until(lambda: b"second" in listener.written)
    assert b"first" in listener.written


async def test_what_another_connection_acknowledged_makes_room_in_the_window(node: Node) -> None:
    (listener,) = await node.join(1)
    cursor = listener.session.cursor
    appended = []
    for number in range(POLICY.window + 1):
        (result,), _ = await node.feeds.append([Append(cursor.feed, b'"data":%d}' % number)])
        assert isinstance(result, Appended)
        appended.append(result)
        body = b'"data":%d}' % number
        node.hub.deliver([Copy(cursor.feed, result.id, result.previous, body)])
    last = b'"data":%d}' % POLICY.window
    assert last not in listener.written
    await node.feeds.ack([Acknowledgement(cursor.feed, "phone", appended[4].id)])
    values = ["phone", ids.render(appended[4].id), ""]
    node.hub.notice(Notice("acked", cursor.feed, ["laptop", *values[1:]]))
    assert cursor.acked == ids.START
    node.hub.notice(Notice("acked", cursor.feed, values))
    assert cursor.acked == appended[4].id
    await until(lambda: last in listener.written)


async def test_a_withdrawal_is_told_to_who_was_sent_the_entry_and_once(node: Node) -> None:
    told, behind = await node.join(2)
    cursor = told.session.cursor
    entry = 5 << 64
    node.hub.deliver([Copy(cursor.feed, entry, ids.START, b'"data":1}')])
    for listener in (told, behind):
        feed = listener.session.cursor.feed
        node.hub.notice(Notice("withdrawn", feed, ["5-0", "recalled"]))
    assert told.sent == [{"type": "withdrawn", "id": "5-0", "reason": "recalled"}]
    assert cursor.unacked is None
    assert behind.sent == []


async def test_a_withdrawal_makes_room_in_the_window(node: Node) -> None:
    (listener,) = await node.join(1)
    feed = listener.session.cursor.feed
    sent = []
    for number in range(POLICY.window + 1):
        body = b'"data":%d}' % number
        (result,), _ = await node.feeds.append([Append(feed, body)])
        assert isinstance(result, Appended)
        sent.append(result.id)
        node.hub.deliver([Copy(feed, result.id, result.previous, body)])
    last = b'"data":%d}' % POLICY.window
    assert last not in listener.written
    node.hub.notice(Notice("withdrawn", feed, [ids.render(sent[0]), "recalled"]))
    await until(lambda: last in listener.written)


# --- the broadcast -------------------------------------------------------------------------------


async def broadcast(node: Node, data: int) -> Copy:
    """Append to the broadcast; the copy for the node."""
    body = b'"broadcast":true,"data":%d}' % data
    (result,), _ = await node.feeds.append([Append(BROADCAST, body)])
    assert isinstance(result, Appended)
    return Copy(BROADCAST, result.id, result.previous, body)


def listening(node: Node) -> dict[str, str]:
    return {str(k): str(v) for k, v in node.redis.hgetall(node.keys.listeners(BROADCAST)).items()}


async def test_the_node_listens_to_the_broadcast_for_everyone(node: Node) -> None:
    await node.join(3)
    node.hub.tick()
    await until(lambda: listening(node) == {"a": "3"})


async def test_everyone_is_sent_what_is_broadcast_and_who_missed_something_reads_it(
    node: Node,
) -> None:
    listeners = await node.join(3)
    node.hub.deliver([await broadcast(node, 1)])
    assert all(b'"data":1' in each.written for each in listeners)
    await broadcast(node, 2)  # its copy is lost
    node.hub.deliver([await broadcast(node, 3)])
    await until(lambda: all(b'"data":3' in each.written for each in listeners))
    for each in listeners:
        assert each.written.count(b'"data":') == 3
        assert b'"data":2' in each.written


async def test_a_broadcast_whose_only_copy_was_lost_is_found_by_the_sweep(node: Node) -> None:
    listeners = await node.join(2)
    await broadcast(node, 1)
    node.hub.sweep_soon()
    await until(lambda: all(b'"data":1' in each.written for each in listeners))


async def test_a_registration_for_the_broadcast_that_was_lost_is_made_again(node: Node) -> None:
    (listener,) = await node.join(1)
    node.hub.deliver([await broadcast(node, 1)])
    node.redis.delete(node.keys.listeners(BROADCAST))
    await broadcast(node, 2)
    node.hub.sweep_soon()
    await until(lambda: b'"data":2' in listener.written)
    assert set(listening(node)) == {"a"}


async def test_a_node_renamed_while_it_registers_is_registered_under_its_new_id(
    node: Node,
) -> None:
    joining = asyncio.create_task(node.join(1))
    await asyncio.sleep(0)
    await node.hub.rejoin("b")
    (listener,) = await joining
    assert "b" in listening(node)
    assert node.registered() == {node.hub.connection_id(listener)}


async def test_who_was_never_here_is_not_owed_what_was_broadcast_before(node: Node) -> None:
    await node.join(1)
    node.hub.deliver([await broadcast(node, 1)])
    late = Listener(7)
    node.hub.start(late, await node.hub.join(late), b"")
    assert late.written == b""
    node.hub.deliver([await broadcast(node, 2)])
    assert late.written.count(b'"data":') == 1


async def test_a_device_that_returns_is_sent_what_was_broadcast_meanwhile(node: Node) -> None:
    (listener,) = await node.join(1)
    listener.open = False
    node.hub.left(listener)
    node.hub.deliver([await broadcast(node, 1)])
    (again,) = await node.join(1)
    await until(lambda: b'"data":1' in again.written)
    assert b'"broadcast":true' in again.written


async def test_a_copy_that_was_overtaken_by_its_withdrawal_is_not_delivered(node: Node) -> None:
    (listener,) = await node.join(1)
    feed = listener.session.cursor.feed
    node.hub.notice(Notice("withdrawn", feed, ["5-0", "acked"]))
    node.hub.deliver([Copy(feed, 5 << 64, 0, b'"data":1}')])
    assert listener.written == b""
    node.hub.deliver([Copy(feed, 6 << 64, 5 << 64, b'"data":2}')])
    assert b'"id":"6-0"' in listener.written
    assert listener.session.cursor.unacked == [6 << 64]


async def test_an_answer_that_is_older_than_a_withdrawal_does_not_bring_it_back(
    node: Node,
) -> None:
    (listener,) = await node.join(1)
    feed = listener.session.cursor.feed
    appended, _ = await node.feeds.append([Append(feed, b'"data":1}')])
    assert isinstance(appended[0], Appended)
    entry_id = appended[0].id
    node.hub.deliver([Copy(feed, entry_id, 7, b"")])  # out of step: it is read
    node.hub.notice(Notice("withdrawn", feed, [ids.render(entry_id), "recalled"]))
    await until(lambda: listener.session.cursor.sent == entry_id)
    assert listener.written == b""
