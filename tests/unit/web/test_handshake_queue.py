"""Whose handshake begins when, and who is refused, with time as the test says."""

import random

import pytest

from pushsvc.web.handshake_queue import AT_ONCE, LONGEST, STUCK, HandshakeQueue


class World:
    def __init__(self, most: int) -> None:
        self.now = 1000.0
        self.begun: list[int] = []
        self.refused: list[int] = []
        self.queue: HandshakeQueue[int] = HandshakeQueue(
            most, self.begun.append, self.refused.append, lambda: self.now
        )

    def put(self, *numbers: int) -> None:
        for number in numbers:
            self.queue.put(number)


@pytest.fixture
def world() -> World:
    return World(10 * AT_ONCE)


def test_a_few_are_under_way_and_the_rest_follows_in_the_order_in_which_it_came(
    world: World,
) -> None:
    count = 10_000
    world.put(*range(count))
    assert world.begun == list(range(AT_ONCE))
    for ended in range(1, count + 1):
        world.queue.ended()
        assert world.queue.under_way == min(AT_ONCE, count - ended)
    assert world.begun == list(range(count))
    assert world.refused == []


def test_who_comes_does_not_overtake_who_waits(world: World) -> None:
    source = random.Random(1)
    for number in range(5000):
        world.put(number)
        for _ in range(source.randint(0, 2)):
            if world.queue.under_way:
                world.queue.ended()
        assert world.queue.under_way <= AT_ONCE
    assert world.begun == list(range(len(world.begun)))


def test_who_has_waited_for_too_long_is_refused_in_its_turn(world: World) -> None:
    world.put(*range(AT_ONCE), 1000)
    world.now += LONGEST
    world.put(1001)
    world.now += 0.5
    world.queue.ended()
    assert world.refused == [1000]
    assert world.begun[-1] == 1001


def test_while_some_end_any_number_may_wait(world: World) -> None:
    world.put(*range(20 * AT_ONCE))
    for number in range(8):
        world.now += 0.9 * STUCK
        world.queue.ended()
        world.put(10_000 + number)
        assert world.refused == []


def test_while_none_ends_those_that_came_first_wait_and_the_others_are_refused() -> None:
    world = World(4)
    world.put(*range(6))
    assert world.begun == [0, 1, 2, 3]
    assert world.refused == []
    world.now += STUCK
    world.put(6)
    assert world.refused == [6, 5, 4]
    world.put(7)
    assert world.refused[-1] == 7
    world.queue.ended()
    world.put(8)
    assert world.begun[-1] == 8


def test_up_to_the_bound_they_wait_however_long_nothing_goes_on(world: World) -> None:
    world.put(*range(10 * AT_ONCE))
    world.now += 2 * STUCK
    world.put(-1)
    assert world.refused == [-1]
    assert len(world.queue) == 9 * AT_ONCE


def test_one_that_waits_for_keys_holds_up_nobody(world: World) -> None:
    world.put(*range(AT_ONCE + 2))
    with world.queue.apart():
        assert world.begun[-1] == AT_ONCE
        assert world.queue.under_way == AT_ONCE
    world.queue.ended()
    assert world.begun[-1] == AT_ONCE, "the one that came back has its turn again"
    world.queue.ended()
    assert world.begun[-1] == AT_ONCE + 1
