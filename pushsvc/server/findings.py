"""What came of a check of the surroundings of a node, as an operator is told it."""

from dataclasses import dataclass
from enum import StrEnum

from pushsvc.printable import printable
from pushsvc.settings import SettingsError


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    SKIP = "skip"
    """It could not be made, which keeps no node from working."""
    WARN = "warn"
    """A node works, until something else goes wrong."""
    FAIL = "fail"
    """A node does not start, or does not do what its settings say."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one check.

    Attributes:
        state: how it ended.
        check: what was checked.
        what: what was found; one line.
        change: what to change; empty if that is nothing.
    """

    state: State
    check: str
    what: str
    change: str = ""

    def __str__(self) -> str:
        change = f" → {self.change}" if self.change else ""
        return printable(f"{self.state:<4}  {self.check}: {self.what}{change}")


def refused(check: str, error: SettingsError) -> Finding:
    """Why a node would not start."""
    change = error.advice or f"correct {error.variable} (docs/settings.md)"
    return Finding(State.FAIL, check, f"{error.variable}: {error.message}", change)
