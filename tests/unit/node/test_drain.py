"""Draining: an even pace, nobody forgotten, and an end as soon as there can be one."""

import asyncio
import time

from hypothesis import given
from hypothesis import strategies as st

from pushsvc.node.drain import STEP, Drained, Pace, drain, steps

counts = st.integers(0, 5000)


def paced(count: int, number: int) -> list[int]:
    """How many of those that are there from the beginning go with each step."""
    pace, left, gone = Pace(number), count, []
    for _ in range(number):
        gone.append(pace.take(left))
        left -= gone[-1]
    return gone


@given(st.floats(0, 3600))
def test_the_steps_fit_into_the_time(seconds: float) -> None:
    assert steps(seconds) >= 1
    assert (steps(seconds) - 1) * STEP <= seconds


@given(counts, st.integers(1, 600))
def test_everyone_goes_once_and_the_last_with_the_last_step(count: int, number: int) -> None:
    gone = paced(count, number)
    assert sum(gone) == count
    assert min(gone) >= 0


@given(st.integers(1, 5000), st.integers(10, 600))
def test_no_step_has_much_more_than_its_share(count: int, number: int) -> None:
    share = count / number
    assert max(paced(count, number)) <= share + 2
    assert share >= 1 or max(paced(count, number)) <= 2


@given(st.integers(10, 5000), st.integers(20, 600))
def test_each_half_of_the_time_has_half_of_those_who_go(count: int, number: int) -> None:
    gone = paced(count, number)
    first = sum(gone[: number // 2])
    # A step and one who just did not make it.
    assert abs(first - count * (number // 2) / number) <= count / number + 2


@given(st.integers(1, 1000), st.integers(0, 1000), st.integers(2, 300))
def test_who_comes_late_goes_within_the_time_too(count: int, late: int, number: int) -> None:
    pace, left, gone = Pace(number), count, []
    for step in range(number):
        left += late if step == number // 2 else 0
        gone.append(pace.take(left))
        left -= gone[-1]
    assert left == 0
    assert max(gone) <= (count + late) / (number - number // 2) + 2


class Client:
    """Somebody who can be asked to go."""

    def __init__(self) -> None:
        self.told: list[float] = []
        self.at = 0.0

    def depart(self, retry_after: float) -> None:
        self.told.append(retry_after)
        self.at = time.monotonic()


class Here:
    """Who is there, and is about to be."""

    def __init__(self, count: int) -> None:
        self.clients = [Client() for _ in range(count)]
        self.arriving = 0
        self.hurry = asyncio.Event()

    def present(self) -> list[Drained]:
        return [client for client in self.clients if not client.told]

    async def drain(self, seconds: float) -> float:
        """Drain, and how long it took; everyone was asked once."""
        started = time.monotonic()
        await drain(self.present, lambda: self.arriving, seconds, self.hurry)
        assert all(len(client.told) == 1 for client in self.clients)
        return time.monotonic() - started


async def test_each_is_asked_once_to_come_back_at_once_but_not_all_together() -> None:
    here = Here(25)
    assert await here.drain(0.5) < 1
    waits = {client.told[0] for client in here.clients}
    assert len(waits) == 25
    assert 0 <= min(waits) <= max(waits) <= 1
    times = sorted(client.at for client in here.clients)
    assert times[-1] - times[0] > 0.25


async def test_a_drain_of_no_time_asks_everyone_at_once() -> None:
    assert await Here(25).drain(0) < 0.1


async def test_a_drain_ends_when_nobody_is_left() -> None:
    assert await Here(0).drain(60) < 0.1


async def test_who_arrives_meanwhile_is_waited_for_and_asked_too() -> None:
    here = Here(0)
    here.arriving = 1

    async def arrive() -> None:
        await asyncio.sleep(0.15)
        here.clients.append(Client())
        here.arriving = 0

    arriving = asyncio.create_task(arrive())
    assert 0.15 <= await here.drain(0.6) < 1
    await arriving
    assert len(here.clients) == 1


async def test_in_a_hurry_all_go_at_once() -> None:
    here = Here(25)
    asyncio.get_running_loop().call_later(0.2, here.hurry.set)
    assert 0.2 <= await here.drain(60) < 1
