"""The revocations in Redis, as several nodes write and read them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from pushsvc.errors import InvalidRequest, Overloaded, PushError
from pushsvc.feeds import revocations as module
from pushsvc.feeds.revocations import Changes, RevocationStore
from pushsvc.protocol.revocation import TOLERANCE, Order, Revocation
from pushsvc.server.embedded import EmbeddedServer
from pushsvc.store.redis import Redis
from tests.support.redis import redis_at

TTL = 3600


@pytest.fixture
async def commands(valkey: EmbeddedServer, prefix: str) -> AsyncIterator[Redis]:
    commands = redis_at(valkey.url, prefix)
    yield commands
    await commands.aclose()


@pytest.fixture
def node(commands: Redis) -> Callable[[], RevocationStore]:
    """Makes the view of one more node."""
    return lambda: RevocationStore(commands)


Node = Callable[[], RevocationStore]


def user(name: str, issued: int = 5, ttl: float = TTL) -> Order:
    return Order(ttl, name, issued_before=issued)


async def test_every_node_reads_what_one_adds(node: Node) -> None:
    a, b = node(), node()
    assert await a.changes() == Changes([], afresh=True)
    orders = [user("ann"), Order(TTL, token_id="u:t é\n"), Order(TTL, issued_before=7)]
    added = [await b.add(one) for one in orders]
    assert [(one.user, one.token_id) for one in added] == [
        (one.user, one.token_id) for one in orders
    ]
    assert [one.issued_before for one in added] == [5, 0, 7]
    assert await a.changes() == Changes(added, afresh=True)  # the first ones make the data set
    assert await a.changes() is None
    assert await b.changes() == Changes(added, afresh=True)
    assert await node().newest() == added[::-1]


async def test_only_what_is_new_is_read_again(node: Node) -> None:
    a, b = node(), node()
    for number in range(5):
        await a.add(user(f"u{number}"))
    await b.changes()
    added = await a.add(user("u2", issued=9))
    assert await b.changes() == Changes([added], afresh=False)


async def test_many_are_read_page_by_page(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    a = node()
    for count in range(9):
        monkeypatch.setattr(module, "PAGE", 4)
        if count:
            await a.add(user(f"u{count}"))
        found = await node().changes()
        assert found is not None
        assert [one.user for one in found.entries] == [f"u{i}" for i in range(1, count + 1)]


async def test_a_later_revocation_never_weakens_an_earlier_one(node: Node) -> None:
    a = node()
    first = await a.add(user("ann", 50))
    later = await a.add(user("ann", 40, TTL + 50))
    assert later.issued_before == 50
    assert 50 <= later.until - first.until < 60
    last = await a.add(user("ann", 60, TTL - 50))
    assert last == Revocation(later.until, "ann", issued_before=60)
    assert await a.newest() == [last]


async def redis_seconds(commands: Redis) -> int:
    return int((await commands.one("TIME"))[0])


async def test_what_is_revoked_as_of_now_is_so_by_redis_time_and_what_clocks_may_differ(
    node: Node, commands: Redis
) -> None:
    before = await redis_seconds(commands)
    held = await node().add(Order(60, "ann"))
    after = await redis_seconds(commands)
    assert before <= held.issued_before - TOLERANCE <= after
    # As long after its tokens have expired as a node whose clock is behind grants them more time.
    assert before + 60 <= held.until - 2 * TOLERANCE <= after + 61


async def test_what_is_still_to_come_by_redis_time_is_refused(node: Node, commands: Redis) -> None:
    ahead = await redis_seconds(commands) + TOLERANCE
    assert (await node().add(user("ann", issued=ahead))).issued_before == ahead
    for issued in (ahead + 60, 10**11 - 1):
        with pytest.raises(InvalidRequest, match="future"):
            await node().add(user("ann", issued=issued))


async def test_an_emptied_redis_is_noticed_whatever_was_added_since(
    node: Node, commands: Redis
) -> None:
    a, b = node(), node()
    await a.add(user("ann"))
    await a.changes()
    await b.changes()

    async def empty() -> None:
        for part in ("entries", "order", "ends", "revision"):
            assert await commands.one("DEL", commands.keys.revocations(part)) == 1

    await empty()
    assert await a.changes() == Changes([], afresh=True)
    assert await a.changes() is None
    bob = await a.add(user("bob"))  # as many as before: a number alone would tell nothing
    assert await b.changes() == Changes([bob], afresh=True)
    assert await a.changes() == Changes([bob], afresh=True)


async def test_what_is_over_makes_room_and_disappears(
    node: Node, commands: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_REVOCATIONS", 3)
    a = node()
    await a.add(user("ann"))
    monkeypatch.setattr(module, "TOLERANCE", 0)
    await a.add(user("over", ttl=2))
    monkeypatch.undo()
    monkeypatch.setattr(module, "MAX_REVOCATIONS", 3)
    await a.add(user("bob"))
    with pytest.raises(Overloaded):
        await a.add(user("eve"))
    assert (await a.add(user("bob", issued=9))).issued_before == 9  # takes no room
    async with asyncio.timeout(10):
        while True:
            try:
                await a.add(user("eve"))
                break
            except Overloaded:
                await asyncio.sleep(0.05)
    assert {one.user for one in await a.newest()} == {"ann", "bob", "eve"}
    for part in ("entries", "order", "ends"):
        key = commands.keys.revocations(part)
        assert await commands.one("HLEN" if part == "entries" else "ZCARD", key) == 3


async def test_nothing_stays_longer_than_the_last_revocation(node: Node, commands: Redis) -> None:
    a = node()
    ann = await a.add(user("ann"))
    await a.add(user("bob", ttl=TTL - 100))
    for part in ("entries", "order", "ends", "revision"):
        left = await commands.one("TTL", commands.keys.revocations(part))
        assert abs(left - (ann.until - time.time())) < 10


async def test_a_node_that_could_not_read_reads_all_of_it_later() -> None:
    with EmbeddedServer() as server:
        commands = redis_at(server.url, "p", 2)
        a = RevocationStore(commands)
        ann = await a.add(user("ann"))
        assert await a.changes() == Changes([ann], afresh=True)
        server.kill()
        with pytest.raises(PushError):
            await a.changes()
        server.start()
        async with asyncio.timeout(10):
            while True:
                try:
                    assert await a.changes() == Changes([], afresh=True)  # it kept nothing
                    break
                except PushError:
                    await asyncio.sleep(0.05)
        await commands.aclose()


async def test_what_a_namespace_revokes_is_apart_from_all_else(
    commands: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_REVOCATIONS", 1)
    default = RevocationStore(commands)
    acme, other = default.within("acme"), default.within("other")
    for store in (default, acme, other):
        await store.changes()
    ann = await acme.add(user("ann"))
    with pytest.raises(Overloaded):
        await acme.add(user("bob"))
    assert await default.changes() is None
    assert await other.changes() is None
    bob = await default.add(user("bob"))  # its number counts nowhere else
    assert await default.newest() == [bob]
    assert await acme.newest() == [ann]
    assert await other.newest() == []
    assert (await default.within("acme").changes()) == Changes([ann], afresh=True)


# --- namespaces ----------------------------------------------------------------------------------


async def test_every_node_is_told_once_in_which_namespaces_something_was_revoked(
    node: Node,
) -> None:
    a, b = node(), node()
    assert await a.changed() == []
    await b.add(user("ann"))  # the default one is looked at anyway
    assert await a.changed() == []
    for name in ("acme", "other", "acme"):
        await b.within(name).add(user("ann"))
    assert await a.changed() == ["other", "acme"]
    assert await a.changed() == []
    await a.within("other").add(user("bob"))
    assert await a.changed() == ["other"]
    assert await b.changed() == ["acme", "other"]


async def test_what_is_told_comes_in_pages_and_is_gone_in_an_hour(
    node: Node, commands: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE", 2)
    a = node()
    for name in ("a", "b", "c"):
        await a.within(name).add(Order(1, "ann"))
    assert await a.changed() == ["a", "b"]
    assert await a.changed() == ["c"]
    key = commands.keys.revocations("changed")
    assert 3500 < await commands.one("TTL", key) <= 3600
    monkeypatch.setattr(module, "TOLD_SECONDS", 0.001)
    async with asyncio.timeout(5):
        while await commands.one("ZRANGE", key, 0, -1) != [b"d"]:
            await a.within("d").add(user("ann"))


async def test_what_is_told_is_told_in_order_though_the_clock_of_redis_went_back(
    node: Node, commands: Redis
) -> None:
    ahead = 4_000_000_000_000
    await commands.one("ZADD", commands.keys.revocations("changed"), ahead, "acme")
    a = node()
    assert await a.changed() == ["acme"]
    await a.within("other").add(user("ann"))
    assert await a.changed() == ["other"]
