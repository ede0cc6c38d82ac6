"""What is scheduled goes out once, whatever dies: a node in the middle of it, or Redis."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import redis

from pushsvc.protocol.feeds import mailbox
from pushsvc.server.embedded import EmbeddedServer
from pushsvc.store.schema import Keys
from tests.support.nodes import PLAIN, Node, nodes, publisher_token, wait_until
from tests.support.topics import order

USERS: Final = 600
EACH: Final = 3
"""Publishes for each of them, at one time."""
LEASE: Final = 2.0
AFTER: Final = 5.0
"""Seconds after the lease within which what a dead node had taken is out."""


class Burst:
    """Much that is scheduled for one moment, and a look at what came of it."""

    def __init__(self, redis_url: str, prefix: str) -> None:
        self.keys = Keys(prefix)
        self.redis: Any = redis.Redis.from_url(redis_url)
        self.users = [f"u{number}" for number in range(USERS)]
        self.scheduled: dict[str, list[str]] = {}
        self.at = 0.0

    def schedule(self, node: Node, ahead: float) -> None:
        """Schedule all of it."""
        self.at = time.time() + ahead
        at = datetime.fromtimestamp(self.at, UTC).isoformat()
        for number in range(EACH):
            body = {"to": {"users": self.users}, "data": number, "at": at}
            answer = node.post("/v1/notifications", body)
            assert answer.status_code == 202, answer.text
            for user, result in zip(self.users, answer.json()["results"], strict=True):
                self.scheduled.setdefault(user, []).append(result["id"])

    def wait_for(self, key: str) -> None:
        """Wait until a key is there, and not a moment longer."""
        while not self.redis.exists(key):
            assert time.time() < self.at + 30, "nothing went out"

    def out(self) -> dict[str, list[str]]:
        """The ids of what is out, by user."""
        with self.redis.pipeline(transaction=False) as pipeline:
            for user in self.users:
                pipeline.xrange(self.keys.log(mailbox(user)))
            found = pipeline.execute()
        return {
            user: [entry_id.decode() for entry_id, _ in entries]
            for user, entries in zip(self.users, found, strict=True)
        }

    def count(self) -> int:
        return sum(map(len, self.out().values()))

    def check(self, expected: int = USERS * EACH) -> float:
        """Wait until all is out, and nothing twice; by how many seconds the last was late."""
        wait_until(lambda: self.count() >= expected, "all to be out")
        left = self.redis.keys(f"{self.keys.prefix}:*}}:times")
        assert left == [], "something still waits"
        assert self.count() == expected, "something is out twice"
        moments = [order(each)[0] / 1000 for found in self.out().values() for each in found]
        assert min(moments) >= self.at - 0.001, "something was early"
        return max(moments) - self.at


@pytest.fixture
def pair(valkey: EmbeddedServer, tmp_path: Path, prefix: str) -> Iterator[list[Node]]:
    with nodes(2, valkey.url, tmp_path, prefix=prefix, lease_seconds=LEASE) as both:
        yield both


@pytest.mark.parametrize("moment", ["it has taken the first", "the first are out"])
def test_what_a_node_had_taken_when_it_was_killed_goes_out_once_within_the_lease(
    valkey: EmbeddedServer, prefix: str, pair: list[Node], moment: str
) -> None:
    taker, heir = pair
    burst = Burst(valkey.url, prefix)
    burst.schedule(taker, 1.5)
    heir.pause()  # so that the other one has the lease
    taken, out = burst.keys.work_queue("scheduled", "claims"), burst.keys.log(mailbox("u0"))
    burst.wait_for(out if moment == "the first are out" else taken)
    taker.kill()
    dead = time.time()
    before = burst.count()
    heir.resume()
    assert before < USERS * EACH, "it was killed too late to have left anything"
    burst.check()
    moments = [order(each)[0] / 1000 for found in burst.out().values() for each in found]
    late = max(moments) - dead
    print(f"{before} were out; the last one {late:.2f} s after the death")  # noqa: T201
    assert late < LEASE + AFTER


def test_two_nodes_send_each_once_and_a_recall_is_told_the_truth(
    valkey: EmbeddedServer, prefix: str, pair: list[Node]
) -> None:
    burst = Burst(valkey.url, prefix)
    burst.schedule(pair[0], 1.5)
    headers = {"Authorization": f"Bearer {publisher_token()}"}
    told = {}
    with httpx.Client(headers=headers, verify=PLAIN, timeout=20) as client:
        wait_until(lambda: time.time() > burst.at - 0.4, "the time to be near")
        for number, user in enumerate(burst.users):
            if number == USERS * 3 // 4:  # these meet it, however quick the others were
                wait_until(lambda: time.time() > burst.at - 0.02, "the time to be there")
            if number == USERS * 7 // 8:  # and these come behind it
                burst.wait_for(burst.keys.log(mailbox(user)))
            url = f"{pair[number % 2].url}/v1/users/{user}/notifications/"
            told[user] = client.delete(url + burst.scheduled[user][0]).json()
    cancelled = [user for user, answer in told.items() if answer.get("cancelled")]
    assert 0 < len(cancelled) < USERS, "some were in time, and some were not"
    # Those that were out are not in the mailbox either: they were recalled there.
    late = burst.check(USERS * (EACH - 1))
    out = burst.out()
    for user, answer in told.items():
        assert len(out[user]) == EACH - 1
        assert answer.get("notification") not in out[user]
    # Whoever was first.
    sent = sum(node.metric("pushsvc_scheduled_late_seconds_count") for node in pair)
    assert sent == USERS * EACH - len(cancelled)
    print(f"the last of {USERS * EACH} was {late:.2f} s late")  # noqa: T201


def test_what_was_accepted_outlives_redis_and_every_node(tmp_path: Path) -> None:
    with EmbeddedServer(appendonly=True, extra=["--appendfsync", "always"]) as server:
        settings: Any = {"durability": "fsync", "prefix": "later", "lease_seconds": LEASE}
        burst = Burst(server.url, "later")
        with nodes(2, server.url, tmp_path, **settings) as both:
            burst.schedule(both[0], 2.5)
            server.kill()
            for node in both:
                node.kill()
            server.start()
        with nodes(1, server.url, tmp_path, **settings):
            late = burst.check()
        print(f"the last one was {late:.2f} s late")  # noqa: T201
