"""Topics: from the feed of a topic to those of its subscribers that are in step, and to the rest.

Redis knows the node as one listener; the node knows the subscribers. A **channel** has one place in
the feed that all subscribers share which are in step with it, so that an entry costs each of them
one system call and nothing else. One whose socket is full falls behind: it gets a place of its own,
reads on from the feed when there is room again, and is in step once its place is the channel's.
"""

import asyncio
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from pushsvc import metrics
from pushsvc.errors import PushError, Unavailable
from pushsvc.feeds.feed import Feeds, Rest
from pushsvc.feeds.nodes import Copy
from pushsvc.node.feeder import Feeder, Listener, Reader, own, told
from pushsvc.node.presence import Presence
from pushsvc.node.rota import Rota
from pushsvc.protocol import ids, messages
from pushsvc.protocol.delivery import Backlog, Cursor, Deliver
from pushsvc.protocol.feeds import name_of, topic
from pushsvc.protocol.messages import Ref
from pushsvc.protocol.session import Subscribe
from pushsvc.protocol.wire import Wire

BATCH: Final = 256
"""Most channels that are registered or checked in one submission."""
SWEEP_NOW: Final = 5
"""Seconds over which an urgent sweep is spread."""

FanOut = Callable[[Iterable[Any], bytes], list[Any]]
"""Writes a frame to connections; those that could not take it."""


class Channel:
    """A topic that someone here listens to.

    Attributes:
        cursor: the place that those in step share.
        in_step: the subscribers that are in step, by how they are written to; those that share no
            frame are together under None.
        behind: those that have a place of their own.
        counted: how many Redis was told; less than none where it may not have heard.
    """

    __slots__ = ("behind", "counted", "cursor", "in_step", "registered")

    def __init__(self, feed: str) -> None:
        self.cursor = Cursor(feed, acks=False)
        self.in_step: dict[Wire | None, dict[Listener, None]] = {}
        self.behind: dict[Listener, Cursor] = {}
        self.registered = False
        self.counted = 0

    def __len__(self) -> int:
        return len(self.behind) + sum(map(len, self.in_step.values()))

    def put_in_step(self, listener: Listener) -> None:
        """From now on the listener shares the channel's place."""
        self.behind.pop(listener, None)
        wire = listener.wire if listener.wire.shared else None
        self.in_step.setdefault(wire, {})[listener] = None

    def remove(self, listener: Listener) -> None:
        """Forget a subscriber."""
        if self.behind.pop(listener, None) is None:
            wire = listener.wire if listener.wire.shared else None
            self.in_step.get(wire, {}).pop(listener, None)


