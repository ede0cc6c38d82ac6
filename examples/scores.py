"""Live scores: one publish, thousands of sockets, and how long it takes to reach them.

Each goal is published once, to the topic of the match; the final whistle is a broadcast, which
reaches everyone who is connected, whatever they subscribed to. All sockets are held by this one
process, and much of the latency that it shows is its own: it reads them one after the other.

    python examples/scores.py                  # 1,000 sockets
    python examples/scores.py --sockets 5000
"""

import argparse
import asyncio
import gc
import math
import random
import secrets
import time

from common import NODE, at_least_one, connected, run, token_for
from pushsvc.client import AsyncPublisher, Client, Note, Notification

GOALS = 9
SCREENS = 25
"""Sockets of one user, each a device of its own: a node allows 32."""
CONNECTING = 100
"""Sockets that connect at the same time."""
PATIENCE = 30.0
"""Seconds in which everyone must have heard."""


class Stadium:
    """All the sockets, and when each of them heard of what happened."""

    def __init__(self, sockets: int) -> None:
        self.sockets = sockets
        self.topic = f"scores.{secrets.token_hex(3)}"
        self.published: dict[int, float] = {}
        self.latencies: dict[int, list[float]] = {}
        self.ready = asyncio.Barrier(sockets + 1)
        self.over = asyncio.Event()
        self._gate = asyncio.Semaphore(CONNECTING)

    async def fan(self, token: str, device: str) -> None:
        """One socket that watches the match."""
        await self._gate.acquire()
        async with connected(token, device) as client:
            await client.subscribe(self.topic)
            self._gate.release()
            watching = asyncio.create_task(self.watch(client))
            await self.ready.wait()
            await self.over.wait()
        await watching

    async def watch(self, client: Client) -> None:
        async for message in client:
            if not isinstance(message, Notification) or message.event not in ("goal", "final"):
                continue  # for another part of an app
            minute = message.data["minute"]
            if minute in self.published:  # and not the end of another match
                self.latencies[minute].append(time.perf_counter() - self.published[minute])

    async def publish(self, publisher: AsyncPublisher, minute: int, event: str, score: str) -> None:
        """Tell everyone, wait until all have heard of it, and say how long that took."""
        note: Note = {"event": event, "data": {"minute": minute, "score": score}}
        if event == "goal":
            # Replaces the score before: who subscribes later is sent the newest one.
            note |= {"data": note["data"], "topic": self.topic, "collapse_key": "score"}
        else:
            # Live only: nobody who connects later needs to be told.
            note |= {"data": note["data"], "broadcast": True, "ttl": 0}
        latencies = self.latencies[minute] = []
        begin = self.published[minute] = time.perf_counter()
        await publisher.publish(**note)
        while len(latencies) < self.sockets:
            if time.perf_counter() - begin > PATIENCE:
                raise SystemExit(f"{self.sockets - len(latencies)} sockets did not hear of {note}")
            await asyncio.sleep(0.01)
        print(f"  {minute:>2}'  {event:<6}{score}   {percentiles(latencies)}", flush=True)

    async def match(self, publisher: AsyncPublisher) -> None:
        """Goals for either side, and the final whistle."""
        home = away = 0
        for minute in sorted(random.sample(range(1, 90), GOALS)):
            home, away = random.choice([(home + 1, away), (home, away + 1)])
            await self.publish(publisher, minute, "goal", f"{home}:{away}")
        await self.publish(publisher, 90, "final", f"{home}:{away}")
        self.over.set()


def percentiles(seconds: list[float]) -> str:
    """How long it took half of them, nearly all of them, and the last."""
    ordered = sorted(seconds)
    parts = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)]
    marks = [(name, ordered[math.ceil(share * len(ordered)) - 1]) for name, share in parts]
    return "   ".join(f"{name} {1000 * value:6.1f} ms" for name, value in marks)


async def main(sockets: int) -> None:
    """Fill the stadium, play a match, and sum up."""
    print(f"connecting {sockets} sockets ...", flush=True)
    stadium = Stadium(sockets)
    token = await token_for("stadium", scope="push.publish")
    begin = time.perf_counter()
    async with AsyncPublisher(NODE, token=token) as publisher, asyncio.TaskGroup() as fans:
        for first in range(0, sockets, SCREENS):
            token = await token_for(f"fan-{first // SCREENS}", topics="scores.*")
            for number in range(first, min(first + SCREENS, sockets)):
                fans.create_task(stadium.fan(token, f"screen-{number}"))
        await stadium.ready.wait()
        print(f"all are connected after {time.perf_counter() - begin:.1f} s; the match begins")
        gc.freeze()  # or the collector would walk all these sockets in the middle of a goal
        busy = time.process_time()
        await stadium.match(publisher)
        busy = time.process_time() - busy
    every = [each for latencies in stadium.latencies.values() for each in latencies]
    print(f"{len(every)} deliveries, none lost:   {percentiles(every)}")
    each, goal = 1e6 * busy / len(every), 1e3 * busy / len(stadium.published)
    print(f"Of that, this process took {each:.0f} µs to read each: {goal:.0f} ms a goal.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sockets", type=at_least_one, default=1000, help="default: 1000")
    run(main(parser.parse_args().sockets))
