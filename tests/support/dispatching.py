"""A node's dispatcher on a real server, and listeners that are no sockets."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from pushsvc.codes import Close
from pushsvc.feeds.feed import Bounds, Feeds
from pushsvc.feeds.nodes import Leases, Outbox
from pushsvc.node import turns
from pushsvc.protocol.limits import Rate
from pushsvc.protocol.session import Policy
from pushsvc.protocol.wire import TEXT
from tests.support.hubs import new_node, session_of
from tests.support.redis import redis_at

MUCH = Rate(1e6, 1e6)
POLICY = Policy(
    heartbeat=25, window=64, ack_timeout=30, ack_attempts=3,
    messages=MUCH, bytes=MUCH, control=MUCH,
)  # fmt: skip


class Listener:
    """A device of a user of its own; keeps what it is sent."""

    def __init__(self, number: int, namespace: str = "") -> None:
        self.number = number
        self.session = session_of(f"u{number}", "phone", namespace=namespace)
        self.wire = TEXT
        self.written = b""
        self.sent: list[dict[str, Any]] = []
        self.open = True

    def writable(self) -> bool:
        return self.open

    def write(self, data: bytes) -> None:
        self.written += data

    def send(self, payload: bytes) -> None:
        self.sent.append(json.loads(payload))

    def watch(self) -> None:
        pass

    def end(self, code: Close) -> None:
        assert code
        self.open = False


class Node:
    """What a node hands on with, put together on a real server."""

    def __init__(self, url: str, prefix: str) -> None:
        self.commands = redis_at(url, prefix)
        self.keys = self.commands.keys
        bounds = Bounds(100, 3600, 8)
        self.feeds = feeds = Feeds(bounds, publishing=self.commands, sessions=self.commands)
        leases = Leases(self.commands, 10)
        self.outbox = Outbox(self.commands)
        self.parts = new_node(
            "a", feeds, leases, self.outbox, POLICY, sweep_seconds=60, clock=time.monotonic
        )
        self.dispatcher = self.parts.dispatcher
        self.redis = redis.Redis.from_url(url, decode_responses=True)

    async def join(self, count: int, namespace: str = "") -> list[Listener]:
        listeners = [Listener(number, namespace) for number in range(count)]
        for listener in listeners:
            self.dispatcher.start(listener, await self.dispatcher.join(listener), b"")
        return listeners

    def registered(self) -> set[str]:
        keys = self.redis.scan_iter(self.keys.prefix + "*{u:*:listeners", count=1000)
        return {str(connection) for key in keys for connection in self.redis.hkeys(key)}

    async def aclose(self) -> None:
        await self.parts.aclose()
        await self.outbox.aclose()
        await self.commands.aclose()
        self.redis.close()


class Held:
    """The turns of a node: every step waits for one, and they can be held back."""

    def __init__(self, node: Node, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(turns, "AT_ONCE", 0)
        patch.setattr(turns, "TURN", 0)
        self._turns: Any = node.parts.turns
        self._patch = patch
        self._held = False
        self._go_on = self._turns._go_on
        patch.setattr(self._turns, "_go_on", self._may_go_on)

    def _may_go_on(self) -> None:
        if not self._held:
            self._go_on()

    def hold(self) -> None:
        """Take no steps but those that are asked for."""
        self._held = True
        if self._turns._next is not None:
            self._turns._next.cancel()
            self._turns._next = None

    def step(self) -> None:
        """Take a step of one check and of one other work, and no more."""
        self.hold()
        self._turns._turn()

    def steps(self) -> None:
        """Take all steps there are."""
        while self._turns._checks or self._turns._works:
            self.step()

    def let_go(self) -> None:
        """Go on."""
        self._held = False
        self._go_on()


async def rejoin(node: Node, identity: str) -> None:
    """What a node does after its lease has lapsed."""
    node.dispatcher.lapsed(identity)
    await node.dispatcher.register_again()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)
