"""Whose handshake begins when, and who is refused, with time as the test says."""

import asyncio
import random

import pytest

from pushsvc.web.handshake_queue import (
    AT_ONCE,
    LONGEST,
    MOST_BYTES,
    REFUSED,
    STUCK,
    HandshakeQueue,
)

SIZE = 100


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
            self.queue.put(number, SIZE)


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


async def test_who_has_waited_for_too_long_is_refused_in_its_turn(world: World) -> None:
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


async def test_while_none_ends_those_that_came_first_wait_and_the_others_are_refused() -> None:
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


async def test_up_to_the_bound_they_wait_however_long_nothing_goes_on(world: World) -> None:
    world.put(*range(10 * AT_ONCE))
    world.now += 2 * STUCK
    world.put(-1)
    assert world.refused == [-1]
    assert len(world.queue) == 9 * AT_ONCE


async def test_one_that_waits_for_keys_holds_up_nobody_and_has_the_next_turn(world: World) -> None:
    world.put(*range(AT_ONCE + 2))
    keys = asyncio.Event()

    async def handshake() -> None:
        async with world.queue.apart():
            await keys.wait()

    there = asyncio.create_task(handshake())
    await asyncio.sleep(0)
    assert world.begun[-1] == AT_ONCE
    keys.set()
    await asyncio.sleep(0.01)
    assert not there.done(), "it goes beyond what may be under way"
    world.queue.ended()
    assert world.begun[-1] == AT_ONCE
    await there
    assert world.queue.under_way == AT_ONCE
    world.queue.ended()
    assert world.begun[-1] == AT_ONCE + 1


async def test_any_number_may_need_keys_and_those_that_give_up_leave_turns_behind() -> None:
    world = World(4)
    count, ends = 50, 0

    async def handshake() -> None:
        nonlocal ends
        begun.append(asyncio.current_task())
        try:
            async with world.queue.apart():
                await asyncio.sleep(0)
            ends += 1
        finally:
            world.queue.ended()

    tasks: list[asyncio.Task[None]] = []
    begun: list[asyncio.Task[None] | None] = []
    world.queue = HandshakeQueue(
        4, lambda _: tasks.append(asyncio.create_task(handshake())), world.refused.append
    )
    world.put(*range(count))
    while ends < count - 10:
        await asyncio.sleep(0)
        assert 0 <= world.queue.under_way <= 4
        assert len(tasks) - ends <= 4 + 4 + 4
    for each in begun:
        assert each is not None
        each.cancel()
    while len(tasks) < count or not all(task.done() for task in tasks):
        await asyncio.sleep(0)
    assert world.queue.under_way == 0
    assert world.refused == []


def test_who_has_gone_waits_no_more(world: World) -> None:
    world.put(*range(AT_ONCE + 2))
    world.queue.drop(AT_ONCE)
    world.queue.drop(0)
    world.queue.ended()
    assert world.begun[-1] == AT_ONCE + 1
    assert len(world.queue) == 0


async def test_what_waits_is_bounded_in_bytes_and_the_newest_is_refused(world: World) -> None:
    world.put(*range(AT_ONCE))
    for number in range(4):
        assert world.queue.full == (number >= 2)
        world.queue.put(1000 + number, MOST_BYTES // 2)
    world.queue.put(2000, 1)
    assert world.refused == [2000]
    for _ in range(3):
        world.queue.ended()
    assert not world.queue.full
    assert world.begun[-3:] == [1000, 1001, 1002]


async def test_many_are_refused_in_parts_and_an_error_stops_nothing() -> None:
    world = World(AT_ONCE)

    def refuse(number: int) -> None:
        world.refused.append(number)
        if number % 2:
            raise ZeroDivisionError

    world.queue = HandshakeQueue(AT_ONCE, world.begun.append, refuse, lambda: world.now)
    world.put(*range(10 * AT_ONCE))
    world.now += LONGEST + 1
    for _ in range(AT_ONCE):
        world.queue.ended()
    assert world.queue.under_way == 0
    while len(world.queue):
        before = len(world.refused)
        await asyncio.sleep(0)
        assert len(world.refused) - before <= REFUSED
    assert len(world.refused) == 9 * AT_ONCE
    world.put(-1)
    assert world.begun[-1] == -1
