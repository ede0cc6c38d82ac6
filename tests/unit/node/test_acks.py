"""Acknowledgements on their way to Redis."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, cast

import pytest

from pushsvc.embedded import EmbeddedServer
from pushsvc.errors import StoreUnavailable
from pushsvc.feeds.feed import Acknowledgement, Bounds, Feeds
from pushsvc.feeds.nodes import Notice, Outbox
from pushsvc.node.acks import SLICE, Acks, Answer
from pushsvc.protocol import ids
from pushsvc.protocol.feeds import BROADCAST, mailbox
from tests.support.store import FEED, Store


class SlowFeeds:
    """Writes when it is told to; the real one is tested against a server."""

    def __init__(self) -> None:
        self.written: list[dict[tuple[str, str], int]] = []
        self.answers: list[asyncio.Future[list[Any]]] = []

    def ack(self, acks: Iterable[Acknowledgement]) -> asyncio.Future[list[Any]]:
        self.written.append({(ack.feed, ack.device): ack.id for ack in acks})
        self.answers.append(asyncio.get_running_loop().create_future())
        return self.answers[-1]

    def done(self) -> None:
        written = self.written[-1]
        self.answers[-1].set_result([ids.render(entry).encode() for entry in written.values()])


class Client:
    """Acknowledges on one connection, and hears what was written down."""

    def __init__(self) -> None:
        self.heard: list[int] = []

    def ack(self, acks: Acks, feed: str, device: str, entry_id: int, *, asks: bool = False) -> None:
        acks.add(feed, device, entry_id, "", "n1.1", self.heard.append if asks else None)


def new_acks(feeds: SlowFeeds) -> Acks:
    """Acks of users that have no other connection, and owe no receipt."""
    return Acks(cast(Feeds, feeds), cast(Outbox, None), cast(Callable[[str], None], None))


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_acks_that_come_while_one_is_written_are_written_as_one() -> None:
    feeds, client = SlowFeeds(), Client()
    acks = new_acks(feeds)
    client.ack(acks, "u:1", "phone", 10)
    await turn()
    for entry in (20, 30, 25):
        client.ack(acks, "u:1", "phone", entry)
    client.ack(acks, "u:1", "laptop", 5)
    feeds.done()
    await turn()
    assert feeds.written == [
        {("u:1", "phone"): 10},
        {("u:1", "phone"): 30, ("u:1", "laptop"): 5},
    ]
    feeds.done()
    await acks.aclose()


async def test_an_ack_is_answered_when_it_is_written_and_not_before() -> None:
    feeds, client = SlowFeeds(), Client()
    acks = new_acks(feeds)
    client.ack(acks, "u:1", "phone", ids.parse("7-0"), asks=True)
    await turn()
    assert client.heard == []
    feeds.done()
    await acks.aclose()
    assert client.heard == [ids.parse("7-0")]


async def test_an_ack_that_could_not_be_written_is_kept_and_written_later() -> None:
    feeds, client = SlowFeeds(), Client()
    acks = new_acks(feeds)
    client.ack(acks, "u:1", "phone", 10, asks=True)
    await turn()
    feeds.answers[-1].set_exception(StoreUnavailable("gone"))
    await turn()
    assert client.heard == []
    acks.flush()
    await turn()
    assert feeds.written[-1] == {("u:1", "phone"): 10}
    feeds.done()
    await acks.aclose()
    assert client.heard == [10]


async def test_refused_acks_wait_for_the_next_tick_and_do_not_hold_up_the_end() -> None:
    feeds, client = SlowFeeds(), Client()
    acks = new_acks(feeds)
    client.ack(acks, "u:1", "phone", 10, asks=True)
    await turn()
    feeds.answers[-1].set_result([StoreUnavailable("out of memory")])
    await turn()
    client.ack(acks, "u:1", "phone", 20)
    await turn()
    assert len(feeds.written) == 1
    acks.flush()
    await turn()
    assert len(feeds.written) == 2
    feeds.answers[-1].set_result([StoreUnavailable("out of memory")])
    closing = asyncio.create_task(acks.aclose())
    await turn()
    feeds.answers[-1].set_result([StoreUnavailable("out of memory")])
    await closing
    assert client.heard == []


async def test_many_positions_are_written_in_slices() -> None:
    feeds, client = SlowFeeds(), Client()
    acks = new_acks(feeds)
    for number in range(2 * SLICE + 1):
        client.ack(acks, f"u:{number}", "phone", 10)
    for size in (SLICE, SLICE, 1):
        await turn()
        assert len(feeds.written[-1]) == size
        feeds.done()
    await acks.aclose()


async def test_what_comes_for_a_refused_device_meanwhile_is_answered_with_its_own_write() -> None:
    feeds, client = SlowFeeds(), Client()
    acks = new_acks(feeds)
    client.ack(acks, "u:1", "phone", 10)
    await turn()
    client.ack(acks, "u:1", "phone", 20, asks=True)
    feeds.answers[-1].set_result([StoreUnavailable("out of memory")])
    await turn()
    assert feeds.written[-1] == {("u:1", "phone"): 20}
    client.ack(acks, "u:1", "phone", 30, asks=True)
    feeds.done()
    await turn()
    assert client.heard == [20]
    acks.flush()
    await turn()
    feeds.done()
    await acks.aclose()
    assert feeds.written[-1] == {("u:1", "phone"): 30}
    assert client.heard == [20, 30]


# --- on a real server ----------------------------------------------------------------------------


class Notices(Outbox):
    """Notes what is sent to which node."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Notice]] = []

    def notify(self, node: str, notice: Notice) -> None:
        self.sent.append((node, notice))

    def withdrawn(self) -> list[tuple[str, Notice]]:
        return sorted(each for each in self.sent if each[1].kind == "withdrawn")

    def acked(self) -> list[tuple[str, Notice]]:
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
        self.acks.add(FEED, device, entry_id, kind, connection, None)

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
        world.acks.add(feed, "phone", ids.parse(entry), "", "n1.1", answer(feed))
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
    notice = Notice("acked", FEED, ["phone", ids.render(sent), ""])
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


