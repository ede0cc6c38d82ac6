"""Several nodes under load, killed and restarted: what was accepted arrives, in order."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pushsvc.embedded import EmbeddedServer
from tests.cluster.load import Load, kill_one_by_one, roll, stop_and_continue
from tests.support.nodes import Node

SECONDS = 10.0
LEASE = 2.0


@pytest.fixture
def lease() -> float:
    """The default."""
    return 10.0


@pytest.fixture
def three(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str, lease: float
) -> Iterator[list[Node]]:
    settings = {"drain_seconds": 1, "lease_seconds": lease}
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


@pytest.mark.parametrize("lease", [LEASE, 10.0])
async def test_nodes_killed_under_load_lose_nothing(three: list[Node]) -> None:
    load = Load(three)
    counts = await load.run(SECONDS, lambda: kill_one_by_one(load, 3, SECONDS))
    assert counts.broken() == {}, counts
    assert counts.kills >= 2
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


async def test_a_rolling_restart_loses_nothing_and_closes_with_4001_only(
    three: list[Node],
) -> None:
    load = Load(three)
    counts = await load.run(SECONDS, lambda: roll(load, 1))
    assert counts.broken() == {}, counts
    assert counts.wrong_closes == 0
    assert counts.accepted > 100
    assert counts.slowest < 10
