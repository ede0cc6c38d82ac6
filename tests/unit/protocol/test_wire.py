"""The ways to write messages: frames of text and of MessagePack, events, lines; and positions."""

import json
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Opcode

from pushsvc.codes import Close
from pushsvc.errors import InvalidRequest
from pushsvc.protocol import encoding, frames, ids
from pushsvc.protocol.feeds import BROADCAST, TOPIC, broadcast, mailbox, topic
from pushsvc.protocol.wire import (
    BINARY,
    BY_SUBPROTOCOL,
    TEXT,
    EventStream,
    Lines,
    Wire,
    parse_position,
    position,
)

ID = ids.parse("1764000000123-4")
MAILBOX = mailbox("u1")
PAYLOAD = b'{"type":"notification","id":"1764000000123-4","data":{"order":17}}'

pack = msgspec.msgpack.encode


def payload_of(frame: bytes) -> tuple[int, bytes]:
    """The opcode and the payload of an unmasked, small frame."""
    assert frame[0] & 0xF0 == 0x80
    size, start = frame[1], 2
    if size == 126:
        (size,), start = struct.unpack("!H", frame[2:4]), 4
    assert len(frame) == start + size
    return frame[0] & 0x0F, frame[start:]


def event_of(event: bytes) -> tuple[str, dict[str, Any]]:
    """The id and the data of an event."""
    first, second, *rest = event.decode().split("\n")
    assert rest == ["", ""]
    assert first.startswith("id: ")
    assert second.startswith("data: ")
    return first.removeprefix("id: "), json.loads(second.removeprefix("data: "))


# --- frames --------------------------------------------------------------------------------------


def test_each_subprotocol_has_its_frames() -> None:
    assert BY_SUBPROTOCOL == {"pushsvc.v1.json": TEXT, "pushsvc.v1.msgpack": BINARY}
    assert (TEXT.opcode, BINARY.opcode) == (Opcode.TEXT, Opcode.BINARY)


def test_text_frames_carry_the_messages_as_they_are() -> None:
    assert payload_of(TEXT.message(PAYLOAD)) == (Opcode.TEXT, PAYLOAD)
    assert TEXT.entry(MAILBOX, ID, PAYLOAD) == TEXT.message(PAYLOAD)


def test_binary_frames_carry_the_same_messages_as_messagepack() -> None:
    opcode, payload = payload_of(BINARY.message(PAYLOAD))
    assert opcode == Opcode.BINARY
    assert msgspec.msgpack.decode(payload) == json.loads(PAYLOAD)
    assert BINARY.entry(MAILBOX, ID, PAYLOAD) == BINARY.message(PAYLOAD)


@pytest.mark.parametrize("wire", [TEXT, BINARY])
def test_a_socket_ends_with_a_close_frame(wire: Wire) -> None:
    assert wire.close(4001, "drain") == frames.encode_close(4001, "drain")
    assert wire.answers
    assert payload_of(wire.beat) == (Opcode.PING, b"")


@pytest.mark.parametrize("wire", [TEXT, BINARY])
def test_frames_are_alike_for_every_connection(wire: Wire) -> None:
    assert wire.shared
    before = wire.message(PAYLOAD)
    wire.at(MAILBOX, ID)
    assert wire.message(PAYLOAD) == before


def test_each_wire_reads_its_own_messages() -> None:
    assert TEXT.read(b'{"type":"ping"}') == {"type": "ping"}
    assert BINARY.read(pack({"type": "ping"})) == {"type": "ping"}


# --- events and lines ---


def test_the_id_of_an_event_is_the_position_in_every_feed() -> None:
    wire = EventStream()
    assert event_of(wire.message(b'{"type":"welcome"}')) == ("", {"type": "welcome"})
    first = event_of(wire.entry(MAILBOX, ID, PAYLOAD))
    assert first == ("u=1764000000123-4", json.loads(PAYLOAD))
    assert event_of(wire.entry(topic("a.b"), ID + 1, PAYLOAD))[0] == (
        "u=1764000000123-4,t:a.b=1764000000123-5"
    )
    wire.at(BROADCAST, ID + 2)
    assert event_of(wire.message(b"{}"))[0] == (
        "u=1764000000123-4,t:a.b=1764000000123-5,b=1764000000123-6"
    )


