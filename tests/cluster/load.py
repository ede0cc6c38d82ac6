"""Load on several nodes, and a checker that counts what became of every notification.

python -m tests.cluster.load --seconds 30 --kill-every 4
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from pushsvc.embedded import EmbeddedServer
from pushsvc.protocol import ids
from tests.support.nodes import Node, publisher_token, token

USERS = 8
DEVICES = ("phone", "laptop")
BACKENDS = 4
RETRY_SECONDS = 40.0
"""How long a backend repeats a request before it counts as one that never succeeded."""
SETTLE_SECONDS = 60.0
"""How long everything accepted may take to be acknowledged by every device, at the end."""


@dataclass
class Counts:
    """What the checker saw; the first four must be zero."""

    lost: int = 0
    out_of_order: int = 0
    duplicated: int = 0
    """Twice on one connection without an attempt."""
    acked_again: int = 0
    """Delivered on a later connection although the acknowledgement was confirmed."""
    never_accepted: int = 0
    attempted: int = 0
    accepted: int = 0
    retried: int = 0
    delivered: int = 0
    redelivered: int = 0
    gaps: int = 0
    reconnects: int = 0
    wrong_closes: int = 0
    """Closes by a node that stops, with another code than 4001."""
    kills: int = 0
    slowest: float = 0.0
    """Seconds from the answer 202 to the first delivery."""

    def broken(self) -> dict[str, int]:
        """The promises that were broken, with how often."""
        promises = ("lost", "out_of_order", "duplicated", "acked_again", "never_accepted")
        return {name: getattr(self, name) for name in promises if getattr(self, name)}

    def __str__(self) -> str:
        return "\n".join(f"{each.name:>16}  {getattr(self, each.name):g}" for each in fields(self))


@dataclass
class Device:
    """One device of one user, and what it was told."""

    load: "Load"
    user: str
    name: str
    told: dict[int, float] = field(default_factory=dict)
    """Id to when it was delivered first."""
    confirmed: int = 0
    """The position that a node said is written down."""
    socket: ClientConnection | None = None
    known: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once it was welcomed for the first time."""

    async def run(self) -> None:
        """Listen, on one node after another."""
        for turn in itertools.count():
            try:
                await self._listen()
            except ConnectionClosed as error:
                if error.rcvd is not None and error.rcvd.code not in (4001, 1000, 1001):
                    self.load.counts.wrong_closes += 1
            except (OSError, InvalidHandshake, TimeoutError):
                pass
            self.load.counts.reconnects += turn > 0
            await asyncio.sleep(random.uniform(0.02, 0.3))

    async def _listen(self) -> None:
        node = self.load.some_node()
        async with connect(
            f"ws://127.0.0.1:{node.port}/v1/ws?device={self.name}",
            additional_headers={"Authorization": f"Bearer {self.load.tokens[self.user]}"},
            open_timeout=5,
            close_timeout=0.2,
        ) as socket:
            self.socket = socket
            here: set[int] = set()
            before = self.confirmed
            async for text in socket:
                message = json.loads(text)
                if message["type"] == "notification":
                    self._check(ids.parse(message["id"]), message.get("attempt", 1), here, before)
                    await self._ack(socket, message["id"])
                elif message["type"] == "reply":
                    self.confirmed = max(self.confirmed, ids.parse(message["acked"]))
                elif message["type"] == "welcome":
                    self.known.set()
                elif message["type"] == "gap":
                    self.load.counts.gaps += 1

    def _check(self, entry_id: int, attempt: int, here: set[int], confirmed: int) -> None:
        counts = self.load.counts
        if entry_id in here and attempt == 1:
            counts.duplicated += 1
        here.add(entry_id)
        if entry_id <= confirmed:
            counts.acked_again += 1
        if entry_id in self.told:
            counts.redelivered += 1
            return
        if self.told and entry_id < max(self.told):
            counts.out_of_order += 1
        self.told[entry_id] = time.monotonic()
        counts.delivered += 1

    async def _ack(self, socket: ClientConnection, entry_id: str) -> None:
        # Some are acknowledged one by one, some by a later one, some with a confirmation.
        how = random.random()
        if how < 0.7:
            message = {"type": "ack", "id": entry_id}
            if how < 0.35:
                message["ref"] = "r"
            await socket.send(json.dumps(message))


