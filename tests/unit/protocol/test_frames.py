"""The framing layer against RFC 6455, the Autobahn suite's verdicts and the websockets library."""

import base64
import struct
import tracemalloc
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import cycle, product
from typing import TypeVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.frames import Close as OracleClose
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from pushsvc.codes import Close
from pushsvc.protocol import frames
from pushsvc.protocol.frames import (
    BINARY,
    TEXT,
    Closed,
    Event,
    FrameReader,
    Message,
    Ping,
    Pong,
    ProtocolError,
)

T = TypeVar("T")

CONTINUATION, CLOSE, PING, PONG = 0x0, 0x8, 0x9, 0xA
KEY = b"\x37\xfa\x21\x3d"
LARGEST = 1 << 20

fast = settings(max_examples=150, deadline=None)


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = True,
    key: bytes = KEY,
    form: int | None = None,
    length: int | None = None,
) -> bytes:
    """A client's frame, or something near it: ``form`` forces the length's encoding."""
    size = len(payload) if length is None else length
    if form is None:
        form = size if size < 126 else 126 if size < 65536 else 127
    header = bytes((fin << 7 | rsv << 4 | opcode, masked << 7 | form))
    header += struct.pack("!H", size & 0xFFFF) if form == 126 else b""
    header += struct.pack("!Q", size) if form == 127 else b""
    if not masked:
        return header + payload
    return header + key + bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


def reader(max_message: int = LARGEST, max_fragments: int = 1024) -> FrameReader:
    return FrameReader(max_message=max_message, max_fragments=max_fragments)


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    """``data`` in chunks of the given sizes, over and over."""
    start = 0
    for size in cycle(sizes):
        if start >= len(data):
            return
        yield data[start : start + size]
        start += size


def read(data: bytes, sizes: list[int] | None = None) -> list[Event]:
    of_all = reader()
    return [event for chunk in cut(data, sizes or [LARGEST]) for event in of_all.feed(chunk)]


def refusal(data: bytes, of: FrameReader | None = None) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        (of or reader()).feed(data)
    return caught.value


def held(by: FrameReader) -> int:
    """Bytes of the peer's data that a reader holds."""
    values = [getattr(by, slot, None) for slot in FrameReader.__slots__ if slot != "_key"]
    return sum(len(value) for value in values if isinstance(value, bytes | bytearray))


# -- strategies

chunk_sizes = st.one_of(
    st.just([1]),
    st.lists(st.integers(1, 12), min_size=1, max_size=8),
    st.lists(st.integers(1, 2000), min_size=1, max_size=8),
)
keys = st.binary(min_size=4, max_size=4)
control_payloads = st.binary(max_size=125)
texts = st.text(max_size=60).map(str.encode)
long_texts = st.integers(0, 700).map(lambda n: "aé€😀".encode() * n)
payloads = st.binary(max_size=300)


@dataclass
class Stream:
    wire: bytes
    events: list[Event]


@st.composite
def control_frames(draw: st.DrawFn) -> tuple[bytes, Event]:
    payload, key = draw(control_payloads), draw(keys)
    if draw(st.booleans()):
        return frame(PING, payload, key=key), Ping(payload)
    return frame(PONG, payload, key=key), Pong(payload)


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    """Messages cut into fragments anywhere, control frames anywhere, and maybe a close."""
    wire, events = b"", list[Event]()
    for _ in range(draw(st.integers(0, 5))):
        for sent, event in draw(st.lists(control_frames(), max_size=2)):
            wire, events = wire + sent, [*events, event]
        opcode = draw(st.sampled_from((TEXT, BINARY)))
        payload = draw(st.one_of(texts, long_texts) if opcode == TEXT else payloads)
        stops = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=4)))
        bounds = list(zip([0, *stops], [*stops, len(payload)], strict=True))
        for i, (start, stop) in enumerate(bounds):
            wire += frame(
                CONTINUATION if i else opcode,
                payload[start:stop],
                fin=i == len(bounds) - 1,
                key=draw(keys),
            )
            if i < len(bounds) - 1:
                for sent, event in draw(st.lists(control_frames(), max_size=2)):
                    wire, events = wire + sent, [*events, event]
        events.append(Message(opcode, payload))
    if draw(st.booleans()):
        reason = draw(st.text(max_size=30))
        wire += frame(CLOSE, struct.pack("!H", 1000) + reason.encode())
        events.append(Closed(1000, reason))
    return Stream(wire, events)


