"""A client that costs little: plain sockets, prepared bytes, one epoll set, no WebSocket library.

It is not a proper client. It takes for granted that each message of the server arrives in one
piece, which on the loopback device small ones do, and it checks nothing but what is counted.
"""

import re
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

AT_ONCE: Final = 64
"""Handshakes in flight."""
PATIENCE: Final = 30.0
"""Seconds without an answer after which something is wrong."""

_ADDRESS: Final = "127.0.0.1"
_READ: Final = 256 * 1024
# A close that is a reset leaves no port in TIME_WAIT, of which there are too few.
_RESET: Final = struct.pack("ii", 1, 0)

_PING: Final = b"\x89"
_PONG: Final = b"\x8a\x80" + bytes(4)

_notification_ids = re.compile(rb'"type":"notification","id":"([0-9-]+)"').findall
_listeners = re.compile(rb'"connections":(\d+)').findall
_content_length = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE).search


def handshake(path: str, token: str | None = None) -> bytes:
    """The request that opens a WebSocket."""
    authorization = "" if token is None else f"Authorization: Bearer {token}\r\n"
    return (
        f"GET {path} HTTP/1.1\r\nHost: {_ADDRESS}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        f"{authorization}\r\n"
    ).encode()


def ack(notification_id: bytes) -> bytes:
    """The frame that acknowledges a notification; a mask of zeros leaves the text as it is."""
    payload = b'{"type":"ack","id":"%s"}' % notification_id
    return bytes((0x81, 0x80 | len(payload))) + bytes(4) + payload


