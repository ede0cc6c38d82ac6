"""Retry-After, as providers write it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.push.retrying import MOST, retry_after

NOW = 1_764_547_200.0  # Mon, 01 Dec 2025 00:00:00 GMT


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ("30", 30.0),
        (" 7 ", 7.0),
        ("Mon, 01 Dec 2025 00:02:00 GMT", 120.0),
        ("Mon, 01 Dec 2025 00:02:00 -0000", 120.0),
        ("Sun, 30 Nov 2025 23:00:00 GMT", 0.0),
        ("9999999999", MOST),
        ("Fri, 31 Dec 9999 23:59:59 GMT", MOST),
        ("-5", 0.0),
        ("1.5", 0.0),
        ("soon", 0.0),
        ("", 0.0),
        ("٣", 0.0),
        ("9" * 5000, 0.0),
    ],
)
def test_it_is_read(asked: str, seconds: float) -> None:
    assert retry_after({"retry-after": asked}, NOW) == seconds


def test_an_answer_without_it_asks_nothing() -> None:
    assert retry_after({}, NOW) == 0.0


@given(st.text(st.characters(max_codepoint=255)) | st.from_regex(r"[A-Za-z0-9 ,:+-]{1,40}"))
def test_whatever_stands_there_is_a_wait_within_bounds(asked: str) -> None:
    assert 0.0 <= retry_after({"retry-after": asked}, NOW) <= MOST
