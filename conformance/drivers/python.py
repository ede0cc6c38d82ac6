"""Puts ``pushsvc.client`` under the suite's commands."""

import asyncio
import json
import random
import sys
from collections import deque
from contextlib import aclosing, suppress
from typing import Any, Final

from pushsvc.client import (
    Client,
    Gap,
    Inbox,
    Marked,
    Message,
    Notification,
    Presence,
    Problem,
    PushError,
    State,
    Timing,
    Withdrawn,
    connect,
)

REMEMBERED: Final = 1000
"""Notifications that a later command may acknowledge."""


def tell(event: str, **fields: Any) -> None:
    """Write one event."""
    print(json.dumps({"event": event, **fields}), flush=True)  # noqa: T201 - how drivers speak


def code_of(error: BaseException) -> Any:
    """The close code or the status of an error, else its name."""
    return getattr(error, "status", None) or getattr(error, "code", type(error).__name__)


def tell_state(state: State) -> None:
    """Write what the client does now."""
    error = state.error
    about = {} if error is None else {"error": {"code": code_of(error), "detail": str(error)}}
    tell("state", status=state.status, **about)


class Driver:
    """One client, and what the suite asked of it.

    Args:
        command: the ``connect`` command.
        tasks: where what runs beside the commands lives.
    """

    def __init__(self, command: dict[str, Any], tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        self._held = command.get("handler") == "held"
        self._in_hand: str | None = None
        self._handled: asyncio.Queue[bool] = asyncio.Queue()
        self._listening: asyncio.Task[None]
        self._tokens: asyncio.Queue[str | None] = asyncio.Queue()
        self._recent: deque[Notification] = deque(maxlen=REMEMBERED)
        self._inbox: Inbox
        timing = {name: ms / 1000 for name, ms in command["timing"].items()}
        if (chance := command.get("random")) is not None:
            random.random = lambda: chance
        self._client: Client = connect(
            command["url"],
            token=self._provide if command.get("provider") else command["token"],
            device=command["device"],
            topics=command.get("topics", {}),
            ack=command.get("ack", "auto"),
            queue=command.get("queue", 100),
            timing=Timing(
                timing["first"],
                timing["max"],
                timing["uptime"],
                timing["open"],
                timing["answer"],
            ),
            on_state=tell_state,
        )

    async def start(self) -> None:
        """Connect."""
        await self._client.__aenter__()
        self._listening = self._tasks.create_task(self._listen())

    async def close(self) -> None:
        """Close the client."""
        await self._client.close()

    async def end(self) -> None:
        """Close the client, whatever a handler waits for."""
        await self.close()
        self._listening.cancel()

    def perform(self, command: dict[str, Any]) -> None:
        """Act on a command; what takes time goes on beside the next ones."""
        match command["do"]:
            case "handled":
                if command.get("id") in (None, self._in_hand):
                    self._handled.put_nowait(not command.get("fail", False))
            case "token":
                self._tokens.put_nowait(None if command.get("fail") else command["token"])
            case "ack":
                self._tasks.create_task(self._ack(command))
            case "inbox":
                self._inbox = self._client.inbox(
                    page_size=command.get("page", 20),
                    event=command.get("event"),
                    archived=command.get("archived", False),
                )
                self._tasks.create_task(self._show())
            case "close":
                self._tasks.create_task(self.close())
            case _:
                self._tasks.create_task(self._call(command))

    async def _provide(self, refused: bool) -> str:  # noqa: FBT001 - as the client calls it
        tell("token", refused=refused)
        token = await self._tokens.get()
        if token is None:
            raise RuntimeError("the scenario gives no token")
        return token

    async def _listen(self) -> None:
        """Iterate; a failed handler leaves the loop, as an error in its body would."""
        try:
            while await self._loop():
                tell("error", code="handler", detail="the scenario lets the handler fail")
        except PushError:
            pass  # the state told it

    async def _loop(self) -> bool:
        """Iterate until the client is closed; true when a handler failed."""
        async with aclosing(aiter(self._client)) as messages:
            async for message in messages:
                if not await self._handle(message):
                    return True
        return False

    async def _handle(self, message: Message) -> bool:
        """Tell a message; whether its handler went well."""
        match message:
            case Notification():
                self._recent.append(message)
                tell("notification", message=message.raw)
                if self._held:
                    self._in_hand = message.id
                    good = await self._handled.get()
                    self._in_hand = None
                    return good
            case Gap():
                tell("gap", message=message.raw)
            case Withdrawn():
                tell("withdrawn", message=message.raw)
            case Presence():
                tell("presence", message=message.raw)
            case Marked():
                pass  # the inbox shows it
            case Problem():
                tell("error", code=message.code, detail=message.detail, topic=message.topic)
        return True

    async def _show(self) -> None:
        """Tell what the inbox shows, as it changes."""
        with suppress(PushError):  # the state told it
            async for now in self._inbox:
                items = [
                    {"id": item.id, "read": item.read, "archived": item.archived}
                    for item in now.items
                ]
                error = {} if now.error is None else {"error": {"code": code_of(now.error)}}
                tell(
                    "inbox", items=items, unread=now.unread, state=now.state, more=now.more, **error
                )

    async def _ack(self, command: dict[str, Any]) -> None:
        broadcast = command.get("broadcast", False)
        for notification in reversed(self._recent):
            if notification.id == command["id"] and notification.broadcast is broadcast:
                await notification.ack()
                return

    async def _call(self, command: dict[str, Any]) -> None:
        """Ask the server something, and tell the answer."""
        call, topic = command.get("call"), command.get("topic", "")
        value: Any = {}
        try:
            match command["do"]:
                case "subscribe":
                    last = await self._client.subscribe(topic, since=command.get("since"))
                    value = {"last": last}
                case "unsubscribe":
                    await self._client.unsubscribe(topic)
                case "publish":
                    fields = command.get("fields", {})
                    value = {"id": await self._client.publish(topic, command["data"], **fields)}
                case "presence":
                    users, count = await self._client.presence(topic)
                    value = {"users": users, "count": count}
                case "read" | "unread" | "archive" | "unarchive" as kind:
                    mark = getattr(self._inbox, kind)
                    await mark(command.get("ids", ()), until=command.get("until"))
                case "read_all":
                    await self._inbox.read_all()
                case "more":
                    await self._inbox.load_more()
        except PushError as error:
            tell("failed", call=call, code=code_of(error), detail=str(error))
        else:
            tell("result", call=call, value=value)


async def main() -> None:
    """Read commands until the input ends."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tell("ready", client="pushsvc (Python)", has=["inbox", "random", "status"])
    driver: Driver | None = None
    async with asyncio.TaskGroup() as tasks:
        async for line in reader:
            command = json.loads(line)
            if driver is None:
                driver = Driver(command, tasks)
                await driver.start()
            else:
                driver.perform(command)
        if driver is not None:
            await driver.end()


if __name__ == "__main__":
    asyncio.run(main())
