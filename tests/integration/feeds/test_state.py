"""The state of a topic on a real server: what it costs, and nodes of before that write no order."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from pushsvc.feeds.feed import READ_BYTES, Bounds, Rest
from pushsvc.protocol import ids
from pushsvc.protocol.feeds import topic
from pushsvc.server.embedded import EmbeddedServer
from pushsvc.store import schema
from tests.support.store import Store

TOPIC = topic("scores.nba")
BOUNDS = Bounds(entries=1000, retention=3600, connections=4)


@pytest.fixture
async def store(valkey: EmbeddedServer, prefix: str) -> AsyncIterator[Store]:
    store = Store(valkey.url, prefix, BOUNDS)
    yield store
    await store.aclose()


async def fill(store: Store, feed: str, keys: int, size: int) -> None:
    for number in range(keys):
        await store.publish(f"{number} ".ljust(size, "x"), feed, collapse_key=f"k{number}")


async def newcomer(store: Store, feed: str = TOPIC) -> list[bytes]:
    """All that one is sent, however many reads it takes."""
    part = await store.subscribe(feed)
    found, end = list(part.entries), part.head
    while part.upto < end:
        part = await store.subscribe(feed, since=Rest(part.upto, end))
        found += part.entries
    assert [each.id for each in found] == sorted({each.id for each in found})
    return [each.body or b"" for each in found]


def microseconds(store: Store) -> float:
    """What Redis spent on the commands that a newcomer takes."""
    stats = store.redis.info("commandstats")
    return float(sum(stats[name]["usec"] for name in ("cmdstat_evalsha", "cmdstat_hmget")))


async def spent(store: Store, feed: str, *, parts: int | None = None) -> float:
    """The least that one read of a state cost of several."""
    costs = []
    for _ in range(7):
        before = microseconds(store)
        if parts is None:
            await newcomer(store, feed)
        else:
            for _ in range(parts):
                await store.subscribe(feed)
        costs.append(microseconds(store) - before)
    return min(costs)


async def test_a_part_of_a_state_costs_what_it_sends_and_not_what_is_kept(store: Store) -> None:
    few, many = topic("few"), topic("many")
    await fill(store, few, 10, READ_BYTES // 8)
    await fill(store, many, 500, READ_BYTES // 8)
    assert len((await store.subscribe(few)).entries) == len((await store.subscribe(many)).entries)
    assert await spent(store, many, parts=20) < 3 * await spent(store, few, parts=20)


async def test_a_newcomer_to_ten_times_the_state_costs_ten_times_as_much(store: Store) -> None:
    few, many = topic("few"), topic("many")
    await fill(store, few, 100, 4096)
    await fill(store, many, 1000, 4096)
    assert len(await newcomer(store, many)) == 1000
    assert await spent(store, many) < 20 * await spent(store, few)


async def test_what_has_passed_its_time_to_live_is_looked_at_once(store: Store) -> None:
    for number in range(50):
        await store.publish("x" * 10_000, TOPIC, collapse_key=f"k{number}", ttl=0.001)
    await store.publish("kept", TOPIC, collapse_key="k")
    while await newcomer(store) != [b"kept"]:
        pass
    assert store.redis.hkeys(store.keys.latest(TOPIC)) == ["k"]
    assert store.redis.xlen(store.keys.order(TOPIC)) == 1
    assert store.redis.xlen(store.keys.log(TOPIC)) == 1


# --- nodes of before, which keep the latest of a topic and no order of it -------------------------


class Before:
    """Publishes as they do."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.latest = store.keys.latest(TOPIC)
        self.order = store.keys.order(TOPIC)
        self.cursors = store.keys.cursors(TOPIC)

    async def publish(self, body: str, key: str) -> int:
        store = self.store
        older = store.redis.hget(self.latest, key)
        if older:
            store.redis.xdel(store.keys.log(TOPIC), str(older).split(" ")[0])
        ordered = store.redis.hget(self.cursors, schema.ORDERED)
        entry_id = await store.publish(body, TOPIC)
        if ordered is None:  # which they do not write
            store.redis.hdel(self.cursors, schema.ORDERED)
        else:
            store.redis.hset(self.cursors, schema.ORDERED, str(ordered))
        store.redis.hset(self.latest, key, f"{ids.render(entry_id)} 9999999999999 {body}")
        return entry_id

    def forget(self, key: str) -> None:
        self.store.redis.hdel(self.latest, key)


@pytest.fixture
def before(store: Store) -> Before:
    return Before(store)


async def test_a_state_without_an_order_is_read_in_the_order_of_its_ids(
    store: Store, before: Before
) -> None:
    for number in range(100):
        await before.publish(f"{number}", f"k{number}")
    assert await newcomer(store) == [b"%d" % number for number in range(100)]
    assert store.redis.xlen(before.order) == 100
    assert store.redis.pttl(before.order) > 0


async def test_what_a_node_of_before_adds_is_part_of_the_state(
    store: Store, before: Before
) -> None:
    await store.publish("new", TOPIC, collapse_key="a")
    await before.publish("old", "b")
    assert await newcomer(store) == [b"new", b"old"]
    await store.publish("newer", TOPIC, collapse_key="b")
    assert await newcomer(store) == [b"new", b"newer"]
    assert store.redis.hgetall(before.latest).keys() == {"a", "b"}


