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
