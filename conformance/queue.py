"""A queue that can be looked into."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

MOST: Final = 10_000
"""A client that floods does not fill the memory: what comes beyond this is dropped."""


class Queue(Generic[T]):
    """What came and was not taken yet, in order."""

    def __init__(self) -> None:
        self._waiting: deque[T] = deque()
        self._came = asyncio.Event()

    def put(self, item: T) -> None:
        """Add one."""
        if len(self._waiting) < MOST:
            self._waiting.append(item)
            self._came.set()

    async def take(self, wanted: Callable[[T], bool] = lambda _item: True) -> T:
        """The oldest one that is wanted, once there is one; the others stay."""
        while True:
            for item in self._waiting:
                if wanted(item):
                    self._waiting.remove(item)
                    return item
            self._came.clear()
            await self._came.wait()

    def left(self) -> list[T]:
        """What was not taken."""
        return list(self._waiting)

    def clear(self, wanted: Callable[[T], bool] = lambda _item: True) -> None:
        """Forget those that are wanted."""
        self._waiting = deque(item for item in self._waiting if not wanted(item))
