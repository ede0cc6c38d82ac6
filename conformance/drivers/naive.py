"""The client that is written in an afternoon, to show that the suite finds what is wrong with it.

It connects, tells what comes, and connects again when the connection ends. It acknowledges before
anything is handled, handles what comes twice, comes back at once whatever the server says, and
does not listen to close codes.
"""

import asyncio
import json
import sys
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol


def tell(event: str, **fields: Any) -> None:
    """Write one event."""
    print(json.dumps({"event": event, **fields}), flush=True)  # noqa: T201 - how drivers speak


async def handle(socket: ClientConnection, text: str | bytes) -> None:
    """Act on one message."""
    message = json.loads(text)
    match message:
        case {"type": "notification", "id": found}:
            await socket.send(json.dumps({"type": "ack", "id": found}))
            tell("notification", message=message)
        case {"type": "notification" | "gap" | "withdrawn" | "presence" as kind}:
            tell(kind, message=message)
        case {"type": "welcome"}:
            tell("state", status="connected")


async def run(command: dict[str, Any]) -> None:
    """Hold a connection, forever."""
    query = urlencode({"device": command["device"]})
    address = f"{command['url'].replace('http', 'ws', 1)}/v1/ws?{query}"
    while True:
        with suppress(OSError, WebSocketException):
            async with connect(
                address,
                subprotocols=[Subprotocol("pushsvc.v1.json")],
                additional_headers={"Authorization": f"Bearer {command.get('token', '')}"},
            ) as socket:
                async for text in socket:
                    await handle(socket, text)


async def main() -> None:
    """Read commands until the input ends."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tell("ready", client="naive", has=["status"])
    tasks: list[asyncio.Task[None]] = []
    async for line in reader:
        command = json.loads(line)
        if command["do"] == "connect":
            tasks.append(asyncio.create_task(run(command)))
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    asyncio.run(main())
