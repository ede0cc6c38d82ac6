"""The revocations in Redis, as several nodes write and read them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from pushsvc.embedded import EmbeddedServer
from pushsvc.errors import Overloaded, PushError
from pushsvc.feeds import revocations as module
from pushsvc.feeds.connect import connector
from pushsvc.feeds.keys import Keys
from pushsvc.feeds.lane import Lane
from pushsvc.feeds.revocations import Changes, RevocationStore
from pushsvc.feeds.scripts import Scripts
from pushsvc.protocol.revocation import Revocation

UNTIL = int(time.time()) + 3600


@pytest.fixture
async def lane(valkey: EmbeddedServer) -> AsyncIterator[Lane]:
    lane = Lane("test", connector(valkey.url)(5), Scripts())
    yield lane
    await lane.aclose()


@pytest.fixture
def node(lane: Lane, prefix: str) -> Callable[[], RevocationStore]:
    """Makes the view of one more node."""
    return lambda: RevocationStore(lane, Keys(prefix), Scripts())


Node = Callable[[], RevocationStore]


def user(name: str, issued: int = 5, until: int = UNTIL) -> Revocation:
    return Revocation(until, name, issued_before=issued)


async def test_every_node_reads_what_one_adds(node: Node) -> None:
    a, b = node(), node()
    assert await a.changes() == Changes([], afresh=True)
    added = [
        user("ann"), Revocation(UNTIL, token_id="u:t é\n"), Revocation(UNTIL, issued_before=7),
    ]  # fmt: skip
    for one in added:
        assert await b.add(one) == one
    assert await a.changes() == Changes(added, afresh=True)  # the first ones make the data set
    assert await a.changes() is None
    assert await b.changes() == Changes(added, afresh=True)
    assert await node().newest() == added[::-1]


async def test_only_what_is_new_is_read_again(node: Node) -> None:
    a, b = node(), node()
    for number in range(5):
        await a.add(user(f"u{number}"))
    await b.changes()
    await a.add(user("u2", issued=9))
    assert await b.changes() == Changes([user("u2", issued=9)], afresh=False)


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
    await a.add(user("ann", 50, UNTIL))
    assert await a.add(user("ann", 40, UNTIL + 5)) == user("ann", 50, UNTIL + 5)
    assert await a.add(user("ann", 60, UNTIL - 5)) == user("ann", 60, UNTIL + 5)
    assert await a.newest() == [user("ann", 60, UNTIL + 5)]


async def test_an_emptied_redis_is_noticed_whatever_was_added_since(
    node: Node, lane: Lane, prefix: str
) -> None:
    a, b = node(), node()
    await a.add(user("ann"))
    await a.changes()
    await b.changes()

    async def empty() -> None:
        for part in ("entries", "order", "ends", "revision"):
            assert await lane.one("DEL", Keys(prefix).revocations(part)) == 1

    await empty()
    assert await a.changes() == Changes([], afresh=True)
    assert await a.changes() is None
    await a.add(user("bob"))  # as many as before: a number alone would tell nothing
    assert await b.changes() == Changes([user("bob")], afresh=True)
    assert await a.changes() == Changes([user("bob")], afresh=True)


async def test_what_is_over_makes_room_and_disappears(
    node: Node, lane: Lane, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_REVOCATIONS", 3)
    a = node()
    await a.add(user("ann"))
    now = int(time.time())
    await a.add(user("over", until=now + 2))
    await a.add(user("bob"))
    with pytest.raises(Overloaded):
        await a.add(user("eve"))
    assert await a.add(user("bob", issued=9)) == user("bob", issued=9)  # takes no room
    async with asyncio.timeout(10):
        while True:
            try:
                await a.add(user("eve"))
                break
            except Overloaded:
                await asyncio.sleep(0.05)
    assert {one.user for one in await a.newest()} == {"ann", "bob", "eve"}
    for part in ("entries", "order", "ends"):
        key = Keys(prefix).revocations(part)
        assert await lane.one("HLEN" if part == "entries" else "ZCARD", key) == 3


async def test_nothing_stays_longer_than_the_last_revocation(
    node: Node, lane: Lane, prefix: str
) -> None:
    a = node()
    await a.add(user("ann", until=UNTIL))
    await a.add(user("bob", until=UNTIL - 100))
    for part in ("entries", "order", "ends", "revision"):
        left = await lane.one("TTL", Keys(prefix).revocations(part))
        assert abs(left - (UNTIL - time.time())) < 10


async def test_a_node_that_could_not_read_reads_all_of_it_later() -> None:
    with EmbeddedServer() as server:
        lane = Lane("test", connector(server.url)(2), Scripts())
        a = RevocationStore(lane, Keys("p"), Scripts())
        await a.add(user("ann"))
        assert await a.changes() == Changes([user("ann")], afresh=True)
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
        await lane.aclose()
