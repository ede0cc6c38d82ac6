"""What to plan with: memory and CPU of a node and of Redis, by connection, user and message."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import redis

from bench.acked import ACKS, requests
from bench.client import Herd, handshake, post_at_once
from bench.harness import Figure, Server, node, say, tokens, wait_until

CONNECTIONS = 10_000
IDLE_SECONDS = 60.0
"""One sweep of all connections, and two heartbeats of most."""
PUBLISHES = 3_000
BATCH = 500
BACKENDS = 32
ROUNDS = 10
TEXT = 200
"""Bytes of text in a message, where the memory of messages is measured."""
MAILBOXES = 1_000
FEW, MANY = 10, 100
"""Messages in a mailbox."""
STREAM_NODES = (512, 4096)
"""Bytes of a stream's node in Redis: what is recommended, and what Redis has by default."""


def run(*, profile: bool) -> list[Figure]:
    """Measure the node and Redis while connections come, idle and are published to."""
    del profile
    return [*_connections(), *(f for size in STREAM_NODES for f in _mailboxes(size))]


class Store:
    """The Redis of a node, seen from outside."""

    def __init__(self, url: str) -> None:
        self._redis: Any = redis.Redis.from_url(url)
        self._process = psutil.Process(self._redis.info("server")["process_id"])

    def set(self, name: str, value: int) -> None:
        """Change its configuration."""
        self._redis.config_set(name, value)

    def cpu(self) -> float:
        """Seconds of CPU that it has used."""
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def memory(self) -> float:
        """Bytes that its data and their overhead take."""
        return float(self._redis.info("memory")["used_memory"])

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()


class Meter:
    """CPU seconds of a node and of its Redis since it was made, or since the last reading."""

    def __init__(self, server: Server, store: Store) -> None:
        self._server, self._store = server, store
        server.rest()
        self._node, self._redis = server.cpu(), store.cpu()

    def read(self) -> tuple[float, float]:
        """Both, in seconds."""
        self._server.rest()
        node_now, redis_now = self._server.cpu(), self._store.cpu()
        spent = node_now - self._node, redis_now - self._redis
        self._node, self._redis = node_now, redis_now
        return spent


@contextmanager
def _running(**settings: Any) -> Iterator[tuple[Server, Store]]:
    with node(**settings) as server:
        store = Store(server.redis_url)
        try:
            yield server, store
        finally:
            store.close()


def _connections() -> list[Figure]:
    users = [f"user-{i}" for i in range(CONNECTIONS)]
    with _running(heartbeat_seconds=25, sweep_seconds=60) as (server, store):
        store.set("stream-node-max-bytes", STREAM_NODES[0])
        herd = Herd(server.port)
        herd.connect(handshake("/v1/ws", token) for token in tokens(["early"]))
        herd.close()
        before, empty, kernel = server.memory(), store.memory(), kernel_memory()
        meter = Meter(server, store)
        say(f"sizing: connecting {CONNECTIONS}")
        herd.connect(handshake("/v1/ws", token) for token in tokens(users))
        connected = meter.read()
        herd.keep_alive(3)
        holding, registered = server.memory(), store.memory()
        kernel = (kernel_memory() - kernel) / (2 * CONNECTIONS)  # the clients' ends are here too
        meter.read()
        say(f"sizing: idle for {IDLE_SECONDS:g} s")
        started = time.monotonic()
        herd.keep_alive(IDLE_SECONDS)
        idle_for = time.monotonic() - started
        idle = meter.read()
        say("sizing: publishing")
        numbers = count(1).__next__
        herd.publish(requests(users, 1, numbers, rounds=PUBLISHES), 1)
        single = meter.read()
        with herd.acknowledging():
            post_at_once(server.port, requests(users, 1, numbers, rounds=PUBLISHES), BACKENDS)
            wait_until(lambda: server.metric(ACKS) == 2 * PUBLISHES, "the acknowledgements")
        several = meter.read()
        herd.publish(requests(users, BATCH, numbers, rounds=CONNECTIONS // BATCH), 2 * BATCH)
        batched = meter.read()
        little = store.memory()
        rounds = ROUNDS * CONNECTIONS // BATCH
        herd.publish(requests(users, BATCH, numbers, rounds=rounds, text=TEXT), 2 * BATCH)
        acknowledged = (store.memory() - little) / (ROUNDS * CONNECTIONS)
        herd.close()
    return [
        Figure("node without connections", before / 1e6, "MB"),
        Figure(f"{CONNECTIONS:,} connections: memory of the node", (holding - before) / 1e6, "MB"),
        Figure("a socket: memory of the kernel", kernel, "B"),
        Figure("a user who is connected: memory of Redis", (registered - empty) / CONNECTIONS, "B"),
        *_each("connecting", connected, CONNECTIONS),
        Figure("10,000 idle: CPU of the node", 100 * idle[0] / idle_for, "%"),
        Figure("10,000 idle: CPU of Redis", 100 * idle[1] / idle_for, "%"),
        *_each("one backend, one by one, acknowledged", single, PUBLISHES),
        *_each(f"{BACKENDS} backends at once, acknowledged", several, PUBLISHES),
        *_each(f"in batches of {BATCH}, acknowledged", batched, CONNECTIONS),
        Figure(f"{TEXT} bytes, acknowledged: memory of Redis", acknowledged, "B"),
    ]


def kernel_memory() -> float:
    """Bytes that the kernel uses for its objects, sockets among them; 0 where it is no Linux."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return 0.0
    found = re.search(r"^Slab:\s+(\d+) kB", text, re.MULTILINE)
    return 0.0 if found is None else 1024.0 * int(found[1])


def _each(what: str, spent: tuple[float, float], times: int) -> list[Figure]:
    return [
        Figure(f"{what}: CPU of {who}", 1e6 * seconds / times, "us")
        for who, seconds in zip(("the node", "Redis"), spent, strict=True)
    ]


def _mailboxes(stream_node: int) -> list[Figure]:
    """Memory of mailboxes that nobody listens to, by the number of messages in them."""
    say(f"sizing: mailboxes with stream-node-max-bytes {stream_node}")
    users = [f"user-{i}" for i in range(MAILBOXES)]
    numbers = count(1).__next__
    with _running() as (server, store):
        herd = Herd(server.port)
        store.set("stream-node-max-bytes", stream_node)
        held = [store.memory()]
        for messages in (1, FEW - 1, MANY - FEW):
            rounds = MAILBOXES * messages // BATCH
            herd.publish(requests(users, BATCH, numbers, rounds=rounds, text=TEXT), 1)
            held.append(store.memory())
        herd.close()
    one, few, many = ((after - held[0]) / MAILBOXES for after in held[1:])
    label = f"stream nodes of {stream_node} bytes"
    return [
        Figure(f"{label}: a mailbox with 1", one, "B"),
        Figure(f"{label}: with {FEW}", few, "B"),
        Figure(f"{label}: with {MANY}", many, "B"),
        Figure(f"{label}: each further message", (many - few) / (MANY - FEW), "B"),
    ]
