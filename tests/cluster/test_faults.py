"""One fault each, and what must come of it."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from pushsvc.feeds.nodes import Entry, pack
from pushsvc.protocol import ids
from pushsvc.protocol.delivery import UNKNOWN
from pushsvc.protocol.feeds import mailbox
from pushsvc.server.embedded import EmbeddedServer
from pushsvc.store.schema import Keys
from tests.cluster.behind import FEED, Store, node_id
from tests.cluster.load import Load
from tests.support.nodes import Node, nodes, wait_until
from tests.support.phone import Phone

LEASE = 1


@pytest.fixture
def store(valkey: EmbeddedServer, prefix: str) -> Iterator[Store]:
    store = Store(valkey.url, prefix)
    yield store
    store.redis.close()


@pytest.fixture
def two(valkey: EmbeddedServer, tmp_path: Path, prefix: str) -> Iterator[list[Node]]:
    """Two nodes with short leases and sweeps."""
    with nodes(
        2, valkey.url, tmp_path, prefix=prefix, lease_seconds=LEASE, sweep_seconds=2
    ) as running:
        yield running


async def test_a_node_that_was_stopped_is_fenced_and_comes_back_under_a_new_id(
    two: list[Node], store: Store
) -> None:
    a, b = two
    before = await asyncio.to_thread(node_id, a)
    async with Phone(a) as stale:
        first = await asyncio.to_thread(a.publish, "u1", 1)
        assert (await stale.notification())["id"] == first
        a.pause()
        async with Phone(b) as phone:
            assert (await phone.notification())["id"] == first
            # Published once a's lease is over: nothing may be sent to it any more.
            await asyncio.to_thread(
                wait_until,
                lambda: a_is_forgotten(b, store),
                "the stopped node to be forgotten",
            )
            second = await asyncio.to_thread(b.publish, "u1", 2)
            assert (await phone.notification())["id"] == second
            assert await phone.acked(second) == second
            successor = f"{await asyncio.to_thread(node_id, b)}.".encode()
            a.resume()
            await asyncio.to_thread(
                wait_until, lambda: node_id(a) != before and a.is_ready(), "a new id"
            )
            assert any(each.startswith(successor) for each in store.listeners())
            third = await asyncio.to_thread(a.publish, "u1", 3)
            assert (await phone.notification())["id"] == third
            # What was acknowledged meanwhile is not delivered by the one that slept.
            assert (await stale.notification())["id"] == third


def a_is_forgotten(b: Node, store: Store) -> bool:
    live: list[bytes] = store.redis.zrangebyscore(store.keys.nodes, time.time() * 1000, "+inf")
    return live == [node_id(b).encode()]


async def test_an_append_whose_copies_were_never_sent_arrives_with_the_sweep(
    two: list[Node], store: Store
) -> None:
    async with Phone(two[0]) as phone:
        appended = await store.append(3)
        notes = await phone.notifications(3)
        assert [note["id"] for note in notes] == [ids.render(each.id) for each in appended]
        await phone.silent()


async def test_a_lost_registration_is_made_again_by_the_sweep(
    two: list[Node], store: Store
) -> None:
    async with Phone(two[0]) as phone:
        registered = store.listeners()
        store.redis.delete(store.keys.listeners(FEED))
        sent = await asyncio.to_thread(two[1].publish, "u1", 1)
        assert (await phone.notification())["id"] == sent
        assert store.listeners() == registered


async def test_copies_out_of_order_twice_or_of_what_was_told_change_nothing(
    two: list[Node], store: Store
) -> None:
    async with Phone(two[0]) as phone:
        body = '"data":1}'
        appended = await store.append(4, body)
        copies = [Entry.of(FEED, each.id, each.previous, body.encode()) for each in appended]
        orphan = Entry.of(FEED, appended[-1].id, UNKNOWN, body.encode())
        for packet in ([copies[2]], [copies[1], copies[1]], [orphan], copies[::-1], copies):
            store.redis.xadd(store.inbox(two[0]), {"p": pack(packet)})
        notes = await phone.notifications(4)
        assert [note["id"] for note in notes] == [ids.render(each.id) for each in appended]
        sent = await asyncio.to_thread(two[1].publish, "u1", 5)
        assert (await phone.notification())["id"] == sent
        await phone.silent()


async def test_a_packet_that_is_none_is_passed_over(two: list[Node], store: Store) -> None:
    async with Phone(two[0]) as phone:
        store.redis.xadd(store.inbox(two[0]), {"p": b"\xff\x00nonsense"})
        sent = await asyncio.to_thread(two[1].publish, "u1", 1)
        assert (await phone.notification())["id"] == sent


async def test_an_inbox_trimmed_unread_costs_time_and_nothing_else(
    two: list[Node], store: Store
) -> None:
    async with Phone(two[0]) as phone:
        inbox = await asyncio.to_thread(store.inbox, two[0])
        two[0].pause()
        sent = [await asyncio.to_thread(two[1].publish, "u1", number) for number in range(5)]
        store.redis.xtrim(inbox, maxlen=0)
        two[0].resume()
        notes = await phone.notifications(5)
        assert [note["id"] for note in notes] == sent


async def test_a_node_whose_inbox_connection_is_killed_hears_again(
    two: list[Node], store: Store
) -> None:
    async with Phone(two[0]) as phone:
        for _ in range(3):
            blocked = [each for each in store.redis.client_list() if each["cmd"] == "xread"]
            for each in blocked:
                store.redis.client_kill_filter(_id=each["id"])
            sent = await asyncio.to_thread(two[1].publish, "u1", 1)
            assert (await phone.notification())["id"] == sent
    assert two[0].is_ready()


async def test_a_device_that_moves_between_nodes_misses_nothing_and_is_not_unregistered(
    two: list[Node], store: Store
) -> None:
    load = Load(two)
    counts = await load.run(6, load.move_about)
    assert counts.broken() == {}, counts
    assert counts.reconnects > 30
    await asyncio.to_thread(
        wait_until,
        lambda: (
            not any(store.redis.hlen(store.keys.listeners(mailbox(user))) for user in load.users)
        ),
        "no registration to be left",
    )


async def test_redis_emptied_under_listeners_is_told_and_delivery_goes_on(
    tmp_path: Path,
) -> None:
    with (
        EmbeddedServer() as server,
        nodes(2, server.url, tmp_path, lease_seconds=LEASE, sweep_seconds=2) as (a, b),
    ):
        async with Phone(a) as phone, Phone(b, "u2") as other:
            first = await asyncio.to_thread(b.publish, "u1", 1)
            assert (await phone.notification())["id"] == first
            redis.Redis.from_url(server.url).flushall()
            gap = await phone.receive()
            assert (gap["type"], gap["reason"], gap["after"]) == ("gap", "reset", first)
            await asyncio.to_thread(wait_until, lambda: a.is_ready() and b.is_ready(), "readiness")
            sent = await asyncio.to_thread(b.publish, "u1", 2)
            assert (await phone.notification())["id"] == sent
            sent = await asyncio.to_thread(a.publish, "u2", 2)
            assert (await other.notification())["id"] == sent


async def test_redis_emptied_under_load_is_told_to_all_and_nothing_after_it_is_lost(
    tmp_path: Path,
) -> None:
    with (
        EmbeddedServer() as server,
        nodes(2, server.url, tmp_path, lease_seconds=2, sweep_seconds=2) as running,
    ):
        load = Load(running)

        async def empty_redis() -> None:
            await asyncio.to_thread(wait_until, lambda: load.counts.accepted > 100, "some load")
            with redis.Redis.from_url(server.url) as client:
                client.flushall()
                seconds, microseconds = client.time()
            # What came before is gone, and who listened is told.
            load.forgiven = ids.parse(f"{seconds * 1000 + microseconds // 1000}-{1 << 32}")
            await asyncio.to_thread(
                wait_until,
                lambda: all(device.gaps == ["reset"] for device in load.devices),
                "every device to be told",
            )

        counts = await load.run(5, empty_redis)
        assert counts.broken() == {}, counts
        assert all(device.gaps == ["reset"] for device in load.devices)


async def test_the_shortest_lease_is_kept(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    with Node(valkey.url, tmp_path, prefix=prefix, lease_seconds=1) as node:
        before = node_id(node)
        renewed = lease_of(valkey, prefix)
        await asyncio.to_thread(
            wait_until, lambda: lease_of(valkey, prefix) > renewed + 2500, "some renewals"
        )
        assert node_id(node) == before


def lease_of(valkey: EmbeddedServer, prefix: str) -> float:
    with redis.Redis.from_url(valkey.url) as client:
        leases: list[tuple[bytes, float]] = client.zrange(
            Keys(prefix).nodes, 0, -1, withscores=True
        )
    return max(expires for _, expires in leases)


def test_a_quiet_node_accepts_the_first_publish_after_redis_has_been_restarted(
    tmp_path: Path,
) -> None:
    with (
        EmbeddedServer(appendonly=True) as server,
        nodes(1, server.url, tmp_path, lease_seconds=30) as (node,),
    ):
        before = node_id(node)
        for number in range(3):
            node.publish("u1", number)
            server.kill()
            server.start()
        node.publish("u1", 3)
        assert node_id(node) == before, "the restarts were shorter than the lease"


async def test_redis_killed_under_load_loses_nothing_that_was_accepted_with_fsync(
    tmp_path: Path,
) -> None:
    with (
        EmbeddedServer(appendonly=True, extra=["--appendfsync", "always"]) as server,
        nodes(2, server.url, tmp_path, lease_seconds=2, durability="fsync") as running,
    ):
        load = Load(running)

        async def kill_redis() -> None:
            for _ in range(2):
                await asyncio.sleep(2)
                await asyncio.to_thread(server.kill)
                await asyncio.sleep(0.5)
                await asyncio.to_thread(server.start)

        counts = await load.run(8, kill_redis)
        assert counts.broken() == {}, counts
        assert counts.retried > 0
        assert counts.accepted > 50
        await asyncio.to_thread(
            wait_until, lambda: all(node.is_ready() for node in running), "readiness"
        )


def test_nothing_is_left_of_connections_that_came_and_went(
    node: Node, valkey: EmbeddedServer, prefix: str
) -> None:
    store = Store(valkey.url, prefix)
    process = psutil.Process(node.process.pid)

    async def come_and_go(times: int) -> None:
        for number in range(times):  # of several users, as one may not come so often
            async with Phone(node, f"u{number % 10}") as phone:
                await phone.silent()

    def settled() -> bool:
        return store.listeners() == set() and node.metric("pushsvc_connections") == 0

    asyncio.run(come_and_go(20))
    wait_until(settled, "the connections to end")
    before = process.num_fds()
    asyncio.run(come_and_go(200))
    wait_until(settled, "the connections to end")
    wait_until(lambda: process.num_fds() <= before + 2, "the descriptors to be closed")
    store.redis.close()
