"""A publisher's receipts on a real server, as they are read and as they are sent on."""

from collections.abc import AsyncIterator

import pytest
import redis

from pushsvc.feeds.feed import Appended, Bounds, Feeds
from pushsvc.feeds.receipt_log import Position, ReceiptLog
from pushsvc.protocol import ids
from pushsvc.protocol.feeds import receipts
from pushsvc.protocol.notifications import Append
from pushsvc.server.embedded import EmbeddedServer
from tests.support.redis import redis_at

FEED = receipts("backend")
KEEP = 7200.0


class Store:
    """A log that is written to."""

    def __init__(self, url: str, prefix: str) -> None:
        self.commands = redis_at(url, prefix)
        self.keys = self.commands.keys
        bounds = Bounds(entries=10, retention=3600, connections=4, receipts=10)
        self._feeds = Feeds(bounds, publishing=self.commands, sessions=self.commands)
        self.log = ReceiptLog(self.commands, keep=KEEP)

    async def fill(self, count: int, size: int = 1) -> list[int]:
        body = b"x" * size
        results, _ = await self._feeds.append([Append(FEED, body) for _ in range(count)])
        return [result.id for result in results if isinstance(result, Appended)]


@pytest.fixture
async def store(valkey: EmbeddedServer, prefix: str) -> AsyncIterator[Store]:
    store = Store(valkey.url, prefix)
    yield store
    await store.commands.aclose()


async def test_receipts_are_read_in_parts_that_join_up(store: Store) -> None:
    given = await store.fill(7)
    read: list[int] = []
    position = ids.START
    while True:
        page = await store.log.read(FEED, position, 3)
        if not page.receipts:
            break
        read += [each.id for each in page.receipts]
        position = page.upto
    assert read == given
    assert (position, page.gap) == (given[-1], "")


async def test_large_ones_end_a_part_early(store: Store) -> None:
    await store.fill(5, size=400_000)
    assert len((await store.log.read(FEED, ids.START, 100)).receipts) == 3


async def test_who_comes_too_late_is_told(store: Store) -> None:
    (first,) = await store.fill(1)
    given = await store.fill(15)
    page = await store.log.read(FEED, first, 100)
    assert page.gap == "trimmed"
    assert [each.id for each in page.receipts] == given[-10:]


async def test_a_position_that_redis_does_not_know_any_more_is_a_reset(store: Store) -> None:
    given = await store.fill(2)
    page = await store.log.read(FEED, given[1] + 1, 100)
    assert page.gap == "reset"
    assert [each.id for each in page.receipts] == given


async def test_nobody_has_receipts_who_asked_for_none(store: Store) -> None:
    page = await store.log.read(receipts("other"), ids.START, 100)
    assert page == ([], ids.START, "")


async def test_how_far_receipts_were_sent_is_kept_for_as_long_as_they_are(
    store: Store, valkey: EmbeddedServer
) -> None:
    assert await store.log.position(FEED) == Position(ids.START, 0)
    for there in (False, True):
        (given,) = await store.fill(1) if there else [ids.parse("5-1")]
        await store.log.moved(FEED, Position(given, 3))
        assert await store.log.position(FEED) == Position(given, 3)
        with redis.Redis.from_url(valkey.url) as server:
            assert 0 < server.pttl(store.keys.cursors(FEED)) <= KEEP * 1000


async def test_an_address_that_wants_no_more_is_remembered_by_its_digest(
    store: Store, valkey: EmbeddedServer
) -> None:
    await store.log.set_gone("d1")
    assert await store.log.gone("d1")
    assert not await store.log.gone("d2")
    with redis.Redis.from_url(valkey.url) as server:
        assert server.ttl(store.keys.webhook_gone("d1")) > 0
