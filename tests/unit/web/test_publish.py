"""The parts of the publish API that need no server."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.errors import InvalidRequest, RateLimited
from pushsvc.web import publish
from pushsvc.web.publish import PublishRates, idempotency_key


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ('"7f3a-1"', "7f3a-1"),
        (" 7f3a-1 ", "7f3a-1"),
        ('"with space"', "with space"),
        ('"a\\"b"', 'a\\"b'),
        ('"' + "x" * 255 + '"', "x" * 255),
    ],
)
def test_a_key_is_a_quoted_string_or_a_bare_word(header: str, key: str) -> None:
    assert idempotency_key(header) == key


@pytest.mark.parametrize("header", ["", '""', '"', '"a', "a b", "ä", '"\x7f"', "x" * 256, '"a"b"'])
def test_anything_else_is_refused(header: str) -> None:
    with pytest.raises(InvalidRequest, match="Idempotency-Key"):
        idempotency_key(header)


@given(st.text(max_size=300))
def test_a_header_is_a_key_or_is_refused(header: str) -> None:
    with contextlib.suppress(InvalidRequest):
        assert 1 <= len(idempotency_key(header)) <= 255


def test_one_publisher_over_its_rate_does_not_hold_up_another() -> None:
    rates = PublishRates(2)
    for _ in range(4):
        rates.spend("a", 0.0)
    with pytest.raises(RateLimited) as caught:
        rates.spend("a", 0.0)
    assert caught.value.retry_after == 0.5
    rates.spend("b", 0.0)
    rates.spend("a", 0.5)


def test_a_rate_of_zero_does_not_limit() -> None:
    rates = PublishRates(0)
    for _ in range(1000):
        rates.spend("a", 0.0)


def test_only_so_many_publishers_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "MAX_PUBLISHERS", 3)
    rates = PublishRates(1)
    for number in range(10):
        rates.spend(f"p{number}", 0.0)
    assert len(rates._full_at) == 3
