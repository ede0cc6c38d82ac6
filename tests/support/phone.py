"""A client on the socket, made of the ``websockets`` library: an independent peer."""

import asyncio
import json
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.support.nodes import Node, token

PATIENCE = 10.0


class Phone:
    """One device of one user.

    Args:
        node: where it connects.
        user: the user id.
        device: the device.
        kwargs: for ``websockets.connect``.
    """

    def __init__(
        self, node: Node, user: str = "u1", device: str = "phone", *,
        auth: str | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        self._address = f"{node.url.replace('http', 'ws', 1)}/v1/ws?device={quote(device)}"
        self._auth = auth if auth is not None else token(user)
        own = {} if node.tls is None else {"ssl": node.tls}
        self._kwargs = {"subprotocols": [Subprotocol("pushsvc.v1.json")], **own, **kwargs}
        self.socket: ClientConnection
        self.welcome: dict[str, Any]

    async def __aenter__(self) -> Self:
        self.socket = await connect(
            self._address,
            additional_headers={"Authorization": f"Bearer {self._auth}"},
            **self._kwargs,
        )
        self.welcome = await self.receive()
        assert self.welcome["type"] == "welcome"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.socket.close()

    async def receive(self) -> dict[str, Any]:
        """The next message."""
        async with asyncio.timeout(PATIENCE):
            message: dict[str, Any] = json.loads(await self.socket.recv())
        return message

    async def notification(self) -> dict[str, Any]:
        """The next message, which is a notification."""
        message = await self.receive()
        assert message["type"] == "notification", message
        return message

    async def notifications(self, count: int, *, ack: bool = False) -> list[dict[str, Any]]:
        notes = []
        for _ in range(count):
            notes.append(await self.notification())
            if ack:
                await self.ack(notes[-1]["id"])
        return notes

    async def send(self, **message: Any) -> None:
        await self.socket.send(json.dumps(message))

    async def ack(self, notification_id: str) -> None:
        await self.send(type="ack", id=notification_id)

    async def acked(self, notification_id: str) -> str:
        """Acknowledge, and wait until the cursor is written; the cursor."""
        await self.send(type="ack", id=notification_id, ref="a")
        reply = await self.receive()
        assert reply["type"] == "reply", reply
        cursor: str = reply["acked"]
        return cursor

    async def closed(self) -> int:
        """Wait for the close; its code."""
        async with asyncio.timeout(PATIENCE):
            try:
                while True:
                    await self.socket.recv()
            except ConnectionClosed as error:
                return error.rcvd.code if error.rcvd is not None else 1006

    async def silent(self, user_marker: str = "m") -> None:
        """Check that nothing waits to be received: a ping is answered before anything else."""
        await self.send(type="ping", ref=user_marker)
        message = await self.receive()
        assert message == {"type": "pong", "ref": user_marker}, message

    async def drop(self) -> None:
        """Cut the connection without a close."""
        self.socket.transport.abort()
        await self.socket.wait_closed()
