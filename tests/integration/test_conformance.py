"""Both clients do what every client has to do, and the suite that says so can fail."""

import asyncio
import functools
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from conformance.driver import Driver
from conformance.drivers import ours
from conformance.run import Outcome, run_all, run_one
from conformance.table import VERBS, Scenario, TableWrong, load
from pushsvc.codes import Close

pytestmark = pytest.mark.promise

DRIVERS = ours()
HAS = {
    "python": frozenset({"status", "random"}),
    "js": frozenset({"fallback", "heartbeat", "inbox", "random"}),
}
"""What each client can do beyond the least, as its driver says too."""
SCENARIOS = {scenario.name: scenario for scenario in load()}
APPLY = [
    (client, name)
    for client in DRIVERS
    for name, scenario in SCENARIOS.items()
    if scenario.needs <= HAS[client]
]
ROOT = Path(DRIVERS["python"][1]).parents[2]
NAIVE = [sys.executable, str(Path(DRIVERS["python"][1]).with_name("naive.py"))]


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Callable[[str], dict[str, Outcome]]:
    """What became of each scenario that is asked about, all played at once, once for a client."""
    wanted = {
        (item.callspec.params["client"], item.callspec.params["name"])
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.function is test_a_client_does_what_the_table_says
    }

    @functools.cache
    def played_with(client: str) -> dict[str, Outcome]:
        scenarios = [each for name, each in SCENARIOS.items() if (client, name) in wanted]
        played = asyncio.run(run_all(scenarios, DRIVERS[client]))
        return {outcome.scenario.name: outcome for outcome in played}

    return played_with


@pytest.mark.timeout(300)  # the first one waits for all
@pytest.mark.parametrize(("client", "name"), APPLY)
def test_a_client_does_what_the_table_says(
    client: str, name: str, outcomes: Callable[[str], dict[str, Outcome]]
) -> None:
    outcome = outcomes(client)[name]
    if outcome.wrong is not None:
        pytest.fail(f"{client}: {outcome.wrong}", pytrace=False)


@pytest.mark.parametrize("client", DRIVERS)
async def test_a_driver_says_what_its_client_can_do(client: str) -> None:
    async with Driver.running(DRIVERS[client]) as driver:
        assert driver.has == HAS[client]


async def played(name: str) -> Outcome:
    return await run_one(SCENARIOS[name], NAIVE)


@pytest.mark.parametrize(
    "name",
    [
        "notifications are told in order, and acknowledged",
        "close 4001: come back",
        "a message of an unknown type is ignored",
    ],
)
async def test_even_a_naive_client_passes_some(name: str) -> None:
    assert (await played(name)).wrong is None


@pytest.mark.parametrize(
    ("name", "step", "wrong"),
    [
        ("the ack follows the end of the handler", 4, "the client sent {'type': 'ack'"),
        (
            "what was handled and comes again after a reconnect is acknowledged, not handled",
            10,
            "the client told {'event': 'notification'",
        ),
        (
            "an id that is not newer than the last one handled is not handled",
            7,
            "id is '5-0', and should be '5-2'",
        ),
        ("a broadcast is acknowledged as one", 4, "broadcast should be True"),
        ("close 4501: stop, and say why", 4, "the state 'closed' did not come"),
        (
            "`reconnect`: not before the time that it says, and within the window after it",
            5,
            "too early",
        ),
        ("the delays of a failing client are spread over the window", 1, "are not spread"),
        ("a refused token is asked for once more, and the new one is used", 1, "'token'"),
        ("a server that never says welcome is given up and tried again", 2, "the connection"),
    ],
)
async def test_a_step_that_fails_says_what_came_instead(name: str, step: int, wrong: str) -> None:
    outcome = await played(name)

    assert outcome.wrong is not None
    assert outcome.wrong.startswith(f"step {step}, ")
    assert wrong in outcome.wrong


async def test_a_driver_that_ends_fails_and_its_last_words_are_shown() -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such client')"]
    outcome = await run_one(next(iter(SCENARIOS.values())), command)

    assert outcome.wrong is not None
    assert "no such client" in outcome.wrong


