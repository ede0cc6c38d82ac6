"""What is read in one place is seen in all: three connections of a user, each by another transport.

Two nodes, one of which is killed in between; each connection has what the others have in the end.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from pushsvc.client import AsyncPublisher, Inbox, Timing, connect
from pushsvc.server.embedded import EmbeddedServer
from tests.support.nodes import Node, nodes, publisher_token, token

pytestmark = pytest.mark.promise

PATIENCE = 30.0
USER = "u1"
KINDS = ("read", "unread", "archive", "unarchive")
SOON = Timing(first=0.05, longest=0.2, uptime=0.5)
Message = dict[str, Any]


class Told:
    """What one connection was told."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.marks: list[Message] = []
        self.unread = -1
        self._came = asyncio.Event()

    def hear(self, message: Message) -> None:
        if message["type"] in KINDS:
            self.marks.append({n: message[n] for n in ("type", "ids", "until") if n in message})
        self.unread = message.get("unread", self.unread)
        self._came.set()

    async def until(self, wanted: Callable[["Told"], bool], what: str) -> None:
        """Wait until what it was told is as it should be."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not wanted(self):
                    self._came.clear()
                    await self._came.wait()
        except TimeoutError:
            pytest.fail(f"{self.name}: waited for {what}; told {self.marks}, {self.unread} unread")


@asynccontextmanager
async def running(work: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()


def headers() -> dict[str, str]:
    return {"Authorization": f"Bearer {token(USER)}"}


async def stream(node: Node, told: Told) -> None:
    """Server-sent events, as they come."""
    async with (
        httpx.AsyncClient(timeout=None, headers=headers()) as client,
        client.stream("GET", f"{node.url}/v1/stream?device=tablet") as answer,
    ):
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                told.hear(json.loads(line.removeprefix("data: ")))


async def poll(node: Node, told: Told) -> None:
    """One poll after the other, each behind the last."""
    position: dict[str, str] = {}
    async with httpx.AsyncClient(timeout=None, headers=headers()) as client:
        while True:
            query = {"device": "watch", "wait": "10", **position}
            answer = (await client.get(f"{node.url}/v1/poll", params=query)).json()
            position = {"after": answer["position"]}
            for message in answer["messages"]:
                told.hear(message)
            told.hear({"type": "poll", "unread": answer["unread"]})


async def shows(inbox: Inbox, unread: int, data: list[int], read: list[int]) -> None:
    """Wait until an inbox shows this."""
    try:
        async with asyncio.timeout(PATIENCE):
            async for now in inbox:
                shown = [item.data for item in now.items]
                seen = [item.data for item in now.items if item.read]
                if (now.unread, shown, seen) == (unread, data, read):
                    return
    except TimeoutError:
        pytest.fail(f"the inbox shows {inbox.snapshot()}")


async def mark(node: Node, kind: str, which: Message) -> int:
    """Mark by HTTP, as the user; how many are unread."""
    async with httpx.AsyncClient(timeout=PATIENCE, headers=headers()) as client:
        answer = await client.post(f"{node.url}/v1/user/{kind}", json=which)
    assert answer.status_code == 200, answer.text
    unread: int = answer.json()["unread"]
    return unread


async def listed(node: Node) -> tuple[int, list[int]]:
    """How many are unread, and what is in the list."""
    async with httpx.AsyncClient(timeout=PATIENCE, headers=headers()) as client:
        page = (await client.get(f"{node.url}/v1/user/notifications?inbox=true")).json()
    return page["unread"], [each["data"] for each in page["notifications"]]


async def test_read_in_one_is_seen_in_all_though_a_node_is_killed(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    by_stream, by_poll = Told("the stream"), Told("the poll")
    with nodes(2, valkey.url, tmp_path, prefix=prefix, lease_seconds=2) as (mortal, other):
        async with (
            AsyncPublisher(other.url, token=publisher_token()) as backend,
            connect(mortal.url, token=token(USER), device="phone", timing=SOON) as client,
            running(stream(other, by_stream)),
            running(poll(other, by_poll)),
        ):
            inbox = client.inbox()
            ids = [(await backend.publish(user=USER, data=number)).id or "" for number in range(6)]
            await shows(inbox, 6, [5, 4, 3, 2, 1, 0], [])
            await by_poll.until(lambda told: told.unread == 6, "the count")

            await inbox.read(ids[0])
            for told in (by_stream, by_poll):
                await told.until(lambda told: told.unread == 5, "what the socket has read")
            assert await mark(other, "archive", {"ids": [ids[5]]}) == 4
            await shows(inbox, 4, [4, 3, 2, 1, 0], [0])
            for told in (by_stream, by_poll):
                await told.until(lambda told: told.unread == 4, "what was archived by HTTP")

            await asyncio.to_thread(mortal.kill)
            reading = asyncio.create_task(inbox.read(until=ids[2]))  # as soon as there is a way
            assert await mark(other, "unread", {"ids": [ids[0]]}) == 5
            last = await backend.publish(user=USER, data=6)
            for told in (by_stream, by_poll):
                await told.until(lambda told: told.marks[-1]["type"] == "unread", "what is unread")
            await by_poll.until(lambda told: told.unread == 6, "the count with the new one")
            await asyncio.to_thread(mortal.start)
            await asyncio.wait_for(reading, PATIENCE)
            for told in (by_stream, by_poll):
                await told.until(lambda told: told.unread == 3, "what was read up to the third")
            await shows(inbox, 3, [6, 4, 3, 2, 1, 0], [2, 1, 0])
            for node in (mortal, other):
                assert await listed(node) == (3, [6, 4, 3, 2, 1, 0])

            await inbox.read_all()
            for told in (by_stream, by_poll):
                await told.until(lambda told: told.unread == 0, "all to be read")
            assert by_stream.marks == [
                {"type": "read", "ids": [ids[0]]},
                {"type": "archive", "ids": [ids[5]]},
                {"type": "unread", "ids": [ids[0]]},
                {"type": "read", "until": ids[2]},
                {"type": "read", "until": last.id},
            ]
            for node in (mortal, other):
                assert await listed(node) == (0, [6, 4, 3, 2, 1, 0])
