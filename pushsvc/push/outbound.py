"""All HTTP/1.1 that goes out for pushes: kept alive, bounded, and only where it may go.

An address that a client gave is looked up once, all that it stands for must be public, and the
connection goes to one of exactly these: what a name server says a moment later changes nothing.
Where a proxy of the environment is in between, that looks the name up, so the list of hosts alone
decides.
"""

import asyncio
import functools
import ssl
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from socket import AF_INET, AI_NUMERICHOST, SOCK_STREAM, AddressFamily, getaddrinfo
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from weakref import WeakSet

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from pushsvc import __version__
from pushsvc.egress import proxy_login, proxy_of, tls_context
from pushsvc.printable import printable
from pushsvc.protocol.push import ATTEMPT_SECONDS
from pushsvc.push.addresses import is_public
from pushsvc.push.hosts import Hosts, NotAllowed

MAX_KEPT: Final = 4096
"""Bytes of an answer's body that are kept."""
MAX_READ: Final = 64 * 1024
"""Bytes of an answer that are read, with all that comes before its body."""
MAX_FIELDS: Final = 64
"""Header fields of an answer."""
BODY_SECONDS: Final = 1.0
"""How long a body may take to come: what counts is the status before it."""
IDLE_SECONDS: Final = 30.0
"""How long a connection is kept that nothing is sent on: less than push services keep it."""
LOOKED_UP_SECONDS: Final = 10
"""How long the addresses of a name are used."""
CONNECTIONS: Final = 64
"""Connections in use at once, of each kind."""
LOOKUPS: Final = 8
"""Names that are looked up at once."""
_MAX_PROXIES: Final = 1024
_TURNS: Final = 3
"""Of the event loop, until a connection that ends without a word is gone."""

_Via = tuple[URL, dict[str, str]] | None


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    """By their names in lower case."""
    body: bytes
    """``MAX_KEPT`` bytes of it at most, as they came."""


class Refused(Exception):
    """The address may not be used; the message says why."""


class Unreachable(Exception):
    """There was no answer; the message is short and printable."""


