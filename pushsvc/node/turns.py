"""Turns: what is done for many connections, in parts, so that no turn of the event loop is long.

Ten thousand sends in one go are a tenth of a second in which every other socket, publish and health
check waits. So what goes to many is a generator that sends to ``PART`` connections a step. A small
one runs to its end at once; of the others each in turn gets a step, for ``TURN`` seconds of each
turn of the loop. What is done under one name is done one after the other.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Final, TypeVar

import structlog

PART: Final = 64
"""Connections that are sent to in one step."""
AT_ONCE: Final = 256
"""Connections that are sent to without a wait, by all that is begun in one turn of the loop."""
TURN: Final = 0.001
"""Seconds of a turn of the loop in which steps are taken; the last may take longer."""
MOST_WAITING: Final = 256
"""Works of one name that wait, from which on no more should."""
MOST_BYTES: Final = 16 * 1024 * 1024
"""Bytes that wait in works, of all names together, from which on no more should."""
WORK_BYTES: Final = 512
"""About what a work that waits takes besides what it is to send."""

Work = Generator[None, None, None]
"""Something that is done step by step."""
Item = TypeVar("Item")

log = structlog.get_logger("pushsvc.turns")


def parts(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """All of it, ``PART`` at a time."""
    for first in range(0, len(items), PART):
        yield items[first : first + PART]


class Turns:
    """Gives each work its turns; to be made in a running loop.

    Args:
        flush: called after steps were taken that nobody waits for.
    """

    def __init__(self, flush: Callable[[], None] = lambda: None) -> None:
        self._flush = flush
        self._loop = asyncio.get_running_loop()
        # By name, that whose turn is next first; the first of each has begun.
        self._works: OrderedDict[str, deque[tuple[Work, int]]] = OrderedDict()
        self._bytes = 0
        self._spent = 0
        self._next: asyncio.Handle | None = None

    def busy(self, name: str) -> bool:
        """Whether something of this name is under way or waits."""
        return name in self._works

    def full(self, name: str) -> bool:
        """Whether so much waits already that one more of this name should not."""
        works = self._works.get(name)
        if works is None:
            return False
        return len(works) > MOST_WAITING or self._bytes >= MOST_BYTES

    def run(self, name: str, work: Work, connections: int, size: int = 0) -> None:
        """Do something after all that was to be done under its name: at once, where it is small.

        Args:
            name: of what is done one after the other, as a feed.
            work: each of its steps sends to ``PART`` connections at most.
            connections: how many it is for.
            size: bytes that it keeps while it waits.
        """
        works = self._works.get(name)
        if works is None:
            if self._at_once(work, connections):
                return
            works = self._works[name] = deque()
        size += WORK_BYTES
        works.append((work, size))
        self._bytes += size
        self._go_on()

    def _at_once(self, work: Work, connections: int) -> bool:
        """Begin something; whether it has ended."""
        cost = min(connections, PART) or 1
        self._go_on()  # what was spent is of this turn of the loop only
        while self._spent < AT_ONCE:
            self._spent += cost
            try:
                next(work)
            except StopIteration:
                return True
        return False

    def _go_on(self) -> None:
        if self._next is None:
            # The loop looks at its sockets in between.
            self._next = self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._next = None
        self._spent = 0
        if not self._works:
            return
        end = time.perf_counter() + TURN
        while self._works:
            self._step()
            if time.perf_counter() >= end:
                break
        self._flush()
        if self._works:
            self._go_on()

    def _step(self) -> None:
        name, works = next(iter(self._works.items()))
        work, size = works[0]
        try:
            next(work)
        except StopIteration:
            pass
        except Exception:
            # What nobody foresaw in one must not hold up the others.
            log.exception("what was done for many ended early", name=name)
        else:
            self._works.move_to_end(name)
            return
        works.popleft()
        self._bytes -= size
        if works:
            self._works.move_to_end(name)
        else:
            del self._works[name]

    def close(self) -> None:
        """Drop what is under way."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        for works in self._works.values():
            for work, _ in works:
                work.close()
        self._works.clear()
        self._bytes = 0
