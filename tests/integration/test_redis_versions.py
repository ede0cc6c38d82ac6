"""What holds on the embedded Valkey holds on the oldest Redis that is supported, 7.0."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pushsvc.server.embedded import EmbeddedServer
from tests.support.nodes import Node
from tests.support.programs import need

REVOCATION = "tests/integration/test_revocation.py"
USERS = "tests/integration/test_users.py"
CONTRACT = [
    # publish, mailbox, acknowledgement, idempotency, collapse, recall, leases, receipts, revocation
    "tests/integration/feeds",
    # the same through a node, over its socket
    "tests/integration/test_delivery.py",
    f"{REVOCATION}::test_revoking_a_user_closes_its_sockets_on_every_node_and_refuses_its_tokens",
    f"{REVOCATION}::test_a_node_that_starts_later_knows_what_is_revoked",
    f"{USERS}::test_the_list_says_what_was_sent_when_and_who_acknowledged_it",
    f"{USERS}::test_pages_follow_one_another_and_do_not_move",
    f"{USERS}::test_who_holds_a_notification_is_told_that_it_is_recalled",
    "tests/integration/test_tickets.py::test_a_ticket_is_good_once",
    "tests/integration/test_presence.py::test_who_left_the_topic_is_told_no_more",
    "tests/integration/test_topics.py::test_state_and_changes_have_no_seam",
]


@pytest.mark.timeout(300)
def test_the_contract_holds_on_redis_7() -> None:
    oldest = need("redis-server")
    assert b"v=7.0." in subprocess.check_output([oldest, "--version"])
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
         *CONTRACT],
        env=os.environ | {"PUSHSVC_TEST_REDIS": oldest},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-4000:]
    assert "skipped" not in run.stdout.splitlines()[-1]


def test_a_durability_that_redis_7_0_cannot_confirm_stops_the_start(tmp_path: Path) -> None:
    with EmbeddedServer(binary=Path(need("redis-server")), appendonly=True) as server:
        node = Node(server.url, tmp_path, durability="fsync")
        with pytest.raises(RuntimeError, match=r"PUSHSVC_DURABILITY: fsync needs a Redis 7\.2"):
            node.start()
