"""A proxy as companies have them: it knows nothing of upgrades, or keeps answers to itself."""

import asyncio
import contextlib
import re
from typing import Literal

from tests.support.services import TCPService

CHUNK = 64 * 1024
REFUSAL = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Gateway(TCPService):
    """Stands between browsers and a node.

    Args:
        port: of the node, on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port_behind = port
        """Where new connections go."""
        self.upgrades: Literal["pass", "refuse", "strip", "hang"] = "pass"
        """What becomes of WebSocket handshakes: ``strip`` takes the ``Upgrade`` header away,
        ``hang`` never answers."""
        self.buffers = False
        """Whether an answer is passed on only once it is complete."""
        self.loses = ""
        """What is refused the first time that a request's first line has it."""
        self.sockets = 0
        """How many WebSockets were asked for."""
        self.refused = 0
        self.asked_for_it = 0
        """How often that was asked for."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            try:
                await self._pass(reader, writer)
            finally:
                writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if self.loses and self.loses.encode() in head.partition(b"\r\n")[0]:
            self.asked_for_it += 1
            if self.asked_for_it == 1:
                writer.write(REFUSAL)  # Firefox asks by itself again where nothing is answered
                return
        upgrade = re.search(rb"(?im)^upgrade: *websocket", head) is not None
        self.sockets += upgrade
        if upgrade and self.upgrades != "pass":
            self.refused += 1
            if self.upgrades == "refuse":
                writer.write(REFUSAL)
                return
            if self.upgrades == "hang":
                await reader.read()
                return
        if not upgrade or self.upgrades == "strip":
            # One request a connection keeps this proxy from having to find where answers end.
            head = re.sub(rb"(?im)^(connection|upgrade):[^\r]*\r\n", b"", head)
            head = head[:-2] + b"Connection: close\r\n\r\n"
        behind, before = await asyncio.open_connection("127.0.0.1", self.port_behind)
        try:
            before.write(head)
            there = asyncio.create_task(_carry(reader, before))
            back = asyncio.create_task(_carry(behind, writer, whole=self.buffers and not upgrade))
            # Whoever hangs up ends both ways, as the node has to notice a page that went.
            _, others = await asyncio.wait((there, back), return_when=asyncio.FIRST_COMPLETED)
            for other in others:
                other.cancel()
            await asyncio.gather(there, back, return_exceptions=True)
        finally:
            before.close()


async def _carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, whole: bool = False
) -> None:
    if whole:
        writer.write(await reader.read())
        await writer.drain()
        return
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
