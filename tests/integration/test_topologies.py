"""A node behind the three ways in which Redis is run."""

import asyncio
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from pushsvc.codes import Close
from pushsvc.server.embedded import EmbeddedServer, find_server
from tests.support.failover import Cluster
from tests.support.nodes import Node, nodes, publisher_token, token, wait_until
from tests.support.phone import Phone
from tests.support.ports import free_port
from tests.support.topics import Member


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """A Cluster of two primaries."""
    with Cluster(tmp_path, primaries=2, replicas=0) as running:
        yield running.url


@pytest.fixture
def sentinel(valkey: EmbeddedServer, tmp_path: Path) -> Iterator[str]:
    """A Sentinel that watches the session's server."""
    port = free_port()
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(
        f"port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {valkey.port} 1\n"
    )
    process = subprocess.Popen(
        [find_server(), configuration, "--sentinel"], stdout=subprocess.DEVNULL
    )
    try:
        client = redis.Redis(port=port)
        wait_until(lambda: _answers(client), "Sentinel to answer")
        client.close()
        yield f"redis+sentinel://127.0.0.1:{port}/main"
    finally:
        process.terminate()
        process.wait()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@pytest.fixture
def unix_socket(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "redis.sock"
    with EmbeddedServer(extra=["--unixsocket", str(path)]):
        yield f"unix://{path}"


@pytest.mark.parametrize("topology", ["cluster", "sentinel", "unix_socket"])
async def test_notifications_are_delivered_and_acked(
    topology: str, request: pytest.FixtureRequest, tmp_path: Path, prefix: str
) -> None:
    url = request.getfixturevalue(topology)
    users = [f"u{n}" for n in range(8)]
    with Node(url, tmp_path, prefix=prefix) as node:
        sent: dict[str, list[str]] = {user: [] for user in users}
        for user in users:
            async with Phone(node, user) as phone:
                for number in range(3):
                    sent[user].append(await asyncio.to_thread(node.publish, user, number))
                notes = await phone.notifications(3)
                assert [note["id"] for note in notes] == sent[user]
                assert await phone.acked(sent[user][1]) == sent[user][1]
        answer = await asyncio.to_thread(
            node.post, "/v1/notifications", {"to": {"users": users}, "data": "all"},
            headers={"Idempotency-Key": '"k"'},
        )  # fmt: skip
        ids = [result["id"] for result in answer.json()["results"]]
        for user, last in zip(users, ids, strict=True):
            async with Phone(node, user) as phone:
                notes = await phone.notifications(2)
                assert [note["id"] for note in notes] == [sent[user][2], last]


async def test_clients_have_one_budget_on_all_nodes_of_a_cluster(
    cluster: str, tmp_path: Path
) -> None:
    block, topics = "x" * 20_000, [f"t{n}" for n in range(8)]
    with nodes(
        2, cluster, tmp_path, client_bytes_per_user=100_000, rate_messages_per_second=1000,
        rate_burst=2000, rate_bytes_per_second=100_000_000,
    ) as pair:  # fmt: skip
        for user in ("u1", "u2", "u3"):
            async with Member(pair[0], user) as a, Member(pair[1], user) as b:
                answers = [
                    await device.ask(type="publish", topic=topic, data=block, collapse_key=key)
                    for topic in topics[:2]
                    for device, key in ((a, f"{user}.a"), (b, f"{user}.b"))
                ]
                assert [each["type"] for each in answers] == ["reply", "reply", "error", "error"]
                assert {each.get("code") for each in answers[2:]} == {"quota_exceeded"}
                await a.subscribe(topics[0])
                notes = await a.notifications(2 * int(user[1]))
                assert [note["from"] for note in notes][-1] == user


@pytest.mark.parametrize("topology", ["cluster", "sentinel"])
def test_what_is_scheduled_goes_out_once_or_is_recalled(
    topology: str, request: pytest.FixtureRequest, tmp_path: Path, prefix: str
) -> None:
    users = [f"u{n}" for n in range(8)]  # in several slots
    headers = {"Authorization": f"Bearer {publisher_token()}"}
    with (
        Node(request.getfixturevalue(topology), tmp_path, prefix=prefix) as node,
        httpx.Client(base_url=node.url, headers=headers, timeout=10) as client,
    ):
        at = (datetime.now(UTC) + timedelta(seconds=3)).isoformat()

        def schedule(user: str) -> str:
            note = {"to": {"user": user}, "data": user, "at": at, "collapse_key": "k"}
            answer = client.post(
                "/v1/notifications", json=note, headers={"Idempotency-Key": f'"{user}"'}
            )
            assert answer.status_code == 202, answer.text
            scheduled: str = answer.json()["id"]
            return scheduled

        def kept(user: str) -> list[str]:
            answer = client.get("/v1/user/notifications", params={"user": user})
            return [note["data"] for note in answer.json()["notifications"]]

        for number, user in enumerate(users):
            node.publish(user, "older", collapse_key="k")
            scheduled = schedule(user)
            assert schedule(user) == scheduled
            if number % 3:
                path = f"/v1/users/{user}/notifications/{scheduled}"
                assert client.delete(path).json()["cancelled"]
            if number % 3 == 2:
                assert schedule(user) != scheduled
        out = [user for number, user in enumerate(users) if number % 3 != 1]
        wait_until(lambda: all(kept(user) == [user] for user in out), "them to be out")
        assert {*map(tuple, map(kept, {*users} - {*out}))} == {("older",)}


@pytest.mark.parametrize("topology", ["cluster", "sentinel", "unix_socket"])
async def test_the_console_sees_every_node_and_user(
    topology: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    operator = {"Authorization": f"Bearer {token('ada', 'push.admin')}"}
    with nodes(2, request.getfixturevalue(topology), tmp_path) as (a, b):

        def look(path: str) -> dict[str, Any]:
            answer = httpx.get(f"{b.admin_url}/console/api{path}", headers=operator, timeout=10)
            assert answer.status_code == 200, answer.text
            found: dict[str, Any] = answer.json()
            return found

        def complete() -> bool:
            found = look("/overview")["nodes"]
            return len(found) == 2 and all(each["ready"] for each in found)

        await asyncio.to_thread(wait_until, complete, "both nodes")
        for user in (f"u{n}" for n in range(8)):
            async with Phone(a, user) as phone:
                sent = await asyncio.to_thread(a.publish, user, 1)
                assert (await phone.notification())["id"] == sent
                await phone.acked(sent)
                (device,) = look(f"/users/{user}")["devices"]
                assert (device["acked"], device["waiting"]) == (sent, 0)
                assert len(device["connections"]) == 1
                assert look(f"/trace?id={sent}&user={user}")["status"] == "acked"


@pytest.mark.parametrize("topology", ["cluster", "sentinel"])
async def test_what_is_kept_beside_the_feeds_works_too(
    topology: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Receipts and their work queue, recall, the broadcast, revocations, tickets."""
    admin = {"Authorization": f"Bearer {token('ada', 'push.admin')}"}
    backend = {"Authorization": f"Bearer {token('shop', 'push.publish')}"}
    with nodes(2, request.getfixturevalue(topology), tmp_path) as (a, b):

        def publish(to: dict[str, Any], **fields: Any) -> str:
            body = {"to": to, "data": 1, **fields}
            answer = a.post("/v1/notifications", body, headers=backend)
            assert answer.status_code == 202, answer.text
            sent: str = answer.json()["id"]
            return sent

        def receipts() -> dict[tuple[str, str], str]:
            answer = httpx.get(b.url + "/v1/receipts", headers=backend, timeout=20).json()
            found = answer["receipts"]
            return {(each["user"], each["notification"]): each["status"] for each in found}

        expected: dict[tuple[str, str], str] = {}
        for user in (f"u{n}" for n in range(4)):
            async with Phone(b, user) as phone:
                acked, recalled = [
                    await asyncio.to_thread(publish, {"user": user}, receipt=True) for _ in "ab"
                ]
                assert [note["id"] for note in await phone.notifications(2)] == [acked, recalled]
                await phone.acked(acked)
                path = f"{a.url}/v1/users/{user}/notifications/{recalled}"
                gone = await asyncio.to_thread(httpx.delete, path, headers=backend)
                assert gone.status_code == 200, gone.text
                assert (await phone.receive())["type"] == "withdrawn"
                everyone = await asyncio.to_thread(publish, {"broadcast": True})
                assert (await phone.notification())["id"] == everyone
                expected |= {(user, acked): "acked", (user, recalled): "recalled"}
                answer = await asyncio.to_thread(
                    a.post, f"/v1/users/{user}/disconnect", headers=admin
                )
                assert answer.status_code == 201, answer.text
                assert await phone.closed() == Close.REVOKED
        await asyncio.to_thread(
            wait_until, lambda: receipts().items() >= expected.items(), "the receipts"
        )
        auth = {"Authorization": f"Bearer {token('late')}"}
        ticket = (await asyncio.to_thread(a.post, "/v1/tickets", headers=auth)).json()["ticket"]
        poll = f"{b.url}/v1/poll?device=d&ticket={ticket}&wait=0"
        assert (await asyncio.to_thread(httpx.get, poll)).status_code == 200
        assert (await asyncio.to_thread(httpx.get, poll)).status_code == 401


def test_a_cluster_that_can_never_confirm_fsync_stops_the_start(
    cluster: str, tmp_path: Path, prefix: str
) -> None:
    node = Node(cluster, tmp_path, prefix=prefix, durability="fsync")
    with pytest.raises(RuntimeError, match="PUSHSVC_DURABILITY: fsync needs"):
        node.start()
