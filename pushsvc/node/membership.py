"""A node's place among the nodes: its id, its lease, its inbox, and whether it may serve.

A node that could not renew its lease in time must assume that others have forgotten it. It never
takes the old id up again: it comes back under a new one, registers its connections anew and closes
every gap.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

import structlog

from pushsvc import metrics
from pushsvc.auth.tokens import LEEWAY
from pushsvc.errors import PushError, Unavailable
from pushsvc.feeds.nodes import INBOX_PACKETS, Inbox, Leases
from pushsvc.node.dispatcher import Dispatcher
from pushsvc.node.identity import NodeIdentity, new_node_id
from pushsvc.node.inbox_reader import InboxReader
from pushsvc.node.observer import Observer

BEAT: Final = 1.0
"""Most seconds between two renewals; also how old a node's view of who is live may be."""
AGREED: Final = LEEWAY - 1.0
"""Seconds of skew below which a clock that was off is right again."""
LAGGING: Final = INBOX_PACKETS * 9 // 10
"""Packets in an inbox from which on some may have been trimmed unread."""

log = structlog.get_logger("pushsvc.membership")


class Membership:
    """Keeps a node among the live ones.

    Args:
        identity: the node's.
        dispatcher: of the connections to register.
        observer: told of what in the inbox is passed over.
        leases: of all nodes.
        open_inbox: makes the inbox of a node, by its id.
        clock: seconds on a monotonic clock.
    """

    def __init__(
        self,
        identity: NodeIdentity,
        dispatcher: Dispatcher,
        observer: Observer,
        leases: Leases,
        open_inbox: Callable[[str], Inbox],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._identity = identity
        self._dispatcher = dispatcher
        self._observer = observer
        self._leases = leases
        self._open_inbox = open_inbox
        self._clock = clock
        self._tasks: asyncio.TaskGroup
        self._held_until = 0.0
        self._heard_at = 0.0
        self._registered = True
        self._failing = False
        self._deaf = False
        self._clock_off = False
        self._inbox: Inbox | None = None
        self._inbox_reader: asyncio.Task[None] | None = None
        self._rejoining: asyncio.Task[None] | None = None
        self._beating: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None

    def fresh(self) -> bool:
        """Whether the lease is held, as far as this node's clock can tell."""
        return self._clock() < self._held_until

    def troubles(self) -> list[str]:
        """Why the node should get no traffic; empty when it is ready."""
        now = self._clock()
        troubles = []
        if now >= self._held_until:
            troubles.append("the lease is not held: Redis cannot be reached, or was too slow")
        if now - self._heard_at >= self._leases.seconds:
            troubles.append("the canary did not come back through the node's inbox")
        if not self._registered:
            troubles.append("connections are being registered again after a lapse")
        return troubles

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Take a lease and begin to read the inbox, now or as soon as Redis can be reached."""
        self._tasks = tasks
        self._beating = tasks.create_task(self._run(), name="membership")

    async def aclose(self) -> None:
        """Give the lease and the inbox up."""
        for task in (self._beating, self._rejoining, self._inbox_reader):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        if self._keeping is not None:
            # It has been sent already, and must not make the inbox again after the end.
            await asyncio.wait([self._keeping])
        self._held_until = 0.0
        with contextlib.suppress(PushError):
            await self._leases.give_up(self._identity.id)

    async def _take(self, node: str) -> None:
        started = self._clock()
        if self._inbox_reader is not None:
            self._inbox_reader.cancel()
        inbox = self._open_inbox(node)
        # The inbox is there before the lease says that it may be written to.
        await inbox.open()
        await self._leases.renew(node, take=True)
        self._inbox = inbox
        self._held_until = started + self._leases.seconds
        self._heard_at = started
        self._inbox_reader = self._tasks.create_task(self._carry(inbox), name="inbox reader")

    async def _carry(self, inbox: Inbox) -> None:
        reader = InboxReader(
            inbox,
            deliver=self._dispatcher.deliver,
            control=self._dispatcher.control,
            fresh=self.fresh,
            heard=self._heard,
            broken=self._dispatcher.sweep_soon,
            observer=self._observer,
        )
        try:
            await reader.run()
        finally:
            # Nothing may use a connection again whose reply was not waited for.
            await inbox.aclose()

    def _heard(self, canary: bytes) -> None:
        if canary:
            self._heard_at = max(self._heard_at, float(canary))

    async def _run(self) -> None:
        beat = min(BEAT, self._leases.seconds / 3)
        while True:
            started = self._clock()
            try:
                await self._beat(started)
            except PushError as error:
                if not self._failing:
                    self._failing = True
                    log.warning("the lease cannot be renewed", error=error.detail)
            else:
                if self._failing:
                    self._failing = False
                    log.info("the lease is renewed again")
                self._compare_clocks()
            await asyncio.sleep(max(0.05, beat - (self._clock() - started)))

    def _compare_clocks(self) -> None:
        """Tell of a clock that is off by more than tokens are granted.

        The node stays ready: where it is Redis' clock that is off, all nodes would go.
        """
        skew = self._leases.skew
        metrics.clock_skew.set(skew)
        if not self._clock_off and abs(skew) > LEEWAY:
            self._clock_off = True
            log.warning(
                "this node's clock and Redis' differ: tokens are refused too early or too late,"
                " and revocations may miss some",
                ahead_seconds=round(skew, 3),
                granted_seconds=LEEWAY,
            )
        elif self._clock_off and abs(skew) < AGREED:
            self._clock_off = False
            log.info("this node's clock and Redis' agree again", ahead_seconds=round(skew, 3))

    async def _beat(self, started: float) -> None:
        if self._inbox is None:
            await self._take(self._identity.id)
            return
        before = self._leases.live
        # Beside each other: the inbox may be on a server that hangs, and the lease is on another.
        if self._keeping is None or self._keeping.done():
            self._keeping = self._tasks.create_task(self._keep(self._inbox, started), name="inbox")
        beat = await self._leases.renew(self._identity.id, take=False)
        if beat.live is None:
            await self._come_back()
            return
        if not self.fresh():
            self._dispatcher.sweep_soon()  # entries that came meanwhile were not dispatched
        self._held_until = started + self._leases.seconds
        if frozenset(before) - beat.live:
            # A node died: it may have appended what it did not live to send on.
            self._dispatcher.sweep_soon()
        if not self._registered and (self._rejoining is None or self._rejoining.done()):
            self._rejoining = self._tasks.create_task(self._rejoin(), name="rejoin")

    async def _keep(self, inbox: Inbox, started: float) -> None:
        """Send a canary through the inbox, and keep it."""
        try:
            length = await inbox.beat(repr(started).encode())
        except PushError as error:
            if not self._deaf:
                self._deaf = True
                log.warning("the inbox cannot be written to", error=error.detail)
            return
        self._deaf = False
        if length >= LAGGING:
            self._dispatcher.sweep_soon()

    async def _come_back(self) -> None:
        metrics.lease_lapses.inc()
        self._registered = False
        node = new_node_id()
        log.warning("the lease lapsed: coming back under a new id", old=self._identity.id, new=node)
        await self._take(node)
        self._dispatcher.lapsed(node)
        if self._rejoining is not None:
            self._rejoining.cancel()
        self._rejoining = self._tasks.create_task(self._rejoin(), name="rejoin")

    async def _rejoin(self) -> None:
        try:
            await self._dispatcher.register_again()
        except Unavailable:
            return  # the next beat tries again
        self._registered = True
