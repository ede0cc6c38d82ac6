"""What holds on the embedded Valkey holds on the oldest Redis that is supported, 7.0."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pushsvc.embedded import EmbeddedServer
from tests.support.nodes import Node

REDIS = Path("/usr/bin/redis-server")
"""Debian's, 7.0."""
CONTRACT = [
    # publish, mailbox, acknowledgement, idempotency, collapse, recall, leases, receipts, revocation
    "tests/unit/feeds",
    # the same through a node, over its socket
    "tests/integration/test_delivery.py",
    "tests/integration/test_revocation.py",
    "tests/integration/test_users.py",
    "tests/integration/test_tickets.py",
    "tests/integration/test_presence.py::test_who_has_asked_is_told_who_comes_and_goes",
    "tests/integration/test_topics.py::test_state_and_changes_have_no_seam",
]


@pytest.mark.timeout(300)
def test_the_contract_holds_on_redis_7() -> None:
    assert b"v=7.0." in subprocess.check_output([REDIS, "--version"])
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
         *CONTRACT],
        env=os.environ | {"PUSHSVC_TEST_REDIS": str(REDIS)},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-4000:]
    assert "skipped" not in run.stdout.splitlines()[-1]


def test_a_durability_that_redis_7_0_cannot_confirm_stops_the_start(tmp_path: Path) -> None:
    with EmbeddedServer(binary=REDIS, appendonly=True) as server:
        node = Node(server.url, tmp_path, durability="fsync")
        with pytest.raises(RuntimeError, match=r"PUSHSVC_DURABILITY: fsync needs a Redis 7\.2"):
            node.start()
