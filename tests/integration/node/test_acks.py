"""Acknowledgements on a real server, and who is told of them."""

from collections.abc import AsyncIterator

import pytest

from pushsvc.feeds.feed import AckKind, Bounds
from pushsvc.feeds.nodes import ControlMessage, Outbox
from pushsvc.node.acks import SLICE, Acks, Answer
from pushsvc.protocol import ids
from pushsvc.protocol.feeds import BROADCAST, mailbox
from pushsvc.server.embedded import EmbeddedServer
from tests.support.store import FEED, Store


class Notices(Outbox):
    """Notes what is sent to which node."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, ControlMessage]] = []

    def notify(self, node: str, notice: ControlMessage) -> None:
        self.sent.append((node, notice))

    def withdrawn(self) -> list[tuple[str, ControlMessage]]:
        return sorted(each for each in self.sent if each[1].kind == "withdrawn")

    def acked(self) -> list[tuple[str, ControlMessage]]:
        return sorted(each for each in self.sent if each[1].kind == "acked")


class World:
    """Acks on a real server, and what they tell."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.outbox = Notices()
        self.receipts_due: list[str] = []
        self.acks = Acks(store.feeds, self.outbox, self.receipts_due.append)

    def add(
        self, entry_id: int, device: str = "phone", connection: str = "n1.1", kind: str = ""
    ) -> None:
        self.acks.add(FEED, device, entry_id, AckKind(kind), connection, None)

    async def written(self) -> None:
        """Wait until nothing is under way."""
        task = self.acks._task
        if task is not None:
            await task


@pytest.fixture
async def world(valkey: EmbeddedServer, prefix: str) -> AsyncIterator[World]:
    store = Store(valkey.url, prefix, Bounds(entries=100, retention=3600, connections=8))
    yield World(store)
    await store.aclose()


async def test_a_device_whose_ack_redis_refuses_does_not_hold_up_the_others(world: World) -> None:
    keys, redis = world.store.keys, world.store.redis
    entry = "1764000000000-7"
    users = [mailbox(f"many{number}") for number in range(2 * SLICE + 2)]
    broken = users[3]
    for feed in users:
        redis.hset(keys.cursors(feed), mapping={"~head": entry, "phone": "0-0"})
    redis.delete(keys.cursors(broken))
    redis.set(keys.cursors(broken), "of another type")
    heard: list[str] = []

    def answer(feed: str) -> Answer:
        return lambda _position: heard.append(feed)

    for feed in users:
        world.acks.add(feed, "phone", ids.parse(entry), AckKind.SENT, "n1.1", answer(feed))
    await world.written()
    assert heard == [feed for feed in users if feed != broken]
    assert {redis.hget(keys.cursors(feed), "phone") for feed in users if feed != broken} == {entry}
    # The next tick tries again, and writes the others no more.
    world.acks.flush()
    await world.written()
    assert len(heard) == len(users) - 1
    redis.delete(keys.cursors(broken))
    redis.hset(keys.cursors(broken), mapping={"~head": entry, "phone": "0-0"})
    world.acks.flush()
    await world.written()
    assert redis.hget(keys.cursors(broken), "phone") == entry
    assert heard[-1] == broken
    assert len(heard) == len(users)
    await world.acks.aclose()


async def test_the_other_nodes_of_a_device_are_told_how_far_it_is(world: World) -> None:
    for connection, device in (
        ("n1.1", "phone"), ("n1.2", "phone"), ("n2.1", "phone"), ("n2.2", "phone"),
        ("n3.1", "laptop"),
    ):  # fmt: skip
        await world.store.join(connection, device)
    sent = await world.store.publish()
    world.add(sent)
    await world.written()
    notice = ControlMessage("acked", FEED, ["phone", ids.render(sent), ""])
    assert sorted(world.outbox.sent) == [("n1", notice), ("n2", notice)]


async def test_nobody_is_told_where_the_device_has_one_connection(world: World) -> None:
    await world.store.join("n1.1", "phone")
    await world.store.join("n2.1", "laptop")
    world.add(await world.store.publish())
    await world.written()
    assert world.outbox.sent == []


async def test_an_ack_that_moves_nothing_is_told_to_nobody(world: World) -> None:
    await world.store.join("n1.1", "phone")
    await world.store.join("n2.1", "phone")
    sent = await world.store.publish()
    await world.store.ack("phone", sent)
    world.add(sent)
    await world.written()
    assert world.outbox.sent == []


async def test_the_nodes_of_all_devices_are_told_what_was_settled_for_all(world: World) -> None:
    for connection, device in (
        ("n1.1", "phone"), ("n1.2", "laptop"), ("n2.1", "laptop"), ("n2.2", "watch"),
        ("n3.1", "phone"),
    ):  # fmt: skip
        await world.store.join(connection, device)
    first, second = [await world.store.publish(any_device=True) for _ in range(2)]
    world.add(second)
    await world.written()
    assert world.outbox.withdrawn() == [
        (node, ControlMessage("withdrawn", FEED, [ids.render(entry), "acked"]))
        for node in ("n1", "n2", "n3")
        for entry in (first, second)
    ]
    assert world.outbox.acked() == [
        ("n3", ControlMessage("acked", FEED, ["phone", ids.render(second), ""]))
    ]


async def test_the_place_in_the_broadcast_is_told_as_such(world: World) -> None:
    await world.store.join("n1.1", "phone")
    await world.store.join("n2.1", "phone")
    world.add(5 << 64, kind="broadcast")
    await world.written()
    assert world.outbox.sent == [
        ("n2", ControlMessage("acked", FEED, ["phone", "5-0", "broadcast"]))
    ]


async def test_an_ack_by_request_is_told_to_all_connections_of_the_device(world: World) -> None:
    await world.store.join("n1.1", "phone")
    sent = await world.store.publish()
    assert await world.acks.write(FEED, "phone", sent + 1, broadcast=False) == ids.START
    assert world.outbox.sent == []
    assert await world.acks.write(FEED, "phone", sent, broadcast=False) == sent
    assert world.outbox.sent == [
        ("n1", ControlMessage("acked", FEED, ["phone", ids.render(sent), "stored"]))
    ]
    assert await world.acks.write(FEED, "phone", 5 << 64, broadcast=True) == ids.START
    told = await world.store.publish(feed=BROADCAST)
    assert await world.acks.write(FEED, "phone", told, broadcast=True) == told
    notice = ControlMessage("acked", FEED, ["phone", ids.render(told), "broadcast"])
    assert world.outbox.sent[1:] == [("n1", notice)]


async def test_a_receipt_may_be_due_after_an_ack(world: World) -> None:
    await world.store.join("n1.1", "phone")
    world.add(await world.store.publish())
    await world.written()
    assert world.receipts_due == []
    world.add(await world.store.publish(receipt="shop"))
    await world.written()
    assert world.receipts_due == [FEED]
