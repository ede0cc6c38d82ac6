"""Runs scenarios against a client, several at once, each with a server and a driver of its own."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from conformance.driver import ENDS_WITHIN, Driver, DriverFailed
from conformance.play import StepFailed, play
from conformance.server import Server
from conformance.table import Scenario

AT_ONCE: Final = 8
"""Scenarios wait more than they work; more at once would blur the times that they measure."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one scenario.

    Attributes:
        scenario: which one.
        client: the client's name, empty where it was not learned.
        wrong: what was expected at which step, and what came; None where it passed.
        lacks: what the client would need for it; then it was not played.
        seconds: how long it took.
    """

    scenario: Scenario
    client: str
    wrong: str | None
    lacks: frozenset[str]
    seconds: float


async def client_of(command: Sequence[str]) -> str:
    """The name of the client that a driver puts under test.

    Raises:
        DriverFailed: it cannot be started, or did not become ready.
    """
    try:
        async with Driver.running(command) as driver:
            return driver.client
    except OSError as error:
        raise DriverFailed(f"cannot be started: {error.strerror or error}") from None


async def run_one(scenario: Scenario, command: Sequence[str]) -> Outcome:
    """Play one scenario with a new driver."""
    started = time.monotonic()
    client, wrong, lacks = "", None, frozenset[str]()
    try:
        async with Server.running() as server, Driver.running(command) as driver:
            client = driver.client
            lacks = scenario.needs - driver.has
            if not lacks:
                await play(scenario, server, driver)
        if driver.hung:
            wrong = f"the driver did not end within {ENDS_WITHIN:g} s of its input's end"
    except (DriverFailed, StepFailed, OSError) as error:
        wrong = str(error)
    return Outcome(scenario, client, wrong, lacks, time.monotonic() - started)


async def run_all(
    scenarios: Sequence[Scenario],
    command: Sequence[str],
    *,
    at_once: int = AT_ONCE,
    done: Callable[[Outcome], None] = lambda _outcome: None,
) -> list[Outcome]:
    """Play scenarios, at most ``at_once`` at a time.

    Args:
        scenarios: which ones.
        command: starts a driver.
        at_once: how many.
        done: is told each outcome as it comes.

    Returns:
        The outcomes, in the order of the scenarios.
    """
    places = asyncio.Semaphore(at_once)

    async def placed(scenario: Scenario) -> Outcome:
        async with places:
            outcome = await run_one(scenario, command)
        done(outcome)
        return outcome

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(placed(scenario)) for scenario in scenarios]
    return [task.result() for task in tasks]
