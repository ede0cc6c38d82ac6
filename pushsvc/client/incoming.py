"""What came and waits for the program, and the loop in which the program takes it."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final

from pushsvc.client.messages import Message, Notification

BUFFER: Final = 1024
"""Messages that wait for the program; then no more are to be put."""
READ_AHEAD: Final = BUFFER
"""Further ones that may be put where something is awaited that stands behind them."""


class Incoming:
    """Between the connection, which puts, and the program's loop, which takes.

    Args:
        auto_ack: whether a notification is done when the loop asks for the next one.
        done: called with one that is.
        idle: called when nothing waits: now is the time for what was put off.
    """

    def __init__(
        self,
        *,
        auto_ack: bool,
        done: Callable[[Notification], Awaitable[None]],
        idle: Callable[[], Awaitable[None]],
    ) -> None:
        self._auto_ack = auto_ack
        self._done = done
        self._idle = idle
        self._items: deque[Message] = deque()
        self._in_hand: Notification | None = None
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self.over = False
        """Whether nothing will be put any more."""
        self.error: Exception | None = None
        """Why, if not because it was closed."""

    def has_room(self, *, read_ahead: bool) -> bool:
        """Whether one more may be put.

        Args:
            read_ahead: whether something is awaited that stands behind what comes.
        """
        return len(self._items) < BUFFER + READ_AHEAD * read_ahead

    async def taken(self) -> None:
        """Wait until the program took something, or ``hurry`` was called."""
        self._room.clear()
        await self._room.wait()

    def hurry(self) -> None:
        """Let whoever waits for the program look again."""
        self._room.set()

    def put(self, item: Message) -> None:
        """Hand something to the loop."""
        self._items.append(item)
        self._arrived.set()

    def withdraw(self, notification_id: str) -> None:
        """Do not hand out what still waits here. Only those of the mailbox are withdrawn."""
        for item in self._items:
            mine = isinstance(item, Notification) and not item.topic and not item.broadcast
            if mine and item.raw.get("id") == notification_id:
                self._items.remove(item)
                return

    def settled(self, item: Notification) -> None:
        """The program is done with this one, be the loop left or not."""
        if item is self._in_hand:
            self._in_hand = None

    def end(self, error: Exception | None) -> None:
        """Nothing will be put any more: the loop ends after what waits."""
        self.over = True
        self.error = error
        self._arrived.set()

    async def loop(self) -> AsyncGenerator[Message]:
        """All that is put, in order, until the end.

        Raises:
            Exception: the error of the end, if there was one.
        """
        if self._in_hand is not None:
            self._items.appendleft(self._in_hand)
            self._in_hand = None
        while True:
            while self._items:
                item = self._items.popleft()
                self.hurry()
                if self._auto_ack and isinstance(item, Notification) and item.needs_ack:
                    self._in_hand = item
                    yield item
                    await self._done(item)
                else:
                    yield item
            await self._idle()
            if self._items:
                continue
            if self.over:
                if self.error is not None:
                    raise self.error
                return
            self._arrived.clear()
            await self._arrived.wait()
