"""The broadcast: a feed that everyone listens to, and each device has a place in.

The node is the listener that Redis knows; the place of a device is kept beside its mailbox.
"""

import asyncio
import functools
from collections.abc import Callable, Iterable
from typing import Any, Final

from pushsvc import metrics
from pushsvc.errors import PushError, Unavailable
from pushsvc.feeds.feed import Feeds
from pushsvc.feeds.nodes import Copy
from pushsvc.node.feeder import Feeder, Listener, own
from pushsvc.protocol import ids, messages
from pushsvc.protocol.delivery import Backlog
from pushsvc.protocol.feeds import BROADCAST
from pushsvc.protocol.session import Policy
from pushsvc.protocol.wire import Wire

CHECK_SECONDS: Final = 10
"""How often the registration and the newest id are checked."""


class Broadcast:
    """What everyone of a worker listens to.

    Args:
        node: the id under which the node is registered.
        feeds: where it is registered.
        feeder: feeds those that are not in step.
        policy: the rules of every session.
        everyone: the listeners.
    """

    def __init__(
        self,
        node: str,
        feeds: Feeds,
        feeder: Feeder,
        policy: Policy,
        everyone: Callable[[], Iterable[Listener]],
    ) -> None:
        self.node = node
        self.head = ids.START
        """The newest id that this node knows of."""
        self._feeds = feeds
        self._feeder = feeder
        self._policy = policy
        self._everyone = everyone
        self._registered = False
        self._registering: asyncio.Future[list[Any]] | None = None
        self._registering_as = node
        self._count = 0
        self._ticks = 0

    async def ready(self) -> None:
        """Wait until the node is registered, once.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        if not self._registered:
            await self.register()

    async def register(self) -> None:
        """Register the node, and let everyone read what was missed.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        while self._registering is not None and self._registering_as != self.node:
            # Under an id that the node had before its lease lapsed: it does not count.
            await asyncio.wait([self._registering])
        if self._registering is None:
            position = self.head if self._registered else None
            self._registering_as = self.node
            self._registering = self._feeds.subscribe(
                [(BROADCAST, self.node, self._count, position)]
            )
            self._registering.add_done_callback(self._was_registered)
        (result,) = await asyncio.shield(self._registering)
        Feeds.backlog(result)

    def _was_registered(self, future: asyncio.Future[list[Any]]) -> None:
        self._registering = None
        if future.cancelled() or future.exception() is not None:
            return
        try:
            backlog = Feeds.backlog(future.result()[0])
        except PushError:
            return
        self._learn(backlog)

    def _learn(self, backlog: Backlog) -> None:
        """Everyone that is behind the newest id reads for itself; it was lost on the way here."""
        first, self._registered = not self._registered, True
        if backlog.gap == "reset":
            self.head = backlog.head
        self.head = max(self.head, backlog.head)
        if first or not (backlog.entries or backlog.gap):
            return
        for listener in list(self._everyone()):
            cursor = listener.session.broadcast
            if cursor.reading or not listener.open:
                continue
            if backlog.start == cursor.sent or backlog.gap == "reset":
                # In step until now: what was read here serves it as well.
                cursor.reading = True
                self._feeder.feed(listener, cursor, own(cursor, backlog), "gap")
            else:
                cursor.head = max(cursor.head, backlog.head)
                self._feeder.catch_up(listener, cursor, "gap")

    def started(self, listener: Listener) -> None:
        """A listener has its place: it reads on if that is not the newest."""
        cursor = listener.session.broadcast
        cursor.head = max(cursor.head, self.head)
        if cursor.sent > self.head:
            self._feeder.read(listener, cursor, "backlog")  # Redis lost entries, or it is ahead
        else:
            self._feeder.catch_up(listener, cursor, "backlog")

    def deliver(self, copy: Copy, now: float) -> tuple[int, int]:
        """Hand an entry to everyone; how many got it, and how many read it later."""
        feed, entry_id, previous, body = copy
        self.head = max(self.head, entry_id)
        window = self._policy.window
        frames: dict[Wire, bytes] = {}
        delivered = late = 0
        for listener in list(self._everyone()):
            cursor = listener.session.broadcast
            if cursor.offer(entry_id, previous, window) and listener.writable():
                wire = listener.wire
                frame = frames.get(wire)
                if frame is None:
                    payload = messages.notification(entry_id, body, 1)
                    frame = wire.entry(feed, entry_id, payload)
                    if wire.shared:
                        frames[wire] = frame
                idle = cursor.unacked is None
                cursor.take(entry_id, now)
                listener.write(frame)
                if idle:
                    listener.watch()
                delivered += 1
            elif cursor.sent < entry_id:
                late += 1
                self._feeder.catch_up(listener, cursor, "gap")
        return delivered, late

    def tick(self, count: int) -> None:
        """Say how many listen here, and check now and then; to be called once a second."""
        if self._registered and count != self._count:
            self._count = count
            self._feeds.recount([(BROADCAST, self.node, count)])
        self._ticks += 1
        if self._ticks % CHECK_SECONDS == 0:
            self.check()

    def check(self) -> None:
        """Register again where that was lost, and read what was missed."""
        if not self._registered:
            return
        try:
            future = self._feeds.check([(BROADCAST, self.node)])
        except Unavailable:
            return
        future.add_done_callback(functools.partial(self._was_checked, self.head))

    def _was_checked(self, known: int, future: asyncio.Future[list[Any]]) -> None:
        if future.cancelled() or future.exception() is not None:
            return
        (head,) = future.result()
        if isinstance(head, PushError):
            return
        if head is None or ids.parse(head) != known:
            metrics.sweeps.labels("unregistered" if head is None else "late").inc()
            task = asyncio.ensure_future(self.register())
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
