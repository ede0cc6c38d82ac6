"""Requests of HTTP/1.1 (RFC 9112) as they come over a connection: heads and bodies out of bytes.

Strict, since what a proxy before this service reads in another way than the service does is how
requests are smuggled past the proxy: what is doubtful is refused, never repaired. llhttp splits the
header section without any of its leniencies. It would take several spaces in a request line,
versions 0.9 and 2.0, the methods of other protocols and `gzip, chunked`; so the request line, which
it never sees, and the framing (section 6) are read here.

Bounds come before work: the end of a head is looked for in ``max_head`` bytes, once whatever pieces
it comes in, and its lines are counted before they are parsed. What follows a request stays in the
buffer untouched.
"""

import re
from functools import lru_cache
from typing import Final

import httptools
import msgspec

from pushsvc.errors import (
    HeadersTooLarge,
    InvalidRequest,
    PayloadTooLarge,
    PushError,
    UnsupportedTransferEncoding,
)
from pushsvc.protocol.chunks import ChunkReader

_MAX_DIGITS: Final = 16
"""Digits of a ``Content-Length``: enough for any body, and exact in whatever language reads it."""

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
# A fragment is never sent (RFC 9112, section 3.2). Bytes over 127 should not be; what a query means
# by them is clear, and a path refuses them itself.
_match_request_line = re.compile(
    rb"(" + _TOKEN + rb") ([!\"$-~\x80-\xff]++) (HTTP/1\.[01])\r\n"
).match
_match_absolute = re.compile(r"https?://([^/?]+)((?:/[^?]*)?)((?:\?.*)?)", re.IGNORECASE).fullmatch
# RFC 9110, section 7.2: a name, an IPv4 or a bracketed address, and perhaps a port.
_is_host = re.compile(
    r"(?:\[[0-9A-Za-z:.%\-_~]++\]|[0-9A-Za-z\-._~!$&'()*+,;=%]*+)(?::[0-9]{0,5}+)?+"
).fullmatch
# Never part of a head, so it is refused as soon as it is there. `\Z` is the end of what is here.
_find_stray = re.compile(rb"\0|(?<!\r)\n|\r(?!\n|\Z)").search
_is_token = re.compile(_TOKEN).fullmatch
_find_control = re.compile(rb"[^\t -~\x80-\xff]").search

_REQUEST_LINE: Final = b"GET / HTTP/1.1\r\n"


MOST_ALIKE: Final = 256
"""Heads that are remembered: a backend sends the same one for each body of a length."""
MAX_ALIKE: Final = 2048
"""Most bytes of one of them."""
FIELDS_ALIKE: Final = 32
"""Most lines of its headers: each takes some 130 bytes more than it has."""


class Headers(dict[str, str]):
    """The fields of a head by their names in lower case; requests may share them.

    The values of a repeated field are joined with ``", "`` (RFC 9110, section 5.3), of ``cookie``
    with ``"; "`` (RFC 6265, section 5.4). Bytes over 127 stand as ISO 8859-1.
    """


