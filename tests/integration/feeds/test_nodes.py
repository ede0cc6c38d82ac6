"""Leases, inboxes and courier packets."""

import asyncio
import time
from collections.abc import AsyncIterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.feeds.nodes import (
    Entry,
    Inbox,
    Kind,
    Leases,
    Outbox,
    node_of,
    pack,
    pack_head,
    pack_tail,
    unpack,
)
from pushsvc.server.embedded import EmbeddedServer
from pushsvc.store.blocking import BlockingConnection
from pushsvc.store.topology import connector
from tests.support.redis import redis_at

entry_ids = st.builds(lambda ms, seq: ms << 64 | seq, st.integers(0, 2**48), st.integers(0, 2**63))
couriers = st.builds(Entry.of, st.text(), entry_ids, st.just(-1) | entry_ids, st.binary())


@given(st.lists(couriers))
def test_a_packet_carries_entries_as_they_are(entries: list[Entry]) -> None:
    assert unpack(pack(entries)) == entries


class Before(msgspec.Struct, frozen=True, array_like=True):
    """An entry as nodes of before know it."""

    feed: str
    ms: int
    sequence: int
    previous_ms: int
    previous_sequence: int
    body: bytes


@given(st.text(), entry_ids, st.just(-1) | entry_ids, st.binary(), st.text())
def test_nodes_of_before_read_a_packet_and_write_one(
    feed: str, entry_id: int, previous: int, body: bytes, device: str
) -> None:
    mask = (1 << 64) - 1
    fields = feed, entry_id >> 64, entry_id & mask, previous >> 64, previous & mask, body
    before = [Before(*fields)]
    entry = Entry.of(feed, entry_id, previous, body, device)
    assert (entry.id, entry.previous) == (entry_id, previous)
    assert msgspec.msgpack.decode(pack([entry]), type=list[Before]) == before
    assert unpack(msgspec.msgpack.encode(before)) == [Entry(*fields)]
    # As a script writes it, but for the lengths that it does not know to be short.
    assert pack([entry]).startswith(pack_head(feed))
    assert pack([entry]).endswith(pack_tail(device))


class Shared:
    """What nodes share."""

    def __init__(self, url: str, prefix: str) -> None:
        self.url = url
        self.commands = redis_at(url, prefix)
        self.keys = self.commands.keys

    def inbox(self) -> Inbox:
        return Inbox(BlockingConnection(connector(self.url)(10)), self.commands, "a", 10)

    def leases(self, seconds: float = 10) -> Leases:
        return Leases(self.commands, seconds)


@pytest.fixture
async def shared(valkey: EmbeddedServer, prefix: str) -> AsyncIterator[Shared]:
    shared = Shared(valkey.url, prefix)
    yield shared
    await shared.commands.aclose()


async def test_who_holds_a_lease_is_live_until_it_gives_it_up(shared: Shared) -> None:
    a, b = shared.leases(), shared.leases()
    assert (await a.renew("a", take=True)).live == frozenset({"a"})
    assert (await b.renew("b", take=True)).live == frozenset({"a", "b"})
    await a.give_up("a")
    assert (await b.renew("b", take=False)).live == frozenset({"b"})


async def test_a_lapsed_lease_is_not_renewed(shared: Shared) -> None:
    leases = shared.leases(0.05)
    await leases.renew("a", take=True)
    async with asyncio.timeout(5):
        while (await shared.leases().renew("b", take=True)).live != frozenset({"b"}):
            await asyncio.sleep(0.005)
    assert (await leases.renew("a", take=False)).live is None
    # Nor by a second try: the id is spent.
    assert (await leases.renew("a", take=False)).live is None


async def test_a_node_younger_than_the_last_renewal_is_not_dead(shared: Shared) -> None:
    a, b = shared.leases(), shared.leases()
    await a.renew("a", take=True)
    await b.renew("b", take=True)
    assert a.live == frozenset({"a"})
    assert await a.dead(["a.1", "b.1", "gone.1"]) == ["gone.1"]


async def test_redis_time_is_known_to_some_milliseconds(shared: Shared) -> None:
    leases = shared.leases()
    beat = await leases.renew("a", take=True)
    assert abs(leases.redis_time() - beat.redis_ms / 1000) < 1


async def test_a_step_of_this_machines_clock_is_none_of_redis_time(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = shared.leases()
    beat = await leases.renew("a", take=True)
    assert leases.skew == pytest.approx(0, abs=1)
    here = time.time
    for step in (-60, 60):
        monkeypatch.setattr(time, "time", lambda step=step: here() + step)
        assert abs(leases.redis_time() - beat.redis_ms / 1000) < 5
        assert await leases.dead(["a.1"]) == []
        await leases.renew("a", take=False)
        assert leases.skew == pytest.approx(step, abs=1)
        assert abs(leases.redis_time() - beat.redis_ms / 1000) < 5
    monkeypatch.undo()
    await leases.fetch_live()
    assert leases.skew == pytest.approx(0, abs=1)


async def test_what_is_posted_comes_in_order_and_only_once(shared: Shared) -> None:
    inbox = shared.inbox()
    await inbox.open()
    outbox = Outbox(shared.commands)
    sent = [Entry.of("u:1", i, i - 1, b"x" * 1000) for i in range(1, 1001)]
    got: list[Entry] = []
    canaries: list[bytes] = []
    for first in range(0, 1000, 100):
        for entry in sent[first : first + 100]:
            outbox.post("a", entry)
        await outbox.aclose()
        await inbox.beat(b"c%d" % first)
        came = await inbox.read()
        got += [entry for kind, value in came if kind is Kind.ENTRIES for entry in unpack(value)]
        canaries += [value for kind, value in came if kind is Kind.CANARY]
    assert got == sent
    assert canaries == [b""] + [b"c%d" % first for first in range(0, 1000, 100)]
    await inbox.aclose()


async def test_what_was_read_is_dropped_from_the_inbox(shared: Shared) -> None:
    inbox = shared.inbox()
    await inbox.open()
    outbox = Outbox(shared.commands)
    for i in range(1, 400):
        outbox.post("a", Entry.of("u:1", i, i - 1, b"x" * 2000))
        await outbox.aclose()
    assert await inbox.beat(b"") == 401
    left = 401
    while left:
        left -= len(await inbox.read())
    assert await inbox.beat(b"") < 20
    await inbox.aclose()


async def test_nothing_is_left_behind_for_a_node_that_is_gone(shared: Shared) -> None:
    outbox = Outbox(shared.commands)
    outbox.post("gone", Entry.of("u:1", 1, 0, b""))
    await outbox.aclose()
    assert await shared.commands.one("EXISTS", shared.keys.inbox("gone")) == 0


def test_a_connection_id_begins_with_its_node() -> None:
    assert node_of("4f0c2a.1f") == "4f0c2a"