def post(path: str, token: str, media_type: str, body: bytes) -> bytes:
    """A publish request."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: {_ADDRESS}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: {media_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def post_at_once(port: int, requests: Iterator[bytes], connections: int, status: int = 202) -> None:
    """Send publish requests on several connections, each the next one once it is answered.

    Args:
        port: of the server.
        requests: in order.
        connections: how many.
        status: what each is answered.

    Raises:
        ConnectionError: a request was refused.
    """

    def work() -> None:
        with socket.create_connection((_ADDRESS, port), PATIENCE) as connection:
            while (request := take()) is not None:
                connection.sendall(request)
                answer = connection.recv(_READ)
                if not answer.startswith(b"HTTP/1.1 %d" % status):
                    raise ConnectionError(f"a request was refused: {answer[:500]!r}")

    lock = threading.Lock()

    def take() -> bytes | None:
        with lock:
            return next(requests, None)

    with ThreadPoolExecutor(connections) as pool:
        for done in [pool.submit(work) for _ in range(connections)]:
            done.result()


class Herd:
    """Many WebSockets to one server, and at most one connection that publishes.

    Args:
        port: of the server.
        acknowledges: whether each notification is acknowledged.
    """

    def __init__(self, port: int, *, acknowledges: bool = True) -> None:
        self._port = port
        self._acknowledges = acknowledges
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._publisher: socket.socket | None = None
        self._answer = b""
        self._seen = 0

    def connect(self, requests: Iterable[bytes], at_once: int = AT_ONCE) -> float:
        """Shake hands for each request, some at once.

        Returns:
            The seconds that it took.

        Raises:
            ConnectionError: a handshake was refused.
        """
        waiting = iter(requests)
        started = time.perf_counter()
        in_flight = 0
        while True:
            while in_flight < at_once and (request := next(waiting, None)) is not None:
                connection = self._open()
                connection.send(request)
                self._sockets[connection.fileno()] = connection
                in_flight += 1
            if not in_flight:
                return time.perf_counter() - started
            for fd in self._ready():
                answer = self._sockets[fd].recv(4096)
                if not answer.startswith(b"HTTP/1.1 101"):
                    raise ConnectionError(f"a handshake was refused: {answer[:500]!r}")
                in_flight -= 1

    def publish(self, requests: Iterator[bytes], ahead: int) -> int:
        """Send publish requests one after the other, and meanwhile acknowledge what comes.

        Args:
            requests: of which the next is sent when the last is answered.
            ahead: the next request waits while as many notifications are still to come.

        Returns:
            How many notifications were received, each connection's own: all that were to come.

        Raises:
            ConnectionError: a request was refused.
        """
        publisher = self._publisher or self._open()
        self._publisher = publisher
        expected = self._seen = 0
        busy = over = False
        while True:
            if not busy and not over and expected - self._seen < ahead:
                request = next(requests, None)
                if request is None:
                    over = True
                else:
                    publisher.setblocking(True)
                    publisher.sendall(request)
                    publisher.setblocking(False)
                    busy = True
            if over and self._seen == expected:
                return expected
            for fd in self._ready():
                if fd != publisher.fileno():
                    self._take(self._sockets[fd])
                elif (answer := self._answered(publisher)) is not None:
                    expected += sum(map(int, _listeners(answer)))
                    busy = False

    def say(self, payload: bytes) -> None:
        """Send one message on every socket."""
        size = len(payload)
        frame = bytes((0x81, 0x80 | size)) + bytes(4) + payload
        for connection in self._sockets.values():
            connection.send(frame)

    def keep_alive(self, seconds: float) -> None:
        """Do nothing for some time but answer what asks whether anybody is there.

        Raises:
            ConnectionError: the server closed a connection.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for fd, _ in self._epoll.poll(0.1, 256):
                data = self._sockets[fd].recv(_READ)
                if not data:
                    raise ConnectionError("the server closed a connection")
                if data.startswith(_PING):
                    self._sockets[fd].send(_PONG)

    @contextmanager
    def acknowledging(self) -> Iterator[None]:
        """Acknowledge what comes, in a thread, while others publish."""
        over = threading.Event()

        def run() -> None:
            while not over.is_set():
                for fd, _ in self._epoll.poll(0.1, 256):
                    self._take(self._sockets[fd])

        if self._publisher is not None:
            self._epoll.unregister(self._publisher.fileno())
        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            if self._publisher is not None:
                self._epoll.register(self._publisher.fileno(), select.EPOLLIN)

    def listening(self, request: bytes) -> int:
        """How many connections a publish request reaches, once it has reached them."""
        return self.publish(iter([request]), 1)

    def drain(self, over: Callable[[], str | bool]) -> str:
        """Read and drop what comes until something is there; that."""
        while not (found := over()):
            for fd, _ in self._epoll.poll(0.1, 256):
                self._sockets[fd].recv(_READ)
        return str(found)

    def close(self) -> None:
        """Close all sockets."""
        for connection in self._sockets.values():
            connection.close()
        self._sockets.clear()
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None

    def _open(self) -> socket.socket:
        connection = socket.create_connection((_ADDRESS, self._port), PATIENCE)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        self._epoll.register(connection.fileno(), select.EPOLLIN)
        return connection

    def _ready(self) -> Sequence[int]:
        events = self._epoll.poll(PATIENCE, 256)
        if not events:
            raise TimeoutError(f"nothing came for {PATIENCE:g} s")
        return [fd for fd, _ in events]

    def _take(self, connection: socket.socket) -> None:
        data = connection.recv(_READ)
        if not data:
            raise ConnectionError("the server closed a connection")
        found = _notification_ids(data)
        self._seen += len(found)
        if found and self._acknowledges:
            connection.send(b"".join(map(ack, found)))

    def _answered(self, publisher: socket.socket) -> bytes | None:
        self._answer += publisher.recv(_READ)
        head, blank, body = self._answer.partition(b"\r\n\r\n")
        length = _content_length(head + b"\r\n")
        if not blank or length is None or len(body) < int(length[1]):
            return None
        if not head.startswith(b"HTTP/1.1 202"):
            raise ConnectionError(f"a publish was refused: {self._answer[:500]!r}")
        self._answer = b""
        return body
