"""A work queue on a real server: nothing is forgotten, and one node at a time looks."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import redis

from pushsvc.feeds.work_queue import Lease, WorkQueue
from pushsvc.server.embedded import EmbeddedServer
from tests.support.redis import redis_at

MakeQueue = Callable[..., WorkQueue]


@pytest.fixture
async def queue(valkey: EmbeddedServer, prefix: str) -> AsyncIterator[MakeQueue]:
    """Makes nodes' views of one work queue."""
    commands = redis_at(valkey.url, prefix)
    yield lambda hold=30.0: WorkQueue("things", commands, hold=hold, keep=3600)
    await commands.aclose()


async def leased(queue: WorkQueue, seconds: float = 5.0) -> Lease:
    """The one feed that is due, or will be."""
    async with asyncio.timeout(seconds):
        while True:
            leases = await queue.lease(10)
            if leases:
                (lease,) = leases
                return lease
            await asyncio.sleep(0.01)


async def test_a_feed_is_due_when_its_time_has_come_and_one_node_gets_it(
    queue: MakeQueue,
) -> None:
    a, b = queue(), queue()
    await a.enqueue({"u:1": 0.1, "u:2": 3600.0})
    assert await a.lease(10) == []
    lease = await leased(b)
    assert lease.feed == "u:1"
    assert await a.lease(10) == await b.lease(10) == []


async def test_the_earliest_of_several_looks_counts(queue: MakeQueue) -> None:
    a = queue()
    await a.enqueue({"u:1": 0.0})
    await a.enqueue({"u:1": 3600.0})
    assert (await leased(a)).feed == "u:1"


async def test_what_a_dead_node_took_is_taken_again(queue: MakeQueue) -> None:
    dead, living = queue(hold=0.1), queue()
    await dead.enqueue({"u:1": 0.0})
    old = await leased(dead)
    new = await leased(living)
    assert new.feed == "u:1"
    # Should it be only slow, then what it gives back is not its own any more.
    await dead.release([(old, 0.0)])
    assert await living.lease(10) == []


async def test_a_feed_that_was_put_there_during_a_look_is_looked_at_again(
    queue: MakeQueue,
) -> None:
    a = queue()
    await a.enqueue({"u:1": 0.0})
    lease = await leased(a)
    await a.enqueue({"u:1": 3600.0})
    await a.release([(lease, None)])
    assert (await leased(a)).feed == "u:1"


async def test_a_look_that_finds_nothing_does_not_forget_what_is_under_way(
    queue: MakeQueue, valkey: EmbeddedServer, prefix: str
) -> None:
    a = queue()
    with redis.Redis.from_url(valkey.url, decode_responses=True) as server:
        await a.enqueue({"u:1": 0.0})
        await a.release([(await leased(a), None)])
        due = f"{prefix}:{{things}}:due"
        assert server.zrange(due, 0, -1) == ["u:1"]
        # Once that is long ago, it is forgotten.
        server.hset(f"{prefix}:{{things}}:owed", "u:1", 1)
        server.zadd(due, {"u:1": 1})
        await a.release([(await leased(a), None)])
        assert list(server.scan_iter(f"{prefix}:*")) == []


async def test_who_is_to_be_left_alone_is_whatever_puts_him_there(queue: MakeQueue) -> None:
    a = queue()
    await a.enqueue({"u:1": 0.0})
    lease = await leased(a)
    await a.enqueue({"u:1": 0.0})
    await a.rest(lease, 0.3)
    started = asyncio.get_running_loop().time()
    await a.enqueue({"u:1": 0.0})
    assert await a.lease(10) == []
    await leased(a)
    assert asyncio.get_running_loop().time() - started > 0.25


async def test_a_work_queue_has_a_time_to_live(
    queue: MakeQueue, valkey: EmbeddedServer, prefix: str
) -> None:
    a = queue()
    await a.enqueue({"u:1": 0.0, "u:2": 9.0})
    await leased(a)
    with redis.Redis.from_url(valkey.url, decode_responses=True) as server:
        keys = list(server.scan_iter(f"{prefix}:*"))
        assert len(keys) == 3
        assert [key for key in keys if server.pttl(key) <= 0] == []
