"""A shared document: ordered edits, live cursors, and a late joiner who ends up with the same text.

The document is a topic: the edits in it, in the order of the server, are the truth. Nobody applies
an edit before it came back from there, so when two people change the same line at once, everyone
sees the same outcome: the later of the two in the topic. Cursors are ephemeral. Whoever joins, or
was away, asks for what came after the last edit that they hold (``since``).

A document that lives long also needs a snapshot now and then: a topic keeps its newest entries
only, and says ``gap`` to whoever asks for older ones.

    python examples/document.py
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from common import connected, run, token_for
from pushsvc.client import Client, Gap, Notification


class Copy:
    """One person's copy of the document."""

    def __init__(self, name: str, topic: str) -> None:
        self.name = name
        self.topic = topic
        self.lines: list[str] = []
        self.edits: list[str] = []  # the ids of the edits in it
        self.cursors: dict[str, int] = {}
        self.changed = asyncio.Event()
        self.client: Client

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Catch up with the topic and keep up, until the end of the block."""
        token = await token_for(self.name, topics="doc.*")
        async with asyncio.TaskGroup() as tasks, connected(token) as self.client:
            tasks.create_task(self.follow())  # ends with the client
            since = self.edits[-1] if self.edits else "0-0"
            await self.client.subscribe(self.topic, since=since)
            yield

    async def follow(self) -> None:
        async for message in self.client:
            if isinstance(message, Gap) and message.topic == self.topic:
                raise RuntimeError("older edits are gone: this is where a snapshot is loaded")
            if not isinstance(message, Notification) or message.topic != self.topic:
                continue  # a broadcast, or for another part of an app
            if message.ephemeral:
                self.cursors[str(message.sender)] = message.data
            else:
                self.apply(message)
            self.changed.set()

    def apply(self, message: Notification) -> None:
        """Apply one edit: the same edits in the same order make the same lines."""
        line, text = message.data["line"], message.data["text"]
        if message.event == "insert":
            self.lines.insert(line, text)
        elif line < len(self.lines):
            self.lines[line] = text
        self.edits.append(str(message.id))
        print(f"  {self.name:>5} | {message.sender}: {message.event} line {line}: {text}")

    async def edit(self, event: str, line: int, text: str) -> str:
        """Propose an edit; its id, which is its place in the order."""
        data = {"line": line, "text": text}
        return str(await self.client.publish(self.topic, data, event=event))

    async def point(self, line: int) -> None:
        """Show the others where the cursor is; an editor would do so some times a second."""
        await self.client.publish(self.topic, line, ephemeral=True)

    async def holds(self, edit: str) -> None:
        """Wait until an edit is in this copy."""
        while edit not in self.edits:
            self.changed.clear()
            await self.changed.wait()

    async def sees(self, cursor_of: str) -> None:
        """Wait until the cursor of someone is known here."""
        while cursor_of not in self.cursors:
            self.changed.clear()
            await self.changed.wait()
        print(f"  {self.name:>5} | (the cursor of {cursor_of}: line {self.cursors[cursor_of]})")


async def main() -> None:
    """Anna and Ben write; Ben is away for a while; Carla joins late."""
    topic = f"doc.{secrets.token_hex(3)}"
    anna, ben, carla = (Copy(name, topic) for name in ("anna", "ben", "carla"))
    async with anna.open():
        async with ben.open():
            print("Anna and Ben write a list, and see each other's cursor:")
            await anna.edit("insert", 0, "Shopping")
            await anna.edit("insert", 1, "- milk")
            newest = await ben.edit("insert", 2, "- bread")
            await asyncio.gather(anna.holds(newest), ben.holds(newest))
            await ben.point(2)
            await anna.sees("ben")

            print("Both change line 1 at once; the later one in the topic wins, for both:")
            both = await asyncio.gather(
                anna.edit("replace", 1, "- oat milk"),
                ben.edit("replace", 1, "- two litres of milk"),
            )
            await asyncio.gather(*(copy.holds(edit) for copy in (anna, ben) for edit in both))

        print("Ben is away, and Anna goes on:")
        newest = await anna.edit("insert", 1, "- coffee")
        await anna.holds(newest)

        print("Ben comes back and gets what he missed; Carla joins and gets everything:")
        async with ben.open(), carla.open():
            await asyncio.gather(ben.holds(newest), carla.holds(newest))

    print("In the end all have the same:")
    for copy in (anna, ben, carla):
        print(f"  {copy.name:>5} | {' / '.join(copy.lines)}")
    if not anna.lines == ben.lines == carla.lines:
        raise SystemExit("they differ: this must never happen")


if __name__ == "__main__":
    run(main())
