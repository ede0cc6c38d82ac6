"""Pipelines to a real server, and to one that is gone."""

import asyncio

import pytest

from pushsvc.embedded import EmbeddedServer
from pushsvc.errors import Overloaded, PushError, StoreUnavailable
from pushsvc.feeds import lane as module
from pushsvc.feeds.connect import connector
from pushsvc.feeds.lane import Lane
from pushsvc.feeds.scripts import Scripts


def lane_to(url: str, tail: tuple[object, ...] | None = None) -> Lane:
    return Lane("test", connector(url)(2), Scripts(), tail)


async def test_commands_run_in_the_order_of_submission(valkey: EmbeddedServer, prefix: str) -> None:
    lane = lane_to(valkey.url)
    futures = [
        lane.submit([("RPUSH", prefix, f"{i}a"), ("RPUSH", prefix, f"{i}b")]) for i in range(700)
    ]
    lengths = [length for future in futures for length in await future]
    assert lengths == list(range(1, 1401))
    await lane.aclose()


async def test_a_command_that_fails_fails_alone(valkey: EmbeddedServer, prefix: str) -> None:
    lane = lane_to(valkey.url)
    before, wrong, after = await lane.submit(
        [("SET", prefix, "x"), ("LPUSH", prefix, "y"), ("GET", prefix)]
    )
    assert after == b"x"
    assert isinstance(wrong, PushError)
    assert before
    await lane.aclose()


async def test_what_the_tail_answered_follows_the_results_once_for_each_of_them(
    valkey: EmbeddedServer, prefix: str
) -> None:
    lane = lane_to(valkey.url, ("WAIT", 0, 10))
    first, second = lane.submit([("SET", prefix, 1)]), lane.submit([("GET", prefix)] * 2)
    assert (await first)[1:] == [0]
    assert await second == [b"1", b"1", 0, 0]
    await lane.aclose()


async def test_while_redis_is_gone_callers_hear_at_once_and_afterwards_all_is_well() -> None:
    with EmbeddedServer() as server:
        lane = lane_to(server.url)
        await lane.one("PING")
        server.kill()
        with pytest.raises(StoreUnavailable, match="may or may not"):
            await lane.one("PING")
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            lane.submit([("PING",)])
        server.start()
        async with asyncio.timeout(10):
            while True:
                try:
                    await lane.one("PING")
                    break
                except StoreUnavailable:
                    await asyncio.sleep(0.01)
        await lane.aclose()


async def test_more_than_the_queue_holds_is_refused_and_not_half_taken(
    valkey: EmbeddedServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_QUEUE", 10)
    lane = lane_to(valkey.url)
    kept = lane.submit([("INCR", prefix)] * 10)
    with pytest.raises(Overloaded):
        lane.submit([("INCR", prefix)])
    assert await kept == list(range(1, 11))
    assert await lane.one("INCR", prefix) == 11
    await lane.aclose()


async def test_a_script_that_its_server_still_lacks_may_be_called_again(
    valkey: EmbeddedServer, prefix: str
) -> None:
    lane = lane_to(valkey.url)
    with pytest.raises(StoreUnavailable):
        await lane.one("EVALSHA", "0" * 40, 1, prefix)
    await lane.aclose()


async def test_a_caller_that_gave_up_does_not_disturb_the_others(
    valkey: EmbeddedServer, prefix: str
) -> None:
    lane = lane_to(valkey.url)
    await lane.one("SET", prefix, "secret")
    impatient = lane.submit([("GET", prefix)])
    patient = lane.submit([("ECHO", "mine")])
    impatient.cancel()
    assert await patient == [b"mine"]
    await lane.aclose()


async def test_out_of_memory_is_told_and_nothing_is_trimmed() -> None:
    with EmbeddedServer(extra=["--maxmemory", "3mb"]) as server:
        lane = lane_to(server.url)
        refused = None
        for i in range(200):
            (refused,) = await lane.submit([("XADD", "s", "*", "d", "x" * 50_000)])
            if isinstance(refused, PushError):
                break
            assert await lane.one("XLEN", "s") == i + 1
        assert isinstance(refused, StoreUnavailable)
        assert "out of memory" in refused.detail
        await lane.aclose()
