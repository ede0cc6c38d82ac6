"""Draining: asking clients to go elsewhere, a few at a time."""

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

STEP: Final = 0.1
"""Seconds between two batches."""
LOOK_EVERY: Final = 10
"""Steps between two looks at who is there: some come late, some go by themselves."""


class Drained(Protocol):
    """Who is asked to go."""

    def depart(self, retry_after: float) -> None:
        """Have the client come back, to another node, after some seconds."""


class Pace:
    """How many go at each step, so that they go evenly and the last ones with the last step.

    Args:
        steps: there are.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._due = 0.0

    def take(self, left: int) -> int:
        """How many go now.

        Args:
            left: those who did not go yet, newcomers included.
        """
        if self._steps <= 1:
            return left
        self._due += left / self._steps
        self._steps -= 1
        number = min(left, math.floor(self._due))
        self._due -= number
        return number


def steps(seconds: float) -> int:
    """The number of batches in a time; at least one."""
    return max(1, math.floor(seconds / STEP))


async def pause(seconds: float, hurry: asyncio.Event) -> None:
    """Wait for a time, or until there is a hurry."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, seconds)):
            await hurry.wait()


async def drain(
    present: Callable[[], list[Drained]],
    arriving: Callable[[], int],
    seconds: float,
    hurry: asyncio.Event,
) -> None:
    """Send everybody elsewhere, spread evenly over a time; ends early when nobody is left.

    Args:
        present: who is there now; asked again and again, so that who comes late is not forgotten.
        arriving: how many are about to be there.
        seconds: how long to take. Clients are told to come back at once, within a second at
            random: the spreading is done here.
        hurry: once it is set, all of the rest goes at once.
    """
    started = time.monotonic()
    count = steps(seconds)
    pace = Pace(count)
    waiting: list[Drained] = []
    for step in range(count):
        await pause(started + step * STEP - time.monotonic(), hurry)
        if hurry.is_set():
            break
        if step % LOOK_EVERY == 0 or not waiting:
            waiting = present()
            if not waiting and not arriving():
                return
        for _ in range(pace.take(len(waiting))):
            waiting.pop().depart(random.random())  # noqa: S311 - not a secret
    depart_all(present())


def depart_all(those: list[Drained]) -> None:
    """Send those elsewhere at once."""
    for each in those:
        each.depart(random.random())  # noqa: S311 - not a secret


async def depart_until(
    done: Coroutine[Any, Any, None], present: Callable[[], list[Drained]]
) -> None:
    """Send everybody elsewhere at once, and whoever comes until something is done."""
    waiting = asyncio.create_task(done)
    while not waiting.done():
        depart_all(present())
        await asyncio.wait([waiting], timeout=STEP)
    await waiting
    depart_all(present())
