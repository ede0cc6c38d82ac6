"""How fast traces may be asked for."""

import pytest

from pushsvc.admin.trace_api import ALTOGETHER, PER_SECOND, TraceRates
from pushsvc.errors import RateLimited


def taken(rates: TraceRates, *issuers: str) -> int:
    """How many are asked at once by holders of tokens of these issuers, in turn."""
    for count in range(1000):
        try:
            rates.spend(issuers[count % len(issuers)], 0)
        except RateLimited:
            return count
    raise AssertionError("nothing is refused")


def test_the_traces_of_an_issuer_are_bounded_and_those_of_all_together() -> None:
    rates = TraceRates()
    assert taken(rates, "one") == pytest.approx(2 * PER_SECOND, abs=1)
    rates = TraceRates()
    names = [f"issuer-{number}" for number in range(100)]
    assert taken(rates, *names) == pytest.approx(2 * ALTOGETHER, abs=1)


def test_who_is_refused_takes_nothing_from_others() -> None:
    rates = TraceRates()
    for _ in range(10):
        taken(rates, "one")
    assert taken(rates, "two") == pytest.approx(2 * PER_SECOND, abs=1)
