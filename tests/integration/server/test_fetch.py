"""Documents of issuers: from real servers, through real proxies, and not at any price."""

import asyncio
import contextlib
import gzip
import os
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import tornado.web
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

from pushsvc.auth.keys import MAX_JWKS
from pushsvc.egress import MAX_AUTHORITIES
from pushsvc.server.fetch import (
    MAX_ANSWER,
    MAX_REDIRECTS,
    Fetcher,
    FetchError,
)
from tests.support.certificates import Authority
from tests.support.forward_proxy import ForwardProxy


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


class Site:
    """A server of documents, and what it was asked for."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.document = b'{"keys":[]}'
        self.to = ""


@contextlib.asynccontextmanager
async def serving(context: ssl.SSLContext | None = None) -> AsyncIterator[Site]:
    listener, port = bind_unused_port()
    site = Site(f"{'https' if context else 'http'}://127.0.0.1:{port}")

    class Document(tornado.web.RequestHandler):
        def prepare(self) -> None:
            site.asked.append(self.request.uri or "")
            site.headers.append(dict(self.request.headers))

        def get(self, what: str) -> None:
            match what.split("/"):
                case ["jwks"]:
                    self.write(site.document)
                case ["times", count] if int(count):
                    self.redirect(f"{int(count) - 1}", status=307)
                case ["times", _]:
                    self.redirect("/jwks", permanent=True)
                case ["away"]:
                    self.redirect(site.to)
                case ["nowhere"]:
                    self.set_status(302)
                case ["gzip"]:
                    self.set_header("Content-Encoding", "gzip")
                    self.write(gzip.compress(bytes(100 * MAX_JWKS)))
                case ["status", code]:
                    self.set_status(int(code))

    server = HTTPServer(
        tornado.web.Application([(r"/(.*)", Document)], log_function=lambda _: None),
        ssl_options=context,
    )
    server.add_socket(listener)
    try:
        yield site
    finally:
        server.stop()
        await server.close_all_connections()


@contextlib.asynccontextmanager
async def tls_serving(authority: Authority, directory: Path) -> AsyncIterator[Site]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue(directory))
    async with serving(context) as site:
        yield site


async def because(fetch: Awaitable[bytes]) -> str:
    """Why a document cannot be had."""
    with pytest.raises(FetchError) as caught:
        await fetch
    return str(caught.value)


async def test_a_document_is_brought_as_it_is() -> None:
    async with serving() as site:
        site.document = os.urandom(100_000)
        assert await Fetcher().get(f"{site.url}/jwks?a=b%20c#d") == site.document
    assert site.asked == ["/jwks?a=b%20c"]
    assert site.headers[0]["Host"] == site.url.removeprefix("http://")
    assert site.headers[0]["User-Agent"].startswith("pushsvc/")


async def test_what_is_no_document_is_told() -> None:
    async with serving() as site:
        for code in (204, 304, 400, 404, 500, 503):
            assert f"status {code}" in await because(Fetcher().get(f"{site.url}/status/{code}"))
    assert "no answer from" in await because(Fetcher().get(site.url))
    assert "no answer from" in await because(Fetcher().get("http://no.such.host.invalid/"))
    for url in ("", "file:///etc/passwd", "http://", "http://[", "http://a:b@c/", "http://a b/"):
        assert "is not http or https" in await because(Fetcher().get(url))


# Redirects


async def test_a_redirect_within_the_origin_is_followed() -> None:
    async with serving() as site:
        assert await Fetcher().get(f"{site.url}/times/{MAX_REDIRECTS - 1}") == site.document
        assert len(site.asked) == 1 + MAX_REDIRECTS
        told = await because(Fetcher().get(f"{site.url}/times/{MAX_REDIRECTS}"))
        assert "more than 5 times" in told
        assert len(site.asked) == 2 * (1 + MAX_REDIRECTS)
        assert "not said where to" in await because(Fetcher().get(f"{site.url}/nowhere"))


async def test_a_redirect_to_another_origin_is_named_and_not_followed(
    authority: Authority, tmp_path: Path
) -> None:
    async with serving() as other, tls_serving(authority, tmp_path) as site:
        fetcher = Fetcher(authority.file)
        port = site.url.rpartition(":")[2]
        for to, named in {
            f"{other.url}/jwks": other.url,
            f"http://127.0.0.1:{port}/jwks": f"http://127.0.0.1:{port}",
            f"//localhost:{port}/jwks": f"https://localhost:{port}",
        }.items():
            site.to = to
            told = await because(fetcher.get(f"{site.url}/away"))
            assert f"another origin, {named}/, " in told
        for to in ("ftp://127.0.0.1/", "http://u:p@127.0.0.1/", "file:///etc/passwd", "http://["):
            site.to = to
            assert "what is no http address" in await because(fetcher.get(f"{site.url}/away"))
        other.to = f"{site.url}/jwks"
        assert "another origin" in await because(fetcher.get(f"{other.url}/away"))
    assert not [what for what in (*other.asked, *site.asked) if what != "/away"]


# What is too much


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[Any]]


@contextlib.asynccontextmanager
async def talking(talk: Talk, first: bytes = b"") -> AsyncIterator[str]:
    """A server that says what it likes to each request."""
    ended: list[asyncio.Event] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.append(end := asyncio.Event())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            writer.write(first)
            if not first:
                await reader.readuntil(b"\r\n\r\n")
            await talk(reader, writer)
        writer.close()
        ended.remove(end)
        end.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        async with asyncio.timeout(10):  # whoever asked has hung up
            while ended:
                await ended[-1].wait()


def endless(first: bytes, more: bytes, pause: float = 0.0) -> Talk:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while not writer.is_closing():
            writer.write(more)
            await writer.drain()
            await asyncio.sleep(pause)

    return talk


async def silence(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
TOO_LARGE = f"answered with more than {MAX_JWKS} bytes"
TOO_LONG = f"an answer of more than {MAX_ANSWER} bytes"


@pytest.mark.parametrize(
    ("talk", "why"),
    [
        (endless(OK, b"X: " + b"y" * 4000 + b"\r\n"), "more than 100 headers"),
        (endless(OK, b"y" * 4000), "more than 65536 bytes when reading header line"),
        (endless(b"HTTP/1.1 100 C\r\n\r\n", b"HTTP/1.1 100 C\r\n\r\n"), TOO_LONG),
        (endless(OK + b"\r\n", b"x" * 65536), TOO_LARGE),
        (endless(CHUNKED, b"1000\r\n%4096d\r\n" % 0), TOO_LARGE),
        (endless(CHUNKED, b"1\r\nx\r\n" * 999), TOO_LONG),
        (endless(CHUNKED, b"1;" * 999), "when reading chunk size"),
        (endless(CHUNKED + b"0\r\n", b"X: y\r\n" * 999), TOO_LONG),
        (endless(OK + b"Content-Length: 99999999999\r\n\r\n", b"x"), TOO_LARGE),
        (endless(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"x"), "SSH-2.0-OpenSSH_9.2"),
    ],
    ids=[
        "headers",
        "one header",
        "continue",
        "body",
        "chunks",
        "small chunks",
        "one chunk",
        "trailers",
        "length",
        "no HTTP",
    ],
)
async def test_an_answer_without_end_is_cut_off(talk: Talk, why: str) -> None:
    async with asyncio.timeout(20), talking(talk) as url:
        assert why in await because(Fetcher().get(url))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "closed connection without response"),
        (OK, "answered with nothing"),
        (OK + b"Content-Length: 9\r\n\r\nx", "1 bytes read, 8 more expected"),
        (CHUNKED + b"9\r\nx", "IncompleteRead"),
        (CHUNKED + b"1\r\nx\r\n", "IncompleteRead(1 bytes read"),
        (b"\x15\x03\x01", r"\x15\x03\x01"),
    ],
)
async def test_an_answer_that_breaks_off_is_an_error(body: bytes, why: str) -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(body)

    async with talking(talk) as url:
        assert why in await because(Fetcher().get(url))


@pytest.mark.parametrize(
    "talk",
    [
        silence,
        endless(OK, b"X: y\r\n", 0.01),
        endless(OK + b"Content-Length: 99999\r\n\r\n", b"x", 0.01),
    ],
    ids=["silence", "headers", "body"],
)
async def test_a_slow_answer_ends_when_its_time_is_over(talk: Talk) -> None:
    async with talking(talk) as url:
        began = time.monotonic()
        assert "timed out" in await because(Fetcher(timeout=0.3).get(url))
        assert 0.3 <= time.monotonic() - began < 5


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_slow_proxy_ends_when_the_time_is_over(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with talking(endless(OK, b"X: y\r\n", 0.01)) as proxy:
        monkeypatch.setenv(f"{scheme}_proxy", proxy)
        told = await because(Fetcher(timeout=0.3).get(f"{scheme}://issuer.example/jwks"))
        assert "timed out" in told


async def test_a_slow_handshake_ends_when_the_time_is_over() -> None:
    async with talking(silence, first=b"\x16\x03\x03") as url:
        told = await because(Fetcher(timeout=0.3).get(url.replace("http", "https")))
        assert "timed out" in told


async def test_a_process_ends_while_a_document_is_fetched() -> None:
    program = """if True:
        import asyncio, sys
        from pushsvc.server.fetch import Fetcher

        async def main():
            fetch = asyncio.create_task(Fetcher().get(sys.argv[1]))
            await asyncio.to_thread(sys.stdin.readline)

        asyncio.run(main())
        """
    asked = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()

    async with talking(talk) as url:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, url, stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        await asked.wait()
        began = time.monotonic()
        _, told = await process.communicate(b"end\n")
        assert time.monotonic() - began < 5
        assert (process.returncode, told) == (0, b"")


async def test_an_answer_that_is_compressed_unasked_is_not_unpacked() -> None:
    async with serving() as site:
        assert "compressed" in await because(Fetcher().get(f"{site.url}/gzip"))
        assert site.headers[0]["Accept-Encoding"] == "identity"
        assert await Fetcher().get(f"{site.url}/jwks") == site.document


# TLS


async def test_a_private_authority_is_trusted_in_place_of_the_systems(
    authority: Authority, tmp_path: Path
) -> None:
    async with tls_serving(authority, tmp_path) as site:
        assert await Fetcher(authority.file).get(f"{site.url}/jwks") == site.document
        told = await because(Fetcher().get(f"{site.url}/jwks"))
        assert "is no good TLS server" in told
        assert "issuer certificate" in told or "self-signed" in told
        (other := tmp_path / "other").mkdir()
        assert "TLS" in await because(Fetcher(Authority(other).file).get(f"{site.url}/jwks"))
        # another name of this machine, which the certificate does not have
        elsewhere = site.url.replace("127.0.0.1", "0.0.0.0")
        assert "TLS" in await because(Fetcher(authority.file).get(f"{elsewhere}/jwks"))
        plain = site.url.replace("https", "http")
        assert await because(Fetcher(authority.file).get(plain))
    async with talking(silence, first=b"HTTP/1.1 400 Bad Request\r\n\r\n") as url:
        assert "TLS" in await because(Fetcher(authority.file).get(url.replace("http", "https")))


async def test_the_file_of_authorities_is_read_again_when_it_changes(
    authority: Authority, tmp_path: Path
) -> None:
    file = tmp_path / "ca.pem"
    (other := tmp_path / "other").mkdir()
    file.write_bytes(Authority(other).file.read_bytes())
    fetcher = Fetcher(file)
    async with tls_serving(authority, tmp_path) as site:
        assert "TLS" in await because(fetcher.get(f"{site.url}/jwks"))
        file.write_bytes(b"# ours, \xc3\xa4 too\n" + authority.file.read_bytes())
        assert await fetcher.get(f"{site.url}/jwks") == site.document
        file.write_bytes(b"nothing")
        assert "is no PEM file" in await because(fetcher.get(f"{site.url}/jwks"))
        file.unlink()
        assert "cannot be read" in await because(fetcher.get(f"{site.url}/jwks"))


@pytest.mark.parametrize("content", [b"", b"no certificate", b"\xff", b"#" * (MAX_AUTHORITIES + 1)])
def test_a_file_without_authorities_is_an_error(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    with pytest.raises(FetchError, match=r"ca\.pem' cannot be read"):
        Fetcher(file)
    file.write_bytes(content)
    with pytest.raises(FetchError, match=r"ca\.pem' is "):
        Fetcher(file)


# Proxies


@pytest.mark.parametrize("name", [str.lower, str.upper], ids=["small", "capitals"])
async def test_a_proxy_of_the_environment_is_used(
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: Callable[[str], str],
) -> None:
    with ForwardProxy("ann:p@ss w%rd") as proxy:
        async with tls_serving(authority, tmp_path) as secret, serving() as plain:
            fetcher = Fetcher(authority.file)
            monkeypatch.setenv(name("https_proxy"), proxy.url("ann:p%40ss%20w%25rd"))
            monkeypatch.setenv(name("http_proxy"), proxy.url("ann:p%40ss%20w%25rd").split("//")[1])
            assert await fetcher.get(f"{secret.url}/times/1") == secret.document
            assert await fetcher.get(f"{plain.url}/times/1") == plain.document
            tunnel = f"CONNECT {secret.url.removeprefix('https://')} HTTP/1."
            assert [each.startswith(tunnel) for each in proxy.requests[:3]] == [True] * 3
            assert proxy.requests[3:] == [
                *[f"GET {plain.url}{path} HTTP/1.1" for path in ("/times/1", "/times/0", "/jwks")],
            ]
            assert not any("Proxy-Authorization" in each for each in secret.headers)
            # and not for what is near
            near = ["127.0.0.1", "*", "x, 127.0.0.1 ", plain.url.removeprefix("http://")]
            for value in near:
                monkeypatch.setenv(name("no_proxy"), value)
                assert await fetcher.get(f"{plain.url}/jwks") == plain.document
            assert len(proxy.requests) == 6
            for value in ("10.0.0.1", "127.0.0.1:1", "localhost", ".example.com"):
                monkeypatch.setenv(name("no_proxy"), value)
                assert await fetcher.get(f"{plain.url}/jwks") == plain.document
            assert len(proxy.requests) == 10


async def test_a_proxy_that_refuses_is_told_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ForwardProxy("ann:hunter2") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url("ann:hunter3"))
        monkeypatch.setenv("HTTP_PROXY", proxy.url())
        told = await because(Fetcher().get("https://issuer.example/jwks"))
        assert f"no answer from issuer.example through the proxy 127.0.0.1:{proxy.port}: " in told
        assert "failed: 407 Authenticate: put user and password into its URL" in told
        assert "hunter" not in told
        assert "status 407" in await because(Fetcher().get("http://issuer.example/jwks"))
    told = await because(Fetcher().get("https://issuer.example/jwks"))
    assert f"no answer from issuer.example through the proxy 127.0.0.1:{proxy.port}: " in told


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "closed connection without response"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "SSH-2.0-OpenSSH_9.2"),
        (b"HTTP/1.1 403 no\r\n\r\n", "failed: 403 no"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 65536 * 2, "when reading header line"),
        (b"HTTP/1.1 200 OK\r\n\r\nwhat it says unasked", "issuer.example through the proxy"),
    ],
    ids=["nothing", "no HTTP", "refused", "headers", "more"],
)
async def test_what_is_no_proxy_is_told(
    answer: bytes, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy(answer=answer) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url())
        assert why in await because(Fetcher().get("https://issuer.example/jwks"))


@pytest.mark.parametrize(
    "url",
    ["socks5://127.0.0.1:1", "https://u:hunter2@127.0.0.1:1", "http://", "http://[", "http://h:0"],
)
async def test_another_kind_of_proxy_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", url)
    told = await because(Fetcher().get("https://issuer.example/jwks"))
    assert "HTTPS_PROXY is not http://" in told
    assert "hunter2" not in told


async def test_a_fetch_costs_the_node_little_time() -> None:
    """The event loop serves everybody meanwhile."""
    fetcher = Fetcher()
    async with serving() as site:
        site.document = b"x" * MAX_JWKS
        await fetcher.get(f"{site.url}/jwks")
        before = time.process_time()
        await fetcher.get(f"{site.url}/jwks")
        assert time.process_time() - before < 0.5
