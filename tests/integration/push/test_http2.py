"""HTTP/2 with servers that do not keep to it, and the ways to one that does."""

import asyncio
import itertools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, suppress
from pathlib import Path
from socket import AF_INET, AF_INET6, socket
from typing import cast

import pytest

from pushsvc.push import http2, http2_connection
from pushsvc.push.http2 import Http2, _in_turn
from pushsvc.push.outbound import Unreachable
from tests.support.certificates import Authority

SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
ACK = b"\0\0\0\x04\x01\0\0\0\0"
GOODBYE = b"\0\0\x08\x07\0\0\0\0\0" + bytes(8)
PING = b"\0\0\x08\x06\0\0\0\0\0" + b"whatever"

Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Serve = Callable[..., AbstractAsyncContextManager[Http2]]


@pytest.fixture
async def serve(tmp_path: Path) -> Serve:
    """A client of a server that speaks as it is told."""
    authority = Authority(tmp_path)
    files = authority.issue(tmp_path)

    @asynccontextmanager
    async def serving(
        speak: Speak, alpn: str = "h2", host: str = "127.0.0.1"
    ) -> AsyncIterator[Http2]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
        context.set_alpn_protocols([alpn])
        connections: list[asyncio.StreamWriter] = []
        speaking: list[asyncio.Task[None]] = []

        async def spoken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.append(writer)
            speaking.append(cast("asyncio.Task[None]", asyncio.current_task()))
            with suppress(OSError, asyncio.IncompleteReadError):
                await speak(reader, writer)

        server = await asyncio.start_server(spoken, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        client = Http2(f"https://{host}:{port}", authority.context())
        try:
            yield client
        finally:
            await client.aclose()
            server.close()
            for each in connections:
                each.transport.abort()
                with suppress(OSError):
                    await each.wait_closed()
            await asyncio.gather(*speaking)

    return serving


async def refusal(client: Http2) -> str:
    with pytest.raises(Unreachable) as refused:
        await client.post("/", [], b"{}")
    assert len(str(refused.value)) < 200
    assert str(refused.value).isprintable()
    return str(refused.value)


async def read_all(reader: asyncio.StreamReader) -> None:
    while await reader.read(65536):
        pass


async def test_a_server_of_http_1_is_none(serve: Serve) -> None:
    async def speak(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await read_all(reader)

    async with serve(speak, alpn="http/1.1") as client:
        assert "does not speak HTTP/2" in await refusal(client)


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        SETTINGS + b"\0\0\0\x04\0\0\0\0\x01",  # settings of a stream
        SETTINGS + b"\xff\xff\xff\0\0\0\0\0\x01",
        SETTINGS + b"\0\0\x01\x01\x04\0\0\0\x02\x80",  # an answer that nobody asked for
        SETTINGS + b"\0\0\x04\x01\x04\0\0\0\x01\x3f\xff\xff\xff",  # headers that are none
        SETTINGS + b"\0\0\x07\x01\x04\0\0\0\x01\x08\x03abc\x00\x00",  # a status that is none
        SETTINGS + b"\0\0\x04\x08\0\0\0\0\0\0\0\0\0",  # a window that grows by nothing
    ],
)
async def test_a_server_that_breaks_the_protocol_is_left(serve: Serve, said: bytes) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SETTINGS)
        await reader.readuntil(b"{}")
        writer.write(said.removeprefix(SETTINGS))
        await read_all(reader)

    async with serve(speak) as client:
        assert "HTTP/2" in await refusal(client)


