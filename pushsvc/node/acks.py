"""Acknowledgements on their way to Redis: one write a device while an earlier one is under way."""

import asyncio
from typing import Any, Protocol

from pushsvc.errors import PushError, Unavailable
from pushsvc.feeds.feed import Feeds
from pushsvc.protocol import messages
from pushsvc.protocol.ids import parse, render
from pushsvc.protocol.messages import Ref


class Replies(Protocol):
    """Who waits for the answer to an acknowledgement."""

    def send(self, payload: bytes) -> None:
        """Send one message."""


class Acks:
    """The positions that are not written down yet."""

    def __init__(self, feeds: Feeds) -> None:
        self._feeds = feeds
        self._dirty: dict[tuple[str, str], int] = {}
        self._asked: list[tuple[tuple[str, str], Replies, Ref]] = []
        self._task: asyncio.Task[None] | None = None

    def add(self, feed: str, device: str, entry_id: int, who: Replies, ref: Ref) -> None:
        """Write a device's position down; answer ``ref`` when that is done."""
        key = (feed, device)
        self._dirty[key] = max(self._dirty.get(key, 0), entry_id)
        if ref is not None:
            self._asked.append((key, who, ref))
        self.flush()

    def flush(self) -> None:
        """Write what could not be written before."""
        if self._dirty and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def aclose(self) -> None:
        """Wait until everything is written, or cannot be."""
        self.flush()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        try:
            while self._dirty:
                dirty, self._dirty = self._dirty, {}
                asked, self._asked = self._asked, []
                try:
                    results = await self._feeds.ack(
                        (feed, device, entry_id) for (feed, device), entry_id in dirty.items()
                    )
                except Unavailable:
                    self._keep(dirty, asked)
                    return
                self._settle(dirty, asked, results)
        finally:
            self._task = None

    def _settle(
        self,
        dirty: dict[tuple[str, str], int],
        asked: list[tuple[tuple[str, str], Replies, Ref]],
        results: list[Any],
    ) -> None:
        written = dict(zip(dirty, results, strict=True))
        refused = {key: dirty[key] for key, r in written.items() if isinstance(r, PushError)}
        self._keep(refused, [item for item in asked if item[0] in refused])
        for key, who, ref in asked:
            if key not in refused:
                who.send(messages.reply(ref, acked=render(parse(written[key]))))

    def _keep(
        self,
        dirty: dict[tuple[str, str], int],
        asked: list[tuple[tuple[str, str], Replies, Ref]],
    ) -> None:
        for key, entry_id in dirty.items():
            self._dirty[key] = max(self._dirty.get(key, 0), entry_id)
        self._asked = asked + self._asked
