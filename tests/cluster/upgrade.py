"""Nodes of an earlier version and of the working tree side by side, on one Redis under load.

An upgrade replaces nodes of the earlier version one by one, and a rollback those of the working
tree. While both versions are there, cases are handed from each to the other.

python -m tests.cluster.upgrade --from 6ce0c10
"""

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pushsvc.server.embedded import EmbeddedServer
from tests.cluster import handed, mixed
from tests.cluster.handed import Outcome, Received
from tests.cluster.mixed import Disturb, Mixed, restart
from tests.cluster.tally import Report
from tests.support.nodes import Node
from tests.support.services import HTTPService
from tests.support.versions import HERE, Version, earlier

SLOWEST: Final = 10.0
"""Seconds in which whatever was accepted arrives: what only the sweep finds takes longer."""
REFUSED: Final = ("request refused", "handshake refused")
"""What a node may complain about: the cases try what is forbidden."""


@dataclass
class Result:
    """What became of one direction."""

    report: Report
    outcomes: list[Outcome]
    complaints: Counter[str] = field(default_factory=Counter)
    """Warnings and errors that nodes logged."""

    def broken(self) -> dict[str, Any]:
        """What must not be."""
        slow = {
            kind: round(tally.slowest, 1)
            for kind, tally in self.report.tallies.items()
            if tally.slowest > SLOWEST
        }
        failed = [f"{each.case} ({each.way})" for each in self.outcomes if each.error]
        rows = {"slow": slow, "failed": failed, "complaints": dict(self.complaints)}
        return self.report.disturbed() | {name: row for name, row in rows.items() if row}

    def __str__(self) -> str:
        lines = [str(self.report), ""]
        lines += [
            f"{'failed' if each.error else 'ok':>6} {each.seconds:5.1f} s  {each.way}: {each.case}"
            + (f"\n{'':>10}{each.error}" if each.error else "")
            for each in self.outcomes
        ]
        return "\n".join(lines)


def replacing(after: Version, seconds: float, outcomes: list[Outcome]) -> Disturb:
    """Have another version take the place of each node, one by one, over a time."""

    async def disturb(load: Mixed) -> None:
        for number, node in enumerate(load.nodes, 1):
            await asyncio.sleep(seconds / len(load.nodes))
            load.ending = number == len(load.nodes)
            await restart(load, node, after)
            if number == len(load.nodes) // 2:
                outcomes.extend(await handed.handed(load.nodes[-1], node))

    return disturb


async def direction(
    before: Version,
    after: Version,
    *,
    redis_url: str,
    directory: Path,
    prefix: str,
    seconds: float,
    count: int = 3,
    lease: float = 5,
) -> Result:
    """Replace one version by another under load.

    Args:
        before: what all nodes run at the beginning.
        after: what all nodes run in the end.
        redis_url: their Redis.
        directory: for their logs.
        prefix: of their keys.
        seconds: that the load lasts, the cases apart.
        count: how many nodes there are.
        lease: seconds that their leases last.
    """
    outcomes: list[Outcome] = []
    with HTTPService(Received) as receiver:
        settings = {
            **mixed.SETTINGS, **handed.SETTINGS,
            "lease_seconds": lease, "webhook_url": receiver.url,
        }  # fmt: skip
        nodes = [
            Node(redis_url, directory, prefix=prefix, version=before, **settings)
            for _ in range(count)
        ]
        try:
            for node in nodes:
                node.start()
            load = Mixed(nodes, lease)
            report = await load.run(replacing(after, seconds, outcomes))
        finally:
            for node in nodes:
                if node.port:
                    node.stop()
    return Result(report, outcomes, _complaints(nodes))


def _complaints(nodes: list[Node]) -> Counter[str]:
    found: Counter[str] = Counter()
    for node in nodes:
        for line in node.log_lines():
            if line.get("level") not in ("debug", "info") and line.get("event") not in REFUSED:
                why = line.get("error") or line.get("reason")
                found[f"{line.get('event')}: {why}" if why else str(line.get("event"))] += 1
    return found


async def _main(ref: str, seconds: float, count: int) -> bool:
    good = True
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer() as server:
        old = earlier(ref, Path(folder) / "earlier")
        HERE.check()
        for name, before, after in (("upgrade", old, HERE), ("rollback", HERE, old)):
            sys.stdout.write(f"--- {name}: {before.name} → {after.name}\n\n")
            result = await direction(
                before, after, redis_url=server.url, directory=Path(folder), prefix=name,
                seconds=seconds, count=count,
            )  # fmt: skip
            broken = result.broken()
            good = good and not broken
            verdict = f"broken: {broken}" if broken else f"{name}: nothing lost"
            sys.stdout.write(f"{result}\n\n{verdict}\n\n")
    return good


def main() -> int:
    """Go both ways and print what was seen; 1 where anything was lost or went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.upgrade", description=__doc__)
    parser.add_argument("--from", dest="ref", required=True, help="the earlier version: a git ref")
    parser.add_argument("--seconds", type=float, default=40, help="of load, in each direction")
    parser.add_argument("--nodes", type=int, default=3)
    arguments = parser.parse_args()
    try:
        return int(not asyncio.run(_main(arguments.ref, arguments.seconds, arguments.nodes)))
    except LookupError as error:
        sys.stderr.write(f"{error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
