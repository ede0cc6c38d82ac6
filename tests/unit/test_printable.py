"""What a caller chose cannot forge a log line."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("auth0|507f J\u00f6rg \u05d0", "auth0|507f J\u00f6rg \u05d0"),
        ("a\nb\r\x1b[2J", r"a\nb\r\x1b[2J"),
        ("ab\u202ecd\u2066", r"ab\u202ecd\u2066"),
        ("a\u2028b\u2029c\u00a0d", r"a\u2028b\u2029c\xa0d"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_would_not_be_seen_as_it_is_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_lines_are_kept_where_they_are_wanted() -> None:
    assert printable("a\nb\u202e", keep="\n") == "a\nb\\u202e"


@given(st.text(st.characters(exclude_categories=())))
def test_no_control_format_or_separating_character_remains(text: str) -> None:
    kinds = {unicodedata.category(each) for each in printable(text)}
    assert not kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"}
