"""The token bucket."""

from hypothesis import given
from hypothesis import strategies as st

from pushsvc.protocol.limits import Rate, owe, spend

rates = st.builds(Rate, st.floats(0.1, 1000), st.floats(1, 1000))


def test_a_burst_passes_at_once_and_the_next_one_waits() -> None:
    rate = Rate(per_second=10, burst=20)
    bucket = 0.0
    for _ in range(20):
        bucket, wait = spend(bucket, 100.0, 1, rate)
        assert wait == 0
    bucket, wait = spend(bucket, 100.0, 1, rate)
    assert round(wait, 6) == 0.1
    bucket, wait = spend(bucket, 100.1, 1, rate)
    assert wait == 0


@given(rates, st.lists(st.tuples(st.floats(0, 5), st.floats(0.01, 3)), max_size=60))
def test_no_interval_lets_more_through_than_its_rate_and_one_burst(
    rate: Rate, requests: list[tuple[float, float]]
) -> None:
    now, bucket = 1000.0, 0.0
    taken: list[tuple[float, float]] = []
    for pause, cost in requests:
        now += pause
        bucket, wait = spend(bucket, now, cost, rate)
        if wait == 0:
            taken.append((now, cost))
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            seconds = taken[last][0] - taken[first][0]
            spent = sum(cost for _, cost in taken[first : last + 1])
            assert spent <= rate.burst + rate.per_second * seconds + 1e-3


@given(rates, st.floats(0.01, 1))
def test_who_waits_as_long_as_told_is_let_through(rate: Rate, cost: float) -> None:
    now, bucket = 50.0, 0.0
    for _ in range(5000):
        bucket, wait = spend(bucket, now, cost, rate)
        if wait:
            break
    bucket, wait_again = spend(bucket, now + wait, cost, rate)
    assert wait_again == 0


def test_what_was_used_already_is_paid_by_waiting_longer() -> None:
    rate = Rate(per_second=10, burst=20)
    bucket = owe(0.0, 100.0, 30, rate)
    bucket, wait = spend(bucket, 100.0, 1, rate)
    assert round(wait, 6) == 1.1
    bucket, wait = spend(bucket, 101.2, 1, rate)
    assert wait == 0
