"""HTTP by urllib3: kept-alive connections, and no behaviour of its own."""

import ssl as tls
import threading
import time
from typing import Any, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from urllib3 import PoolManager, ProxyManager, Timeout
from urllib3.exceptions import HTTPError

from pushsvc.client.calls import Answer
from pushsvc.client.publishing import Request

CONNECT_TIMEOUT = 5.0
"""Seconds for a connection to be made."""


class Http:
    """Connections to one service; may be used by several threads.

    Args:
        url: of a node or of what stands before the nodes, http or https. The proxies that the
            environment names are used, as by most programs.
        connections: how many are open at most.
        ssl: for https; the system's by default.

    Raises:
        ValueError: the URL is neither http nor https.
    """

    def __init__(self, url: str, connections: int, ssl: tls.SSLContext | None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no address of a node: it begins with http:// or https://")
        self._url = url.rstrip("/")
        proxy = None if proxy_bypass(parts.hostname) else getproxies().get(parts.scheme)
        settings: dict[str, Any] = {
            "maxsize": connections,
            "ssl_context": ssl,
            "retries": False,
        }
        self._free = threading.BoundedSemaphore(connections)
        self._pool = ProxyManager(proxy, **settings) if proxy else PoolManager(**settings)

    def send(
        self, request: Request, token: str, timeout: float
    ) -> Answer | HTTPError | TimeoutError:
        """Send a request once; the answer, or the error instead of one.

        Args:
            request: what to send.
            token: the publisher's.
            timeout: seconds until the answer, with the wait for a connection that is free.
        """
        until = time.monotonic() + timeout
        if not self._free.acquire(timeout=max(timeout, 0.0)):
            return TimeoutError("all connections were in use by other calls")
        try:
            left = max(until - time.monotonic(), 0.001)
            return self._send(request, token, left)
        finally:
            self._free.release()

    def _send(self, request: Request, token: str, timeout: float) -> Answer | HTTPError:
        limit = Timeout(total=timeout, connect=min(CONNECT_TIMEOUT, timeout))
        try:
            answer = self._pool.request(
                "POST",
                self._url + request.path,
                body=request.body,
                headers=request.headers(token),
                redirect=False,  # a token is not carried elsewhere
                timeout=limit,
            )
        except HTTPError as error:
            return error
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Answer(answer.status, headers, answer.data)

    def close(self) -> None:
        """Close what is idle, and what is in use once it is done."""
        self._pool.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
