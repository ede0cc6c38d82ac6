"""``python -m bench peers``: pushsvc and other servers in turn, the same work in one run.

The server has the first core for itself; Valkey, the sockets and the publishers share the last.
Each round starts each server once for each kind of work, all servers in turn, and the medians of
the rounds are told. What a machine lacks is said, and the rest is compared.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import redis

from bench.generator import CACHE
from bench.harness import pin, say
from bench.peers import plot
from bench.peers.servers import PEERS, Null, Peer
from bench.peers.table import ROWS, Results, Row, checked, markdown, shortfalls
from bench.peers.work import TINY, WORKS, Measured, Size, measure

ROUNDS = 3
QUIET = 0.5
"""The load of a machine on which nothing else runs."""

Rounds = dict[str, list[Measured]]
"""What was measured of each server, a round each."""


def main(arguments: Sequence[str]) -> int:
    """Compare, and print the table; 1 where a server that is there could not do the work."""
    options = _options(arguments)
    pin(0, -1)
    _allow_many_files()
    load = os.getloadavg()[0]
    if load > QUIET:
        say(f"peers: the machine is not quiet: its load is {load:.1f}")
    peers = [p for p in PEERS if not options.only or p.name.lower() in options.only]
    absent = _absent(peers, build=options.build)
    peers = [p for p in peers if p.name not in absent]
    here = [f"{name}: not on this machine; {why}" for name, why in absent.items()]
    if not peers:
        print(*here, sep="\n")
        return 1
    size = TINY if options.tiny else Size()
    null = Null()
    started = time.monotonic()
    rounds, failures = _rounds([*peers, null], options.rounds, size)
    results = {name: _medians(each) for name, each in rounds.items()}
    alone = results.pop(null.name, {})
    notes = {peer.name: f"{peer.version()}; {peer.note}" for peer in peers}
    print(markdown(results, notes))
    for line in [*shortfalls(results), *checked(results, alone), *here, *failures]:
        print(f"- {line}.")
    facts = {
        "rounds": options.rounds,
        "seconds": round(time.monotonic() - started),
        "load_before": load,
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {peer.name: peer.version() for peer in peers},
        "absent": absent,
        "failures": failures,
        "medians": {**results, null.name: alone},
        "all": rounds,
    }
    _write(options, results, facts)
    return int(bool(failures))


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench peers", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    names = [peer.name.lower() for peer in PEERS]
    parser.add_argument(
        "--only", nargs="+", default=[], choices=names, metavar="NAME",
        help=f"compare these: {', '.join(names)}; all if none is named",
    )  # fmt: skip
    parser.add_argument(
        "--build", action="store_true",
        help="build what is missing where its toolchain is there (Go, npm, Cargo with protoc), "
        f"into {CACHE}; Sockudo takes half an hour or more",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"rounds ({ROUNDS})")
    parser.add_argument(
        "--tiny", action="store_true",
        help="so little work that it only shows that all of it works; the figures mean nothing",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="write the plots there")
    return parser.parse_args(arguments)


def _allow_many_files() -> None:
    """Servers inherit the limit of open files."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _absent(peers: Sequence[Peer], *, build: bool) -> dict[str, str]:
    """What cannot be compared here, with what has to be done for it."""
    absent = {}
    for peer in peers:
        why = peer.missing()
        if why and build:
            say(f"peers: building {peer.name}")
            try:
                peer.build()
                why = peer.missing()
            except (RuntimeError, subprocess.CalledProcessError) as error:
                why = str(error)
        if why:
            absent[peer.name] = why
            say(f"peers: {peer.name} is not here: {why}")
    return absent


def _rounds(peers: Sequence[Peer], count: int, size: Size) -> tuple[Rounds, list[str]]:
    rounds: Rounds = {peer.name: [] for peer in peers}
    failures = []
    for number in range(count):
        for peer in peers:
            rounds[peer.name].append({})
        for work in WORKS:
            for peer in peers:
                say(f"peers: round {number + 1} of {count}: {work.__name__}: {peer.name}")
                try:
                    rounds[peer.name][-1] |= measure(work, peer, size)
                except (OSError, RuntimeError, psutil.Error, redis.RedisError) as error:
                    failures.append(f"{peer.name} failed in {work.__name__}: {error}")
                    say(f"peers: {failures[-1]}")
    return rounds, failures


def _medians(rounds: Sequence[Measured]) -> Measured:
    figures = dict.fromkeys(figure for each in rounds for figure in each)
    return {f: median(each[f] for each in rounds if f in each) for f in figures}


def _write(options: argparse.Namespace, results: Results, facts: Mapping[str, Any]) -> None:
    if options.json:
        options.json.write_text(json.dumps(facts, indent=1) + "\n")
    if options.plots:
        options.plots.mkdir(parents=True, exist_ok=True)
        cpu = [row for row in ROWS if row.unit == "µs"]
        rest = [row for row in ROWS if row.unit in {"B", "ms"}]
        for name, title, rows in (
            ("peers-cpu", "CPU of each server", cpu),
            ("peers-rest", "Memory and latency of each server", rest),
        ):
            panels = [panel for row in rows for panel in _panels(row, results)]
            (options.plots / f"{name}.svg").write_text(plot.svg(title, panels))


def _panels(row: Row, results: Results) -> list[plot.Panel]:
    """A panel of a row; of latencies one each, since they add up to nothing."""
    if row.unit == "ms":
        return [
            plot.Panel(f"{title} at 500 a second, ms", _bars((figure,), row.digits, results))
            for title, figure in zip(
                ("Receive latency, p50,", "Receive latency, p99,"), row.figures, strict=True
            )
        ]
    titles = {
        "handshake_rated": "CPU of a handshake, 20 a second",
        "publish_server": "Publish one by one, busy: server + Valkey",
        "rated_server": "Publish at 500 a second: server + Valkey",
        "batch_server": "Publish in batches of 100: server + Valkey",
    }
    told = row.title.replace(" (token, registration)", "")
    title = titles.get(row.figures[0], told[0].upper() + told[1:])
    return [plot.Panel(f"{title}, {row.unit}", _bars(row.figures, row.digits, results))]


def _bars(figures: tuple[str, ...], digits: int, results: Results) -> list[plot.Bar]:
    bars = []
    for number, (name, measured) in enumerate(results.items()):
        values = [max(measured[f], 0.0) for f in figures if f in measured]
        if len(values) == len(figures):
            text = " + ".join(f"{value:,.{digits}f}" for value in values)
            bars.append(plot.Bar(name, values, text, first=number == 0))
    return bars
