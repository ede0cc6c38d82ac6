"""The one rule for names, and their stored forms."""

import unicodedata
from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pushsvc.errors import InvalidName
from pushsvc.protocol import names
from pushsvc.protocol.names import (
    MAX_LABEL,
    MAX_NAME,
    from_percent_encoded,
    is_name,
    is_topic,
    named,
    require_label,
    require_name,
    require_topic,
    stored,
)

PLAIN = ["a", "0", "user-42", "alice@example.org", "urn:x:1", "a=b", "._-:@=", "A" * MAX_NAME]
WIDE = [
    "auth0|507f", "google-oauth2|1", "a+b@x.com", "{6F9619FF-8B86-D011}", "o'brien@x",
    "DOMAIN\\jdoe", "users/42", "user name", " a", "J\u00f6rg", "Jo\u0308rg",
    "https://id.example/u?a=1&b=#c", "a,b", "~head", "~b:x", "%2F", "%", "..", ".", "a*", '"',
    "<b>", "\U0001f469\u200d\U0001f4bb", "\u05d0\u202e", "\u2028", "\ue000", "\u00e9" * 128,
    "~" * MAX_NAME,
]  # fmt: skip
"""What providers send, and what has a meaning somewhere."""
BAD = ["", "A" * (MAX_NAME + 1), "\u00e9" * 129, "a\n", "a\r\n", "\na", "a\x00", "\x7f", "\x85"]
BAD += ["\ud800", "\U0001f600" * 65]

texts = st.text(st.characters(exclude_categories=()), max_size=300)
wide_names = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1).filter(is_name)


@pytest.mark.parametrize("text", PLAIN + WIDE)
def test_nearly_every_text_of_up_to_256_bytes_is_a_name(text: str) -> None:
    assert is_name(text)
    assert require_name(text, "user") is text


@pytest.mark.parametrize("text", BAD)
def test_a_text_with_control_characters_or_of_another_length_is_no_name(text: str) -> None:
    assert not is_name(text)
    assert not is_topic(text)
    with pytest.raises(InvalidName):
        require_name(text, "user")


@pytest.mark.parametrize("value", [None, 1, True, 1.5, b"a", ["a"], {"a": 1}])
def test_a_value_that_is_not_a_string_is_not_a_name(value: object) -> None:
    with pytest.raises(InvalidName):
        require_name(value, "device")
    with pytest.raises(InvalidName):
        require_topic(value)
    with pytest.raises(InvalidName):
        require_label(value, "event")


def test_the_refusal_names_the_field_and_the_rule_but_not_the_value() -> None:
    with pytest.raises(InvalidName) as caught:
        require_name("se\ncret", "device")
    assert caught.value.detail == (
        "device must be a string of 1 to 256 bytes of UTF-8 without control characters"
    )
    with pytest.raises(InvalidName) as caught:
        require_topic("se cret")
    assert caught.value.detail == (
        "topic must be a string of 1 to 256 bytes of printable UTF-8 without white space and *"
    )


@given(texts)
@example("a" * MAX_NAME)
@example("\u00e9" * 128)
@example("\u00e9" * 129)
def test_a_name_is_what_the_definition_says(text: str) -> None:
    controls = any(unicodedata.category(each) in ("Cc", "Cs") for each in text)
    expected = not controls and 1 <= len(text.encode(errors="replace")) <= MAX_NAME
    assert is_name(text) == expected


LATER_FORMATS = {chr(code) for code in range(0x13439, 0x13440)}
"""Assigned later than the tables of some Python that is supported."""


def is_hidden(each: str) -> bool:
    category = unicodedata.category(each)
    return category in ("Cc", "Cs", "Cf", "Zs", "Zl", "Zp") or each in LATER_FORMATS


@given(texts)
@example("a b")
@example("a*b")
@example("a\u00a0b")
@example("a\u200bb")
def test_a_topic_is_a_name_that_is_printable_without_white_space_and_stars(text: str) -> None:
    hidden = any(is_hidden(each) or each == "*" for each in text)
    assert is_topic(text) == (is_name(text) and not hidden)


def test_the_characters_of_topics_are_the_same_whatever_unicode_a_python_knows() -> None:
    # A character that is not assigned yet may be an emoji of a newer phone.
    for text in ("\U0001fae8", "\U0001fadc", "\u0378", "\ue000", "\U0010fffd", "\U0001f469"):
        assert is_topic(text)
    # A woman with a laptop is put together by a joiner, which is not seen by itself.
    assert not is_topic("\U0001f469\u200d\U0001f4bb")
    every = [chr(code) for code in range(0x110000)]
    assert [each for each in every if not is_topic(each)] == [
        each for each in every if is_hidden(each) or each == "*"
    ]


@given(st.text(max_size=140))
@example("a" * MAX_LABEL)
@example("a" * (MAX_LABEL + 1))
def test_a_label_is_of_the_documented_alphabet(text: str) -> None:
    plain = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-:@=")
    expected = set(text) <= plain and 1 <= len(text) <= MAX_LABEL
    try:
        good = require_label(text, "event") == text
    except InvalidName as error:
        good = False
        assert error.detail == f"event must be a string of {names.LABEL_RULE}"  # noqa: PT017
    assert good == expected


# --- stored forms ---


@pytest.mark.parametrize("text", PLAIN)
def test_the_stored_form_of_a_plain_name_is_that_very_name(text: str) -> None:
    assert stored(text) is text
    assert named(text) is text


@pytest.mark.parametrize("text", WIDE)
def test_a_stored_form_holds_nothing_that_has_a_meaning_where_it_stands(text: str) -> None:
    form = stored(text)
    assert not set(form.replace("%", "")) - set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-:@="
    )
    assert from_percent_encoded(form) == named(form) == text


@given(wide_names)
def test_a_name_comes_back_from_its_stored_form(name: str) -> None:
    assert named(stored(name)) == name
    assert from_percent_encoded(stored(name)) == name
    assert from_percent_encoded(quote(name, safe="!~*'()")) == name  # encodeURIComponent


@given(wide_names, wide_names)
@example("J\u00f6rg", "Jo\u0308rg")
@example("%7E", "~")
@example("a%", "a%25")
def test_two_names_have_two_stored_forms(one: str, other: str) -> None:
    assert (stored(one) == stored(other)) == (one == other)


@pytest.mark.parametrize(
    "text",
    ["", "%", "%2", "%2g", "%C3", "%FF", "%00", "a b", "a,b", "a/b", "%ED%A0%80", "\u00e9",
     "a" * (MAX_NAME + 1), "%C3%A9" * 129, "a\n"],
)  # fmt: skip
def test_what_no_name_is_encoded_as_stands_for_none(text: str) -> None:
    assert from_percent_encoded(text) is None


@given(st.text("%0123456789ABCDEFabcdef~/ ", max_size=24) | texts)
def test_a_text_stands_for_the_name_that_it_encodes_or_for_none(text: str) -> None:
    name = from_percent_encoded(text)
    assert name is None or (is_name(name) and name.encode() == unquote_to_bytes(text))


def test_nodes_of_before_take_what_is_a_label_for_a_name() -> None:
    for text, known in (("a" * 128, True), ("A.z_0-:@=", True), ("a" * 129, False), ("a|b", False)):
        assert names.was_name(text) is known
