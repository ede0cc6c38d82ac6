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
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from pushsvc.protocol import ids
from pushsvc.server.embedded import EmbeddedServer
from tests.support.nodes import Node, publisher_token, token, wait_until

USERS = 8
DEVICES = ("phone", "laptop")
BACKENDS = 4
RETRY_SECONDS = 40.0
"""How long a backend repeats a request before it counts as one that never succeeded."""
SETTLE_SECONDS = 60.0
"""How long everything accepted may take to be acknowledged by every device, at the end."""
IDLE_SECONDS = 0.25
"""After which a device has its last acknowledgement confirmed."""
LOOK_SECONDS = 0.1
"""How often a load balancer asks whether a node is ready."""
LOST = 1006
"""The code of a connection that ended without a close (RFC 6455, section 7.1.5)."""


@dataclass
class Counts:
    """What the checker saw; what ``broken`` names must be zero."""

    lost: int = 0
    unacked: int = 0
    """Devices whose position is not confirmed to be the last notification, at the end."""
    out_of_order: int = 0
    duplicated: int = 0
    """Twice on one connection without an attempt."""
    doubled: int = 0
    """One idempotency key, two notifications."""
    acked_again: int = 0
    """Delivered although an acknowledgement of it, or of a later one, was confirmed."""
    never_accepted: int = 0
    sent_away: int = 0
    """Closed, or refused, with an answer that means: do not come back."""
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
        promises = (
            "lost", "unacked", "out_of_order", "duplicated", "doubled", "acked_again",
            "never_accepted", "sent_away",
        )  # fmt: skip
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
    last: int = ids.START
    """The highest of them: what a client remembers to tell the new from the known."""
    confirmed: int = ids.START
    """The position that a node said is written down."""
    gaps: list[str] = field(default_factory=list)
    """The reasons of the gaps that it was told of."""
    known: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once it was welcomed for the first time."""
    socket: ClientConnection | None = None
    node: Node | None = None

    async def run(self) -> None:
        """Listen, on one node after another."""
        for turn in itertools.count():
            pause = 0.0
            self.load.counts.reconnects += turn > 0
            try:
                await self._listen()
            except ConnectionClosed as error:
                self.load.closes[LOST if error.rcvd is None else error.rcvd.code] += 1
                if error.rcvd is not None and error.rcvd.code not in (4001, 1000, 1001):
                    self.load.counts.wrong_closes += 1
                    self.load.counts.sent_away += 4500 <= error.rcvd.code <= 4999
            except InvalidStatus as error:
                self.load.counts.sent_away += error.response.status_code not in (429, 503)
                pause = min(1.0, float(error.response.headers.get("Retry-After", 0)))
            except (OSError, InvalidHandshake, TimeoutError):
                pass
            await asyncio.sleep(pause + random.uniform(0.02, 0.3))

    async def _listen(self) -> None:
        self.node = self.load.some_node(but=self.node)
        async with connect(
            f"ws://127.0.0.1:{self.node.port}/v1/ws?device={self.name}",
            additional_headers={"Authorization": f"Bearer {self.load.tokens[self.user]}"},
            open_timeout=3,
            close_timeout=0.2,
            ping_interval=1,  # a node that stands still is left
            ping_timeout=3,
        ) as socket:
            self.socket = socket
            here: set[int] = set()
            while True:
                try:
                    async with asyncio.timeout(IDLE_SECONDS):
                        message = json.loads(await socket.recv())
                except TimeoutError:
                    if self.confirmed < self.last:
                        await self._ack(socket, max(here, default=self.last), confirm=True)
                    continue
                if message["type"] == "notification":
                    entry_id = ids.parse(message["id"])
                    self._check(entry_id, message.get("attempt", 1), here)
                    await self._ack_sometimes(socket, entry_id)
                elif message["type"] == "reply":
                    self.confirmed = max(self.confirmed, ids.parse(message["acked"]))
                elif message["type"] == "welcome":
                    self.known.set()
                elif message["type"] == "gap":
                    self.load.counts.gaps += 1
                    self.gaps.append(message["reason"])
                    if message["reason"] == "reset":
                        self.last = self.confirmed = ids.START
                elif message["type"] == "reconnect":
                    self.load.sent_elsewhere[self.node].append(time.monotonic())
                    await asyncio.sleep(min(message["retry_after"], 0.5))

    def _check(self, entry_id: int, attempt: int, here: set[int]) -> None:
        counts = self.load.counts
        if entry_id in here and attempt == 1:
            counts.duplicated += 1
        here.add(entry_id)
        if entry_id <= self.confirmed:
            counts.acked_again += 1
        if entry_id in self.told:
            counts.redelivered += 1
            return
        if entry_id < self.last:
            counts.out_of_order += 1
        self.last = max(self.last, entry_id)
        self.told[entry_id] = time.monotonic()
        counts.delivered += 1

    async def _ack_sometimes(self, socket: ClientConnection, entry_id: int) -> None:
        # Some are acknowledged one by one, some by a later one, some with a confirmation.
        how = random.random()
        if how < 0.7:
            await self._ack(socket, entry_id, confirm=how < 0.35)

    async def _ack(self, socket: ClientConnection, entry_id: int, *, confirm: bool) -> None:
        message = {"type": "ack", "id": ids.render(entry_id)}
        await socket.send(json.dumps(message | ({"ref": "r"} if confirm else {})))


class Load:
    """Backends that publish, and devices that listen, on some nodes.

    Args:
        nodes: that can be used; a test kills and restarts them.
        users: how many there are, with two devices each.
    """

    def __init__(self, nodes: list[Node], users: int = USERS) -> None:
        self.nodes = nodes
        self.ready: list[Node] = nodes
        """Those that anybody is sent to."""
        self.counts = Counts()
        self.closes: Counter[int] = Counter()
        """How often connections ended with each code."""
        self.sent_elsewhere: defaultdict[Node, list[float]] = defaultdict(list)
        """When each node asked a device to reconnect."""
        self.users = [f"user-{n}" for n in range(users)]
        self.tokens = {user: token(user, ttl=3600) for user in self.users}
        self.devices = [Device(self, user, name) for user in self.users for name in DEVICES]
        self.accepted: dict[str, dict[int, float]] = {user: {} for user in self.users}
        self.forgiven = ids.START
        """Up to here nothing is owed any more: Redis was emptied."""
        self._publishing = True

    def some_node(self, *, but: Node | None = None) -> Node:
        """Any node, dead ones included: who asks finds out, unless somebody balances."""
        return random.choice([node for node in self.ready if node is not but] or self.nodes)

    async def balance(self) -> None:
        """Have everybody sent to ready nodes only, as behind a load balancer."""
        async with httpx.AsyncClient(timeout=1) as client:

            async def is_ready(node: Node) -> bool:
                try:
                    return (await client.get(f"{node.admin_url}/readyz")).status_code == 200
                except httpx.TransportError:
                    return False

            while True:
                answers = await asyncio.gather(*map(is_ready, self.nodes))
                self.ready = [n for n, ready in zip(self.nodes, answers, strict=True) if ready]
                await asyncio.sleep(LOOK_SECONDS)

    async def run(self, seconds: float, disturb: Callable[[], Coroutine[Any, Any, None]]) -> Counts:
        """Publish for some seconds while something disturbs, then wait for the last ack."""
        listening = [asyncio.create_task(device.run()) for device in self.devices]
        try:
            # A device that is new to its user is not owed what others acknowledged before.
            await asyncio.gather(*(device.known.wait() for device in self.devices))
            async with httpx.AsyncClient(timeout=3) as client, asyncio.TaskGroup() as tasks:
                for _ in range(BACKENDS):
                    tasks.create_task(self._backend(client))
                disturbing = tasks.create_task(disturb())
                await asyncio.sleep(seconds)
                await disturbing
                self._publishing = False
            await self._settled()
        finally:
            for task in listening:
                task.cancel()
            ends = await asyncio.gather(*listening, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end
        self._count()
        return self.counts

    async def nothing(self) -> None:
        """Disturb nothing."""

    async def move_about(self) -> None:
        """Have every device drop its connection and come back elsewhere, again and again."""
        end = time.monotonic() + 5
        while time.monotonic() < end:
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
        number = counts.attempted
        headers = {
            "Authorization": f"Bearer {publisher_token()}",
            "Idempotency-Key": f'"{uuid.uuid4()}"',
        }
        body = {"to": {"user": user}, "data": {"n": number}}
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
        """Wait until every device has acknowledged everything, or cannot."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline and (any(self._missing()) or any(self._unconfirmed())):
            await asyncio.sleep(0.05)

    def _owed(self, device: Device) -> dict[int, float]:
        accepted = self.accepted[device.user]
        return {entry: at for entry, at in accepted.items() if entry > self.forgiven}

    def _missing(self) -> Iterator[int]:
        for device in self.devices:
            yield from self._owed(device).keys() - device.told.keys()

    def _unconfirmed(self) -> Iterator[Device]:
        for device in self.devices:
            if device.confirmed < max(self._owed(device), default=ids.START):
                yield device

    def _count(self) -> None:
        self.counts.lost = sum(1 for _ in self._missing())
        self.counts.unacked = sum(1 for _ in self._unconfirmed())
        for device in self.devices:
            for entry_id in self._owed(device).keys() - device.told.keys():
                after = min((i for i in device.told if i > entry_id), default=0)
                sys.stderr.write(
                    f"lost: {device.user} {device.name} {ids.render(entry_id)}, "
                    f"of {len(device.told)} told the next is {ids.render(after)}\n"
                )
            for entry_id, accepted_at in self._owed(device).items():
                if entry_id in device.told:
                    late = device.told[entry_id] - accepted_at
                    self.counts.slowest = max(self.counts.slowest, late)
        for user in self.users:
            told = set().union(*(each.told for each in self.devices if each.user == user))
            # Every attempt that was told was accepted, or is one whose retries were not.
            spurious = {each for each in told if each > self.forgiven} - self.accepted[user].keys()
            self.counts.doubled += len(spurious)
            for entry_id in spurious:
                sys.stderr.write(f"told but not accepted: {user} {ids.render(entry_id)}\n")
        self.counts.doubled = max(0, self.counts.doubled - self.counts.never_accepted)


