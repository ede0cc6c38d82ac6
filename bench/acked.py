"""CPU time of a node for each notification that is published, delivered and acknowledged."""

import json
import secrets
import time
from collections.abc import Callable, Iterator
from itertools import count, cycle, islice

from bench.client import Herd, handshake, post
from bench.harness import Figure, Server, measure, node, say, tokens

USERS = 1_000
BATCH = 500
SECONDS = 10.0
BAR = 60.0
"""Microseconds of the node's CPU for one in a batch."""
ACKS = "pushsvc_acks_total"


def run(*, profile: bool) -> list[Figure]:
    """Publish to 1,000 users in batches, then one notification at a time."""
    users = [f"user-{i}" for i in range(USERS)]
    numbers = count(1).__next__
    with node(profile=profile) as server:
        herd = Herd(server.port)
        herd.connect(handshake("/v1/ws", token) for token in tokens(users))
        herd.publish(requests(users, BATCH, numbers, rounds=4), 2 * BATCH)
        say("acked: in batches")
        server.rest()
        measure(server, profile)
        batches = _for(SECONDS, requests(users, BATCH, numbers))
        batch_cpu, batch_rate = measured(server, ACKS, herd, batches, 2 * BATCH)
        if profile:
            return [Figure("acknowledged, in batches, profiled", batch_cpu, "us")]
        say("acked: one by one")
        singles = _for(SECONDS / 2, requests(users, 1, numbers))
        one_cpu, one_rate = measured(server, ACKS, herd, singles, 1)
        herd.close()
    return [
        Figure(f"acknowledged, in batches of {BATCH}", batch_cpu, "us", at_most=BAR),
        Figure("the same, by the clock", batch_rate, "/s"),
        Figure("acknowledged, one by one", one_cpu, "us"),
        Figure("the same, by the clock", one_rate, "/s"),
    ]


def requests(
    users: list[str],
    size: int,
    number: Callable[[], int],
    rounds: int | None = None,
    text: int | None = None,
) -> Iterator[bytes]:
    """Publish requests of so many notifications, to all users in turn.

    Args:
        users: who is published to.
        size: notifications of a request; 1 makes requests that are no batch.
        number: makes each notification another one.
        rounds: how many requests; None is without end.
        text: random characters in each; None is a short greeting.
    """
    (token,) = tokens(["backend"], "push.publish")
    turn = cycle(users)
    for _ in count() if rounds is None else range(rounds):
        lines = [
            json.dumps({"to": {"user": user}, "data": {"n": number(), "text": _text(text)}})
            for user in islice(turn, size)
        ]
        if size == 1:
            yield post("/v1/notifications", token, "application/json", lines[0].encode())
        else:
            body = "\n".join(lines).encode()
            yield post("/v1/notifications/batch", token, "application/x-ndjson", body)


def _text(length: int | None) -> str:
    return "hello" if length is None else secrets.token_hex(length // 2)


def _for(seconds: float, source: Iterator[bytes]) -> Iterator[bytes]:
    deadline = time.monotonic() + seconds
    for item in source:
        if time.monotonic() > deadline:
            return
        yield item


def measured(
    server: Server, metric: str, herd: Herd, source: Iterator[bytes], ahead: int
) -> tuple[float, float]:
    """Publish; microseconds of the node's CPU for each that a metric counts, and their rate."""
    counted = server.metric(metric)
    server.rest()
    before, started = server.cpu(), time.monotonic()
    received = herd.publish(source, ahead)
    seconds = time.monotonic() - started
    server.rest()
    cpu = server.cpu() - before
    counted = server.metric(metric) - counted
    if counted != received:
        raise RuntimeError(f"{received} were received, but {metric} counts {counted:g}")
    return 1e6 * cpu / counted, counted / seconds
