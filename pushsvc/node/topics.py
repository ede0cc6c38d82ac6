"""Topics: who here listens to which, what they begin with, and what their channels have missed.

Redis knows the node as one listener of a topic; the node knows the subscribers, by a channel each.
"""

import functools
from collections.abc import Callable, Sequence

from pushsvc.errors import PushError, Unavailable, checked
from pushsvc.feeds.feed import Feeds, Rest
from pushsvc.feeds.nodes import Entry
from pushsvc.node.catch_up import CatchUp, Reader, message_of, own
from pushsvc.node.channel import Channel, FanOut
from pushsvc.node.identity import NodeIdentity
from pushsvc.node.listener import Listener
from pushsvc.node.observer import Observer
from pushsvc.node.presence import Presence
from pushsvc.node.registrations import Backlogs, Counts, Registrations, results_of
from pushsvc.node.turns import Turns, Work, parts
from pushsvc.protocol import ids, messages
from pushsvc.protocol.delivery import Backlog, Cursor, Deliver, Gap, StateCursor, Step
from pushsvc.protocol.feeds import topic
from pushsvc.protocol.messages import Ref
from pushsvc.protocol.session import Subscribe


class Topics:
    """The topics of a node.

    Args:
        identity: the node, which is what is registered.
        feeds: where.
        reader: of the feeds, for the channels.
        catch_up: for the subscribers that are behind; its ``caught_up`` is taken.
        presence: who is here.
        fan_out: writes to connections.
        observer: told of what is dispatched, and of what channels read.
        turns: for what goes to many.
        sweep_seconds: the longest that a lost entry can delay a quiet topic.
        clock: seconds on a monotonic clock.
    """

    def __init__(
        self,
        identity: NodeIdentity,
        feeds: Feeds,
        reader: Reader,
        catch_up: CatchUp,
        presence: Presence,
        fan_out: FanOut,
        observer: Observer,
        turns: Turns,
        *,
        sweep_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self.presence = presence
        self.registrations: Registrations[Channel] = Registrations(
            self, feeds, identity, observer, turns, seconds=sweep_seconds, now=clock()
        )
        self._identity = identity
        self._feeds = feeds
        self._reader = reader
        self._catch_up = catch_up
        self._fan_out = fan_out
        self._observer = observer
        self._turns = turns
        self._clock = clock
        self._channels: dict[str, Channel] = {}
        self._counts = Counts(feeds, identity)
        # Reads of a state that failed, for the next tick.
        self._stalled: dict[StateCursor, Listener] = {}
        catch_up.caught_up = self._caught_up

    # --- coming and going ----------------------------------------------------------------------

    def subscribe(
        self, listener: Listener, request: Subscribe, done: Callable[[], None] = lambda: None
    ) -> None:
        """Let a listener have topics, each from a position or from its state on.

        ``done`` is called once it was handed what is kept, or was refused.
        """
        session = listener.session
        had, namespace = session.topics or {}, session.namespace
        asked: dict[str, tuple[Channel, Cursor]] = {}
        wanted = []
        for name, since in request.topics.items():
            if name in had:
                continue
            feed = topic(name, namespace)
            channel = self._channels.get(feed)
            if channel is None:
                channel = self._channels[feed] = Channel(feed)
            cursor = (StateCursor if since is None else Cursor)(feed, acks=False)
            cursor.begin(ids.START, since)
            cursor.begin_read()
            channel.add(listener, cursor)
            self.presence.came(feed, session.user)
            self._counts.registered(feed, len(channel))
            asked[name] = channel, cursor
            wanted.append((feed, self._identity.id, len(channel), since))
        try:
            future = self._feeds.subscribe(wanted)
        except Unavailable as error:
            self._refuse(listener, request.ref, asked, error)
            done()
            return
        future.add_done_callback(
            functools.partial(self._subscribed, listener, request, asked, self._identity.id)
        )
        future.add_done_callback(lambda _: done())

    def _subscribed(
        self,
        listener: Listener,
        request: Subscribe,
        asked: dict[str, tuple[Channel, Cursor]],
        node: str,
        future: Backlogs,
    ) -> None:
        results = results_of(list(asked), future)
        backlogs: dict[str, Backlog] = {}
        for (name, (channel, _)), result in zip(asked.items(), results, strict=True):
            if isinstance(result, PushError):
                self._refuse(listener, request.ref, asked, result)
                return
            backlogs[name] = result
            self._begin_channel(channel, result, node)
        if not listener.open:
            return
        if request.ref is not None:
            last = {name: self._last(listener, name, backlogs.get(name)) for name in request.topics}
            listener.send(_reply(request, last))
        for name, backlog in backlogs.items():
            _, cursor = asked[name]
            if isinstance(cursor, StateCursor):
                cursor.ends_at(backlog.head)
                self._continue_state(listener, cursor, backlog)
            else:
                self._catch_up.carry_out(listener, cursor, own(cursor, backlog), "backlog")

    def _last(self, listener: Listener, name: str, backlog: Backlog | None) -> str:
        """The newest id; of a topic that was subscribed to before, one up to which all was sent."""
        if backlog is not None:
            return ids.render(backlog.head)
        session = listener.session
        cursor = (session.topics or {}).get(name)
        channel = self._channels.get(topic(name, session.namespace))
        if cursor is not None:
            # Amid the state, nothing yet: what it lacks may be older than what it was sent.
            return ids.render(cursor.sent if cursor.complete else ids.START)
        return ids.render(ids.START if channel is None else channel.held)

    def _begin_channel(self, channel: Channel, backlog: Backlog, node: str) -> None:
        """The first answer tells where a channel begins: what comes later is routed here."""
        if channel.registered or node != self._identity.id:
            return
        channel.registered = True
        channel.cursor.release()
        channel.cursor.jump(backlog.head)
        for listener, own_cursor in list(channel.behind.items()):
            own_cursor.follow(channel.cursor.sent)
            self._caught_up(listener, own_cursor)
        self._read_on(channel)

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
            cursor.close()
        feed = topic(name, listener.session.namespace)
        self.presence.left(feed, listener.session.user)
        self.presence.unfollow(listener, feed)
        channel = self._channels.get(feed)
        if channel is None:
            return
        channel.remove(listener)
        if not len(channel):
            del self._channels[feed]
            self._counts.forget(feed)
            self._feeds.clean([(feed, [self._identity.id])])

    def ask(self, listener: Listener, name: str, ref: Ref) -> None:
        """Answer with who listens to a topic; a subscriber is then told who comes and goes."""
        self.presence.ask(listener, name, ref, follows=name in (listener.session.topics or ()))

    # --- the state of a topic ------------------------------------------------------------------

    def _continue_state(self, listener: Listener, cursor: StateCursor, part: Backlog) -> None:
        """Hand over a part of the state, as far as there is room, and read the next."""
        self._catch_up.carry_out(listener, cursor, own(cursor, part), "backlog")
        if not cursor.complete and not cursor.over and listener.writable():
            self._read_state(listener, cursor)

    def _read_state(self, listener: Listener, cursor: StateCursor) -> None:
        channel = self._channels.get(cursor.feed)
        if channel is None or cursor.over:
            return
        cursor.hold()
        rest = Rest(cursor.sent, cursor.upto)
        try:
            future = self._feeds.subscribe([(cursor.feed, self._identity.id, len(channel), rest)])
        except Unavailable:
            self._stalled[cursor] = listener
        else:
            future.add_done_callback(functools.partial(self._was_state_read, listener, cursor))

    def _was_state_read(self, listener: Listener, cursor: StateCursor, future: Backlogs) -> None:
        try:
            state = checked(results_of([cursor], future)[0])
        except PushError:
            self._stalled[cursor] = listener
            return
        # What came since is read from the feed, where not only the latest of each key is. If Redis
        # lost what was promised, it is the state as it is now.
        cursor.ends_at(state.head if state.gap else min(cursor.upto, state.head))
        self._continue_state(listener, cursor, state)

    # --- from the inbox ------------------------------------------------------------------------

    def deliver(self, entry: Entry) -> None:
        """Dispatch an entry to its subscribers, after what they are being sent."""
        feed = entry.feed
        channel = self._channels.get(feed)
        if channel is None:
            # The farewell was lost.
            self._feeds.clean([(feed, [self._identity.id])])
        elif self._turns.full(feed, len(channel)):
            channel.cursor.follow(entry.id)  # to be read after what waits
            self._turns.put_off(feed, functools.partial(self._read_on, channel))
            self._observer.fanned_out(entry, 0, 1)
        else:
            self._turns.run(feed, self._deliver(channel, entry), len(channel), len(entry.body))

    def _deliver(self, channel: Channel, entry: Entry) -> Work:
        cursor, entry_id, previous = channel.cursor, entry.id, entry.previous
        sent, late = 0, 1
        if cursor.offer(entry_id, previous, 1):
            payload = messages.notification(entry_id, entry.body, 1)
            sent, late = yield from channel.dispatch(
                entry_id, previous, payload, self._fan_out, self._catch_up
            )
        elif cursor.sent >= entry_id:
            return
        self._observer.fanned_out(entry, sent, late)
        self._read_on(channel)

    def pass_on(self, entry: Entry, payload: bytes) -> None:
        """Hand over what is ephemeral, and no entry, to those who have room for it."""
        feed = entry.feed
        channel = self._channels.get(feed)
        if channel is None:
            return
        if self._turns.full(feed, len(channel)):
            self._observer.passed_on(entry, 0, len(channel))
        else:
            work = self._pass_on(channel, entry, payload)
            self._turns.run(feed, work, len(channel), len(payload))

    def _pass_on(self, channel: Channel, entry: Entry, payload: bytes) -> Work:
        self._observer.passed_on(entry, *(yield from channel.pass_on(payload)))

    def _caught_up(self, listener: Listener, cursor: Cursor) -> None:
        """A subscriber's own cursor may stand where the channel's does."""
        channel = self._channels.get(cursor.feed)
        if channel is None or channel.behind.get(listener) is not cursor:
            return
        if not cursor.complete:
            return
        if channel.caught_up(listener, cursor):
            return
        shared = channel.cursor
        if cursor.sent < shared.sent:
            # While the channel is busy, it may be about to be handed what comes next.
            if cursor.sent < cursor.head or shared.reading or self._turns.busy(cursor.feed):
                self._catch_up.read_on(listener, cursor, "gap")
            else:
                # To this one the feed ends before the channel's position. If Redis lost entries,
                # then it is the channel that has to find out.
                self._read(channel, "gap")

    def drained(self, listener: Listener) -> None:
        """The listener has room again."""
        for cursor in list((listener.session.topics or {}).values()):
            if cursor is None:
                continue
            if isinstance(cursor, StateCursor) and not cursor.complete:
                if not cursor.reading:
                    self._read_state(listener, cursor)
            else:
                self._catch_up.read_on(listener, cursor, "slow")

    # --- a channel that missed something -------------------------------------------------------

    def _read_on(self, channel: Channel, cause: str = "gap") -> None:
        if channel.cursor.wants(1) and self.here(channel):
            self._read(channel, cause)

    def _read(self, channel: Channel, cause: str) -> None:
        self._reader.read(channel.cursor, cause, functools.partial(self._was_read, channel, cause))

    def _was_read(self, channel: Channel, cause: str, backlog: Backlog) -> None:
        """Send what did not come by the inbox, after what is being sent."""
        work = self._hand_over(channel, cause, backlog)
        self._turns.run(channel.cursor.feed, work, len(channel), backlog.size)

    def _hand_over(self, channel: Channel, cause: str, backlog: Backlog) -> Work:
        cursor = channel.cursor
        cursor.release()
        if self._channels.get(cursor.feed) is not channel:
            return
        held = cursor.sent
        for step in cursor.plan(backlog, 1, self._clock()):
            entry_id, payload = message_of(cursor.feed, step)
            if isinstance(step, Deliver):
                sent, _ = yield from channel.dispatch(
                    entry_id, cursor.sent, payload, self._fan_out, self._catch_up
                )
                self._observer.delivered_to_many(sent)
            else:
                # Those in step missed it with the channel; the others find it out by themselves.
                told = functools.partial(self._told, step)
                yield from channel.tell(entry_id, payload, held, told)
        self._observer.flush()
        lost = backlog.gap == "reset"
        for place, part in enumerate(parts(list(channel.behind.items()))):
            if place:
                yield
            for listener, own_cursor in part:
                if channel.behind.get(listener) is own_cursor:
                    own_cursor.follow(cursor.sent)
                    if lost or own_cursor.sent > backlog.head:
                        # Redis lost entries, which this one is told of when it reads.
                        own_cursor.must_read()
                        self._catch_up.read_on(listener, own_cursor, "gap")
                    self._caught_up(listener, own_cursor)
        self._read_on(channel, cause)

    def _told(self, step: Step, listener: Listener) -> None:
        if isinstance(step, Gap):
            self._observer.gap(step, listener)

    # --- time ----------------------------------------------------------------------------------

    def tick(self) -> None:
        """Say how many listen, and try again what failed; to be called once a second."""
        self._turns.check("counts", self._tell_counts())
        stalled, self._stalled = self._stalled, {}
        for cursor, listener in stalled.items():
            self._read_state(listener, cursor)
        self.presence.tick()

    def _tell_counts(self) -> Work:
        for place, part in enumerate(parts(list(self._channels.values()))):
            if place:
                yield
            here = [each for each in part if each.registered and self.here(each)]
            self._counts.tell([(each.cursor.feed, len(each)) for each in here])

    # --- as registrations see them -------------------------------------------------------------

    def feeds(self) -> Sequence[str]:
        """The topics that someone here listens to."""
        return list(self._channels)

    def members(self, feed: str) -> Sequence[Channel]:
        """The channel of one."""
        channel = self._channels.get(feed)
        return () if channel is None else (channel,)

    def here(self, channel: Channel) -> bool:
        """Whether someone still listens."""
        return self._channels.get(channel.cursor.feed) is channel

    def cursor(self, channel: Channel) -> Cursor:
        """The shared cursor."""
        return channel.cursor

    def registered_as(self, channel: Channel, node: str) -> str:  # noqa: ARG002
        """The id of the node."""
        return node

    def is_registered(self, channel: Channel) -> bool:
        """Whether its first registration was answered."""
        return channel.registered

    def register(self, channels: Sequence[Channel]) -> Backlogs:
        """Register channels, and read what they missed."""
        future = self._feeds.subscribe(
            (
                each.cursor.feed,
                self._identity.id,
                len(each),
                each.cursor.sent if each.registered else None,
            )
            for each in channels
        )
        for each in channels:
            each.cursor.begin_read()
        return future

    def registered(self, channel: Channel, backlog: Backlog, node: str) -> None:
        """Go on with what came meanwhile."""
        if not channel.registered:
            self._begin_channel(channel, backlog, node)
        elif backlog.start or backlog.gap:
            self._was_read(channel, "rejoin", own(channel.cursor, backlog))
        else:
            # A state, asked for before another answer told where the channel begins: it lacks what
            # has no collapse key.
            self._read(channel, "rejoin")

    def not_registered(self, channel: Channel) -> None:
        """Read on all the same."""
        if channel.registered:
            self._read(channel, "retry")

    def late(self, channel: Channel, head: int) -> bool:  # noqa: ARG002 - the answer tells it
        """Read what did not come."""
        self._read(channel, "sweep")
        return True


def _reply(request: Subscribe, last: dict[str, str]) -> bytes:
    if request.many:
        return messages.reply(request.ref, topics=last)
    ((name, at),) = last.items()
    return messages.reply(request.ref, topic=name, last=at)
