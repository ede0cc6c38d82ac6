"""The age of connections: none gets too old, and those that came together do not go together."""

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from pushsvc.node.ages import SPREAD, Ages, lifetime


@given(st.floats(1, 1e6), st.floats(0, 1))
def test_a_lifetime_is_within_the_last_fifth_before_the_age(age: float, chance: float) -> None:
    assert age * (1 - SPREAD) * 0.999 <= lifetime(age, chance) <= age


def test_who_came_together_goes_spread_over_that_fifth() -> None:
    chance = random.Random(1).random
    ages = Ages(1000, chance)
    ends = sorted(ages.begin(fd, 0.0) for fd in range(5000))
    assert ends[0] < 805
    assert ends[-1] > 995
    tenths = [round(end - 800) // 20 for end in ends]
    assert max(tenths.count(tenth) for tenth in range(10)) < 1.2 * 5000 / 10


@given(st.lists(st.integers(0, 300), min_size=1))
def test_a_descriptor_that_is_used_again_has_the_age_of_its_last_connection(
    descriptors: list[int],
) -> None:
    ages = Ages(100, lambda: 0.5)
    last = {}
    for fd, now in zip(descriptors, itertools.count(1.0), strict=False):
        last[fd] = ages.begin(fd, now)
    assert {fd: ages.end(fd) for fd in last} == last
