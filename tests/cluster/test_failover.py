"""The primary dies under load: what was accepted is there, and nobody has to do anything."""

import asyncio
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.crc import key_slot

from pushsvc.feeds.keys import Keys
from pushsvc.feeds.scripts import Scripts
from pushsvc.protocol.feeds import mailbox
from tests.cluster.load import Load
from tests.support.failover import Cluster, Watched, ask, role
from tests.support.nodes import Node, nodes, publisher_token, wait_until
from tests.support.phone import Phone

AGAIN = 10.0
"""Seconds from the death of a primary until a notification is accepted again, at most."""
PROMOTION = 20.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path) as running:
        yield running


def feed_key(prefix: str, user: str) -> str:
    return Keys(prefix).log(mailbox(user))


def user_on(cluster: Cluster, prefix: str, wanted: Callable[[int], bool]) -> str:
    """A user whose mailbox is on such a primary."""
    return next(
        user
        for user in (f"u{number}" for number in itertools.count())
        if wanted(cluster.owner(feed_key(prefix, user)))
    )


def node_id(node: Node) -> str:
    name: str = httpx.get(f"{node.admin_url}/readyz").json()["node"]
    return name


async def accepted_again(load: Load, user: str) -> float:
    """Publish until it is accepted; seconds that took."""
    begin = time.monotonic()
    headers = {"Authorization": f"Bearer {publisher_token()}"}
    body = {"to": {"user": user}, "data": "again"}
    async with httpx.AsyncClient(timeout=3, headers=headers) as client:
        while True:
            try:
                answer = await client.post(load.some_node().url + "/v1/notifications", json=body)
            except httpx.TransportError:
                continue
            if answer.status_code == 202:
                assert answer.json()["durability"] == "replica"
                return time.monotonic() - begin
            assert answer.status_code == 503, answer.text
            await asyncio.sleep(0.05)


def check(load: Load, took: list[float], running: list[Node], before: list[str]) -> None:
    """Nothing was lost or sent twice, and every node goes on under its old name."""
    print(load.counts, "accepted again after", took)  # noqa: T201 - pytest shows it on failure
    assert load.counts.broken() == {}
    assert max(took) < AGAIN
    assert load.counts.slowest < AGAIN, "what was accepted is delivered within seconds"
    assert all(node.process.poll() is None for node in running), "a node ended"
    for node in running:
        wait_until(node.is_ready, "a node to be ready again")
    assert [node_id(node) for node in running] == before, "a lease was lost"


async def test_two_failovers_of_sentinel_lose_nothing_that_was_accepted(tmp_path: Path) -> None:
    with (
        Watched(tmp_path) as redis,
        nodes(2, redis.url, tmp_path, durability="replica") as running,
    ):
        before = list(map(node_id, running))
        load = Load(running)
        took: list[float] = []

        async def fail_over_twice() -> None:
            for _ in range(2):
                await asyncio.sleep(1)
                old = await asyncio.to_thread(redis.kill_primary)
                load.counts.kills += 1
                took.append(await accepted_again(load, "probe"))
                assert await asyncio.to_thread(redis.promoted, old)
                await asyncio.to_thread(redis.bring_back, old)

        await load.run(3, fail_over_twice)
        await asyncio.to_thread(check, load, took, running, before)


async def test_primaries_of_a_cluster_may_die_one_after_the_other(
    tmp_path: Path, prefix: str
) -> None:
    """First the one with the nodes' leases, then another; each has a second replica to confirm."""
    with (
        Cluster(tmp_path, replicas=2) as cluster,
        nodes(2, cluster.url, tmp_path, prefix=prefix, durability="replica") as running,
    ):
        before = list(map(node_id, running))
        load = Load(running)
        took: list[float] = []

        async def kill_two() -> None:
            leases = cluster.owner(Keys(prefix).nodes)
            for victim in (leases, next(p for p in cluster.servers if _serves(p, leases))):
                await asyncio.sleep(1)
                user = user_on(cluster, prefix, victim.__eq__)
                cluster.servers[victim].kill()
                load.counts.kills += 1
                took.append(await accepted_again(load, user))
                await asyncio.to_thread(cluster.servers[victim].start)
                await asyncio.to_thread(wait_until, cluster.formed, "the Cluster to be whole", 30)

        await load.run(3, kill_two)
        await asyncio.to_thread(check, load, took, running, before)


