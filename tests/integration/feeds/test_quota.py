"""What clients may store, on a real server: budgets of users, and topics that are full."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pushsvc.errors import Overloaded, PushError, QuotaExceeded, StoreUnavailable, TopicFull
from pushsvc.feeds.feed import Appended, Bounds
from pushsvc.feeds.quota import ENTRY_BYTES, FEED_BYTES, ClientQuota, cost
from pushsvc.protocol.feeds import topic
from pushsvc.protocol.notifications import Append
from pushsvc.server.embedded import EmbeddedServer
from tests.support.store import Store

TOPIC = topic("room.1")
MOST = 100_000
BOUNDS = Bounds(entries=1000, retention=3600, connections=4, client_bytes=MOST)
LONG = 3600.0


@pytest.fixture
async def store(valkey: EmbeddedServer, prefix: str) -> AsyncIterator[Store]:
    store = Store(valkey.url, prefix, BOUNDS)
    yield store
    await store.aclose()


def note(size: int = 1000, feed: str = TOPIC, **fields: Any) -> Append:
    return Append(feed, b"x" * size, client=True, **fields)


async def append(store: Store, one: Append) -> Appended | PushError:
    (result,), _ = await store.feeds.append([one])
    return result


# --- of a user -----------------------------------------------------------------------------------


def test_what_is_not_stored_costs_little_or_nothing_and_what_is_twice_stored_twice() -> None:
    assert cost(note(ephemeral=True)) == 0
    assert cost(note(ttl=0)) == ENTRY_BYTES
    assert cost(note()) == 1000 + ENTRY_BYTES
    assert cost(note(collapse_key="k")) == 2 * cost(note())


async def test_a_budget_is_one_for_all_nodes_and_each_user_has_its_own(store: Store) -> None:
    a, b = (ClientQuota(store.commands, MOST, LONG) for _ in range(2))
    each = note(MOST // 4 - ENTRY_BYTES)
    for quota in (a, b, a, b):
        await quota.spend("u1", [each])
    for quota in (a, b):
        with pytest.raises(QuotaExceeded, match="wait, publish less") as refused:
            await quota.spend("u1", [each])
        assert LONG / 4 - 60 < (refused.value.retry_after or 0) <= LONG / 4
        await quota.spend("u2", [each])
    await a.spend("u1", [note(ephemeral=True)])


async def test_a_budget_fills_up_again_and_leaves_nothing_behind(store: Store) -> None:
    quota = ClientQuota(store.commands, MOST, 0.4)
    await quota.spend("u1", [note(MOST)])
    with pytest.raises(QuotaExceeded) as refused:
        await quota.spend("u1", [note(MOST // 2 - ENTRY_BYTES)])
    await asyncio.sleep(refused.value.retry_after or 0)
    await quota.spend("u1", [note(MOST // 2 - ENTRY_BYTES)])
    async with asyncio.timeout(5):
        while store.redis.exists(store.keys.stored("u:u1")):
            await asyncio.sleep(0.01)


async def test_what_is_over_the_whole_budget_takes_all_of_it(store: Store) -> None:
    quota = ClientQuota(store.commands, MOST, LONG)
    await quota.spend("u1", [note(10 * MOST)])
    with pytest.raises(QuotaExceeded):
        await quota.spend("u1", [note(1)])


class Budget:
    """What of a budget is taken."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.quota = ClientQuota(store.commands, MOST, LONG)

    async def settled(self, size: float) -> None:
        store = self.store
        await store.commands.one("PING")  # what was sent before is carried out
        full = float(str(store.redis.get(store.keys.stored("u:u1")) or 0)) / 1000
        seconds, microseconds = store.redis.time()
        taken = max(0.0, full - seconds - microseconds / 1e6) / LONG * MOST
        assert size - 100 < taken <= size

    async def publish(self, one: Append) -> None:
        await self.quota.spend("u1", [one])
        self.quota.settle("u1", [one], [await append(self.store, one)])


@pytest.fixture
def budget(store: Store) -> Budget:
    return Budget(store)


