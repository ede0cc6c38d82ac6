"""The chunked coding: what its grammar says and nothing else, in pieces of any size."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pushsvc.errors import InvalidRequest, PushError
from pushsvc.protocol.chunks import ChunkReader

ROOM = 1000


def read(data: bytes, *, step: int | None = None, room: int = ROOM) -> tuple[bytes, bytes, bool]:
    """The body, what follows it, and whether it is whole."""
    reader, buffer, body = ChunkReader(room), bytearray(), b""
    step = step or max(1, len(data))
    for at in range(0, len(data), step):
        buffer += data[at : at + step]
        if not reader.complete:
            body += reader.take(buffer)
    return body, bytes(buffer), reader.complete


WHOLE = {
    "no data": (b"0\r\n\r\n", b""),
    "one chunk": (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    "hex digits": (b"a\r\n0123456789\r\nA\r\n9876543210\r\n0\r\n\r\n", b"01234567899876543210"),
    "zeros before a size": (b"0000000000000005\r\nhello\r\n000\r\n\r\n", b"hello"),
    "extensions": (b'1;a\r\nx\r\n1;a=b;c="d e"\r\ny\r\n0;z\r\n\r\n', b"xy"),
    "trailers": (b"1\r\nx\r\n0\r\nDigest: a b\r\nX:\r\n\r\n", b"x"),
    "data that looks like the end": (b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", b"\r\n0\r\n\r\n"),
}  # fmt: skip


@pytest.mark.parametrize("case", WHOLE)
@pytest.mark.parametrize("step", [None, 1, 2, 3])
def test_a_body_is_what_its_chunks_hold(case: str, step: int | None) -> None:
    data, body = WHOLE[case]
    assert read(data, step=step) == (body, b"", True)
    assert read(data + b"GET / HTTP/1.1\r\n", step=step) == (body, b"GET / HTTP/1.1\r\n", True)


REFUSED = {
    "no size": b"\r\nx",
    "a sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "a minus": b"-5\r\n",
    "0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "an underscore": b"1_0\r\n",
    "a space before the size": b" 5\r\nhello\r\n0\r\n\r\n",
    "a space behind the size": b"5 \r\nhello\r\n0\r\n\r\n",
    "a tab behind the size": b"5\t\r\nhello\r\n0\r\n\r\n",
    "a space before an extension": b"5 ;a\r\nhello\r\n0\r\n\r\n",
    "no hex digit": b"g\r\n",
    "other digits than ASCII's": "\u0665\r\nhello\r\n0\r\n\r\n".encode(),
    "17 digits": b"00000000000000005\r\nhello\r\n0\r\n\r\n",
    "a bare LF behind the size": b"5\nhello\r\n0\r\n\r\n",
    "a bare CR behind the size": b"5\rhello\r\n0\r\n\r\n",
    "a bare LF in an extension": b"5;\nhello\r\n0\r\n\r\n",
    "a bare CR in an extension": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "a NUL in an extension": b"5;a\0b\r\nhello\r\n0\r\n\r\n",
    "an extension that is too long": b"5;" + b"a" * 255 + b"\r\nhello\r\n0\r\n\r\n",
    "data longer than its size": b"5\r\nhello!\r\n0\r\n\r\n",
    "data shorter than its size": b"5\r\nhell\r\n0\r\n\r\n",
    "no CRLF behind the data": b"5\r\nhello0\r\n\r\n",
    "a bare LF behind the data": b"5\r\nhello\n0\r\n\r\n",
    "a CR and no LF behind the data": b"5\r\nhello\rX0\r\n\r\n",
    "a trailer without a colon": b"0\r\nabc\r\n\r\n",
    "a trailer with a space before its colon": b"0\r\nA : b\r\n\r\n",
    "a folded trailer": b"0\r\nA: b\r\n c\r\n\r\n",
    "a bare LF behind the last chunk": b"0\r\n\n",
    "a bare LF in a trailer": b"0\r\nA: b\n\r\n",
    "a bare CR in a trailer": b"0\r\nA: b\rc\r\n\r\n",
    "a NUL in a trailer": b"0\r\nA: \0\r\n\r\n",
    "a request in place of the end": b"0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("step", [None, 1, 2])
def test_what_the_grammar_does_not_say_is_refused(case: str, step: int | None) -> None:
    with pytest.raises(InvalidRequest, match="chunk"):
        read(REFUSED[case], step=step)


@pytest.mark.parametrize(
    "data", [b"5\n", b"5 ", b"x", b"1\r\nab", b"0\r\n\n", b"0\r\nA: b\n", b"0\r\n\0"]
)
def test_what_cannot_become_right_is_refused_before_its_line_ends(data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read(data)


@pytest.mark.parametrize("step", [None, 1, 7])
def test_trailers_have_so_many_bytes_and_no_more(step: int | None) -> None:
    line = b"A: " + b"b" * (ROOM - 5) + b"\r\n"
    assert read(b"0\r\n" + line + b"\r\n", step=step) == (b"", b"", True)
    for more in (b"0\r\n" + line + b"A:\r\n\r\n", b"0\r\nA: " + b"b" * ROOM):
        with pytest.raises(InvalidRequest, match="too many bytes of extensions and trailers"):
            read(more, step=step)


@pytest.mark.parametrize("step", [None, 1, 7])
def test_the_extensions_of_all_chunks_are_bounded_together(step: int | None) -> None:
    chunk = b"1;" + b"a" * 99 + b"\r\nx\r\n"
    assert read(chunk * 10, step=step) == (b"x" * 10, b"", False)
    with pytest.raises(InvalidRequest, match="too many bytes of extensions and trailers"):
        read(chunk * 11, step=step)


def test_nothing_is_allocated_for_a_size_that_is_only_announced() -> None:
    assert read(b"ffffffffffffffff\r\nabc") == (b"abc", b"", False)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.data())
def test_a_body_comes_out_as_it_was_whatever_its_chunks_and_pieces(
    chunks: list[bytes], data: st.DataObject
) -> None:
    raw = b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in chunks) + b"0\r\n\r\n"
    step = data.draw(st.integers(1, len(raw)))
    assert read(raw + b"rest", step=step) == (b"".join(chunks), b"rest", True)


@settings(max_examples=300)
@given(st.text("0123456789aAfF;=\r\n\0 \t:x", max_size=30).map(str.encode), st.integers(1, 5))
def test_pieces_change_nothing_of_what_is_read_or_refused(data: bytes, step: int) -> None:
    def outcome(size: int | None) -> object:
        try:
            return read(data, step=size)
        except PushError as error:
            return type(error)

    assert outcome(step) == outcome(None)


def by_single_bytes(data: bytes) -> float:
    began = time.process_time()
    read(data, step=1, room=1 << 20)
    return time.process_time() - began


@pytest.mark.parametrize(
    "make",
    [
        lambda size: b"%x\r\n" % size + b"a" * size + b"\r\n",
        lambda size: b"1\r\nx\r\n" * (size // 6),
        lambda size: (b"1;" + b"a" * 254 + b"\r\nx\r\n") * (size // 261),
        lambda size: b"0\r\nA: " + b"b" * size,
        lambda size: b"0\r\n" + b"A: b\r\n" * (size // 6),
    ],
    ids=["one chunk", "small chunks", "extensions", "a trailer", "trailers"],
)
def test_single_bytes_take_time_in_proportion(make: object) -> None:
    assert callable(make)
    small = min(by_single_bytes(make(1 << 14)) for _ in range(3))
    large = min(by_single_bytes(make(1 << 16)) for _ in range(3))
    assert large < 4 * 2.5 * small + 0.01
