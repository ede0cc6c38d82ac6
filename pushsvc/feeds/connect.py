"""The ways in which Redis is run: alone, behind Sentinel, as a Cluster."""

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from redis.asyncio import ConnectionPool, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff

from pushsvc.feeds.pipe import READING_ALL, ClusterPipe, Pipe, ServerPipe

CONNECT_TIMEOUT: Final = 2.0
"""Seconds to wait for a connection."""

Connect = Callable[[float], Pipe]
"""Makes a pipe whose pipelines are answered within the given seconds, or fail."""


def connector(url: str) -> Connect:
    """How to reach the Redis at a URL.

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
    }
    if topology == "":
        pool = ConnectionPool.from_url(url, **options)
        return _server_pipes(pool)

    if parts.username:
        options["username"] = unquote(parts.username)
    if parts.password:
        options["password"] = unquote(parts.password)
    if topology == "sentinel":
        sentinel = Sentinel(  # type: ignore[no-untyped-call]
            _hosts(parts.netloc, 26379),
            sentinel_kwargs={"socket_timeout": CONNECT_TIMEOUT, "retry": never},
        )
        service = parts.path.strip("/")
        pool = SentinelConnectionPool(  # type: ignore[no-untyped-call]
            service, sentinel, ssl=scheme == "rediss", **options
        )
        return _server_pipes(pool)

    def by_cluster(timeout: float) -> Pipe:
        hosts = [ClusterNode(host, port) for host, port in _hosts(parts.netloc, 6379)]
        options["socket_timeout"] = timeout
        return ClusterPipe(
            RedisCluster(
                startup_nodes=hosts,
                ssl=scheme == "rediss",
                cluster_error_retry_attempts=0,
                **options,
            )
        )

    return by_cluster


def _server_pipes(pool: Any) -> Connect:
    pool.connection_class = READING_ALL[pool.connection_class]
    return lambda timeout: ServerPipe(pool.make_connection(), timeout)


def _hosts(netloc: str, default_port: int) -> list[tuple[str, int]]:
    hosts = []
    for item in netloc.rpartition("@")[2].split(","):
        host, colon, port = item.rpartition(":")
        hosts.append((host, int(port)) if colon else (port, default_port))
    return hosts
