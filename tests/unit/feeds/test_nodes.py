"""Leases, inboxes and courier packets."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.embedded import EmbeddedServer
from pushsvc.feeds.connect import connector
from pushsvc.feeds.keys import Keys
from pushsvc.feeds.lane import Lane
from pushsvc.feeds.nodes import Copy, Inbox, Leases, Outbox, node_of, pack, unpack
from pushsvc.feeds.scripts import Scripts

entry_ids = st.builds(lambda ms, seq: ms << 64 | seq, st.integers(0, 2**48), st.integers(0, 2**63))
couriers = st.builds(Copy, st.text(), entry_ids, st.just(-1) | entry_ids, st.binary())


@given(st.lists(couriers))
def test_a_packet_carries_entries_as_they_are(entries: list[Copy]) -> None:
    assert unpack(pack(entries)) == entries


class Redis:
    """What nodes share."""

    def __init__(self, url: str, prefix: str) -> None:
        self.connect = connector(url)
        self.scripts = Scripts()
        self.lane = Lane("test", self.connect(5), self.scripts)
        self.keys = Keys(prefix)

    def leases(self, seconds: float = 10) -> Leases:
        return Leases(self.lane, self.keys, self.scripts, seconds)


@pytest.fixture
async def shared(valkey: EmbeddedServer, prefix: str) -> AsyncIterator[Redis]:
    shared = Redis(valkey.url, prefix)
    yield shared
    await shared.lane.aclose()


async def test_who_holds_a_lease_is_live_until_it_gives_it_up(shared: Redis) -> None:
    a, b = shared.leases(), shared.leases()
    assert (await a.renew("a", take=True)).live == frozenset({"a"})
    assert (await b.renew("b", take=True)).live == frozenset({"a", "b"})
    await a.give_up("a")
    assert (await b.renew("b", take=False)).live == frozenset({"b"})


async def test_a_lapsed_lease_is_not_renewed(shared: Redis) -> None:
    leases = shared.leases(0.05)
    await leases.renew("a", take=True)
    async with asyncio.timeout(5):
        while (await shared.leases().renew("b", take=True)).live != frozenset({"b"}):
            await asyncio.sleep(0.005)
    assert (await leases.renew("a", take=False)).live is None
    # Nor by a second try: the id is spent.
    assert (await leases.renew("a", take=False)).live is None


async def test_a_node_younger_than_the_last_renewal_is_not_dead(shared: Redis) -> None:
    a, b = shared.leases(), shared.leases()
    await a.renew("a", take=True)
    await b.renew("b", take=True)
    assert a.live == frozenset({"a"})
    assert await a.dead(["a.1", "b.1", "gone.1"]) == ["gone.1"]


async def test_redis_time_is_known_to_some_milliseconds(shared: Redis) -> None:
    leases = shared.leases()
    beat = await leases.renew("a", take=True)
    assert abs(leases.redis_time() - beat.redis_ms / 1000) < 1


async def test_what_is_posted_comes_in_order_and_only_once(shared: Redis) -> None:
    client = shared.connect(10)
    inbox = Inbox(client, shared.lane, shared.keys, "a", 10)
    await inbox.open()
    outbox = Outbox(shared.lane, shared.keys)
    sent = [Copy("u:1", i, i - 1, b"x" * 1000) for i in range(1, 1001)]
    got: list[Copy] = []
    canaries: list[bytes] = []
    for first in range(0, 1000, 100):
        for entry in sent[first : first + 100]:
            outbox.post("a", entry)
        await outbox.aclose()
        await inbox.beat(b"c%d" % first)
        came = await inbox.read()
        got += [entry for kind, value in came if kind == b"p" for entry in unpack(value)]
        canaries += [value for kind, value in came if kind == b"c"]
    assert got == sent
    assert canaries == [b""] + [b"c%d" % first for first in range(0, 1000, 100)]
    await client.aclose()


async def test_what_was_read_is_dropped_from_the_inbox(shared: Redis) -> None:
    client = shared.connect(10)
    inbox = Inbox(client, shared.lane, shared.keys, "a", 10)
    await inbox.open()
    outbox = Outbox(shared.lane, shared.keys)
    for i in range(1, 400):
        outbox.post("a", Copy("u:1", i, i - 1, b"x" * 2000))
        await outbox.aclose()
    assert await inbox.beat(b"") == 401
    left = 401
    while left:
        left -= len(await inbox.read())
    assert await inbox.beat(b"") < 20
    await client.aclose()


async def test_nothing_is_left_behind_for_a_node_that_is_gone(shared: Redis) -> None:
    outbox = Outbox(shared.lane, shared.keys)
    outbox.post("gone", Copy("u:1", 1, 0, b""))
    await outbox.aclose()
    assert await shared.lane.one("EXISTS", shared.keys.inbox("gone")) == 0


def test_a_connection_id_begins_with_its_node() -> None:
    assert node_of("4f0c2a.1f") == "4f0c2a"
