"""What the examples share: where the node is, tokens, and a client of a few lines.

In production your own backend makes the tokens; here ``pushsvc dev`` does, for whoever asks.
A real client also reconnects when its connection ends, and goes on after the last id that it saw.
"""

import asyncio
import errno
import itertools
import json
import os
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

NODE = os.environ.get("PUSH_URL", "http://127.0.0.1:8080")
ADMIN = os.environ.get("PUSH_ADMIN_URL", "http://127.0.0.1:9090")

Message = dict[str, Any]


class Refused(Exception):
    """The node did not do what it was asked, and says why."""


async def post(url: str, body: Message, token: str = "") -> Message:
    """POST JSON, as a backend does; the answer."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    request = Request(url, json.dumps(body).encode(), headers)

    def send() -> Message:
        try:
            with urlopen(request, timeout=10) as answer:
                found: Message = json.load(answer)
                return found
        except HTTPError as error:
            raise Refused(f"{url}: {error.read().decode().strip()}") from None

    return await asyncio.to_thread(send)


async def token_for(user: str, *, topics: str = "", scope: str = "") -> str:
    """A token for a user: for the topics of a pattern, or with a scope."""
    wanted: Message = {"user": user, "scopes": scope.split()}
    if topics:
        wanted["topics"] = {"subscribe": [topics], "publish": [topics]}
    return str((await post(f"{ADMIN}/dev/token", wanted))["token"])


class Client:
    """One connection: ``tell`` and ``ask`` the node, and iterate over what it sends by itself."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._refs = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Message]] = {}
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue()

    async def tell(self, kind: str, **fields: Any) -> None:
        """Send a message that needs no answer."""
        await self._socket.send(json.dumps({"type": kind, **fields}))

    async def ask(self, kind: str, **fields: Any) -> Message:
        """Send a message with a ``ref``; the reply that carries the same one."""
        ref = next(self._refs)
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._answers[ref] = answer
        await self.tell(kind, ref=ref, **fields)
        return await answer

    async def __aiter__(self) -> AsyncIterator[Message]:
        while (message := await self._messages.get()) is not None:
            yield message
            # Whoever asks for the next one is done with this one.
            if message["type"] == "notification" and "id" in message and "topic" not in message:
                await self._ack(message)

    async def _ack(self, message: Message) -> None:
        """Have a notification of the mailbox or of the broadcast not sent again."""
        where = {"broadcast": True} if "broadcast" in message else {}
        with suppress(ConnectionClosed):  # then it comes again
            await self.tell("ack", id=message["id"], **where)

    async def read(self) -> None:
        """Sort what comes into answers and messages, until the connection ends."""
        try:
            async for text in self._socket:
                message: Message = json.loads(text)
                answer = self._answers.pop(message.get("ref", 0), None)
                if answer is None:
                    self._messages.put_nowait(message)
                elif message["type"] == "error":
                    answer.set_exception(Refused(message["detail"]))
                else:
                    answer.set_result(message)
        finally:
            self._messages.put_nowait(None)


@asynccontextmanager
async def connected(token: str, device: str = "example") -> AsyncIterator[Client]:
    """A connection to the node, until the end of the block."""
    url = f"{NODE.replace('http', 'ws', 1)}/v1/ws?device={device}"
    headers = {"Authorization": f"Bearer {token}"}
    protocols = [Subprotocol("pushsvc.v1.json")]
    async with (
        asyncio.TaskGroup() as tasks,
        connect(url, subprotocols=protocols, additional_headers=headers) as socket,
    ):
        await socket.recv()  # "welcome" is always the first message
        client = Client(socket)
        tasks.create_task(client.read())  # ends with the connection
        yield client


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run an example until it ends or Ctrl-C."""
    try:
        asyncio.run(main)
    except KeyboardInterrupt:
        pass
    except Exception as error:
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]  # the others follow from it
        if (line := _explained(error)) is None:
            raise
        sys.exit(line)


def _explained(error: Exception) -> str | None:
    """What went wrong, in one line; None where only a traceback tells."""
    if isinstance(error, Refused):
        return f"the node refused: {error}"
    if isinstance(error, InvalidStatus):
        return f"the node refused the connection: {_reason(error)}"
    if isinstance(error, ConnectionClosed):
        return f"the connection ended: {error.rcvd or error}"
    if isinstance(error, WebSocketException):
        return f"{NODE} is no node: {error}"
    if isinstance(error, OSError):
        cause = getattr(error, "reason", error)  # of what urllib wraps
        if getattr(cause, "errno", None) == errno.EMFILE:
            return "too many open files: allow more with `ulimit -n 65536`, or take fewer sockets"
        return f"the node cannot be reached ({error}): start one with `make run`"
    return None


def _reason(error: InvalidStatus) -> str:
    status = error.response.status_code
    try:
        return f"{status}: {json.loads(error.response.body)['detail']}"
    except (ValueError, KeyError, TypeError):
        return str(status)


def at_least_one(text: str) -> int:
    """A count on the command line."""
    if (number := int(text)) < 1:
        raise ValueError
    return number
