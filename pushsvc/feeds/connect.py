"""Clients for the ways in which Redis is run: alone, behind Sentinel, as a Cluster."""

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

CONNECT_TIMEOUT: Final = 2.0
"""Seconds to wait for a connection."""

Client = Redis | RedisCluster
Connect = Callable[[float], Client]
"""Makes a client whose commands are answered within the given seconds, or fail."""


def connector(url: str) -> Connect:
    """How to reach the Redis at a URL.

    Nothing is retried below this: a repeated append would be a second notification. Retries
    belong to whoever knows that they are safe.
    """
    parts = urlsplit(url)
    scheme, _, topology = parts.scheme.partition("+")
    options: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "protocol": 2,
    }
    if parts.username:
        options["username"] = unquote(parts.username)
    if parts.password:
        options["password"] = unquote(parts.password)
    if scheme == "rediss":
        options["ssl"] = True
    no_retry = Retry(NoBackoff(), 0)

    if topology == "sentinel":
        sentinels = _hosts(parts.netloc, 26379)
        service = parts.path.strip("/") or "mymaster"

        def by_sentinel(timeout: float) -> Client:
            sentinel = Sentinel(  # type: ignore[no-untyped-call]
                sentinels,
                sentinel_kwargs={"socket_timeout": CONNECT_TIMEOUT, "retry": no_retry},
            )
            client: Client = sentinel.master_for(
                service, socket_timeout=timeout, retry=no_retry, **options
            )
            return client

        return by_sentinel

    if topology == "cluster":
        hosts = _hosts(parts.netloc, 6379)

        def by_cluster(timeout: float) -> Client:
            return RedisCluster(
                startup_nodes=[ClusterNode(host, port) for host, port in hosts],
                socket_timeout=timeout,
                # The pipeline follows MOVED and ASK, which say that nothing was executed.
                cluster_error_retry_attempts=0,
                **options,
            )

        return by_cluster

    def alone(timeout: float) -> Client:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=4,
            timeout=timeout,
            socket_timeout=timeout,
            socket_connect_timeout=CONNECT_TIMEOUT,
            protocol=2,
            retry=no_retry,
        )
        return Redis.from_pool(pool)  # which closes the pool with itself

    return alone


def _hosts(netloc: str, default_port: int) -> list[tuple[str, int]]:
    hosts = []
    for item in netloc.rpartition("@")[2].split(","):
        host, colon, port = item.rpartition(":")
        hosts.append((host, int(port)) if colon else (port, default_port))
    return hosts
