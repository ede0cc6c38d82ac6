"""A node is let in to Redis as companies let in: users, passwords in files, TLS."""

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from websockets.exceptions import InvalidStatus

from pushsvc.server.embedded import EmbeddedServer
from tests.support import acl
from tests.support.certificates import Authority
from tests.support.failover import Cluster
from tests.support.nodes import Node, wait_until
from tests.support.phone import Phone
from tests.support.ports import free_port
from tests.support.programs import need


def with_tls() -> Path:
    """A server that speaks TLS: the embedded one is built without."""
    return Path(need("redis-server"))


Way = tuple[str, dict[str, Any]]
"""The URL and the further settings of a node."""


def ended(node: Node) -> str:
    """With what a node ends that cannot start."""
    with pytest.raises(RuntimeError) as error:
        node.start()
    return str(error.value)


def refusals(node: Node) -> str:
    """What a node logs that cannot reach Redis."""
    lines = [line for line in node.log_lines() if line["event"] == "Redis cannot be reached"]
    return " ".join(line["error"] for line in lines)


async def check_delivery(node: Node, user: str = "ada") -> None:
    """Publish, receive, acknowledge."""
    async with Phone(node, user) as phone:
        sent = await asyncio.to_thread(node.publish, user, "hello")
        assert (await phone.notification())["id"] == sent
        assert await phone.acked(sent) == sent


async def back(node: Node) -> None:
    """Wait until a node delivers again; each of its connections to Redis has a pause of its own."""
    async with asyncio.timeout(15):
        while True:
            try:
                return await check_delivery(node)
            except (AssertionError, InvalidStatus):
                await asyncio.sleep(0.1)


# --- users ---------------------------------------------------------------------------------------


Guarded = tuple[EmbeddedServer, Any]
"""A server, and a client that may give it users."""


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    with EmbeddedServer() as server, redis.Redis(port=server.port) as client:
        yield server, client


async def test_the_documented_user_is_enough_and_has_no_other_keys(
    guarded: Guarded, tmp_path: Path
) -> None:
    server, client = guarded
    acl.give(client, acl.documented())
    url = acl.as_user(server.url)
    with Node(url, tmp_path) as node:
        await check_delivery(node)
        other = Node(url, tmp_path, prefix="pushy")
        line = ended(other)
        assert "PUSHSVC_REDIS_URL: the user lacks permissions, tried on the key pushy:probe" in line
        assert "of the primary: " in line
    assert {entry["reason"] for entry in client.acl_log()} == {"key"}
    with redis.Redis.from_url(url) as user:
        for command in (("KEYS", "*"), ("FLUSHALL",), ("CONFIG", "GET", "*"), ("GET", "other"),
                        ("EVAL", "return 1", 0), ("PUBLISH", "push:x", "y")):  # fmt: skip
            with pytest.raises(redis.exceptions.NoPermissionError):
                user.execute_command(*command)


def test_a_permission_that_is_missing_stops_the_start_with_its_name(
    guarded: Guarded, tmp_path: Path
) -> None:
    server, client = guarded
    password = tmp_path / "password"
    password.write_text(acl.PASSWORD)
    acl.give(client, [*acl.documented(), "-xrevrange", "-script|load"])
    node = Node(
        server.url, tmp_path, redis_username=acl.USER, redis_password_file=password
    )  # fmt: skip
    line = ended(node)
    assert "PUSHSVC_REDIS_USERNAME: the user lacks permissions" in line
    assert "XREVRANGE, SCRIPT: " in line
    assert "docs/operations/redis.md" in line


def test_a_permission_that_is_taken_away_later_is_logged_once(
    guarded: Guarded, tmp_path: Path
) -> None:
    server, client = guarded
    acl.give(client, acl.documented())
    with Node(acl.as_user(server.url), tmp_path) as node:
        acl.give(client, ["ACL", "SETUSER", acl.USER, "-hset"])
        for _ in range(3):
            answer = node.post("/v1/notifications", {"to": {"user": "ada"}, "data": 1})
            assert answer.status_code == 500
        told = [line for line in node.log_lines() if "does not permit" in line["event"]]
        assert len({line["lane"] for line in told}) == len(told)
        assert all("hset" in line["error"] for line in told)
        acl.give(client, ["ACL", "SETUSER", acl.USER, "+hset"])
        node.publish("ada", 1)