def _serves(port: int, but: int) -> bool:
    return port != but and role(port) == "master"


async def test_slots_move_under_load_without_a_loss_or_a_repetition(
    cluster: Cluster, tmp_path: Path, prefix: str
) -> None:
    with nodes(2, cluster.url, tmp_path, prefix=prefix, durability="replica") as running:
        before = list(map(node_id, running))
        load = Load(running)
        keys = Keys(prefix)
        wanted = [feed_key(prefix, user) for user in load.users]
        wanted += [keys.nodes, *map(keys.inbox, before)]

        def move_all() -> None:
            for slot in {key_slot(key.encode()) for key in wanted}:
                ports = [port for port in cluster.servers if role(port) == "master"]
                owner = cluster.owner_of(slot)
                cluster.move(slot, ports[(ports.index(owner) + 1) % len(ports)])

        async def reshard() -> None:
            await asyncio.sleep(1)
            for _ in range(2):
                await asyncio.to_thread(move_all)

        await load.run(3, reshard)
        await asyncio.to_thread(check, load, [0.0], running, before)


async def test_each_of_a_batch_is_told_what_its_own_shard_confirmed(
    cluster: Cluster, tmp_path: Path, prefix: str
) -> None:
    one = cluster.owner(feed_key(prefix, "u0"))
    other = user_on(cluster, prefix, one.__ne__)
    with nodes(
        1, cluster.url, tmp_path, prefix=prefix,
        durability="replica", durability_timeout_seconds=0.3,
    ) as (node,):  # fmt: skip
        replica = cluster.replica_of(one)
        os.kill(replica.pid, signal.SIGSTOP)
        body = {"to": {"users": ["u0", other]}, "data": 1}
        key = {"Idempotency-Key": '"k"'}

        def publish() -> list[dict[str, Any]]:
            answer = node.post("/v1/notifications", body, headers=key)
            results: list[dict[str, Any]] = answer.json()["results"]
            return results

        try:
            unconfirmed, confirmed = await asyncio.to_thread(publish)
        finally:
            os.kill(replica.pid, signal.SIGCONT)
        assert unconfirmed["type"].endswith(":durability_not_reached"), unconfirmed
        assert confirmed["durability"] == "replica"

        def both() -> list[dict[str, Any]] | None:
            results = publish()
            return results if all("id" in each for each in results) else None

        again = await asyncio.to_thread(wait_until, both, "the replica to confirm")
        assert again[1]["id"] == confirmed["id"]


async def test_a_registration_that_the_promoted_replica_never_got_is_made_again_soon(
    cluster: Cluster, tmp_path: Path, prefix: str
) -> None:
    """It is neither the shard of the leases nor that of the inbox, and the sweep is far away."""
    with nodes(1, cluster.url, tmp_path, prefix=prefix, sweep_seconds=300, lease_seconds=4) as (
        node,
    ):
        keys = Keys(prefix)
        busy = {cluster.owner(keys.nodes), cluster.owner(keys.inbox(node_id(node)))}
        user = user_on(cluster, prefix, lambda port: port not in busy)
        victim = cluster.owner(feed_key(prefix, user))
        replica = cluster.replica_of(victim)
        digest = Scripts().digests["publish"]
        assert ask(replica.port, "SCRIPT", "EXISTS", digest) == [0]
        os.kill(replica.pid, signal.SIGSTOP)
        async with Phone(node, user) as phone:
            cluster.servers[victim].kill()
            os.kill(replica.pid, signal.SIGCONT)
            promoted = partial(cluster.owner, feed_key(prefix, user))
            await asyncio.to_thread(
                wait_until, lambda: promoted() == replica.port, "the promotion", PROMOTION
            )

            def publish() -> str | None:
                body = {"to": {"user": user}, "data": 1}
                answer = node.post("/v1/notifications", body)
                return answer.json()["id"] if answer.status_code == 202 else None

            sent = await asyncio.to_thread(wait_until, publish, "a publish")
            assert (await phone.notification())["id"] == sent
            listeners = keys.listeners(mailbox(user))
            assert len(ask(replica.port, "HGETALL", listeners)) == 1
        assert ask(replica.port, "SCRIPT", "EXISTS", digest) == [1]
