"""WebSocket frames, server side and without I/O: bytes in, events out (RFC 6455, section 5).

Strict: whatever the RFC forbids ends the connection, with the close code that the RFC or the
Autobahn test suite asks for, as soon as the bytes so far cannot become valid any more. Extensions
are not negotiated, so there is no compression and the reserved bits stay zero.

Lean: a `FrameReader` holds at most one message and one control frame, and between messages nothing.
"""

import base64
import hashlib
import re
import struct
from codecs import utf_8_decode
from typing import Final, TypeAlias

import msgspec

from pushsvc.codes import Close

# Opcodes (RFC 6455, section 5.2), as plain integers: members of an enum cost 30 ns a comparison.
_CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
_CLOSE: Final = 0x8
_PING: Final = 0x9
_PONG: Final = 0xA

MAX_CONTROL: Final = 125
"""The most bytes that a control frame may carry (RFC 6455, section 5.5)."""

_FIN: Final = 0x80
_RSV: Final = 0x70
_OPCODE: Final = 0x0F
_MASKED: Final = 0x80
_LENGTH_16: Final = 126
_LENGTH_64: Final = 127
_WHOLE_TEXT: Final = _FIN | TEXT

_pack_header: Final = struct.Struct("!BB").pack
_from_bytes: Final = int.from_bytes  # fetched once: that takes as long as the call

# Events are msgspec structs, which are built in C: a fifth of the time of a NamedTuple. They hold
# bytes, strings and numbers only, so the garbage collector need not track them.


class Message(msgspec.Struct, frozen=True, gc=False):
    """A whole message of opcode `TEXT`, then known to be valid UTF-8, or `BINARY` (section 5.6)."""

    opcode: int
    payload: bytes


class Ping(msgspec.Struct, frozen=True, gc=False):
    """A ping, to be answered with a `pong` of the same payload (RFC 6455, section 5.5.2)."""

    payload: bytes


class Pong(msgspec.Struct, frozen=True, gc=False):
    """A pong, whether it was asked for or not (RFC 6455, section 5.5.3)."""

    payload: bytes


class Closed(msgspec.Struct, frozen=True, gc=False):
    """A close frame, the last that is read; ``code`` is None where it was empty (section 5.5.1)."""

    code: int | None
    reason: str


Event: TypeAlias = Message | Ping | Pong | Closed


class ProtocolError(Exception):
    """The client broke RFC 6455 or a limit: fail the connection (section 7.1.7).

    ``str(error)`` is a sentence for the log.

    Attributes:
        close: the close code to send.
        events: what the same `FrameReader.feed` read before the violation, to be handled first.
    """

    def __init__(self, close: Close, reason: str) -> None:
        super().__init__(reason)
        self.close = close
        self.events: list[Event] = []