async def test_what_a_node_of_before_replaces_is_sent_as_what_it_is_now_and_once(
    store: Store, before: Before
) -> None:
    for key in "abc":
        await store.publish(key, TOPIC, collapse_key=key)
    await before.publish("a2", "a")
    await before.publish("b2", "b")
    assert await newcomer(store) == [b"c", b"a2", b"b2"]
    assert await newcomer(store) == [b"c", b"a2", b"b2"]


async def test_what_a_node_of_before_removed_and_added_leaves_no_hole(
    store: Store, before: Before
) -> None:
    for key in "ab":
        await store.publish(key, TOPIC, collapse_key=key)
    before.forget("a")
    await before.publish("c", "c")
    assert store.redis.hlen(before.latest) == store.redis.xlen(before.order)
    assert await newcomer(store) == [b"b", b"c"]


async def test_what_a_node_of_before_added_is_there_though_all_counts_agree(
    store: Store, before: Before
) -> None:
    for number in range(100):
        await store.publish(f"{number}", TOPIC, collapse_key=f"k{number}")
    await before.publish("a", "a")
    for number in range(100, 700):
        await store.publish(f"{number}", TOPIC, collapse_key=f"k{number}")
    await store.publish("1", TOPIC, collapse_key="k")
    await before.publish("2", "k")
    await store.publish("3", TOPIC, collapse_key="k")
    assert store.redis.hlen(before.latest) == store.redis.xlen(before.order)
    expected = [b"%d" % number for number in range(700)]
    assert await newcomer(store) == [*expected[:100], b"a", *expected[100:], b"3"]
    assert store.redis.hget(before.cursors, schema.ORDERED) == store.redis.hget(
        before.cursors, schema.STORED
    )


async def test_an_order_that_is_put_right_amid_a_state_takes_nothing_from_it(
    store: Store, before: Before
) -> None:
    for number in range(600):
        await store.publish(f"{number}", TOPIC, collapse_key=f"k{number}")
    part = await store.subscribe(TOPIC)
    await before.publish("a", "a")
    await before.publish("599 again", "k599")
    assert len(await newcomer(store)) == 601  # puts it right
    rest = await store.subscribe(TOPIC, since=Rest(part.upto, part.head))
    bodies = [each.body for each in (*part.entries, *rest.entries)]
    assert bodies == [b"%d" % number for number in range(599)]
    assert rest.upto == part.head  # and the others are in the log after that


async def test_a_full_state_that_a_node_of_before_wrote_to_loses_its_oldest_only(
    valkey: EmbeddedServer, prefix: str
) -> None:
    store = Store(valkey.url, prefix, Bounds(entries=3, retention=3600, connections=4))
    try:
        before = Before(store)
        for key in "abc":
            await store.publish(key, TOPIC, collapse_key=key)
        await before.publish("a2", "a")  # the oldest by the order, and the newest by now
        await store.publish("d", TOPIC, collapse_key="d")
        assert await newcomer(store) == [b"c", b"a2", b"d"]
    finally:
        await store.aclose()


@pytest.mark.parametrize("gone", [False, True])
async def test_a_value_that_is_replaced_or_gone_once_it_is_read_is_not_of_the_state(
    store: Store, before: Before, monkeypatch: pytest.MonkeyPatch, *, gone: bool
) -> None:
    sent = [await store.publish(key, TOPIC, collapse_key=key) for key in "abc"]
    submit = store.commands.submit

    def meanwhile(commands: list[Any], *parse: Any) -> Any:
        if commands[0][0] == "HMGET":
            if gone:
                before.forget("b")
            else:
                value = f"{ids.render(sent[-1] + 1)} 9999999999999 b2"
                store.redis.hset(before.latest, "b", value)
        return submit(commands, *parse)

    monkeypatch.setattr(store.commands, "submit", meanwhile)
    part = await store.subscribe(TOPIC)
    monkeypatch.undo()
    assert [each.body for each in part.entries] == [b"a", b"c"]
    assert part.upto == part.head


async def test_values_that_are_gone_cost_no_new_order(
    store: Store, before: Before, monkeypatch: pytest.MonkeyPatch
) -> None:
    oldest, *_ = [await store.publish(key, TOPIC, collapse_key=key) for key in "abc"]
    submit = store.commands.submit

    def meanwhile(commands: list[Any], *parse: Any) -> Any:
        if commands[0][0] == "HMGET":
            store.redis.hdel(before.latest, "a")
            store.redis.xdel(before.order, ids.render(oldest))
        return submit(commands, *parse)

    monkeypatch.setattr(store.commands, "submit", meanwhile)
    assert [each.body for each in (await store.subscribe(TOPIC)).entries] == [b"b", b"c"]
    monkeypatch.undo()
    assert await newcomer(store) == [b"b", b"c"]
    # Written anew, it would be another stream.
    assert store.redis.xinfo_stream(before.order)["entries-added"] == 3


async def test_a_topic_without_a_state_asks_for_no_values(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.publish("x", TOPIC)
    asked: list[list[Any]] = []
    submit = store.commands.submit

    def counted(commands: list[Any], *parse: Any) -> Any:
        asked.append(commands)
        return submit(commands, *parse)

    monkeypatch.setattr(store.commands, "submit", counted)
    assert not (await store.subscribe(TOPIC)).entries
    assert len(asked) == 1
