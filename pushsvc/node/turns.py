"""Turns: what is done for many connections, in parts, so that no turn of the event loop is long.

Ten thousand sends in one go are a tenth of a second in which every other socket, publish and health
check waits. So what goes to many is a generator that sends to ``PART`` connections a step. A small
one runs to its end at once; of the others each in turn gets a step, for ``TURN`` seconds of each
turn of the loop. What is done under one name is done one after the other.

What looks through many and sends to few, for a revocation, what is due or a sweep, is a check. Its
steps cost a thirtieth of those that send, so checks have ``TURN`` seconds of their own, before the
rest: however much is sent, what was revoked is closed.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from inspect import GEN_CREATED, getgeneratorstate
from typing import Final, TypeVar

import structlog

PART: Final = 64
"""Connections that are sent to in one step."""
AT_ONCE: Final = 256
"""Connections that are sent to without a wait, by all that is begun in one turn of the loop."""
TURN: Final = 0.001
"""Seconds of a turn of the loop for the steps of checks, and for others; the last may be longer."""
MOST_WAITING: Final = 256
"""Works of one name that wait, from which on no more should."""
MOST_BYTES: Final = 16 * 1024 * 1024
"""Bytes that wait in works, of all names together, from which on no more should."""
WORK_BYTES: Final = 512
"""About what a work that waits takes besides what it is to send."""

Work = Generator[None, None, None]
"""Something that is done step by step."""
Works = OrderedDict[str, deque[tuple[Work, int]]]
"""By name, that whose turn is next first; and how many bytes each keeps."""
Item = TypeVar("Item")

UNFORESEEN: Final = "what was done for many ended early"

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
        self._checks: Works = OrderedDict()
        self._works: Works = OrderedDict()
        self._put_off: OrderedDict[str, Callable[[], None]] = OrderedDict()
        self._bytes = 0
        self._spent = 0
        self._next: asyncio.Handle | None = None

    def busy(self, name: str) -> bool:
        """Whether something of this name is under way or waits."""
        return name in self._works or name in self._checks

    def waits(self, name: str) -> bool:
        """Whether something of this name waits that has not begun."""
        works = self._works.get(name) or self._checks.get(name)
        return works is not None and getgeneratorstate(works[-1][0]) == GEN_CREATED

    def full(self, name: str, connections: int) -> bool:
        """Whether so much waits already that one more of this name should not."""
        works = self._works.get(name)
        if works is None and self._spent + connections <= AT_ONCE:
            return False  # it will not wait
        return self._bytes >= MOST_BYTES or (works is not None and len(works) > MOST_WAITING)

    def put_off(self, name: str, begin: Callable[[], None]) -> None:
        """Call something once there is room and nothing of its name is under way.

        It is for what reads later what was too much: one of all names in each turn of the loop.
        """
        self._put_off[name] = begin
        self._go_on()

    def check(self, name: str, work: Work) -> None:
        """Look through many connections, before what is sent to many; at once, where they are few.

        Args:
            name: of the check. One that waits and has not begun does for another.
            work: each of its steps looks at ``PART`` connections or so.
        """
        if self.waits(name):
            return
        works = self._checks.get(name)
        if works is None:
            if self._at_once(name, work, PART):
                return
            works = self._checks[name] = deque()
        works.append((work, 0))
        self._go_on()

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
            if self._at_once(name, work, connections):
                return
            works = self._works[name] = deque()
        size += WORK_BYTES
        works.append((work, size))
        self._bytes += size
        self._go_on()

    def _at_once(self, name: str, work: Work, connections: int) -> bool:
        """Begin something; whether it has ended."""
        cost = min(connections, PART) or 1
        self._go_on()  # what was spent is of this turn of the loop only
        while self._spent < AT_ONCE:
            self._spent += cost
            if _ends(name, work):
                return True
        return False

    def _go_on(self) -> None:
        if self._next is None:
            # The loop looks at its sockets in between.
            self._next = self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._next = None
        self._spent = 0
        if not (self._checks or self._works or self._put_off):
            return
        for of_all in (self._checks, self._works):
            end = time.perf_counter() + TURN
            while of_all:
                self._step(of_all)
                if time.perf_counter() >= end:
                    break
        self._begin_one()
        self._flush()
        if self._checks or self._works or self._put_off:
            self._go_on()

    def _step(self, of_all: Works) -> None:
        name, works = next(iter(of_all.items()))
        work, size = works[0]
        if _ends(name, work):
            works.popleft()
            self._bytes -= size
        if works:
            of_all.move_to_end(name)
        else:
            del of_all[name]

    def _begin_one(self) -> None:
        # One only: the answers of them all at once would be no less than what was too much.
        if not self._put_off or self._bytes >= MOST_BYTES:
            return
        name, begin = self._put_off.popitem(last=False)
        if name in self._works:
            self._put_off[name] = begin
            return
        try:
            begin()
        except Exception:
            log.exception(UNFORESEEN, name=name)

    def close(self) -> None:
        """Drop what is under way."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        for of_all in (self._checks, self._works):
            for works in of_all.values():
                for work, _ in works:
                    work.close()
            of_all.clear()
        self._put_off.clear()
        self._bytes = 0


def _ends(name: str, work: Work) -> bool:
    """Take a step; whether it was the last."""
    try:
        next(work)
    except StopIteration:
        return True
    except Exception:
        # What nobody foresaw in one must not hold up the others.
        log.exception(UNFORESEEN, name=name)
        return True
    return False
