"""Reads a node's inbox and hands over what comes."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
import structlog

from pushsvc.errors import PushError, StoreUnavailable
from pushsvc.feeds import nodes
from pushsvc.feeds.nodes import ControlMessage, Entry, Inbox, Kind
from pushsvc.feeds.user_data import ERASED
from pushsvc.node.observer import Observer
from pushsvc.node.turns import parts

PAUSE: Final = 0.5
"""Most seconds between two tries to read the inbox, half of it at random."""

log = structlog.get_logger("pushsvc.courier")


class InboxReader:
    """Reads the inbox of one node.

    Args:
        inbox: what it reads.
        deliver: takes entries in the order of the inbox.
        control: takes control messages, in that order too.
        fresh: whether the node's lease is held; without it nothing is handed on, since the inbox
            may tell what was acknowledged elsewhere meanwhile.
        heard: told of each canary.
        broken: told that the inbox could not be read, so that entries may be missing.
        observer: told of what is passed over.
    """

    def __init__(
        self,
        inbox: Inbox,
        *,
        deliver: Callable[[Iterable[Entry]], None],
        control: Callable[[ControlMessage], None],
        fresh: Callable[[], bool],
        heard: Callable[[bytes], None],
        broken: Callable[[], None],
        observer: Observer,
    ) -> None:
        self._inbox = inbox
        self._deliver = deliver
        self._control = control
        self._fresh = fresh
        self._heard = heard
        self._broken = broken
        self._observer = observer

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
            for number, (kind, value) in enumerate(came):
                if number:  # a full inbox must not keep the loop from its sockets
                    await asyncio.sleep(0)
                if kind is Kind.CANARY:
                    self._heard(value)
                elif not self._fresh():
                    self._observer.fenced()
                elif kind is Kind.ENTRIES:
                    await self._hand_on(value)
                else:
                    await self._open(kind, value)

    async def _hand_on(self, packet: bytes) -> None:
        try:
            entries = nodes.unpack(packet)
        except msgspec.DecodeError as error:
            self._observer.unreadable("a packet", error)
            return
        for place, part in enumerate(parts(entries)):
            if place:
                await asyncio.sleep(0)
                if not self._fresh():
                    self._observer.fenced()
                    return
            self._deliver(part)

    async def _open(self, kind: Kind, packet: bytes) -> None:
        if kind is not Kind.CONTROL:
            self._observer.unreadable("something of an unknown kind", packet)
            return
        try:
            message = nodes.unpack_control(packet)
            self._control(message)
        except Exception as error:  # noqa: BLE001 - another version may mean anything by it
            self._observer.unreadable("a control message", error)
            return
        if message.kind == ERASED:
            with contextlib.suppress(PushError):  # what is left goes with what comes
                await self._inbox.forget()