async def test_a_new_topic_costs_more_and_what_was_not_taken_is_given_back(budget: Budget) -> None:
    quota, settled = budget.quota, budget.settled
    first, second = note(), note()
    await quota.spend("u1", [first, second])
    await settled(2 * cost(first))
    quota.settle("u1", [first, second], [Appended(1 << 64, 0, {}), Appended(2 << 64, 1 << 64, {})])
    await settled(2 * cost(first) + FEED_BYTES)
    quota.settle("u1", [first], [TopicFull("full")])
    await settled(cost(first) + FEED_BYTES)
    # Of this it is not known that it was not stored.
    quota.settle("u1", [first], [StoreUnavailable("gone")])
    # A backend's are nobody's.
    quota.settle("u1", [Append(TOPIC, b"x")], [Appended(1 << 64, 0, {})])
    await settled(cost(first) + FEED_BYTES)
    quota.settle("u1", [first], [Overloaded("not published")])
    await settled(FEED_BYTES)


@pytest.mark.parametrize("fields", [{}, {"ttl": 0}, {"collapse_key": "k"}])
async def test_an_idempotency_key_costs_an_entry_and_a_repeat_nothing(
    budget: Budget, fields: dict[str, Any]
) -> None:
    one = note(once="1", **fields)
    assert cost(one) == cost(note(**fields)) + ENTRY_BYTES
    for _ in range(3):
        await budget.publish(one)
        await budget.settled(FEED_BYTES + cost(one))


