"""What ``pushsvc doctor`` says of a Redis in each state that is wrong."""

import time
import unicodedata
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from pushsvc.protocol.feeds import mailbox, topic
from pushsvc.server.embedded import EmbeddedServer
from pushsvc.server.findings import Finding, State
from pushsvc.server.redis_doctor import redis_findings
from pushsvc.store.schema import Keys
from tests.support import acl
from tests.support.doctor import found, of, one, settings_of
from tests.support.failover import SLOTS, ask, following
from tests.support.nodes import wait_until
from tests.support.ports import free_port
from tests.support.programs import need

OK, SKIP, WARN, FAIL = State


def look(url: str, **fields: Any) -> list[Finding]:
    return found(redis_findings(settings_of(url, **fields)))


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer(appendonly=True, extra=("--maxmemory", "1gb")) as running:
        yield running


@pytest.fixture
def configure(server: EmbeddedServer) -> Iterator[Callable[[str, object], None]]:
    """Sets what is set back at the end."""
    before: dict[str, str] = {}

    def change(name: str, value: object) -> None:
        before[name] = ask(server.port, "CONFIG", "GET", name)[name]
        ask(server.port, "CONFIG", "SET", name, value)

    yield change
    for name, value in before.items():
        ask(server.port, "CONFIG", "SET", name, value)


@pytest.fixture(scope="module")
def replica(server: EmbeddedServer) -> Iterator[EmbeddedServer]:
    extra = ("--replicaof", "127.0.0.1", str(server.port))
    with EmbeddedServer(extra=(*extra, "--repl-diskless-sync-delay", "0")) as running:
        yield running


# --- reached, and let in -------------------------------------------------------------------------


def test_where_all_is_well_every_line_is_ok(server: EmbeddedServer) -> None:
    findings = look(server.url)
    assert [each for each in findings if each.state is not OK] == []
    assert {each.check for each in findings} == {
        "redis", "redis version", "clock", "redis memory", "redis persistence", "redis replicas",
        "redis clients", "durability", "names",
    }  # fmt: skip


def test_one_that_cannot_be_reached_is_all_that_is_said() -> None:
    (finding,) = look(f"redis://:a-password@127.0.0.1:{free_port()}/0")
    assert finding.state is FAIL
    assert "cannot be reached: Error 111" in finding.what
    assert "a-password" not in finding.what
    assert "PUSHSVC_REDIS_URL" in finding.change


def test_a_file_that_cannot_be_used_is_named(server: EmbeddedServer, tmp_path: Path) -> None:
    finding = one(look(server.url, redis_password_file=str(tmp_path / "none")), "redis", FAIL)
    assert "PUSHSVC_REDIS_PASSWORD_FILE" in finding.what


def test_who_is_not_let_in_is_told_so(server: EmbeddedServer) -> None:
    url = server.url.replace("//", "//nobody:wrong@")
    finding = one(look(url), "redis", FAIL)
    assert "PUSHSVC_REDIS_URL: Redis does not let this node in" in finding.what


def test_the_documented_user_is_enough_and_the_rest_is_for_administrators(
    server: EmbeddedServer,
) -> None:
    with redis.Redis(port=server.port) as client:
        acl.give(client, acl.documented())
    findings = look(acl.as_user(server.url))
    assert {each.state for each in findings} == {OK, SKIP}
    assert "+info" in one(findings, "redis server", SKIP).change
    assert "+scan" in one(findings, "names", SKIP).change
    assert "Valkey" in one(findings, "redis version", OK).what
    one(findings, "clock", OK)


def test_the_documented_addition_lets_everything_be_checked(server: EmbeddedServer) -> None:
    with redis.Redis(port=server.port) as client:
        acl.give(client, acl.documented())
        acl.give(client, acl.addition("every check of `pushsvc doctor`"))
    assert {each.state for each in look(acl.as_user(server.url))} == {OK}


def test_a_permission_that_is_missing_fails_and_the_rest_is_looked_at(
    server: EmbeddedServer,
) -> None:
    with redis.Redis(port=server.port) as client:
        acl.give(client, [*acl.documented(), "-xrevrange"])
    findings = look(acl.as_user(server.url))
    finding = one(findings, "redis", FAIL)
    assert "XREVRANGE" in finding.what
    assert "docs/operations/redis.md" in finding.change
    one(findings, "redis version", OK)


# --- versions, clock -----------------------------------------------------------------------------


def test_a_durability_that_it_cannot_confirm_fails(
    server: EmbeddedServer, configure: Callable[[str, object], None]
) -> None:
    one(look(server.url, durability="fsync"), "durability", OK)
    configure("appendonly", "no")
    findings = look(server.url, durability="fsync")
    assert "appendonly" in one(findings, "durability", FAIL).what
    one(findings, "redis persistence", WARN)


def test_looking_leaves_nothing_behind() -> None:
    with EmbeddedServer(appendonly=True) as server:
        look(server.url, durability="fsync")
        assert ask(server.port, "DBSIZE") == 0
        scripts = ask(server.port, "INFO", "memory")["number_of_cached_scripts"]
        assert scripts <= 1, "that by which it is known that scripts are permitted"


def test_the_oldest_redis_is_new_enough_but_for_fsync() -> None:
    with EmbeddedServer(binary=Path(need("redis-server")), appendonly=True) as oldest:
        findings = look(oldest.url, durability="fsync")
    assert "Redis 7." in one(findings, "redis version", OK).what
    assert "Redis 7.2" in one(findings, "durability", FAIL).what


# --- memory, persistence, replicas, connections --------------------------------------------------