async def kill_one_by_one(load: Load, every: float, kills: int) -> None:
    """``kill -9`` a node at random, so many times, and start it again a second later."""
    for _ in range(kills):
        await asyncio.sleep(every)
        victim = load.some_node()
        victim.kill()
        load.counts.kills += 1
        await asyncio.sleep(1)
        await asyncio.to_thread(victim.start, ready=False)


async def stop_and_continue(load: Load, lease: float) -> None:
    """Have one node stand still for longer than its lease."""
    await asyncio.sleep(1)
    sleeper = load.some_node()
    sleeper.pause()
    await asyncio.sleep(lease * 2)
    sleeper.resume()
    await asyncio.to_thread(wait_until, sleeper.is_ready, "the node to be ready")


async def roll(load: Load, pause: float) -> None:
    """Restart all nodes, one after the other, as a deployment does behind a load balancer."""
    balancing = asyncio.create_task(load.balance())
    for node in load.nodes:
        await asyncio.sleep(pause)
        assert await asyncio.to_thread(node.stop) == 0, "a node did not stop cleanly"
        await asyncio.to_thread(node.start)
    balancing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await balancing
    load.ready = load.nodes


async def _main(seconds: float, every: float, count: int, lease: float) -> Counts:
    with tempfile.TemporaryDirectory() as directory, EmbeddedServer() as server:
        nodes = [
            Node(server.url, Path(directory), prefix="load", lease_seconds=lease)
            for _ in range(count)
        ]
        try:
            for node in nodes:
                node.start()
            load = Load(nodes)
            # A killed node is away for a second, and takes about another to start.
            kills = max(1, int(seconds / (every + 2)))
            return await load.run(seconds, lambda: kill_one_by_one(load, every, kills))
        finally:
            for node in nodes:
                node.stop()
                node.check_log()


def main() -> int:
    """Run the load and print the table; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.load", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--kill-every", type=float, default=4)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--lease", type=float, default=10)
    arguments = parser.parse_args()
    counts = asyncio.run(
        _main(arguments.seconds, arguments.kill_every, arguments.nodes, arguments.lease)
    )
    sys.stdout.write(f"{counts}\n")
    return int(bool(counts.broken()))


if __name__ == "__main__":
    sys.exit(main())
