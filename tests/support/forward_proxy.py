"""A proxy that programs are told of by ``HTTP_PROXY`` and ``HTTPS_PROXY``."""

import asyncio
import base64
import contextlib
from urllib.parse import urlsplit

from tests.support.services import TCPService

LOGIN = "proxy-authorization"


class ForwardProxy(TCPService):
    """Carries requests on: CONNECT, and GET of a whole address.

    Args:
        login: ``user:password`` that it asks for.
        answer: what it answers in place of carrying anything on.
    """

    def __init__(self, login: str | None = None, answer: bytes | None = None) -> None:
        super().__init__()
        self._login = login
        self._answer = answer
        self.requests: list[str] = []
        """The request lines."""

    def url(self, login: str = "") -> str:
        return f"http://{login}{'@' if login else ''}127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, *headers = head.removesuffix("\r\n\r\n").split("\r\n")
        self.requests.append(line)
        method, target, _ = line.split(" ")
        if self._answer is not None:
            writer.write(self._answer)
            await writer.drain()
            return
        if self._login is not None:
            wanted = "Basic " + base64.b64encode(self._login.encode()).decode()
            pairs = [header.split(": ", 1) for header in headers]
            if wanted not in [value for name, value in pairs if name.lower() == LOGIN]:
                writer.write(b"HTTP/1.1 407 Authenticate\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
                return
        connect = method == "CONNECT"
        parts = urlsplit(f"//{target}" if connect else target)
        upstream, to = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            if connect:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                kept = [header for header in headers if not header.lower().startswith(LOGIN)]
                to.write("\r\n".join([f"{method} {parts.path} HTTP/1.1", *kept, "", ""]).encode())
            await asyncio.gather(_pump(reader, to), _pump(upstream, writer))
        finally:
            to.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
