"""What a pipe to a real server notices about it."""

import asyncio
import time

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from pushsvc.embedded import EmbeddedServer
from pushsvc.feeds.connect import connector
from tests.support.failover import ask
from tests.support.proxy import Proxy


async def test_a_server_that_is_no_cluster_is_an_error_that_says_so(valkey: EmbeddedServer) -> None:
    pipe = connector(f"redis+cluster://127.0.0.1:{valkey.port}")(2)
    with pytest.raises(RedisConnectionError, match="cluster support disabled"):
        await pipe.execute([("PING",)])
    await pipe.aclose()


async def test_a_server_that_cannot_confirm_is_looked_up_again_without_an_alarm(
    valkey: EmbeddedServer,
) -> None:
    """It may have been replaced, and Sentinel knows; its own return is no change, though."""
    pipe = connector(valkey.url)(2)
    wait = ("WAIT", 1, 1)
    first, unconfirmed = await pipe.execute([("CLIENT", "ID")], wait)
    second, _ = await pipe.execute([("CLIENT", "ID")], ("WAIT", 0, 1))
    assert unconfirmed == 0
    assert second != first
    assert pipe.changes == 0
    await pipe.aclose()


async def test_a_connection_that_broke_is_a_change_once_it_is_back() -> None:
    with EmbeddedServer() as server:
        pipe = connector(server.url)(2)
        await pipe.execute([("PING",)])
        ask(server.port, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        deadline = time.monotonic() + 5
        while pipe.changes == 0 and time.monotonic() < deadline:
            try:
                await pipe.execute([("PING",)])
            except (RedisConnectionError, ResponseError, OSError):
                continue
        assert pipe.changes == 1
        await pipe.aclose()


async def test_a_connection_that_the_server_closed_is_left_before_anything_is_written() -> None:
    """So that a command that was never sent fails nobody."""
    with EmbeddedServer() as server:
        pipe = connector(server.url)(2)
        await pipe.execute([("PING",)])
        for restart in (1, 2):
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            assert await pipe.execute([("INCR", "n")]) == [1]
            assert pipe.changes == restart, "what was written before may be lost"
        await pipe.aclose()


async def test_a_connection_that_was_reset_is_left_likewise() -> None:
    with EmbeddedServer() as server, Proxy(server.port) as proxy:
        pipe = connector(proxy.url)(2)
        await pipe.execute([("PING",)])
        await asyncio.to_thread(proxy.reset)
        assert await pipe.execute([("INCR", "n")]) == [1]
        assert pipe.changes == 1
        await pipe.aclose()


async def test_what_was_written_before_the_connection_ended_is_not_repeated() -> None:
    with EmbeddedServer() as server, Proxy(server.port) as proxy:
        pipe = connector(proxy.url)(2)
        await pipe.execute([("PING",)])
        proxy.cut_after = b"INCR"
        with pytest.raises((RedisConnectionError, OSError)):
            await pipe.execute([("INCR", "n")])
        proxy.cut_after = b""
        assert await pipe.execute([("GET", "n")]) == [b"1"]
        await pipe.aclose()
