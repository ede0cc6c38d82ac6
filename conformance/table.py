"""The table of scenarios: what is in the TOML files, checked."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from conformance.match import filled

FOLDER: Final = Path(__file__).parent / "scenarios"

VERBS: Final = frozenset(
    {
        # the server
        "accept",
        "arrive",
        "refuse",
        "refusing",
        "send",
        "text",
        "backlog",
        "close",
        "drop",
        "poll",
        "request",
        "mailbox",
        # what the client sends
        "hear",
        "acked",
        "subscribed",
        "gone",
        # the driver
        "do",
        "told",
        "state",
        "shows",
        # time
        "quiet",
        "returns",
    }
)
_MEMBERS: Final = frozenset({"name", "why", "connect", "needs", "each", "steps"})

CONNECT: Final[Mapping[str, Any]] = {
    "token": "t1",
    "device": "d1",
    "transports": ["websocket"],
}
TIMING: Final[Mapping[str, int]] = {
    "first": 10,
    "max": 40,
    "uptime": 60_000,
    "open": 2000,
    "answer": 30_000,
}
"""Milliseconds. Few scenarios are about time; the others need not wait."""


class TableWrong(Exception):
    """A scenario is not written as README.md says."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One behaviour.

    Attributes:
        name: a sentence; unique.
        group: the file that it is in, without its suffix.
        why: the reason for it, where the name does not tell.
        connect: the first command.
        needs: capabilities that the client must have.
        steps: what happens, in order.
    """

    name: str
    group: str
    why: str
    connect: dict[str, Any]
    needs: frozenset[str]
    steps: list[dict[str, Any]]


def load(folder: Path = FOLDER) -> list[Scenario]:
    """All scenarios, in the order of the files and of their text.

    Raises:
        TableWrong: one of them is malformed, or two have the same name.
    """
    found: list[Scenario] = []
    for path in sorted(folder.glob("*.toml")):
        for entry in tomllib.loads(path.read_text())["scenario"]:
            found.extend(_expanded(entry, path.stem))
    names = [scenario.name for scenario in found]
    for name in names:
        if names.count(name) > 1:
            raise TableWrong(f"two scenarios are called {name!r}")
    return found


def _expanded(entry: dict[str, Any], group: str) -> Iterator[Scenario]:
    """The scenario, or one for every value of its ``each``."""
    each = entry.get("each")
    if each is None:
        yield _scenario(entry, group, {})
        return
    for variable, values in each.items():
        for value in values:
            yield _scenario(entry, group, {variable: value})


def _scenario(entry: dict[str, Any], group: str, variables: dict[str, Any]) -> Scenario:
    name = str(entry.get("name", "a scenario without a name"))
    for key, value in variables.items():
        name = name.replace("{" + key + "}", str(value))
    unknown = entry.keys() - _MEMBERS
    if unknown:
        raise TableWrong(f"{name!r} has {', '.join(sorted(unknown))}, which means nothing")
    steps = [filled(step, variables) for step in entry["steps"]]
    for step in steps:
        if verb(step) not in VERBS:
            raise TableWrong(f"{name!r} has a step that means nothing: {step}")
    given = entry.get("connect", {})
    connect = {
        "do": "connect",
        **CONNECT,
        **given,
        "timing": {**TIMING, **given.get("timing", {})},
    }
    if connect.get("provider"):
        del connect["token"]
    needs = entry.get("needs", [])
    return Scenario(
        name=name,
        group=group,
        why=str(entry.get("why", "")),
        connect=connect,
        needs=frozenset([needs] if isinstance(needs, str) else needs),
        steps=steps,
    )


def verb(step: Mapping[str, Any]) -> str:
    """What a step is: the name of its first member."""
    return next(iter(step), "")
