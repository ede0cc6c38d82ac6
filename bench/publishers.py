"""What batching is worth to a backend: the Python publishers, against one node, in turns."""

import asyncio
import statistics
import time
from collections.abc import Callable

from bench.harness import Figure, node, say, tokens
from pushsvc.client import AsyncPublisher, Note, Publisher

ROUNDS = 7
ONE_BY_ONE, BATCHED = 500, 2000
"""Notifications of a round."""


def run(*, profile: bool) -> list[Figure]:
    """Publish the same one by one, as a list, and as concurrent calls."""
    (token,) = tokens(["backend"], "push.publish")
    rates: dict[str, list[float]] = {"one by one": [], "publish_many": [], "gathered": []}
    with node(profile=profile) as server:
        url = f"http://127.0.0.1:{server.port}"
        with Publisher(url, token=token) as publisher:
            ways: dict[str, tuple[int, Callable[[], object]]] = {
                "one by one": (ONE_BY_ONE, lambda: _one_by_one(publisher)),
                "publish_many": (BATCHED, lambda: publisher.publish_many(_notes())),
                "gathered": (BATCHED, lambda: asyncio.run(_gathered(url, token))),
            }
            for number in range(ROUNDS):
                say(f"publishers: round {number + 1} of {ROUNDS}")
                for name, (count, publish) in ways.items():
                    begin = time.perf_counter()
                    publish()
                    rates[name].append(count / (time.perf_counter() - begin))
    one, many, gathered = (statistics.median(each) for each in rates.values())
    return [
        Figure("Publisher.publish, one by one", one, "/s"),
        Figure("Publisher.publish_many", many, "/s"),
        Figure("AsyncPublisher.publish, gathered", gathered, "/s"),
        Figure("publish_many : one by one", many / one, "x"),
        Figure("gathered : one by one", gathered / one, "x"),
    ]


def _notes() -> list[Note]:
    return [{"user": f"u{i % 100}", "data": i} for i in range(BATCHED)]


def _one_by_one(publisher: Publisher) -> None:
    for i in range(ONE_BY_ONE):
        publisher.publish(user=f"u{i % 100}", data=i)


async def _gathered(url: str, token: str) -> None:
    async with AsyncPublisher(url, token=token) as publisher:
        await asyncio.gather(
            *(publisher.publish(user=f"u{i % 100}", data=i) for i in range(BATCHED))
        )
