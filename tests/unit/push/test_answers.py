"""Bodies of answers, whatever is in them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.push.answers import said


def test_an_object_is_read() -> None:
    assert said(b'{"reason":"BadDeviceToken"}') == {"reason": "BadDeviceToken"}


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"<html>", b'"\xff"', b"7", b"[" * 4096, b'{"a":' * 800]
)
def test_anything_else_says_nothing(body: bytes) -> None:
    assert said(body) == {}


@given(st.binary(max_size=200))
def test_nothing_that_a_peer_sends_is_an_error(body: bytes) -> None:
    assert isinstance(said(body), dict)