class FrameReader:
    """Reads the frames of one client.

    A reader that is `idle` is as good as a new one: drop it, or let idle connections share one.

    Args:
        max_message: the most bytes that a message may have, over all its fragments.
        max_fragments: the most frames that a message may come in.
    """

    __slots__ = (
        "_fin",  # whether the current frame is its message's last
        "_fragments",  # frames of the message so far
        "_held",  # part of a data frame's header, or of a control frame
        "_key",  # the current frame's masking key, turned so that the next byte's comes first
        "_left",  # payload bytes of the current frame still to come
        "_max_fragments",
        "_max_message",
        "_message",  # the message's unmasked payload so far
        "_opcode",  # of the message under way: while it is 0, what describes a message is not set
        "_over",
        "_tail",  # the start of a code point whose other bytes are still to come
    )
    _message: bytearray

    def __init__(self, *, max_message: int, max_fragments: int = 1024) -> None:
        self._max_message = max_message
        self._max_fragments = max_fragments
        self._held = b""
        self._left = 0
        self._opcode = 0
        self._over = False

    @property
    def idle(self) -> bool:
        """Whether no part of a frame or message is held, and no close or violation ended it all.

        After the end, a new reader in this one's place would read what is to be ignored.
        """
        return not (self._held or self._opcode or self._over)

    def feed(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """Take the next bytes from the socket, in time linear in their number however they are cut.

        Args:
            data: any number of bytes. The buffer is not kept. What is held of its bytes until the
                next call is bounded by ``max_message`` and one control frame (131 bytes).

        Returns:
            The events that these bytes complete, in order. After a `Closed` all is ignored.

        Raises:
            ProtocolError: the bytes break a rule. All that follows is ignored.
        """
        events: list[Event] = []
        if self._over:
            return events
        data = self._held + data  # makes no copy of bytes while nothing is held
        pos, end = 0, len(data)
        try:
            if self._left:
                pos = self._payload(data, 0, events)
            while end - pos >= 2:
                # Clients send short text in one frame, and it arrives in one piece.
                size = data[pos + 1] - _MASKED
                stop = pos + 6 + size
                if (
                    data[pos] == _WHOLE_TEXT
                    and 0 <= size <= MAX_CONTROL
                    and stop <= end
                    and size <= self._max_message
                    and not self._opcode
                ):
                    payload = _unmask(data[pos + 6 : stop], data[pos + 2 : pos + 6])
                    if not payload.isascii():
                        _check_utf8(payload, final=True)
                    events.append(Message(TEXT, payload))
                else:
                    stop = self._frame(data, pos, events)
                    if stop < 0:
                        break
                pos = stop
        except ProtocolError as error:
            self._end()
            error.events = events
            raise
        self._held = data[pos:]
        return events

    def _frame(self, data: bytes, pos: int, events: list[Event]) -> int:
        """Read the frame at ``pos``, of which two bytes are here at least.

        Returns:
            Where to read on, or -1: wait for more bytes and start over at ``pos``.
        """
        first = data[pos]
        opcode = first & _OPCODE
        if first & _RSV:
            raise _violation("a reserved bit is set")
        if data[pos + 1] < _MASKED:
            raise _violation("a frame is not masked")
        if _CLOSE <= opcode <= _PONG:
            return self._control(data, pos, events)
        if opcode > BINARY:
            raise _violation(f"opcode {opcode} is reserved")
        if opcode and self._opcode:
            raise _violation("a message starts inside another")
        if opcode == _CONTINUATION:
            if not self._opcode:
                raise _violation("a continuation has nothing to continue")
            if self._fragments >= self._max_fragments:
                raise ProtocolError(Close.POLICY, f"over {self._max_fragments} fragments")
        return self._data(data, pos, events)

    def _control(self, data: bytes, pos: int, events: list[Event]) -> int:
        """Read the control frame at ``pos`` (RFC 6455, section 5.5); returns as `_frame` does."""
        opcode = data[pos] & _OPCODE
        size = data[pos + 1] - _MASKED
        if data[pos] < _FIN:
            raise _violation("a control frame is fragmented")
        if size > MAX_CONTROL:
            raise _violation(f"a control frame carries over {MAX_CONTROL} bytes")
        stop = pos + 6 + size
        if stop > len(data):
            return -1
        payload = _unmask(data[pos + 6 : stop], data[pos + 2 : pos + 6])
        if opcode == _PONG:
            events.append(Pong(payload))
        elif opcode == _PING:
            events.append(Ping(payload))
        else:
            events.append(_parse_close(payload))
            self._end()
            return len(data)
        return stop

    def _data(self, data: bytes, pos: int, events: list[Event]) -> int:
        """Read what is here of the data frame at ``pos``; returns as `_frame` does."""
        size = data[pos + 1] - _MASKED
        start = pos + 6
        if size >= _LENGTH_16:
            shortest, width = (1 << 16, 8) if size == _LENGTH_64 else (_LENGTH_16, 2)
            start += width
            if len(data) < start - 4:
                return -1
            size = _from_bytes(data[pos + 2 : start - 4])
            if size < shortest:
                raise _violation("a length is not in its shortest form")
        # Before any of the payload is kept. A length with its top bit set is caught here, too.
        if size > self._max_message - (len(self._message) if self._opcode else 0):
            raise ProtocolError(Close.TOO_BIG, f"a message is over {self._max_message} bytes")
        if len(data) < start:
            return -1
        if opcode := data[pos] & _OPCODE:
            self._opcode = opcode
            self._message = bytearray()
            self._tail = b""
            self._fragments = 0
        self._fragments += 1
        self._fin = data[pos] >= _FIN
        self._key = data[start - 4 : start]
        self._left = size
        return self._payload(data, start, events)

    def _payload(self, data: bytes, pos: int, events: list[Event]) -> int:
        """Take what is here of the current data frame's payload; returns where to read on."""
        chunk = _unmask(data[pos : pos + self._left], self._key)
        self._left -= len(chunk)
        turn = len(chunk) % 4
        self._key = self._key[turn:] + self._key[:turn]
        whole = self._fin and not self._left
        # Checked as it comes: the RFC lets a peer learn early that its text is lost.
        if self._opcode == TEXT and (self._tail or not chunk.isascii()):
            text = self._tail + chunk
            self._tail = _check_utf8(text, final=whole)
        if not whole:
            self._message += chunk
        else:
            payload = b"".join((self._message, chunk)) if self._message else chunk
            events.append(Message(self._opcode, payload))
            self._opcode = 0
            del self._message
        return pos + len(chunk)

    def _end(self) -> None:
        """Ignore what follows, and let go of what is held."""
        self._over = True
        self._held = self._tail = b""
        self._opcode = 0
        self._message = bytearray()


def _violation(reason: str) -> ProtocolError:
    return ProtocolError(Close.PROTOCOL_ERROR, reason)


def _unmask(payload: bytes, key: bytes) -> bytes:
    """XOR with the four bytes of ``key`` in turn (RFC 6455, section 5.3)."""
    # By way of two long integers: the fastest that Python has up to 16 KiB, and near it beyond.
    size = len(payload)
    mask = (key * (size // 4 + 1))[:size]
    return (_from_bytes(payload) ^ _from_bytes(mask)).to_bytes(size)


def _check_utf8(text: bytes, *, final: bool) -> bytes:
    """What of ``text`` is the start of a code point that is still to come: nothing if ``final``.

    Raises:
        ProtocolError: ``text`` is not UTF-8 nor, unless ``final``, the start of any.
    """
    try:
        tail = text[utf_8_decode(text, "strict", final)[1] :]
    except UnicodeDecodeError as error:
        reason = error.reason
    else:
        # CPython waits for a surrogate's third byte to refuse the first two (cpython#154520).
        if not b"\xed\xa0" <= tail < b"\xee":
            return tail
        reason = "surrogate"
    # Raised out here lest the text travel along as the error's context.
    raise ProtocolError(Close.INVALID_DATA, f"text is not valid UTF-8: {reason}")


def _is_close_code(code: int) -> bool:
    """Whether ``code`` may stand in a frame (RFC 6455, section 7.4, and IANA's registry)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def _parse_close(payload: bytes) -> Closed:
    if not payload:
        return Closed(None, "")
    code = _from_bytes(payload[:2])
    if not _is_close_code(code):  # as half a code never is
        raise _violation(f"a close frame carries no close code but 0x{payload[:2].hex()}")
    _check_utf8(payload[2:], final=True)
    return Closed(code, payload[2:].decode())


def header(opcode: int, length: int) -> bytes:
    """The header of an unfragmented, unmasked frame of ``length`` bytes (RFC 6455, section 5.2).

    Raises:
        ValueError: a control frame of over `MAX_CONTROL` bytes.
    """
    if length <= MAX_CONTROL:
        return _pack_header(_FIN | opcode, length)
    if opcode >= _CLOSE:
        raise ValueError(f"a control frame carries at most {MAX_CONTROL} bytes, not {length}")
    if length <= 0xFFFF:
        return struct.pack("!BBH", _FIN | opcode, _LENGTH_16, length)
    return struct.pack("!BBQ", _FIN | opcode, _LENGTH_64, length)


def encode(opcode: int, payload: bytes) -> bytes:
    """One unfragmented, unmasked frame; opcodes and errors are those of `header`."""
    return header(opcode, len(payload)) + payload


def text(payload: bytes) -> bytes:
    """A text frame (RFC 6455, section 5.6). The caller sees to it that ``payload`` is UTF-8."""
    return header(TEXT, len(payload)) + payload


def pong(payload: bytes) -> bytes:
    """The answer to a ping with ``payload``; errors are those of `header` (section 5.5.3)."""
    return header(_PONG, len(payload)) + payload


def encode_close(code: int | None, reason: str = "") -> bytes:
    """A close frame (RFC 6455, section 5.5.1).

    Args:
        code: the close code, or None for an empty frame.
        reason: sent beside a code, cut to 123 bytes less what would be part of a code point.

    Raises:
        ValueError: ``code`` may not stand in a frame, as 1005 and 1006 may not.
    """
    if code is None:
        return encode(_CLOSE, b"")
    if not _is_close_code(code):
        raise ValueError(f"close code {code} may not be sent")
    cut = reason.encode(errors="replace")[: MAX_CONTROL - 2].decode(errors="ignore")
    return encode(_CLOSE, code.to_bytes(2) + cut.encode())


PING: Final = encode(_PING, b"")
"""A ping without payload, ready to send (RFC 6455, section 5.5.2)."""

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# 128 bits: 21 characters of six, one of the last two, whose low four are zero, and the padding.
_KEY: Final = re.compile(r"[A-Za-z0-9+/]{21}[AQgw]==")


def valid_key(key: str) -> bool:
    """Whether a ``Sec-WebSocket-Key`` is the base64 of 16 bytes (RFC 6455, section 4.1)."""
    return _KEY.fullmatch(key) is not None


def accept_key(key: str) -> str:
    """The ``Sec-WebSocket-Accept`` that answers a valid key (RFC 6455, section 4.2.2)."""
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()
