"""Requests against RFC 9112, in pieces of any size, and against what Tornado makes of them."""

import asyncio
import contextlib
import os
import socket
import time
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tornado.http1connection import (
    HTTP1Connection,
    HTTP1ConnectionParameters,
    HTTP1ServerConnection,
)
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import IOStream

from pushsvc.errors import (
    InvalidRequest,
    PayloadTooLarge,
    PushError,
    UnsupportedTransferEncoding,
)
from pushsvc.protocol.requests import (
    FIELDS_ALIKE,
    MAX_ALIKE,
    MOST_ALIKE,
    Head,
    RequestReader,
    _parse_once,
)
from tests.unit.protocol.request_corpus import (
    CORPUS,
    MAX_FIELDS,
    MAX_HEAD,
    NEXT,
    Case,
    chunked,
    get,
    post,
)

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "300"))
"""How many inputs the fuzzing tests make; a nightly run takes more."""


def reader() -> RequestReader:
    _parse_once.cache_clear()  # each parses for itself
    return RequestReader(MAX_HEAD, MAX_FIELDS)


def fields_of(head: Head) -> tuple[object, ...]:
    return tuple(getattr(head, name) for name in head.__struct_fields__)


def served(
    data: bytes, step: int | None = None
) -> tuple[list[tuple[Head, bytes]], PushError | None]:
    """The requests of one connection as a server would take them, and what refused the next."""
    read, whole, head, body = reader(), list[tuple[Head, bytes]](), None, b""
    step = step or max(1, len(data))
    try:
        for at in range(0, len(data), step):
            read.feed(data[at : at + step])
            while head is not None or (head := read.head()) is not None:
                body += read.body()
                if not read.complete:
                    break
                whole.append((head, body))
                if not head.keep_alive:
                    return whole, None
                head, body = None, b""
    except PushError as error:
        return whole, error
    return whole, None


def told(method: str, target: str, body: bytes) -> str:
    return f"{method} {target} {body.decode('latin-1')}".rstrip()


def ours(data: bytes, step: int | None = None) -> str:
    whole, error = served(data, step)
    parts = [told(head.method, head.target, body) for head, body in whole]
    return "; ".join(parts if error is None else [*parts, str(error.status)])


def one(data: bytes) -> Head:
    read = reader()
    read.feed(data)
    head = read.head()
    assert head is not None
    return head


def refusal(data: bytes) -> PushError:
    error = served(data)[1]
    assert error is not None
    return error


# What is well formed


def test_heads_of_posts_that_are_alike_are_one_and_few_and_small_ones_are_remembered() -> None:
    def head(data: bytes) -> Head | None:
        read = RequestReader(2 * MAX_ALIKE, 2 * FIELDS_ALIKE)
        read.feed(data)
        return read.head()

    _parse_once.cache_clear()
    alike = post("X-A: b", "Content-Length: 12")
    assert head(alike) is head(alike)
    assert head(alike) is not head(post("X-A: c", "Content-Length: 12"))
    lines = [f"X-{number}: b" for number in range(FIELDS_ALIKE)]
    # What connects comes once.
    for other in (get(), post("X-A: " + "b" * MAX_ALIKE), post(*lines)):
        assert head(other) is not head(other)
    for _ in range(2):
        with pytest.raises(InvalidRequest):
            head(post("Content-Length: -1"))
    for number in range(MOST_ALIKE + 10):
        head(post(f"X-A: {number}"))
    assert _parse_once.cache_info().currsize == MOST_ALIKE


def test_a_head_says_what_was_sent() -> None:
    head = one(post("X-A:  b c\t", "Content-Length: 12"))
    assert (head.method, head.target, head.version) == ("POST", "/", "HTTP/1.1")
    assert head.headers == {"host": "a", "x-a": "b c", "content-length": "12"}
    assert (head.length, head.keep_alive, head.expects) == (12, True, False)


