"""What 202 says of a notification's durability is true, on whichever node it is answered."""

import os
import signal
from pathlib import Path

from pushsvc.server.embedded import EmbeddedServer
from tests.support.nodes import nodes, wait_until

KEY = {"Idempotency-Key": '"order-17"'}
NOTE = {"to": {"user": "u1"}, "data": 1}


def test_a_retry_elsewhere_is_not_accepted_before_the_replica_has_it(tmp_path: Path) -> None:
    with (
        EmbeddedServer() as primary,
        EmbeddedServer(extra=["--replicaof", "127.0.0.1", str(primary.port)]) as replica,
        nodes(2, primary.url, tmp_path, durability="replica", durability_timeout_seconds=0.3) as (
            a,
            b,
        ),
    ):

        def accepted() -> str | None:
            answer = a.post("/v1/notifications", NOTE)
            return answer.json()["id"] if answer.status_code == 202 else None

        wait_until(accepted, "the replica to follow")
        os.kill(replica.pid, signal.SIGSTOP)
        for node in (a, b, a):
            answer = node.post("/v1/notifications", NOTE, headers=KEY)
            assert answer.status_code == 503, answer.text
            assert answer.json()["type"].endswith(":durability_not_reached")
            assert "Retry-After" in answer.headers
        os.kill(replica.pid, signal.SIGCONT)

        def told() -> dict[str, str] | None:
            answer = b.post("/v1/notifications", NOTE, headers=KEY)
            return answer.json() if answer.status_code == 202 else None

        answers = [wait_until(told, "the replica to confirm") for _ in range(2)]
        assert answers[0]["durability"] == "replica"
        assert answers[0]["id"] == answers[1]["id"]