# -- properties


@fast
@given(streams(), chunk_sizes)
def test_a_valid_stream_reads_the_same_however_it_is_cut(stream: Stream, sizes: list[int]) -> None:
    assert read(stream.wire) == stream.events
    of_all = reader()
    events = [event for chunk in cut(stream.wire, sizes) for event in of_all.feed(chunk)]
    assert events == stream.events
    over = bool(events) and isinstance(events[-1], Closed)
    assert of_all.idle is not over
    assert held(of_all) == 0


@st.composite
def near_frames(draw: st.DrawFn) -> bytes:
    return frame(
        draw(st.sampled_from((0, 0, 1, 1, 2, 8, 9, 10, 3, 11))),
        draw(st.binary(max_size=40)),
        fin=draw(st.booleans()),
        rsv=draw(st.sampled_from((0, 0, 0, 0, 0, 1, 4))),
        masked=draw(st.sampled_from((True, True, True, True, False))),
        key=draw(keys),
        form=draw(st.sampled_from((None, None, None, None, 126, 127))),
        length=draw(st.none() | st.none() | st.integers(0, 200) | st.integers(0, (1 << 64) - 1))
        if draw(st.booleans())
        else None,
    )


@st.composite
def noise(draw: st.DrawFn) -> bytes:
    parts = st.one_of(near_frames(), near_frames(), near_frames(), st.binary(max_size=30))
    return b"".join(draw(st.lists(parts, max_size=8)))


@settings(max_examples=400, deadline=None)
@given(noise(), chunk_sizes)
def test_arbitrary_bytes_raise_nothing_else_and_are_held_within_the_bound(
    data: bytes, sizes: list[int]
) -> None:
    bound, tail = 64 + 131, 3
    of_all = reader(max_message=64, max_fragments=5)
    over = False
    for chunk in cut(data, sizes):
        try:
            events = of_all.feed(chunk)
        except ProtocolError as error:
            assert not over
            over, events = True, error.events
        else:
            assert not over or not events
            over = over or any(isinstance(event, Closed) for event in events)
        assert held(of_all) <= bound + tail
        assert not over or held(of_all) == 0
        for event in events:
            assert not isinstance(event, Message) or len(event.payload) <= 64


WELL_FORMED = [  # table 3-7 of the Unicode standard: the bytes of each kind of code point
    [(0x00, 0x7F)],
    [(0xC2, 0xDF), (0x80, 0xBF)],
    [(0xE0, 0xE0), (0xA0, 0xBF), (0x80, 0xBF)],
    [(0xE1, 0xEC), (0x80, 0xBF), (0x80, 0xBF)],
    [(0xED, 0xED), (0x80, 0x9F), (0x80, 0xBF)],
    [(0xEE, 0xEF), (0x80, 0xBF), (0x80, 0xBF)],
    [(0xF0, 0xF0), (0x90, 0xBF), (0x80, 0xBF), (0x80, 0xBF)],
    [(0xF1, 0xF3), (0x80, 0xBF), (0x80, 0xBF), (0x80, 0xBF)],
    [(0xF4, 0xF4), (0x80, 0x8F), (0x80, 0xBF), (0x80, 0xBF)],
]
EDGES = sorted(
    {edge + step for row in WELL_FORMED for r in row for edge in r for step in (-1, 0, 1)}
)
EDGES = [edge for edge in EDGES if 0 <= edge <= 0xFF]