def test_a_repeated_field_is_one_list_and_cookies_are_one_cookie() -> None:
    head = one(get("X: 1", "x: 2, 3", "Cookie: a=1", "cookie: b=2"))
    assert head.headers == {"host": "a", "x": "1, 2, 3", "cookie": "a=1; b=2"}


def test_bytes_beyond_ascii_are_latin_1() -> None:
    assert one(get("X: \xe4\xff")).headers["x"] == "\xe4\xff"


@pytest.mark.parametrize(
    ("data", "length"),
    [
        (get(), 0),
        (post("Content-Length: 0"), 0),
        (post("Content-Length: 0042"), 42),
        (post("Content-Length: " + "9" * 16), 10**16 - 1),
        (post("Transfer-Encoding: chunked"), -1),
        (post("Transfer-Encoding: Chunked"), -1),
    ],
)
def test_the_length_is_that_of_the_body(data: bytes, length: int) -> None:
    assert one(data).length == length


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        (get(), True),
        (get("Connection: keep-alive"), True),
        (get("Connection: Upgrade, x"), True),
        (get("Connection: close"), False),
        (get("Connection: x ,\tCLOSE"), False),
        (get("Connection: x", "Connection: close"), False),
        (get("Connection: closed"), True),
        (get(line="GET / HTTP/1.0"), False),
        (get("Connection: keep-alive", line="GET / HTTP/1.0"), False),
    ],
)
def test_a_connection_is_kept_unless_it_is_old_or_to_be_closed(data: bytes, kept: bool) -> None:  # noqa: FBT001
    assert one(data).keep_alive is kept


def test_only_a_client_of_http_1_1_waits_to_be_told_to_continue() -> None:
    assert one(post("Expect: 100-Continue")).expects
    assert not one(post("Expect: something")).expects
    assert not one(post("Expect: 100-continue", version="1.0")).expects


def test_a_target_with_its_host_is_a_path_and_that_host() -> None:
    head = one(get(line="GET HTTPS://b:81/c?d=http://e HTTP/1.1"))
    assert (head.target, head.headers["host"]) == ("/c?d=http://e", "b:81")


def test_what_follows_a_request_stays_where_it_is() -> None:
    read = reader()
    read.feed(post("Content-Length: 3", body=b"abcdef"))
    assert read.head() is not None
    assert (read.buffered, read.complete) == (6, False)
    assert (read.body(), read.body(), read.complete) == (b"abc", b"", True)
    assert (read.buffered, read.rest(), read.buffered) == (3, b"def", 0)


def test_behind_chunks_too() -> None:
    read = reader()
    read.feed(chunked(b"3\r\nabc\r\n0\r\n\r\ndef"))
    assert read.head() is not None
    assert (read.complete, read.body(), read.complete) == (False, b"abc", True)
    assert (read.body(), read.rest()) == (b"", b"def")


def test_a_body_can_be_taken_as_it_comes() -> None:
    read = reader()
    read.feed(post("Content-Length: 5", body=b"ab"))
    assert read.head() is not None
    assert (read.body(), read.body()) == (b"ab", b"")
    read.feed(b"cde")
    assert (read.body(), read.complete) == (b"cde", True)


def test_the_next_head_is_not_looked_for_in_a_body() -> None:
    read = reader()
    read.feed(post("Content-Length: 50", body=NEXT))
    read.head()
    with pytest.raises(RuntimeError):
        read.head()


