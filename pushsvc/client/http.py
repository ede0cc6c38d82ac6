"""HTTP by urllib3: kept-alive connections, and no behaviour of its own."""

import queue
import ssl as tls
import threading
import time
from collections import deque
from typing import Any, Self
from urllib.request import getproxies, proxy_bypass

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, ProxyManager, Timeout
from urllib3.exceptions import HTTPError

from pushsvc.client.calls import Answer, Request
from pushsvc.client.errors import Closed, NoAnswer, NotInTime
from pushsvc.client.forks import pause_for_forks, renew_in_children
from pushsvc.client.hints import no_answer, split_address

CONNECT_TIMEOUT = 5.0
"""Seconds for a connection to be made."""


class _Idle(queue.LifoQueue[Any]):
    """The idle connections of a pool, without a lock.

    A process that is forked while another thread holds a lock has that lock held for ever, and
    urllib3 empties a pool when it is collected and when the process ends.
    """

    def __init__(self, most: int) -> None:
        self._connections: deque[Any] = deque()  # appends and pops at once, by itself
        self._most = most

    def qsize(self) -> int:
        return len(self._connections)

    def put(self, item: Any, block: bool = False, timeout: float | None = None) -> None:  # noqa: FBT001, FBT002, ARG002 - as of any queue
        if len(self._connections) >= self._most:
            raise queue.Full
        self._connections.append(item)

    def get(self, block: bool = False, timeout: float | None = None) -> Any:  # noqa: FBT001, FBT002, ARG002 - as of any queue
        try:
            return self._connections.pop()
        except IndexError:
            raise queue.Empty from None


class _Pool(HTTPConnectionPool):
    QueueCls = _Idle  # type: ignore[assignment]  # urllib3 means one that is generic


class _SecurePool(HTTPSConnectionPool):
    QueueCls = _Idle  # type: ignore[assignment]  # urllib3 means one that is generic


class Http:
    """Connections to one service; may be used by several threads, and after a fork.

    A child has connections and locks of its own: a connection has one answer to one request, and
    two processes that share it take each other's.

    Args:
        url: of a node or of what stands before the nodes, http or https. The proxies that the
            environment names are used, as by most programs.
        connections: how many are open at most.
        ssl: for https; the system's by default.

    Raises:
        ValueError: the URL is neither http nor https.
    """

    def __init__(self, url: str, connections: int, ssl: tls.SSLContext | None) -> None:
        parts = split_address(url, "http", "https")
        self._url = url.rstrip("/")
        self._answered = False
        bypassed = proxy_bypass(parts.hostname or "")
        self._proxy = None if bypassed else getproxies().get(parts.scheme)
        self._connections = connections
        self._ssl = ssl
        self.closed = False
        self._renew()
        renew_in_children(self, Http._renew)
        if parts.scheme == "https":
            pause_for_forks(self, Http._pause, Http._go_on)

    def _renew(self) -> None:
        """Begin anew, without a connection. Those of before are let go, and not shut down."""
        settings: dict[str, Any] = {
            "maxsize": self._connections,
            "ssl_context": self._ssl,
            "retries": False,
        }
        pool = ProxyManager(self._proxy, **settings) if self._proxy else PoolManager(**settings)
        pool.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
        self._free = threading.BoundedSemaphore(self._connections)
        self._pool = pool
        self._paused: deque[threading.BoundedSemaphore] = deque()

    def _pause(self, until: float) -> None:
        """Take all connections that there may be, as they become free."""
        while len(self._paused) < self._connections:
            if not self._free.acquire(timeout=max(until - time.monotonic(), 0.0)):
                return
            self._paused.append(self._free)

    def _go_on(self) -> None:
        while self._paused:
            self._paused.pop().release()

    def send(self, request: Request, token: str, timeout: float, until: float) -> Answer | NoAnswer:
        """Send a request once; the answer, or the error instead of one.

        Args:
            request: what to send.
            token: that it carries.
            timeout: seconds until the answer, with the wait for a connection that is free.
            until: when there has to be one in any case, by the monotonic clock.

        Raises:
            Closed: it was, before the request was sent.
        """
        now = time.monotonic()
        until = min(until, now + timeout)
        free, pool = self._free, self._pool
        if not free.acquire(timeout=max(until - now, 0.0)):
            return NotInTime("all connections were in use by other calls")
        try:
            if self.closed:
                raise Closed("the publisher was closed before this was answered")
            left = max(until - time.monotonic(), 0.001)
            return self._send(pool, request, token, left)
        finally:
            free.release()
            if self.closed:
                pool.clear()  # the request may have made connections since

    def _send(
        self, pool: PoolManager, request: Request, token: str, timeout: float
    ) -> Answer | NoAnswer:
        limit = Timeout(total=timeout, connect=min(CONNECT_TIMEOUT, timeout))
        try:
            answer = pool.request(
                request.method,
                self._url + request.path,
                body=request.body,
                headers=request.headers(token),
                redirect=False,  # a token is not carried elsewhere
                timeout=limit,
            )
        except HTTPError as error:
            return no_answer(error, self._url, first=not self._answered)
        self._answered = True
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Answer(answer.status, headers, answer.data)

    def close(self) -> None:
        """Close what is idle, and what is in use once it is done; nothing is sent any more."""
        self.closed = True
        self._pool.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