async def test_a_driver_that_writes_something_else_is_told_so() -> None:
    command = [sys.executable, "-c", "print('hello')"]
    outcome = await run_one(next(iter(SCENARIOS.values())), command)

    assert outcome.wrong is not None
    assert "not an event: hello" in outcome.wrong


def conformance(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the suite as from a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "conformance", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("driver", "why"),
    [
        (["no-such-driver", "--verbose"], "No such file or directory"),
        ([str(ROOT)], "Permission denied"),
        ([sys.executable, "-c", "raise SystemExit('no such client')"], "no such client"),
    ],
)
def test_a_driver_that_cannot_be_started_is_one_error(driver: list[str], why: str) -> None:
    done = conformance("--", *driver)

    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert driver[0] in line
    assert why in line


def test_at_the_end_a_line_sums_up_the_client_of_a_driver() -> None:
    done = conformance("--only", "is ignored", "--", *NAIVE)

    assert done.returncode == 0, done.stdout
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(r"naive: [1-9]\d* passed, 0 failed, \d+ did not apply, in .* s", last)


async def test_a_handshake_that_is_none_fails_the_scenario_and_not_the_suite() -> None:
    client = """
import json, urllib.request
print(json.dumps({"event": "ready", "client": "broken"}), flush=True)
urllib.request.urlopen(json.loads(input())["url"] + "/v1/ws").read()
"""
    outcome = await run_one(SCENARIOS["close 4001: come back"], [sys.executable, "-c", client])

    assert outcome.wrong is not None
    assert outcome.wrong.startswith("step 1, accept websocket: ")


async def test_a_scenario_that_needs_more_than_the_client_has_does_not_apply() -> None:
    outcome = await played("the jitter is full: with luck there is no delay")

    assert outcome.lacks == {"random"}
    assert outcome.wrong is None


def closes(scenario: Scenario) -> Sequence[Any]:
    return [step["close"] for step in scenario.steps if "close" in step]


def test_every_close_code_of_the_protocol_is_in_the_table() -> None:
    """With the decision that its range means."""
    stops, returns = set[int](), set[int]()
    for scenario in SCENARIOS.values():
        if scenario.group == "closes" and (codes := closes(scenario)):
            stopped = any(step.get("state") == "closed" for step in scenario.steps)
            (stops if stopped else returns).add(codes[0])

    assert {code for code in Close if 4500 <= code <= 4999} <= stops
    assert {code for code in Close if not 4500 <= code <= 4999} <= returns


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('[[scenario]]\nname = "x"\nsteps = [{ dance = 1 }]', "a step that means nothing"),
        ('[[scenario]]\nname = "x"\nstep = []\nsteps = []', "step, which means nothing"),
        ('[[scenario]]\nname = "x"\nsteps = []\n' * 2, "two scenarios are called 'x'"),
    ],
)
def test_a_table_that_is_written_wrongly_is_refused(text: str, wrong: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text(text)

    with pytest.raises(TableWrong, match=wrong):
        load(tmp_path)


def test_the_readme_names_every_step_command_and_event() -> None:
    readme = (Path(DRIVERS["python"][1]).parents[1] / "README.md").read_text()

    commands = {
        step["do"] for scenario in SCENARIOS.values() for step in scenario.steps if "do" in step
    }
    events = {
        step["told"] for scenario in SCENARIOS.values() for step in scenario.steps if "told" in step
    }
    needs = {need for scenario in SCENARIOS.values() for need in scenario.needs}

    missing = {each for each in VERBS | commands | events | needs if f"`{each}`" not in readme}
    assert not missing


def test_the_readme_shows_a_conversation_of_json_lines() -> None:
    readme = (Path(DRIVERS["python"][1]).parents[1] / "README.md").read_text()
    lines = [line[2:] for line in readme.splitlines() if line.startswith(("> {", "< {"))]

    assert lines
    assert all("do" in each or "event" in each for each in map(json.loads, lines))