async def test_the_nodes_of_other_devices_are_told_what_was_settled_for_all(world: World) -> None:
    for connection, device in (
        ("n1.1", "phone"), ("n1.2", "laptop"), ("n2.1", "laptop"), ("n2.2", "watch"),
        ("n3.1", "phone"),
    ):  # fmt: skip
        await world.store.join(connection, device)
    first, second = [await world.store.publish(any_device=True) for _ in range(2)]
    world.add(second)
    await world.written()
    assert world.outbox.withdrawn() == [
        (node, Notice("withdrawn", FEED, [ids.render(entry), "acked"]))
        for node in ("n1", "n2")
        for entry in (first, second)
    ]
    assert world.outbox.acked() == [
        ("n3", Notice("acked", FEED, ["phone", ids.render(second), ""]))
    ]


async def test_the_place_in_the_broadcast_is_told_as_such(world: World) -> None:
    await world.store.join("n1.1", "phone")
    await world.store.join("n2.1", "phone")
    world.add(5 << 64, kind="broadcast")
    await world.written()
    assert world.outbox.sent == [("n2", Notice("acked", FEED, ["phone", "5-0", "broadcast"]))]


async def test_an_ack_by_request_is_told_to_all_connections_of_the_device(world: World) -> None:
    await world.store.join("n1.1", "phone")
    sent = await world.store.publish()
    assert await world.acks.write(FEED, "phone", sent + 1, broadcast=False) == ids.START
    assert world.outbox.sent == []
    assert await world.acks.write(FEED, "phone", sent, broadcast=False) == sent
    assert world.outbox.sent == [
        ("n1", Notice("acked", FEED, ["phone", ids.render(sent), "stored"]))
    ]
    assert await world.acks.write(FEED, "phone", 5 << 64, broadcast=True) == ids.START
    told = await world.store.publish(feed=BROADCAST)
    assert await world.acks.write(FEED, "phone", told, broadcast=True) == told
    notice = Notice("acked", FEED, ["phone", ids.render(told), "broadcast"])
    assert world.outbox.sent[1:] == [("n1", notice)]


async def test_a_receipt_may_be_due_after_an_ack(world: World) -> None:
    await world.store.join("n1.1", "phone")
    world.add(await world.store.publish())
    await world.written()
    assert world.receipts_due == []
    world.add(await world.store.publish(receipt="shop"))
    await world.written()
    assert world.receipts_due == [FEED]
