"""A reader of Server-Sent Events, as the HTML Standard (section 9.2) has browsers read them."""

import asyncio
import json
import socket
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import httpx

from tests.support.nodes import Node
from tests.support.phone import PATIENCE
from tests.support.topics import member


class Stream:
    """One event stream of one device.

    Args:
        node: where it connects.
        user: the user id.
        device: the device.
        topics: what it listens to besides.
        after: the last event id that it holds.
        auth: its token; empty for none.
        query: further parameters.
        headers: further headers.
        version: of HTTP.
        receive_buffer: bytes that the kernel takes while nothing is read.
    """

    def __init__(
        self, node: Node, user: str = "u1", device: str = "phone", *,
        topics: Sequence[str] = (), after: str = "", auth: str | None = None,
        query: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None,
        version: str = "HTTP/1.1", receive_buffer: int | None = None,
    ) -> None:  # fmt: skip
        arguments = [("device", device), *(("topic", name) for name in topics)]
        self._target = "/v1/stream?" + urlencode([*arguments, *(query or {}).items()])
        self._headers = {"Host": "127.0.0.1", "Accept": "text/event-stream"}
        auth = member(user) if auth is None else auth
        if auth:
            self._headers["Authorization"] = f"Bearer {auth}"
        if after:
            self._headers["Last-Event-ID"] = after
        self._headers |= headers or {}
        self._version = version
        self._node = node
        self._receive_buffer = receive_buffer
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self.head: httpx.Response
        self.welcome: dict[str, Any]
        self.last_id = ""
        """What a browser would send as Last-Event-ID."""
        self.retry: int | None = None
        self.comments = 0
        self._data: list[str] = []
        self._place = ""

    async def open(self) -> httpx.Response:
        """Make the request; the answer, with its body where it has a length."""
        peer = socket.socket()
        if self._receive_buffer is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        peer.setblocking(False)
        await asyncio.get_running_loop().sock_connect(peer, ("127.0.0.1", self._node.port))
        tls = self._node.tls
        name = None if tls is None else "127.0.0.1"
        self._reader, self._writer = await asyncio.open_connection(
            sock=peer, ssl=tls, server_hostname=name
        )
        lines = [f"{name}: {value}" for name, value in self._headers.items()]
        request = "\r\n".join([f"GET {self._target} {self._version}", *lines, "", ""])
        self._writer.write(request.encode("latin-1"))
        async with asyncio.timeout(PATIENCE):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *rest = head.strip().split("\r\n")
            pairs = [(line.partition(":")[0], line.partition(":")[2].strip()) for line in rest]
            headers = httpx.Headers(pairs)
            body = await self._reader.readexactly(int(headers.get("Content-Length", 0)))
        self.head = httpx.Response(int(first.split(" ")[1]), headers=pairs, content=body)
        return self.head

    async def __aenter__(self) -> Self:
        answer = await self.open()
        assert answer.status_code == 200, answer.text
        self.welcome = await self.message()
        assert self.welcome["type"] == "welcome"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.drop()

    def drop(self) -> None:
        """Go, as a browser does whose page is closed."""
        if self._node.tls is None:
            self._writer.close()
        else:  # closing it would wait for the node's goodbye
            self._writer.transport.abort()

    def pause(self) -> None:
        """Read nothing more from the socket."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is of a socket

    def resume(self) -> None:
        """Read again."""
        self._writer.transport.resume_reading()  # type: ignore[attr-defined]

    async def message(self) -> dict[str, Any]:
        """The data of the next event.

        Raises:
            EOFError: the stream has ended.
        """
        while True:
            async with asyncio.timeout(PATIENCE):
                line = (await self._reader.readline()).decode()
            if not line:
                raise EOFError
            line = line.rstrip("\n")
            if not line:
                self.last_id = self._place
                data, self._data = self._data, []
                if data:
                    found: dict[str, Any] = json.loads("\n".join(data))
                    return found
                continue
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not name:
                self.comments += 1
            elif name == "data":
                self._data.append(value)
            elif name == "id":
                self._place = value
            elif name == "retry":
                self.retry = int(value)
            else:
                raise AssertionError(line)

    async def notification(self) -> dict[str, Any]:
        """The next message, which is a notification."""
        message = await self.message()
        assert message["type"] == "notification", message
        return message

    async def notifications(self, count: int) -> list[dict[str, Any]]:
        return [await self.notification() for _ in range(count)]

    async def ended(self) -> list[dict[str, Any]]:
        """Read to the end; the messages until then."""
        found = []
        try:
            while True:
                found.append(await self.message())
        except EOFError:
            return found

    async def quiet(self, seconds: float = 0.3) -> None:
        """Check that no event comes for a while."""
        try:
            async with asyncio.timeout(seconds):
                message = await self.message()
        except TimeoutError:
            return
        raise AssertionError(message)

    async def settled(self, topics: Sequence[str]) -> None:
        """Wait until the position covers these topics."""
        while not all(f"t:{name}=" in self.last_id for name in topics):
            async with asyncio.timeout(PATIENCE):
                line = (await self._reader.readline()).decode().rstrip("\n")
            name, _, value = line.partition(": ")
            assert name in ("", "id"), line
            self.last_id = self._place = value or self.last_id
