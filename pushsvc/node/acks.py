"""Acknowledgements on their way to Redis: one write a device while an earlier one is under way."""

import asyncio
from itertools import islice
from typing import Any, Final, Protocol

from pushsvc.errors import PushError, Unavailable
from pushsvc.feeds.feed import Feeds
from pushsvc.protocol import messages
from pushsvc.protocol.ids import parse, render
from pushsvc.protocol.messages import Ref

SLICE: Final = 512
"""Most positions that are written at once."""
MOST_ASKED: Final = 10_000
"""Most acknowledgements that wait to be answered; further ones are written, and not answered."""

_Device = tuple[str, str]
"""A feed and one of its devices."""


class Asker(Protocol):
    """Who waits for the answer to an acknowledgement."""

    def send(self, payload: bytes) -> None:
        """Send one message."""


class Acks:
    """The positions that are not written down yet."""

    def __init__(self, feeds: Feeds) -> None:
        self._feeds = feeds
        self._dirty: dict[_Device, int] = {}
        self._asked: list[tuple[_Device, int, Asker, Ref]] = []
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    def add(self, feed: str, device: str, entry_id: int, who: Asker, ref: Ref) -> None:
        """Write a device's position down; answer ``ref`` when that is done."""
        key = (feed, device)
        self._dirty[key] = max(self._dirty.get(key, 0), entry_id)
        if ref is not None and len(self._asked) < MOST_ASKED:
            self._asked.append((key, entry_id, who, ref))
        if not self._failing:
            self.flush()

    def flush(self) -> None:
        """Write what is not written; what fails waits for the next call."""
        if self._dirty and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def aclose(self) -> None:
        """Wait until everything is written, or could not be."""
        if self._task is not None:
            await self._task
        self.flush()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        self._failing = False
        try:
            while self._dirty and not self._failing:
                slice_ = {key: self._dirty.pop(key) for key in list(islice(self._dirty, SLICE))}
                try:
                    results = await self._feeds.ack(
                        (feed, device, entry_id) for (feed, device), entry_id in slice_.items()
                    )
                except Unavailable as error:
                    results = [error] * len(slice_)
                self._settle(slice_, results)
        finally:
            self._task = None

    def _settle(self, written: dict[_Device, int], results: list[Any]) -> None:
        answers = dict(zip(written, results, strict=True))
        for key, result in answers.items():
            if isinstance(result, PushError):
                self._failing = True
                self._dirty[key] = max(self._dirty.get(key, 0), written[key])
        waiting = []
        for asked in self._asked:
            key, entry_id, who, ref = asked
            position = answers.get(key)
            # An acknowledgement of more, which came meanwhile, waits for its own write.
            if isinstance(position, bytes) and (
                parse(position) >= entry_id or key not in self._dirty
            ):
                who.send(messages.reply(ref, acked=render(parse(position))))
            else:
                waiting.append(asked)
        self._asked = waiting
