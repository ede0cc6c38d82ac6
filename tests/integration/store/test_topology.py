"""How the primary is found where some Sentinels hang, are stale, or are away."""

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import AuthenticationError, ReadOnlyError
from redis.exceptions import ConnectionError as RedisConnectionError

from pushsvc.server.embedded import EmbeddedServer, find_server
from pushsvc.store.topology import CONNECT_TIMEOUT, Connect, connector
from tests.support.failover import QUICK, ask, following
from tests.support.nodes import wait_until
from tests.support.ports import free_port
from tests.support.services import TCPService

TIMEOUT = 5.0
"""That of a node's connections."""
OFTEN = 20
"""Connections, of which each may hear another Sentinel first."""


class Hung(TCPService):
    """Accepts, and never answers."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            while await reader.read(1024):
                pass


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def watch(stack: ExitStack, tmp_path: Path) -> Callable[[int], int]:
    """Starts a Sentinel that names one server, whatever becomes of that; the Sentinel's port."""

    def start(primary: int) -> int:
        port = free_port()
        configuration = tmp_path / f"sentinel-{port}.conf"
        configuration.write_text(
            f"port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {primary} 2\n"
            "sentinel down-after-milliseconds main 600000\n"
        )
        process = subprocess.Popen(
            [find_server(), configuration, "--sentinel"], stdout=subprocess.DEVNULL, cwd=tmp_path
        )
        stack.callback(process.wait)
        stack.callback(process.terminate)
        wait_until(lambda: _answers(port), "Sentinel to answer")
        return port

    return start


def _answers(port: int) -> bool:
    try:
        return bool(ask(port, "PING"))
    except redis.ConnectionError:
        return False


@pytest.fixture
def pair(stack: ExitStack) -> tuple[int, int]:
    """The ports of a server that was demoted, and of the primary that it follows."""
    old, new = (stack.enter_context(EmbeddedServer(extra=QUICK)).port for _ in "ab")
    demote(old, new)
    return old, new


def demote(server: int, primary: int) -> None:
    ask(server, "REPLICAOF", "127.0.0.1", primary)
    wait_until(lambda: following(server), "the old primary to follow")


def behind(*sentinels: int, login: str = "", name: str = "main") -> Connect:
    hosts = ",".join(f"127.0.0.1:{port}" for port in sentinels)
    return connector(f"redis+sentinel://{login}{hosts}/{name}")


async def port_reached(connect: Connect, timeout: float = TIMEOUT) -> int:
    """Which server a new connection leads to."""
    connection = connect(timeout)
    try:
        ((_, port),) = await connection.execute([("CONFIG", "GET", "port")])
    finally:
        await connection.aclose()
    return int(port)


@pytest.mark.parametrize("hung", [1, 2, 3, 7])
async def test_sentinels_that_hang_hold_up_nobody(
    hung: int, stack: ExitStack, valkey: EmbeddedServer, watch: Callable[[int], int]
) -> None:
    before = [stack.enter_context(Hung()).port for _ in range(hung)]
    connect = behind(*before, watch(valkey.port))
    # Less than one of them takes: no one is waited for. And all queues of a node at once.
    ports = [port_reached(connect, CONNECT_TIMEOUT / 2) for _ in range(11)]
    assert await asyncio.gather(*ports) == [valkey.port] * 11


async def test_a_sentinel_that_names_a_demoted_server_is_not_believed(
    pair: tuple[int, int], watch: Callable[[int], int]
) -> None:
    old, new = pair
    for connect in (behind(watch(old), watch(new)), behind(watch(new), watch(old))):
        assert {await port_reached(connect) for _ in range(OFTEN)} == {new}


async def test_a_pipe_leaves_a_server_that_is_demoted_for_the_one_that_another_sentinel_names(
    stack: ExitStack, watch: Callable[[int], int]
) -> None:
    old, new = (stack.enter_context(EmbeddedServer(extra=QUICK)).port for _ in "ab")
    stale, current = watch(old), watch(new)
    demote(new, old)
    connection = behind(stale, current)(TIMEOUT)
    assert await connection.execute([("SET", "k", "1")]) == [b"OK"], (
        "the old one is the primary yet"
    )
    ask(new, "REPLICAOF", "NO", "ONE")
    demote(old, new)
    (refused,) = await connection.execute([("SET", "k", "2")])
    assert isinstance(refused, ReadOnlyError)
    assert await connection.execute([("SET", "k", "3")]) == [b"OK"]
    assert connection.changes == 1
    assert ask(new, "GET", "k") == "3"
    await connection.aclose()


async def test_a_sentinel_that_names_a_server_which_hangs_or_is_away_is_not_believed(
    stack: ExitStack, valkey: EmbeddedServer, watch: Callable[[int], int]
) -> None:
    hung, current = watch(stack.enter_context(Hung()).port), watch(valkey.port)
    assert await port_reached(behind(hung, current)) == valkey.port
    connect = behind(watch(free_port()), current)
    assert {await port_reached(connect) for _ in range(OFTEN)} == {valkey.port}


async def test_where_only_demoted_servers_are_named_the_error_says_so(
    pair: tuple[int, int], watch: Callable[[int], int]
) -> None:
    old, _ = pair
    with pytest.raises(RedisConnectionError, match=rf"names 127\.0\.0\.1:{old}.* is a replica"):
        await port_reached(behind(watch(old), watch(old)))


async def test_where_no_sentinel_helps_the_error_says_why_of_each(
    stack: ExitStack, valkey: EmbeddedServer, watch: Callable[[int], int]
) -> None:
    hung, absent, other = stack.enter_context(Hung()).port, free_port(), watch(valkey.port)
    with pytest.raises(RedisConnectionError, match="names no primary 'orders'") as error:
        await port_reached(behind(hung, absent, other, name="orders"))
    for reason in ("Timeout", f"connecting to 127.0.0.1:{absent}", "none of that name that is up"):
        assert reason in str(error.value)


async def test_a_named_server_that_does_not_let_a_node_in_is_an_error_of_its_own(
    stack: ExitStack, watch: Callable[[int], int]
) -> None:
    """A node ends with it, where it would wait for a server that cannot be reached."""
    server = stack.enter_context(EmbeddedServer())
    sentinel = watch(server.port)
    client: Any
    with redis.Redis(port=server.port) as client:
        client.execute_command("ACL", "SETUSER", "ada", "on", ">secret", "+config|get")
        client.execute_command("ACL", "SETUSER", "default", "resetpass", ">other")
    for login in ("ada:wrong@", ""):
        with pytest.raises(AuthenticationError):
            await port_reached(behind(sentinel, sentinel, login=login))
    assert await port_reached(behind(sentinel, login="ada:secret@")) == server.port
