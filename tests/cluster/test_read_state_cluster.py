"""What users have read on a Redis Cluster: mailboxes on several primaries, and while a slot moves.

Two nodes, a connection of each user on each of them, which are told of everything. While the slot
moves a request may be refused as one to be sent again, which is done, as any client does.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import httpx
from redis.crc import key_slot

from pushsvc.protocol.feeds import mailbox
from pushsvc.store.schema import Keys
from tests.support.failover import Cluster, ask
from tests.support.nodes import Node, nodes, publisher_token, token
from tests.support.phone import Phone

PATIENCE = 30.0
Message = dict[str, Any]


class Ear:
    """What one connection was told: the ids that came and went, and how many are unread."""

    def __init__(self, phone: Phone) -> None:
        self._phone = phone
        self._came = asyncio.Event()
        self.ids: set[str] = set()
        self.withdrawn: set[str] = set()
        self.marks: list[tuple[str, Any, int]] = []
        self.unread: int = phone.welcome["unread"]

    async def listen(self) -> None:
        while True:
            message = await self._phone.socket.recv()
            self._hear(httpx.Response(200, content=message).json())

    def _hear(self, message: Message) -> None:
        kind = message["type"]
        if kind == "notification":
            self.ids.add(message["id"])
        elif kind == "withdrawn":
            self.withdrawn.update(message.get("ids", [message.get("id")]))
        elif kind in ("read", "unread", "archive", "unarchive"):
            which = message["until"] if "until" in message else message["ids"]
            self.marks.append((kind, which, message["unread"]))
        self.unread = message.get("unread", self.unread)
        self._came.set()

    async def until(self, wanted: Callable[["Ear"], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not wanted(self):
                self._came.clear()
                await self._came.wait()


class Move:
    """A slot on its way to another primary, a key at a time: the read state's sets first."""

    def __init__(self, cluster: Cluster, slot: int) -> None:
        self._cluster, self._slot = cluster, slot
        self._source = cluster.owner_of(slot)
        self._target = next(each for each in cluster.servers if each != self._source)
        ids = {port: ask(port, "CLUSTER", "MYID") for port in (self._source, self._target)}
        ask(self._target, "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[self._source])
        ask(self._source, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[self._target])
        self.refused = 0
        self.done = False

    def step(self) -> None:
        """Move one more key, or end it."""
        self.refused += 1
        keys = ask(self._source, "CLUSTER", "GETKEYSINSLOT", self._slot, 100)
        if keys:
            ends = (":read", ":archived", ":unread")
            key = max(keys, key=lambda name: (str(name).endswith(ends), name))
            ask(self._source, "MIGRATE", "127.0.0.1", self._target, key, 0, 5000)
        elif not self.done:
            self._cluster.end_move(self._slot, self._target)
            self.done = True


class Reader:
    """One user, asked and changed on both nodes in turn."""

    def __init__(self, client: httpx.AsyncClient, pair: list[Node], user: str) -> None:
        self._client, self._nodes, self.user = client, itertools.cycle(pair), user
        self._pair = pair
        self._keys = itertools.count()
        self.move: Move | None = None

    async def ask(self, method: str, path: str, *scopes: str, **kwargs: Any) -> Any:
        node = next(self._nodes)
        headers = {"Authorization": f"Bearer {token(self.user, *scopes)}"}
        if path == "/v1/notifications":
            headers = {
                "Authorization": f"Bearer {publisher_token()}",
                "Idempotency-Key": f'"{self.user}-{next(self._keys)}"',
            }
        async with asyncio.timeout(PATIENCE):
            while True:
                answer = await self._client.request(
                    method, node.url + path, headers=headers, **kwargs
                )
                if answer.status_code != 503:
                    break
                assert self.move, answer.text
                await asyncio.to_thread(self.move.step)
        assert answer.status_code in (200, 202), (path, answer.text)
        return answer.json()

    async def publish(self, ears: Iterable[Ear], **fields: Any) -> str:
        body = {"to": {"user": self.user}, "data": 1, **fields}
        sent: str = (await self.ask("POST", "/v1/notifications", json=body))["id"]
        for ear in ears:
            await ear.until(lambda ear: sent in ear.ids)
        return sent

    async def change(self, ears: Iterable[Ear], verb: str, unread: int, **which: Any) -> None:
        answer = await self.ask("POST", f"/v1/users/{self.user}/{verb}", json=which)
        assert answer["unread"] == unread
        told = (verb, which.get("until", which.get("ids")), unread)
        for ear in ears:
            await ear.until(lambda ear: told in ear.marks)

    async def shows(self, unread: int, kept: list[str]) -> None:
        """Wait until every node has this many unread, and this list."""
        path = f"/v1/users/{self.user}/notifications?archived=any"
        for _ in self._pair:
            async with asyncio.timeout(PATIENCE):
                while True:
                    page = await self.ask("GET", path, "push.publish")
                    found = [note["id"] for note in page["notifications"]]
                    if (page["unread"], found) == (unread, kept[::-1]):
                        break
                    await asyncio.sleep(0.05)  # for what expires


async def story(reader: Reader, begin: list[str], ears: list[Ear]) -> list[str]:
    """All that can happen to a mailbox in which ``begin`` is kept and read; what is kept then."""
    sent = [await reader.publish(ears) for _ in range(4)]
    await reader.change(ears, "read", 3, ids=[sent[0]])
    await reader.change(ears, "unread", 4, ids=[sent[0]])
    await reader.change(ears, "archive", 3, ids=[sent[1]])
    await reader.shows(3, [*begin, *sent])
    await reader.publish(ears, collapse_key="k")
    latest = await reader.publish(ears, collapse_key="k")
    kept = [*(each for each in begin if each != begin[-1]), *sent, latest]
    await reader.shows(4, kept)
    recalled = sent.pop(2)
    kept.remove(recalled)
    path = f"/v1/users/{reader.user}/notifications/{recalled}"
    await reader.ask("DELETE", path, "push.publish")
    for ear in ears:
        await ear.until(lambda ear: recalled in ear.withdrawn)
    await reader.shows(3, kept)
    settled = await reader.publish(ears, deliver="any-device")
    await reader.shows(4, [*kept, settled])
    await reader.ask("POST", "/v1/ack", json={"device": "phone", "id": settled})
    for ear in ears:
        await ear.until(lambda ear: ear.unread == 3)
    await reader.publish(ears, ttl=0.5)
    await reader.shows(3, kept)
    await reader.change(ears, "unarchive", 3, ids=[sent[1]])
    await reader.change(ears, "read", 0, until=latest)
    await reader.shows(0, kept)
    return kept


async def test_everything_is_told_and_counted_on_every_shard_and_while_a_slot_moves(
    tmp_path: Path, prefix: str
) -> None:
    with (
        Cluster(tmp_path, replicas=0) as cluster,
        nodes(
            2, cluster.url, tmp_path, prefix=prefix, rate_messages_per_second=1000, rate_burst=2000
        ) as pair,
    ):
        keys = Keys(prefix)
        by_primary: dict[int, str] = {}
        for number in itertools.count():
            if len(by_primary) == len(cluster.servers):
                break
            by_primary.setdefault(cluster.owner(keys.log(mailbox(f"u{number}"))), f"u{number}")

        async def read(client: httpx.AsyncClient, user: str) -> None:
            reader = Reader(client, pair, user)
            async with Phone(pair[0], user, "phone") as a, Phone(pair[1], user, "laptop") as b:
                ears = [Ear(a), Ear(b)]
                listening = [asyncio.create_task(ear.listen()) for ear in ears]
                try:
                    older = await reader.publish(ears, collapse_key="k")
                    await reader.change(ears, "read", 0, ids=[older])
                    kept = await story(reader, [older], ears)
                    slot = key_slot(keys.log(mailbox(user)).encode())
                    reader.move = await asyncio.to_thread(Move, cluster, slot)
                    kept = await story(reader, kept, ears)
                    assert reader.move.refused
                    while not reader.move.done:
                        await asyncio.to_thread(reader.move.step)
                    await story(reader, kept, ears)
                finally:
                    for task in listening:
                        task.cancel()
                    await asyncio.wait(listening)
            gone = await reader.ask("DELETE", f"/v1/users/{user}", "push.admin")
            assert gone["erased"] > 0
            await reader.shows(0, [])

        async with httpx.AsyncClient(timeout=PATIENCE) as client, asyncio.TaskGroup() as tasks:
            for user in by_primary.values():
                tasks.create_task(read(client, user))
