"""An agenda on a real server: nothing is forgotten, and one node at a time looks."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import redis

from pushsvc.embedded import EmbeddedServer
from pushsvc.feeds.agenda import Agenda, Claim
from pushsvc.feeds.connect import connector
from pushsvc.feeds.keys import Keys
from pushsvc.feeds.lane import Lane
from pushsvc.feeds.scripts import Scripts

MakeAgenda = Callable[..., Agenda]


@pytest.fixture
async def agenda(valkey: EmbeddedServer, prefix: str) -> AsyncIterator[MakeAgenda]:
    """Makes nodes' views of one agenda."""
    scripts = Scripts()
    lane = Lane("test", connector(valkey.url)(5), scripts)
    yield lambda hold=30.0: Agenda("things", lane, Keys(prefix), scripts, hold=hold, keep=3600)
    await lane.aclose()


async def claimed(agenda: Agenda, seconds: float = 5.0) -> Claim:
    """The one feed that is due, or will be."""
    async with asyncio.timeout(seconds):
        while True:
            claims = await agenda.claim(10)
            if claims:
                (claim,) = claims
                return claim
            await asyncio.sleep(0.01)


async def test_a_feed_is_due_when_its_time_has_come_and_one_node_gets_it(
    agenda: MakeAgenda,
) -> None:
    a, b = agenda(), agenda()
    await a.owe({"u:1": 0.1, "u:2": 3600.0})
    assert await a.claim(10) == []
    claim = await claimed(b)
    assert claim.feed == "u:1"
    assert await a.claim(10) == await b.claim(10) == []


async def test_the_earliest_of_several_looks_counts(agenda: MakeAgenda) -> None:
    a = agenda()
    await a.owe({"u:1": 0.0})
    await a.owe({"u:1": 3600.0})
    assert (await claimed(a)).feed == "u:1"


async def test_what_a_dead_node_took_is_taken_again(agenda: MakeAgenda) -> None:
    dead, living = agenda(hold=0.1), agenda()
    await dead.owe({"u:1": 0.0})
    old = await claimed(dead)
    new = await claimed(living)
    assert new.feed == "u:1"
    # Should it be only slow, then what it gives back is not its own any more.
    await dead.release([(old, 0.0)])
    assert await living.claim(10) == []


async def test_a_feed_that_was_put_there_during_a_look_is_looked_at_again(
    agenda: MakeAgenda,
) -> None:
    a = agenda()
    await a.owe({"u:1": 0.0})
    claim = await claimed(a)
    await a.owe({"u:1": 3600.0})
    await a.release([(claim, None)])
    assert (await claimed(a)).feed == "u:1"


async def test_a_look_that_finds_nothing_does_not_forget_what_is_under_way(
    agenda: MakeAgenda, valkey: EmbeddedServer, prefix: str
) -> None:
    a = agenda()
    with redis.Redis.from_url(valkey.url, decode_responses=True) as server:
        await a.owe({"u:1": 0.0})
        await a.release([(await claimed(a), None)])
        due = f"{prefix}:{{things}}:due"
        assert server.zrange(due, 0, -1) == ["u:1"]
        # Once that is long ago, it is forgotten.
        server.hset(f"{prefix}:{{things}}:owed", "u:1", 1)
        server.zadd(due, {"u:1": 1})
        await a.release([(await claimed(a), None)])
        assert list(server.scan_iter(f"{prefix}:*")) == []


async def test_who_is_to_be_left_alone_is_whatever_puts_him_there(agenda: MakeAgenda) -> None:
    a = agenda()
    await a.owe({"u:1": 0.0})
    claim = await claimed(a)
    await a.owe({"u:1": 0.0})
    await a.rest(claim, 0.3)
    started = asyncio.get_running_loop().time()
    await a.owe({"u:1": 0.0})
    assert await a.claim(10) == []
    await claimed(a)
    assert asyncio.get_running_loop().time() - started > 0.25


async def test_an_agenda_has_a_time_to_live(
    agenda: MakeAgenda, valkey: EmbeddedServer, prefix: str
) -> None:
    a = agenda()
    await a.owe({"u:1": 0.0, "u:2": 9.0})
    await claimed(a)
    with redis.Redis.from_url(valkey.url, decode_responses=True) as server:
        keys = list(server.scan_iter(f"{prefix}:*"))
        assert len(keys) == 3
        assert [key for key in keys if server.pttl(key) <= 0] == []