def test_a_permission_that_only_a_cluster_needs_is_tried_too(tmp_path: Path) -> None:
    """It is needed while slots move, which may be months later."""
    with Cluster(tmp_path, primaries=2, replicas=0) as cluster:
        for port in cluster.servers:
            with redis.Redis(port=port) as client:
                acl.give(client, acl.documented())
                acl.give(client, acl.addition("a Cluster"))
        with redis.Redis(port=[*cluster.servers][1]) as client:
            acl.give(client, ["ACL", "SETUSER", acl.USER, "-asking"])
        url = cluster.url.replace("://", f"://{acl.USER}:{acl.PASSWORD}@")
        line = ended(Node(url, tmp_path))
        assert f"of 127.0.0.1:{port}: ASKING: " in line


async def test_a_password_file_that_changed_is_used_for_the_next_connection(
    guarded: Guarded, tmp_path: Path
) -> None:
    server, client = guarded
    acl.give(client, acl.documented())
    password = tmp_path / "password"
    password.write_text(acl.PASSWORD + "\n")
    login: dict[str, Any] = {"redis_username": acl.USER, "redis_password_file": password}
    with Node(server.url, tmp_path, **login) as node:
        await check_delivery(node)
        client.execute_command("ACL", "SETUSER", acl.USER, f"<{acl.PASSWORD}", ">another")
        client.execute_command("CLIENT", "KILL", "USER", acl.USER)
        await asyncio.to_thread(
            wait_until, lambda: "invalid username-password" in refusals(node), "the old one to fail"
        )
        password.write_text("another\n")
        await back(node)
        assert acl.PASSWORD not in node.log()


