"""HTTP/2 to one origin: a connection that is kept, and made again when it has ended."""

import asyncio
import socket
import ssl
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any, Final, cast
from urllib.parse import urlsplit

from urllib3.util import Url

from pushsvc.egress import proxy_login, proxy_of
from pushsvc.printable import printable
from pushsvc.push.http2_connection import Connection, Headers, NotTaken, reason_of
from pushsvc.push.outbound import Answer, Unreachable

CONNECT_SECONDS: Final = 5.0
"""Most seconds until a connection is there and its server said what it allows."""
ADDRESS_SECONDS: Final = 2.0
"""Of those, most for one address of a host, so that the next one has its turn."""
MAX_ADDRESSES: Final = 6
"""Addresses of a host that are tried, of both families in turn."""
TRIES: Final = 3
"""How often a request is sent that the server says it did not take (RFC 9113, 8.7)."""

_MAX_PROXY_HEAD: Final = 8192

_Found = Sequence[tuple[Any, ...]]


class Http2:
    """Requests to one origin, through the proxy that the environment names in ``HTTPS_PROXY``.

    Args:
        origin: ``https://host[:port]``; a path in it stands before that of each request.
        context: whom to trust; it is changed to ask for HTTP/2.

    Raises:
        ValueError: the origin is not one.
    """

    def __init__(self, origin: str, context: ssl.SSLContext) -> None:
        parts = urlsplit(origin)
        if parts.scheme != "https" or not parts.hostname or parts.username is not None:
            raise ValueError("it is not https://host[:port]")
        self._host = parts.hostname
        self._port = parts.port or 443
        self._authority = parts.netloc
        self._path = parts.path.rstrip("/")
        self._context = context
        context.set_alpn_protocols(["h2"])
        self._connection: Connection | None = None
        self._open_ones: set[Connection] = set()
        self._lookup: asyncio.Task[_Found] | None = None
        self._connecting: asyncio.Task[Connection] | None = None
        self._closed = False
        self.connected = 0
        """How many connections were made."""

    async def post(self, path: str, headers: Headers, body: bytes) -> Answer:
        """Send a request, and wait for its answer as long as the caller lets it.

        One that is given up is cancelled at the server too; whether it was carried out nobody
        knows then, as where a connection breaks.

        Args:
            path: begins with a slash.
            headers: names in lower case. Those that differ each time are best given as
                ``hpack.NeverIndexedHeaderTuple``.
            body: at most a few thousand bytes.

        Raises:
            Unreachable: there is no answer, or none that can be used.
        """
        for _ in range(TRIES):
            connection = await self._usable()
            try:
                return await connection.post(self._authority, self._path + path, headers, body)
            except NotTaken:
                continue
        raise Unreachable("the server takes no request")

    async def aclose(self) -> None:
        """Close all connections; what is under way ends without an answer."""
        self._closed = True
        tasks = [each for each in (self._connecting, self._lookup) if each is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await asyncio.gather(*[each.aclose() for each in self._open_ones])

    async def _usable(self) -> Connection:
        """The connection, made anew where it is over or silent."""
        connection = self._connection
        if connection is not None and await connection.alive():
            return connection
        if self._connecting is None:
            if self._closed:
                raise Unreachable("it is closed")
            self._connecting = asyncio.create_task(self._connect())
            self._connecting.add_done_callback(self._connect_ended)
        try:
            return await asyncio.shield(self._connecting)
        except asyncio.CancelledError:
            if self._closed:
                raise Unreachable("it is closed") from None
            raise

    def _connect_ended(self, task: asyncio.Task[Connection]) -> None:
        self._connecting = None
        _noticed(task)

    async def _connect(self) -> Connection:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                connection = await self._open()
                try:
                    await connection.ready
                except BaseException:
                    connection.fail("the server says nothing")
                    raise
        except TimeoutError:
            raise Unreachable(f"no connection to {self._host} in {CONNECT_SECONDS:g} s") from None
        self._connection = connection
        self.connected += 1
        return connection

    async def _open(self) -> Connection:
        """Connect to the first address that answers.

        ``loop.create_connection`` would wait a minute for one that does not, before the next.
        """
        try:
            proxy = proxy_of(f"https://{self._authority}")
        except ValueError as error:
            raise Unreachable(str(error)) from None
        host, port = self._host, self._port
        if proxy is not None:
            host, port = (proxy.host or "").strip("[]"), proxy.port or 80
        failure: Exception = OSError("it has no address")
        for address in _in_turn(await self._looked_up(host, port))[:MAX_ADDRESSES]:
            try:
                async with asyncio.timeout(ADDRESS_SECONDS):
                    return await self._open_at(address, port, proxy)
            except (OSError, TimeoutError) as error:
                failure = error
        through = f" through the proxy {host}:{port}" if proxy else ""
        raise Unreachable(f"no connection to {self._host}{through}: {reason_of(failure)}")

    async def _looked_up(self, host: str, port: int) -> _Found:
        """The addresses of a host; one that is being looked up is not looked up again."""
        if self._lookup is None or self._lookup.done():
            loop = asyncio.get_running_loop()
            looking = loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            self._lookup = asyncio.create_task(looking)
            self._lookup.add_done_callback(_noticed)
        try:
            return await asyncio.shield(self._lookup)
        except OSError as error:
            raise Unreachable(f"{host} is not found: {reason_of(error)}") from None

    async def _open_at(self, address: str, port: int, proxy: Url | None) -> Connection:
        """Connect to one address, and say hello.

        Raises:
            OSError: that cannot be done.
        """
        connection = Connection(self._open_ones.discard)
        self._open_ones.add(connection)
        try:
            await self._connected(connection, address, port, proxy)
        except BaseException:
            connection.fail("no connection")
            raise
        return connection

    async def _connected(
        self, connection: Connection, address: str, port: int, proxy: Url | None
    ) -> None:
        loop = asyncio.get_running_loop()
        if proxy is None:
            await loop.create_connection(
                lambda: connection, address, port, ssl=self._context, server_hostname=self._host
            )
            return
        transport, tunnel = await loop.create_connection(_Tunnel, address, port)
        try:
            host = f"[{self._host}]" if ":" in self._host else self._host
            await tunnel.ask(f"{host}:{self._port}", proxy_login(proxy))
            inner = await loop.start_tls(
                transport, connection, self._context, server_hostname=self._host
            )
        except BaseException:
            transport.abort()
            raise
        if inner is not None:  # else it was lost, which the connection was told
            connection.connection_made(inner)


class _Tunnel(asyncio.Protocol):
    """A connection to a proxy, up to its answer (RFC 9110, 9.3.6)."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.Protocol``."""
        self._transport = cast("asyncio.Transport", transport)

    async def ask(self, to: str, login: Mapping[str, str]) -> None:
        """Have the proxy connect.

        Raises:
            OSError: it does not.
        """
        head = f"CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in login.items())
        self._transport.write(f"{head}\r\n".encode())
        answer = await self._answer
        version, _, rest = answer.partition(b" ")
        if not version.startswith(b"HTTP/1.") or not rest.startswith(b"2"):
            line = answer.split(b"\r\n", 1)[0][:80].decode("latin-1")
            raise OSError(f"the proxy answers {printable(line)}")

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        self._received += data
        if self._answer.done():
            return
        if b"\r\n\r\n" in self._received:
            self._answer.set_result(self._received)
        elif len(self._received) > _MAX_PROXY_HEAD:
            self._answer.set_exception(OSError("the proxy answers too much"))

    def connection_lost(self, _: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        if not self._answer.done():
            self._answer.set_exception(OSError("the proxy closed the connection"))


def _noticed(task: asyncio.Task[Any]) -> None:
    """Those who wait are told of an error; it is none of the loop's if nobody is left."""
    if not task.cancelled():
        task.exception()


def _in_turn(found: _Found) -> list[str]:
    """Addresses of both families in turn, beginning with what the system puts first."""
    first = [each[4][0] for each in found if each[0] == found[0][0]]
    other = [each[4][0] for each in found if each[0] != found[0][0]]
    pairs = chain.from_iterable(zip_longest(first, other))
    return list(dict.fromkeys(each for each in pairs if each is not None))
