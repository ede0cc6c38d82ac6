"""Capabilities: what is sealed is opened by the same key alone, unaltered, and in time."""

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.errors import InvalidToken
from pushsvc.protocol import feeds, ids
from pushsvc.protocol.names import MAX_NAME, is_name
from pushsvc.protocol.push_capability import (
    MAX_CAPABILITY,
    PREFIX,
    Capability,
    check_form,
    open_sealed,
    seal,
)

SECRET = bytes(range(32))
OTHER = bytes(range(1, 33))
ID = ids.parse("1764000000123-4")
EXPIRES = 1764000060000
NOW = EXPIRES - 1

NAMES = st.text(min_size=1, max_size=MAX_NAME).filter(is_name)
NAMESPACES = st.just("") | st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)
IDS = st.builds(
    lambda ms, seq: ms << 64 | seq, st.integers(0, 10**15 - 1), st.integers(0, 2**64 - 1)
)


@given(NAMES, NAMESPACES, IDS, NAMES, st.integers(0, 2**53))
def test_what_is_sealed_is_opened(
    user: str, namespace: str, notification: int, device: str, expires: int
) -> None:
    mailbox = feeds.mailbox(user, namespace)
    text = seal(SECRET, mailbox, notification, device, expires)
    opened = open_sealed(SECRET, text, expires - 1)
    assert opened == Capability(mailbox, notification, device, expires)
    assert len(text) <= MAX_CAPABILITY


def test_the_longest_names_fit() -> None:
    wide = "ж" * (MAX_NAME // 2)
    text = seal(SECRET, feeds.mailbox(wide, "n" * 63), (2**50) << 64, wide, 2**53)
    assert open_sealed(SECRET, text, 0).device == wide
    assert len(text) <= MAX_CAPABILITY


@given(st.data())
def test_no_altered_character_is_taken(data: st.DataObject) -> None:
    text = seal(SECRET, "u:ann", ID, "phone", EXPIRES)
    index = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(codec="ascii").filter(lambda each: each != text[index]))
    with pytest.raises(InvalidToken):
        open_sealed(SECRET, text[:index] + other + text[index + 1 :], NOW)


@given(st.data())
def test_no_altered_byte_is_taken(data: st.DataObject) -> None:
    text = seal(SECRET, "u:ann", ID, "phone", EXPIRES).removeprefix(PREFIX)
    sealed = bytearray(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))
    altered = PREFIX + base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()
    with pytest.raises(InvalidToken):
        open_sealed(SECRET, altered, NOW)


@given(st.text() | st.text(alphabet="abcXYZ019-_=").map(PREFIX.__add__))
def test_no_other_text_is_taken(text: str) -> None:
    with pytest.raises(InvalidToken):
        open_sealed(SECRET, text, NOW)


@pytest.mark.parametrize("cut", range(1, 60))
def test_no_part_of_one_is_taken(cut: int) -> None:
    text = seal(SECRET, "u:ann", ID, "phone", EXPIRES)
    with pytest.raises(InvalidToken):
        open_sealed(SECRET, text[:-cut], NOW)


def test_one_of_another_key_is_not_taken() -> None:
    with pytest.raises(InvalidToken, match="not made here"):
        open_sealed(OTHER, seal(SECRET, "u:ann", ID, "phone", EXPIRES), NOW)


@given(st.integers(0, 2**53))
def test_it_is_good_until_it_expires_and_no_longer(past: int) -> None:
    text = seal(SECRET, "u:ann", ID, "phone", EXPIRES)
    assert open_sealed(SECRET, text, NOW).notification == ID
    with pytest.raises(InvalidToken, match="expired"):
        open_sealed(SECRET, text, EXPIRES + past)


def test_two_of_the_same_are_not_alike() -> None:
    made = {seal(SECRET, "u:ann", ID, "phone", EXPIRES) for _ in range(100)}
    assert len(made) == 100
    assert len({text[:30] for text in made}) == 100


def test_it_says_nothing_of_what_it_opens() -> None:
    text = seal(SECRET, "u:ann-of-the-long-name", ID, "phone-of-ann", EXPIRES)
    sealed = base64.urlsafe_b64decode(text.removeprefix(PREFIX) + "===")
    assert b"ann" not in sealed
    assert b"phone" not in sealed


def test_the_length_is_looked_at_before_all_else() -> None:
    long = PREFIX + "a" * 50_000_000
    began = time.process_time()
    for _ in range(100):
        with pytest.raises(InvalidToken):
            check_form(long)
        with pytest.raises(InvalidToken):
            open_sealed(SECRET, long, NOW)
    assert time.process_time() - began < 1