async def test_a_server_that_says_nothing_is_waited_for_a_while(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def speak(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await read_all(reader)

    monkeypatch.setattr(http2, "CONNECT_SECONDS", 0.2)
    async with serve(speak) as client:
        waits = [refusal(client) for _ in range(5)]
        assert set(await asyncio.gather(*waits)) == {"no connection to 127.0.0.1 in 0.2 s"}
        async with asyncio.timeout(30):
            while client._open_ones:
                await asyncio.sleep(0.005)


async def test_a_server_that_leaves_at_once_is_tried_a_few_times(serve: Serve) -> None:
    connected = itertools.count(1)

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        next(connected)
        writer.write(SETTINGS + GOODBYE)
        await read_all(reader)

    async with serve(speak) as client:
        assert await refusal(client) == "the server takes no request"
    assert next(connected) == http2.TRIES + 1


async def test_a_server_that_asks_and_never_reads_fills_no_memory(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SETTINGS)
        await reader.readuntil(b"{}")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        while True:
            writer.write(PING * 1000)
            await writer.drain()

    monkeypatch.setattr(http2_connection, "MAX_UNREAD", 1 << 16)
    async with serve(speak) as client:
        assert await refusal(client) == "the server does not read"


async def test_an_answer_without_an_end_is_given_up_with_its_connection(serve: Serve) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SETTINGS)
        await reader.readuntil(b"{}")
        writer.write(b"\0\0\x01\x01\x04\0\0\0\x01\x88")  # 200, and no end
        await writer.drain()
        writer.close()

    async with serve(speak) as client:
        assert "the connection was lost" in await refusal(client)


async def test_a_host_is_reached_at_whichever_address_answers(serve: Serve) -> None:
    """``localhost`` has two addresses on most machines, and the server listens at one."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SETTINGS + ACK)
        await reader.readuntil(b"{}")
        writer.write(b"\0\0\x01\x01\x05\0\0\0\x01\x88")
        await read_all(reader)

    async with serve(speak, host="localhost") as client:
        answer = await client.post("/", [], b"{}")
        assert (answer.status, answer.body) == (200, b"")


async def test_an_address_that_drops_what_is_sent_leaves_time_for_the_next(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SETTINGS + ACK)
        await reader.readuntil(b"{}")
        writer.write(b"\0\0\x01\x01\x05\0\0\0\x01\x88")
        await read_all(reader)

    async with serve(speak) as client:
        # A listener whose queue is full takes no connection and refuses none, as a firewall.
        with ExitStack() as sockets:
            deaf = sockets.enter_context(socket())
            deaf.bind(("127.0.0.2", client._port))
            deaf.listen(0)
            for _ in range(4):
                waiting = sockets.enter_context(socket())
                waiting.setblocking(False)
                waiting.connect_ex(("127.0.0.2", client._port))

            async def both(_: str, port: int) -> list[tuple[object, ...]]:
                return [
                    (AF_INET, 1, 6, "", ("127.0.0.2", port)),
                    (AF_INET, 1, 6, "", ("127.0.0.1", port)),
                ]

            monkeypatch.setattr(http2, "ADDRESS_SECONDS", 0.3)
            monkeypatch.setattr(client, "_looked_up", both)
            assert (await client.post("/", [], b"{}")).status == 200


async def test_a_name_that_nobody_knows_is_tried_later(tmp_path: Path) -> None:
    client = Http2("https://apns.invalid", Authority(tmp_path).context())
    assert "apns.invalid is not found" in await refusal(client)
    await client.aclose()


async def test_a_proxy_of_another_kind_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1080")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    client = Http2("https://apns.invalid", Authority(tmp_path).context())
    assert "HTTPS_PROXY" in await refusal(client)
    await client.aclose()


def test_addresses_of_both_families_have_their_turn() -> None:
    found = [
        (AF_INET6, 1, 6, "", ("::1", 443, 0, 0)),
        (AF_INET6, 1, 6, "", ("::2", 443, 0, 0)),
        (AF_INET6, 1, 6, "", ("::1", 443, 0, 0)),
        (AF_INET, 1, 6, "", ("127.0.0.1", 443)),
    ]
    assert _in_turn(found) == ["::1", "127.0.0.1", "::2"]
    assert _in_turn([]) == []
