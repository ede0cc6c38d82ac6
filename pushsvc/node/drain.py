"""Draining: asking clients to go elsewhere, a few at a time."""

import asyncio
import math
import random
import time
from collections.abc import Iterator
from typing import Final, Protocol, TypeVar

from pushsvc.codes import Close
from pushsvc.protocol import messages

STEP: Final = 0.1
"""Seconds between two batches."""
Item = TypeVar("Item")


class Drained(Protocol):
    """Who is asked to go."""

    def send(self, payload: bytes) -> None:
        """Send one message."""

    def end(self, code: Close) -> None:
        """Close the connection."""


def batches(items: list[Item], seconds: float) -> Iterator[list[Item]]:
    """Cut items into batches of even size, one for each ``STEP`` of the given time."""
    size = max(1, math.ceil(len(items) / max(1, math.floor(seconds / STEP))))
    for first in range(0, len(items), size):
        yield items[first : first + size]


async def drain(connections: list[Drained], seconds: float) -> None:
    """Close connections with 4001, spread evenly over a time.

    Args:
        connections: those to close.
        seconds: how long to take. Clients are told to come back at once, within a second at
            random: the spreading is done here.
    """
    started = time.monotonic()
    for number, batch in enumerate(batches(connections, seconds)):
        await asyncio.sleep(max(0.0, started + number * STEP - time.monotonic()))
        for connection in batch:
            connection.send(messages.reconnect(random.random()))  # noqa: S311 - not a secret
            connection.end(Close.DRAINING)
