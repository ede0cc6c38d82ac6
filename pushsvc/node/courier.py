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

PAUSE: Final = 0.5
"""Most seconds between two tries to read the inbox, half of it at random."""

log = structlog.get_logger("pushsvc.courier")


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
        try:
            if kind == b"n":
                self._notice(nodes.unpack_notice(packet))
            else:
                self._deliver(nodes.unpack(packet))
        except msgspec.DecodeError as error:
            metrics.courier_entries.labels("unreadable").inc()
            log.warning("a courier packet is not readable", error=str(error))
