"""What a push costs, how late it is, and what others notice: 10,000 due at once, over three nodes.

The nodes share the first core; Valkey, the push service and the publisher are on the last. It all
happens twice: alone, where CPU is counted, and beside a bystander who publishes to itself.
"""

import json
import os
import subprocess
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any, Final

import redis
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bench.bystander import ask, process
from bench.client import post, post_at_once
from bench.harness import Figure, Server, another, node, say, tokens, wait_until
from bench.tls import certificate_files
from pushsvc.push.vapid import new_key

PUSHES: Final = 10_000
BATCH: Final = 500
"""Users of one notification."""
AHEAD: Final = 20.0
"""Seconds from the first publish until all pushes are due."""
QUIET: Final = 5.0
"""Seconds in which nothing happens, to compare with."""
CPU_BAR: Final = 1.0
BYSTANDER_BAR: Final = 100.0
"""Milliseconds, both."""
PATIENCE: Final = 120.0


def run(*, profile: bool) -> list[Figure]:
    """Register, publish ahead of time, and look at what happens when the time has come."""
    del profile
    with TemporaryDirectory(prefix="pushsvc-bench-") as name:
        directory = Path(name)
        certificate, _ = certificate_files(directory, ec.generate_private_key(ec.SECP256R1()))
        (directory / "vapid.pem").write_bytes(new_key()[0])
        settings: dict[str, Any] = {
            "push_vapid_key_file": directory / "vapid.pem", "push_vapid_subject": "mailto:a@b.test",
            "push_allow_private": True, "push_ca_file": certificate,
            "rate_messages_per_second": 100_000, "rate_burst": 100_000,
        }  # fmt: skip
        with (
            process("bench.push_sink", directory) as sink,
            node(**settings) as one, another(one, **settings) as two,
            another(one, **settings) as three,
        ):  # fmt: skip
            assert sink.stdout is not None
            servers = [one, two, three]
            (backend,) = tokens(["backend"], "push.publish")
            say(f"push: {PUSHES:,} devices are registered")
            _register(one, backend, int(sink.stdout.readline()))
            alone = _due(servers, backend, sink, PUSHES)
            say("push: beside a bystander")
            with process("bench.pair", one.port) as pair:
                ask(pair, "begin")
                beside = _due(servers, backend, sink, 2 * PUSHES)
                samples = json.loads(ask(pair, "end"))
    began, ended = beside.window
    took = [1e3 * took for due, took in samples if began <= due < ended]
    return [
        Figure("CPU of a push, all nodes", alone.cpu, "ms", at_most=CPU_BAR),
        Figure("CPU of a push, Valkey", alone.valkey, "ms"),
        Figure("late, p50", median(alone.late), "s"),
        Figure("late, p99", quantiles(alone.late, n=100)[-1], "s"),
        Figure("lost", PUSHES - len(alone.late), "", at_most=0),
        Figure("bystander meanwhile, p50", median(took), "ms"),
        Figure("bystander, p99", quantiles(took, n=100)[-1], "ms", at_most=BYSTANDER_BAR),
    ]


class _Due:
    """What happened when they were due.

    Args:
        cpu: milliseconds of the nodes for each.
        valkey: the same of Valkey.
        late: seconds, of each that came.
        window: from when until when, by the clock of the bystander.
    """

    def __init__(
        self, cpu: float, valkey: float, late: list[float], window: tuple[float, float]
    ) -> None:
        self.cpu = cpu
        self.valkey = valkey
        self.late = late
        self.window = window


def _due(servers: list[Server], backend: str, sink: "subprocess.Popen[str]", total: int) -> _Due:
    """Have all of them due at one time, and wait until there were so many attempts in all."""
    target = time.time() + AHEAD
    post_at_once(servers[0].port, _publishes(backend, target), 4)
    if time.time() > target - QUIET:
        raise RuntimeError("publishing took too long")
    time.sleep(max(0.0, target - QUIET - time.time()))
    quiet, begun = _cpu(servers), time.monotonic()
    time.sleep(max(0.0, target - time.time()))
    cpu, due = _cpu(servers), time.monotonic()
    idle = [(after - before) / (due - begun) for before, after in zip(quiet, cpu, strict=True)]
    wait_until(lambda: _attempts(servers) >= total, "all pushes", PATIENCE)
    spent, ended = _cpu(servers), time.monotonic()
    nodes, valkey = (
        1e3 * (after - before - rate * (ended - due)) / PUSHES
        for before, after, rate in zip(cpu, spent, idle, strict=True)
    )
    came = json.loads(ask(sink, "came"))
    return _Due(nodes, valkey, [each - target for each in came], (due, ended))


def _attempts(servers: list[Server]) -> int:
    return round(sum(server.metric("pushsvc_push_seconds_count") for server in servers))


def _cpu(servers: list[Server]) -> tuple[float, float]:
    """Seconds of the nodes, and of Valkey."""
    with redis.Redis.from_url(servers[0].redis_url) as client:
        info: Any = client.info("cpu")
    valkey = float(info["used_cpu_user"] + info["used_cpu_sys"])
    return sum(server.cpu() for server in servers), valkey


def _publishes(backend: str, target: float) -> Iterator[bytes]:
    """Publishes to all, whose pushes are due at one time."""
    for first in range(0, PUSHES, BATCH):
        note = {
            "to": {"users": [f"user-{number}" for number in range(first, first + BATCH)]},
            "data": {"order": 17},
            "push": {
                "after": target - time.time(), "title": "Order 17 has shipped",
                "body": "It comes tomorrow, between nine and eleven.", "url": "/orders/17",
            },
        }  # fmt: skip
        yield post("/v1/notifications", backend, "application/json", json.dumps(note).encode())


def _register(server: Server, backend: str, port: int) -> None:
    """Register a device of each user, as a backend may."""
    point = ec.generate_private_key(ec.SECP256R1()).public_key()
    keys = {
        "p256dh": _text(point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)),
        "auth": _text(os.urandom(16)),
    }

    def requests() -> Iterator[bytes]:
        for number in range(PUSHES):
            endpoint = f"https://127.0.0.1:{port}/push/{number:0180}"
            body = {"provider": "web", "subscription": {"endpoint": endpoint, "keys": keys}}
            path = f"/v1/users/user-{number}/devices/phone/push"
            request = post(path, backend, "application/json", json.dumps(body).encode())
            yield b"PUT" + request.removeprefix(b"POST")

    post_at_once(server.port, requests(), 8, status=201)


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