class Topics:
    """The topics of a worker.

    Args:
        node: the id under which the node is registered.
        feeds: where.
        reader: of the feeds, for the channels.
        feeder: feeds those that are behind; its ``caught_up`` is taken.
        presence: who is here.
        fan_out: writes to connections.
        sweep_seconds: the longest that a lost copy can delay an entry of a quiet topic.
        clock: seconds on a monotonic clock.
    """

    def __init__(
        self,
        node: str,
        feeds: Feeds,
        reader: Reader,
        feeder: Feeder,
        presence: Presence,
        fan_out: FanOut,
        *,
        sweep_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self.node = node
        self.presence = presence
        self._feeds = feeds
        self._reader = reader
        self._feeder = feeder
        self._fan_out = fan_out
        self._clock = clock
        self._channels: dict[str, Channel] = {}
        # Places whose listener has not been sent all of the state yet, which takes several reads
        # and room in its socket, and where the state that it was promised ends.
        self._beginning: dict[Cursor, tuple[Listener, int]] = {}
        self._rota = Rota(sweep_seconds, SWEEP_NOW, clock())
        feeder.caught_up = self._caught_up

    # --- coming and going ----------------------------------------------------------------------

    def subscribe(
        self, listener: Listener, request: Subscribe, done: Callable[[], None] = lambda: None
    ) -> None:
        """Let a listener have topics, each from a position or from its state on.

        ``done`` is called once it was handed what is kept, or was refused.
        """
        session = listener.session
        if session.topics is None:
            session.topics = {}
        new = {name: since for name, since in request.topics.items() if name not in session.topics}
        wanted = []
        asked: dict[str, tuple[Channel, Cursor]] = {}
        for name, since in new.items():
            feed = topic(name)
            channel = self._channels.get(feed)
            if channel is None:
                channel = self._channels[feed] = Channel(feed)
                channel.cursor.reading = True  # until the registration is answered
            cursor = Cursor(feed, acks=False, reading=True)
            cursor.begin(ids.START, since)
            channel.behind[listener] = session.topics[name] = cursor
            self.presence.came(feed, session.user)
            channel.counted = len(channel)
            asked[name] = channel, cursor
            wanted.append((feed, self.node, channel.counted, since))
        try:
            future = self._feeds.subscribe(wanted)
        except Unavailable as error:
            self._refuse(listener, request.ref, asked, error)
            done()
            return
        future.add_done_callback(
            functools.partial(self._subscribed, listener, request, asked, self.node)
        )
        future.add_done_callback(lambda _: done())

    def _subscribed(
        self,
        listener: Listener,
        request: Subscribe,
        asked: dict[str, tuple[Channel, Cursor]],
        node: str,
        future: asyncio.Future[list[Any]],
    ) -> None:
        error = future.exception()
        results = [error] * len(asked) if error is not None else future.result()
        backlogs: dict[str, Backlog] = {}
        for (name, (channel, _)), result in zip(asked.items(), results, strict=True):
            try:
                backlog = Feeds.backlog(result)
            except PushError as refused:
                self._refuse(listener, request.ref, asked, refused)
                return
            backlogs[name] = backlog
            self._registered(channel, backlog, node)
        if not listener.open:
            return
        if request.ref is not None:
            last = {name: self._last(name, backlogs) for name in request.topics}
            listener.send(_reply(request, last))
        for name, backlog in backlogs.items():
            _, cursor = asked[name]
            if request.topics[name] is None:
                self._begin(listener, cursor, backlog, backlog.head)
            else:
                self._feeder.feed(listener, cursor, own(cursor, backlog), "backlog")

    def _begin(self, listener: Listener, cursor: Cursor, state: Backlog, upto: int) -> None:
        """Hand over the state of a topic, or what of it was read and there is room for."""
        known = cursor.head
        # Until all of it is sent, nothing is read from the feed, which would tell the history.
        cursor.head = ids.START
        self._beginning[cursor] = listener, upto
        part = state._replace(head=state.upto)
        self._feeder.feed(listener, cursor, own(cursor, part), "backlog")
        cursor.head = max(known, state.head)
        if cursor.over or cursor.sent >= upto:
            del self._beginning[cursor]
            self._feeder.catch_up(listener, cursor, "backlog")
            if not cursor.reading:
                self._caught_up(listener, cursor)
            return
        cursor.reading = True
        if listener.writable():
            self._begin_again(listener, cursor)

    def _begin_again(self, listener: Listener, cursor: Cursor) -> None:
        """Go on with the state of a topic, now that there is room."""
        _, upto = self._beginning.pop(cursor)
        channel = self._channels.get(cursor.feed)
        if channel is None or cursor.over:
            return
        rest = Rest(cursor.sent, upto)
        try:
            future = self._feeds.subscribe([(cursor.feed, self.node, len(channel), rest)])
        except Unavailable:
            self._beginning[cursor] = listener, upto
        else:
            future.add_done_callback(functools.partial(self._began_again, listener, cursor, upto))

    def _began_again(
        self, listener: Listener, cursor: Cursor, upto: int, future: asyncio.Future[list[Any]]
    ) -> None:
        try:
            state = Feeds.backlog(future.result()[0])
        except PushError:
            self._beginning[cursor] = listener, upto
            return
        # What came since is read from the feed, where not only the latest of each key is. If Redis
        # lost what was promised, it is the state as it is now.
        upto = state.head if state.gap else min(upto, state.head)
        self._begin(listener, cursor, state, upto)

    def _last(self, name: str, backlogs: dict[str, Backlog]) -> str:
        backlog = backlogs.get(name)
        if backlog is not None:
            return ids.render(backlog.head)
        channel = self._channels.get(topic(name))
        return ids.render(ids.START if channel is None else channel.cursor.sent)

    def _registered(self, channel: Channel, backlog: Backlog, node: str) -> None:
        """The first answer tells where a channel begins: what comes later is routed here."""
        if channel.registered or node != self.node:
            return
        channel.registered = True
        cursor = channel.cursor
        cursor.reading = False
        cursor.sent = backlog.head
        for listener, own_cursor in list(channel.behind.items()):
            own_cursor.head = max(own_cursor.head, cursor.sent)
            self._caught_up(listener, own_cursor)
        self._read_on(channel, "gap")

    def _refuse(
        self,
        listener: Listener,
        ref: Ref,
        asked: dict[str, tuple[Channel, Cursor]],
        error: PushError,
    ) -> None:
        for name, (_, cursor) in asked.items():
            if not cursor.over:
                self._leave(listener, name)
        listener.send(messages.error(error, ref))

    def unsubscribe(self, listener: Listener, name: str, ref: Ref) -> None:
        """Let a listener have a topic no more."""
        self._leave(listener, name)
        if ref is not None:
            listener.send(messages.reply(ref, topic=name))

    def left(self, listener: Listener) -> None:
        """Forget a listener."""
        for name in list(listener.session.topics or ()):
            self._leave(listener, name)

    def _leave(self, listener: Listener, name: str) -> None:
        topics = listener.session.topics
        if not topics or name not in topics:
            return
        cursor = topics.pop(name)
        if cursor is not None:
            cursor.over = True
        feed = topic(name)
        self.presence.left(feed, listener.session.user)
        self.presence.unfollow(listener, feed)
        channel = self._channels.get(feed)
        if channel is None:
            return
        channel.remove(listener)
        if not len(channel):
            del self._channels[feed]
            self._feeds.clean([(feed, [self.node])])

    def ask(self, listener: Listener, name: str, ref: Ref) -> None:
        """Say who listens to a topic, and to who listens itself, who comes and goes."""
        self.presence.ask(listener, name, ref, follows=name in (listener.session.topics or ()))

    def presence_changed(self, feed: str) -> None:
        """Another node says that someone came or went."""
        self.presence.changed(feed)

    # --- from the courier ----------------------------------------------------------------------

    def in_step(self, feed: str) -> Sequence[Listener]:
        """Those that are in step with a topic."""
        channel = self._channels.get(feed)
        if channel is None:
            return ()
        return [listener for members in channel.in_step.values() for listener in members]

    def deliver(self, copy: Copy) -> tuple[int, int]:
        """Hand an entry to its subscribers; how many got it, and how many read it later."""
        channel = self._channels.get(copy.feed)
        if channel is None:
            # The farewell was lost.
            self._feeds.clean([(copy.feed, [self.node])])
            return 0, 0
        cursor = channel.cursor
        if not cursor.offer(copy.id, copy.previous, 1):
            if cursor.sent >= copy.id:
                return 0, 0
            self._read_on(channel, "gap")
            return 0, 1
        payload = messages.notification(copy.id, copy.body, 1)
        return self._hand_on(channel, copy.id, copy.previous, payload)

    def _hand_on(
        self, channel: Channel, entry_id: int, previous: int, payload: bytes
    ) -> tuple[int, int]:
        """Hand the channel's next entry on."""
        cursor = channel.cursor
        feed = cursor.feed
        delivered = 0
        blocked: list[Listener] = []
        for wire, members in channel.in_step.items():
            if wire is not None:
                delivered += len(members)
                blocked += self._fan_out(list(members), wire.entry(feed, entry_id, payload))
            else:
                for listener in list(members):
                    if listener.writable():
                        listener.write(listener.wire.entry(feed, entry_id, payload))
                        delivered += 1
                    elif listener.open:
                        blocked.append(listener)
                        delivered += 1
        was_behind = list(channel.behind.items())
        cursor.sent = entry_id
        for listener in blocked:
            self._fall_behind(channel, listener, previous)
        late = len(blocked)
        for listener, own_cursor in was_behind:
            own_cursor.head = max(own_cursor.head, entry_id)
            if own_cursor.sent == previous and not own_cursor.reading and listener.writable():
                listener.write(listener.wire.entry(feed, entry_id, payload))
                own_cursor.sent = entry_id
                delivered += 1
            if own_cursor.sent >= entry_id:
                self._caught_up(listener, own_cursor)
            else:
                late += 1
                self._feeder.catch_up(listener, own_cursor, "gap")
        return delivered - len(blocked), late

    def _fall_behind(self, channel: Channel, listener: Listener, position: int) -> None:
        topics = listener.session.topics
        if not topics or not listener.open:
            return
        channel.remove(listener)
        cursor = Cursor(channel.cursor.feed, acks=False)
        cursor.sent = position
        # It was to be told of something, be it that all entries are gone.
        cursor.head = max(channel.cursor.sent, position + 1)
        channel.behind[listener] = topics[name_of(cursor.feed)] = cursor

    def _caught_up(self, listener: Listener, cursor: Cursor) -> None:
        """A subscriber's own place may be the channel's now."""
        channel = self._channels.get(cursor.feed)
        if channel is None or channel.behind.get(listener) is not cursor:
            return
        if cursor in self._beginning:
            return
        place = channel.cursor
        if cursor.sent == place.sent and not place.reading and not cursor.reading:
            channel.put_in_step(listener)
            (listener.session.topics or {})[name_of(cursor.feed)] = None
        elif cursor.sent < place.sent:
            if cursor.sent < cursor.head or place.reading:
                self._feeder.catch_up(listener, cursor, "gap")
            else:
                # To this one the feed ends before the channel's place. If Redis lost entries, then
                # it is the channel that has to find out.
                self._read(channel, "gap")

    def drained(self, listener: Listener) -> None:
        """The listener has room again."""
        for cursor in list((listener.session.topics or {}).values()):
            if cursor in self._beginning:
                self._begin_again(listener, cursor)
            elif cursor is not None:
                self._feeder.catch_up(listener, cursor, "slow")

    # --- a channel that missed something -------------------------------------------------------

    def _read_on(self, channel: Channel, cause: str) -> None:
        if channel.cursor.wants(1):
            self._read(channel, cause)

    def _read(self, channel: Channel, cause: str) -> None:
        then = functools.partial(self._was_read, channel, cause)
        self._reader.read(channel.cursor, cause, then)

    def _was_read(self, channel: Channel, cause: str, backlog: Backlog) -> None:
        """Hand on what the copies did not bring."""
        cursor = channel.cursor
        cursor.reading = False
        if self._channels.get(cursor.feed) is not channel:
            return
        held = cursor.sent
        for step in cursor.plan(backlog, 1, self._clock()):
            entry_id, payload = told(cursor.feed, step)
            if isinstance(step, Deliver):
                delivered, _ = self._hand_on(channel, entry_id, cursor.sent, payload)
                metrics.delivered.inc(delivered)
                continue
            # Those in step missed it with the channel; the others find it out by themselves.
            for listener in self.in_step(cursor.feed):
                if listener.writable():
                    listener.write(listener.wire.entry(cursor.feed, entry_id, payload))
                else:
                    self._fall_behind(channel, listener, held)
        for listener, own_cursor in list(channel.behind.items()):
            own_cursor.head = max(own_cursor.head, cursor.sent)
            if backlog.gap == "reset" or own_cursor.sent > backlog.head:
                # Redis lost entries, which this one is told of when it reads.
                own_cursor.head = max(own_cursor.head, own_cursor.sent + 1)
                self._feeder.catch_up(listener, own_cursor, "gap")
            self._caught_up(listener, own_cursor)
        self._read_on(channel, cause)

    async def register(self) -> None:
        """Register every channel under the node's present id, and read what was missed.

        Raises:
            Unavailable: Redis cannot be reached.
        """
        self.presence.node = self.node
        self.presence.reassert()
        channels = list(self._channels.values())
        for first in range(0, len(channels), BATCH):
            future = self._register(channels[first : first + BATCH])
            await asyncio.wait([future])
            if future.exception() is not None:
                raise Unavailable("the topics could not be registered again")

    def _register(self, channels: list[Channel]) -> asyncio.Future[list[Any]]:
        future = self._feeds.subscribe(
            (
                each.cursor.feed,
                self.node,
                len(each),
                each.cursor.sent if each.registered else None,
            )
            for each in channels
        )
        future.add_done_callback(functools.partial(self._registered_again, channels, self.node))
        return future

    def _registered_again(
        self, channels: list[Channel], node: str, future: asyncio.Future[list[Any]]
    ) -> None:
        if future.cancelled() or future.exception() is not None:
            return
        for channel, result in zip(channels, future.result(), strict=True):
            if isinstance(result, PushError):
                continue
            backlog = Feeds.backlog(result)
            if not channel.registered:
                self._registered(channel, backlog, node)
            elif not channel.cursor.reading:
                self._was_read(channel, "rejoin", own(channel.cursor, backlog))

    # --- time ----------------------------------------------------------------------------------

    def tick(self) -> None:
        """Say how many listen, and sweep; to be called once a second."""
        self._recount()
        for cursor, (listener, _) in list(self._beginning.items()):
            if listener.writable() or cursor.over:
                self._begin_again(listener, cursor)
        self.presence.tick()
        self._sweep(self._rota.turn(lambda: list(self._channels), self._clock()))

    def _recount(self) -> None:
        channels = [
            each
            for each in self._channels.values()
            if each.registered and each.counted != len(each)
        ]
        for first in range(0, len(channels), BATCH):
            some = channels[first : first + BATCH]
            counts = [(each.cursor.feed, self.node, len(each)) for each in some]
            try:
                future = self._feeds.recount(counts)
            except Unavailable:
                return  # for the next tick
            for each in some:
                each.counted = len(each)
            future.add_done_callback(functools.partial(self._were_counted, some))

    def _were_counted(self, channels: list[Channel], future: asyncio.Future[list[Any]]) -> None:
        error = future.exception()
        results = [error] * len(channels) if error is not None else future.result()
        for channel, result in zip(channels, results, strict=True):
            if isinstance(result, PushError):
                channel.counted = -1

    def sweep_soon(self) -> None:
        """Copies may have been lost: look at every topic within seconds."""
        self._rota.hurry()
        self.presence.look_again()

    def _sweep(self, feeds: list[str]) -> None:
        channels = [self._channels[feed] for feed in feeds if feed in self._channels]
        for first in range(0, len(channels), BATCH):
            some = channels[first : first + BATCH]
            try:
                future = self._feeds.check((each.cursor.feed, self.node) for each in some)
            except Unavailable:
                self._rota.put_back([each.cursor.feed for each in some])
            else:
                future.add_done_callback(functools.partial(self._checked, some, self.node))

    def _checked(
        self, channels: list[Channel], node: str, future: asyncio.Future[list[Any]]
    ) -> None:
        if future.exception() is not None:
            self._rota.put_back([each.cursor.feed for each in channels])
            return
        again, failed = [], []
        for channel, head in zip(channels, future.result(), strict=True):
            if len(channel) == 0 or node != self.node:
                continue
            if isinstance(head, PushError):
                failed.append(channel.cursor.feed)
                continue
            cursor = channel.cursor
            if head is None or not channel.registered:
                again.append(channel)
            elif not cursor.reading and ids.parse(head) != cursor.sent:
                metrics.sweeps.labels("late").inc()
                self._read(channel, "sweep")
        if failed:
            self._rota.put_back(failed)
        if again:
            metrics.sweeps.labels("unregistered").inc(len(again))
            try:
                self._register(again)
            except Unavailable:
                self._rota.put_back([each.cursor.feed for each in again])


def _reply(request: Subscribe, last: dict[str, str]) -> bytes:
    if request.many:
        return messages.reply(request.ref, topics=last)
    ((name, at),) = last.items()
    return messages.reply(request.ref, topic=name, last=at)
