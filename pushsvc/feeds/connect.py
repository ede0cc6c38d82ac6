"""The ways in which Redis is run: alone, behind Sentinel, as a Cluster."""

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from pushsvc.feeds.access import OPEN, Access, Login
from pushsvc.feeds.cluster import ClusterPipe
from pushsvc.feeds.pipe import READING_ALL, Pipe, ServerPipe
from pushsvc.feeds.slots import Address, Slots

CONNECT_TIMEOUT: Final = 2.0
"""Seconds to wait for a connection."""

Connect = Callable[[float], Pipe]
"""Makes a pipe whose pipelines are answered within the given seconds, or fail."""


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
        # The pipe's own time-out covers a pipeline as a whole.
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
        return _server_pipes(ConnectionPool.from_url(url, **options))

    plain = options.copy()
    if parts.username or parts.password:
        options["username"] = unquote(parts.username or "") or None
        options["password"] = unquote(parts.password or "")
    else:
        options["credential_provider"] = access.login
    if topology == "sentinel":
        sentinel = Sentinels([])  # type: ignore[no-untyped-call]
        sentinel.sentinels = [
            _sentinel(host, port, access.sentinel, plain)
            for host, port in _hosts(parts.netloc, 26379)
        ]
        pool = SentinelConnectionPool(  # type: ignore[no-untyped-call]
            parts.path.strip("/"), sentinel, ssl=scheme == "rediss", **options
        )
        return _server_pipes(pool)

    kind = READING_ALL[SSLConnection if "tls" in options else Connection]

    def open_pipe(server: Address, timeout: float) -> ServerPipe:
        host, port = server
        return ServerPipe(kind(host=host, port=port, **options), timeout)

    slots = Slots(_hosts(parts.netloc, 6379), open_pipe)
    return lambda timeout: ClusterPipe(slots, timeout)


class Sentinels(Sentinel):
    """The Sentinel processes, with an error that says why none of them could help."""

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Host and port of the primary.

        Raises:
            MasterNotFoundError: nobody knows it.
        """
        told = []
        # A copy: other lanes, which ask meanwhile, put the list in another order.
        for sentinel in list(self.sentinels):
            try:
                primaries: Any = await sentinel.sentinel_masters()
            except RedisError as error:
                told.append(str(error))
                continue
            state = primaries.get(service_name)
            if state and self.check_master_state(state, service_name):
                # Who could help is asked first the next time.
                self.sentinels.remove(sentinel)
                self.sentinels.insert(0, sentinel)
                return state["ip"], state["port"]
            told.append("there is none of that name that is up")
        raise MasterNotFoundError(f"Sentinel names no primary {service_name!r}: {'; '.join(told)}")


def _sentinel(host: str, port: int, login: Login | None, options: dict[str, Any]) -> Redis:
    """A client of one Sentinel process, which is let in by its own user, and in the same TLS."""
    pool = ConnectionPool(
        connection_class=READING_ALL[SSLConnection if "tls" in options else Connection],
        host=host,
        port=port,
        **options | {"socket_timeout": CONNECT_TIMEOUT, "credential_provider": login},
    )
    return Redis.from_pool(pool)


def _server_pipes(pool: Any) -> Connect:
    pool.connection_class = READING_ALL[pool.connection_class]
    return lambda timeout: ServerPipe(pool.make_connection(), timeout)


def _hosts(netloc: str, default_port: int) -> list[tuple[str, int]]:
    hosts = []
    for item in netloc.rpartition("@")[2].split(","):
        host, colon, port = item.rpartition(":")
        hosts.append((host, int(port)) if colon else (port, default_port))
    return hosts
