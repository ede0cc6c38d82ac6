"""When a client comes back, how late, and when it does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.client.backoff import Again, Ended, ReconnectPolicy, Timing, delay
from pushsvc.client.errors import PushError, Refused, Unavailable

TIMING = Timing(first=1.0, longest=30.0, uptime=10.0)


def reconnection(*, renewable: bool = True, patience: float | None = None) -> ReconnectPolicy:
    return ReconnectPolicy(TIMING, renewable=renewable, patience=patience)


@given(st.integers(0, 10**6), st.floats(0, 1000), st.floats(0, 1, exclude_max=True))
def test_a_delay_is_what_the_service_said_and_a_bounded_random_time(
    failures: int, said: float, chance: float
) -> None:
    assert said <= delay(failures, said, TIMING, chance) <= said + TIMING.longest


def test_delays_double_up_to_the_longest() -> None:
    delays = [delay(failures, 0.0, TIMING, 0.5) for failures in range(8)]
    assert delays == [0.5, 1, 2, 4, 8, 15, 15, 15]


def test_only_a_connection_that_lived_for_a_while_makes_delays_short_again() -> None:
    tries = reconnection()
    for _ in range(4):
        tries.after(Ended(), 0.0, 0.5)
    assert tries.after(Ended(up=9.9), 0.0, 0.5) == Again(8.0)
    assert tries.after(Ended(up=10.0), 0.0, 0.5) == Again(0.5)


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1009, 4001, 4003, 4099, 5000, None])
def test_these_close_codes_mean_come_back(code: int | None) -> None:
    assert isinstance(reconnection().after(Ended(1.0, code), 0.0, 0.5), Again)


@pytest.mark.parametrize("code", [4500, 4501, 4505, 4999])
def test_these_close_codes_mean_stop(code: int) -> None:
    verdict = reconnection().after(Ended(1.0, code, "why"), 0.0, 0.5)
    assert isinstance(verdict, Refused)
    assert (verdict.status, verdict.detail) == (code, "why")


def test_an_expired_token_is_replaced_if_one_can_be_had() -> None:
    verdict = reconnection().after(Ended(1.0, 4100), 0.0, 0.5)
    assert isinstance(verdict, Again)
    assert (verdict.new_token, verdict.refused) == (True, False)
    assert isinstance(reconnection(renewable=False).after(Ended(1.0, 4100), 0.0, 0.5), Refused)


def refusal(status: int) -> Ended:
    return Ended(refusal=Refused("no", status=status))


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_these_refusals_pass(status: int) -> None:
    assert isinstance(reconnection().after(refusal(status), 0.0, 0.5), Again)


@pytest.mark.parametrize("status", [302, 400, 403, 404, 426])
def test_these_refusals_stay(status: int) -> None:
    assert isinstance(reconnection().after(refusal(status), 0.0, 0.5), PushError)


def test_a_refused_token_is_replaced_once() -> None:
    tries = reconnection()
    verdict = tries.after(refusal(401), 0.0, 0.5)
    assert isinstance(verdict, Again)
    assert (verdict.new_token, verdict.refused) == (True, True)
    assert isinstance(tries.after(refusal(401), 0.0, 0.5), Refused)
    tries = reconnection()
    tries.after(refusal(401), 0.0, 0.5)
    tries.after(Ended(up=1.0), 0.0, 0.5)
    assert isinstance(tries.after(refusal(401), 0.0, 0.5), Again)
    assert isinstance(reconnection(renewable=False).after(refusal(401), 0.0, 0.5), Refused)


def test_a_token_that_will_be_good_later_is_replaced_then_and_once_more() -> None:
    tries = reconnection()
    later = Ended(refusal=Refused("no", status=401), retry_after=8.0)
    for ended in (later, later, refusal(401)):
        verdict = tries.after(ended, 0.0, 0.5)
        assert isinstance(verdict, Again)
        assert (verdict.new_token, verdict.refused) == (True, True)
        assert verdict.delay >= ended.retry_after
    assert isinstance(tries.after(refusal(401), 0.0, 0.5), Refused)
    assert isinstance(reconnection(renewable=False).after(later, 0.0, 0.5), Refused)


def test_patience_counts_from_the_end_of_the_last_connection() -> None:
    tries = reconnection(patience=5.0)
    assert isinstance(tries.after(Ended(up=100.0), 100.0, 0.5), Again)
    assert isinstance(tries.after(Ended(error=OSError("gone")), 104.0, 0.0), Again)
    verdict = tries.after(Ended(error=OSError("gone")), 104.0, 0.9)
    assert isinstance(verdict, Unavailable)
    assert "gone" in str(verdict)
