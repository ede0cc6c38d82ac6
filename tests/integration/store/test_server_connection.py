"""What a connection to a real server notices about it."""

import asyncio
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from pushsvc.protocol.feeds import mailbox
from pushsvc.server.embedded import EmbeddedServer, find_server
from pushsvc.store.calls import Run
from pushsvc.store.schema import Keys
from pushsvc.store.scripts import Scripts
from pushsvc.store.server_connection import Command
from pushsvc.store.topology import connector
from tests.support.failover import SLOTS, ask
from tests.support.nodes import wait_until
from tests.support.ports import free_port
from tests.support.proxy import Proxy

CUT_OFF = ("CONFIG", "SET", "min-replicas-to-write", 1)
"""Has a server without replicas answer NOREPLICAS."""


async def test_a_server_that_is_no_cluster_is_an_error_that_says_so(valkey: EmbeddedServer) -> None:
    connection = connector(f"redis+cluster://127.0.0.1:{valkey.port}")(2)
    with pytest.raises(RedisConnectionError, match="cluster support disabled"):
        await connection.execute([("PING",)])
    await connection.aclose()


async def test_a_server_that_cannot_confirm_is_looked_up_again_without_an_alarm(
    valkey: EmbeddedServer,
) -> None:
    """It may have been replaced, and Sentinel knows; its own return is no change, though."""
    connection = connector(valkey.url)(2)
    wait = ("WAIT", 1, 1)
    first, unconfirmed = await connection.execute([("CLIENT", "ID")], wait)
    second, _ = await connection.execute([("CLIENT", "ID")], ("WAIT", 0, 1))
    assert unconfirmed == 0
    assert second != first
    assert connection.changes == 0
    await connection.aclose()


