"""The timer wheel: never late, and leftovers can be told."""

import math
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from pushsvc.node.wheel import Wheel

START = 1000.4
descriptors = st.integers(0, 5)
delays = st.floats(-5, 40)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), descriptors, delays),
        st.tuples(st.just("close"), descriptors, st.just(0.0)),
        st.tuples(st.just("turn"), st.just(0), st.floats(0, 15)),
    ),
    max_size=60,
)


@dataclass
class Members:
    """Holders of descriptors, as the core keeps them: a slot each, and what they wait for."""

    wheel: Wheel
    now: float = START
    wakes: dict[int, int] = field(default_factory=dict)
    dues: dict[int, float] = field(default_factory=dict)

    def put(self, fd: int, due: float) -> None:
        before = self.wakes.get(fd, 0)
        after = self.wheel.put(fd, before, due)
        assert after == before or not before or after < before
        self.wakes[fd] = after
        self.dues[fd] = min(due, self.dues.get(fd, math.inf))

    def close(self, fd: int) -> None:
        self.wakes.pop(fd, None)
        self.dues.pop(fd, None)

    def turn(self, seconds: float) -> None:
        self.now += seconds
        for fd, slot in self.wheel.turn(self.now):
            assert slot <= self.now
            if self.wakes.get(fd) == slot:
                self.close(fd)
        late = {fd: due for fd, due in self.dues.items() if math.ceil(due) <= math.floor(self.now)}
        assert not late


@given(steps)
def test_whatever_is_due_is_visited_by_the_first_turn_of_the_next_full_second(
    script: list[tuple[str, int, float]],
) -> None:
    members = Members(Wheel(START))
    for what, fd, number in script:
        if what == "put":
            # What is overdue already waits for the next second.
            due = max(members.now + number, math.floor(members.now) + 1)
            members.put(fd, due)
        elif what == "close":
            members.close(fd)
        else:
            members.turn(number)
    members.turn(60)
    assert members.dues == {}


@given(st.lists(st.tuples(descriptors, delays), min_size=1, max_size=30), st.integers(1, 3))
def test_every_entry_comes_out_once_and_in_the_order_of_the_seconds(
    puts: list[tuple[int, float]], turns: int
) -> None:
    wheel = Wheel(START)
    slots = [(wheel.put(fd, 0, START + delay), fd) for fd, delay in puts]
    visited = [
        (slot, fd) for turn in range(turns) for fd, slot in wheel.turn(START + 45 * (turn + 1))
    ]
    assert visited == sorted(slots, key=lambda entry: entry[0])


def test_nothing_is_visited_before_it_is_due() -> None:
    wheel = Wheel(START)
    assert wheel.put(3, 0, 1010.2) == 1011
    assert list(wheel.turn(1010.9)) == []
    assert list(wheel.turn(1011.0)) == [(3, 1011)]


def test_what_is_postponed_stays_where_it_is() -> None:
    wheel = Wheel(START)
    wake = wheel.put(3, 0, 1005)
    assert wheel.put(3, wake, 1025) == wake
    assert list(wheel.turn(1030)) == [(3, wake)]


def test_what_is_due_earlier_than_before_leaves_an_entry_behind_that_differs_from_its_slot() -> (
    None
):
    wheel = Wheel(START)
    late = wheel.put(3, 0, 1020)
    early = wheel.put(3, late, 1005)
    assert (early, late) == (1005, 1020)
    assert list(wheel.turn(1006)) == [(3, early)]
    wake = wheel.put(3, 0, 1030)
    leftovers = list(wheel.turn(1025))
    assert leftovers == [(3, late)]
    assert wake not in {slot for _, slot in leftovers}


def test_the_entry_of_a_closed_descriptor_differs_from_the_slot_of_its_successor() -> None:
    wheel = Wheel(START)
    of_the_closed = wheel.put(3, 0, 1010)
    of_the_next = wheel.put(3, 0, 1020)
    assert list(wheel.turn(1015)) == [(3, of_the_closed)]
    assert list(wheel.turn(1020)) == [(3, of_the_next)]


def test_what_is_overdue_is_visited_a_second_later_and_not_in_the_same_turn() -> None:
    wheel = Wheel(START)
    wheel.put(3, 0, 1002)
    again = [(slot, wheel.put(fd, 0, 0.0)) for fd, slot in wheel.turn(1002.5)]
    assert again == [(1002, 1003)]
    assert list(wheel.turn(1002.9)) == []
    assert list(wheel.turn(1003)) == [(3, 1003)]


def test_a_turn_catches_up_with_every_second_that_was_missed() -> None:
    wheel = Wheel(START)
    for second in range(1001, 1101):
        wheel.put(second, 0, second)
    assert [fd for fd, _ in wheel.turn(5000)] == list(range(1001, 1101))
    assert list(wheel.turn(5000)) == []


def test_a_clock_that_stands_still_turns_nothing() -> None:
    wheel = Wheel(START)
    wheel.put(3, 0, START)
    assert list(wheel.turn(START)) == []
    assert list(wheel.turn(START - 1)) == []
    assert list(wheel.turn(1001)) == [(3, 1001)]