# What is refused, and what its sender is told


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (post("Content-Length: 3", "Content-Length: 3"), "two Content-Length"),
        (post("Content-Length: 3, 4"), "two Content-Length"),
        (post("Content-Length: +3"), "digits"),
        (post("Content-Length: 3", "Transfer-Encoding: chunked"), "send one of them"),
        (post("Transfer-Encoding: chunked", "Content-Length: 3"), "send one of them"),
        (post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), "chunked twice"),
        (
            post("Transfer-Encoding: chunked", "Transfer-Encoding: gzip"),
            "does not end with chunked",
        ),
        (post("Transfer-Encoding: chunked", version="1.0"), "HTTP/1.0"),
        (get("X : a"), "white space before its colon"),
        (get(": a"), "no name"),
        (get("X"), "no colon"),
        (get("X: a", " b"), "begins with white space"),
        (get("X[: a"), "name has characters"),
        (get("X: \x01"), "control characters"),
        (get("X: \0"), "a NUL"),
        (get("X: a\nY: b"), "CRLF"),
        (get("X: a\rY: b"), "CRLF"),
        (get(host=None), "no Host"),
        (get("Host: a"), "one host"),
        (get(host="Host: a b"), "one host"),
        (get(line="GE(T / HTTP/1.1"), "method"),
        (get(line="GET / HTTP/2.0"), "send HTTP/1.1"),
        (get(line="GET  / HTTP/1.1"), "one space"),
        (get(line="GET /#a HTTP/1.1"), "target"),
        (get(line="GET a HTTP/1.1"), "begin it with /"),
        (b"\r\n\r\n", "leave them out"),
    ],
)
def test_a_refusal_says_what_to_change(data: bytes, detail: str) -> None:
    error = refusal(data)
    assert type(error) is InvalidRequest
    assert detail in error.detail


def test_a_length_that_no_body_can_have_is_too_large() -> None:
    error = refusal(post("Content-Length: " + "1" * 17))
    assert type(error) is PayloadTooLarge
    assert "16 digits" in error.detail


def test_bytes_over_127_in_a_target_stand_as_iso_8859_1() -> None:
    head = one(get(line="GET /a?b=\xf6 HTTP/1.1"))
    assert head.target == "/a?b=\xf6"


def test_another_transfer_coding_is_not_implemented() -> None:
    error = refusal(post("Transfer-Encoding: gzip, chunked"))
    assert (type(error), error.status) == (UnsupportedTransferEncoding, 501)


@pytest.mark.parametrize("step", [None, 1, 3])
def test_a_head_has_so_many_bytes_and_no_more(step: int | None) -> None:
    fill = MAX_HEAD - len(get("X: "))
    assert ours(get("X: " + "a" * fill) + NEXT, step) == "GET /; GET /next"
    assert ours(get("X: " + "a" * (fill + 1)), step) == "431"
    assert ours(b"a" * MAX_HEAD, step) == "431"
    assert ours(b"a" * (MAX_HEAD - 1), step) == ""


@pytest.mark.parametrize("step", [None, 1, 3])
def test_a_head_has_so_many_lines_and_no_more(step: int | None) -> None:
    assert ours(get(*["X: a"] * (MAX_FIELDS - 1)), step) == "GET /"
    assert ours(get(*["X: a"] * MAX_FIELDS), step) == "431"


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\n", b"\n", b"\0", b"GET / HTTP/1.1\r\nX: a\rb"])
def test_what_can_be_in_no_head_is_refused_before_the_head_ends(data: bytes) -> None:
    assert "CRLF" in refusal(data).detail


@pytest.mark.parametrize("data", [get("X"), chunked(b"x\r\n"), b"a" * MAX_HEAD])
def test_after_an_error_nothing_is_read_or_kept(data: bytes) -> None:
    read = reader()
    read.feed(data)
    with pytest.raises(PushError) as first:
        assert read.head() is None or read.body()
    for _ in range(2):
        read.feed(NEXT)
        assert (read.buffered, read.rest()) == (0, b"")
        for again in (read.head, read.body):
            with pytest.raises(type(first.value), match=first.value.detail[:20]):
                again()


# The corpus, and Tornado


@pytest.mark.parametrize("case", CORPUS.values(), ids=CORPUS)
@pytest.mark.parametrize("step", [None, 1, 2, 7])
def test_each_input_is_read_as_the_table_says(case: Case, step: int | None) -> None:
    assert ours(case.data, step) == case.ours