def doomed_at(text: bytes) -> int | None:
    """Which byte makes ``text`` invalid: its length where the end does, None where none does."""
    due: list[tuple[int, int]] = []
    for i, byte in enumerate(text):
        if not due:
            due = next((row for row in WELL_FORMED if row[0][0] <= byte <= row[0][1]), [(1, 0)])
        (low, high), *due = due
        if not low <= byte <= high:
            return i
    return len(text) if due else None


def test_the_reference_for_utf8_agrees_with_python() -> None:
    for text in map(bytes, product(EDGES, repeat=3)):
        try:
            text.decode()
        except UnicodeDecodeError:
            assert doomed_at(text) is not None
        else:
            assert doomed_at(text) is None


@st.composite
def maybe_texts(draw: st.DrawFn) -> bytes:
    text = draw(st.text(max_size=20)).encode()
    for wrong in draw(st.lists(st.lists(st.sampled_from(EDGES), max_size=3), max_size=2)):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + bytes(wrong) + text[at + draw(st.integers(0, 1)) :]
    return text


@settings(max_examples=400, deadline=None)
@given(maybe_texts(), st.lists(st.integers(0, 80), max_size=3), keys, chunk_sizes)
@example("κόσμε".encode() + b"\xf4\x90", [11], KEY, [1])
@example(b"\xed\xa0\x80", [], KEY, [1])
@example(b"\xed\xa0\x80", [2], KEY, [1])
def test_invalid_utf8_is_refused_with_the_very_byte_that_makes_it_so(
    text: bytes, stops: list[int], key: bytes, sizes: list[int]
) -> None:
    stops = sorted(stop for stop in stops if stop <= len(text))
    wire, places = b"", list[int]()
    for i, (start, stop) in enumerate(zip([0, *stops], [*stops, len(text)], strict=True)):
        opcode = CONTINUATION if i else TEXT
        wire += frame(opcode, text[start:stop], fin=i == len(stops), key=key)
        places += range(len(wire) - (stop - start), len(wire))
    places.append(len(wire) - 1)  # what is only wrong as the end is wrong with the last byte
    doom = doomed_at(text)

    of_all, fed, events = reader(), 0, list[Event]()
    for chunk in cut(wire, sizes):
        if doom is not None and fed <= places[doom] < fed + len(chunk):
            assert refusal(chunk, of_all).close == Close.INVALID_DATA
            return
        events += of_all.feed(chunk)
        fed += len(chunk)
    assert events == [Message(TEXT, text)]


def test_every_start_of_three_bytes_is_judged_like_the_reference_byte_by_byte() -> None:
    open_frame = frame(TEXT, length=100, key=bytes(4))
    for text in map(bytes, product(EDGES, repeat=3)):
        of_all, doom = reader(), doomed_at(text)
        of_all.feed(open_frame)
        for i in range(3):
            if i == doom:
                assert refusal(text[i : i + 1], of_all).close == Close.INVALID_DATA
                break
            assert of_all.feed(text[i : i + 1]) == []


# -- against the websockets library


def oracle(run: Callable[[StreamReader], Generator[None, None, T]], data: bytes) -> list[T]:
    """What the websockets library reads from ``data``, to its end."""
    stream, results = StreamReader(), list[T]()
    stream.feed_data(data)
    while stream.buffer:
        try:
            next(run(stream))
        except StopIteration as stop:
            results.append(stop.value)
        else:
            pytest.fail("the frame is not complete")
    return results


def from_server(data: bytes) -> list[Frame]:
    return oracle(lambda stream: Frame.parse(stream.read_exact, mask=False), data)


