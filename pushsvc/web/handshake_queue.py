"""Handshakes in the order in which they came, a few of them under way at once.

Thousands that are under way together fill the way to Redis, and what those need of it that are
there already, such as their acknowledgements, waits behind all of them. So others wait their turn.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, Generic, TypeVar

import structlog

AT_ONCE: Final = 24
"""Most handshakes under way: a pipeline of them takes Redis a few milliseconds, and their answers
take no more of the loop. More at once are no faster; with 128, others wait ten times as long."""
LONGEST: Final = 8.0
"""Seconds that one may wait for its turn: clients give up after 10."""
STUCK: Final = 1.0
"""Seconds without any that ended, from which on no more wait than may be there."""
MOST_BYTES: Final = 32 * 1024 * 1024
"""Bytes of those that wait, some 15,000, from which on no connections are accepted; those of what
was accepted by then may be as much again."""
REFUSED: Final = 32
"""Most that are refused in one turn of the event loop."""

Handshake = TypeVar("Handshake")

log = structlog.get_logger("pushsvc.socket")


class HandshakeQueue(Generic[Handshake]):
    """Begins handshakes, and refuses those that would wait for too long; for a running loop.

    Args:
        most: handshakes that may be there while none of them goes on, and that may be apart.
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
        self._waiting: dict[Handshake, tuple[float, int]] = {}
        self._bytes = 0
        self._apart = 0
        self._returning: deque[asyncio.Future[None]] = deque()
        self._moved = clock()
        self._left = REFUSED
        self._renewed = True

    def __len__(self) -> int:
        """How many wait for their turn."""
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether so many wait that no more should be let come."""
        return self._bytes >= MOST_BYTES

    def put(self, handshake: Handshake, size: int) -> None:
        """Begin a handshake: now, or after all that came before.

        Args:
            handshake: which is hashable.
            size: bytes that it keeps while it waits.
        """
        now = self._clock()
        if self.under_way < self._at_once and not self._waiting and not self._returning:
            self._begin_one(handshake, now)
            return
        self._waiting[handshake] = now, size
        self._bytes += size
        while self._waiting and self._is_too_much(now) and self._may_refuse():
            # The first that came keep their places.
            self._refuse_one(next(reversed(self._waiting)))

    def drop(self, handshake: Handshake) -> None:
        """Forget one that waits, whose client has gone."""
        _, size = self._waiting.pop(handshake, (0.0, 0))
        self._bytes -= size

    def ended(self) -> None:
        """One is under way no more."""
        self.under_way -= 1
        self._go_on()

    @asynccontextmanager
    async def apart(self) -> AsyncIterator[None]:
        """Let others have the turn of one that waits for what they do not wait for.

        It is the next one to have a turn then. Where too many are apart it keeps the one it has.
        """
        if self._apart >= self._most:
            yield
            return
        self._apart += 1
        self.ended()
        try:
            yield
        finally:
            self._apart -= 1
            await self._turn()

    async def _turn(self) -> None:
        if self.under_way < self._at_once and not self._returning:
            self.under_way += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._returning.append(turn)
        try:
            await turn
        finally:
            if turn.cancelled():
                self.under_way += 1  # it ends, with a turn or without

    def _go_on(self) -> None:
        now = self._moved = self._clock()
        while self._returning and self.under_way < self._at_once:
            turn = self._returning.popleft()
            if not turn.done():
                self.under_way += 1
                turn.set_result(None)
        while self._waiting and self.under_way < self._at_once:
            handshake, (since, _) = next(iter(self._waiting.items()))
            if now - since <= LONGEST:
                self.drop(handshake)
                self._begin_one(handshake, now)
            elif self._may_refuse():
                self._refuse_one(handshake)
            else:
                return  # and goes on in the next turn of the loop

    def _begin_one(self, handshake: Handshake, now: float) -> None:
        self._moved = now
        self.under_way += 1
        self._begin(handshake)

    def _is_too_much(self, now: float) -> bool:
        stuck = now - self._moved >= STUCK
        return self._bytes > 2 * MOST_BYTES or (
            stuck and self.under_way + len(self._waiting) > self._most
        )

    def _may_refuse(self) -> bool:
        """Whether one more may be refused in this turn of the loop."""
        if self._renewed:
            self._renewed = False
            asyncio.get_running_loop().call_soon(self._renew)
        self._left -= 1
        return self._left >= 0

    def _renew(self) -> None:
        on_hold = self._left < 0
        self._left, self._renewed = REFUSED, True
        if on_hold and self._waiting and self.under_way < self._at_once:
            self._go_on()

    def _refuse_one(self, handshake: Handshake) -> None:
        self.drop(handshake)
        try:
            self._refuse(handshake)
        except Exception:  # whatever it is, the others must go on
            log.exception("a handshake could not be refused")
