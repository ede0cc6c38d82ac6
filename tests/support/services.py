"""Small servers on 127.0.0.1, each in a thread of its own, for the length of a ``with`` block."""

import asyncio
import json
import ssl
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class QuietHandler(BaseHTTPRequestHandler):
    """Answers requests without a log line for each."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class HTTPService:
    """A plain HTTP server.

    Args:
        handler: answers its requests.
    """

    def __init__(self, handler: type[QuietHandler]) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def service(answer: Callable[[Any], tuple[int, Any]]) -> Iterator[str]:
    """The address of a service that answers what a node would not.

    Args:
        answer: to the JSON of a request, None where it has none: a status, and JSON.
    """

    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"] or 0)
            status, value = answer(json.loads(self.rfile.read(length)) if length else None)
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST
        do_DELETE = do_POST

    with HTTPService(Handler) as served:
        yield served.url


class TCPService(ABC):
    """A server with an event loop of its own; ``serve`` says what becomes of each connection.

    Args:
        context: for TLS.
    """

    loop: asyncio.AbstractEventLoop
    _stopped: asyncio.Event

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._serving: set[asyncio.Task[None]] = set()
        self.port = 0

    @abstractmethod
    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Speak with a connection, and close it."""

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()

    async def _run(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        server = await asyncio.start_server(self._hold, "127.0.0.1", 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stopped.wait()
        server.close()
        while self._serving:
            for task in self._serving:
                task.cancel()
            await asyncio.wait(self._serving)

    def _hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection in a task that is kept until its end: asyncio does not keep it."""
        task = asyncio.create_task(self.serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
