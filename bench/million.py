"""Many sockets on one machine: a node of many workers, and clients in many processes.

All of them are authenticated and registered, as they are in production. A process has so many
descriptors at most, so each worker and each client holds a part. Nothing is kept on one core.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from math import ceil
from pathlib import Path
from typing import Any, Final

import psutil

from bench.generator import Generator, generator
from bench.harness import SECRET, Figure, Server, node, say, unpin, wait_until

SOCKETS: Final = 1_000_000
FEW: Final = 100_000
"""Sockets where it is one of all the benchmarks."""
PER_WORKER: Final = 16_800
"""The kernel spreads connections by chance: a little less than ``MAX_CONNECTIONS`` is."""
PER_CLIENT: Final = 19_000
"""A process has 20,000 descriptors on many machines."""
AT_ONCE: Final = 8
"""Handshakes under way, for each worker."""
HEARTBEAT: Final = 300.0
"""Seconds. At 25, as by default, a million are pinged 40,000 times a second, for which two cores
that have the clients on them as well have no room."""
PUBLISHES, RATE = 500, 50.0
"""Of the publishes to one user, and how many a second."""
PATIENCE: Final = 120.0
"""Seconds in which something has to happen."""
RESIDENT_BAR: Final = 2.5
"""GB, for a million sockets."""
BROADCAST_BAR: Final = 12.0
"""Seconds, for a million sockets."""


def run(sockets: int) -> list[Figure]:
    """Connect them all, send to all of them, and to one at a time.

    Args:
        sockets: how many.
    """
    workers = max(2, ceil(sockets / PER_WORKER))
    with ExitStack() as stack:
        # The broadcast is not acknowledged.
        server = stack.enter_context(
            node(workers=workers, ack_timeout_seconds=3600, heartbeat_seconds=HEARTBEAT)
        )
        server.find()
        for each in server.members:
            unpin(each.pid)
        common = {
            "protocol": "pushsvc", "address": f"127.0.0.1:{server.port}", "secret": SECRET,
            "users": "user-", "patience": PATIENCE,
        }  # fmt: skip
        clients = [
            stack.enter_context(generator(**common)) for _ in range(ceil(sockets / PER_CLIENT))
        ]
        for client in clients:
            unpin(client.process.pid)
        return _measure(server, clients, sockets, workers)


def _measure(server: Server, clients: list[Generator], sockets: int, workers: int) -> list[Figure]:
    shares = [len(range(number, sockets, len(clients))) for number in range(len(clients))]
    first = [sum(shares[:number]) for number in range(len(clients))]
    server.rest()
    outer = {os.getpid(), server.process.pid}  # the parents of all but the workers
    idle = _resident(server.members)
    own = _resident([each for each in server.members if each.ppid() not in outer])
    say(f"million: {workers} workers, {len(clients)} clients, connecting {sockets:,}")
    cpu, begun = server.cpu(), time.monotonic()
    with ThreadPoolExecutor(len(clients)) as pool:

        def connect(number: int) -> dict[str, Any]:
            at_once = max(1, AT_ONCE * workers // len(clients))
            return clients[number].step(
                "connect", count=shares[number], first=first[number], at_once=at_once, silent=True
            )

        answers = list(pool.map(connect, range(len(clients))))
    took, cpu = time.monotonic() - begun, server.cpu() - cpu
    failed = sum(answer["failed"] for answer in answers)
    connected = sockets - failed
    wait_until(lambda: server.metric("pushsvc_connections") == connected, "all to be counted")
    holding = _resident(server.members)
    figures = [
        Figure("sockets that failed", failed, "", at_most=0),
        Figure("connecting them", took, "s"),
        Figure("CPU of a handshake", 1e6 * cpu / sockets, "us"),
        Figure(
            "resident, with the supervisor", holding / 1e9, "GB",
            at_most=_bar(RESIDENT_BAR, sockets),
        ),
        Figure("of that without connections", idle / 1e9, "GB"),
        Figure("each worker's own, without connections", own / workers / 1e6, "MB"),
        Figure("a connection", (holding - idle) / connected, "B"),
    ]  # fmt: skip
    if not connected:
        return figures
    say("million: a broadcast")
    cpu, last = _broadcast(server, clients, connected)
    say("million: to one at a time")
    answer = clients[0].step(
        "publish", to="user", of=shares[0], first=first[0], count=PUBLISHES, rate=RATE
    )
    return [
        *figures,
        Figure("broadcast: until the last has it", last, "s", at_most=_bar(BROADCAST_BAR, sockets)),
        Figure("broadcast: CPU of a delivery", 1e6 * cpu / connected, "us"),
        Figure("to one, p50 until it has it", answer["latency_ms"]["p50"], "ms"),
        Figure("to one, p99", answer["latency_ms"]["p99"], "ms"),
        Figure("to one, lost", PUBLISHES - answer["received"], "", at_most=0),
    ]


def _broadcast(server: Server, clients: list[Generator], listeners: int) -> tuple[float, float]:
    """Seconds of CPU of the server, and until the last has it."""
    server.rest()
    cpu = server.cpu()
    clients[0].step("publish", to="broadcast", count=1, connections=1, listeners=0)
    counts: list[dict[str, Any]] = []

    def received() -> bool:
        counts[:] = [client.step("count") for client in clients]
        return bool(sum(count["received"] for count in counts) >= listeners)

    wait_until(received, "everybody to have the broadcast", PATIENCE)
    server.rest()
    return server.cpu() - cpu, max(count["latency_ms"]["max"] for count in counts) / 1e3


def _bar(million: float, sockets: int) -> float | None:
    """What a million is held to."""
    return million if sockets >= SOCKETS else None


def _resident(processes: list[psutil.Process]) -> int:
    """Bytes in memory of processes; what several share counts for each of them in part."""
    return sum(_proportional(each.pid) for each in processes)


def _proportional(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
