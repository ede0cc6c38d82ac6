"""Pipelines to Redis: many commands out, as many answers back.

redis-py makes the connections: addresses, TLS, authentication, Sentinel, Cluster. Its pipelines,
though, cost more than all else that a node does for a notification: each command is packed in
Python, and each answer takes a coroutine. For a single server hiredis does both here, at a tenth.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Protocol

import hiredis
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.asyncio import Connection, RedisCluster, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection
from redis.exceptions import ReadOnlyError
from redis.exceptions import TimeoutError as RedisTimeoutError

Command = tuple[Any, ...]
Result = Any
"""What Redis answered: RESP2 as it is, or the exception that stands for an error answer."""


class Pipe(Protocol):
    """A way to Redis for one caller at a time."""

    async def execute(self, commands: Sequence[Command]) -> list[Result]:
        """Execute commands in order.

        Raises:
            RedisError, OSError: it is not known which of them were executed.
        """

    async def load(self, scripts: Sequence[str]) -> None:
        """Put scripts into the cache of every server that may run them."""

    async def aclose(self) -> None:
        """Close the connections."""


class _ReadsAll:
    """Adds to a connection of redis-py the reading of many answers at once."""

    async def read_all(self, count: int) -> list[Result]:
        # redis-py has no public way to read answers without a coroutine each; its versions are
        # pinned, and every test against a server goes through here.
        parser: Any = self._parser  # type: ignore[attr-defined]
        gets = parser._reader.gets  # noqa: SLF001
        answers: list[Result] = []
        while len(answers) < count:
            answer = gets()
            if answer is NOT_ENOUGH_DATA:
                await parser.read_from_socket()
            else:
                answers.append(answer)
        return answers


class _Plain(_ReadsAll, Connection):
    """TCP."""


class _TLS(_ReadsAll, SSLConnection):
    """TLS."""


class _Unix(_ReadsAll, UnixDomainSocketConnection):
    """A Unix domain socket."""


class _Sentinel(_ReadsAll, SentinelManagedConnection):
    """TCP to the primary that Sentinel names."""


class _SentinelTLS(_ReadsAll, SentinelManagedSSLConnection):
    """TLS to the primary that Sentinel names."""


READING_ALL: Final[dict[type, type]] = {
    Connection: _Plain,
    SSLConnection: _TLS,
    UnixDomainSocketConnection: _Unix,
    SentinelManagedConnection: _Sentinel,
    SentinelManagedSSLConnection: _SentinelTLS,
}
"""For each class of connections the one that a ``ServerPipe`` needs."""


class ServerPipe:
    """A pipe to one server: standalone, or the primary that Sentinel names.

    Args:
        connection: of a class in ``READING_ALL``'s values.
        timeout: seconds for one pipeline, the time to connect included.
    """

    def __init__(self, connection: Any, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout

    async def execute(self, commands: Sequence[Command]) -> list[Result]:
        """Execute commands in order."""
        connection = self._connection
        results: list[Result] = []
        whole = False
        try:
            async with asyncio.timeout(self._timeout):
                if not connection.is_connected:
                    await connection.connect()
                packed = b"".join(map(hiredis.pack_command, commands))
                await connection.send_packed_command(packed, check_health=False)
                results = await connection.read_all(len(commands))
            whole = True
        except TimeoutError:
            raise RedisTimeoutError(f"no answer within {self._timeout:g} s") from None
        finally:
            # Nobody may be handed an answer that was meant for somebody who did not wait for it.
            # And where the primary has moved, its address leads elsewhere by now.
            if not whole or any(isinstance(result, ReadOnlyError) for result in results):
                await connection.disconnect(nowait=True)
        return results

    async def load(self, scripts: Sequence[str]) -> None:
        """Put scripts into the server's cache."""
        await self.execute([("SCRIPT", "LOAD", script) for script in scripts])

    async def aclose(self) -> None:
        """Close the connection."""
        await self._connection.disconnect()


def _as_it_is(response: Any, **options: Any) -> Any:  # noqa: ARG001 - redis-py's shape
    return response


class ClusterPipe:
    """A pipe to all servers of a Cluster, by the pipelines of redis-py.

    Args:
        client: whose pipelines follow MOVED and ASK, both of which say that nothing was executed.
    """

    def __init__(self, client: RedisCluster) -> None:
        self._client = client
        # The answer as it is, as from a single server.
        client.set_response_callback("XREAD", _as_it_is)

    async def execute(self, commands: Sequence[Command]) -> list[Result]:
        """Execute commands; in order as far as they are for the same server."""
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        results: list[Result] = await pipeline.execute(raise_on_error=False)
        return results

    async def load(self, scripts: Sequence[str]) -> None:
        """Put scripts into the cache of every primary."""
        for script in scripts:
            await self._client.script_load(script)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()
