"""The work that every server is given, and what it costs: CPU of the server and of its Valkey.

CPU is what the system says that the processes have used, all threads, divided by the work done.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from bench.generator import Generator, generator
from bench.harness import SECRET
from bench.peers.servers import Peer, Running
from bench.sizing import Store

STEADY_SECONDS: Final = 20.0
"""The longest wait for a resident memory to stay the same: one with a collector may never do."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much of it there is."""

    connections: int = 10_000
    warm_up: int = 500
    trickle: int = 300
    trickle_rate: float = 20.0
    fan_outs: int = 30
    users: int = 1_000
    busy_seconds: float = 5.0
    at_once: int = 16
    rate: float = 500.0
    rated: int = 5_000
    batches: int = 300
    batch: int = 100


TINY: Final = Size(
    connections=60, warm_up=20, trickle=10, trickle_rate=100.0, fan_outs=3, users=20,
    busy_seconds=0.3, at_once=4, rate=100.0, rated=30, batches=3,
)  # fmt: skip
"""So little that it only shows that all of it works."""

Measured = dict[str, float]
"""What was measured, by the names of ``bench.peers.table.ROWS``, and rates of the generator."""


class Trial:
    """A peer that is running, and the generator at it.

    Args:
        peer: what is running.
        running: where.
        load: the generator.
        size: of the work.
    """

    def __init__(self, peer: Peer, running: Running, load: Generator, size: Size) -> None:
        self.peer = peer
        self.process = running.process
        self.load = load
        self.size = size
        self._store = Store(running.redis_url) if running.redis_url else None

    def close(self) -> None:
        """Let go of Valkey."""
        if self._store is not None:
            self._store.close()

    def costs(self, work: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], float, float]:
        """Have work done: what the generator answers, and seconds of CPU of server and Valkey."""
        self.process.rest()
        server, valkey = self.process.cpu(), self._valkey()
        answer = work()
        self.process.rest()
        return answer, self.process.cpu() - server, self._valkey() - valkey

    def _valkey(self) -> float:
        return 0.0 if self._store is None else self._store.cpu()

    def warm_up(self, topic: str = "") -> None:
        """Have everything loaded and allocated that the first connections need."""
        for _ in range(2):
            self.load.connect(self.size.warm_up, topic=topic)
            if self.peer.publishes and not topic:
                self.load.step(
                    "publish", to="user", of=self.size.warm_up, count=2 * self.size.warm_up
                )
            self.load.step("close")
            self.process.rest()


def idle(trial: Trial) -> Measured:
    """Connections that come as fast as they are answered, and then do nothing."""
    trial.warm_up()
    count = trial.size.connections
    before = trial.process.memory(STEADY_SECONDS)
    answer, cpu, _ = trial.costs(lambda: trial.load.connect(count))
    after = trial.process.memory(STEADY_SECONDS)
    trial.load.step("close")
    return {
        "memory": (after - before) / count,
        "handshake": 1e6 * cpu / count,
        "handshakes/s": count / answer["seconds"],
    }


def trickle(trial: Trial) -> Measured:
    """Connections that come one by one, at a rate."""
    trial.warm_up()
    count = trial.size.trickle
    _, cpu, _ = trial.costs(lambda: trial.load.connect(count, rate=trial.size.trickle_rate))
    return {"handshake_rated": 1e6 * cpu / count}


def fan_out(trial: Trial) -> Measured:
    """Messages to one topic of many subscribers, each once the last one is received by all."""
    if not trial.peer.publishes:
        return {}
    count, topic = trial.size.connections, "news"
    trial.load.connect(count, topic=topic)

    def publish(times: int) -> dict[str, Any]:
        return trial.load.step(
            "publish", to="topic", topic=topic, connections=1, ahead=1, listeners=count, count=times
        )

    publish(2)
    answer, cpu, _ = trial.costs(lambda: publish(trial.size.fan_outs))
    received = answer["received"]
    return {
        "delivery": 1e6 * cpu / max(received, 1),
        "delivery_received": received,
        "delivery_sent": trial.size.fan_outs * count,
        "deliveries/s": received / answer["received_seconds"],
    }


def publishing(trial: Trial) -> Measured:
    """Notifications to one user each: as fast as answered, at a rate, and in batches."""
    if not trial.peer.publishes:
        return {}
    size = trial.size
    trial.load.connect(size.users)
    common = {"to": "user", "of": size.users, "connections": size.at_once}
    trial.load.step("publish", count=size.users, **common)
    busy, *busy_cpu = trial.costs(
        lambda: trial.load.step("publish", seconds=size.busy_seconds, **common)
    )
    rated, *rated_cpu = trial.costs(
        lambda: trial.load.step("publish", rate=size.rate, count=size.rated, **common)
    )
    measured = {
        **_each("publish", busy, busy_cpu),
        **_each("rated", rated, rated_cpu),
        "rated_p50": rated["latency_ms"]["p50"],
        "rated_p99": rated["latency_ms"]["p99"],
        "publishes/s": busy["accepted"] / busy["seconds"],
    }
    if trial.peer.batches:
        many, *many_cpu = trial.costs(
            lambda: trial.load.step(
                "publish", batch=size.batch, count=size.batches * size.batch, **common
            )
        )
        measured |= _each("batch", many, many_cpu)
        measured["batched/s"] = many["accepted"] / many["seconds"]
    return measured


def _each(name: str, answer: dict[str, Any], cpu: list[float]) -> Measured:
    """CPU of one notification that was taken, and the share that was received."""
    accepted = max(answer["accepted"], 1)
    return {
        f"{name}_server": 1e6 * cpu[0] / accepted,
        f"{name}_valkey": 1e6 * cpu[1] / accepted,
        f"{name}_received": answer["received"],
        f"{name}_sent": answer["accepted"] + answer["refused"],
    }


WORKS: Final[tuple[Callable[[Trial], Measured], ...]] = (idle, trickle, fan_out, publishing)


def measure(work: Callable[[Trial], Measured], peer: Peer, size: Size) -> Measured:
    """Start a server, give it one kind of work, and end it."""
    with peer.running() as running:
        common = {"protocol": peer.protocol, "address": running.address, "secret": SECRET}
        with generator(users="user-", patience=20.0, **common) as load:
            trial = Trial(peer, running, load, size)
            try:
                return work(trial)
            finally:
                trial.close()
