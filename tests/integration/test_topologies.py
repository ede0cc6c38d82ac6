"""A node behind the three ways in which Redis is run."""

import asyncio
import socket
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from pushsvc.embedded import EmbeddedServer, find_server
from tests.support.nodes import Node, nodes, token, wait_until
from tests.support.phone import Phone


def free_port(below: int = 50_000) -> int:
    """A port whose cluster bus port, 10,000 above it, exists as well."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port < below:
            return port


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """A Cluster of two primaries."""
    options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]
    with (
        EmbeddedServer(tmp_path / "a", free_port(), extra=options) as a,
        EmbeddedServer(tmp_path / "b", free_port(), extra=options) as b,
    ):
        clients: list[Any] = [redis.Redis(port=each.port, decode_responses=True) for each in (a, b)]
        half = 16384 // 2
        clients[0].execute_command("CLUSTER", "ADDSLOTSRANGE", 0, half - 1)
        clients[1].execute_command("CLUSTER", "ADDSLOTSRANGE", half, 16383)
        clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", b.port)
        for client in clients:
            wait_until(partial(_formed, client), "the cluster to form")
            client.close()
        yield f"redis+cluster://127.0.0.1:{a.port},127.0.0.1:{b.port}"


def _formed(client: Any) -> bool:
    state: dict[str, str] = client.execute_command("CLUSTER INFO")
    return state["cluster_state"] == "ok"


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


def test_a_durability_that_a_cluster_cannot_confirm_stops_the_start(
    cluster: str, tmp_path: Path, prefix: str
) -> None:
    node = Node(cluster, tmp_path, prefix=prefix, durability="replica")
    with pytest.raises(RuntimeError, match="PUSHSVC_DURABILITY: a Cluster"):
        node.start()


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
