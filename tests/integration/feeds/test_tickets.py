"""Tickets in Redis."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from pushsvc.feeds.tickets import Tickets
from pushsvc.server.embedded import EmbeddedServer
from pushsvc.store.redis import Redis
from tests.support.redis import redis_at


@pytest.fixture
async def commands(valkey: EmbeddedServer, prefix: str) -> AsyncIterator[Redis]:
    commands = redis_at(valkey.url, prefix)
    yield commands
    await commands.aclose()


async def test_of_many_who_take_a_ticket_one_is_given_it(commands: Redis) -> None:
    nodes = [Tickets(commands) for _ in range(2)]
    await nodes[0].keep("d1", b"\x00value", 30)
    taken = await asyncio.gather(*(nodes[i % 2].take("d1") for i in range(20)))
    assert sorted(each for each in taken if each is not None) == [b"\x00value"]


async def test_a_ticket_that_was_never_kept_is_none(commands: Redis) -> None:
    assert await Tickets(commands).take("d1") is None


async def test_a_ticket_is_gone_after_its_time(commands: Redis) -> None:
    tickets = Tickets(commands)
    await tickets.keep("d1", b"value", 30)
    assert 25 < await commands.one("TTL", commands.keys.ticket("d1")) <= 30
    await tickets.keep("d2", b"value", 1)
    async with asyncio.timeout(10):
        while await commands.one("EXISTS", commands.keys.ticket("d2")):
            await asyncio.sleep(0.05)
    assert await tickets.take("d2") is None
