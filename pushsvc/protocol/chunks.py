"""The chunked transfer coding (RFC 9112, section 7.1), strict.

A body whose end two parsers see in different places is a request that one of them does not see at
all (request smuggling). So nothing is read here that the RFC's grammar does not say: a size is hex
digits and no more, every line ends with CRLF, and what may stand beside the data is bounded.
"""

import re
from typing import Final

from pushsvc.errors import InvalidRequest

_MAX_EXTENSION: Final = 255
"""Bytes behind a chunk's size on its line: no more is scanned again while a line is coming."""

_SIZE: Final = rb"([0-9A-Fa-f]{1,16})(;[\t -~\x80-\xff]{0,%d}+)?+" % (_MAX_EXTENSION - 1)
_match_size = re.compile(_SIZE + rb"\r\n").match
_begins_size = re.compile(rb"(?:" + _SIZE + rb"\r?+)?+").fullmatch

# A line of the trailer section is written as a header is (RFC 9110, section 5.5).
_is_trailer = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t -~\x80-\xff]*+").fullmatch
_find_stray = re.compile(rb"[^\t -~\x80-\xff\r]|\r(?!\n|\Z)").search


class ChunkReader:
    """Takes the data of one body out of its chunks.

    Args:
        max_besides: the most bytes that extensions and trailers may have, over the whole body.
    """

    __slots__ = ("_besides", "_data", "_left", "_scanned", "_trailers", "complete")

    def __init__(self, max_besides: int) -> None:
        self.complete = False
        self._besides = max_besides
        self._left = 0  # bytes of the current chunk still to come
        self._data = False  # whether a chunk's data, or the CRLF behind it, is what comes next
        self._trailers = False
        self._scanned = 0  # bytes of a trailer whose line is known not to end among them

    def take(self, buffer: bytearray) -> bytes:
        """Take all that is here out of the front of ``buffer``; what is left there is to be kept.

        Returns:
            The data; nothing behind the end of the body is taken.

        Raises:
            InvalidRequest: the bytes are no chunks, or carry too much besides data.
        """
        parts: list[bytearray] = []
        pos, end = 0, len(buffer)
        while pos < end and not self._trailers:
            if self._left:
                part = buffer[pos : pos + self._left]
                parts.append(part)
                pos += len(part)
                self._left -= len(part)
            elif self._data:
                if not b"\r\n".startswith(buffer[pos : pos + 2]):
                    raise InvalidRequest(
                        "the data of a chunk does not end where its size says, with CRLF:"
                        " send as many bytes as are announced"
                    )
                if end - pos < 2:
                    break
                pos += 2
                self._data = False
            else:
                size = _match_size(buffer, pos)
                if size is None:
                    self._require_size(buffer, pos)
                    break
                if size[2]:
                    self._spend(len(size[2]))
                pos = size.end()
                self._left = int(size[1], 16)
                self._data = self._left > 0
                self._trailers = not self._data
        if self._trailers and not self.complete:
            pos = self._read_trailers(buffer, pos)
        del buffer[:pos]
        return b"".join(parts)

    def _require_size(self, buffer: bytearray, pos: int) -> None:
        """Refuse what cannot become the first line of a chunk."""
        if not _begins_size(buffer, pos):
            raise InvalidRequest(
                "a chunk does not begin with its size, 1 to 16 hex digits, and CRLF"
                f" (extensions have at most {_MAX_EXTENSION} bytes): see RFC 9112, section 7.1"
            )

    def _read_trailers(self, buffer: bytearray, pos: int) -> int:
        """Read the lines of the trailer section that are whole; returns where to read on."""
        while (stop := buffer.find(b"\r\n", pos + self._scanned)) >= 0:
            line = buffer[pos:stop]
            self._scanned = 0
            pos = stop + 2
            if not line:
                self.complete = True
                return pos
            self._spend(len(line) + 2)
            if not _is_trailer(line):
                raise _no_trailer()
        held = len(buffer) - pos
        if held > self._besides + 1:  # one more, since the CR of the empty line counts for nothing
            self._spend(held)
        if _find_stray(buffer, pos + self._scanned):
            raise _no_trailer()
        self._scanned = max(0, held - 1)
        return pos

    def _spend(self, size: int) -> None:
        self._besides -= size
        if self._besides < 0:
            raise InvalidRequest(
                "the chunks carry too many bytes of extensions and trailers: leave them out"
            )


def _no_trailer() -> InvalidRequest:
    return InvalidRequest(
        "what follows the last chunk is neither an empty line nor trailers:"
        " see RFC 9112, section 7.1.2"
    )
