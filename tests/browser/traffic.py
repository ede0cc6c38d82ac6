"""Devices and a backend that keep nodes busy while a page looks on."""

import contextlib
import itertools
import json
import math
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.support.nodes import Node, publisher_token, token, wait_until


class Device:
    """A device of a user: a socket, in a thread of its own, that acknowledges what it is sent.

    Args:
        node: where it connects.
        user: the user id.
        device: its name.
        acks: whether it acknowledges.
    """

    def __init__(self, node: Node, user: str, device: str = "phone", *, acks: bool = True) -> None:
        self._address = f"ws://127.0.0.1:{node.port}/v1/ws?device={device}"
        self._headers = {"Authorization": f"Bearer {token(user)}"}
        self._acks = acks
        self._thread = threading.Thread(target=self._run, name=f"{user}'s {device}")
        self._welcomed = threading.Event()
        self._socket: ClientConnection
        self.received: list[Any] = []
        self.close_code: int | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._welcomed.wait(10), "the device is not connected"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()
        self._thread.join()

    def wait_for(self, data: Any) -> None:
        """Wait until it was sent something."""
        wait_until(lambda: data in self.received, f"{data!r} to arrive")

    def _run(self) -> None:
        with (
            connect(
                self._address,
                additional_headers=self._headers,
                subprotocols=[Subprotocol("pushsvc.v1.json")],
            ) as self._socket,
            contextlib.suppress(ConnectionClosed),
        ):
            for text in self._socket:
                self._take(json.loads(text))
        self.close_code = self._socket.close_code

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "welcome":
            self._welcomed.set()
        if message["type"] != "notification":
            return
        self.received.append(message["data"])
        if self._acks:
            ack = {"type": "ack", "id": message["id"], "broadcast": message.get("broadcast", False)}
            self._socket.send(json.dumps(ack))


class Traffic:
    """A backend that publishes to users, more and less as the day goes, in a thread of its own.

    Args:
        node: where to.
        users: who gets something, each in turn.
        rate: notifications per second, on average.
        day: seconds from one peak to the next.
    """

    def __init__(self, node: Node, users: Sequence[str], rate: float, day: float = 20) -> None:
        self._node = node
        self._users = users
        self._rate = rate
        self._day = day
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        headers = {"Authorization": f"Bearer {publisher_token()}"}
        with httpx.Client(base_url=self._node.url, headers=headers) as client:
            for number in itertools.count():
                rate = self._rate * (1 + 0.6 * math.sin(2 * math.pi * time.time() / self._day))
                if self._ending.wait(1 / rate):
                    break
                notification = {
                    "to": {"user": self._users[number % len(self._users)]},
                    "event": "order.shipped",
                    "data": {"order": 1000 + number, "carrier": "DHL"},
                }
                client.post("/v1/notifications", json=notification).raise_for_status()
