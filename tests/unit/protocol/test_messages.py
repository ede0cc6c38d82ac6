"""The shapes on the wire."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.errors import InvalidJSON, InvalidRequest, PushError, RateLimited
from pushsvc.protocol import encoding, ids, messages


@given(st.binary())
def test_bytes_of_a_client_are_a_message_or_are_refused(data: bytes) -> None:
    try:
        value = encoding.decode(data)
        messages.ref_of(value)
        messages.client_message(value)
    except InvalidRequest as error:
        assert error.detail  # noqa: PT017


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b'{"type":"ping","type":"ping"}', "twice"),
        (b'{"type":"ping","ref":1e999}', "double"),
        (b'{"type":"ping","ref":NaN}', "NaN"),
        (b'{"type":"ping","ref":-Infinity}', "Infinity"),
        (b'{"type":"pi\x00ng"}', "not JSON"),
        (b'{"type":"ping"', "not JSON"),
        (b"\xff", "UTF-8"),
        (b"", "not JSON"),
        (b"[" * 10_000 + b"]" * 10_000, "deeper"),
        (b'{"type":"ping","ref":' + b"9" * 5000 + b"}", "double"),
        (b'{"type":"ping","ref":1' + b"0" * 400 + b"}", "double"),
        (b'{"type":"ping","ref":-2' + b"0" * 308 + b"}", "double"),
        (b'{"type":"ping","ref":[1,2' + b"0" * 308 + b".5]}", "double"),
        (b'{"type":"ping","ref":1' + b"0" * 300 + b"e10}", "double"),
        (b'{"type":"ping","ref":"\\udc00\\ud800"}', "surrogate"),
    ],
)
def test_what_is_not_i_json_is_refused_with_a_reason(text: bytes, why: str) -> None:
    with pytest.raises(InvalidJSON, match=why):
        encoding.decode(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"[]", "object"),
        (b"{}", "type"),
        (b'{"type":"nope"}', "nope"),
        (b'{"type":1}', "str"),
        (b'{"type":"ack"}', "id"),
        (b'{"type":"ack","id":5}', "id"),
        (b'{"type":"ack","id":"1-0","extra":1}', "extra"),
        (b'{"type":"ping","ref":1.5}', "ref"),
        (b'{"type":"ping","ref":true}', "ref"),
        (b'{"type":"refresh"}', "token"),
    ],
)
def test_a_message_of_another_shape_is_refused_by_the_name_of_the_field(
    text: bytes, why: str
) -> None:
    with pytest.raises(InvalidRequest, match=why):
        messages.client_message(encoding.decode(text))


@pytest.mark.parametrize(
    "text", ["1" + "0" * 308, "-" + "9" * 308, "17976931348623157" + "0" * 292]
)
def test_an_integer_that_a_double_can_hold_is_read_whatever_stands_beside_it(text: str) -> None:
    assert encoding.decode(f'[{text},7,"{"1" * 400}"]'.encode()) == [int(text), 7, "1" * 400]


@given(st.from_regex(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?[eE][+-]?[0-9]{1,3}", fullmatch=True))
def test_a_number_is_the_nearest_double_or_is_refused(text: str) -> None:
    if math.isinf(float(text)):
        with pytest.raises(InvalidJSON, match="double"):
            encoding.decode(text.encode())
    else:
        assert encoding.decode(text.encode()) == float(text)


@given(
    st.lists(st.recursive(st.none() | st.floats(0, 1) | st.text(max_size=5), st.lists), max_size=5),
    st.sampled_from([None, 1, "\t"]),
    st.sampled_from([None, "found"]),
)
def test_the_items_of_an_array_are_those_that_parsing_all_of_it_gives(
    items: list[Any], indent: Any, member: str | None
) -> None:
    text = json.dumps(items if member is None else {member: items}, indent=indent)
    for most in range(7):
        found = encoding.decode_items(f" {text}\r\n".encode(), member, most)
        assert found == items[: most + 1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "null",
        "{}",
        '{"a":{}}',
        '{"a":null}',
        '{"b":[]}',
        '{"a":[],"b":1}',
        "[]",
        '{"a":[1]} x',
        '{"a":[]',
        '"a":[]',
    ],
)
def test_what_is_no_such_array_has_no_items(text: str) -> None:
    assert encoding.decode_items(text.encode(), "a", 5) is None


@pytest.mark.parametrize(
    "text",
    [
        "[1 2]",
        "[1,]",
        "[,1]",
        "[1",
        "[",
        "[1,",
        "[1}",
        '["a":1]',
        "[1,2,3,nope]",
        "[1e999]",
        '["\\ud800"]',
        "[[" * 40_000,
        '[{"a":1,"a":2}]',
    ],
)
def test_items_are_read_as_strictly_as_all_json(text: str) -> None:
    with pytest.raises(InvalidJSON):
        encoding.decode_items(text.encode(), None, 5)


def test_what_follows_too_many_items_is_not_read() -> None:
    assert encoding.decode_items(b"[1,2,3,nope", None, 2) == [1, 2, 3]


def test_an_attempt_is_told_from_the_second_on() -> None:
    first = json.loads(messages.notification(ids.parse("1-0"), b'"data":1}', 1))
    second = json.loads(messages.notification(ids.parse("1-0"), b'"data":1}', 2))
    assert "attempt" not in first
    assert second == {**first, "attempt": 2}


def test_an_error_says_what_to_change_and_when_to_try_again() -> None:
    told = json.loads(messages.error(RateLimited("slow down", retry_after=0.25), 7))
    assert told == {
        "type": "error",
        "ref": 7,
        "code": "rate_limited",
        "detail": "slow down",
        "retry_after": 0.25,
        "temporary": True,
    }
    told = json.loads(messages.error(PushError("no")))
    assert told == {"type": "error", "code": "internal", "detail": "no", "temporary": False}


@pytest.mark.parametrize(("heartbeat", "shown"), [(25.0, b"25,"), (2.5, b"2.5,")])
def test_a_whole_number_of_seconds_is_shown_as_one(heartbeat: float, shown: bytes) -> None:
    welcome = messages.welcome(
        connection="n.1",
        user="u",
        device="d",
        heartbeat=heartbeat,
        window=64,
        expires_at=1,
        unread=0,
    )
    assert b'"heartbeat":' + shown in welcome


def test_the_other_messages_have_the_documented_shapes() -> None:
    welcome = messages.welcome(
        connection="n.1", user="u", device="d", heartbeat=25, window=64, expires_at=99, unread=3
    )
    assert json.loads(welcome) == {
        "type": "welcome", "connection": "n.1", "user": "u", "device": "d",
        "heartbeat": 25, "window": 64, "expires_at": 99, "unread": 3,
    }  # fmt: skip
    assert json.loads(messages.gap(ids.parse("5-6"), "reset")) == {
        "type": "gap", "after": "5-6", "reason": "reset",
    }  # fmt: skip
    assert json.loads(messages.reconnect(1.5)) == {"type": "reconnect", "retry_after": 1.5}
    assert json.loads(messages.pong(None)) == {"type": "pong"}
    assert json.loads(messages.pong("x")) == {"type": "pong", "ref": "x"}
    assert json.loads(messages.reply(3, acked="1-0")) == {"type": "reply", "ref": 3, "acked": "1-0"}


@given(
    st.from_regex(r"[0-9-]{1,40}|[0-9]{1,16}-[0-9]{1,20}", fullmatch=True),
    st.sampled_from([(",", ":"), (", ", ": ")]),
)
def test_the_usual_ack_is_read_as_any_other_message_is(
    entry_id: str, separators: tuple[str, str]
) -> None:
    fields = {"type": "ack", "id": entry_id}
    usual = json.dumps(fields, separators=separators).encode()
    unusual = json.dumps(fields | {"ref": None}).encode()
    assert messages.usual_ack(unusual) is None
    message = messages.client_message(encoding.decode(unusual))
    assert isinstance(message, messages.Ack)
    try:
        assert messages.usual_ack(usual) == ids.parse_untrusted(message.id)
    except InvalidRequest:
        assert messages.usual_ack(usual) is None
