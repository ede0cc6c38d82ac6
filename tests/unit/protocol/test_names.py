"""The one rule for names."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.errors import InvalidName
from pushsvc.protocol.names import is_name, require_name

GOOD = ["a", "0", "user-42", "alice@example.org", "urn:x:1", "a=b", "._-:@=", "A" * 128]
BAD = [
    "",
    "A" * 129,
    "a b",
    " a",
    "a\n",
    "a\r\n",
    "\na",
    "a\x00",
    "{a}",
    "a/b",
    "a*",
    "a,b",
    "é",
    "\u0430",  # Cyrillic: looks like a Latin letter
    "\u0661",  # Arabic-Indic digit one: \d would match it
    "\ud800",
]


@pytest.mark.parametrize("text", GOOD)
def test_a_name_of_the_alphabet_up_to_128_characters_is_good(text: str) -> None:
    assert is_name(text)
    assert require_name(text, "user") is text


@pytest.mark.parametrize("text", BAD)
def test_a_name_outside_the_alphabet_or_length_is_refused(text: str) -> None:
    assert not is_name(text)
    with pytest.raises(InvalidName):
        require_name(text, "user")


@pytest.mark.parametrize("value", [None, 1, True, 1.5, b"a", ["a"], {"a": 1}])
def test_a_value_that_is_not_a_string_is_not_a_name(value: object) -> None:
    with pytest.raises(InvalidName):
        require_name(value, "topic")


def test_the_refusal_names_the_field_and_the_rule_but_not_the_value() -> None:
    with pytest.raises(InvalidName) as caught:
        require_name("se cret", "device")
    assert caught.value.detail == (
        "device must be a string of 1 to 128 characters of A-Z a-z 0-9 . _ - : @ ="
    )


@given(st.text(max_size=140))
def test_only_the_documented_alphabet_is_ever_accepted(text: str) -> None:
    assert is_name(text) == bool(re.match(r"\A[A-Za-z0-9._\-:@=]{1,128}\Z", text))
