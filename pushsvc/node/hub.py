"""From mailboxes and the broadcast to their listeners.

A listener that is in step with its feed gets each new entry straight from the courier. One that is
not, because it is slow, its window is full, or a copy was lost, is fed from the feed, one read at a
time. Nothing is awaited per listener.
"""

import asyncio
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import structlog

from pushsvc import metrics
from pushsvc.errors import PushError, Unavailable
from pushsvc.feeds.feed import Feeds, Full, Join
from pushsvc.feeds.journal import CLOSED, SENT, SPREAD, WITHDRAWN, Journal, connection_id
from pushsvc.feeds.nodes import Copy, Leases, Notice
from pushsvc.node.acks import Acks
from pushsvc.node.broadcast import Broadcast
from pushsvc.node.feeder import Feeder, Listener
from pushsvc.node.rota import Rota
from pushsvc.node.spans import Spans
from pushsvc.node.topics import Topics
from pushsvc.protocol import ids, messages
from pushsvc.protocol.delivery import Backlog, Cursor
from pushsvc.protocol.feeds import BROADCAST, MAILBOX
from pushsvc.protocol.messages import Ref
from pushsvc.protocol.session import Acked, Policy
from pushsvc.protocol.wire import Wire

BATCH: Final = 256
"""Most listeners that join or are checked in one submission."""
MOST_LEFT: Final = 10_000
"""Most registrations that wait to be removed while Redis cannot be reached."""
SWEEP_NOW: Final = 5
"""Seconds over which an urgent sweep is spread."""

NOWHERE: Final[Mapping[str, int]] = MappingProxyType({})
"""The positions of a client that holds none."""

log = structlog.get_logger("pushsvc.hub")