class Outbound:
    """Sends requests, and keeps connections.

    Args:
        hosts: where addresses may lead that clients gave.
        ca_file: PEM file with the authorities that may certify a server, in place of the system's.

    Raises:
        ValueError: the file cannot be used.
    """

    def __init__(self, hosts: Hosts, *, ca_file: Path | None = None) -> None:
        self._hosts = hosts
        self._context = tls_context(ca_file)
        self._context.set_alpn_protocols(["http/1.1"])
        self._sessions: dict[_Kind, aiohttp.ClientSession] = {}
        self._proxies: dict[str, _Via] = {}
        # Weakly, since one that TLS takes over, behind a proxy, is not told of the end.
        self._open: WeakSet[_BoundedHandler] = WeakSet()

    async def post(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        checked: bool = True,
        seconds: float = ATTEMPT_SECONDS,
    ) -> Answer:
        """POST once: without redirects, decompression, cookies, or a second try.

        Args:
            url: where to.
            headers: of the request.
            body: of the request.
            checked: a client gave the address; else it is of the settings, and trusted.
            seconds: how long all of it may take.

        Raises:
            Refused: nothing was sent, as the address may not be used.
            Unreachable: there was no answer; the request may have arrived.
        """
        kept = True
        try:
            if checked:
                # A host that nobody listed gets no connection that is kept.
                kept = self._hosts.endpoint(url).known
            target = URL(url, encoded=True)
        except (NotAllowed, ValueError) as error:
            raise Refused(_short(str(error))) from None
        try:
            via = self._via(target)
        except ValueError as error:
            raise Unreachable(_short(str(error))) from None
        try:
            async with asyncio.timeout(seconds):
                checked = checked and via is None and not self._hosts.allow_private
                session = self._session(_Kind(checked, kept))
                return await self._post(session, target, headers, body, via)
        except TimeoutError:
            raise Unreachable(f"no answer within {seconds:g} s") from None
        except _NotPublic as error:
            raise Refused(str(error)) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unreachable(_reason(error)) from None

    async def aclose(self) -> None:
        """Close all connections."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()
        for each in list(self._open):
            each.end()
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    async def _post(
        self,
        session: aiohttp.ClientSession,
        target: URL,
        headers: Mapping[str, str],
        body: bytes,
        via: _Via,
    ) -> Answer:
        settings: dict[str, Any] = {}
        if via is not None:
            settings = {"proxy": via[0], "proxy_headers": via[1]}
        response = await session.post(
            target, headers=headers, data=body, allow_redirects=False, **settings
        )
        kept = b""
        try:
            # Read to its end, so that the connection can be used again.
            async with asyncio.timeout(BODY_SECONDS):
                async for part in response.content.iter_any():
                    if len(kept) < MAX_KEPT:
                        kept += part[: MAX_KEPT - len(kept)]
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
            pass  # the status is what was asked for
        finally:
            response.close()  # which leaves a connection alone that was read to its end
        told = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status, MappingProxyType(told), kept)

    def _via(self, target: URL) -> _Via:
        """The proxy for an address, and what lets this server use it."""
        host = f"{target.scheme}://{target.host}:{target.port}"
        try:
            return self._proxies[host]
        except KeyError:
            proxy = proxy_of(host)
            if len(self._proxies) >= _MAX_PROXIES:
                self._proxies.clear()
            via = (
                None if proxy is None else (URL(proxy._replace(auth=None).url), proxy_login(proxy))
            )
            return self._proxies.setdefault(host, via)

    def _session(self, kind: "_Kind") -> aiohttp.ClientSession:
        """What has the connections of a kind: none is ever used for another."""
        found = self._sessions.get(kind)
        if found is None:
            keeping: dict[str, Any] = {"force_close": True}
            if kind.kept:
                keeping = {"keepalive_timeout": IDLE_SECONDS}
            connector = aiohttp.TCPConnector(
                ssl=self._context, limit=CONNECTIONS, ttl_dns_cache=LOOKED_UP_SECONDS,
                resolver=_Resolver(only_public=kind.checked), **keeping,
            )  # fmt: skip
            # The one place where aiohttp lets all that comes on a connection be counted.
            loop = asyncio.get_running_loop()
            vars(connector)["_factory"] = functools.partial(_BoundedHandler, self._open, loop)
            found = self._sessions[kind] = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False,
                timeout=aiohttp.ClientTimeout(), trust_env=False, max_headers=MAX_FIELDS,
                headers={"User-Agent": f"pushsvc/{__version__}"},
                skip_auto_headers=("Accept", "Accept-Encoding"),
            )  # fmt: skip
        return found


class _Kind(NamedTuple):
    """What connections are kept apart by."""

    checked: bool
    """Only to addresses that are public."""
    kept: bool
    """For more than one request."""


class _NotPublic(Exception):
    """A host stands for an address that is not public."""


class _Resolver(AbstractResolver):
    """Looks names up, each in a thread of its own that no end of the process waits for.

    A name server that does not answer would else hold the threads that look up other names, such as
    that of Redis.
    """

    def __init__(self, *, only_public: bool) -> None:
        self._only_public = only_public
        self._room = threading.BoundedSemaphore(LOOKUPS)

    async def resolve(
        self, host: str, port: int = 0, family: AddressFamily = AF_INET
    ) -> list[ResolveResult]:
        """See ``AbstractResolver``.

        Raises:
            _NotPublic: one of its addresses is not public, and all should be.
        """
        if not self._room.acquire(blocking=False):
            raise OSError("too many names are being looked up")
        found: Future[list[Any]] = Future()
        found.set_running_or_notify_cancel()

        def run() -> None:
            try:
                result = getaddrinfo(host, port, family, SOCK_STREAM)
            except Exception as error:  # noqa: BLE001 - for the one who waits
                found.set_exception(error)
            else:
                found.set_result(result)
            finally:
                self._room.release()

        threading.Thread(target=run, name="push-lookup", daemon=True).start()
        addresses = {
            str(address[0]): family for family, *_, address in await asyncio.wrap_future(found)
        }
        if self._only_public and not all(map(is_public, addresses)):
            raise _NotPublic(f"{host} has an address that is not public")
        return [
            ResolveResult(
                hostname=host, host=address, port=port, family=family, proto=0,
                flags=AI_NUMERICHOST,
            )
            for address, family in addresses.items()
        ]  # fmt: skip

    async def close(self) -> None:
        """See ``AbstractResolver``."""


class _BoundedHandler(ResponseHandler):
    """Reads answers: no more of each than ``MAX_READ``, interim answers and trailers included.

    Args:
        opened: of all these, those that are open.
        loop: the event loop.
    """

    def __init__(self, opened: "WeakSet[_BoundedHandler]", loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._opened = opened
        self._room = MAX_READ
        self._below: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.Protocol``."""
        self._below = transport
        self._opened.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """See ``asyncio.Protocol``."""
        self._opened.discard(self)
        super().connection_lost(exc)

    def end(self) -> None:
        """Close the connection without a word."""
        if isinstance(self._below, asyncio.WriteTransport):
            self._below.abort()

    def set_response_params(self, **settings: Any) -> None:
        """See ``ResponseHandler``: called before each request."""
        self._room = MAX_READ
        super().set_response_params(**settings)

    def data_received(self, data: bytes) -> None:
        """See ``ResponseHandler``."""
        room, self._room = self._room, self._room - len(data)
        if self._room >= 0 or not data:
            super().data_received(data)
            if self.exception() is not None:
                self.end()  # rather than in peace, with who speaks no HTTP
        elif room >= 0:
            super().data_received(data[:room])
            self.set_exception(aiohttp.ClientPayloadError(f"more than {MAX_READ} bytes"))
            self.end()


def _reason(error: BaseException) -> str:
    """Why there is no answer: in a few words that fit into a log line and a receipt."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "no good certificate: " + _short(
            getattr(error.certificate_error, "verify_message", "") or str(error.certificate_error)
        )
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy answered with status {error.status}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the name of its host cannot be looked up"
    if isinstance(error, aiohttp.ClientConnectorError):
        inner = error.os_error
        if isinstance(inner, ssl.SSLError):
            return _short(f"no good TLS server: {inner.reason}")
        return _short(f"no connection: {inner.strerror or inner}")
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the connection was closed without an answer"
    if isinstance(error, aiohttp.ClientResponseError):
        return "the answer is no HTTP"
    return _short(str(error) or type(error).__name__)


def _short(text: str) -> str:
    return printable(text[:120])
