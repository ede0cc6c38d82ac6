"""A peer that says exactly the bytes it is told to: for what no decent client sends."""

import json
import os
import socket
import ssl
import struct
import time
from types import TracebackType
from typing import Any, Final, Self

import httpx

from tests.support.nodes import Node, token

PATIENCE: Final = 10.0
KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="
"""The key of RFC 6455, section 1.3."""
ACCEPT: Final = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


class Ended(Exception):
    """The node closed the connection, or reset it."""


def request(
    method: str = "GET",
    target: str = "/v1/ws",
    headers: dict[str, str | None] | None = None,
    *,
    version: str = "HTTP/1.1",
) -> bytes:
    """The head of an opening handshake; ``headers`` replace or, where None, remove its own."""
    fields: dict[str, str | None] = {
        "Host": "127.0.0.1",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": KEY,
        "Authorization": f"Bearer {token('u1')}",
        **(headers or {}),
    }
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([f"{method} {target} {version}", *lines, "", ""]).encode("latin-1")


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    reserved: int = 0,
    masked: bool = True,
    length: int | None = None,
) -> bytes:
    """A frame, wrong in whichever way is asked for; ``length`` is what its header claims."""
    size = len(payload) if length is None else length
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    bit = 0x80 if masked else 0
    if size < 126:
        head = struct.pack("!BB", first, bit | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, bit | 127, size)
    if not masked:
        return head + payload
    key = os.urandom(4)
    mask = (key * (len(payload) // 4 + 1))[: len(payload)]
    return head + key + bytes(a ^ b for a, b in zip(payload, mask, strict=True))


class Raw:
    """A TCP connection to a node.

    Args:
        node: where it connects.
        port: of the node, unless that is the public one.
        receive_buffer: bytes that the kernel takes for a peer that does not read.
    """

    def __init__(
        self, node: Node, *, port: int | None = None, receive_buffer: int | None = None
    ) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            self.socket.connect(("127.0.0.1", port or node.port))
            if node.tls is not None:
                self.socket = node.tls.wrap_socket(self.socket, server_hostname="127.0.0.1")
        except OSError:
            self.socket.close()
            raise
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._held = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send all of it.

        Raises:
            Ended: the node does not take it.
        """
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
            raise Ended from None

    def _more(self) -> None:
        try:
            data = self.socket.recv(1 << 16)
        except (ConnectionResetError, ssl.SSLEOFError):
            raise Ended from None
        if not data:
            raise Ended
        self._held += data

    def read(self, size: int) -> bytes:
        """Exactly so many bytes.

        Raises:
            Ended: there are no more.
        """
        while len(self._held) < size:
            self._more()
        data, self._held = self._held[:size], self._held[size:]
        return data

    def answer(self) -> httpx.Response:
        """An HTTP answer that has a Content-Length, or no body.

        Raises:
            Ended: there is none.
        """
        while b"\r\n\r\n" not in self._held:
            self._more()
        head, _, self._held = self._held.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = [(line.partition(":")[0], line.partition(":")[2].strip()) for line in lines]
        response = httpx.Response(int(status.split(" ")[1]), headers=headers)
        size = int(response.headers.get("Content-Length", 0))
        return httpx.Response(response.status_code, headers=headers, content=self.read(size))

    def ended(self) -> float:
        """Read until the node closes; seconds until then."""
        started = time.monotonic()
        try:
            while True:
                self._more()
                self._held = b""
        except Ended:
            return time.monotonic() - started


class RawSocket(Raw):
    """A WebSocket without a library: real handshake, then whatever bytes.

    Args:
        node: where it connects.
        user: the user id.
        device: the device.
        auth: its token, where that is a special one.
        behind: bytes sent in the same segment as the handshake.
        receive_buffer: as for `Raw`.
    """

    def __init__(
        self, node: Node, user: str, device: str = "raw", *,
        auth: str | None = None, behind: bytes = b"", receive_buffer: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(node, receive_buffer=receive_buffer)
        headers = {"Authorization": f"Bearer {auth or token(user)}"}
        self.send(request(target=f"/v1/ws?device={device}", headers={**headers}) + behind)
        self.head = self.answer()
        assert self.head.status_code == 101, self.head.text
        self.welcome = self.message()
        assert self.welcome["type"] == "welcome"

    def frame(self) -> tuple[int, bytes]:
        """The next frame's opcode and payload.

        Raises:
            Ended: there are no more.
        """
        first, size = self.read(2)
        assert first & 0xF0 == 0x80, "a node sends whole frames without extensions"
        assert size < 0x80, "a server does not mask"
        if size == 126:
            (size,) = struct.unpack("!H", self.read(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self.read(8))
        return first & 0x0F, self.read(size)

    def message(self) -> dict[str, Any]:
        """The next message; pings and pongs are passed over."""
        while True:
            opcode, payload = self.frame()
            if opcode == TEXT:
                message: dict[str, Any] = json.loads(payload)
                return message
            assert opcode in (PING, PONG), (opcode, payload)

    def say(self, **message: Any) -> None:
        """Send one message."""
        self.send(frame(TEXT, json.dumps(message).encode()))

    def pong(self, ref: Any = "m") -> None:
        """Check that the connection lives and that nothing else was sent to it."""
        self.say(type="ping", ref=ref)
        message = self.message()
        assert message == {"type": "pong", "ref": ref}, message

    def closed(self) -> int:
        """Read to the close frame; its code, or 1006 where there is none."""
        try:
            while True:
                opcode, payload = self.frame()
                if opcode == CLOSE:
                    code: int = struct.unpack("!H", payload[:2])[0]
                    assert payload[2:].decode().isprintable()
                    return code
        except Ended:
            return 1006