class Hub:
    """The listeners of a worker.

    Args:
        node: the id under which connections are registered.
        feeds: where they are registered and read from.
        leases: who is live, and Redis time.
        acks: writes positions down.
        feeder: feeds those that are not in step.
        topics: what some listen to.
        policy: the rules of every session.
        journal: remembers what happens to notifications.
        sweep_seconds: the longest that a lost copy can delay an entry for a quiet user.
        clock: seconds on a monotonic clock.
        spans: of what is sent and acknowledged; None where nothing is traced.
    """

    def __init__(
        self,
        node: str,
        feeds: Feeds,
        leases: Leases,
        acks: Acks,
        feeder: Feeder,
        topics: Topics,
        policy: Policy,
        journal: Journal,
        *,
        sweep_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        spans: Spans | None = None,
    ) -> None:
        self.node = node
        self._feeds = feeds
        self._leases = leases
        self._policy = policy
        self._journal = journal
        self._clock = clock
        self._spans = spans
        self._acks = acks
        self._feeder = feeder
        self._broadcast = Broadcast(node, feeds, feeder, policy, lambda: self)
        self._topics = topics
        # Most feeds have one listener, which then stands for itself.
        self._listeners: dict[str, Listener | list[Listener]] = {}
        self._count = 0
        # Registrations to remove, each with its feed: one that stayed would count as a connection
        # of the user for as long as this node lives.
        self._left: list[tuple[str, str]] = []
        # Ids that this node had before its lease lapsed, with registrations still to be removed.
        self._former: list[str] = []
        self._rota = Rota(sweep_seconds, SWEEP_NOW, clock())

    def __iter__(self) -> Iterator[Listener]:
        """All listeners, those included whose handshake is under way."""
        for here in self._listeners.values():
            if isinstance(here, list):
                yield from here
            else:
                yield here

    def connection_id(self, listener: Listener) -> str:
        """The id under which a listener is registered."""
        return connection_id(self.node, listener.number)

    # --- coming and going ----------------------------------------------------------------------

    async def join(
        self, listener: Listener, held: Mapping[str, int] = NOWHERE, *, withdrawn: bool = True
    ) -> Backlog:
        """Register a listener and read what it is owed.

        Args:
            listener: who comes.
            held: the positions that it says it holds, by feed; what it acknowledged counts where
                that is further.
            withdrawn: whether it is told what was withdrawn of that, while it was away.

        The listener is known here before Redis knows of it: what is published in between is
        noticed, and read after the backlog.

        Raises:
            TooManyConnections: the user holds as many connections as it may.
            Unavailable: Redis cannot be reached.
        """
        await self._broadcast.ready()
        session = listener.session
        cursor = session.cursor
        cursor.reading = session.broadcast.reading = True
        place = held.get(cursor.feed)
        self._add(listener)
        try:
            while True:
                registered = self.connection_id(listener)
                backlog = await self._join_with_room(listener, place, withdrawn=withdrawn)
                if registered == self.connection_id(listener):
                    break
                # Meanwhile the node came back under a new id, and nothing is sent to the old one.
                self._feeds.clean([(cursor.feed, [registered])])
        except BaseException:
            # The join may have happened all the same.
            self.left(listener)
            raise
        cursor.begin(backlog.cursor, place)
        session.broadcast.begin(backlog.broadcast, held.get(BROADCAST))
        return backlog

    async def _join_with_room(
        self, listener: Listener, held: int | None, *, withdrawn: bool
    ) -> Backlog:
        registration = self._registration(listener, held, again=False)
        registration = registration._replace(withdrawn=withdrawn)
        try:
            return await self._join_one(registration)
        except Full as full:
            dead = await self._leases.dead(full.listeners)
            if not dead:
                raise
            self._feeds.clean([(registration.feed, dead)])
            return await self._join_one(registration)

    async def _join_one(self, registration: Join) -> Backlog:
        (result,) = await self._feeds.join([registration])
        return Feeds.joined(result)

    def _registration(self, listener: Listener, held: int | None, *, again: bool) -> Join:
        session = listener.session
        return Join(
            session.cursor.feed,
            self.connection_id(listener),
            session.device,
            held,
            self._broadcast.head,
            again,
            withdrawn=True,
        )

    def start(self, listener: Listener, backlog: Backlog, first: bytes) -> None:
        """Send ``first`` and then the backlog, in one segment where it is small."""
        session = listener.session
        self._feeder.feed(listener, session.cursor, backlog, "backlog", first)
        session.broadcast.reading = False
        self._broadcast.started(listener)

    def left(self, listener: Listener) -> None:
        """Forget a listener."""
        self._count -= 1
        cursor = listener.session.cursor
        feed = cursor.feed
        if cursor.unacked and self._journal.takes(cursor.unacked[-1]):
            at = self._leases.redis_time()
            first, last = cursor.unacked[0], cursor.unacked[-1]
            self._journal.add((at, CLOSED, feed, last, cursor.device, listener.number, first))
        if self._spans is not None:
            self._spans.left(listener.number)
        here = self._listeners.get(feed)
        if here is listener:
            del self._listeners[feed]
        elif isinstance(here, list) and listener in here:
            here.remove(listener)
            if len(here) == 1:
                self._listeners[feed] = here[0]
        self._topics.left(listener)
        if not self._left:
            asyncio.get_running_loop().call_soon(self._flush_left)
        self._left.append((feed, self.connection_id(listener)))

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
        feed = listener.session.cursor.feed
        here = self._listeners.get(feed)
        self._count += 1
        if here is None:
            self._listeners[feed] = listener
        elif isinstance(here, list):
            here.append(listener)
        else:
            self._listeners[feed] = [here, listener]

    def listeners_of(self, feed: str) -> Sequence[Listener]:
        """The listeners of a mailbox, those included whose handshake is under way."""
        here = self._listeners.get(feed)
        if here is None:
            return ()
        return list(here) if isinstance(here, list) else (here,)

    # --- from the courier ----------------------------------------------------------------------

    def deliver(self, entries: Iterable[Copy]) -> None:
        """Hand new entries to their listeners."""
        now = self._clock()
        redis_time = self._leases.redis_time()
        delivered = direct = late = 0
        for copy in entries:
            if not copy.id:
                self._pass_on(copy, redis_time)
                continue
            if copy.feed.startswith(MAILBOX):
                sent, missed = self._deliver(copy, now, redis_time)
            else:
                if copy.feed == BROADCAST:
                    sent, missed = self._broadcast.deliver(copy, now)
                else:
                    sent, missed = self._topics.deliver(copy)
                if (sent or missed) and self._journal.takes(copy.id):
                    self._journal.add((redis_time, SPREAD, copy.feed, copy.id, sent, missed))
                if self._spans is not None and (sent or missed):
                    self._spans.spread(copy.feed, copy.id, copy.body, sent, missed)
            delivered += sent
            late += missed
            if sent:
                direct += 1
                age = redis_time - ids.milliseconds(copy.id) / 1000
                metrics.deliver_seconds.observe(max(0.0, age))
        if delivered:
            metrics.delivered.inc(delivered)
            metrics.courier_entries.labels("direct").inc(direct)
        if late:
            metrics.courier_entries.labels("late").inc(late)

    def _deliver(self, copy: Copy, now: float, redis_time: float) -> tuple[int, int]:
        """Hand a mailbox's entry to its listeners; how many got it, and how many read it later."""
        remembered = self._journal.takes(copy.id)
        feed, entry_id, previous, body = copy
        window = self._policy.window
        frames: dict[Wire, bytes] = {}
        delivered = late = 0
        withdrawals = self._feeder.withdrawals
        withdrawn = bool(withdrawals) and withdrawals.holds(feed, entry_id)
        spans = self._spans
        delivery = None if spans is None else spans.delivery(feed, entry_id, body)
        for listener in self.listeners_of(feed):
            cursor = listener.session.cursor
            if withdrawn and cursor.offer(entry_id, previous, window):
                cursor.skip(entry_id)
                continue
            if cursor.offer(entry_id, previous, window) and listener.writable():
                wire = listener.wire
                frame = frames.get(wire)
                if frame is None:
                    payload = messages.notification(entry_id, body, 1)
                    frame = frames[wire] = wire.entry(feed, entry_id, payload)
                idle = cursor.unacked is None
                cursor.take(entry_id, now)
                listener.write(frame)
                if idle:
                    listener.watch()
                if remembered:
                    # The cursor's strings live as long as the connection; the copy's would be kept.
                    number = listener.number
                    self._journal.add(
                        (redis_time, SENT, cursor.feed, entry_id, cursor.device, number, 1)
                    )
                if delivery is not None:
                    delivery.to(listener.number, 1)
                delivered += 1
            else:
                late += 1
                self._feeder.catch_up(listener, cursor, "gap")
        return delivered, late

    def _pass_on(self, copy: Copy, redis_time: float) -> None:
        """Hand over what is no entry of a feed, to whom there is room for it."""
        payload = messages.ephemeral(redis_time, copy.body)
        if copy.feed.startswith(MAILBOX):
            listeners: Iterable[Listener] = self.listeners_of(copy.feed)
        elif copy.feed == BROADCAST:
            listeners = list(self)
        else:
            listeners = self._topics.in_step(copy.feed)
        delivered = dropped = 0
        frames: dict[Wire, bytes] = {}
        for listener in listeners:
            if not listener.writable():
                dropped += 1
                continue
            wire = listener.wire
            frame = frames.get(wire)
            if frame is None:
                frame = frames[wire] = wire.message(payload)
            listener.write(frame)
            delivered += 1
        metrics.delivered.inc(delivered)
        metrics.ephemeral_dropped.labels("connection").inc(dropped)
        if self._spans is not None and delivered:
            self._spans.spread(copy.feed, 0, copy.body, delivered, 0)

    def notice(self, notice: Notice) -> None:
        """Act on what listeners of a feed have to know."""
        if notice.kind == "acked":
            device, position, kind = notice.values
            self._acked_elsewhere(notice.feed, device, ids.parse(position), kind)
        elif notice.kind == "withdrawn":
            entry_id, reason = notice.values
            self._withdrawn(notice.feed, ids.parse(entry_id), reason)
        elif notice.kind == "presence":
            self._topics.presence_changed(notice.feed)

    def _acked_elsewhere(self, feed: str, device: str, position: int, kind: str) -> None:
        for listener in self.listeners_of(feed):
            session = listener.session
            if session.device == device:
                cursor = session.broadcast if kind.startswith("broadcast") else session.cursor
                if cursor.settle(position, self._clock()):
                    if self._spans is not None and cursor is session.cursor:
                        self._spans.acked(listener.number, position)
                    self._feeder.catch_up(listener, cursor, "window")

    def _withdrawn(self, feed: str, entry_id: int, reason: str) -> None:
        if self.listeners_of(feed):
            at = self._leases.redis_time()
            self._journal.add((at, WITHDRAWN, feed, entry_id, reason))
            self._feeder.withdrawals.add(feed, entry_id, self._clock())
        for listener in self.listeners_of(feed):
            if listener.open and listener.session.cursor.withdraw(entry_id):
                listener.send(messages.withdrawn(entry_id, reason))
                # It may have left room in the window.
                self._feeder.catch_up(listener, listener.session.cursor, "window")

    # --- from the listeners --------------------------------------------------------------------

    def drained(self, listener: Listener) -> None:
        """The listener has room again."""
        session = listener.session
        self._feeder.catch_up(listener, session.cursor, "slow")
        self._feeder.catch_up(listener, session.broadcast, "slow")
        self._topics.drained(listener)

    def acked(self, listener: Listener, ack: Acked) -> None:
        """Write the device's position down, and read on if the window was full."""
        if ack.moved:
            age = self._leases.redis_time() - ids.milliseconds(ack.id) / 1000
            metrics.ack_seconds.observe(max(0.0, age))
            metrics.acked.inc()
        session = listener.session
        if self._spans is not None and ack.moved and ack.cursor is session.cursor:
            self._spans.acked(listener.number, ack.id)
        answer = None
        if ack.ref is not None:
            answer = functools.partial(_answer, listener, ack.ref)
        self._acks.add(
            session.cursor.feed,
            session.device,
            ack.id,
            "" if ack.cursor is session.cursor else "broadcast",
            self.connection_id(listener),
            answer,
        )
        self._feeder.catch_up(listener, ack.cursor, "window")

    def redeliver(self, listener: Listener, cursor: Cursor) -> None:
        """The cursor was rewound: send again what is still not acknowledged."""
        if cursor is listener.session.broadcast:
            self._broadcast.redeliver(listener)
            return
        if listener.writable():
            self._feeder.read(listener, cursor, "redelivery")

    # --- time ----------------------------------------------------------------------------------

    def tick(self) -> None:
        """Try again what failed, and sweep; to be called once a second."""
        self._journal.tick()
        self._acks.flush()
        self._flush_left()
        self._feeder.tick()
        self._feeder.withdrawals.tick(self._clock())
        self._broadcast.tick(self._count)
        self._topics.tick()
        self._sweep(self._rota.turn(lambda: list(self._listeners), self._clock()))

    def sweep_soon(self) -> None:
        """Copies may have been lost: look at every feed within seconds."""
        self._rota.hurry()
        self._broadcast.check()
        self._topics.sweep_soon()

    def _sweep(self, feeds: list[str]) -> None:
        for listeners in self._batches(feeds):
            checks = [(each.session.cursor.feed, self.connection_id(each)) for each in listeners]
            try:
                future = self._feeds.check(checks)
            except Unavailable:
                self._rota.put_back([each.session.cursor.feed for each in listeners])
            else:
                future.add_done_callback(functools.partial(self._checked, listeners))

    def _batches(self, feeds: Sequence[str]) -> Iterator[list[Listener]]:
        """The listeners of feeds, those whose handshake is under way aside."""
        listeners = [each for feed in feeds for each in self.listeners_of(feed) if each.open]
        for first in range(0, len(listeners), BATCH):
            yield listeners[first : first + BATCH]

    def _checked(self, listeners: list[Listener], future: asyncio.Future[list[Any]]) -> None:
        try:
            heads = future.result()
        except PushError:
            self._rota.put_back([each.session.cursor.feed for each in listeners])
            return
        unregistered = []
        failed = []
        late = 0
        for listener, head in zip(listeners, heads, strict=True):
            if not listener.open:
                continue  # registered now, one that has left would stay so
            if isinstance(head, PushError):
                failed.append(listener.session.cursor.feed)
                continue
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
                self._feeder.read(listener, cursor, "sweep")
        if failed:
            self._rota.put_back(failed)
        metrics.sweeps.labels("in step").inc(
            len(listeners) - late - len(unregistered) - len(failed)
        )
        metrics.sweeps.labels("late").inc(late)
        metrics.sweeps.labels("unregistered").inc(len(unregistered))
        if unregistered:
            log.warning("registrations were lost", connections=len(unregistered))
            self._join_again(unregistered)

    def close(self) -> None:
        """Remove what is registered still, as far as Redis can be reached."""
        self._flush_left()
        self._broadcast.close()

    # --- after a lapse -------------------------------------------------------------------------

    def rename(self, node: str) -> None:
        """Register under a new node id from now on: the lease of the old one lapsed."""
        self._former.append(self.node)
        self._left.clear()  # their lease has taken them along
        self.node = node
        self._topics.node = self._broadcast.node = node

    async def rejoin(self, node: str) -> None:
        """Register every connection under a new node id, and close every gap.

        Raises:
            Unavailable: Redis cannot be reached; to be called again.
        """
        if node != self.node:
            self.rename(node)
        former = len(self._former)
        # Now, so that the former registration of who leaves meanwhile is removed as well.
        batches = list(self._batches(list(self._listeners)))
        try:
            await self._broadcast.register()
        except PushError as error:
            raise Unavailable("the broadcast could not be registered again") from error
        await self._topics.register()
        for listeners in batches:
            if self._former:
                # First, and in the same lane: they count as connections of the user.
                self._feeds.clean(
                    (each.session.cursor.feed, [f"{node}.{each.number:x}" for node in self._former])
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
                [
                    self._registration(each, each.session.cursor.sent, again=True)
                    for each in listeners
                ]
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
            cursor = listener.session.cursor
            try:
                backlog = Feeds.joined(result)
            except PushError:
                self._rota.put_back([cursor.feed])  # it may not be registered
                self._feeder.read(listener, cursor, "retry")
            else:
                self._feeder.feed(listener, cursor, backlog, "rejoin")

    async def aclose(self) -> None:
        """Write down what was acknowledged."""
        await self._acks.aclose()


def _answer(listener: Listener, ref: Ref, position: int) -> None:
    listener.send(messages.reply(ref, acked=ids.render(position)))