class Head(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A request without its body; those that are alike share one."""

    method: str
    target: str
    """The path and the query, as sent; ``*`` for ``OPTIONS`` only."""
    version: str
    """``HTTP/1.1`` or ``HTTP/1.0``."""
    headers: Headers
    length: int
    """Bytes of the body, 0 where there is none, -1 where it comes in chunks."""
    keep_alive: bool
    """Whether another request may follow; never after one of HTTP/1.0."""
    expects: bool
    """Whether the client waits for ``100 Continue`` before it sends the body."""


class RequestReader:
    """Reads the requests of one connection, in order.

    After an error there is no telling where the next request begins: the same error is raised for
    ever, and what comes is dropped.

    Args:
        max_head: the most bytes of a head, from the request line to the empty line.
        max_fields: the most header lines.
    """

    __slots__ = (
        "_buffer",
        "_chunks",  # of the current body; None while it is not chunked
        "_failed",  # what ended the reading; not the error itself, which would keep the input
        "_left",  # bytes of the current body, not chunked, still to come
        "_max_fields",
        "_max_head",
        "_scanned",  # bytes of the buffer in which the end of the head does not begin
        "_skipped",  # whether an empty line was ignored before the head
    )

    def __init__(self, max_head: int, max_fields: int) -> None:
        self._max_head = max_head
        self._max_fields = max_fields
        self._buffer = bytearray()
        self._chunks: ChunkReader | None = None
        self._failed: tuple[type[PushError], str] | None = None
        self._left = 0
        self._scanned = 0
        self._skipped = False

    @property
    def buffered(self) -> int:
        """Bytes that were fed and not taken: of all that follows, pipelined requests too."""
        return len(self._buffer)

    @property
    def complete(self) -> bool:
        """Whether all of the body has been taken, so that the next head may be asked for."""
        return not self._left and (self._chunks is None or self._chunks.complete)

    def feed(self, data: bytes) -> None:
        """Append what came from the socket. The caller bounds it, by what is `buffered`."""
        if self._failed is None:
            self._buffer += data

    def rest(self) -> bytes:
        """Take all that is buffered: behind an upgrade it is not HTTP any more."""
        data = bytes(self._buffer)
        self._buffer.clear()
        self._scanned = 0
        return data

    def head(self) -> Head | None:
        """Take the next request's head, once the body before it is `complete`.

        Returns:
            The head, or None where more bytes are needed.

        Raises:
            InvalidRequest: it is not strict HTTP/1.1 or 1.0.
            HeadersTooLarge: it has too many bytes or lines.
            PayloadTooLarge: no body is as long as it says.
            UnsupportedTransferEncoding: the body comes in another coding than chunks.
        """
        self._require_alive()
        if not self.complete:
            raise RuntimeError("the body of the request before has not been taken")
        try:
            return self._take_head()
        except PushError as error:
            self._fail(error)
            raise

    def body(self) -> bytes:
        """Take what is here of the body of the last head.

        Raises:
            InvalidRequest: its chunks are malformed.
        """
        self._require_alive()
        if self._chunks is not None:
            try:
                return b"" if self._chunks.complete else self._chunks.take(self._buffer)
            except PushError as error:
                self._fail(error)
                raise
        data = bytes(self._buffer[: self._left])
        del self._buffer[: self._left]
        self._left -= len(data)
        return data

    def _take_head(self) -> Head | None:
        buffer = self._buffer
        if buffer.startswith(b"\r\n"):
            # Some clients send one too many behind a body (RFC 9112, section 2.2).
            if self._skipped:
                raise InvalidRequest("empty lines come before the request line: leave them out")
            self._skipped = True
            del buffer[:2]
            return self._take_head()
        stop = buffer.find(b"\r\n\r\n", self._scanned, self._max_head)
        if stop < 0:
            self._require_end_to_come()
            return None
        raw = bytes(buffer[: stop + 4])
        del buffer[: stop + 4]
        self._scanned = 0
        self._skipped = False
        # What connects comes with a token of its own, and once.
        alike = (
            len(raw) <= MAX_ALIKE
            and raw.startswith(b"POST ")
            and raw.count(b"\r\n") - 2 <= FIELDS_ALIKE
        )
        head = (_parse_once if alike else parse)(raw, self._max_fields)
        self._left = max(0, head.length)
        self._chunks = ChunkReader(self._max_head) if head.length < 0 else None
        return head

    def _require_end_to_come(self) -> None:
        """Refuse what cannot become a head any more."""
        if _find_stray(self._buffer, self._scanned, self._max_head):
            raise _stray()
        if len(self._buffer) >= self._max_head:
            raise HeadersTooLarge(
                f"the headers have over {self._max_head} bytes: send fewer or shorter ones"
            )
        self._scanned = max(0, len(self._buffer) - 3)

    def _require_alive(self) -> None:
        if self._failed is not None:
            kind, detail = self._failed
            raise kind(detail)

    def _fail(self, error: PushError) -> None:
        self._failed = type(error), error.detail
        self._buffer.clear()


class _Collector:
    """What llhttp tells the fields of a head to."""

    __slots__ = ("headers",)

    def __init__(self) -> None:
        self.headers = Headers()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one field; llhttp leaves white space behind a value."""
        _add(self.headers, name, value)


def parse(raw: bytes, max_fields: int) -> Head:
    """Parse a head, whose first empty line ends it; errors are those of `RequestReader.head`."""
    if raw.count(b"\r\n") - 2 > max_fields:
        if _find_stray(raw):
            raise _stray()
        raise HeadersTooLarge(f"over {max_fields} header lines: send fewer")
    line = _match_request_line(raw)
    if line is None:
        raise _explain(raw)
    collector = _Collector()
    try:
        httptools.HttpRequestParser(collector).feed_data(_REQUEST_LINE + raw[line.end() :])
    except httptools.HttpParserUpgrade:
        pass  # told when the head is over, as it is here
    except httptools.HttpParserError as error:
        raise _explain(raw) from error
    headers = collector.headers
    version = line[3].decode()
    method = line[1].decode()
    target = line[2].decode("latin-1")
    modern = version == "HTTP/1.1"
    host = headers.get("host")
    if host is None:
        if modern:
            raise InvalidRequest("there is no Host header: send one")
    elif not _is_host(host):
        # As two joined are, for they have a space between them.
        raise InvalidRequest("the Host header is not one host with or without a port")
    if target[0] != "/":
        target = _origin_form(method, target, headers)
    connection = headers.get("connection")
    return Head(
        method,
        target,
        version,
        headers,
        _length(headers, modern=modern),
        modern and (connection is None or not _closes(connection)),
        modern and "expect" in headers and headers["expect"].lower() == "100-continue",
    )


@lru_cache(maxsize=MOST_ALIKE)
def _parse_once(raw: bytes, max_fields: int) -> Head:
    """As ``parse``; an error is found anew each time."""
    return parse(raw, max_fields)


def _add(headers: Headers, name: bytes, value: bytes) -> None:
    key = name.decode("latin-1").lower()
    text = value.decode("latin-1").strip(" \t")
    if key in headers:
        text = headers[key] + ("; " if key == "cookie" else ", ") + text
    headers[key] = text


def _origin_form(method: str, target: str, headers: Headers) -> str:
    """The path and query of a target that is not in origin-form (RFC 9112, section 3.2)."""
    if target == "*" and method == "OPTIONS":
        return target
    absolute = _match_absolute(target)
    if absolute is None or not _is_host(absolute[1]):
        raise InvalidRequest("the request's target is no path: begin it with /")
    if "host" in headers:
        headers["host"] = absolute[1]  # which of the two counts: RFC 9112, section 3.2.2
    return (absolute[2] or "/") + absolute[3]


def _closes(connection: str) -> bool:
    return "close" in [option.strip(" \t").lower() for option in connection.split(",")]


def _length(headers: Headers, *, modern: bool) -> int:
    """Bytes of the body, or -1 for chunks (RFC 9112, section 6.3)."""
    length = headers.get("content-length")
    coding = headers.get("transfer-encoding")
    if coding is not None:
        _require_chunked(coding, length, modern=modern)
        return -1
    if length is None:
        return 0
    if "," in length:
        raise InvalidRequest("two Content-Length headers, or a list in one: send one number")
    if not (length.isascii() and length.isdigit()):
        raise InvalidRequest("Content-Length is not the body's number of bytes in digits")
    if len(length) > _MAX_DIGITS:
        raise PayloadTooLarge(f"Content-Length has over {_MAX_DIGITS} digits: no body is so long")
    return int(length)


def _require_chunked(coding: str, length: str | None, *, modern: bool) -> None:
    if length is not None:
        raise InvalidRequest("Content-Length beside Transfer-Encoding: send one of them")
    if not modern:
        raise InvalidRequest("Transfer-Encoding in HTTP/1.0: send Content-Length, or HTTP/1.1")
    codings = [each.strip(" \t").lower() for each in coding.split(",")]
    if codings[-1] != "chunked":
        raise InvalidRequest("Transfer-Encoding does not end with chunked: the body has no end")
    if "chunked" in codings[:-1]:
        raise InvalidRequest("Transfer-Encoding says chunked twice: send it once")
    if len(codings) > 1:
        raise UnsupportedTransferEncoding(
            "no transfer coding but chunked is read here: send the body as it is"
        )


def _stray() -> InvalidRequest:
    return InvalidRequest("a line of the headers does not end with CRLF, or there is a NUL")


def _explain(raw: bytes) -> PushError:
    """Why a head is refused; only called for one that is, so it need not be quick."""
    if _find_stray(raw):
        return _stray()
    first, *lines = raw[:-4].split(b"\r\n")
    match first.split(b" "):
        case [method, target, version]:
            if not _is_token(method):
                return InvalidRequest("the request's method has characters that none may have")
            if version not in {b"HTTP/1.1", b"HTTP/1.0"}:
                return InvalidRequest("the version is not HTTP/1.1 or HTTP/1.0: send HTTP/1.1")
            if not _match_request_line(raw):
                return InvalidRequest(
                    "the request's target is empty, or has a # or control characters"
                    f"{'' if target else ' (or two spaces)'}: percent-encode them"
                )
        case _:
            return InvalidRequest(
                "the request line is not a method, a target and HTTP/1.1 with one space between"
            )
    return _explain_fields(lines, modern=version == b"HTTP/1.1")


def _explain_fields(lines: list[bytes], *, modern: bool) -> PushError:
    headers = Headers()
    for line in lines:
        name, colon, value = line.partition(b":")
        if line[:1] in {b" ", b"\t"}:
            return InvalidRequest("a header line begins with white space: put each on one line")
        if not colon:
            return InvalidRequest("a header line has no colon")
        if not name or name[-1:] in {b" ", b"\t"}:
            return InvalidRequest("a header has no name, or white space before its colon")
        if not _is_token(name):
            return InvalidRequest("a header's name has characters that none may have")
        if _find_control(value):
            return InvalidRequest("a header's value has control characters: leave them out")
        _add(headers, name, value)
    try:
        _length(headers, modern=modern)
    except PushError as error:
        return error
    return InvalidRequest("the headers are not valid HTTP/1.1: see RFC 9112")