@fast
@given(streams())
def test_the_websockets_library_reads_the_same_from_a_client(stream: Stream) -> None:
    """Guards the guard: the streams made here are what RFC 6455 says, to another reader."""
    events, opcode, message = list[Event](), 0, b""
    parse = oracle(lambda stream: Frame.parse(stream.read_exact, mask=True), stream.wire)
    for got in parse:
        payload = bytes(got.data)
        if got.opcode is Opcode.CLOSE:
            close = OracleClose.parse(payload)
            events.append(Closed(close.code, close.reason))
        elif got.opcode in (Opcode.PING, Opcode.PONG):
            events.append((Ping if got.opcode is Opcode.PING else Pong)(payload))
        else:
            opcode, message = got.opcode or opcode, message + payload
            if got.fin:
                events.append(Message(int(opcode), message))
                message = b""
    assert read(stream.wire) == events


@fast
@given(st.lists(st.tuples(st.sampled_from((TEXT, BINARY)), texts | long_texts), max_size=4))
@example([(BINARY, bytes(size)) for size in (0, 1, 125, 126, 127, 65535, 65536, 70000)])
def test_what_the_websockets_library_sends_is_read(messages: list[tuple[int, bytes]]) -> None:
    wire = b"".join(Frame(Opcode(op), payload).serialize(mask=True) for op, payload in messages)
    assert read(wire) == [Message(op, payload) for op, payload in messages]


@fast
@given(st.lists(st.tuples(st.sampled_from((TEXT, BINARY)), payloads), max_size=4))
@example([(BINARY, bytes(size)) for size in (0, 1, 125, 126, 127, 65535, 65536, 70000)])
def test_what_is_encoded_is_read_by_the_websockets_library(
    messages: list[tuple[int, bytes]],
) -> None:
    wire = b"".join(frames.encode(opcode, payload) for opcode, payload in messages)
    assert from_server(wire) == [Frame(Opcode(op), payload) for op, payload in messages]
    assert wire == b"".join(Frame(Opcode(op), p).serialize(mask=False) for op, p in messages)


@fast
@given(control_payloads)
def test_control_frames_are_read_by_the_websockets_library(payload: bytes) -> None:
    wire = frames.pong(payload) + frames.PING + frames.text(payload) + frames.encode_close(None)
    assert from_server(wire) == [
        Frame(Opcode.PONG, payload),
        Frame(Opcode.PING, b""),
        Frame(Opcode.TEXT, payload),
        Frame(Opcode.CLOSE, b""),
    ]


@fast
@given(st.sampled_from((1000, 1001, 1011, 1014, 3000, 4001, 4999)), st.text(max_size=140))
@example(1000, "x" * 122 + "é")
@example(1000, "x" * 121 + "é")
@example(1000, "\ud800")
def test_a_close_reason_is_cut_to_123_bytes_between_code_points(code: int, reason: str) -> None:
    (got,) = from_server(frames.encode_close(code, reason))
    close = OracleClose.parse(got.data)
    assert close.code == code
    whole = reason.encode(errors="replace").decode()
    assert whole.startswith(close.reason)
    size = len(close.reason.encode())
    more = whole[len(close.reason) :][:1].encode()
    assert size <= 123
    assert not more or size + len(more) > 123


# -- what is refused, and with which close code


