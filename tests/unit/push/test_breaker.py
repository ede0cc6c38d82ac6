"""When a push service that is in trouble is left alone."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from pushsvc.push.breaker import (
    FAILURES,
    FIRST,
    LONGEST,
    MAX_BREAKERS,
    PROBE,
    Breaker,
    Breakers,
)


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES):
        assert breaker.wait(now) == 0
        breaker.done(now, failed=True)
    return breaker


def test_it_opens_after_failures_in_a_row_only() -> None:
    breaker = Breaker()
    for failed in [True] * (FAILURES - 1) + [False] + [True] * (FAILURES - 1):
        assert breaker.wait(0) == 0
        breaker.done(0, failed=failed)
    assert not breaker.is_open()
    breaker.done(0, failed=True)
    assert breaker.is_open()
    assert breaker.wait(1) == FIRST - 1


def test_one_attempt_goes_through_after_the_pause_and_closes_it() -> None:
    breaker = opened()
    assert breaker.wait(FIRST) == 0
    assert breaker.wait(FIRST + 1) == PROBE - 1
    breaker.done(FIRST + 2, failed=False)
    assert not breaker.is_open()
    assert breaker.wait(FIRST + 2) == breaker.wait(FIRST + 2) == 0


def test_each_probe_that_fails_doubles_the_pause_up_to_a_limit() -> None:
    breaker, now = opened(), 0.0
    pauses = []
    for _ in range(2000):
        pause = breaker.wait(now)
        pauses.append(pause)
        now += pause
        assert breaker.wait(now) == 0
        breaker.done(now, failed=True)
    assert pauses[:8] == [5, 10, 20, 40, 80, 160, 300, 300]
    assert set(pauses[6:]) == {LONGEST}


def test_a_probe_that_nobody_tells_of_is_lost_after_a_while() -> None:
    breaker = opened()
    assert breaker.wait(FIRST) == 0
    assert breaker.wait(FIRST + PROBE) == 0


def test_attempts_from_before_it_opened_do_not_lengthen_the_pause() -> None:
    breaker = opened()
    for _ in range(20):
        breaker.done(1, failed=True)
    assert breaker.wait(1) == FIRST - 1
    breaker.done(FIRST + 1, failed=True)
    assert breaker.wait(FIRST + 1) == 0


def test_each_push_service_has_its_own() -> None:
    breakers = Breakers()
    for _ in range(FAILURES):
        breakers.of("web", "b.example").done(0, failed=True)
        breakers.of("web", "a.example").done(0, failed=True)
    assert breakers.open("web") == ["a.example", "b.example"]
    assert breakers.open("fcm") == []
    assert breakers.of("fcm", "a.example").wait(0) == 0
    assert breakers.of("web", "c.example").wait(0) == 0


def test_hosts_without_end_take_no_memory_without_end() -> None:
    breakers = Breakers()
    for number in range(MAX_BREAKERS + 100):
        breakers.of("web", "kept.example")
        breakers.of("web", f"{number}.example")
    assert len(breakers._breakers) == MAX_BREAKERS
    assert ("web", "kept.example") in breakers._breakers


STEPS = st.lists(
    st.tuples(st.floats(0, 20), st.sampled_from(["ask", "succeeds", "fails", "is lost"])),
    max_size=200,
)


@given(STEPS, st.randoms(use_true_random=False))
def test_while_open_one_attempt_at_a_time_goes_through_and_one_does_at_last(
    steps: list[tuple[float, str]], random: Random
) -> None:
    breaker, now, under_way = Breaker(), 0.0, 0
    let_through = float("-inf")
    """When one last was, while it was open."""
    for passed, what in steps:
        now += passed
        if what == "ask":
            wait, is_open = breaker.wait(now), breaker.is_open()
            assert 0 <= wait <= max(LONGEST, PROBE)
            assert is_open or wait == 0
            if wait == 0:
                under_way += 1
                if is_open:
                    assert now - let_through >= min(PROBE, FIRST)
                    let_through = now
        elif under_way:
            under_way -= 1
            if what != "is lost":
                breaker.done(now, failed=what == "fails")
            if what == "succeeds":
                assert not breaker.is_open()
    for _ in range(3):
        wait = breaker.wait(now)
        if wait == 0:
            break
        now += wait + random.random()
    assert wait == 0
