"""What fits into a payload, whatever a message holds."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.protocol.push import MAX_PAYLOAD, PushText
from pushsvc.push.fitting import fit, shortened
from pushsvc.push.provider import PushMessage
from tests.support.push import message, messages


def encode(told: PushMessage) -> bytes:
    text = msgspec.to_builtins(told.text)
    return msgspec.json.encode([told.notification, told.capability, told.tag, told.group, text])


@given(messages, st.integers(200, MAX_PAYLOAD))
def test_it_never_takes_more_than_it_may(told: PushMessage, most: int) -> None:
    whole, payload = encode(told), fit(told, encode, most)
    assert len(payload) <= most
    assert (payload == whole) == (len(whole) <= most)
    assert told.notification in payload.decode()


@given(st.text(min_size=1), st.integers(1, 200))
def test_a_text_is_cut_between_characters_and_says_so(body: str, excess: int) -> None:
    kept = shortened(body, excess)
    if kept:
        assert kept.endswith("…")
        assert body.startswith(kept.removesuffix("…"))
        assert len(msgspec.json.encode(kept)) <= len(msgspec.json.encode(body)) - excess


def test_the_body_is_shortened_as_little_as_can_be() -> None:
    told = message(capability="c" * 1500, text=PushText(title="T", body="é" * 1000))
    payload = fit(told, encode)
    assert MAX_PAYLOAD - 2 < len(payload) <= MAX_PAYLOAD
    assert "é…" in payload.decode()


def test_where_the_body_is_not_enough_ids_are_left() -> None:
    told = message(capability="c" * 2000, text=PushText(title="T", url="/" + "u" * 1023))
    assert fit(told, encode) == encode(told.ids_only())
