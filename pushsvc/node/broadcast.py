"""The broadcast: a feed that everyone listens to, and each device has a place in.

The node is the listener that Redis knows; the place of a device is kept beside its mailbox.
"""

import asyncio
import contextlib
import functools
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

import structlog

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

log = structlog.get_logger("pushsvc.broadcast")


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
        # Up to here the node has had everything; what it lacks after that it reads for all.
        self._place = ids.START
        # The newest id that copies told of since it last read. One from before may be of an entry
        # that Redis has lost, and would be read for again and again.
        self._told = ids.START
        self._count = 0
        self._counted = 0
        self._unsettled: set[Listener] = set()
        self._tasks: set[asyncio.Task[None]] = set()
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
        registering = self._registering or self._register()
        (result,) = await asyncio.shield(registering)
        Feeds.backlog(result)

    def _register(self) -> asyncio.Future[list[Any]]:
        position = self._place if self._registered else None
        future = self._feeds.subscribe([(BROADCAST, self.node, self._count, position)])
        self._registering, self._registering_as = future, self.node
        self._told = ids.START
        future.add_done_callback(self._was_registered)
        return future

    def _was_registered(self, future: asyncio.Future[list[Any]]) -> None:
        self._registering = None
        try:
            backlog = Feeds.backlog(future.result()[0])
        except (PushError, asyncio.CancelledError):
            self._told = self.head
            return
        self._learn(backlog)

    def _learn(self, backlog: Backlog) -> None:
        """What was lost on the way here is handed to everyone that was in step until then."""
        first, self._registered = not self._registered, True
        lost = backlog.gap == "reset" or max(self._told, backlog.head) < self.head
        if lost:
            self.head = self._place = backlog.head
        self.head = max(self.head, backlog.head)
        self._place = max(self._place, backlog.head)
        if not first and (backlog.entries or backlog.gap or lost):
            for listener in list(self._everyone()):
                if listener.open:
                    self._hand_on(listener, backlog, lost=lost)
        self._read_on()

    def _hand_on(self, listener: Listener, backlog: Backlog, *, lost: bool) -> None:
        cursor = listener.session.broadcast
        serves = (
            backlog.start <= cursor.sent < backlog.upto  # copies may have come meanwhile
            if not backlog.gap
            else backlog.start == cursor.sent or backlog.gap == "reset"
        )
        if serves and not cursor.reading:
            cursor.reading = True
            self._feeder.feed(listener, cursor, own(cursor, backlog), "gap")
            return
        if lost:
            # Who holds what is lost finds that out by reading.
            ahead = cursor.sent > backlog.head
            cursor.head = cursor.sent + 1 if ahead else backlog.head
        cursor.head = max(cursor.head, backlog.head)
        self._feeder.catch_up(listener, cursor, "gap")

    def _read_on(self) -> None:
        """Read what the copies did not bring, once for everyone."""
        if self._registered and self._registering is None and self._place < self._told:
            metrics.feed_reads.labels("gap").inc()
            with contextlib.suppress(Unavailable):  # the next tick tries again
                self._register()

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
        self._told = max(self._told, entry_id)
        if previous == self._place:
            self._place = entry_id
        self._read_on()
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
                # What the node itself lacks is read for all who have all before it.
                if cursor.sent < self._place:
                    self._feeder.catch_up(listener, cursor, "gap")
        return delivered, late

    def redeliver(self, listener: Listener) -> None:
        """The cursor was rewound: send again what no connection of the device has acknowledged."""
        cursor = listener.session.broadcast
        if listener.writable() and not cursor.reading:
            cursor.reading = True
            self._spawn(self._redeliver(listener))

    async def _redeliver(self, listener: Listener) -> None:
        session = listener.session
        cursor = session.broadcast
        try:
            position = await self._feeds.broadcast_position(session.cursor.feed, session.device)
        except PushError:
            self._unsettled.add(listener)  # for the next tick
            return
        if not listener.open:
            return
        if not listener.writable():
            self._unsettled.add(listener)
            return
        at = cursor.sent
        known = Backlog(position, cursor.head, at, at, "", [])
        self._feeder.feed(listener, cursor, known, "redelivery")

    def tick(self, count: int) -> None:
        """Say how many listen here, and check now and then; to be called once a second."""
        self._count = count
        if self._registered and count != self._counted:
            self._recount()
        unsettled, self._unsettled = self._unsettled, set()
        for listener in unsettled:
            self._spawn(self._redeliver(listener))
        self._read_on()
        self._ticks += 1
        if self._ticks % CHECK_SECONDS == 0:
            self.check()

    def _recount(self) -> None:
        try:
            future = self._feeds.recount([(BROADCAST, self.node, self._count)])
        except Unavailable:
            return  # for the next tick
        self._counted = self._count
        future.add_done_callback(self._was_counted)

    def _was_counted(self, future: asyncio.Future[list[Any]]) -> None:
        if future.exception() is not None or isinstance(future.result()[0], PushError):
            self._counted = -1

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
            self._spawn(self.register())

    def close(self) -> None:
        """Nobody listens here any more."""
        for task in self._tasks:
            task.cancel()
        self._registered = False
        self._feeds.clean([(BROADCAST, [self.node])])

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, PushError):
            log.error("the broadcast failed in an unforeseen way", exc_info=error)
