"""Turns in a sweep."""

from hypothesis import given
from hypothesis import strategies as st

from pushsvc.node.sweep_schedule import SweepSchedule

NAMES = [f"u:{n}" for n in range(100)]


def test_everyone_has_one_turn_in_a_round() -> None:
    schedule = SweepSchedule(60, 5, 0)
    turns = [schedule.turn(lambda: NAMES, now) for now in range(60)]
    assert turns == [[]] * 60
    turns = [schedule.turn(lambda: NAMES, now) for now in range(60, 120)]
    assert [name for turn in turns for name in turn] == NAMES
    assert max(map(len, turns)) == 2


def test_a_hurried_round_is_over_soon() -> None:
    schedule = SweepSchedule(60, 5, 0)
    schedule.hurry()
    assert [name for now in range(5) for name in schedule.turn(lambda: NAMES, now)] == NAMES
    assert schedule.turn(lambda: NAMES, 5) == []


@given(st.lists(st.booleans(), max_size=130))
def test_however_often_it_is_hurried_everyone_has_a_turn_soon(hurries: list[bool]) -> None:
    schedule = SweepSchedule(60, 5, 0)
    turns = []
    for now, hurried in enumerate(hurries + [False] * 11):
        if hurried:
            schedule.hurry()
        turns.append(schedule.turn(lambda: NAMES, now))
    for now, hurried in enumerate(hurries):
        if hurried:
            assert {name for turn in turns[now : now + 11] for name in turn} == set(NAMES)


def test_who_could_not_be_looked_at_is_next() -> None:
    schedule = SweepSchedule(60, 5, 0)
    schedule.hurry()
    first = schedule.turn(lambda: NAMES, 0)
    schedule.put_back(first)
    assert schedule.turn(lambda: NAMES, 1) == first


def test_who_is_put_back_twice_has_one_turn() -> None:
    schedule = SweepSchedule(60, 5, 0)
    schedule.hurry()
    first = schedule.turn(lambda: NAMES, 0)
    schedule.put_back([*first, *first])
    assert [name for now in range(1, 6) for name in schedule.turn(lambda: NAMES, now)] == NAMES