class Load:
    """Backends that publish, and devices that listen, on some nodes.

    Args:
        nodes: that can be used; a test kills and restarts them.
    """

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self.counts = Counts()
        self.users = [f"user-{n}" for n in range(USERS)]
        self.tokens = {user: token(user, ttl=3600) for user in self.users}
        self.devices = [Device(self, user, name) for user in self.users for name in DEVICES]
        self.accepted: dict[str, dict[int, float]] = {user: {} for user in self.users}
        self._publishing = True

    def some_node(self) -> Node:
        """Any node, dead ones included: who asks finds out."""
        return random.choice(self.nodes)

    async def run(self, seconds: float, disturb: Callable[[], Coroutine[Any, Any, None]]) -> Counts:
        """Publish for some seconds while something disturbs, then wait for the last ack."""
        listening = [asyncio.create_task(device.run()) for device in self.devices]
        # A device that is new to its user is not owed what others acknowledged before.
        await asyncio.gather(*(device.known.wait() for device in self.devices))
        async with httpx.AsyncClient(timeout=5) as client:
            publishing = [asyncio.create_task(self._backend(client)) for _ in range(BACKENDS)]
            disturbing = asyncio.create_task(disturb())
            await asyncio.sleep(seconds)
            self._publishing = False
            await asyncio.gather(*publishing, disturbing)
        await self._settled()
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
        self._count()
        return self.counts

    async def move_about(self) -> None:
        """Have every device drop its connection and come back elsewhere, again and again."""
        while self._publishing:
            await asyncio.sleep(0.05)
            socket = random.choice(self.devices).socket
            if socket is not None:
                socket.transport.abort()

    async def _backend(self, client: httpx.AsyncClient) -> None:
        while self._publishing:
            await self._publish(client, random.choice(self.users))

    async def _publish(self, client: httpx.AsyncClient, user: str) -> None:
        counts = self.counts
        counts.attempted += 1
        headers = {
            "Authorization": f"Bearer {publisher_token()}",
            "Idempotency-Key": f'"{uuid.uuid4()}"',
        }
        body = {"to": {"user": user}, "data": {"n": counts.attempted}}
        deadline = time.monotonic() + RETRY_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                answer = await client.post(
                    self.some_node().url + "/v1/notifications", json=body, headers=headers
                )
                if answer.status_code == 202:
                    self.accepted[user][ids.parse(answer.json()["id"])] = time.monotonic()
                    counts.accepted += 1
                    return
                if answer.status_code < 500:
                    raise AssertionError(answer.text)
            counts.retried += 1
            await asyncio.sleep(random.uniform(0.02, 0.2))
        counts.never_accepted += 1

    async def _settled(self) -> None:
        """Wait until every device was told everything, or cannot be."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline and any(self._missing()):
            await asyncio.sleep(0.05)

    def _missing(self) -> itertools.chain[int]:
        return itertools.chain.from_iterable(
            self.accepted[device.user].keys() - device.told.keys() for device in self.devices
        )

    def _count(self) -> None:
        self.counts.lost = sum(1 for _ in self._missing())
        for device in self.devices:
            for entry_id in self.accepted[device.user].keys() - device.told.keys():
                after = min((i for i in device.told if i > entry_id), default=0)
                sys.stderr.write(
                    f"lost: {device.user} {device.name} {ids.render(entry_id)}, "
                    f"of {len(device.told)} told the next is {ids.render(after)}\n"
                )
            for entry_id, accepted_at in self.accepted[device.user].items():
                if entry_id in device.told:
                    late = device.told[entry_id] - accepted_at
                    self.counts.slowest = max(self.counts.slowest, late)


async def kill_one_by_one(load: Load, every: float, seconds: float) -> None:
    """``kill -9`` a node at random, again and again, and start it again a second later."""
    end = time.monotonic() + seconds
    while time.monotonic() + every < end:
        await asyncio.sleep(every)
        victim = load.some_node()
        victim.kill()
        load.counts.kills += 1
        await asyncio.sleep(1)
        await asyncio.to_thread(victim.start, ready=False)


async def roll(load: Load, pause: float) -> None:
    """Restart all nodes, one after the other, as a deployment does."""
    for node in load.nodes:
        await asyncio.sleep(pause)
        assert await asyncio.to_thread(node.stop) == 0, "a node did not stop cleanly"
        await asyncio.to_thread(node.start)


async def _main(seconds: float, every: float, count: int) -> Counts:
    with tempfile.TemporaryDirectory() as directory, EmbeddedServer() as server:
        nodes = [Node(server.url, Path(directory), prefix="load") for _ in range(count)]
        try:
            for node in nodes:
                node.start()
            load = Load(nodes)
            return await load.run(seconds, lambda: kill_one_by_one(load, every, seconds))
        finally:
            for node in nodes:
                node.stop()


def main() -> int:
    """Run the load and print the table; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.load", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--kill-every", type=float, default=4)
    parser.add_argument("--nodes", type=int, default=3)
    arguments = parser.parse_args()
    counts = asyncio.run(_main(arguments.seconds, arguments.kill_every, arguments.nodes))
    sys.stdout.write(f"{counts}\n")
    return int(bool(counts.broken()))


if __name__ == "__main__":
    sys.exit(main())
