"""How fast callers may send requests."""

import pytest

from pushsvc.errors import RateLimited
from pushsvc.web import rates as module
from pushsvc.web.rates import RequestRates


def test_one_caller_over_its_rate_does_not_hold_up_another() -> None:
    rates = RequestRates(2)
    for _ in range(4):
        rates.spend("a", 0.0)
    with pytest.raises(RateLimited) as caught:
        rates.spend("a", 0.0)
    assert caught.value.retry_after == 0.5
    rates.spend("b", 0.0)
    rates.spend("a", 0.5)


def test_who_asks_for_more_than_ever_fits_is_told_how_much_does() -> None:
    rates = RequestRates(10, 20, what="messages")
    rates.spend("a", 0.0)
    with pytest.raises(RateLimited, match="10 messages a second: send at most 20 at once"):
        rates.spend("a", 0.0, 20)
    rates.spend("a", 0.0, 19)
    with pytest.raises(RateLimited, match="wait"):
        rates.spend("a", 0.0, 19)


def test_a_rate_of_zero_does_not_limit() -> None:
    rates = RequestRates(0)
    for _ in range(1000):
        rates.spend("a", 0.0)


def test_only_so_many_callers_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CALLERS", 3)
    rates = RequestRates(1)
    for number in range(10):
        rates.spend(f"p{number}", 0.0)
    assert len(rates._full_at) == 3


def test_who_has_not_asked_for_a_while_takes_no_memory() -> None:
    rates = RequestRates(10)
    for number in range(100):
        rates.spend(f"p{number}", number / 1000)
    assert len(rates._full_at) == 100
    for number in range(100):
        rates.spend("a", 1.0 + number)
    assert list(rates._full_at) == ["a"]
    rates.spend("p0", 1000.0, cost=20)
    with pytest.raises(RateLimited):
        rates.spend("p0", 1000.0)


def test_who_was_answered_at_length_waits_for_it() -> None:
    rates = RequestRates(10)
    rates.spend("a", 0.0)
    rates.owe("a", 0.0, 0)
    rates.spend("a", 0.0)
    rates.owe("a", 0.0, 28)
    with pytest.raises(RateLimited) as caught:
        rates.spend("a", 0.0)
    assert round(caught.value.retry_after or 0, 6) == 1.1
    rates.spend("b", 0.0)