class Served(HTTPServerConnectionDelegate):
    """Answers each request that Tornado reads, and notes it."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.closed = asyncio.Event()

    def start_request(
        self,
        server_conn: object,  # noqa: ARG002
        request_conn: HTTPConnection,
    ) -> HTTPMessageDelegate:
        assert isinstance(request_conn, HTTP1Connection)
        return Taken(self.requests, request_conn)

    def on_close(self, server_conn: object) -> None:  # noqa: ARG002
        self.closed.set()


class Taken(HTTPMessageDelegate):
    def __init__(self, requests: list[str], connection: HTTP1Connection) -> None:
        self._requests, self._connection, self._body = requests, connection, b""

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> None:
        assert isinstance(start_line, RequestStartLine)
        self._line = start_line
        # As its server does; this checks the host.
        HTTPServerRequest(start_line=start_line, headers=headers, connection=self._connection)

    def data_received(self, chunk: bytes) -> None:
        self._body += chunk

    def finish(self) -> None:
        self._requests.append(told(self._line.method, self._line.path, self._body))
        answer = ResponseStartLine("HTTP/1.1", 200, "OK")
        self._connection.write_headers(answer, HTTPHeaders({"Content-Length": "0"}))
        self._connection.finish()


async def tornado(data: bytes) -> str:
    """What Tornado reads of a connection whose client sends this and ends."""
    near, far = socket.socketpair()
    with far:
        far.setblocking(False)
        delegate = Served()
        parameters = HTTP1ConnectionParameters(max_header_size=MAX_HEAD, max_body_size=1 << 20)
        HTTP1ServerConnection(IOStream(near), parameters).start_serving(delegate)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(far, data)
        far.shutdown(socket.SHUT_WR)
        await delegate.closed.wait()
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := await loop.sock_recv(far, 65_536):
                answer += piece
    refused = ["400"] if b" 400 " in answer else []
    return "; ".join([*delegate.requests, *refused])


@pytest.mark.parametrize("case", CORPUS.values(), ids=CORPUS)
async def test_where_tornado_reads_otherwise_is_known(case: Case) -> None:
    found = await tornado(case.data)
    if case.tornado is None:
        assert found == case.ours.replace("501", "400")
    else:
        assert found == case.tornado
        assert case.why


# Properties

tokens = st.text("abcXYZ-!~09", min_size=1, max_size=8)
values = st.text([*map(chr, [9, *range(32, 127), *range(128, 256)])], max_size=12)
targets = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#"), max_size=12
).map("/{}".format)


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, tuple[object, ...]]:
    """A valid request, and what is to be read of it."""
    fields = draw(st.lists(st.tuples(tokens, values), max_size=4, unique_by=lambda x: x[0].lower()))
    head = {name.lower(): value.strip(" \t") for name, value in fields}
    lines = [f"{name}:{value}" for name, value in fields]
    method, target = draw(tokens), draw(targets)
    body, raw = draw(st.binary(max_size=40)), b""
    match draw(st.sampled_from(["none", "length", "chunks"])):
        case "none":
            body, length = b"", 0
        case "length":
            raw, length = body, len(body)
            lines.append(f"content-LENGTH: {length}\t")
            head["content-length"] = str(length)
        case _:
            length = -1
            size = draw(st.integers(1, 41))
            pieces = [body[at : at + size] for at in range(0, len(body), size)]
            raw = b"".join(b"%X;x\r\n%s\r\n" % (len(each), each) for each in pieces)
            raw += b"0\r\nX: trailer\r\n\r\n"
            lines.append("Transfer-Encoding: chunked")
            head["transfer-encoding"] = "chunked"
    head["host"] = "a"
    data = draw(st.sampled_from([b"", b"\r\n"])) + get(*lines, line=f"{method} {target} HTTP/1.1")
    return data + raw, (method, target, "HTTP/1.1", head, length, True, False, body)


@given(st.lists(requests(), max_size=4))
def test_what_was_sent_is_what_is_read(sent: list[tuple[bytes, tuple[object, ...]]]) -> None:
    whole, error = served(b"".join(data for data, _ in sent))
    assert error is None
    assert [(*fields_of(head), body) for head, body in whole] == [each for _, each in sent]


@settings(max_examples=60)
@given(st.lists(requests(), min_size=1, max_size=3))
def test_wherever_requests_are_cut_they_are_the_same(
    sent: list[tuple[bytes, tuple[object, ...]]],
) -> None:
    data, expected = b"".join(raw for raw, _ in sent), [each for _, each in sent]
    for cut in range(1, len(data)):
        read, found, head, body = reader(), list[tuple[object, ...]](), None, b""
        for piece in (data[:cut], data[cut:]):
            read.feed(piece)
            while head is not None or (head := read.head()) is not None:
                body += read.body()
                if not read.complete:
                    break
                found.append((*fields_of(head), body))
                head, body = None, b""
        assert found == expected, cut


SEEDS = [case.data for case in CORPUS.values()]
splices = st.sampled_from([b"\r\n", b"\n", b"\r", b"\0", b":", b" ", b"\t", b",", b"chunked", b"0"])


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Something near the corpus: inputs joined, bytes changed, parts doubled, left out, put in."""
    data = b"".join(draw(st.lists(st.sampled_from(SEEDS), min_size=1, max_size=3)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        until = min(len(data), at + draw(st.integers(0, 12)))
        part = data[at:until]
        new = draw(st.one_of(st.just(b""), st.just(part * 2), splices, st.binary(max_size=4)))
        data = data[:at] + new + data[until:]
    return data


@settings(max_examples=EXAMPLES, deadline=None)
@given(mutated(), st.integers(1, 9))
def test_whatever_comes_is_read_or_refused_alike_in_any_pieces(data: bytes, step: int) -> None:
    assert ours(data, step) == ours(data)


@settings(max_examples=EXAMPLES, deadline=None)
@given(mutated(), st.integers(1, 9))
def test_whatever_comes_only_so_much_of_it_waits(data: bytes, step: int) -> None:
    """A server that takes what there is holds one head, or one line of chunks, and a piece."""
    read, head = reader(), None
    with contextlib.suppress(PushError):
        for at in range(0, len(data), step):
            read.feed(data[at : at + step])
            while head is not None or (head := read.head()) is not None:
                read.body()
                if not read.complete:
                    break
                head = None
            assert read.buffered <= MAX_HEAD + step


# Costs


def by_single_bytes(data: bytes, max_head: int) -> float:
    read, head = RequestReader(max_head, 1 << 20), None
    pieces = [data[at : at + 1] for at in range(len(data))]
    began = time.process_time()
    for piece in pieces:
        read.feed(piece)
        if head is not None or (head := read.head()) is not None:
            read.body()
    return time.process_time() - began


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda size: get("X: " + "a" * size), 16_384),
        (lambda size: get(*["X: a"] * (size // 6)), 16_384),
        (lambda size: b"GET /" + b"a" * size, 16_384),
        (lambda size: chunked(b"%x\r\n" % size + b"a" * size), 1 << 20),
        (lambda size: chunked(b"1\r\nx\r\n" * (size // 6)), 1 << 20),
    ],
    ids=["a long header", "many headers", "a long line", "a long chunk", "many chunks"],
)
def test_single_bytes_take_time_in_proportion(make: Callable[[int], bytes], size: int) -> None:
    long, short = make(size), make(size // 4)
    for _ in range(5):
        most = 4 * 2.5 * by_single_bytes(short, 32_768) + 0.002
        if by_single_bytes(long, 32_768) <= most:
            return
    pytest.fail("it takes more than in proportion")


def test_a_reader_between_requests_holds_nothing_of_them() -> None:
    read = RequestReader(16_384, 100)
    data = post("Content-Length: 9000", "X: " + "a" * 7000, body=b"b" * 9000)

    def serve() -> None:
        read.feed(data)
        assert read.head() is not None
        assert len(read.body()) == 9000

    serve()
    tracemalloc.start()
    try:
        serve()
        assert tracemalloc.get_traced_memory()[0] < 1000
    finally:
        tracemalloc.stop()