@pytest.mark.parametrize(
    ("wire", "close"),
    [
        pytest.param(frame(TEXT, b"hi", masked=False), 1002, id="not masked"),
        pytest.param(frame(PING, masked=False), 1002, id="control frame not masked"),
        pytest.param(frame(TEXT, b"hi", rsv=4), 1002, id="RSV1"),
        pytest.param(frame(TEXT, b"hi", rsv=2), 1002, id="RSV2"),
        pytest.param(frame(PONG, b"hi", rsv=1), 1002, id="RSV3 in a control frame"),
        *(pytest.param(frame(op), 1002, id=f"opcode {op}") for op in (3, 4, 5, 6, 7)),
        *(pytest.param(frame(op), 1002, id=f"opcode {op}") for op in (11, 12, 13, 14, 15)),
        *(pytest.param(frame(op, fin=False), 1002, id=f"part of {op}") for op in (8, 9, 10)),
        *(pytest.param(frame(op, bytes(126)), 1002, id=f"long {op}") for op in (8, 9, 10)),
        pytest.param(frame(CONTINUATION, b"x"), 1002, id="continuation first"),
        pytest.param(frame(TEXT) + frame(CONTINUATION), 1002, id="continuation after the end"),
        pytest.param(frame(TEXT, fin=False) + frame(TEXT), 1002, id="text within text"),
        pytest.param(frame(TEXT, b"a", fin=False) + frame(BINARY, fin=False), 1002, id="nested"),
        pytest.param(frame(TEXT, bytes(125), form=126), 1002, id="125 in 16 bits"),
        pytest.param(frame(TEXT, form=126), 1002, id="0 in 16 bits"),
        pytest.param(frame(BINARY, bytes(126), form=127), 1002, id="126 in 64 bits"),
        pytest.param(frame(BINARY, bytes(65535), form=127), 1002, id="65535 in 64 bits"),
        pytest.param(frame(BINARY, length=1 << 63), 1009, id="top bit of the length"),
        pytest.param(frame(BINARY, length=(1 << 64) - 1), 1009, id="all bits of the length"),
        pytest.param(frame(TEXT, b"\xff"), 1007, id="not UTF-8"),
        pytest.param(frame(TEXT, "é".encode()[:1]), 1007, id="half a code point"),
        pytest.param(frame(TEXT, b"\xed\xa0\x80"), 1007, id="a surrogate"),
        pytest.param(frame(TEXT, b"\xc0\x80"), 1007, id="an overlong NUL"),
        pytest.param(frame(TEXT, b"\xf4\x90\x80\x80"), 1007, id="beyond U+10FFFF"),
        pytest.param(
            frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION, b"\x82", fin=True),
            1007,
            id="half a code point in the last fragment",
        ),
        pytest.param(
            frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION), 1007, id="empty last fragment"
        ),
        pytest.param(frame(CLOSE, b"\x03"), 1002, id="close of one byte"),
        pytest.param(frame(CLOSE, b"\x03\xe8\xff"), 1007, id="close reason not UTF-8"),
        pytest.param(frame(CLOSE, b"\x03\xe8\xc3"), 1007, id="close reason of half a code point"),
    ],
)
def test_a_violation_is_refused_with_its_close_code(wire: bytes, close: int) -> None:
    error = refusal(wire)
    assert error.close == close
    assert str(error)
    for size in (1, 3):
        with pytest.raises(ProtocolError) as caught:
            read(wire, [size])
        assert caught.value.close == close


@pytest.mark.parametrize(
    "wire",
    [
        frame(TEXT, b"hi", masked=False),
        frame(TEXT, b"hi", rsv=1),
        frame(3, b"hi"),
        frame(PING, fin=False),
        frame(PONG, length=126),
        frame(CLOSE, length=65536),
        frame(CONTINUATION, b"hi"),
    ],
)
def test_what_the_first_two_bytes_tell_is_refused_with_them(wire: bytes) -> None:
    assert refusal(wire[:2]).close == Close.PROTOCOL_ERROR


VALID_CODES = [*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999]
INVALID_CODES = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]


@pytest.mark.parametrize("code", VALID_CODES)
def test_a_close_code_that_may_be_sent_is_read_and_written(code: int) -> None:
    payload = code.to_bytes(2) + "bye…".encode()
    assert read(frame(CLOSE, payload)) == [Closed(code, "bye…")]
    assert frames.encode_close(code, "bye…") == bytes((0x88, len(payload))) + payload


@pytest.mark.parametrize("code", INVALID_CODES)
def test_a_close_code_that_may_not_be_sent_is_neither_read_nor_written(code: int) -> None:
    assert refusal(frame(CLOSE, code.to_bytes(2))).close == Close.PROTOCOL_ERROR
    with pytest.raises(ValueError, match=str(code)):
        frames.encode_close(code)


def test_a_close_frame_may_be_empty() -> None:
    assert read(frame(CLOSE)) == [Closed(None, "")]
    assert frames.encode_close(None, "not sent") == b"\x88\x00"


