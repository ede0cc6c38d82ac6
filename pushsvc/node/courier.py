"""Reads a node's inbox and hands what comes to the hub."""

import asyncio
import random
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
import structlog

from pushsvc import metrics
from pushsvc.errors import StoreUnavailable
from pushsvc.feeds import nodes
from pushsvc.feeds.nodes import Copy, Inbox, Notice
from pushsvc.logs import SampledLog

PAUSE: Final = 0.5
"""Most seconds between two tries to read the inbox, half of it at random."""

log = structlog.get_logger("pushsvc.courier")
sampled = SampledLog(log)


class Courier:
    """One node's courier.

    Args:
        inbox: what it reads.
        deliver: takes entries in the order of the inbox.
        notice: takes notices, in that order too.
        fresh: whether the node's lease is held; without it nothing is handed on, since the inbox
            may tell what was acknowledged elsewhere meanwhile.
        heard: told of each canary.
        broken: told that the inbox could not be read, so that copies may be missing.
    """

    def __init__(
        self,
        inbox: Inbox,
        *,
        deliver: Callable[[Iterable[Copy]], None],
        notice: Callable[[Notice], None],
        fresh: Callable[[], bool],
        heard: Callable[[bytes], None],
        broken: Callable[[], None],
    ) -> None:
        self._inbox = inbox
        self._deliver = deliver
        self._notice = notice
        self._fresh = fresh
        self._heard = heard
        self._broken = broken

    async def run(self) -> None:
        """Read until cancelled."""
        failing = False
        while True:
            try:
                came = await self._inbox.read()
            except StoreUnavailable as error:
                if not failing:
                    failing = True
                    log.warning("the inbox cannot be read", error=error.detail)
                await asyncio.sleep(PAUSE * (0.5 + random.random() / 2))  # noqa: S311
                continue
            if failing:
                failing = False
                log.info("the inbox is read again")
                self._broken()
            for kind, value in came:
                if kind == b"c":
                    self._heard(value)
                elif not self._fresh():
                    metrics.courier_entries.labels("fenced").inc()
                else:
                    self._open(kind, value)
                    # A full inbox must not keep the loop from its sockets.
                    await asyncio.sleep(0)

    def _open(self, kind: bytes, packet: bytes) -> None:
        if kind == b"p":
            try:
                copies = nodes.unpack(packet)
            except msgspec.DecodeError as error:
                self._unreadable("a packet", error)
            else:
                self._deliver(copies)
        elif kind == b"n":
            try:
                self._notice(nodes.unpack_notice(packet))
            except Exception as error:  # noqa: BLE001 - another version may mean anything by it
                self._unreadable("a notice", error)
        else:
            self._unreadable("something of an unknown kind", kind)

    def _unreadable(self, what: str, why: object) -> None:
        """It costs what it would have told, and nothing else: the feeds are what counts."""
        metrics.courier_entries.labels("unreadable").inc()
        sampled.warning("the courier brought what cannot be read", what=what, why=repr(why))
