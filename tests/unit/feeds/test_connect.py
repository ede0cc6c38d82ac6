"""Whom a lane asks for the primary, where several lanes ask at the same time."""

import asyncio
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

from pushsvc.feeds.connect import Sentinels


class Sentinel:
    """A Sentinel process that answers when a test says so, or never can."""

    def __init__(self, *, up: bool) -> None:
        self.up = up
        self.asked = asyncio.Semaphore(0)

    async def sentinel_masters(self) -> dict[str, Any]:
        await asyncio.sleep(0)
        await self.asked.acquire()
        if not self.up:
            raise RedisConnectionError("it is down")
        flags = {"is_master": True, "is_sdown": False, "is_odown": False, "num-other-sentinels": 2}
        return {"main": {"ip": "10.0.0.1", "port": 6379, **flags}}


async def test_each_lane_asks_every_sentinel_though_others_change_their_order_meanwhile() -> None:
    processes: list[Any] = [Sentinel(up=up) for up in (False, True, False)]
    a, b, c = processes
    sentinels = Sentinels([])  # type: ignore[no-untyped-call]
    sentinels.sentinels = processes
    quick = asyncio.create_task(sentinels.discover_master("main"))
    slow = asyncio.create_task(sentinels.discover_master("main"))
    a.asked.release()
    b.asked.release()
    await asyncio.wait([quick, slow], return_when=asyncio.FIRST_COMPLETED)
    assert sentinels.sentinels == [b, a, c]
    for each in (a, a, b, c):
        each.asked.release()
    assert await quick == await slow == ("10.0.0.1", 6379)