def test_the_positions_of_streams_are_their_own() -> None:
    one, other = EventStream(), EventStream()
    assert not one.shared
    one.entry(MAILBOX, ID, PAYLOAD)
    assert other.positions == {}


def test_a_stream_beats_with_a_comment_and_ends_with_a_message() -> None:
    wire = EventStream()
    assert not wire.answers
    assert wire.beat.startswith(b":")
    assert event_of(wire.close(Close.DRAINING, "drain"))[1] == {
        "type": "closed", "code": 4001, "reason": "drain",
    }  # fmt: skip
    assert event_of(wire.close(None, ""))[1]["code"] == Close.NORMAL


def test_lines_hold_a_message_each_and_remember_the_positions() -> None:
    wire = Lines()
    wire.at(BROADCAST, ID)
    lines = wire.message(b'{"type":"gap"}') + wire.entry(MAILBOX, ID + 1, PAYLOAD)
    lines += wire.close(None, "end")
    assert [json.loads(line)["type"] for line in lines.splitlines()] == [
        "gap", "notification", "closed",
    ]  # fmt: skip
    assert wire.beat == b""
    assert wire.positions == {BROADCAST: ID, MAILBOX: ID + 1}


@given(st.text(), st.sampled_from([EventStream, Lines]))
def test_no_text_can_break_out_of_its_event_or_line(
    text: str, kind: type[EventStream | Lines]
) -> None:
    payload = encoding.encode({"data": text.encode(errors="replace").decode()})
    written = kind().message(payload)
    assert written.count(b"\n") == (3 if kind is EventStream else 1)
    assert b"\r" not in written


# --- positions ---

places = st.integers(0, 10**14).flatmap(
    lambda ms: st.integers(0, 10**6).map(lambda sequence: ms << 64 | sequence)
)
names = st.text("ABCabc019._-:@=,%/é\U0001f600", min_size=1, max_size=64)


@given(
    st.dictionaries(
        st.just(MAILBOX) | st.just(BROADCAST) | names.map(topic),
        places,
    )
)
def test_a_position_is_read_as_it_was_written(positions: dict[str, int]) -> None:
    short = {
        feed if feed.startswith(TOPIC) else feed[:1]: place for feed, place in positions.items()
    }
    assert parse_position(position(positions)) == short


def test_a_topic_may_be_encoded_as_a_client_encodes_it() -> None:
    for text in ("t:a%3Ab%2Fc%C3%A9=7-1", "t:a:b%2fc%c3%a9=7-1", "t:%61:b%2Fc%C3%A9=7-1"):
        assert parse_position(text) == {topic("a:b/c\u00e9"): 7 << 64 | 1}


def test_no_position_is_an_empty_text() -> None:
    assert position({}) == ""
    assert parse_position("") == {}


@pytest.mark.parametrize(
    "text",
    ["x=1-0", "u", "u=", "u=1", "u=-1-0", "=1-0", "t:=1-0", "t:a b=1-0", "u=1-0;b=1-0", "u:u1=1-0",
     "t:" + "a" * 257 + "=1-0", "t:%2g=1-0", "t:%2A=1-0", "t:a%20b=1-0", "u=1-0,,x",
     "u=1764000000123456789-0"],
)  # fmt: skip
def test_what_no_answer_gave_is_no_position(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_position(text)


@given(st.text())
def test_any_text_is_a_position_or_is_refused(text: str) -> None:
    try:
        parse_position(text)
    except InvalidRequest as error:
        assert error.detail  # noqa: PT017


def test_a_position_names_no_namespace() -> None:
    held = {mailbox("u1", "acme"): ID, broadcast("acme"): 0, topic("a/b", "acme"): ID}
    text = position(held)
    assert text == "u=1764000000123-4,b=0-0,t:a%2Fb=1764000000123-4"
    assert parse_position(text) == {"u": ID, "b": 0, topic("a/b"): ID}
    with pytest.raises(InvalidRequest):
        parse_position("t:acme/a=1764000000123-4")
