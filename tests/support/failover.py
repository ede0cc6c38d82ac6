"""Redis as companies run it: behind Sentinel, and as a Cluster; with servers that can be killed."""

import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, Self

import redis
from redis.crc import key_slot

from pushsvc.server.embedded import EmbeddedServer, find_server
from tests.support.nodes import wait_until
from tests.support.ports import free_port

SLOTS = 16384
FORMING = 30.0
"""Seconds in which servers find each other."""
QUICK = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")


def ask(port: int, *command: Any) -> Any:
    """The answer of one server to one command."""
    client: Any = redis.Redis(port=port, decode_responses=True)
    with closing(client):
        return client.execute_command(*command)


def role(port: int) -> str:
    """``master``, ``slave``, or empty where nobody answers."""
    try:
        return str(ask(port, "ROLE")[0])
    except redis.RedisError:
        return ""


def following(port: int) -> bool:
    """Whether a server is a replica that has caught up with its primary."""
    try:
        answer = ask(port, "ROLE")
    except redis.RedisError:
        return False
    return bool(answer[0] == "slave" and answer[3] == "connected")


class Watched:
    """A primary and two replicas, watched by three Sentinels."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = ExitStack()
        self._sentinels: list[int] = []
        self.servers: dict[int, EmbeddedServer] = {}

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{each}' for each in self._sentinels)}/main"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._stack = stack
            primary = self._serve(free_port())
            for _ in range(2):
                self._serve(free_port(), replica_of=primary)
            for _ in range(3):
                self._watch(primary)
            wait_until(self._settled, "the replicas to follow", FORMING)
            wait_until(self._agreed, "the Sentinels to know each other", FORMING)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def primary(self) -> int:
        """The primary's port, as the Sentinels say."""
        return int(ask(self._sentinels[0], "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")[1])

    def kill_primary(self) -> int:
        """``kill -9``; its port."""
        port = self.primary()
        self.servers[port].kill()
        return port

    def promoted(self, old: int) -> bool:
        """Whether there is another primary."""
        new = self.primary()
        return new != old and role(new) == "master"

    def bring_back(self, port: int) -> None:
        """Start a killed server again, as an operator would: as a replica."""
        wait_until(self._settled, "the failover to be over", FORMING)
        self.servers[port].stop()
        self._serve(port, replica_of=self.primary())
        wait_until(self._settled, "the old primary to follow", FORMING)
        wait_until(self._agreed, "the Sentinels to see it", FORMING)

    def _serve(self, port: int, replica_of: int | None = None) -> int:
        extra: Sequence[str] = QUICK
        if replica_of is not None:
            extra = (*extra, "--replicaof", "127.0.0.1", str(replica_of))
        server = EmbeddedServer(self._directory / f"server-{port}", port, extra=extra)
        self._stack.callback(server.stop)
        server.start()
        self.servers[port] = server
        return port

    def _watch(self, primary: int) -> None:
        port = free_port()
        configuration = self._directory / f"sentinel-{port}.conf"
        configuration.write_text(
            f"port {port}\nbind 127.0.0.1\n"
            f"sentinel monitor main 127.0.0.1 {primary} 2\n"
            "sentinel down-after-milliseconds main 2000\n"
            "sentinel failover-timeout main 3000\n"
        )
        with (self._directory / f"sentinel-{port}.log").open("wb") as log:
            process = subprocess.Popen(
                [find_server(), configuration, "--sentinel"], stdout=log, cwd=self._directory
            )
        self._stack.callback(process.wait)
        self._stack.callback(process.terminate)
        wait_until(lambda: _answers(port), "Sentinel to answer")
        self._sentinels.append(port)

    def _settled(self) -> bool:
        """Whether the Sentinels name one primary, do nothing about it, and all others follow it."""
        primary = self.primary()
        states = [_fields(ask(port, "SENTINEL", "MASTER", "main")) for port in self._sentinels]
        return all(
            (state["port"], state["flags"]) == (str(primary), "master") for state in states
        ) and all(
            following(port) and ask(port, "ROLE")[2] == primary
            for port, server in self.servers.items()
            if server.running and port != primary
        )

    def _agreed(self) -> bool:
        """Whether each Sentinel knows the others, and two replicas that are up."""
        for port in self._sentinels:
            if len(ask(port, "SENTINEL", "SENTINELS", "main")) != len(self._sentinels) - 1:
                return False
            replicas = [_fields(each) for each in ask(port, "SENTINEL", "REPLICAS", "main")]
            up = [each for each in replicas if each["flags"] == "slave" and _linked(each)]
            if len(up) != len(self.servers) - 1:
                return False
        return True


def _linked(replica: dict[str, str]) -> bool:
    return replica["master-link-status"] == "ok"


def _fields(answer: Any) -> dict[str, str]:
    if isinstance(answer, dict):
        return {str(name): str(value) for name, value in answer.items()}
    return dict(zip(answer[::2], answer[1::2], strict=True))


