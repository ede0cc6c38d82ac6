"""The read state on a real server: brought up to date with whatever happened to the log."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from redis.crc import key_slot

from pushsvc.errors import StoreUnavailable
from pushsvc.feeds.feed import Bounds
from pushsvc.feeds.nodes import Outbox
from pushsvc.feeds.read_state import ReadStates
from pushsvc.protocol import ids
from pushsvc.protocol.read_state import Change, Verb
from pushsvc.server.embedded import EmbeddedServer
from pushsvc.store import schema
from tests.support.failover import Cluster, ask
from tests.support.store import FEED, Store

BOUNDS = Bounds(entries=10, retention=3600, connections=4)


class Reading(Store):
    """A mailbox, and what its user has read."""

    def __init__(self, url: str, prefix: str, bounds: Bounds = BOUNDS) -> None:
        super().__init__(url, prefix, bounds)
        self.states = ReadStates(self.commands, Outbox(self.commands))

    async def change(self, verb: Verb, *some: int, until: int | None = None) -> int:
        return (await self.states.change(FEED, Change(verb, some, until))).unread

    async def count(self) -> int:
        return await self.states.count(FEED)

    def members(self, which: str) -> list[int]:
        found = self.redis.zrange(self.keys.read_state(FEED, which), 0, -1)
        return sorted(ids.parse(str(each)) for each in found)

    def old_node_removes(self, *some: int) -> None:
        """As a node of before recalls."""
        self.redis.xdel(self.keys.log(FEED), *map(ids.render, some))

    def old_node_publishes(self, entry_id: int, body: str = "x") -> int:
        at = ids.render(entry_id)
        expires = str(self.redis.time()[0] * 1000 + 60_000)
        self.redis.xadd(self.keys.log(FEED), {"x": expires, "d": body}, id=at)
        self.redis.hset(self.keys.cursors(FEED), mapping={"~head": at, "~stored": at})
        return entry_id


@pytest.fixture
async def store(valkey: EmbeddedServer, prefix: str) -> AsyncIterator[Reading]:
    store = Reading(valkey.url, prefix)
    yield store
    await store.aclose()


async def test_a_mailbox_of_before_opens_with_what_was_acknowledged_read(store: Reading) -> None:
    await store.join("n1.1", "phone")
    store.redis.hdel(store.keys.cursors(FEED), "~seen")
    sent = [await store.publish() for _ in range(4)]
    await store.ack("phone", sent[1])
    assert await store.count() == 2
    assert store.members(schema.READ) == sent[:2]
    assert store.members(schema.UNREAD) == sent[2:]


async def test_what_is_acknowledged_later_stays_unread(store: Reading) -> None:
    await store.join("n1.1", "phone")
    sent = [await store.publish() for _ in range(2)]
    await store.ack("phone", sent[1])
    assert await store.count() == 2


async def test_what_nodes_of_before_do_beside_is_found(store: Reading) -> None:
    sent = [await store.publish() for _ in range(4)]
    assert await store.change(Verb.READ, sent[0], sent[1]) == 2
    newer = store.old_node_publishes(sent[3] + 1)
    assert await store.count() == 3
    store.old_node_removes(sent[1], sent[2])
    assert await store.count() == 2
    store.old_node_removes(sent[3])
    newest = store.old_node_publishes(newer + 1)
    assert await store.count() == 2
    assert store.members(schema.UNREAD) == [newer, newest]
    assert store.members(schema.READ) == [sent[0]]
    store.old_node_removes(newest)
    last = await store.publish()
    assert await store.count() == 2
    assert store.members(schema.UNREAD) == [newer, last]


async def test_a_removal_while_nobody_has_counted_is_no_reason_to_look_twice(
    store: Reading,
) -> None:
    first = await store.publish(collapse_key="k")
    await store.publish(collapse_key="k")
    assert await store.count() == 1
    newest = await store.publish(collapse_key="k")
    assert await store.count() == 1
    assert store.members(schema.UNREAD) == [newest]
    seen = store.redis.hget(store.keys.cursors(FEED), "~seen")
    assert seen == f"{ids.render(newest)} 1 0-0"
    assert first < newest


async def test_what_is_trimmed_by_age_is_forgotten(valkey: EmbeddedServer, prefix: str) -> None:
    store = Reading(valkey.url, prefix)
    sent = [await store.publish() for _ in range(3)]
    assert await store.change(Verb.READ, sent[0]) == 2
    lowered = Reading(valkey.url, prefix, replace(BOUNDS, retention=0.001))
    # What is kept for longer than any may be is looked at, and has gone.
    newest = await lowered.publish()
    assert await store.count() == 0 or newest
    assert store.members(schema.READ) == []
    for each in (store, lowered):
        await each.aclose()


async def test_the_sets_live_as_long_as_the_log(store: Reading) -> None:
    sent = [await store.publish() for _ in range(3)]
    await store.change(Verb.READ, sent[0])
    await store.change(Verb.ARCHIVE, sent[1])
    log = store.redis.pttl(store.keys.log(FEED))
    sets = [store.keys.read_state(FEED, each) for each in (":unread", ":read", ":archived")]
    for key in sets:
        assert abs(store.redis.pttl(key) - log) < 2000
        store.redis.pexpire(key, 1_000_000)
    store.redis.pexpire(store.keys.log(FEED), 1_000_000)
    await store.publish()
    for key in sets:
        assert store.redis.pttl(key) > 3_000_000


async def test_a_first_look_at_much_takes_several_calls_of_a_bounded_size(
    valkey: EmbeddedServer, prefix: str
) -> None:
    store = Reading(valkey.url, prefix, replace(BOUNDS, entries=200))
    sent = [await store.publish("x" * 20_000) for _ in range(60)]
    assert (await store.join("n1.1", "phone")).unread is None
    assert len(store.members(schema.UNREAD)) < 60
    assert await store.count() == 60
    store.old_node_removes(sent[0], sent[59])
    assert await store.change(Verb.READ, until=sent[9]) == 49
    assert store.members(schema.READ) == sent[1:10]
    assert store.members(schema.UNREAD) == sent[10:59]
    await store.aclose()


async def test_a_user_who_comes_back_is_told_how_many_are_unread(store: Reading) -> None:
    assert (await store.join("n1.1", "phone")).unread == 0
    sent = [await store.publish() for _ in range(3)]
    assert (await store.join("n1.2", "phone")).unread == 3
    await store.change(Verb.READ, sent[1])
    backlog = await store.join("n1.3", "laptop")
    assert backlog.unread == 2
    assert [entry.state for entry in backlog.entries] == ["", "read", ""]
    assert [entry.state for entry in (await store.read("laptop", 0)).entries] == ["", "read", ""]


async def test_what_nodes_of_before_do_in_a_mailbox_that_was_empty_is_counted(
    store: Reading,
) -> None:
    """While it is empty nobody looks at it."""

    async def joined() -> int | None:
        return (await store.join("n1.1", "phone")).unread

    assert await joined() == 0
    sent = await store.publish()
    await store.ack("phone", sent)
    assert await joined() == 1
    assert await store.withdraw(sent)
    assert await joined() == 0
    newer = store.old_node_publishes(sent + 1)
    assert await joined() == 1
    store.old_node_removes(newer)
    assert await joined() == 0
    store.old_node_removes(store.old_node_publishes(newer + 1))
    assert await joined() == 0
    store.old_node_publishes(newer + 2)
    assert await joined() == 1
    assert await store.count() == 1


async def test_after_redis_lost_everything_what_is_there_is_counted(store: Reading) -> None:
    sent = [await store.publish() for _ in range(3)]
    await store.join("n1.1", "phone", held=sent[2])
    store.redis.flushall()
    newest = await store.publish()
    backlog = await store.join("n1.1", "phone", held=sent[2] + 1000)
    assert (backlog.gap, backlog.unread) == ("reset", 1)
    assert (await store.read("phone", newest + 1000)).unread == 1


async def test_all_of_a_thousand_is_read_in_no_more_commands_than_chunks(
    valkey: EmbeddedServer, prefix: str
) -> None:
    store = Reading(valkey.url, prefix, replace(BOUNDS, entries=1000))
    for _ in range(1000):
        last = await store.publish()
    assert await store.count() == 1000
    before = store.redis.info("commandstats")
    assert await store.change(Verb.READ, until=last) == 0
    after = store.redis.info("commandstats")
    for name, most in (("zadd", 2), ("zrem", 1), ("xrange", 0)):
        calls = [each.get(f"cmdstat_{name}", {"calls": 0})["calls"] for each in (before, after)]
        assert calls[1] - calls[0] <= most, name
    await store.aclose()


async def test_what_happens_while_the_slot_moves_is_accepted_and_counted_when_it_has_moved(
    tmp_path: Path,
) -> None:
    with Cluster(tmp_path, primaries=2, replicas=0) as cluster:
        slot = key_slot(schema.Keys("p").log(FEED).encode())
        source = cluster.owner_of(slot)
        (target,) = cluster.servers.keys() - {source}
        store = Reading(f"redis://127.0.0.1:{source}", "p")
        await store.join("n1.1", "phone")
        sent = [
            await store.publish(collapse_key="k"),
            await store.publish(any_device=True),
            await store.publish(any_device=True),
            await store.publish(),
        ]
        assert await store.count() == 4
        ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", ask(source, "CLUSTER", "MYID"))
        ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", ask(target, "CLUSTER", "MYID"))
        unread = store.keys.read_state(FEED, schema.UNREAD)
        ask(source, "MIGRATE", "127.0.0.1", target, unread, 0, 5000)
        newest = await store.publish(collapse_key="k")
        assert await store.withdraw(sent[1])
        with pytest.raises(StoreUnavailable):
            await store.count()
        cluster.move(slot, target)
        moved = Reading(f"redis://127.0.0.1:{target}", "p")
        assert await moved.count() == 3
        assert moved.members(schema.UNREAD) == [*sent[2:], newest]
        for each in (store, moved):
            await each.aclose()


async def test_a_log_that_never_expires_is_counted(store: Reading) -> None:
    sent = [await store.publish() for _ in range(3)]
    store.redis.persist(store.keys.log(FEED))
    assert await store.change(Verb.READ, sent[0]) == 2
    assert await store.count() == 2
    assert store.members(schema.READ) == [sent[0]]


async def test_what_one_call_reads_is_bounded_by_bytes(valkey: EmbeddedServer, prefix: str) -> None:
    store = Reading(valkey.url, prefix, replace(BOUNDS, entries=100))
    for _ in range(40):
        await store.publish("x" * 65_000)
    command = store.states._command(FEED, "", "")
    assert (await store.commands.execute(command))[0] == -1
    assert len(store.members(schema.UNREAD)) <= 6
    await store.join("n1.1", "phone")
    assert len(store.members(schema.UNREAD)) <= 6 + 4
    assert await store.count() == 40
    await store.aclose()


async def test_what_is_looked_at_again_is_read_once(valkey: EmbeddedServer, prefix: str) -> None:
    store = Reading(valkey.url, prefix, replace(BOUNDS, entries=400))
    sent = [await store.publish("x" * 5_000, signal=i % 10 == 9) for i in range(300)]
    assert await store.change(Verb.READ, *sent[:5]) == 265
    store.old_node_removes(sent[0], sent[150], sent[298], sent[299])
    before = store.redis.info("commandstats")["cmdstat_zrange"]["calls"]
    assert await store.count() == 263
    assert store.redis.info("commandstats")["cmdstat_zrange"]["calls"] - before <= 3
    assert store.members(schema.READ) == sent[1:5]
    assert await store.withdraw(sent[1])
    assert store.members(schema.READ) == sent[2:5]
    await store.aclose()


async def test_what_many_settle_is_forgotten_in_one_command(store: Reading) -> None:
    await store.join("n1.1", "phone")
    sent = [await store.publish(any_device=True) for _ in range(8)]
    assert await store.count() == 8
    before = store.redis.info("commandstats").get("cmdstat_zrem", {"calls": 0})["calls"]
    await store.ack("phone", sent[7])
    assert store.redis.info("commandstats")["cmdstat_zrem"]["calls"] - before == 1
    assert await store.count() == 0


async def test_a_question_takes_no_more_than_so_many_calls(
    store: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(8):
        await store.publish("x" * 250_000)
    monkeypatch.setattr("pushsvc.feeds.read_state.MOST_CALLS", 1)
    with pytest.raises(StoreUnavailable):
        await store.count()
    monkeypatch.undo()
    assert await store.count() == 8
