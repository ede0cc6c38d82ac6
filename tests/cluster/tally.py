"""What the checker of the mixed load counts, and which of it must be zero."""

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any, Final, NamedTuple

from pushsvc.codes import Close
from pushsvc.protocol import ids
from pushsvc.protocol.feeds import BROADCAST, MAILBOX

KINDS: Final = ("mailbox", "topic", "broadcast")


def kind_of(feed: str) -> str:
    """Which row of the table a feed belongs to."""
    if feed.startswith(MAILBOX):
        return "mailbox"
    return "broadcast" if feed == BROADCAST else "topic"


class Accepted(NamedTuple):
    """A publication that was answered with an id."""

    number: int
    at: float
    key: str
    """Its collapse key; empty for none."""


@dataclass
class Place:
    """What one client holds of one feed."""

    told: dict[int, float] = field(default_factory=dict)
    """Id to when it was delivered first."""
    confirmed: int = ids.START
    """Up to here nothing may come again: it is acknowledged, or the client says that it has it."""


@dataclass
class Tally:
    """What became of the publications of one kind."""

    attempted: int = 0
    accepted: int = 0
    delivered: int = 0
    redelivered: int = 0
    """Told again on another connection, as it was not acknowledged."""
    lost: int = 0
    duplicated: int = 0
    """Twice on one connection without an attempt."""
    out_of_order: int = 0
    again: int = 0
    """Although its acknowledgement was confirmed, or ``since`` excluded it."""
    doubled: int = 0
    """One publication, several ids."""
    gaps: int = 0
    slowest: float = 0.0
    """Seconds from the answer to the publisher to the first delivery."""


PROMISES: Final = ("lost", "duplicated", "out_of_order", "again", "doubled", "gaps")


@dataclass
class Report:
    """What the checker saw."""

    tallies: dict[str, Tally] = field(default_factory=lambda: {kind: Tally() for kind in KINDS})
    kills: int = 0
    restarts: int = 0
    reconnects: int = 0
    closes: Counter[int] = field(default_factory=Counter)
    sent_away: int = 0
    """Closed, or refused, with an answer that means: do not come back."""
    errors: Counter[str] = field(default_factory=Counter)
    """Error messages on sockets, by their code."""
    unanswered: int = 0
    """Publishes from sockets whose answer did not come: they may have happened."""
    refused: int = 0
    """Requests to a node that was not there."""
    broken_off: Counter[str] = field(default_factory=Counter)
    """Requests that a node did not answer, by how they ended."""
    unavailable: int = 0
    """Answers 503, all of which were tried again."""
    never_accepted: int = 0
    presence_seconds: float = 0.0
    """From the last fault until presence was true, and stayed true, everywhere."""
    presence_late: bool = False
    """That was longer than two leases."""
    presence: str = ""
    """The last time that presence was wrong: the truth, and what everyone believed."""

    def broken(self) -> dict[str, Any]:
        """The promises that were broken whatever happened to the nodes, with how often."""
        rows = {
            f"{kind} {name}": getattr(tally, name)
            for kind, tally in self.tallies.items()
            for name in PROMISES
        }
        rows |= {"sent away": self.sent_away, "never accepted": self.never_accepted}
        if self.presence_late:
            rows["presence"] = f"{self.presence_seconds:.1f} s; {self.presence}"
        return {name: count for name, count in rows.items() if count}

    def disturbed(self) -> dict[str, Any]:
        """The same, and what a restart that was asked for must not do to anybody."""
        wrong = {code: count for code, count in self.closes.items() if code != Close.DRAINING}
        rows = {"closes": wrong, "requests": dict(self.broken_off), "errors": dict(self.errors)}
        return self.broken() | {name: row for name, row in rows.items() if row}

    def __str__(self) -> str:
        names = [each.name for each in fields(Tally)]
        lines = [f"{'':>16}" + "".join(f"{kind:>12}" for kind in KINDS)]
        lines += [
            f"{name.replace('_', ' '):>16}"
            + "".join(f"{getattr(self.tallies[kind], name):>12.5g}" for kind in KINDS)
            for name in names
        ]
        lines.append("")
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name not in ("tallies", "presence", "presence_late"):
                shown = dict(value) if isinstance(value, Counter) else f"{value:g}"
                lines.append(f"{each.name.replace('_', ' '):>16}  {shown}")
        return "\n".join(lines)