def _answers(port: int) -> bool:
    try:
        return bool(ask(port, "PING"))
    except redis.RedisError:
        return False


class Cluster:
    """A Cluster of some primaries, with so many replicas each.

    Args:
        directory: for its data.
        primaries: how many.
        replicas: of each primary.
        node_timeout: milliseconds after which its servers take one of them for dead.
    """

    def __init__(
        self, directory: Path, primaries: int = 3, replicas: int = 1, node_timeout: int = 1000
    ) -> None:
        self._directory = directory
        self._primaries = primaries
        self._replicas = replicas
        self._node_timeout = node_timeout
        self._stack = ExitStack()
        self.servers: dict[int, EmbeddedServer] = {}

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.servers)
        return f"redis+cluster://{hosts}"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._stack = stack
            primaries = [self._serve() for _ in range(self._primaries)]
            for i, port in enumerate(primaries):
                first, end = (SLOTS * n // len(primaries) for n in (i, i + 1))
                ask(port, "CLUSTER", "ADDSLOTSRANGE", first, end - 1)
                ask(port, "CLUSTER", "SET-CONFIG-EPOCH", i + 1)
            replicas = [self._serve() for _ in primaries * self._replicas]
            for port in self.servers:
                ask(port, "CLUSTER", "MEET", "127.0.0.1", primaries[0])
            wait_until(self._met, "the servers to meet", FORMING)
            for primary, replica in zip(primaries * self._replicas, replicas, strict=True):
                ask(replica, "CLUSTER", "REPLICATE", ask(primary, "CLUSTER", "MYID"))
            for port in replicas:
                wait_until(partial(following, port), "a replica to follow", FORMING)
            wait_until(self.formed, "the Cluster to form", FORMING)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def formed(self) -> bool:
        """Whether all servers that run think that all is well, and know who follows whom."""
        running = [port for port, server in self.servers.items() if server.running]
        return all(
            "cluster_state:ok" in ask(port, "CLUSTER", "INFO")
            and sum(len(each) - 2 for each in ask(port, "CLUSTER", "SLOTS")) >= len(running)
            for port in running
        )

    def owner(self, key: str) -> int:
        """The port of the primary that serves a key."""
        return self.owner_of(key_slot(key.encode()))

    def owner_of(self, slot: int) -> int:
        """The port of the primary that serves a slot."""
        port = next(port for port, server in self.servers.items() if server.running)
        for first, last, (_, owner, *_), *_ in ask(port, "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return int(owner)
        raise AssertionError(f"nobody serves slot {slot}")

    def replica_of(self, primary: int) -> EmbeddedServer:
        """The replica of a primary."""
        for port, server in self.servers.items():
            if server.running and port != primary:
                kind, *rest = ask(port, "ROLE")
                if kind == "slave" and rest[1] == primary:
                    return server
        raise AssertionError(f"{primary} has no replica")

    def add_primary(self) -> int:
        """Start a further primary, which serves nothing yet; its port."""
        known = next(iter(self.servers))
        port = self._serve()
        ask(port, "CLUSTER", "MEET", "127.0.0.1", known)
        wait_until(self._met, "the new server to be met", FORMING)
        return port

    def move(self, slot: int, to: int) -> None:
        """Move a slot key by key, as ``--cluster reshard`` does."""
        self.move_keys(slot, to)
        self.end_move(slot, to)

    def move_keys(self, slot: int, to: int) -> None:
        """All of a move but its end."""
        source = self.owner_of(slot)
        ask(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", ask(source, "CLUSTER", "MYID"))
        ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", ask(to, "CLUSTER", "MYID"))
        while keys := ask(source, "CLUSTER", "GETKEYSINSLOT", slot, 10):
            ask(source, "MIGRATE", "127.0.0.1", to, "", 0, 5000, "KEYS", *keys)

    def end_move(self, slot: int, to: int) -> None:
        """Say whose the slot is now."""
        for port in (to, self.owner_of(slot)):
            ask(port, "CLUSTER", "SETSLOT", slot, "NODE", ask(to, "CLUSTER", "MYID"))

    def _met(self) -> bool:
        wanted = {f"cluster_known_nodes:{len(self.servers)}", "cluster_state:ok"}
        return all(
            wanted <= set(ask(port, "CLUSTER", "INFO").splitlines()) for port in self.servers
        )

    def _serve(self) -> int:
        port = free_port()
        server = EmbeddedServer(
            self._directory / f"server-{port}",
            port,
            extra=(
                *QUICK, "--cluster-enabled", "yes",
                "--cluster-node-timeout", str(self._node_timeout),
                "--cluster-replica-validity-factor", "0", "--cluster-allow-replica-migration", "no",
            ),
        )  # fmt: skip
        self._stack.callback(server.stop)
        server.start()
        self.servers[port] = server
        return port
