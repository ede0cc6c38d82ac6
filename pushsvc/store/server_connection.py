"""Pipelines to Redis: many commands out, as many answers back.

redis-py makes the connections: addresses, TLS, authentication, Sentinel, Cluster. Its pipelines,
though, cost more than all else that a node does for a notification: each command is packed in
Python, and each answer takes a coroutine. For a single server hiredis does both here, at a tenth.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

import hiredis
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.asyncio import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import MasterDownError, NoScriptError, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from pushsvc.store.credentials import FreshTLS

Command = tuple[Any, ...]
Result = Any
"""What Redis answered: RESP2 as it is, or the exception that stands for an error answer."""
Send = Callable[[Sequence[Command]], Awaitable[list[Result]]]
"""Executes commands in order on one connection."""
Greeting = Callable[[Send], Awaitable[None]]
"""What is said on a new connection before anything else; an error of it closes the connection."""

CUT_OFF_SECONDS: Final = 0.5
"""How long a connection to a primary without replicas is kept; it may lack them for long."""


def reached(confirmed: Result) -> bool:
    """Whether what was written before a tail has come where it is to be, by the tail's answer."""
    copies = confirmed[0] if isinstance(confirmed, list) else confirmed
    return isinstance(copies, int) and copies >= 1


def cut_off(error: ResponseError) -> bool:
    """Whether a primary refuses writes since no replica follows it: it may have been replaced."""
    return str(error).startswith("NOREPLICAS")


def _restarted(error: ResponseError) -> bool:
    """Whether a server is no primary any more, or not the one that was connected to."""
    return isinstance(error, ReadOnlyError | MasterDownError | NoScriptError)


class StoreConnection(Protocol):
    """A way to Redis for one caller at a time."""

    @property
    def changes(self) -> int:
        """How often it has come to lead to another server, or to one that was away meanwhile.

        What was written before without waiting for a replica may be lost.
        """

    def greet(self, greeting: Greeting) -> None:
        """Have every connection that is opened from now on begin with a greeting."""

    async def execute(
        self, commands: Sequence[Command], tail: Command | None = None
    ) -> list[Result]:
        """Execute commands in order.

        Args:
            commands: what to execute.
            tail: executed after them on each connection that carried some of them.

        Returns:
            The results in order; with a tail followed by as many: for each command what the tail
            answered on the connection that carried it.

        Raises:
            RedisError, OSError: it is not known which of them were executed.
        """

    async def everywhere(self, commands: Sequence[Command]) -> dict[str, list[Result]]:
        """Execute commands on every primary, whether or not it serves their keys.

        Returns:
            The results in order, by the servers' names.

        Raises:
            RedisError, OSError: it is not known which of them were executed.
        """

    async def at(self, server: str, commands: Sequence[Command]) -> list[Result]:
        """Execute commands on one of the servers that ``everywhere`` names.

        Returns:
            The results in order.

        Raises:
            RedisError, OSError: it is not known which of them were executed.
        """

    def unserved(self) -> int:
        """How many slots of a Cluster no primary is known for."""

    async def aclose(self) -> None:
        """Close the connections."""


class _ReadsAll:
    """Adds to a connection of redis-py the reading of many answers at once."""

    @property
    def has_ended(self) -> bool:
        """Whether the other side has closed or reset it, as far as has been heard.

        redis-py takes it for connected until something is sent.
        """
        reader: asyncio.StreamReader = self._reader  # type: ignore[attr-defined]
        writer: asyncio.StreamWriter = self._writer  # type: ignore[attr-defined]
        return reader.at_eof() or writer.is_closing()

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


class _TLS(_ReadsAll, FreshTLS, SSLConnection):
    """TLS."""


class _Unix(_ReadsAll, UnixDomainSocketConnection):
    """A Unix domain socket."""


READING_ALL: Final[dict[type, type]] = {
    Connection: _Plain,
    SSLConnection: _TLS,
    UnixDomainSocketConnection: _Unix,
}
"""For each class of connections the one that a ``ServerConnection`` needs."""


class ServerConnection:
    """A connection to one server: standalone, or the primary that Sentinel names.

    Args:
        connection: of a class in ``READING_ALL``'s values.
        timeout: seconds for one pipeline, the time to connect included.
    """

    def __init__(self, connection: Any, timeout: float) -> None:
        self.changes = 0
        self._connection = connection
        self._timeout = timeout
        self._greeting: Greeting | None = None
        self._address: object = None
        self._connected_at = 0.0
        self._lost = False

    def greet(self, greeting: Greeting) -> None:
        """Have every connection that is opened from now on begin with a greeting."""
        self._greeting = greeting

    async def execute(
        self, commands: Sequence[Command], tail: Command | None = None
    ) -> list[Result]:
        """Execute commands in order, then the tail once."""
        connection = self._connection
        if tail is not None:
            commands = [*commands, tail]
        results: list[Result] = []
        whole = False
        try:
            async with asyncio.timeout(self._timeout):
                if connection.is_connected and connection.has_ended:
                    # Nothing was written on it since, so this repeats nothing.
                    self._lost = True
                    await connection.disconnect(nowait=True)
                if not connection.is_connected:
                    await self._connect()
                results = await self._send(commands)
            whole = True
        except TimeoutError:
            raise RedisTimeoutError(f"no answer within {self._timeout:g} s") from None
        finally:
            if not whole:
                # No caller may get an answer that was meant for one that did not wait for it.
                self._lost = True
                await connection.disconnect(nowait=True)
        errors = [result for result in results if isinstance(result, ResponseError)]
        if errors:
            await self._leave_if_replaced(errors)
        if tail is not None:
            confirmed = results[-1]
            if not reached(confirmed):
                # A primary that lives, but that nobody follows, may have been replaced already.
                await connection.disconnect(nowait=True)
            results += [confirmed] * (len(results) - 2)
        return results

    async def _leave_if_replaced(self, errors: Sequence[ResponseError]) -> None:
        """Have the next pipeline connect anew, where the address leads elsewhere by now."""
        self._lost = any(map(_restarted, errors))
        age = time.monotonic() - self._connected_at
        if self._lost or (age >= CUT_OFF_SECONDS and any(map(cut_off, errors))):
            await self._connection.disconnect(nowait=True)

    async def _send(self, commands: Sequence[Command]) -> list[Result]:
        connection = self._connection
        packed = b"".join(map(hiredis.pack_command, commands))
        await connection.send_packed_command(packed, check_health=False)
        results: list[Result] = await connection.read_all(len(commands))
        return results

    async def _connect(self) -> None:
        connection = self._connection
        await connection.connect()
        self._connected_at = time.monotonic()
        if self._greeting is not None:
            await self._greeting(self._send)
        address = getattr(connection, "host", None), getattr(connection, "port", None)
        if self._address is not None and (self._lost or address != self._address):
            self.changes += 1
        self._address, self._lost = address, False

    async def everywhere(self, commands: Sequence[Command]) -> dict[str, list[Result]]:
        """Execute commands on this server."""
        return {"the primary": await self.execute(commands)}

    async def at(self, server: str, commands: Sequence[Command]) -> list[Result]:  # noqa: ARG002 - there is one
        """Execute commands on this server."""
        return await self.execute(commands)

    def unserved(self) -> int:
        """None: it is no Cluster."""
        return 0

    async def aclose(self) -> None:
        """Close the connection."""
        await self._connection.disconnect()
