"""The ways in which Redis is run: alone, behind Sentinel, as a Cluster."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from redis.asyncio import Connection, ConnectionPool, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from pushsvc.store.cluster import ClusterConnection
from pushsvc.store.credentials import OPEN, Access
from pushsvc.store.server_connection import ASKING_ALL, ServerConnection, StoreConnection
from pushsvc.store.slots import Address, Slots

CONNECT_TIMEOUT: Final = 2.0
"""Seconds to wait for a connection."""
_WHO_IS_PRIMARY: Final = "SENTINEL", "MASTERS"
"""For Sentinel, whose users have a permission of their own for it."""
_WHAT_ARE_YOU: Final = "HELLO"
"""Without a version it changes nothing and tells the role. Unlike ROLE it needs no permission."""

Connect = Callable[[float], StoreConnection]
"""Makes a connection whose pipelines are answered within the given seconds, or fail."""


def connector(url: str, access: Access = OPEN) -> Connect:
    """How to reach the Redis at a URL.

    Args:
        url: of the forms that the settings accept.
        access: what lets a node in there, as far as the URL does not say it.

    Nothing is retried below this: a repeated append would be a second notification. Retries
    belong to whoever knows that they are safe.
    """
    parts = urlsplit(url)
    scheme, _, topology = parts.scheme.partition("+")
    never = Retry(NoBackoff(), 0)
    options: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_TIMEOUT,
        # The connection's own time-out covers a pipeline as a whole.
        "socket_timeout": None,
        "protocol": 2,
        "retry": never,
        # Else each connection begins with a CLIENT SETINFO, which a user would have to be allowed.
        "driver_info": None,
    }
    if scheme == "rediss":
        options["tls"] = access.tls
    if topology == "":
        options["credential_provider"] = access.login
        return _server_connections(ConnectionPool.from_url(url, **options))

    plain = options.copy()
    if parts.username or parts.password:
        options["username"] = unquote(parts.username or "") or None
        options["password"] = unquote(parts.password or "")
    else:
        options["credential_provider"] = access.login
    kind = ASKING_ALL[SSLConnection if "tls" in options else Connection]
    if topology == "sentinel":
        asking = plain | {
            "socket_timeout": CONNECT_TIMEOUT,
            # Sentinel has users of its own.
            "credential_provider": access.sentinel,
        }
        hosts = _hosts(parts.netloc, 26379)
        sentinels = Sentinels(
            [partial(kind, host=host, port=port, **asking) for host, port in hosts],
            parts.path.strip("/"),
        )
        primary: Any = type("Primary", (_Primary, kind), {})
        return lambda timeout: ServerConnection(primary(sentinels=sentinels, **options), timeout)

    def open_connection(server: Address, timeout: float) -> ServerConnection:
        host, port = server
        return ServerConnection(kind(host=host, port=port, **options), timeout, share=False)

    slots = Slots(_hosts(parts.netloc, 6379), open_connection)
    return lambda timeout: ClusterConnection(slots, timeout)


class Sentinels:
    """The Sentinel processes.

    All are asked at once: one that hangs holds up nobody, and nothing has to be remembered of who
    could help the last time. No answer is believed before its server was reached: a Sentinel that
    was cut off from the others names the primary that it knew.

    Args:
        processes: for each of them, what makes a connection to it.
        name: by which they know the primary.
    """

    def __init__(self, processes: Sequence[Callable[[], Connection]], name: str) -> None:
        self._processes = processes
        self._name = name

    async def reach(self, connect: Callable[[str, int], Awaitable[None]]) -> None:
        """Connect to the primary: to the first server named that can be had.

        Args:
            connect: makes the connection to a host and port, or raises a RedisError.

        Raises:
            MasterNotFoundError: nobody names one.
            RedisError: why the last that was named cannot be had.
        """
        failures: dict[Address, RedisError] = {}
        asked = [asyncio.create_task(self._ask(process())) for process in self._processes]
        try:
            for answer in asyncio.as_completed(asked):
                named = await answer
                if isinstance(named, str) or named in failures:
                    continue
                try:
                    return await connect(*named)
                except RedisError as error:
                    failures[named] = error
        finally:
            for task in asked:
                task.cancel()
        if failures:
            raise [*failures.values()][-1]
        told = "; ".join(str(task.result()) for task in asked)
        raise MasterNotFoundError(f"Sentinel names no primary {self._name!r}: {told}")

    async def _ask(self, connection: Connection) -> Address | str:
        """Where one of them says that the primary is, or why it does not."""
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command(*_WHO_IS_PRIMARY)
            answer = await connection.read_response()
        except RedisError as error:
            return str(error)
        finally:
            # It will not be needed before the next failover.
            await connection.disconnect(nowait=True)
        for primary in map(_fields, answer):
            down = {b"s_down", b"o_down"} & {*primary[b"flags"].split(b",")}
            if primary[b"name"] == self._name.encode() and not down:
                return primary[b"ip"].decode(), int(primary[b"port"])
        return "there is none of that name that is up"


class _Primary(Connection):
    """Adds to a connection that it leads to the primary that Sentinel names."""

    def __init__(self, *, sentinels: Sentinels, **options: Any) -> None:
        super().__init__(**options)
        self._sentinels = sentinels

    async def connect(self) -> None:
        """Connect, to whoever is the primary by now."""
        await self._sentinels.reach(self._connect_to)

    async def _connect_to(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        reached = False
        try:
            # The whole of it, so that another one that is named can be tried.
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await super().connect()  # type: ignore[no-untyped-call]
                await self._check_role()
            reached = True
        except TimeoutError:
            raise RedisTimeoutError(
                f"{host}:{port} gave no answer within {CONNECT_TIMEOUT:g} s"
            ) from None
        finally:
            if not reached:
                await self.disconnect(nowait=True)

    async def _check_role(self) -> None:
        await self.send_command(_WHAT_ARE_YOU, check_health=False)
        try:
            answer = await self.read_response()
        except ResponseError:
            return  # renamed: what it is, the commands will tell
        if _fields(answer).get(b"role") == b"replica":
            raise RedisConnectionError(
                f"Sentinel names {self.host}:{self.port} the primary, which is a replica"
            )


def _fields(answer: list[Any]) -> dict[bytes, Any]:
    return dict(zip(answer[::2], answer[1::2], strict=True))


def _server_connections(pool: Any) -> Connect:
    pool.connection_class = ASKING_ALL[pool.connection_class]
    return lambda timeout: ServerConnection(pool.make_connection(), timeout)


def _hosts(netloc: str, default_port: int) -> list[tuple[str, int]]:
    hosts = []
    for item in netloc.rpartition("@")[2].split(","):
        host, colon, port = item.rpartition(":")
        hosts.append((host, int(port)) if colon else (port, default_port))
    return hosts
