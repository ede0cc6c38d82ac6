"""Several nodes under load, killed and restarted: what was accepted arrives, in order."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pushsvc.server.embedded import EmbeddedServer
from tests.cluster.load import Load, kill_one_by_one, roll, stop_and_continue
from tests.support.nodes import Node

SECONDS = 10.0
DRAIN = 2.0
LEASE = 2.0


@pytest.fixture
def lease() -> float:
    """The default."""
    return 10.0


@pytest.fixture
def delay() -> float:
    """None: who comes to a node that stops finds out."""
    return 0.0


@pytest.fixture
def three(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str, lease: float, delay: float
) -> Iterator[list[Node]]:
    settings: dict[str, Any] = {
        "drain_seconds": DRAIN,
        "drain_delay_seconds": delay,
        "lease_seconds": lease,
    }
    nodes = [Node(valkey.url, tmp_path, prefix=prefix, **settings) for _ in range(3)]
    try:
        for node in nodes:
            node.start()
        yield nodes
        for node in nodes:
            node.check_log()
    finally:
        for node in nodes:
            node.stop()


@pytest.mark.parametrize("lease", [pytest.param(LEASE, marks=pytest.mark.promise), 10.0])
async def test_nodes_killed_under_load_lose_nothing(three: list[Node]) -> None:
    load = Load(three)
    counts = await load.run(SECONDS, lambda: kill_one_by_one(load, 3, 2))
    assert counts.broken() == {}, counts
    assert counts.kills == 2
    assert counts.accepted > 100
    assert counts.slowest < 10


@pytest.mark.parametrize("lease", [LEASE])
async def test_a_node_that_stands_still_under_load_loses_nothing(
    three: list[Node], lease: float
) -> None:
    load = Load(three)
    counts = await load.run(1, lambda: stop_and_continue(load, lease))
    assert counts.broken() == {}, counts
    assert counts.reconnects > 0
    assert sum(node.metric("pushsvc_lease_lapses_total") for node in three) == 1


def tenths(times: list[float]) -> list[float]:
    """The shares of what happened in each tenth of the drain time, from the first of them on."""
    first = min(times)
    which = [min(9, int(10 * (at - first) / DRAIN)) for at in times]
    return [which.count(tenth) / len(which) for tenth in range(10)]


@pytest.mark.parametrize("delay", [1.0])
async def test_a_rolling_restart_loses_nothing_and_spreads_its_closes(three: list[Node]) -> None:
    load = Load(three, users=40)
    counts = await load.run(1, lambda: roll(load, 0.5))
    assert counts.broken() == {}, counts
    assert counts.retried == 0, "no publish had to be repeated"
    assert counts.accepted > 100
    assert counts.slowest < 5
    assert set(load.closes) == {4001}, load.closes
    for node in three:
        times = load.sent_elsewhere[node]
        assert len(times) >= 8, "it held its share of the devices"
        assert 0.6 * DRAIN < max(times) - min(times) < DRAIN + 1
        assert max(tenths(times)) <= 0.35, tenths(times)
