"""Who is at a topic, read once for all who ask, whole or counted."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from pushsvc.errors import Overloaded, Unavailable
from pushsvc.feeds.feed import Bounds
from pushsvc.feeds.nodes import Leases
from pushsvc.node.readings import FRESH, LARGE, MOST_KEPT, MOST_NAMED, SAMPLE, Readings
from pushsvc.protocol.feeds import topic
from pushsvc.server.embedded import EmbeddedServer
from pushsvc.store import schema
from tests.support.dispatching import until
from tests.support.store import Store

ROOM = topic("room")
LIVE = "n1"
DEAD = "n0"


class Reader(Store):
    """What reads, on a real server."""

    def __init__(self, url: str, prefix: str) -> None:
        super().__init__(url, prefix, Bounds(100, 3600, 8))
        self.leases = Leases(self.commands, 10)
        self.now = 100.0
        self.here: set[str] = set()
        self.written = 0
        self.readings = Readings(
            self.feeds, self.leases, self.write, lambda _: self.here, lambda: self.now
        )

    def write(self) -> None:
        self.written += 1

    def put(self, users: Iterable[str], node: str = LIVE, feed: str = ROOM) -> None:
        """Say that these users are there."""
        fields: dict[Any, Any] = {schema.presence(node, user): "1" for user in users}
        self.redis.hset(self.keys.present(feed), mapping=fields)

    def at(self, feed: str = ROOM) -> int:
        """How many fields there are."""
        return self.redis.hlen(self.keys.present(feed))

    def calls(self) -> int:
        """How many scripts have run."""
        stats = self.redis.info("commandstats")
        return int(stats.get("cmdstat_evalsha", {}).get("calls", 0))

    async def aclose(self) -> None:
        await self.readings.aclose()
        await super().aclose()


@pytest.fixture
async def reader(valkey: EmbeddedServer, prefix: str) -> AsyncIterator[Reader]:
    reader = Reader(valkey.url, prefix)
    await reader.leases.renew(LIVE, take=True)
    yield reader
    await reader.aclose()


def many(count: int) -> list[str]:
    return [f"u{number:06}" for number in range(count)]


async def test_who_asks_in_one_moment_is_answered_from_one_reading(reader: Reader) -> None:
    reader.put(many(3))
    before = reader.calls()
    answers = await asyncio.gather(*(reader.readings.seen(ROOM) for _ in range(50)))
    assert {answer.count for answer in answers} == {3}
    reader.now += FRESH * 0.9
    assert (await reader.readings.seen(ROOM)).named == many(3)
    assert reader.calls() - before == 1
    reader.now += FRESH * 0.2
    await reader.readings.seen(ROOM)
    assert reader.calls() - before == 2


async def test_what_is_to_be_seen_anew_is_not_seen_by_a_reading_under_way(reader: Reader) -> None:
    reader.put(["u1"])
    first = asyncio.create_task(reader.readings.seen(ROOM))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    reader.put(["u2"])
    anew = await asyncio.gather(*(reader.readings.seen(ROOM, anew=True) for _ in range(5)))
    assert {tuple(each.named) for each in anew} == {("u1", "u2")}
    assert {each.turn for each in anew} == {2}
    assert (await first).turn == 1
    assert reader.written == 2


async def test_who_came_here_since_the_reading_is_there(reader: Reader) -> None:
    reader.put(["u1", "u3"])
    reader.here = {"u0"}
    assert (await reader.readings.seen(ROOM)).named == ["u0", "u1", "u3"]
    reader.readings.came(ROOM, "u2")
    seen = await reader.readings.seen(ROOM)
    assert (seen.named, seen.count) == (["u0", "u1", "u2", "u3"], 4)


async def test_a_user_on_two_nodes_is_one(reader: Reader) -> None:
    await reader.leases.renew("n2", take=True)
    reader.put(["u1"])
    reader.put(["u1", "u2"], "n2")
    assert (await reader.readings.seen(ROOM)).to_json() == {"users": ["u1", "u2"], "count": 2}


async def test_up_to_a_bound_all_are_known_and_above_it_they_are_counted(reader: Reader) -> None:
    reader.put(many(LARGE))
    whole = await reader.readings.seen(ROOM)
    assert whole.users == frozenset(many(LARGE))
    assert whole.to_json() == {"users": many(LARGE)[:MOST_NAMED], "count": LARGE}
    reader.put(["x"])
    large = await reader.readings.seen(ROOM, anew=True)
    assert large.users is None
    told = large.to_json()
    assert (told["count"], told["sample"]) == (LARGE + 1, True)
    assert 0 < len(told["users"]) <= SAMPLE
    assert set(told["users"]) < {*many(LARGE), "x"}
    assert told["users"] == sorted(told["users"])
    reader.readings.came(ROOM, "y")
    assert await reader.readings.seen(ROOM) is large


async def test_the_people_of_dead_nodes_are_nowhere(reader: Reader) -> None:
    reader.put(["u1"])
    reader.put(["u1", "u2"], DEAD)
    assert (await reader.readings.seen(ROOM)).named == ["u1"]
    await until(lambda: reader.at() == 1)


async def test_where_many_are_those_of_dead_nodes_are_found_step_by_step(reader: Reader) -> None:
    reader.put(many(3000))
    reader.put(many(4000), DEAD)
    seen = await reader.readings.seen(ROOM)
    assert seen.count == 7000
    assert set(seen.named) <= set(many(3000))
    await until(lambda: reader.at() == 3000)
    assert (await reader.readings.seen(ROOM, anew=True)).count == 3000
    assert not await reader.readings.search(ROOM)
    reader.put(["u"], DEAD)
    assert await reader.readings.search(ROOM)


async def test_a_reading_that_fails_fails_all_who_wait_for_it_and_nobody_else(
    reader: Reader,
) -> None:
    reader.put(["u1"])
    key = reader.keys.present(ROOM)
    reader.redis.rename(key, key + ":away")
    reader.redis.set(key, "no hash")
    answers = await asyncio.gather(
        *(reader.readings.seen(ROOM) for _ in range(3)), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [type(answers[0])] * 3
    assert isinstance(answers[0], Exception)
    reader.redis.delete(key)
    reader.redis.rename(key + ":away", key)
    assert (await reader.readings.seen(ROOM)).named == ["u1"]


async def test_who_waits_while_the_node_stops_is_told_so(reader: Reader) -> None:
    waiting = asyncio.create_task(reader.readings.seen(ROOM))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await reader.readings.aclose()
    with pytest.raises(Unavailable):
        await waiting


async def test_only_so_many_topics_are_remembered_and_not_for_long(reader: Reader) -> None:
    for number in range(MOST_KEPT + 20):
        await reader.readings.seen(topic(f"t{number}"))
    assert len(reader.readings._kept) == MOST_KEPT
    reader.now += 2
    reader.readings.tick()
    assert not reader.readings._kept


async def test_of_too_many_topics_at_once_the_last_are_to_be_asked_about_again(
    reader: Reader,
) -> None:
    asked = [
        asyncio.create_task(reader.readings.seen(topic(f"t{number}")))
        for number in range(2 * MOST_KEPT)
    ]
    await asyncio.sleep(0)
    assert len(reader.readings._kept) == MOST_KEPT
    # Who was promised to be told changes is told them.
    followed = await reader.readings.seen(ROOM, anew=True)
    assert followed.count == 0
    answers = await asyncio.gather(*asked, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, Overloaded)]
    assert len(refused) == MOST_KEPT
    assert {each.retry_after for each in refused} == {1.0}
    assert (await reader.readings.seen(topic(f"t{2 * MOST_KEPT}"))).count == 0
    assert len(reader.readings._kept) <= MOST_KEPT + 1
