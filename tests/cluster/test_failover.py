"""The primary dies under load: what was accepted is there, and nobody has to do anything."""

import asyncio
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.crc import key_slot

from pushsvc.protocol.feeds import mailbox
from pushsvc.store.schema import Keys
from pushsvc.store.scripts import Scripts
from tests.cluster.load import Load
from tests.support.failover import Cluster, Watched, ask, following, role
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


STALL = 6.0
"""Seconds that requests may wait for a server that hangs, before it is known."""
QUICK = 2.5
"""Seconds: more than a slow machine takes, less than the 5 that a hanging server is waited for."""


async def test_a_primary_that_hangs_holds_up_nobody_else_once_that_is_known(
    tmp_path: Path, prefix: str
) -> None:
    """It has neither the leases nor the node's inbox, but some mailboxes and another's inbox."""
    keys, loop = Keys(prefix), asyncio.get_running_loop()
    with (
        Cluster(tmp_path, replicas=0, node_timeout=60_000) as cluster,
        nodes(1, cluster.url, tmp_path, prefix=prefix, lease_seconds=4) as (node,),
    ):
        before = node_id(node)
        busy = {cluster.owner(keys.nodes), cluster.owner(keys.inbox(before))}
        victim = next(port for port in cluster.servers if port not in busy)
        sick, well = (user_on(cluster, prefix, each) for each in (victim.__eq__, busy.__contains__))
        other = next(
            name
            for name in (f"other{number}" for number in itertools.count())
            if cluster.owner(keys.inbox(name)) == victim
        )
        ask(cluster.owner(keys.nodes), "ZADD", keys.nodes, round((time.time() + 60) * 1000), other)
        listeners = keys.listeners(mailbox(well))
        ask(cluster.owner(listeners), "HSET", listeners, f"{other}.1", "phone 1")
        headers = {"Authorization": f"Bearer {publisher_token()}"}
        took: list[tuple[float, float]] = []
        """For each publish to the healthy one, when it began and how long it took."""
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=15, headers=headers, limits=limits) as client:

            async def publish(user: str) -> int:
                began = loop.time()
                body = {"to": {"user": user}, "data": 1}
                answer = await client.post(node.url + "/v1/notifications", json=body)
                if user == well:
                    took.append((began, loop.time() - began))
                return answer.status_code

            assert await publish(sick) == await publish(well) == 202
            hung = loop.time()
            os.kill(cluster.servers[victim].pid, signal.SIGSTOP)
            try:
                async with asyncio.TaskGroup() as tasks:
                    while loop.time() < hung + 2 * STALL:
                        tasks.create_task(publish(sick))
                        tasks.create_task(publish(well))
                        await asyncio.sleep(0.1)
            finally:
                os.kill(cluster.servers[victim].pid, signal.SIGCONT)
            slow = [(began - hung, seconds) for began, seconds in took if seconds > QUICK]
            print(f"{len(slow)} of {len(took)} took longer:", slow)  # noqa: T201 - pytest shows it
            async with asyncio.timeout(AGAIN):
                while await publish(sick) != 202:
                    await asyncio.sleep(0.1)
        assert max((began for began, _ in slow), default=0.0) < STALL
        assert max((seconds for _, seconds in slow), default=0.0) < STALL
        assert node.metric("pushsvc_lease_lapses_total") == 0
        assert node_id(node) == before
        wait_until(node.is_ready, "the node to be ready")
        async with Phone(node, sick) as phone:
            assert (await phone.notification())["data"] == 1


def lease_end(port: int, prefix: str, node: str) -> float:
    """When a node's lease ends, seconds since the epoch by Redis time; 0 without one."""
    return float(ask(port, "ZSCORE", Keys(prefix).nodes, node) or 0) / 1000


def test_a_node_keeps_its_lease_while_the_server_of_its_inbox_hangs(
    tmp_path: Path, prefix: str
) -> None:
    keys = Keys(prefix)
    with Cluster(tmp_path, replicas=0, node_timeout=60_000) as cluster, ExitStack() as stack:
        leases = cluster.owner(keys.nodes)
        while True:
            (node,) = stack.enter_context(
                nodes(1, cluster.url, tmp_path, prefix=prefix, lease_seconds=3)
            )
            before = node_id(node)
            victim = cluster.owner(keys.inbox(before))
            if victim != leases:
                break
        os.kill(cluster.servers[victim].pid, signal.SIGSTOP)
        first = lease_end(leases, prefix, before)
        try:
            wait_until(lambda: not node.is_ready(), "the node to notice")
            wait_until(
                lambda: lease_end(leases, prefix, before) > first + STALL, "renewals", 2 * STALL
            )
        finally:
            os.kill(cluster.servers[victim].pid, signal.SIGCONT)
        wait_until(node.is_ready, "the node to be ready")
        assert node_id(node) == before
        assert node.metric("pushsvc_lease_lapses_total") == 0


async def test_a_primary_that_hangs_is_replaced_like_one_that_is_dead(
    cluster: Cluster, tmp_path: Path, prefix: str
) -> None:
    """And it follows when it goes on; all that time the node has been the same."""
    with nodes(1, cluster.url, tmp_path, prefix=prefix) as (node,):
        before = node_id(node)
        victim = cluster.owner(Keys(prefix).nodes)
        user = user_on(cluster, prefix, victim.__eq__)
        node.publish(user, 1)
        os.kill(cluster.servers[victim].pid, signal.SIGSTOP)
        try:

            def accepted() -> bool:
                body = {"to": {"user": user}, "data": 2}
                return node.post("/v1/notifications", body).status_code == 202

            await asyncio.to_thread(wait_until, accepted, "the promoted replica", AGAIN)
        finally:
            os.kill(cluster.servers[victim].pid, signal.SIGCONT)
        await asyncio.to_thread(wait_until, lambda: following(victim), "the old one to follow")
        async with Phone(node, user) as phone:
            assert [(await phone.notification())["data"] for _ in range(2)] == [1, 2]
        assert node_id(node) == before


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


def test_the_first_slot_of_a_new_primary_is_served_while_it_moves(
    cluster: Cluster, tmp_path: Path, prefix: str
) -> None:
    """It has no scripts, and no map of slots names it yet; the slot is the one of the leases."""
    with nodes(1, cluster.url, tmp_path, prefix=prefix, lease_seconds=4) as (node,):
        key, digest = Keys(prefix).nodes, Scripts().by_name["lease"].digest
        new = cluster.add_primary()
        assert ask(new, "SCRIPT", "EXISTS", digest) == [0]
        cluster.move_keys(key_slot(key.encode()), new)
        wait_until(lambda: ask(new, "SCRIPT", "EXISTS", digest) == [1], "the lease's script", 3)
        cluster.end_move(key_slot(key.encode()), new)
        node.publish("ada", 1)
        assert node.metric("pushsvc_lease_lapses_total") == 0


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
        digest = Scripts().by_name["publish"].digest
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