async def test_a_connection_that_broke_is_a_change_once_it_is_back() -> None:
    with EmbeddedServer() as server:
        connection = connector(server.url)(2)
        await connection.execute([("PING",)])
        ask(server.port, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        deadline = time.monotonic() + 5
        while connection.changes == 0 and time.monotonic() < deadline:
            try:
                await connection.execute([("PING",)])
            except (RedisConnectionError, ResponseError, OSError):
                continue
        assert connection.changes == 1
        await connection.aclose()


async def test_a_connection_that_the_server_closed_is_left_before_anything_is_written() -> None:
    """So that a command that was never sent fails nobody."""
    with EmbeddedServer() as server:
        connection = connector(server.url)(2)
        await connection.execute([("PING",)])
        for restart in (1, 2):
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            assert await connection.execute([("INCR", "n")]) == [1]
            assert connection.changes == restart, "what was written before may be lost"
        await connection.aclose()


async def test_a_connection_that_was_reset_is_left_likewise() -> None:
    with EmbeddedServer() as server, Proxy(server.port) as proxy:
        connection = connector(proxy.url)(2)
        await connection.execute([("PING",)])
        await asyncio.to_thread(proxy.reset)
        assert await connection.execute([("INCR", "n")]) == [1]
        assert connection.changes == 1
        await connection.aclose()


async def test_what_was_written_before_the_connection_ended_is_not_repeated() -> None:
    with EmbeddedServer() as server, Proxy(server.port) as proxy:
        connection = connector(proxy.url)(2)
        await connection.execute([("PING",)])
        proxy.cut_after = b"INCR"
        with pytest.raises((RedisConnectionError, OSError)):
            await connection.execute([("INCR", "n")])
        proxy.cut_after = b""
        assert await connection.execute([("GET", "n")]) == [b"1"]
        await connection.aclose()


# --- a primary that others may have replaced -----------------------------------------------------


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer(extra=["--replica-serve-stale-data", "no"]) as running:
        yield running


@pytest.fixture
def sentinel(server: EmbeddedServer, tmp_path: Path) -> Iterator[int]:
    """The port of a Sentinel that takes the server for the primary ``main``."""
    port = free_port()
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(
        f"port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {server.port} 1\n"
    )
    process = subprocess.Popen(
        [find_server(), configuration, "--sentinel"], stdout=subprocess.DEVNULL
    )
    try:
        wait_until(partial(_answers, port), "Sentinel to answer")
        yield port
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    try:
        return bool(ask(port, "PING"))
    except redis.ConnectionError:
        return False


@pytest.mark.parametrize(
    ("said", "command"),
    [
        (("REPLICAOF", "127.0.0.1", 1), ("GET", "k")),
        (("SCRIPT", "FLUSH"), Run((Scripts().by_name["live"], ("k",), (), ()))),
    ],
)
async def test_a_server_that_is_not_what_it_was_is_looked_up_again_at_once(
    said: tuple[Any, ...], command: tuple[Any, ...], server: EmbeddedServer
) -> None:
    connection = connector(server.url)(2)
    await connection.execute([("PING",)])
    ask(server.port, *said)
    first, refused = await connection.execute([("CLIENT", "ID"), command])
    assert isinstance(refused, ResponseError)
    second, _ = await connection.execute([("CLIENT", "ID"), command])
    assert second != first
    assert connection.changes == 1
    await connection.aclose()


@pytest.mark.parametrize(
    "command",
    [("SET", "k", "v"), Run((Scripts().by_name["lease"], ("k",), ("n", 1000, "1"), ()))],
)
async def test_a_primary_that_is_cut_off_is_looked_up_again_but_not_all_the_time(
    command: tuple[Any, ...], server: EmbeddedServer
) -> None:
    """Nor is an alarm given: one without Sentinel may lack its replicas for long."""
    connection = connector(server.url)(2)
    connection.greet(Scripts().load)
    await connection.execute([("PING",)])
    ask(server.port, *CUT_OFF)
    connections: list[int] = []
    async with asyncio.timeout(5):
        while len(set(connections)) < 3:
            number, answer = await connection.execute([("CLIENT", "ID"), command])
            assert isinstance(answer, ResponseError)
            connections.append(number)
    assert len(connections) > 20
    assert connection.changes == 0
    await connection.aclose()


async def test_a_primary_that_is_cut_off_is_left_for_the_one_that_sentinel_names(
    server: EmbeddedServer, sentinel: int
) -> None:
    with EmbeddedServer() as new:
        connection = connector(f"redis+sentinel://127.0.0.1:{sentinel}/main")(2)
        assert await connection.execute([("SET", "k", "old")]) == [b"OK"]
        ask(server.port, *CUT_OFF)
        ask(sentinel, "SENTINEL", "REMOVE", "main")
        ask(sentinel, "SENTINEL", "MONITOR", "main", "127.0.0.1", new.port, 1)
        async with asyncio.timeout(5):
            while await connection.execute([("SET", "k", "new")]) != [b"OK"]:
                await asyncio.sleep(0.01)
        assert ask(new.port, "GET", "k") == "new"
        assert connection.changes == 1
        await connection.aclose()


async def test_each_pipeline_has_its_own_deadline(valkey: EmbeddedServer) -> None:
    """One timer looks at all of them: an early one must not end a later pipeline, nor forget it."""
    connection = connector(valkey.url)(1)
    block = ("XREAD", "BLOCK", 700, "STREAMS", "nothing-comes-here", "$")
    assert await connection.execute([block]) == [None]
    assert await connection.execute([block]) == [None]  # ends after the deadline of the first
    began = time.monotonic()
    with pytest.raises(RedisTimeoutError):
        await connection.execute([("XREAD", "BLOCK", 20_000, *block[3:])])
    assert time.monotonic() - began >= 0.9
    assert await connection.execute([("PING",)]) == [b"PONG"]  # on a new connection
    await connection.aclose()


async def test_an_answer_that_nobody_asked_for_is_nobodys() -> None:
    greeted: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        greeted.append(writer)
        while await reader.read(4096):
            writer.write(b"+%d\r\n" % len(greeted))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        connection = connector(f"redis://127.0.0.1:{port}")(5)
        assert await connection.execute([("PING",)]) == [b"1"]
        greeted[0].write(b"+stray\r\n")
        async with asyncio.timeout(10):
            while await connection.execute([("PING",)]) != [b"2"]:
                await asyncio.sleep(0.01)
        await connection.aclose()
        for writer in greeted:
            await writer.wait_closed()


@pytest.mark.parametrize("more", [b"+stray\r\n", b"+str"])
async def test_an_answer_too_many_fails_the_pipeline_that_it_came_with(more: bytes) -> None:
    """Whose each answer is is not known then; a later pipeline would take it for its own."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while asked := await reader.read(4096):
            writer.write(b"+OK\r\n" * asked.count(b"*") + (more if b"ONE" in asked else b""))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        connection = connector(f"redis://127.0.0.1:{port}")(5)
        assert await connection.execute([("TWO",), ("TWO",)]) == [b"OK"] * 2
        with pytest.raises(RedisConnectionError, match="more answers"):
            await connection.execute([("ONE",)])
        assert await connection.execute([("TWO",)]) == [b"OK"]  # on a new connection
        assert len(writers) == 2
        await connection.aclose()
        for writer in writers:
            await writer.wait_closed()


async def test_an_answer_too_many_to_a_greeting_is_nobodys() -> None:
    """It is left in the reader that redis-py has used until then."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while asked := await reader.read(4096):
            stray = b"AUTH" in asked and len(writers) == 1
            writer.write(b"+OK\r\n" * asked.count(b"*") + (b"+stray\r\n" if stray else b""))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        connection = connector(f"redis://user:word@127.0.0.1:{port}")(5)
        async with asyncio.timeout(10):
            while True:
                try:
                    answers = await connection.execute([("PING",)])
                except (RedisConnectionError, OSError):
                    continue
                break
        assert answers == [b"OK"]
        await connection.aclose()
        for writer in writers:
            await writer.wait_closed()


async def test_a_member_of_a_cluster_is_sent_each_run_by_itself_once_it_says_so() -> None:
    """A server that has all slots serves any one key, so it need not be known for a Cluster."""
    with EmbeddedServer(extra=("--cluster-enabled", "yes"), port=free_port()) as server:
        ask(server.port, "CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
        wait_until(lambda: "cluster_state:ok" in ask(server.port, "CLUSTER", "INFO"), "the Cluster")
        connection, scripts, keys = connector(server.url)(5), Scripts(), Keys("push")
        connection.greet(scripts.load)
        runs: list[Command] = [
            Run((scripts.by_name["ack"], keys.ack(mailbox(user)), ("phone", at), (1000, 9, "s", 0)))
            for user, at in (("a", "1-0"), ("b", "2-0"), ("a", "3-0"))
        ]
        for _ in range(2):
            results = await connection.execute([("PING",), *runs, ("PING",)])
            assert [results[0], results[-1]] == [b"PONG"] * 2
            assert not [each for each in results if isinstance(each, Exception)]
        await connection.aclose()
