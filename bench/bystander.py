"""How long one notification takes while many others are sent to, and while many come back at once.

A bystander publishes to itself 50 times a second, whether or not the last one has come, each on a
connection where none is under way, and notes how long it took from the time it was due. Beside it
a topic of 10,000 subscribers is published to, and then the 10,000 drop their connections and come
back at once. ``BENCH_OLD`` names a checkout of before: its node takes turns with ours.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from statistics import median

from bench.client import post, post_at_once
from bench.harness import SECRET, Figure, node, pin, say
from pushsvc.auth.tokens import mint

CROWD = 10_000
ROUNDS = 3
FAN_OUTS = 40
EVERY = 0.25
"""Seconds between two fan-outs: the node is busy with them for about half of its time."""
TOPIC = "scores.final"
QUIET = 5.0
"""Seconds in which nothing else happens, to compare with."""
BAR_FAN_OUTS = 15.0
BAR_RETURN = 100.0
Sample = tuple[float, float]
"""When a notification was due, and the seconds until it was received."""


def run(*, profile: bool) -> list[Figure]:
    """Take turns with a checkout of before, if there is one."""
    old = os.environ.get("BENCH_OLD")
    ours: list[list[list[float]]] = []
    before: list[list[list[float]]] = []
    for i in range(ROUNDS):
        if old is not None:
            say(f"bystander: before, round {i + 1} of {ROUNDS}")
            before.append(_round(Path(old)))
        say(f"bystander: round {i + 1} of {ROUNDS}")
        ours.append(_round(None, profile=profile))
    figures = []
    for place, (what, bar) in enumerate(
        (
            ("alone", None),
            ("during fan-outs to 10,000", BAR_FAN_OUTS),
            ("while 10,000 reconnect at once", BAR_RETURN),
        )
    ):
        for name, share, limit in (("p50", 0.5, None), ("p99", 0.99, bar)):
            now = _quantile([each[place] for each in ours], share)
            figures.append(Figure(f"{name} {what}", now, "ms", at_most=limit))
            if before:
                then = _quantile([each[place] for each in before], share)
                figures.append(Figure(f"{name} {what}, before", then, "ms"))
    return figures


def _quantile(rounds: list[list[float]], share: float) -> float:
    """The median over the rounds, in milliseconds."""
    return 1000 * median(sorted(each)[int(share * (len(each) - 1))] for each in rounds)


def _round(code: Path | None, *, profile: bool = False) -> list[list[float]]:
    """The latencies alone, during fan-outs, and during a return."""
    publisher = mint(secret=SECRET, user="b", audience="pushsvc", scopes=["push.publish"], ttl=3600)
    body = json.dumps({"to": {"topic": TOPIC}, "data": {"home": 98, "away": 97}}).encode()
    publish = post("/v1/notifications", publisher, "application/json", body)
    with (
        node(
            profile=profile, code=code, rate_messages_per_second=1000, publish_rate_per_second=1000
        ) as server,
        process("bench.crowd", server.port, CROWD, TOPIC) as crowd,
    ):
        ask(crowd, "come")
        server.rest()
        with process("bench.pair", server.port) as pair:
            ask(pair, "begin")
            begun = [time.monotonic()]
            time.sleep(QUIET)
            begun.append(time.monotonic())
            post_at_once(server.port, _paced(publish), 4)
            begun.append(time.monotonic())
            server.rest()
            time.sleep(1)
            returning = time.monotonic()
            refused = ask(crowd, "again")
            returned = time.monotonic()
            say(f"bystander: back after {returned - returning:.1f} s, {refused} handshakes refused")
            samples: list[Sample] = json.loads(ask(pair, "end"))
    windows = ((begun[0], begun[1]), (begun[1], begun[2]), (returning, returned))
    return [[took for due, took in samples if a <= due < b] for a, b in windows]


def _paced(request: bytes) -> Iterator[bytes]:
    due = time.monotonic()
    for each in repeat(request, FAN_OUTS):
        yield each
        due += EVERY
        time.sleep(max(0.0, due - time.monotonic()))


@contextmanager
def process(module: str, *arguments: object) -> Iterator["subprocess.Popen[str]"]:
    """A process of clients, on the last core."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    pin(process.pid, -1)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def ask(process: "subprocess.Popen[str]", command: str) -> str:
    """Give a command, and wait for the answer."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(command + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise RuntimeError(f"{process.args!r} ended")
    return answer.strip()
