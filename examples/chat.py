"""Chat rooms: messages, who is typing, who has read what, and who is here.

One topic is one room. What is said is kept, and replayed to whoever joins later (``since``).
That someone is typing is ephemeral: nobody needs to hear of it later. How far someone has read is
a message with a ``collapse_key``: it replaces the one before, so that a room keeps one for each.

    python examples/chat.py               # a short conversation of two users
    python examples/chat.py --user anna   # you: type lines; Enter alone says that you are typing
    python examples/chat.py --user ben    # and somebody else, in another terminal
"""

import argparse
import asyncio
import os
import secrets
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from common import connected, run, token_for
from pushsvc.client import Client, Notification, Presence, Problem


class Member:
    """One user in one room, and the screen that this user looks at."""

    def __init__(self, name: str, room: str, client: Client) -> None:
        self.name = name
        self.topic = f"chat.{room}"
        self.client = client
        self.people: set[str] = set()
        self.typing: set[str] = set()
        self.texts: dict[str, str] = {}
        self.newest = ""

    def show(self, line: str) -> None:
        print(f"{self.name:>5} | {line}", flush=True)

    async def join(self) -> None:
        await self.client.subscribe(self.topic, since="0-0")
        users, _ = await self.client.presence(self.topic)
        self.people = set(users)
        self.show(f"-- here: {', '.join(users)}")

    async def say(self, text: str) -> None:
        await self.client.publish(self.topic, text, event="said")

    async def type(self) -> None:
        await self.client.publish(self.topic, {}, event="typing", ephemeral=True)

    async def watch(self) -> None:
        """Show what happens in the room."""
        async for message in self.client:
            if isinstance(message, Problem):
                self.show(f"-- {message.detail}")
            elif isinstance(message, Presence):
                self.come_and_go(message)
            elif isinstance(message, Notification) and message.topic == self.topic:
                self.happened(message)  # others are for another part of an app

    def come_and_go(self, message: Presence) -> None:
        # An announcement may repeat what the answer in `join` said already.
        for name in set(message.joined) - self.people:
            self.show(f"-- {name} joined")
        for name in self.people & set(message.left):
            self.typing.discard(name)
            self.show(f"-- {name} left")
        self.people = (self.people | set(message.joined)) - set(message.left)

    def happened(self, message: Notification) -> None:
        who = message.sender or "backend"
        if message.event == "said":
            # One's own words are shown when they come back: all see them in the same order.
            self.typing.discard(who)
            self.show(f"{who}: {message.data}")
            self.texts[str(message.id)] = message.data
            if who != self.name:
                self.newest = str(message.id)
        elif who == self.name:
            pass  # one knows what one types and reads
        elif message.event == "typing":
            if who not in self.typing:  # one line, until the words come
                self.typing.add(who)
                self.show(f"   ({who} is typing)")
        elif message.event == "read":
            text = self.texts.get(message.data, "something older")
            self.show(f"   ({who} has read: {text})")

    async def tell_what_is_read(self) -> None:
        """Now and then, and only the newest: everything before it is read too."""
        told = ""
        while True:
            await asyncio.sleep(0.3)
            if self.newest != told:
                told = self.newest
                key = f"read:{self.name}"
                await self.client.publish(self.topic, told, event="read", collapse_key=key)


@asynccontextmanager
async def joined(name: str, room: str) -> AsyncIterator[Member]:
    """A user in a room, until the end of the block."""
    token = await token_for(name, topics="chat.*")
    async with asyncio.TaskGroup() as tasks, connected(token) as client:
        member = Member(name, room, client)
        await member.join()
        tasks.create_task(member.watch())  # ends with the client
        telling = tasks.create_task(member.tell_what_is_read())
        yield member
        telling.cancel()


async def conversation(room: str) -> None:
    """Anna and Ben talk; shown is what each of them sees."""
    async with joined("anna", room) as anna:
        async with joined("ben", room) as ben:
            await asyncio.sleep(1)
            await ben.type()
            await asyncio.sleep(0.5)
            await ben.say("Hello Anna!")
            await asyncio.sleep(1)
            await anna.type()
            await asyncio.sleep(0.5)
            await anna.say("Hi Ben. See you at eight?")
            await asyncio.sleep(1)
            await ben.say("Yes! I have to run.")
            await asyncio.sleep(1)
        while "ben" in anna.people:  # a moment: who comes straight back was never away
            await asyncio.sleep(0.1)


async def typed() -> asyncio.StreamReader:
    """The lines of standard input, whatever it is."""
    lines = asyncio.StreamReader()
    mode = os.fstat(sys.stdin.fileno()).st_mode
    if sys.stdin.isatty() or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    else:  # a file, or /dev/null: an event loop cannot wait for these, and need not
        lines.feed_data(sys.stdin.buffer.read())
        lines.feed_eof()
    return lines


async def interactive(name: str, room: str) -> None:
    """Say what is typed."""
    lines = await typed()
    async with joined(name, room) as member:
        async for line in lines:
            text = line.decode().strip()
            await (member.say(text) if text else member.type())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--user", help="your name; without it, two users talk by themselves")
    parser.add_argument("--room", default="lobby", help="default: lobby")
    given = parser.parse_args()
    if given.user:
        run(interactive(given.user, given.room))
    else:
        run(conversation(f"demo-{secrets.token_hex(3)}"))
