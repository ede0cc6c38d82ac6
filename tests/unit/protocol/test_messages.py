"""The shapes on the wire."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.errors import InvalidJSON, InvalidRequest, PayloadTooLarge, PushError, RateLimited
from pushsvc.protocol import encoding, ids, messages, notifications

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(
        st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)  # fmt: skip


@given(values)
def test_any_json_is_delivered_as_it_was_published(value: Any) -> None:
    text = json.dumps({"to": {"user": "u1"}, "data": value}).encode()
    note, body = notifications.notification_from(encoding.decode(text), 1 << 20)
    assert note.users() == ["u1"]
    told = json.loads(messages.notification(ids.parse("1764000000123-4"), body, 1))
    assert told == {
        "type": "notification",
        "id": "1764000000123-4",
        "time": "2025-11-24T16:00:00.123Z",
        "data": value,
    }


@given(st.binary())
def test_bytes_of_a_client_are_a_message_or_are_refused(data: bytes) -> None:
    messages.ref_of(data)
    try:
        messages.client_message(data)
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
        (b'{"type":"ping","ref":"\\udc00\\ud800"}', "surrogate"),
    ],
)
def test_what_is_not_i_json_is_refused_with_a_reason(text: bytes, why: str) -> None:
    with pytest.raises(InvalidJSON, match=why):
        messages.client_message(text)


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
        messages.client_message(text)


@pytest.mark.parametrize(
    ("note", "why"),
    [
        ({"data": 1}, "to"),
        ({"to": {"user": "u"}}, "data"),
        ({"to": {}, "data": 1}, "exactly one"),
        ({"to": {"user": "u", "users": ["u"]}, "data": 1}, "exactly one"),
        ({"to": {"users": []}, "data": 1}, "1 to 1000"),
        ({"to": {"users": ["u"] * 1001}, "data": 1}, "1 to 1000"),
        ({"to": {"user": "a b"}, "data": 1}, "user id"),
        ({"to": {"user": "u\r\n"}, "data": 1}, "user id"),
        ({"to": {"user": "u" * 129}, "data": 1}, "user id"),
        ({"to": {"user": "{u}"}, "data": 1}, "user id"),
        ({"to": {"user": "u"}, "data": 1, "event": "*"}, "event"),
        ({"to": {"user": "u"}, "data": 1, "ttl": -1}, "ttl"),
        ({"to": {"user": "u"}, "data": 1, "ttl": "5"}, "ttl"),
        ({"to": {"user": "u"}, "data": 1, "ttl": True}, "ttl"),
        ({"to": {"user": "u"}, "data": 1, "datta": 1}, "datta"),
        ({"to": {"user": "u"}, "data": "\ud800"}, "surrogate"),
        ({"to": {"user": "u"}, "data": json.loads("[" * 65 + "]" * 65)}, "deeper"),
        (7, "object"),
    ],
)
def test_a_notification_of_another_shape_is_refused_with_what_to_change(
    note: Any, why: str
) -> None:
    with pytest.raises(InvalidRequest, match=why):
        notifications.notification_from(note, 65536)[0].users()


def test_a_notification_that_no_client_could_be_sent_is_refused() -> None:
    limit = 1000
    for size in range(limit - notifications.ENVELOPE - 40, limit):
        note = {"to": {"user": "u"}, "data": "x" * size}
        try:
            _, body = notifications.notification_from(note, limit)
        except PayloadTooLarge:
            continue
        longest = messages.notification(ids.parse(f"{10**14}-{10**18}"), body, 1000)
        assert len(longest) <= limit


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
        connection="n.1", user="u", device="d", heartbeat=heartbeat, window=64, expires_at=1
    )
    assert b'"heartbeat":' + shown in welcome


def test_the_other_messages_have_the_documented_shapes() -> None:
    welcome = messages.welcome(
        connection="n.1", user="u", device="d", heartbeat=25, window=64, expires_at=99
    )
    assert json.loads(welcome) == {
        "type": "welcome", "connection": "n.1", "user": "u", "device": "d",
        "heartbeat": 25, "window": 64, "expires_at": 99,
    }  # fmt: skip
    assert json.loads(messages.gap(ids.parse("5-6"), "reset")) == {
        "type": "gap", "after": "5-6", "reason": "reset",
    }  # fmt: skip
    assert json.loads(messages.reconnect(1.5)) == {"type": "reconnect", "retry_after": 1.5}
    assert json.loads(messages.pong(None)) == {"type": "pong"}
    assert json.loads(messages.pong("x")) == {"type": "pong", "ref": "x"}
    assert json.loads(messages.reply(3, acked="1-0")) == {"type": "reply", "ref": 3, "acked": "1-0"}


@given(st.from_regex(r"[0-9-]{1,40}", fullmatch=True), st.sampled_from([(",", ":"), (", ", ": ")]))
def test_the_usual_ack_is_read_as_any_other_message_is(
    entry_id: str, separators: tuple[str, str]
) -> None:
    fields = {"type": "ack", "id": entry_id}
    usual = json.dumps(fields, separators=separators).encode()
    unusual = json.dumps(fields | {"ref": None}).encode()
    assert messages._usual_ack(usual)
    assert not messages._usual_ack(unusual)
    assert messages.client_message(usual) == messages.client_message(unusual)
