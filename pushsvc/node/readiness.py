"""Every socket of a worker in one readiness set, which the event loop watches as one descriptor.

A socket has a holder: an HTTP connection, or the WebSocket or stream that it becomes, which takes
its place without a system call. There is one table by descriptor and one timer wheel for all.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final, Protocol

import structlog

from pushsvc.node.poller import new_poller
from pushsvc.node.transport import PLAIN, Transport
from pushsvc.node.turns import PART, Turns, Work
from pushsvc.node.wheel import Wheel

POLL_EVENTS: Final = 64
"""Most sockets that are asked for at once."""
POLL_SECONDS: Final = 0.001
"""Seconds of a turn of the event loop for sockets; those that were asked for are all served."""
PAUSED: Final = 5.0
"""Seconds by which a tick must be late for the process to have been stopped, not just busy."""

LOST: Final = "lost connections"
"""What is done with those whose peer has gone."""
LOST_AT_ONCE: Final = 8
"""Holders that are dropped in one step, which is about as much work as sending to 64."""

UNFORESEEN: Final = "a connection is dropped after an unexpected error"

log = structlog.get_logger("pushsvc.connections")


class Holder(Protocol):
    """What is done with one socket."""

    fd: int
    """The descriptor; negative once the socket is given up."""
    wake: int
    """The slot of the timer wheel; 0 for none."""

    def ready(self, events: int) -> None:
        """The socket is ``READABLE`` or ``WRITABLE``, or both."""

    def due(self) -> None:
        """The time has come that was asked for, or an earlier one."""

    def resumed(self, seconds: float) -> None:
        """This process stood still for so long, and its peers did not."""

    def drop(self) -> None:
        """Give the socket up after an error that nobody foresaw."""


class ReadinessSet:
    """The sockets of a worker, and who holds them; to be made in a running loop.

    Args:
        clock: seconds on a monotonic clock.
        transport: how the sockets are read and written.
        turns: for what is done with many of them; of its own by default.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        transport: Transport = PLAIN,
        turns: Turns | None = None,
    ) -> None:
        self.transport = transport
        self.turns = Turns() if turns is None else turns
        self.poller = new_poller()
        self.now = clock()
        """The time of this turn of the loop; one object, so that holders can share it."""
        self._clock = clock
        self._ticked = self.now
        self._by_fd: list[Holder | None] = []
        self._lost: dict[Holder, None] = {}
        self._wheel = Wheel(self.now)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self.poller.fileno(), self._poll)

    def __iter__(self) -> Iterator[Holder]:
        return (holder for holder in self._by_fd if holder is not None)

    def clock(self) -> float:
        """The time, read anew: what is not called by the set may come late in a turn."""
        self.now = self._clock()
        return self.now

    def add(self, holder: Holder, fd: int) -> None:
        """Watch a socket for input from now on.

        Args:
            holder: has it.
            fd: non-blocking; owned by the set until ``remove``.

        Raises:
            OSError: the system watches no more; the socket is not in the set.
        """
        self.poller.add(fd)
        self._put(holder, fd)

    def replace(self, holder: Holder, fd: int) -> None:
        """Give a socket that is watched for input another holder."""
        self._put(holder, fd)

    def _put(self, holder: Holder, fd: int) -> None:
        if fd >= len(self._by_fd):
            self._by_fd.extend([None] * (fd + 1 - len(self._by_fd)))
        self._by_fd[fd] = holder
        holder.fd = fd
        holder.wake = 0

    def want(self, holder: Holder, events: int) -> None:
        """Watch for ``READABLE`` or ``WRITABLE`` or both, or for errors only."""
        if holder not in self._lost:
            self.poller.want(holder.fd, events)

    def look(self, holder: Holder, due: float) -> None:
        """See to it that a holder is called by some time, to the second."""
        holder.wake = self._wheel.put(holder.fd, holder.wake, due)

    def remove(self, holder: Holder) -> None:
        """Close a socket, unless that is done."""
        if holder.fd >= 0:
            self.transport.close(self.forget(holder))

    def drop(self, holder: Holder) -> None:
        """Have a holder drop its socket; what nobody foresaw there must not hold up the others."""
        try:
            holder.drop()
        except Exception:
            log.exception(UNFORESEEN)
            self.remove(holder)

    def forget(self, holder: Holder) -> int:
        """Watch a socket no more; its descriptor."""
        fd, holder.fd = holder.fd, -1
        self._by_fd[fd] = None
        if self._lost.pop(holder, self) is self:
            self.poller.remove(fd)
        return fd

    # --- those whose peer has gone ---------------------------------------------------------------

    @property
    def lost(self) -> int:
        """How many have lost their peer, and wait for their turn to be dropped."""
        return len(self._lost)

    def lose(self, holder: Holder) -> None:
        """Have a holder dropped whose peer has gone, in its turn: many may have gone together.

        Until then it is watched for nothing, and is what it was.
        """
        self.poller.remove(holder.fd)
        self._lost[holder] = None
        if not self.turns.busy(LOST):
            self.turns.run(LOST, self._drop_lost(), PART // LOST_AT_ONCE)

    def _drop_lost(self) -> Work:
        while self._lost:
            self.drop_lost()
            if self._lost:
                yield

    def drop_lost(self, holders: Iterable[Any] | None = None) -> None:
        """Drop those now that have lost their peer.

        Args:
            holders: those of them, among others; by default the first ``LOST_AT_ONCE``.
        """
        for holder in list(islice(self._lost, LOST_AT_ONCE)) if holders is None else holders:
            if holder in self._lost:
                self.drop(holder)

    # --- time ------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Do what the time asks for; to be called once a second."""
        before, now = self._ticked, self.clock()
        self._ticked = now
        if now - before > PAUSED:
            for each in self:
                each.resumed(now - before)
        self.turns.check("due", self._due(now))

    def _due(self, now: float) -> Work:
        """Call those that are due by now; the wheel holds what is due later."""
        for place, (fd, slot) in enumerate(self._wheel.turn(now), 1):
            holder = self._by_fd[fd]
            if holder is not None and holder.wake == slot:
                holder.wake = 0
                try:
                    holder.due()
                except Exception:
                    log.exception(UNFORESEEN)
                    self.drop(holder)
            if not place % PART:
                yield

    def close(self) -> None:
        """Drop all sockets and the set."""
        for holder in list(self):
            holder.drop()
        self._loop.remove_reader(self.poller.fileno())
        self.poller.close()

    def _poll(self) -> None:
        self.now = self._clock()
        by_fd = self._by_fd
        end = time.perf_counter() + POLL_SECONDS
        while True:
            ready = self.poller.poll(POLL_EVENTS)
            for fd, events in ready:
                holder = by_fd[fd]
                if holder is None:
                    continue
                try:
                    holder.ready(events)
                except Exception:
                    log.exception(UNFORESEEN)
                    self.drop(holder)
            # The first in line are those that have waited for longest, however many they are.
            if len(ready) < POLL_EVENTS or time.perf_counter() >= end:
                return
