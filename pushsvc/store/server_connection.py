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
from redis._parsers.socket import SERVER_CLOSED_CONNECTION_ERROR
from redis.asyncio import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import (
    ClusterCrossSlotError,
    MasterDownError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from pushsvc.store.calls import gather, spread
from pushsvc.store.credentials import FreshTLS

Command = tuple[Any, ...]
"""As the server knows it, or a ``Run`` of a script."""
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


class _Answers(asyncio.Protocol):
    """What comes on a connection once redis-py has set it up.

    It takes the place of redis-py's stream, so that who waits for a pipeline is woken once, when
    all of it is there, and one timer looks at the deadlines of all pipelines.

    Args:
        reader: hiredis' reader of the connection.
        stream: what was told of the connection until now; it still waits for its end.
    """

    def __init__(self, reader: Any, stream: asyncio.BaseProtocol) -> None:
        # What came beside the answers to redis-py is no answer to what is asked from now on.
        self.ended = reader.has_data()
        self._reader = reader
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Future[list[Result]] | None = None
        self._answers: list[Result] = []
        self._count = 0
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def expect(self, count: int, deadline: float) -> asyncio.Future[list[Result]]:
        """So many answers; the future fails with ``TimeoutError`` at a time of the loop."""
        self._waiting = future = self._loop.create_future()
        self._answers, self._count, self._deadline = [], count, deadline
        if self.ended:
            self._end(None)
        elif self._timer is None:
            self._timer = self._loop.call_at(deadline, self._look)
        return future

    def data_received(self, data: bytes) -> None:
        waiting = self._waiting
        if waiting is None:
            self.ended = True  # nobody asked: no later answer may be taken for what it is not
            return
        reader, answers = self._reader, self._answers
        try:
            reader.feed(data)
            while len(answers) < self._count:
                answer = reader.gets()
                if answer is NOT_ENOUGH_DATA:
                    return
                answers.append(answer)
        except RedisError as error:
            self._end(error)
            return
        if reader.has_data():
            # One is nobody's, and it may be any of them: which commands were executed is not known.
            self._end(RedisConnectionError("Redis sent more answers than it was sent commands"))
            return
        self._waiting = None
        if not waiting.done():
            waiting.set_result(answers)

    def eof_received(self) -> None:
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._stream.connection_lost(exc)

    def _look(self) -> None:
        self._timer = None
        if self._waiting is None:
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._look)
        else:
            self._end(TimeoutError())

    def _end(self, error: Exception | None) -> None:
        self.ended = True
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(error or RedisConnectionError(SERVER_CLOSED_CONNECTION_ERROR))


class _Asks:
    """Adds to a connection of redis-py the asking of many commands at once.

    redis-py has no public way to read answers without a coroutine each; its versions are pinned,
    and every test against a server goes through here.
    """

    _answers: _Answers

    def take_over(self) -> None:
        """Read what comes from now on; to be called once redis-py has connected."""
        transport = self._writer.transport  # type: ignore[attr-defined]
        reader = self._parser._reader  # type: ignore[attr-defined]  # noqa: SLF001
        self._answers = _Answers(reader, transport.get_protocol())
        transport.set_protocol(self._answers)

    @property
    def has_ended(self) -> bool:
        """Whether the other side has closed or reset it, as far as has been heard.

        redis-py takes it for connected until something is sent.
        """
        writer: asyncio.StreamWriter = self._writer  # type: ignore[attr-defined]
        return self._answers.ended or writer.is_closing()

    def ask(self, packed: bytes, count: int, deadline: float) -> asyncio.Future[list[Result]]:
        """Send commands; a future of their answers, which fails at a time of the loop.

        Whoever gives the future up, or sees it fail, closes the connection.
        """
        future = self._answers.expect(count, deadline)
        self._writer.transport.write(packed)  # type: ignore[attr-defined]
        return future


class _Plain(_Asks, Connection):
    """TCP."""


class _TLS(_Asks, FreshTLS, SSLConnection):
    """TLS."""


class _Unix(_Asks, UnixDomainSocketConnection):
    """A Unix domain socket."""


ASKING_ALL: Final[dict[type, type]] = {
    Connection: _Plain,
    SSLConnection: _TLS,
    UnixDomainSocketConnection: _Unix,
}
"""For each class of connections the one that a ``ServerConnection`` needs."""


class ServerConnection:
    """A connection to one server: standalone, or the primary that Sentinel names.

    Args:
        connection: of a class in ``ASKING_ALL``'s values.
        timeout: seconds for one pipeline, the time to connect included.
        share: whether runs of a script share calls, whatever slots their keys are in; no more
            once the server says that it is of a Cluster.
    """

    def __init__(self, connection: Any, timeout: float, *, share: bool = True) -> None:
        self.changes = 0
        self._share = share
        self._connection = connection
        self._timeout = timeout
        self._greeting: Greeting | None = None
        self._address: object = None
        self._deadline = 0.0
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
        self._deadline = asyncio.get_running_loop().time() + self._timeout
        try:
            if connection.is_connected and connection.has_ended:
                # Nothing was written on it since, so this repeats nothing.
                self._lost = True
                await connection.disconnect(nowait=True)
            if not connection.is_connected:
                async with asyncio.timeout_at(self._deadline):
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
        calls, runs = gather(commands, share=self._share)
        packed = b"".join(map(hiredis.pack_command, calls))
        answers: list[Result] = await connection.ask(packed, len(calls), self._deadline)
        results = spread(answers, runs)
        if self._share and any(isinstance(each, ClusterCrossSlotError) for each in answers):
            # A member of a Cluster, which refused those calls as a whole.
            self._share = False
            refused = [
                place for place, each in enumerate(results)
                if isinstance(each, ClusterCrossSlotError)
            ]  # fmt: skip
            again = await self._send([commands[place] for place in refused])
            for place, result in zip(refused, again, strict=True):
                results[place] = result
        return results

    async def _connect(self) -> None:
        connection = self._connection
        await connection.connect()
        connection.take_over()
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