@pytest.mark.parametrize("op", [CLOSE, PING, PONG])
def test_a_control_frame_of_126_bytes_is_not_encoded(op: int) -> None:
    assert len(frames.encode(op, bytes(125))) == 127
    with pytest.raises(ValueError, match="125"):
        frames.encode(op, bytes(126))
    with pytest.raises(ValueError, match="125"):
        frames.pong(bytes(126))


# -- limits


@pytest.mark.parametrize("size", [0, 20, 125, 126, 1000, 65535, 65536])
def test_a_message_may_be_as_large_as_the_limit_and_no_larger(size: int) -> None:
    payload = bytes(size)
    assert reader(size).feed(frame(TEXT, payload)) == [Message(TEXT, payload)]
    assert refusal(frame(TEXT, payload + b"x"), reader(size)).close == Close.TOO_BIG


@pytest.mark.parametrize("size", [11, 126, 65536, LARGEST, 1 << 62, 1 << 63])
def test_a_message_over_the_limit_is_refused_with_its_length_and_not_later(size: int) -> None:
    until_length = frame(BINARY, length=size)[:-4]
    of_all = reader(10)
    assert of_all.feed(until_length[:-1]) == []
    tracemalloc.start()
    try:
        assert refusal(until_length[-1:], of_all).close == Close.TOO_BIG
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()


def test_the_limit_is_on_the_sum_of_a_message_s_fragments() -> None:
    start = frame(TEXT, b"12345", fin=False)
    assert reader(10).feed(start + frame(CONTINUATION, b"67890")) == [Message(TEXT, b"1234567890")]
    of_all = reader(10)
    assert of_all.feed(start) == []
    assert refusal(frame(CONTINUATION, length=6)[:2], of_all).close == Close.TOO_BIG


def test_no_memory_is_set_aside_for_a_length_that_was_only_announced() -> None:
    of_all = reader(1 << 30)
    tracemalloc.start()
    try:
        assert of_all.feed(frame(BINARY, length=1 << 30)) == []
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()
    assert held(of_all) == 0


def test_a_message_may_have_as_many_fragments_as_the_limit_and_no_more() -> None:
    wire = frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b", fin=False)
    assert reader(max_fragments=3).feed(wire + frame(CONTINUATION, b"c")) == [Message(TEXT, b"abc")]
    of_all = reader(max_fragments=2)
    assert of_all.feed(wire) == []
    assert refusal(frame(CONTINUATION, b"c")[:2], of_all).close == Close.POLICY


def test_fragments_are_counted_anew_for_each_message() -> None:
    message = frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b")
    of_all = reader(max_message=2, max_fragments=2)
    assert of_all.feed(message * 5) == [Message(TEXT, b"ab")] * 5


def test_a_byte_at_a_time_is_gathered_in_place() -> None:
    """Linear time: nothing that grows with the message is copied for a byte."""
    wire = frame(TEXT, "é".encode() * 5000)
    of_all = reader()
    of_all.feed(wire[:9])
    gathered = of_all._message
    for i in range(9, len(wire) - 1):
        assert of_all.feed(wire[i : i + 1]) == []
        assert of_all._message is gathered
        assert held(of_all) <= len(gathered) + 3
    assert of_all.feed(wire[-1:]) == [Message(TEXT, "é".encode() * 5000)]


# -- the reader's life


def test_the_example_of_the_rfc_is_read() -> None:
    """RFC 6455, section 5.7."""
    masked = bytes((0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58))
    assert read(masked) == [Message(TEXT, b"Hello")]
    assert frames.text(b"Hello") == bytes((0x81, 0x05, 0x48, 0x65, 0x6C, 0x6C, 0x6F))
    assert frames.header(BINARY, 256) == bytes((0x82, 0x7E, 0x01, 0x00))
    assert frames.header(BINARY, 65536) == bytes((0x82, 0x7F, 0, 0, 0, 0, 0, 1, 0, 0))
    assert frames.PING == b"\x89\x00"


