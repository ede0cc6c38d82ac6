"""Handshakes in the order in which they came, a few of them under way at once.

Thousands that are under way together fill the way to Redis, and what those need of it that are
there already, such as their acknowledgements, waits behind all of them. So others wait their turn.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Generic, TypeVar

AT_ONCE: Final = 128
"""Most handshakes under way: more than a node answers while Redis works on the next ones."""
LONGEST: Final = 8.0
"""Seconds that one may wait for its turn: clients give up after 10."""
STUCK: Final = 1.0
"""Seconds without any that ended, from which on no more wait than may be there."""

Handshake = TypeVar("Handshake")


class HandshakeQueue(Generic[Handshake]):
    """Begins handshakes, and refuses those that would wait for too long.

    Args:
        most: handshakes that may be there while none of them goes on.
        begin: begins one, which calls ``ended`` at its end, and not before this returns.
        refuse: tells one that it is not begun.
        clock: seconds on a monotonic clock.
    """

    def __init__(
        self,
        most: int,
        begin: Callable[[Handshake], None],
        refuse: Callable[[Handshake], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.under_way = 0
        self._most = most
        self._at_once = min(AT_ONCE, most)
        self._begin = begin
        self._refuse = refuse
        self._clock = clock
        self._waiting: deque[tuple[float, Handshake]] = deque()
        self._moved = clock()

    def __len__(self) -> int:
        """How many wait for their turn."""
        return len(self._waiting)

    def put(self, handshake: Handshake) -> None:
        """Begin a handshake: now, or after all that came before."""
        now = self._clock()
        if self.under_way < self._at_once and not self._waiting:
            self._begin_one(handshake, now)
            return
        self._waiting.append((now, handshake))
        if now - self._moved >= STUCK:
            # The first that came keep their places.
            while self._waiting and self.under_way + len(self._waiting) > self._most:
                self._refuse(self._waiting.pop()[1])

    def ended(self) -> None:
        """One is under way no more."""
        self.under_way -= 1
        self._go_on()

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Let others have the turn of one that waits for what they do not wait for."""
        self.ended()
        try:
            yield
        finally:
            self.under_way += 1

    def _go_on(self) -> None:
        now = self._moved = self._clock()
        while self._waiting and self.under_way < self._at_once:
            since, handshake = self._waiting.popleft()
            if now - since > LONGEST:
                self._refuse(handshake)
            else:
                self._begin_one(handshake, now)

    def _begin_one(self, handshake: Handshake, now: float) -> None:
        self._moved = now
        self.under_way += 1
        self._begin(handshake)
