"""From feeds to listeners: hands on what the courier brings, and reads the feed where that fails.

A listener that is in step with its feed gets each new entry straight from the courier. One that is
not, because it is slow, its window is full, or a copy was lost, is fed from the feed, one read at a
time. Nothing is awaited per listener.
"""

import asyncio
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

import structlog

from pushsvc import metrics
from pushsvc.errors import PushError, Unavailable
from pushsvc.feeds.feed import Feeds, Full
from pushsvc.feeds.nodes import Copy, Leases
from pushsvc.node.acks import Acks
from pushsvc.node.rota import Rota
from pushsvc.protocol import frames, ids, messages
from pushsvc.protocol.delivery import Backlog, Deliver, Step
from pushsvc.protocol.session import Acked, Policy, Session

CHUNK: Final = 16 * 1024
"""Bytes of small frames that are sent with one system call."""
BATCH: Final = 256
"""Most listeners that join or are checked in one submission."""
MOST_LEFT: Final = 10_000
"""Most registrations that wait to be removed while Redis cannot be reached."""
SWEEP_NOW: Final = 5
"""Seconds over which an urgent sweep is spread."""

log = structlog.get_logger("pushsvc.hub")


class Listener(Protocol):
    """A connection, as the hub sees it."""

    number: int
    feed: str
    session: Session
    open: bool

    def writable(self) -> bool:
        """Whether the next frame may be handed over."""

    def write(self, data: bytes) -> None:
        """Hand over frames."""

    def send(self, payload: bytes) -> None:
        """Send one message."""

    def watch(self) -> None:
        """Something of the session is due earlier than before."""


