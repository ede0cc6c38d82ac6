"""What a user has read against a plain dict: counts and lists are the same on every node.

Three nodes, of which now and then one is killed and another takes its place. What a user is sent is
read, archived, recalled, replaced, trimmed, settled, and expires; each of that on any of the nodes.
"""

import asyncio
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from pushsvc.server.embedded import EmbeddedServer
from tests.support.nodes import Node, publisher_token, token
from tests.support.phone import Phone
from tests.support.topics import order

OPERATIONS: Final = int(os.environ.get("MODEL_EXAMPLES", "16"))
KILL_EVERY: Final = min(10 + OPERATIONS // 5, 50)
"""Operations."""
SEED: Final = int(os.environ.get("MODEL_SEED", str(random.randrange(1 << 30))))
MOST: Final = 12
"""Entries of the mailbox, so that some are trimmed."""
SHORT: Final = 1.0
"""Seconds after which some expire."""
USER: Final = "reader"
VERBS: Final = ("read", "unread", "archive", "unarchive")


@dataclass
class Kept:
    """A notification as the model knows it."""

    state: str = "unread"
    """Or ``read``, ``archived``, ``signal``."""
    key: str = ""
    shared: bool = False
    lives: float = float("inf")
    """Until then it has not expired, on the monotonic clock,"""
    dies: float = float("inf")
    """and from then on it has."""


class World:
    """The nodes, and what the mailbox must hold."""

    def __init__(self, url: str, directory: Path, prefix: str, dice: random.Random) -> None:
        self._url, self._directory, self._prefix, self._dice = url, directory, prefix, dice
        self._made = 0
        self.nodes = [self._new() for _ in range(3)]
        self.kept: dict[str, Kept] = {}
        self.client = httpx.AsyncClient(timeout=30)
        self.log: list[str] = []

    def _new(self) -> Node:
        self._made += 1
        directory = self._directory / f"n{self._made}"
        directory.mkdir()
        node = Node(
            self._url, directory, prefix=self._prefix, mailbox_max=MOST,
            rate_messages_per_second=10_000, rate_burst=20_000, lease_seconds=2,
        )  # fmt: skip
        return node.__enter__()

    def kill(self) -> None:
        """As ``kill -9`` does; another node takes its place."""
        place = self._dice.randrange(3)
        self.nodes[place].process.kill()
        self.nodes[place].process.wait()
        self.nodes[place] = self._new()

    def anyone(self) -> Node:
        return self._dice.choice(self.nodes)

    async def ask(self, node: Node, method: str, path: str, auth: str, **kwargs: Any) -> Any:
        headers = {"Authorization": f"Bearer {auth}"}
        answer = await self.client.request(method, node.url + path, headers=headers, **kwargs)
        assert answer.status_code in (200, 202), (path, answer.status_code, answer.text)
        return answer.json()

    # --- operations ------------------------------------------------------------------------------

    async def publish(self) -> None:
        dice = self._dice
        kind = dice.choice(("", "", "", "key", "any", "short", "signal"))
        kinds: dict[str, dict[str, Any]] = {
            "": {},
            "key": {"collapse_key": dice.choice("ab")},
            "any": {"deliver": "any-device"},
            "short": {"ttl": SHORT},
            "signal": {"inbox": False},
        }
        fields = kinds[kind]
        body = {"to": {"user": USER}, "data": 1, **fields}
        before = time.monotonic()
        path = "/v1/notifications"
        sent = (await self.ask(self.anyone(), "POST", path, publisher_token(), json=body))["id"]
        kept = Kept("signal" if kind == "signal" else "unread", shared=kind == "any")
        if kind == "key":
            kept.key = fields["collapse_key"]
            self.drop(*(each for each, its in self.kept.items() if its.key == kept.key))
        if kind == "short":
            kept.lives, kept.dies = before + SHORT, time.monotonic() + SHORT + 0.1
        self.kept[sent] = kept
        self.drop(*sorted(self.kept, key=order)[: max(0, len(self.kept) - MOST)])

    def drop(self, *some: str) -> None:
        for each in some:
            del self.kept[each]

    async def change(self) -> None:
        dice = self._dice
        verb = dice.choice(VERBS)
        ids = sorted(self.kept, key=order)
        if dice.random() < 0.3 and ids:
            body: dict[str, Any] = {"until": dice.choice(ids)}
            meant = [each for each in ids if order(each) <= order(body["until"])]
        else:
            meant = dice.sample(ids, min(len(ids), dice.randrange(4)))
            body = {"ids": [*meant, "5-5"]}
        path = f"/v1/users/{USER}/{verb}"
        await self.ask(self.anyone(), "POST", path, token(USER), json=body)
        for each in meant:
            kept = self.kept[each]
            if verb == "archive" and kept.state in ("unread", "read"):
                kept.state = "archived"
            elif verb == "unread" and kept.state in ("read", "archived"):
                kept.state = "unread"
            elif (verb, kept.state) in (("read", "unread"), ("unarchive", "archived")):
                kept.state = "read"

    async def recall(self) -> None:
        if self.kept:
            which = self._dice.choice(list(self.kept))
            path = f"/v1/users/{USER}/notifications/{which}"
            await self.ask(self.anyone(), "DELETE", path, publisher_token())
            self.drop(which)

    async def settle(self) -> None:
        """A device acknowledges all: what one of any device settles is gone."""
        node = self.anyone()
        newest = max(self.kept, key=order, default=None)
        if newest is None:
            return
        async with Phone(node, USER, self._dice.choice(("phone", "laptop"))):
            pass
        body = {"device": "phone", "id": newest}
        async with Phone(node, USER, "phone"):
            acked = await self.ask(node, "POST", "/v1/ack", token(USER), json=body)
        if order(acked["acked"]) >= order(newest):
            gone = [each for each, its in self.kept.items() if its.shared]
            self.drop(*gone)

    # --- what holds ------------------------------------------------------------------------------

    async def check(self) -> None:
        """What every node says is what the model says."""
        while any(its.lives - 1 < time.monotonic() < its.dies for its in self.kept.values()):
            await asyncio.sleep(0.05)
        now = time.monotonic()
        live = {each: its for each, its in self.kept.items() if its.lives > now}
        newest = sorted(live, key=order, reverse=True)
        expected = {
            each: (live[each].state in ("read", "archived"), live[each].state == "archived")
            for each in newest
        }
        unread = sum(its.state == "unread" for its in live.values())
        path = f"/v1/users/{USER}/notifications?archived=any&limit=100"
        pages = await asyncio.gather(
            *(self.ask(node, "GET", path, publisher_token()) for node in self.nodes)
        )
        if any(its.lives < time.monotonic() for its in live.values()):
            return  # one may have expired before the last of them was asked
        for page in pages:
            listed = {
                note["id"]: (note["read"], note["archived"]) for note in page["notifications"]
            }
            assert (list(listed), listed) == (newest, expected), (SEED, self.log[-10:])
            assert page["unread"] == unread, (SEED, self.log[-10:])

    def close(self) -> None:
        for node in self.nodes:
            node.__exit__(None, None, None)


@pytest.mark.timeout(120 + 3 * OPERATIONS)
async def test_counts_and_lists_are_those_of_a_plain_dict_on_every_node(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    dice = random.Random(SEED)
    world = World(valkey.url, tmp_path, prefix, dice)
    try:
        acts = {"publish": 10, "change": 8, "recall": 1, "settle": 1}
        for number in range(OPERATIONS):
            act = dice.choices(list(acts), list(acts.values()))[0]
            world.log.append(act)
            await getattr(world, act)()
            if number % 5 == 0:
                await world.check()
            if number and number % KILL_EVERY == 0:
                await asyncio.to_thread(world.kill)
        await world.check()
    finally:
        await world.client.aclose()
        world.close()