def test_a_policy_that_evicts_fails_once_there_is_a_limit(
    server: EmbeddedServer, configure: Callable[[str, object], None]
) -> None:
    configure("maxmemory-policy", "allkeys-lru")
    finding = one(look(server.url), "redis memory", FAIL)
    assert "is allkeys-lru" in finding.what
    assert "noeviction" in finding.change
    configure("maxmemory", 0)
    assert [each.state for each in of(look(server.url), "redis memory")] == [WARN, WARN]


def test_memory_without_a_limit_and_memory_that_is_nearly_full_are_told(
    server: EmbeddedServer, configure: Callable[[str, object], None]
) -> None:
    configure("maxmemory", 0)
    assert "maxmemory" in one(look(server.url), "redis memory", WARN).change
    used = ask(server.port, "INFO", "memory")["used_memory"]
    configure("maxmemory", int(used * 1.1))
    assert "of its maxmemory" in one(look(server.url), "redis memory", WARN).what


def test_what_a_restart_would_lose_is_told(
    server: EmbeddedServer, configure: Callable[[str, object], None]
) -> None:
    configure("appendonly", "no")
    assert "appendonly yes" in one(look(server.url), "redis persistence", WARN).change


def test_too_few_connections_are_told(
    server: EmbeddedServer, configure: Callable[[str, object], None]
) -> None:
    configure("maxclients", 20)
    finding = one(look(server.url, workers=4), "redis clients", WARN)
    assert "a node needs 29" in finding.what


def test_a_replica_that_is_waited_for_in_vain_fails(server: EmbeddedServer) -> None:
    with redis.Redis(port=server.port) as client:
        acl.give(client, acl.documented())
        acl.give(client, acl.addition("`PUSHSVC_DURABILITY=replica`"))
    for url in (server.url, acl.as_user(server.url)):
        findings = look(url, durability="replica")
        for check in ("redis replicas", "durability"):
            assert "PUSHSVC_DURABILITY" in one(findings, check, FAIL).change


def test_a_primary_that_takes_writes_when_it_is_cut_off_is_told(
    server: EmbeddedServer, replica: EmbeddedServer, configure: Callable[[str, object], None]
) -> None:
    wait_until(lambda: following(replica.port), "the replica to follow")
    assert "min-replicas" in one(look(server.url), "redis replicas", WARN).change
    configure("min-replicas-to-write", 1)
    findings = look(server.url, durability="replica")
    one(findings, "redis replicas", OK)
    one(findings, "durability", OK)
    assert (
        "is a replica"
        in one([each for each in look(replica.url) if each.state is FAIL], "redis", FAIL).what
    )


# --- a Cluster -----------------------------------------------------------------------------------


def test_a_cluster_is_told_from_a_single_server_and_slots_without_an_owner_fail() -> None:
    extra = ("--cluster-enabled", "yes", "--maxmemory", "1gb")
    with EmbeddedServer(appendonly=True, extra=extra, port=free_port()) as member:
        ask(member.port, "CLUSTER", "ADDSLOTSRANGE", 0, SLOTS // 2 - 1)
        finding = one(look(member.url), "redis cluster", FAIL)
        assert "redis+cluster://" in finding.change
        at = f"127.0.0.1:{member.port}"
        unserved, alone = of(look(f"redis+cluster://{at}"), "redis cluster")
        assert (unserved.state, alone.state) == (FAIL, WARN)
        assert f"{SLOTS // 2} of its slots" in unserved.what
        ask(member.port, "CLUSTER", "ADDSLOTSRANGE", SLOTS // 2, SLOTS - 1)
        wait_until(lambda: "cluster_state:ok" in ask(member.port, "CLUSTER", "INFO"), "the Cluster")
        url = f"redis+cluster://{at},127.0.0.1:{free_port()}"
        assert of(look(url), "redis cluster") == []
        ask(member.port, "HSET", Keys("push").cursors(mailbox("Jose\u0301")), "phone", "1-0")
        assert "1 users or topics" in one(look(url), "names", WARN).what


# --- names ---------------------------------------------------------------------------------------


def test_names_that_look_alike_and_are_not_are_told(server: EmbeddedServer) -> None:
    prefix = f"t{uuid.uuid4().hex[:8]}"
    keys = Keys(prefix)
    name = unicodedata.normalize("NFD", "José")
    with redis.Redis(port=server.port) as client:
        client.hset(keys.cursors(mailbox("José")), "phone", "1-0")
        one(look(server.url, redis_prefix=prefix), "names", OK)
        client.hset(keys.cursors(topic("chat." + name, "acme")), "~head", "1-0")
        finding = one(look(server.url, redis_prefix=prefix), "names", WARN)
        assert "topic 'chat.Jose\\u0301'" in finding.what
        assert "both forms" not in finding.what
        client.hset(keys.cursors(mailbox(name)), "phone", "1-0")
        finding = one(look(server.url, redis_prefix=prefix), "names", WARN)
        assert "2 users or topics are not in NFC, 1 of them in both forms" in finding.what
        assert "user 'Jose\\u0301'" in finding.what


def test_looking_for_names_ends(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pushsvc.server.redis_doctor.MOST_KEYS", 1000)
    prefix = f"t{uuid.uuid4().hex[:8]}"
    with redis.Redis(port=server.port) as client, client.pipeline() as pipeline:
        for number in range(5000):
            pipeline.set(f"{prefix}:{number}", "", px=20_000)
        pipeline.execute()
        began = time.monotonic()
        finding = one(look(server.url), "names", OK)
        assert "as far as was looked (1000 keys)" in finding.what
        assert time.monotonic() - began < 5