@pytest.mark.parametrize("bounded", [True, False])
async def test_what_replaces_another_of_its_key_costs_what_it_adds(
    valkey: EmbeddedServer, prefix: str, *, bounded: bool
) -> None:
    bounds = Bounds(entries=1000, retention=3600, connections=4, client_bytes=MOST * bounded)
    store = Store(valkey.url, prefix, bounds)
    try:
        budget = Budget(store)
        for _ in range(3 * MOST // 1000):
            await budget.publish(note(collapse_key="k"))
        await budget.settled(FEED_BYTES + cost(note(collapse_key="k")))
        await budget.publish(note(2000, collapse_key="k"))
        await budget.settled(FEED_BYTES + cost(note(2000, collapse_key="k")))
        # What is large and may be another's gives no more back than what took its place.
        await budget.publish(note(1, collapse_key="k"))
        await budget.settled(FEED_BYTES + cost(note(2000, collapse_key="k")))
        # Of what has left the log already, the state has gone.
        store.redis.delete(store.keys.log(TOPIC))
        await budget.publish(note(1, collapse_key="k"))
        left = FEED_BYTES + cost(note(2000, collapse_key="k")) + cost(note(1))
        await budget.settled(left)
    finally:
        await store.aclose()


async def test_without_a_limit_nothing_is_asked(store: Store) -> None:
    quota = ClientQuota(store.commands, 0, LONG)
    await quota.spend("u1", [note(MOST)] * 10)
    quota.settle("u1", [note()], [Appended(1 << 64, 0, {})])
    assert not store.redis.exists(store.keys.stored("u:u1"))


# --- of a topic ----------------------------------------------------------------------------------


async def fill(store: Store, **fields: Any) -> list[int]:
    """Publish as a client until the topic is full; the ids that were accepted."""
    accepted: list[int] = []
    while len(accepted) < 1000:
        result = await append(store, note(**fields))
        if not isinstance(result, Appended):
            assert isinstance(result, TopicFull)
            return accepted
        accepted.append(result.id)
    raise AssertionError("never full")


async def test_a_full_topic_refuses_clients_keeps_what_it_has_and_takes_what_backends_send(
    store: Store,
) -> None:
    accepted = await fill(store)
    assert MOST * 3 // 4 < len(accepted) * (1000 + ENTRY_BYTES) <= MOST
    assert isinstance(await append(store, note(1)), TopicFull)
    live = await append(store, note(ttl=0))
    assert isinstance(live, Appended)
    backend = await store.publish("from a backend", TOPIC)
    read = await store.read("", accepted[0] - 1, TOPIC)
    found = list(read.entries)
    while read.upto < backend:
        read = await store.read("", read.upto, TOPIC)
        found += read.entries
    assert [each.id for each in found] == [*accepted, backend]


async def test_a_topic_is_not_full_while_one_takes_the_place_of_another(store: Store) -> None:
    for _ in range(3 * MOST // 1000):
        assert isinstance(await append(store, note(collapse_key="k")), Appended)
    # Of many keys, each value is there twice.
    accepted = 0
    while isinstance(await append(store, note(collapse_key=f"k{accepted}")), Appended):
        accepted += 1
    assert MOST * 3 // 4 < accepted * 2 * (1000 + ENTRY_BYTES) <= MOST


async def test_a_topic_of_which_the_oldest_go_is_not_full(
    valkey: EmbeddedServer, prefix: str
) -> None:
    bounds = Bounds(entries=20, retention=3600, connections=4, client_bytes=MOST)
    store = Store(valkey.url, prefix, bounds)
    try:
        for _ in range(3 * MOST // 1000):
            assert isinstance(await append(store, note()), Appended)
    finally:
        await store.aclose()


async def test_a_full_topic_that_was_emptied_takes_more_once_it_is_looked_at_again(
    store: Store,
) -> None:
    await fill(store)
    cursors = store.keys.cursors(TOPIC)
    closed = str(store.redis.hget(cursors, "~bytes")).split()[1]
    assert 25_000 < int(closed) - int(store.redis.time()[0]) * 1000 <= 31_000
    store.redis.delete(store.keys.log(TOPIC))
    assert isinstance(await append(store, note()), TopicFull)
    await looked_at_again(store)
    assert isinstance(await append(store, note()), Appended)


async def looked_at_again(store: Store) -> None:
    """Let the pause of a full topic pass."""
    cursors = store.keys.cursors(TOPIC)
    size, _ = str(store.redis.hget(cursors, "~bytes")).split()
    store.redis.hset(cursors, "~bytes", f"{size} 1")


@pytest.mark.parametrize("key", [False, True])
async def test_a_full_topic_whose_messages_have_passed_their_time_frees_itself(
    store: Store, *, key: bool
) -> None:
    kept = await append(store, note(1, collapse_key="kept"))
    assert isinstance(kept, Appended)
    accepted = 0
    while isinstance(
        await append(store, note(ttl=0.5, collapse_key=f"k{accepted}" * key)), Appended
    ):
        accepted += 1
    assert accepted > MOST // 4000
    async with asyncio.timeout(5):
        while store.redis.xlen(store.keys.log(TOPIC)) > 1:
            assert isinstance(await append(store, note(MOST)), TopicFull)
            await looked_at_again(store)
            await asyncio.sleep(0.05)
    assert store.redis.hkeys(store.keys.latest(TOPIC)) == ["kept"]
    assert store.redis.xlen(store.keys.order(TOPIC)) == 1
    assert isinstance(await append(store, note()), Appended)


async def test_a_full_topic_whose_messages_are_older_than_the_retention_frees_itself(
    store: Store, valkey: EmbeddedServer, prefix: str
) -> None:
    accepted = await fill(store)
    brief = Store(valkey.url, prefix, Bounds(1000, 0.2, 4, client_bytes=MOST))
    try:
        async with asyncio.timeout(5):
            while not isinstance(await append(brief, note(4000)), Appended):
                await looked_at_again(store)
                await asyncio.sleep(0.05)
        assert (await brief.read("", accepted[0], TOPIC)).gap == "trimmed"
    finally:
        await brief.aclose()


async def test_a_full_topic_costs_a_refusal_and_not_a_count(store: Store) -> None:
    await fill(store)

    async def microseconds(one: Append) -> float:
        costs = []
        for _ in range(7):
            before = store.redis.info("commandstats")["cmdstat_evalsha"]["usec"]
            for _ in range(50):
                await append(store, one)
            after = store.redis.info("commandstats")["cmdstat_evalsha"]["usec"]
            costs.append(after - before)
        return float(min(costs))

    live = await microseconds(note(ttl=0))
    assert await microseconds(note()) < 3 * live


async def test_every_key_has_a_time_to_live(store: Store, prefix: str) -> None:
    await ClientQuota(store.commands, MOST, LONG).spend("u1", [note()])
    await append(store, note(2 * MOST))  # refused, and the first of its topic
    await append(store, note(collapse_key="k", feed=topic("room.2")))
    keys = list(store.redis.scan_iter(f"{prefix}*"))
    assert len(keys) == 6
    assert {key: store.redis.pttl(key) for key in keys if store.redis.pttl(key) <= 0} == {}
