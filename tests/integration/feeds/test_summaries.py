"""What nodes say of themselves."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from pushsvc.errors import StoreUnavailable
from pushsvc.feeds import summaries
from pushsvc.feeds.feed import Bounds
from pushsvc.feeds.nodes import Leases
from pushsvc.feeds.summaries import Histogram, Summaries, Summary
from pushsvc.server.embedded import EmbeddedServer
from tests.support.store import Store

SAID = Summary(
    "n1", "host", 4711, "1.0", 1_764_000_000_000, ("draining",), 3, {"acked": 7},
    Histogram((0.1, 1.0), (1, 2, 3)),
)  # fmt: skip


@pytest.fixture
async def store(valkey: EmbeddedServer, prefix: str) -> AsyncIterator[Store]:
    store = Store(valkey.url, prefix, Bounds(entries=10, retention=60, connections=8))
    yield store
    await store.aclose()


async def test_what_a_node_says_is_read_by_all(store: Store) -> None:
    Summaries(store.commands, 10).tell(SAID)
    assert await Summaries(store.commands, 10).of(["n1"]) == [SAID]


async def test_who_has_not_said_anything_is_in_trouble_and_in_place(store: Store) -> None:
    there = Summaries(store.commands, 10)
    there.tell(SAID)
    first, second, third = await there.of(["n0", "n1", "n2"])
    assert (first.node, second, third.node) == ("n0", SAID, "n2")
    assert first.troubles
    assert (first.connections, first.totals, first.deliver.counts) == (0, {}, (0,))
    assert await there.of([]) == []


async def test_what_cannot_be_read_is_no_error(store: Store) -> None:
    there = Summaries(store.commands, 10)
    for text in (b"", b"no summary", msgspec.msgpack.encode({"node": 1})):
        store.redis.set(store.keys.summary("n1"), text)
        (found,) = await there.of(["n1"])
        assert (found.node, found.pid) == ("n1", None)
        assert "version" in found.troubles[0]


async def test_fields_of_a_newer_version_are_skipped(store: Store) -> None:
    newer = msgspec.to_builtins(SAID) | {"mood": "good"}
    store.redis.set(store.keys.summary("n1"), msgspec.msgpack.encode(newer))
    assert await Summaries(store.commands, 10).of(["n1"]) == [SAID]


async def test_fields_that_an_older_version_does_not_know_are_left_out(store: Store) -> None:
    store.redis.set(store.keys.summary("n1"), msgspec.msgpack.encode({"node": "n1"}))
    (found,) = await Summaries(store.commands, 10).of(["n1"])
    assert found == Summary("n1")
    assert found.silence(1_764_000_000_000) == 0


async def test_times_that_are_none_are_not_taken_for_times(store: Store) -> None:
    for field in ("started", "time"):
        odd = msgspec.to_builtins(SAID) | {field: 10**16}
        store.redis.set(store.keys.summary("n1"), msgspec.msgpack.encode(odd))
        (found,) = await Summaries(store.commands, 10).of(["n1"])
        assert "version" in found.troubles[0]


@pytest.mark.parametrize(
    ("seconds", "silence"), [(-5, 0), (0, 0), (2, 0), (5.9, 0), (6, 6), (8.7, 8), (60, 60)]
)
def test_a_node_is_silent_once_several_summaries_are_missing(seconds: float, silence: int) -> None:
    said = Summary("n1", time=1_764_000_000_000)
    assert said.silence(1_764_000_000_000 + round(1000 * seconds)) == silence


@pytest.mark.parametrize(("lease", "most"), [(1, 10_000), (10, 30_000)])
async def test_a_summary_is_kept_for_some_leases(store: Store, lease: float, most: int) -> None:
    there = Summaries(store.commands, lease)
    there.tell(SAID)
    await there.of(["n1"])
    left = store.redis.pttl(store.keys.summary("n1"))
    assert isinstance(left, int)
    assert most - 5000 < left <= most


async def test_no_more_nodes_are_asked_for_than_a_bound(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summaries, "MOST_NODES", 2)
    found = await Summaries(store.commands, 10).of(["n1", "n2", "n3"])
    assert [each.node for each in found] == ["n1", "n2"]


async def test_without_redis_telling_is_silent_and_reading_is_not(store: Store) -> None:
    there = Summaries(store.commands, 10)
    await store.commands.aclose()
    there.tell(SAID)
    with pytest.raises(StoreUnavailable):
        await there.of(["n1"])


async def test_who_holds_no_lease_can_look_who_does(store: Store) -> None:
    holder = Leases(store.commands, 10)
    looker = Leases(store.commands, 10)
    assert await looker.fetch_live() == frozenset()
    # Nobody is live, and that is known: registrations are of the dead.
    assert await looker.dead(["n1.1"]) == ["n1.1"]
    await holder.renew("n1", take=True)
    assert await looker.fetch_live() == looker.live == frozenset({"n1"})
    assert await looker.dead(["n1.1", "n2.1"]) == ["n2.1"]
    assert abs(looker.redis_time() - holder.redis_time()) < 1
    store.redis.zadd(store.keys.nodes, {"n1": 1})  # its lease has lapsed
    assert await looker.fetch_live() == frozenset()


async def test_before_the_first_look_nobody_is_said_to_be_dead(store: Store) -> None:
    assert await Leases(store.commands, 10).dead(["n1.1"]) == []
