"""Gets a document of an issuer of tokens: through proxies, past redirects, everything bounded.

HTTP, TLS and proxies are urllib3's, in a thread of its own for each document.
"""

import asyncio
import io
import socket
import ssl
import threading
import time
from concurrent.futures import Future
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from urllib3 import PoolManager, ProxyManager, Timeout, connection_from_url, make_headers
from urllib3.exceptions import HTTPError
from urllib3.util import Url

from pushsvc import __version__
from pushsvc.auth.jwks import FETCH_TIMEOUT, is_address
from pushsvc.auth.keys import MAX_JWKS
from pushsvc.egress import proxy_login, proxy_of, tls_context
from pushsvc.printable import printable

MAX_REDIRECTS: Final = 5
"""Redirects that are followed, one after the other."""

MAX_ANSWER: Final = 2 * MAX_JWKS
"""Bytes of an answer, and of what a proxy answers, with all that is not the document.

Of headers ``http.client`` takes 100 at most, of 64 KiB each.
"""

CONNECT_TIMEOUT: Final = 4.0
"""Seconds for a connection to one address of a host, so that the next one has its turn."""


class FetchError(Exception):
    """A document cannot be had; the message says why, and what to change."""


class Fetcher:
    """Gets documents, by the proxies that the environment names, in capitals or not.

    Args:
        ca_file: PEM file with the authorities that may certify a server, in place of the system's;
            read each time.
        timeout: seconds that a document may take, with redirects.

    Raises:
        FetchError: the file cannot be used.
    """

    def __init__(self, ca_file: Path | None = None, timeout: float = FETCH_TIMEOUT) -> None:
        self._ca_file = ca_file
        self._timeout = timeout
        if ca_file is not None:
            try:
                tls_context(ca_file)
            except ValueError as error:
                raise FetchError(str(error)) from None

    async def get(self, url: str) -> bytes:
        """The document at an http or https address, ``MAX_JWKS`` bytes at most.

        A call that is cancelled leaves its thread until the time is over or the process ends, which
        a thread of ``asyncio.to_thread`` would hold up.

        Raises:
            FetchError: it cannot be had.
        """
        found: Future[bytes] = Future()
        found.set_running_or_notify_cancel()

        def run() -> None:
            try:
                found.set_result(self._get(url, time.monotonic() + self._timeout))
            except BaseException as error:  # noqa: BLE001 - for the one who waits
                found.set_exception(error)

        threading.Thread(target=run, name="fetch", daemon=True).start()
        return await asyncio.wrap_future(found)

    def _get(self, url: str, until: float) -> bytes:
        if not is_address(url):
            raise FetchError("an address is not http or https, or has a user and a password in it")
        where, to = urlsplit(url).netloc, url
        try:
            proxy = proxy_of(url)
            where += "" if proxy is None else f" through the proxy {proxy.netloc}"
            with _connections(url, proxy, tls_context(self._ca_file), until) as connections:
                for _ in range(MAX_REDIRECTS + 1):
                    answer = _ask(connections, to, until)
                    if isinstance(answer, bytes):
                        return answer
                    to = answer
        except (HTTPError, OSError) as error:
            raise FetchError(_reason(error, where)) from None
        except ValueError as error:  # of the proxy, or of the authorities
            raise FetchError(str(error)) from None
        raise FetchError(f"{url} is redirected more than {MAX_REDIRECTS} times")


def _ask(connections: PoolManager, url: str, until: float) -> bytes | str:
    """The document, or where a redirect leads."""
    left = max(until - time.monotonic(), 0.001)
    limit = Timeout(connect=min(CONNECT_TIMEOUT, left), read=left)
    answer = connections.request(
        "GET", url, timeout=limit, redirect=False, preload_content=False, decode_content=False
    )
    try:
        if answer.status in {301, 302, 303, 307, 308}:
            return _redirected(url, answer.headers.get("Location"))
        if answer.status != 200:
            raise FetchError(f"{url} answered with status {answer.status}")
        if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise FetchError(f"{url} answered compressed, which was not asked for")
        large = (answer.length_remaining or 0) > MAX_JWKS
        document = b"" if large else answer.read(MAX_JWKS)
        if large or answer.read(1):  # which is an error where the answer broke off
            raise FetchError(f"{url} answered with more than {MAX_JWKS} bytes")
        if not document:
            raise FetchError(f"{url} answered with nothing")
        return document
    finally:
        answer.close()


def _redirected(url: str, location: str | None) -> str:
    """Where a redirect leads.

    Raises:
        FetchError: that is nowhere, or of another origin: whoever can redirect there could as well
            hand out the keys, but a redirect out of https or to another host is rather a mistake.
    """
    if location is None:
        raise FetchError(f"{url} is redirected, and not said where to")
    try:
        to = urljoin(url, location)
    except ValueError:
        to = ""
    if not is_address(to):
        raise FetchError(f"{url} is redirected to what is no http address")
    if not connection_from_url(url).is_same_host(to):
        raise FetchError(
            f"{url} is redirected to another origin, {urljoin(to, '/')}, which is not followed:"
            " configure the address there, if it is to be trusted"
        )
    return to


def _reason(error: BaseException, where: str) -> str:
    """Why there is no answer: what is below urllib3's errors."""
    while isinstance(error, HTTPError) and (inner := error.__cause__ or error.__context__):
        error = inner
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "verify_message", "") or error.reason or error
        return f"{where} is no good TLS server: {reason}"
    hint = ": put user and password into its URL" if "failed: 407" in str(error) else ""
    return f"no answer from {where}: {printable(str(error)[:200])}{hint}"


def _connections(url: str, proxy: Url | None, context: ssl.SSLContext, until: float) -> PoolManager:
    """What connects to the origin of an address, each answer bounded."""
    headers = make_headers(user_agent=f"pushsvc/{__version__}")
    headers["Accept"] = "application/json, */*;q=0.5"
    settings: dict[str, Any] = {"headers": headers, "ssl_context": context, "retries": False}
    if proxy is None:
        connections = PoolManager(**settings)
    else:
        settings["proxy_headers"] = proxy_login(proxy)
        connections = ProxyManager(proxy.url, **settings)
    pool: Any = connections.connection_from_url(url)
    make = pool.ConnectionCls

    def answer(sock: Any, **settings: Any) -> HTTPResponse:
        response = HTTPResponse(sock, **settings)
        response.fp = io.BufferedReader(_Bounded(response.fp.detach(), sock, until))
        return response

    def connection(**settings: Any) -> Any:
        made = make(**settings)
        made.response_class = answer  # for the answer of a proxy as well
        return made

    pool.ConnectionCls = connection
    return connections


class _Bounded(io.RawIOBase):
    """What comes on a socket: until a moment, and no more than an answer may have.

    ``http.client`` bounds the time of each read only, and neither interim answers nor trailers.
    """

    def __init__(self, raw: Any, sock: socket.socket, until: float) -> None:
        self._raw, self._sock, self._until, self._left = raw, sock, until, MAX_ANSWER

    def readable(self) -> bool:
        """See ``io.RawIOBase``."""
        return True

    def readinto(self, buffer: Any) -> int:
        """See ``io.RawIOBase``."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        count: int = self._raw.readinto(buffer)
        self._left -= count
        if self._left < 0:
            raise OSError(f"an answer of more than {MAX_ANSWER} bytes")
        return count

    def close(self) -> None:
        """See ``io.RawIOBase``."""
        self._raw.close()
        super().close()