def test_events_before_a_violation_in_the_same_bytes_are_not_lost() -> None:
    error = refusal(frame(TEXT, b"one") + frame(PING, b"two") + frame(3) + frame(TEXT, b"three"))
    assert error.close == Close.PROTOCOL_ERROR
    assert error.events == [Message(TEXT, b"one"), Ping(b"two")]


def test_nothing_is_read_after_a_violation() -> None:
    of_all = reader()
    of_all.feed(frame(TEXT, b"begun", fin=False))
    refusal(frame(3), of_all)
    assert of_all.feed(frame(CONTINUATION) + frame(TEXT, b"x") + frame(3)) == []
    assert held(of_all) == 0
    assert not of_all.idle


def test_nothing_is_read_after_a_close() -> None:
    of_all = reader()
    wire = frame(TEXT, b"begun", fin=False) + frame(CLOSE) + frame(TEXT, b"x") + frame(3)
    assert of_all.feed(wire) == [Closed(None, "")]
    assert of_all.feed(frame(3)) == []
    assert held(of_all) == 0
    assert not of_all.idle


def test_a_reader_is_idle_exactly_between_messages() -> None:
    of_all = reader()
    assert of_all.idle
    wire = frame(PING, b"hi") + frame(TEXT, b"hello") + frame(BINARY, bytes(200)) + frame(TEXT)
    for byte in wire:
        done = of_all.feed(bytes((byte,)))
        assert of_all.idle is bool(done)


def test_a_reader_is_not_idle_between_the_fragments_of_a_message() -> None:
    of_all, idle = reader(), []
    for part in (frame(TEXT, fin=False), frame(PONG), frame(CONTINUATION, b"x")):
        of_all.feed(part)
        idle.append(of_all.idle)
    assert idle == [False, False, True]


def test_nothing_fed_makes_no_difference() -> None:
    of_all = reader()
    wire = frame(TEXT, b"hello")
    for i in range(len(wire)):
        assert of_all.feed(b"") == []
        got = of_all.feed(wire[i : i + 1])
    assert got == [Message(TEXT, b"hello")]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("size", [3, 1000])
def test_any_buffer_may_be_fed_and_reused_at_once(
    kind: Callable[[bytearray], bytes | bytearray | memoryview], size: int
) -> None:
    of_all, buffer, events = reader(), bytearray(size), list[Event]()
    for chunk in cut(frame(TEXT, b"hello") + frame(BINARY, b"x" * 300), [size]):
        buffer[: len(chunk)] = chunk
        events += of_all.feed(kind(buffer)[: len(chunk)])
        buffer[:] = bytes(size)
    assert events == [Message(TEXT, b"hello"), Message(BINARY, b"x" * 300)]
    assert all(type(event.payload) is bytes for event in events if isinstance(event, Message))


def test_an_error_does_not_carry_the_text_that_it_is_about() -> None:
    error = refusal(frame(TEXT, b"secret \xff"))
    assert error.__context__ is None
    assert "secret" not in str(error)


# -- the handshake's key


def test_the_accept_key_of_the_rfc_s_example() -> None:
    """RFC 6455, section 1.3."""
    assert frames.accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@fast
@given(st.binary(max_size=24))
@example(b"\xff" * 16)
def test_a_key_is_valid_if_it_is_the_base64_of_16_bytes(nonce: bytes) -> None:
    assert frames.valid_key(base64.b64encode(nonce).decode()) is (len(nonce) == 16)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ==\n",
        " dGhlIHNhbXBsZSBub25jZQ==",
        "dGhlIHNhbXBsZSBub25jZR==",
        "dGhlIHNhbXBsZSBub25jZQ=A",
        "dGhlIHNhbXBsZSBub25j-_==",
        "dGhlIHNhbXBsZSBub25jZé==",
    ],
)
def test_a_key_in_any_other_form_is_not_valid(key: str) -> None:
    assert not frames.valid_key(key)
