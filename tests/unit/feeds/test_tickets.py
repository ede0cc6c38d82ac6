"""Tickets in Redis."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from pushsvc.embedded import EmbeddedServer
from pushsvc.feeds.connect import connector
from pushsvc.feeds.keys import Keys
from pushsvc.feeds.lane import Lane
from pushsvc.feeds.scripts import Scripts
from pushsvc.feeds.tickets import Tickets


@pytest.fixture
async def lane(valkey: EmbeddedServer) -> AsyncIterator[Lane]:
    lane = Lane("test", connector(valkey.url)(5), Scripts())
    yield lane
    await lane.aclose()


async def test_of_many_who_take_a_ticket_one_is_given_it(lane: Lane, prefix: str) -> None:
    nodes = [Tickets(lane, Keys(prefix)) for _ in range(2)]
    await nodes[0].keep("d1", b"\x00value", 30)
    taken = await asyncio.gather(*(nodes[i % 2].take("d1") for i in range(20)))
    assert sorted(each for each in taken if each is not None) == [b"\x00value"]


async def test_a_ticket_that_was_never_kept_is_none(lane: Lane, prefix: str) -> None:
    assert await Tickets(lane, Keys(prefix)).take("d1") is None


async def test_a_ticket_is_gone_after_its_time(lane: Lane, prefix: str) -> None:
    tickets = Tickets(lane, Keys(prefix))
    await tickets.keep("d1", b"value", 30)
    assert 25 < await lane.one("TTL", Keys(prefix).ticket("d1")) <= 30
    await tickets.keep("d2", b"value", 1)
    async with asyncio.timeout(10):
        while await lane.one("EXISTS", Keys(prefix).ticket("d2")):
            await asyncio.sleep(0.05)
    assert await tickets.take("d2") is None