class Hub:
    """The listeners of a worker.

    Args:
        node: the id under which connections are registered.
        feeds: where they are registered and read from.
        leases: who is live, and Redis time.
        policy: the rules of every session.
        sweep_seconds: the longest that a lost copy can delay an entry for a quiet user.
        clock: seconds on a monotonic clock.
    """

    def __init__(
        self,
        node: str,
        feeds: Feeds,
        leases: Leases,
        policy: Policy,
        *,
        sweep_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.node = node
        self._feeds = feeds
        self._leases = leases
        self._policy = policy
        self._clock = clock
        self._acks = Acks(feeds)
        # Most feeds have one listener, which then stands for itself.
        self._listeners: dict[str, Listener | list[Listener]] = {}
        # Listeners whose read failed: tried again with the next tick.
        self._stalled: set[Listener] = set()
        # Registrations to remove, each with its feed: one that stayed would count as a connection
        # of the user for as long as this node lives.
        self._left: list[tuple[str, str]] = []
        # Ids that this node had before its lease lapsed, with registrations still to be removed.
        self._former: list[str] = []
        self._rota = Rota(sweep_seconds, SWEEP_NOW, clock())

    def connection_id(self, listener: Listener) -> str:
        """The id under which a listener is registered."""
        return f"{self.node}.{listener.number:x}"

    # --- coming and going ----------------------------------------------------------------------

    async def join(self, listener: Listener) -> Backlog:
        """Register a listener and read what it is owed.

        The listener is known here before Redis knows of it: what is published in between is
        noticed, and read after the backlog.

        Raises:
            TooManyConnections: the user holds as many connections as it may.
            Unavailable: Redis cannot be reached.
        """
        cursor = listener.session.cursor
        cursor.reading = True
        self._add(listener)
        try:
            while True:
                registered = self.connection_id(listener)
                backlog = await self._join_with_room(listener)
                if registered == self.connection_id(listener):
                    break
                # Meanwhile the node came back under a new id, and nothing is sent to the old one.
                self._feeds.clean([(listener.feed, [registered])])
        except BaseException:
            # The join may have happened all the same.
            self.left(listener)
            raise
        cursor.begin(backlog)
        return backlog

    async def _join_with_room(self, listener: Listener) -> Backlog:
        try:
            return await self._join_one(listener)
        except Full as full:
            dead = await self._leases.dead(full.listeners)
            if not dead:
                raise
            self._feeds.clean([(listener.feed, dead)])
            return await self._join_one(listener)

    async def _join_one(self, listener: Listener) -> Backlog:
        (result,) = await self._feeds.join([self._registration(listener, None)])
        return Feeds.joined(result)

    def _registration(
        self, listener: Listener, held: int | None
    ) -> tuple[str, str, str, int | None]:
        return listener.feed, self.connection_id(listener), listener.session.device, held

    def start(self, listener: Listener, backlog: Backlog, first: bytes) -> None:
        """Send ``first`` and then the backlog, in one segment where it is small."""
        self._feed(listener, backlog, "backlog", first)

    def left(self, listener: Listener) -> None:
        """Forget a listener."""
        here = self._listeners.get(listener.feed)
        if here is listener:
            del self._listeners[listener.feed]
        elif isinstance(here, list) and listener in here:
            here.remove(listener)
            if len(here) == 1:
                self._listeners[listener.feed] = here[0]
        self._stalled.discard(listener)
        if not self._left:
            asyncio.get_running_loop().call_soon(self._flush_left)
        self._left.append((listener.feed, self.connection_id(listener)))

    def _flush_left(self) -> None:
        left, self._left = self._left, []
        if not left:
            return
        try:
            future = self._feeds.leave((feed, (connection,)) for feed, connection in left)
        except Unavailable:
            self._left = left[-MOST_LEFT:]  # for the next tick
            return
        future.add_done_callback(functools.partial(self._were_removed, left))

    def _were_removed(self, left: list[tuple[str, str]], future: asyncio.Future[list[Any]]) -> None:
        error = future.exception()
        results = [error] * len(left) if error is not None else future.result()
        failed = [x for x, r in zip(left, results, strict=True) if isinstance(r, PushError)]
        self._left = (self._left + failed)[-MOST_LEFT:]

    def _add(self, listener: Listener) -> None:
        here = self._listeners.get(listener.feed)
        if here is None:
            self._listeners[listener.feed] = listener
        elif isinstance(here, list):
            here.append(listener)
        else:
            self._listeners[listener.feed] = [here, listener]

    def _of(self, feed: str) -> Sequence[Listener]:
        here = self._listeners.get(feed)
        if here is None:
            return ()
        return list(here) if isinstance(here, list) else (here,)

    # --- from the courier ----------------------------------------------------------------------

    def deliver(self, entries: Iterable[Copy]) -> None:
        """Hand new entries to their listeners."""
        now = self._clock()
        redis_time = self._leases.redis_time()
        window = self._policy.window
        delivered = direct = late = 0
        for feed, entry_id, previous, body in entries:
            frame = b""
            for listener in self._of(feed):
                cursor = listener.session.cursor
                if cursor.offer(entry_id, previous, window) and listener.writable():
                    if not frame:
                        frame = frames.text(messages.notification(entry_id, body, 1))
                    idle = cursor.unacked is None
                    cursor.take(entry_id, now)
                    listener.write(frame)
                    if idle:
                        listener.watch()
                    delivered += 1
                else:
                    late += 1
                    self._catch_up(listener, "gap")
            if frame:
                direct += 1
                age = redis_time - ids.milliseconds(entry_id) / 1000
                metrics.deliver_seconds.observe(max(0.0, age))
        if delivered:
            metrics.delivered.inc(delivered)
            metrics.courier_entries.labels("direct").inc(direct)
        if late:
            metrics.courier_entries.labels("late").inc(late)

    # --- from the feed -------------------------------------------------------------------------

    def _catch_up(self, listener: Listener, cause: str) -> None:
        """Read on where there is something to read and room to send it."""
        if listener.writable() and listener.session.cursor.wants(self._policy.window):
            self._read(listener, cause)

    def _read(self, listener: Listener, cause: str) -> None:
        session = listener.session
        try:
            future = self._feeds.read(listener.feed, session.device, session.cursor.sent)
        except Unavailable:
            self._stalled.add(listener)
            return
        session.cursor.reading = True
        metrics.feed_reads.labels(cause).inc()
        future.add_done_callback(functools.partial(self._was_read, listener, cause))

    def _was_read(self, listener: Listener, cause: str, future: asyncio.Future[list[Any]]) -> None:
        listener.session.cursor.reading = False
        try:
            backlog = Feeds.backlog(future.result()[0])
        except PushError:
            self._stalled.add(listener)
            return
        self._feed(listener, backlog, cause)

    def _feed(self, listener: Listener, backlog: Backlog, cause: str, first: bytes = b"") -> None:
        """Carry out what the cursor makes of an answer of the feed."""
        now = self._clock()
        cursor = listener.session.cursor
        cursor.reading = False
        if not listener.writable():
            cursor.head = max(cursor.head, backlog.head)
            return
        chunk = [first] if first else []
        size = len(first)
        delivered = redelivered = 0
        for step in cursor.plan(backlog, self._policy.window, now):
            frame = frames.text(self._payload(step))
            if isinstance(step, Deliver):
                cursor.take(step.entry.id, now)
                delivered += step.attempt == 1
                redelivered += step.attempt > 1
            else:
                metrics.gaps.labels(step.reason).inc()
            chunk.append(frame)
            size += len(frame)
            if size >= CHUNK:
                listener.write(b"".join(chunk))
                chunk, size = [], 0
                if not listener.writable():
                    break
        if chunk:
            listener.write(b"".join(chunk))
        if delivered:
            metrics.delivered.inc(delivered)
        if redelivered:
            metrics.redelivered.inc(redelivered)
        if cursor.unacked is not None:
            listener.watch()
        self._catch_up(listener, cause)

    @staticmethod
    def _payload(step: Step) -> bytes:
        if isinstance(step, Deliver):
            return messages.notification(step.entry.id, step.entry.body or b"", step.attempt)
        return messages.gap(step.after, step.reason)

    # --- from the listeners --------------------------------------------------------------------

    def drained(self, listener: Listener) -> None:
        """The listener has room again."""
        self._catch_up(listener, "slow")

    def acked(self, listener: Listener, ack: Acked) -> None:
        """Write the device's position down, and read on if the window was full."""
        if ack.moved:
            age = self._leases.redis_time() - ids.milliseconds(ack.id) / 1000
            metrics.ack_seconds.observe(max(0.0, age))
            metrics.acked.inc()
        self._acks.add(listener.feed, listener.session.device, ack.id, listener, ack.ref)
        self._catch_up(listener, "window")

    def redeliver(self, listener: Listener) -> None:
        """The cursor was rewound: send again what is still not acknowledged."""
        if listener.writable():
            self._read(listener, "redelivery")

    # --- time ----------------------------------------------------------------------------------

    def tick(self) -> None:
        """Try again what failed, and sweep; to be called once a second."""
        self._acks.flush()
        self._flush_left()
        stalled, self._stalled = self._stalled, set()
        for listener in stalled:
            if listener.writable() and not listener.session.cursor.reading:
                self._read(listener, "retry")
        self._sweep(self._rota.turn(lambda: list(self._listeners), self._clock()))

    def sweep_soon(self) -> None:
        """Copies may have been lost: look at every feed within seconds."""
        self._rota.hurry()

    def _sweep(self, feeds: list[str]) -> None:
        for listeners in self._batches(feeds):
            checks = [(each.feed, self.connection_id(each)) for each in listeners]
            try:
                future = self._feeds.check(checks)
            except Unavailable:
                self._rota.put_back([each.feed for each in listeners])
            else:
                future.add_done_callback(functools.partial(self._checked, listeners))

    def _batches(self, feeds: Sequence[str]) -> Iterator[list[Listener]]:
        """The listeners of feeds, those whose handshake is under way aside."""
        listeners = [each for feed in feeds for each in self._of(feed) if each.open]
        for first in range(0, len(listeners), BATCH):
            yield listeners[first : first + BATCH]

    def _checked(self, listeners: list[Listener], future: asyncio.Future[list[Any]]) -> None:
        try:
            heads = future.result()
        except PushError:
            self._rota.put_back([each.feed for each in listeners])
            return
        unregistered = []
        late = 0
        for listener, head in zip(listeners, heads, strict=True):
            if isinstance(head, PushError) or not listener.open:
                continue  # registered now, one that has left would stay so
            if head is None:
                unregistered.append(listener)
                continue
            cursor = listener.session.cursor
            newest = ids.parse(head)
            if newest == cursor.sent or cursor.reading or not listener.writable():
                continue
            # Further on means that a copy was lost; further back, that Redis lost entries.
            late += 1
            cursor.head = max(cursor.head, newest)
            if newest < cursor.sent or cursor.wants(self._policy.window):
                self._read(listener, "sweep")
        metrics.sweeps.labels("in step").inc(len(listeners) - late - len(unregistered))
        metrics.sweeps.labels("late").inc(late)
        metrics.sweeps.labels("unregistered").inc(len(unregistered))
        if unregistered:
            log.warning("registrations were lost", connections=len(unregistered))
            self._join_again(unregistered)

    # --- after a lapse -------------------------------------------------------------------------

    def rename(self, node: str) -> None:
        """Register under a new node id from now on: the lease of the old one lapsed."""
        self._former.append(self.node)
        self._left.clear()  # their lease has taken them along
        self.node = node

    async def rejoin(self, node: str) -> None:
        """Register every connection under a new node id, and close every gap.

        Raises:
            Unavailable: Redis cannot be reached; to be called again.
        """
        if node != self.node:
            self.rename(node)
        former = len(self._former)
        for listeners in self._batches(list(self._listeners)):
            if self._former:
                # First, and in the same lane: they count as connections of the user.
                self._feeds.clean(
                    (each.feed, [f"{node}.{each.number:x}" for node in self._former])
                    for each in listeners
                )
            future = self._join_again(listeners)
            if future is not None:
                await asyncio.wait([future])
                if future.exception() is None:
                    continue
            raise Unavailable("the connections could not be registered again")
        del self._former[:former]

    def _join_again(self, listeners: list[Listener]) -> asyncio.Future[list[Any]] | None:
        # Who left since the batch was made has been unregistered, and must stay so.
        listeners = [each for each in listeners if each.open]
        try:
            future = self._feeds.join(
                [self._registration(each, each.session.cursor.sent) for each in listeners]
            )
        except Unavailable:
            return None
        for listener in listeners:
            listener.session.cursor.reading = True
        future.add_done_callback(functools.partial(self._joined_again, listeners))
        return future

    def _joined_again(self, listeners: list[Listener], future: asyncio.Future[list[Any]]) -> None:
        error = future.exception()
        results = [error] * len(listeners) if error is not None else future.result()
        for listener, result in zip(listeners, results, strict=True):
            listener.session.cursor.reading = False
            try:
                backlog = Feeds.joined(result)
            except PushError:
                self._stalled.add(listener)
            else:
                self._feed(listener, backlog, "rejoin")

    async def aclose(self) -> None:
        """Write down what was acknowledged."""
        await self._acks.aclose()
