"""A server that does what a scenario says, on a real socket.

Every request waits, unanswered, until a step of the scenario decides about it.
"""

import asyncio
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State
from websockets.utils import accept_key

from conformance.http import MAX_HEAD, Request, answer, problem, read_request, start
from conformance.inbox import Inbox
from conformance.mailbox import Mailbox

SPOKEN: Final = "pushsvc.v1.json"
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER on, zero seconds: closing sends RST instead of FIN."""


class Arrival:
    """A request that was not answered yet.

    Attributes:
        request: what was asked.
        at: seconds of the monotonic clock when it came.
    """

    def __init__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self.request = request
        self.at = time.monotonic()
        self.writer = writer
        self.settled: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"{self.request.kind} {self.request.parameters()}"

    def answer(self, data: bytes) -> None:
        """Answer for good."""
        self.writer.write(data)
        self.settle(None)

    def settle(self, connection: "Connection | None") -> None:
        """Say what became of the request, so that its TCP connection goes on."""
        if not self.settled.done():
            self.settled.set_result(connection)

    def reset(self) -> None:
        """End the TCP connection with RST."""
        reset(self.writer)
        self.settle(None)

    def accept(self) -> "Connection":
        """Accept what asks for a connection: a WebSocket, or a stream."""
        connection: Connection
        if self.request.kind == "websocket":
            connection = Socket(self.writer)
            key = self.request.headers["sec-websocket-key"]
            head = {
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Accept": accept_key(key),
                "Sec-WebSocket-Protocol": SPOKEN,
            }
            self.writer.write(start(101, head))
        else:
            connection = Stream(self.writer)
            head = {
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-store",
                "Access-Control-Allow-Origin": "*",
                "Connection": "close",
            }
            self.writer.write(start(200, head))
        self.settle(connection)
        return connection


class Connection:
    """A connection that was accepted; this one carries messages one way only.

    Attributes:
        heard: messages of the client, with ``{"type": "(closed)"}`` when it closed.
        answered: what is sent at once in answer to a message, which is then not in ``heard``.
    """

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.heard: Inbox[dict[str, Any]] = Inbox()
        self.answered: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda _message: None
        self.writer = writer

    def send(self, message: dict[str, Any], position: str | None = None) -> None:
        """Send one message."""
        raise NotImplementedError

    def send_text(self, text: str) -> None:
        """Send what need not be a message."""
        raise NotImplementedError

    def close(self, code: int) -> None:
        """Say goodbye with a close code; 0 is for none."""
        raise NotImplementedError

    def reset(self) -> None:
        """End the TCP connection with RST: what is under way is lost, and nobody says goodbye."""
        reset(self.writer)

    def end(self) -> None:
        """End the TCP connection properly, without a close frame."""
        self.writer.close()

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Read until the client is gone."""
        with suppress(OSError):
            while await reader.read(65536):
                pass
        self.heard.put({"type": "(closed)"})


class Stream(Connection):
    """Server-Sent Events."""

    def send(self, message: dict[str, Any], position: str | None = None) -> None:
        """Send one message, with the client's position after it."""
        line = "" if position is None else f"id: {position}\n"
        self.writer.write(f"{line}data: {json.dumps(message)}\n\n".encode())

    def send_text(self, text: str) -> None:
        """Send lines as they are."""
        self.writer.write(text.encode())

    def close(self, code: int) -> None:
        """A stream's last message tells the code."""
        if code:
            self.send({"type": "closed", "code": code, "reason": "the scenario says so"})
        self.end()


class Socket(Connection):
    """A WebSocket."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        super().__init__(writer)
        self._frames = Protocol(Side.SERVER, state=State.OPEN)

    def send(self, message: dict[str, Any], position: str | None = None) -> None:
        """Send one message in a text frame; ``position`` is for streams."""
        del position
        self.send_text(json.dumps(message))

    def send_text(self, text: str) -> None:
        """Send any text in one frame."""
        if self._frames.state is State.OPEN:
            self._frames.send_text(text.encode())
            self._flush()

    def close(self, code: int) -> None:
        """Send a close frame; the client answers it."""
        if self._frames.state is State.OPEN:
            if code:
                self._frames.send_close(code, "the scenario says so")
            else:
                self._frames.send_close()
            self._flush()

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Read messages until the client is gone."""
        with suppress(OSError):
            while data := await reader.read(65536):
                self._frames.receive_data(data)
                self._take()
                self._flush()
                if self._frames.close_expected():
                    break
        self.heard.put({"type": "(closed)"})

    def _take(self) -> None:
        for event in self._frames.events_received():
            if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                try:
                    message = dict(json.loads(bytes(event.data)))
                except (TypeError, ValueError):
                    message = {"type": "(not a message)", "text": repr(event.data)}
                if (answer := self.answered(message)) is None:
                    self.heard.put(message)
                else:
                    self.send(answer)

    def _flush(self) -> None:
        if not self.writer.is_closing():
            self.writer.write(b"".join(self._frames.data_to_send()))


class Server:
    """Listens on 127.0.0.1 and collects what arrives.

    Attributes:
        url: where clients connect to.
        arrivals: what opens connections, and calls, by :attr:`Request.kind`.
        refusing: kinds that are refused without a step, and the status for it.
        mailbox: what lists and questions for the count are answered from, without a step.
    """

    def __init__(self) -> None:
        self.url = ""
        self.arrivals: dict[str, Inbox[Arrival]] = {}
        self.refusing: dict[str, int] = {}
        self.mailbox: Mailbox | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncIterator["Server"]:
        """A server, until the block ends."""
        server = cls()
        listening = await asyncio.start_server(server._connected, "127.0.0.1", 0, limit=MAX_HEAD)
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        try:
            yield server
        finally:
            listening.close()
            for task in server._connections:
                task.cancel()
            await asyncio.gather(*server._connections, return_exceptions=True)

    def of(self, kind: str) -> Inbox[Arrival]:
        """What arrived of one kind."""
        return self.arrivals.setdefault(kind, Inbox())

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await read_request(reader)) is not None:
                arrival = Arrival(request, writer)
                if request.method == "OPTIONS":
                    arrival.answer(_preflight())
                elif (status := self.refusing.get(request.kind)) is not None:
                    arrival.answer(problem(status))
                elif self.mailbox is not None and (found := self.mailbox.answer(request)):
                    arrival.answer(answer(200, found))
                else:
                    self.of(request.kind).put(arrival)
                connection = await arrival.settled
                if connection is not None:
                    await connection.serve(reader)
                    break
                if request.kind == "websocket":  # a refused handshake ends its connection
                    await writer.drain()
                    break
        except OSError:
            pass
        finally:
            writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """End a TCP connection with RST."""
    if writer.is_closing():
        return
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


def _preflight() -> bytes:
    allowed = {
        "Access-Control-Allow-Headers": "Authorization, Content-Type, Last-Event-ID",
        "Access-Control-Allow-Methods": "GET, POST, DELETE",
    }
    return answer(200, {}, allowed)
