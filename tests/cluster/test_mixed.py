"""Mailboxes, topics, the broadcast and presence at once, while nodes are killed and restarted."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pushsvc.server.embedded import EmbeddedServer
from tests.cluster.mixed import SETTINGS, Mixed, killing, rolling
from tests.cluster.tally import Report
from tests.support.nodes import Node

SECONDS = 10.0
LEASE = 2.0


@pytest.fixture
def three(valkey: EmbeddedServer, tmp_path: Path, prefix: str) -> Iterator[list[Node]]:
    settings = {**SETTINGS, "lease_seconds": LEASE}
    nodes = [Node(valkey.url, tmp_path, prefix=prefix, **settings) for _ in range(3)]
    try:
        for node in nodes:
            node.start()
        yield nodes
        for node in nodes:
            node.check_log()
    finally:
        for node in nodes:
            if node.port:
                node.stop()


def check_that_much_happened(report: Report) -> None:
    for tally in report.tallies.values():
        assert tally.accepted > 50, report
        assert tally.delivered > 2 * tally.accepted - 50, report
        assert tally.slowest < 10, report
    assert report.reconnects > 10, report


async def test_nodes_killed_under_the_mixed_load_lose_nothing_and_presence_is_true_again(
    three: list[Node],
) -> None:
    report = await Mixed(three, LEASE).run(killing(2.5, SECONDS))
    assert report.broken() == {}, report
    assert report.kills >= 2
    check_that_much_happened(report)


async def test_a_rolling_restart_under_the_mixed_load_fails_no_request_and_loses_nothing(
    three: list[Node],
) -> None:
    report = await Mixed(three, LEASE).run(rolling(1, SECONDS))
    assert report.disturbed() == {}, report
    assert report.restarts >= 3
    check_that_much_happened(report)