def test_files_that_cannot_be_used_stop_the_start(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificate")
    ca = Authority(tmp_path)
    cert, _ = issued(ca, "a")
    _, key = issued(ca, "b")
    files: dict[str, dict[str, Any]] = {
        "PUSHSVC_REDIS_PASSWORD_FILE": {"redis_password_file": tmp_path / "none"},
        "PUSHSVC_REDIS_CA_FILE": {"redis_ca_file": wrong},
        "PUSHSVC_REDIS_CERT_FILE": {"redis_cert_file": cert, "redis_key_file": key},
        "PUSHSVC_REDIS_KEY_FILE": {"redis_cert_file": cert, "redis_key_file": tmp_path / "none"},
    }
    for variable, settings in files.items():
        line = ended(Node("rediss://127.0.0.1:1", tmp_path, **settings))
        assert f"Error: {variable}: {tmp_path}" in line


@pytest.mark.parametrize("place", ["alone", "sentinel", "cluster"], indirect=True)
def test_a_password_that_is_not_the_users_stops_the_start(
    place: Callable[..., Node], tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("not the password")
    line = ended(place(redis_password_file=wrong))
    assert "PUSHSVC_REDIS_PASSWORD_FILE: Redis does not let this node in" in line
    assert "invalid username-password pair" in line


def test_a_redis_that_wants_a_password_stops_a_node_without_one(
    guarded: Guarded, tmp_path: Path
) -> None:
    server, client = guarded
    acl.give(client, acl.documented())
    client.execute_command("ACL", "SETUSER", "default", "resetpass", ">secret")
    line = ended(Node(server.url, tmp_path))
    assert "PUSHSVC_REDIS_URL: Redis does not let this node in" in line
    assert "Authentication required" in line


def test_a_user_that_one_primary_of_a_cluster_does_not_know_stops_the_start(
    tmp_path: Path,
) -> None:
    """It is not the one that serves the key that is tried."""
    with Cluster(tmp_path, primaries=2, replicas=0) as cluster:
        clients: dict[int, Any] = {port: redis.Redis(port=port) for port in cluster.servers}
        for client in clients.values():
            acl.give(client, acl.documented())
            acl.give(client, acl.addition("a Cluster"))
        odd = next(port for port in clients if port != cluster.owner("push:probe"))
        password = tmp_path / "password"
        password.write_text(acl.PASSWORD)
        login: dict[str, Any] = {"redis_username": acl.USER, "redis_password_file": password}
        where = f"tried on the key push:probe of 127.0.0.1:{odd}"
        for lacks, told in {
            "-xrevrange": f"USERNAME: the user lacks permissions, {where}: XREVRANGE: ",
            "off": f"PASSWORD_FILE: Redis does not let this node in, {where}: invalid username",
        }.items():
            clients[odd].execute_command("ACL", "SETUSER", acl.USER, lacks)
            assert told in ended(Node(cluster.url, tmp_path, prefix="push", **login))
        for client in clients.values():
            client.execute_command("ACL", "SETUSER", acl.USER, "on", "-cluster|slots")
        line = ended(Node(cluster.url, tmp_path, prefix="push", **login))
        assert "PUSHSVC_REDIS_USERNAME: the user lacks permissions: " in line
        assert "cluster|slots" in line
        for client in clients.values():
            client.close()


# --- TLS -----------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def issued(authority: Authority, name: str) -> tuple[Path, Path]:
    """A certificate and its key, in a directory of their own."""
    directory = authority.file.parent / name
    directory.mkdir(exist_ok=True)
    return authority.issue(directory)


def options(authority: Authority, port: int) -> list[str]:
    """Of a server that wants certificates from its clients."""
    cert, key = issued(authority, f"server{port}")
    return [
        *("--tls-port", str(port), "--tls-auth-clients", "yes"),
        *("--tls-cert-file", str(cert), "--tls-key-file", str(key)),
        *("--tls-ca-cert-file", str(authority.file)),
    ]


@pytest.fixture
def alone(authority: Authority) -> Iterator[Way]:
    port = free_port()
    with EmbeddedServer(binary=with_tls(), extra=options(authority, port)) as server:
        with redis.Redis(port=server.port) as client:
            acl.give(client, acl.documented())
            client.execute_command("ACL", "SETUSER", "default", "off")
        yield f"rediss://127.0.0.1:{port}", {}


@pytest.fixture
def sentinel(alone: Way, authority: Authority, tmp_path: Path) -> Iterator[Way]:
    """A Sentinel with a user of its own, which reaches the server over TLS, and is reached so."""
    port, plain, user = free_port(), free_port(), f"{acl.USER} {acl.PASSWORD}".split()
    lines = [
        f"port {plain}", "bind 127.0.0.1", "tls-replication yes",
        f"sentinel monitor main 127.0.0.1 {alone[0].rpartition(':')[2]} 1",
        f"sentinel auth-user main {user[0]}", f"sentinel auth-pass main {user[1]}",
    ]  # fmt: skip
    words = options(authority, port)
    lines += [f"{a.removeprefix('--')} {b}" for a, b in zip(words[::2], words[1::2], strict=True)]
    file = tmp_path / "sentinel.conf"
    file.write_text("\n".join(lines) + "\n")
    process = subprocess.Popen([with_tls(), file, "--sentinel"], stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(port=plain, decode_responses=True) as client:
            wait_until(partial(_answers, client), "Sentinel to answer")
            acl.give(client, acl.addition("the Sentinel processes"))
            client.execute_command("ACL", "SETUSER", "default", "-@all", "+ping")
            yield (
                f"rediss+sentinel://127.0.0.1:{port}/main",
                {
                    "redis_sentinel_username": acl.USER,
                    "redis_sentinel_password_file": tmp_path / "password",
                },
            )
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def cluster(authority: Authority, tmp_path: Path) -> Iterator[Way]:
    """Two primaries that speak TLS to each other as well."""
    ports = [free_port(), free_port()]
    extra = ["--cluster-enabled", "yes", "--tls-cluster", "yes", "--cluster-node-timeout", "2000"]
    a, b = (
        EmbeddedServer(
            tmp_path / str(port), binary=with_tls(), extra=options(authority, port) + extra
        )
        for port in ports
    )
    with a, b, redis.Redis(port=a.port) as first, redis.Redis(port=b.port) as second:
        first.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
        second.execute_command("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
        first.execute_command("CLUSTER", "MEET", "127.0.0.1", ports[1])
        for client in (first, second):
            wait_until(partial(_formed, client), "the cluster to form")
            acl.give(client, acl.documented())
            acl.give(client, acl.addition("a Cluster"))
            client.execute_command("ACL", "SETUSER", "default", "off")
        yield f"rediss+cluster://127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}", {}


def _answers(client: Any) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def _formed(client: Any) -> bool:
    state: dict[str, str] = client.execute_command("CLUSTER INFO")
    return state["cluster_state"] == "ok"


@pytest.fixture
def place(
    request: pytest.FixtureRequest, authority: Authority, tmp_path: Path
) -> Callable[..., Node]:
    """Makes nodes with all that lets them in, in the test's topology."""
    (tmp_path / "password").write_text(acl.PASSWORD)
    cert, key = issued(authority, "node")
    url, settings = request.getfixturevalue(request.param)
    settings |= {
        "redis_username": acl.USER,
        "redis_password_file": tmp_path / "password",
        "redis_ca_file": authority.file,
        "redis_cert_file": cert,
        "redis_key_file": key,
    }

    def make(elsewhere: str = "", **other: Any) -> Node:
        return Node(elsewhere or url, tmp_path, **settings | other)

    return make


@pytest.mark.parametrize("place", ["alone", "sentinel", "cluster"], indirect=True)
async def test_a_node_reaches_redis_over_tls_as_its_user(
    place: Callable[..., Node], tmp_path: Path
) -> None:
    with place() as node:
        await check_delivery(node)
        for number in range(4):
            await check_delivery(node, f"user{number}")
    stranger = place(redis_ca_file=_other(tmp_path).file)
    stranger.start(ready=False)
    try:
        wait_until(lambda: "certificate verify failed" in refusals(stranger), "the log line")
        assert not stranger.is_ready()
    finally:
        assert stranger.stop() == 0
        stranger.check_log()


@pytest.mark.parametrize("place", ["alone"], indirect=True)
def test_a_server_whose_certificate_names_another_is_refused(
    place: Callable[..., Node], authority: Authority
) -> None:
    port = free_port()
    words = ["--bind", "127.0.0.1 127.0.0.2", *options(authority, port)]
    with EmbeddedServer(binary=with_tls(), extra=words):
        node = place(f"rediss://127.0.0.2:{port}").start(ready=False)
        try:
            wait_until(lambda: "IP address mismatch" in refusals(node), "the log line")
        finally:
            node.stop()


@pytest.mark.parametrize("place", ["alone"], indirect=True)
async def test_a_certificate_that_was_renewed_is_shown_at_the_next_connection(
    place: Callable[..., Node], tmp_path: Path
) -> None:
    cert, key = issued(_other(tmp_path), "renewed")
    node = place(redis_cert_file=cert, redis_key_file=key).start(ready=False)
    try:
        await asyncio.to_thread(wait_until, lambda: refusals(node), "the server to refuse it")
        good = tmp_path / "node"
        cert.write_bytes((good / cert.name).read_bytes())
        key.write_bytes((good / key.name).read_bytes())
        await asyncio.to_thread(wait_until, node.is_ready, "the node to be ready")
        await back(node)
    finally:
        node.stop()
        node.check_log()


def _other(directory: Path) -> Authority:
    """An authority that nobody was told of."""
    other = directory / "other"
    other.mkdir()
    return Authority(other)
