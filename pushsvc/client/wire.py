"""A WebSocket as a client needs it: not redirected, and given up when the service is silent."""

import asyncio
from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

SILENCE: Final = 20.0
"""Seconds in which nothing comes after which the service is asked for life, and has to answer; also
what it has to take what is sent."""


class open_socket(connect):  # noqa: N801 - it stands for a function
    """A WebSocket that is where it was asked for: a token is not carried elsewhere."""

    def process_redirect(self, exc: Exception) -> Exception:
        """Do not follow: a redirect is a refusal."""
        return exc


async def receive(socket: ClientConnection) -> str | bytes:
    """The next message.

    Raises:
        ConnectionClosed: there is none.
        TimeoutError: nothing comes, not even the answer to a ping.
    """
    asked: asyncio.Future[float] | None = None
    while True:
        try:
            async with asyncio.timeout(SILENCE):
                return await socket.recv()
        except TimeoutError:
            if asked is not None and not asked.done():
                raise
        asked = asyncio.ensure_future(await socket.ping())


async def send(socket: ClientConnection, text: str) -> None:
    """Send a message; a connection that does not take it is given up, and ``receive`` tells."""
    try:
        async with asyncio.timeout(SILENCE):
            await socket.send(text)
    except ConnectionClosed:
        pass
    except TimeoutError:
        socket.transport.abort()
