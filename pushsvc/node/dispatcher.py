"""From the inbox to the connections: the face of a node to what comes, goes and acknowledges.

A connection that is in step with its feed gets each new entry straight from the inbox. One that is
not, because it is slow, its window is full, or an entry was lost on its way here, catches up: it
reads its feed, one read at a time. Nothing is awaited per connection.
"""

import asyncio
import functools
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from pushsvc.errors import PushError
from pushsvc.feeds.feed import AckKind
from pushsvc.feeds.nodes import ControlMessage, Entry, Leases
from pushsvc.feeds.read_state import CHANGED
from pushsvc.node.acks import Acks
from pushsvc.node.broadcasts import Broadcasts
from pushsvc.node.catch_up import CatchUp
from pushsvc.node.dispatch import dispatch, pass_on
from pushsvc.node.identity import NodeIdentity
from pushsvc.node.listener import Listener
from pushsvc.node.mailboxes import Mailboxes
from pushsvc.node.observer import Observer
from pushsvc.node.read_state import ReadStateNews
from pushsvc.node.registrations import Registrations
from pushsvc.node.topics import Topics
from pushsvc.protocol import ids, messages
from pushsvc.protocol.delivery import Backlog, Cursor
from pushsvc.protocol.feeds import MAILBOX, is_broadcast
from pushsvc.protocol.messages import Ref
from pushsvc.protocol.session import Acked, Policy

NOWHERE: Final[Mapping[str, int]] = MappingProxyType({})
"""The positions of a client that holds none."""

Handler = Callable[[ControlMessage], None]
IsErased = Callable[[str, int], Awaitable[bool]]


async def never_erased(_feed: str, _position: int) -> bool:
    """Where nothing is erased."""
    return False


class Dispatcher:
    """Dispatches what comes to the connections of a node.

    Args:
        identity: the node.
        leases: Redis time.
        mailboxes: what each connection listens to.
        broadcasts: what all of them listen to, each in its namespace.
        topics: what some listen to.
        acks: writes positions down.
        catch_up: for those that are not in step.
        read_state: tells what users have read elsewhere.
        policy: the rules of every session.
        observer: told what happens to notifications.
        clock: seconds on a monotonic clock.
        is_erased: whether a mailbox was erased since it had a position.
    """

    def __init__(
        self,
        identity: NodeIdentity,
        leases: Leases,
        mailboxes: Mailboxes,
        broadcasts: Broadcasts,
        topics: Topics,
        acks: Acks,
        catch_up: CatchUp,
        read_state: ReadStateNews,
        policy: Policy,
        observer: Observer,
        clock: Callable[[], float],
        is_erased: IsErased = never_erased,
    ) -> None:
        self._is_erased = is_erased
        self._identity = identity
        self._leases = leases
        self._mailboxes = mailboxes
        self._broadcasts = broadcasts
        self._topics = topics
        self._acks = acks
        self._catch_up = catch_up
        self._read_state = read_state
        self._policy = policy
        self._observer = observer
        self._clock = clock
        self._handlers: dict[str, Handler] = {
            "acked": self._acked_elsewhere,
            "withdrawn": self._withdrawn,
            "recalled": self._recalled,
            "shared": self._shared,
            CHANGED: read_state.changed,
            "presence": lambda message: topics.presence.changed(message.feed),
        }

    def on(self, kind: str, handler: Handler) -> None:
        """Have a kind of control message handled."""
        self._handlers[kind] = handler

    def connection_id(self, listener: Listener) -> str:
        """The id under which a listener is registered."""
        return self._identity.connection_id(listener.number)

    def listening(self, feed: str) -> Sequence[Listener]:
        """The connections of this node that listen to a mailbox."""
        return self._mailboxes.listeners.of(feed)

    # --- coming and going ----------------------------------------------------------------------

    async def join(
        self, listener: Listener, held: Mapping[str, int] = NOWHERE, *, withdrawn: bool = True
    ) -> Backlog:
        """Register a listener and read what it is owed.

        The listener is known here before Redis knows of it: what is published in between is
        noticed, and read after the backlog.

        Args:
            listener: the connection.
            held: the positions that it says it holds, by feed; what it acknowledged counts where
                that is further.
            withdrawn: whether it is told what was withdrawn of that, while it was away.

        Raises:
            TooManyConnections: the user holds as many connections as it may.
            Unavailable: Redis cannot be reached.
        """
        session = listener.session
        cursor, broadcast = session.cursor, session.broadcast
        await self._broadcasts.ready(broadcast.feed)
        if self._mailboxes.leaving:
            # It may be the same client that comes back: its registration goes first, else it has
            # one connection too many.
            await asyncio.sleep(0)
        if (written := self._acks.written(cursor.feed, session.device)) is not None:
            await asyncio.wait([written])  # else it gets again what it acknowledged
        cursor.begin_read()
        broadcast.begin_read()
        position = held.get(cursor.feed)
        self._read_state.joining(listener)
        self._mailboxes.listeners.add(listener)
        try:
            backlog = await self._mailboxes.join(listener, position, withdrawn=withdrawn)
            if backlog.gap == "reset" and await self._was_erased(cursor.feed, position):
                # What it holds is gone by intent, and what comes is new to it: no gap.
                position, backlog = None, backlog._replace(gap="")
        except BaseException:
            # The join may have happened all the same.
            self.left(listener)
            raise
        cursor.begin(backlog.cursor, position)
        broadcast.begin(backlog.broadcast, held.get(broadcast.feed))
        return backlog

    async def _was_erased(self, feed: str, position: int | None) -> bool:
        if position is None:
            return False
        try:
            return await self._is_erased(feed, position)
        except PushError:
            return False  # a gap too many does no harm

    def start(self, listener: Listener, backlog: Backlog, first: bytes) -> None:
        """Send ``first`` and then the backlog, in one segment where it is small."""
        self._catch_up.carry_out(listener, listener.session.cursor, backlog, "backlog", first)
        self._broadcasts.start(listener)
        self._read_state.joined(listener)

    def left(self, listener: Listener) -> None:
        """Forget a listener."""
        self._observer.left(listener)
        self._read_state.left(listener)
        self._topics.left(listener)
        self._mailboxes.leave(listener)
        # Where it comes back to, what it acknowledged last is not to come again.
        self._acks.hurry()

    def written(self, listener: Listener) -> asyncio.Future[None] | None:
        """A future that is done once what its device acknowledged is written; see ``Acks``."""
        session = listener.session
        return self._acks.written(session.cursor.feed, session.device)

    # --- from the inbox ------------------------------------------------------------------------

    def deliver(self, entries: Iterable[Entry]) -> None:
        """Dispatch new entries, in order; what goes to many may be under way for some turns."""
        now = self._clock()
        for entry in entries:
            if entry.ephemeral:
                self._pass_on(entry)
            elif entry.feed.startswith(MAILBOX):
                self._deliver(entry, now)
            elif is_broadcast(entry.feed):
                self._broadcasts.deliver(entry)
            else:
                self._topics.deliver(entry)
        self._observer.flush()

    def _deliver(self, entry: Entry, now: float) -> None:
        listeners = self._mailboxes.listeners.of(entry.feed)
        window = self._policy.window
        tombstones = self._catch_up.tombstones
        if tombstones and tombstones.holds(entry.feed, entry.id):
            listeners = [each for each in listeners if not _skips(each, entry, window)]
        elif entry.device:
            others = [each for each in listeners if each.session.device != entry.device]
            self._read_state.recount(entry.feed, others)
            # Nothing is sent to the others, so it needs no room.
            skip = {each.number for each in others if _skips(each, entry, sys.maxsize)}
            listeners = [each for each in listeners if each.number not in skip]
        sent, missed = dispatch(entry, listeners, window, now)
        for listener in missed:
            self._catch_up.read_on(listener, listener.session.cursor, "gap")
        self._observer.dispatched(entry, sent, len(missed))

    def _pass_on(self, entry: Entry) -> None:
        """Hand over what is ephemeral, and no entry, to those who have room for it."""
        payload = messages.ephemeral(self._leases.redis_time(), entry.body)
        if entry.feed.startswith(MAILBOX):
            listeners = self._mailboxes.listeners.of(entry.feed)
            if entry.device:
                listeners = [each for each in listeners if each.session.device == entry.device]
            self._observer.passed_on(entry, *pass_on(payload, listeners))
        elif is_broadcast(entry.feed):
            self._broadcasts.pass_on(entry, payload)
        else:
            self._topics.pass_on(entry, payload)

    def control(self, message: ControlMessage) -> None:
        """Act on a control message; one of a kind that a newer node sends is passed over."""
        handler = self._handlers.get(message.kind)
        if handler is not None:
            handler(message)

    def _acked_elsewhere(self, message: ControlMessage) -> None:
        device, position, kind = message.values
        at = ids.parse(position)
        for listener in self._mailboxes.listeners.of(message.feed):
            session = listener.session
            if session.device == device:
                of_broadcast = kind.startswith(AckKind.BROADCAST)
                cursor = session.broadcast if of_broadcast else session.cursor
                if cursor.settle(at, self._clock()):
                    self._observer.settled(listener, cursor, at)
                    self._catch_up.read_on(listener, cursor, "window")

    def _shared(self, message: ControlMessage) -> None:
        if self._mailboxes.listeners.of(message.feed):
            (entry_id,) = message.values
            self._acks.share(message.feed, ids.parse(entry_id))

    def _withdrawn(self, message: ControlMessage) -> None:
        position, reason = message.values
        self._withdraw(message.feed, ids.parse(position), reason)

    def _recalled(self, message: ControlMessage) -> None:
        """Something for one device is withdrawn, as is told once more for nodes of before."""
        position, reason, device, *_ = message.values
        self._withdraw(message.feed, ids.parse(position), reason, device)

    def _withdraw(self, feed: str, entry_id: int, reason: str, device: str = "") -> None:
        listeners = self._mailboxes.listeners.of(feed)
        tombstones = self._catch_up.tombstones
        if not listeners or tombstones.holds(feed, entry_id):
            return  # who comes later reads that it is withdrawn
        self._observer.withdrawn(feed, entry_id, reason)
        tombstones.add(feed, entry_id, self._clock())
        others = []
        for listener in listeners:
            mine = device in ("", listener.session.device) and listener.open
            if mine and listener.session.cursor.withdraw(entry_id):
                listener.send(messages.withdrawn(entry_id, reason))
                # It may have left room in the window.
                self._catch_up.read_on(listener, listener.session.cursor, "window")
            else:
                others.append(listener)
        self._read_state.recount(feed, others)

    # --- from the connections ------------------------------------------------------------------

    def drained(self, listener: Listener) -> None:
        """The listener has room again."""
        session = listener.session
        self._catch_up.read_on(listener, session.cursor, "slow")
        self._catch_up.read_on(listener, session.broadcast, "slow")
        self._topics.drained(listener)

    def acked(self, listener: Listener, ack: Acked) -> None:
        """Write the device's position down, and read on if the window was full."""
        self._observer.acked(listener, ack)
        session = listener.session
        answer = None
        if ack.ref is not None:
            answer = functools.partial(_answer, listener, ack.ref)
        self._acks.add(
            session.cursor.feed,
            session.device,
            ack.id,
            AckKind.SENT if ack.cursor is session.cursor else AckKind.BROADCAST,
            self.connection_id(listener),
            answer,
        )
        self._catch_up.read_on(listener, ack.cursor, "window")

    def redeliver(self, listener: Listener, cursor: Cursor) -> None:
        """The cursor was rewound: send again what is still not acknowledged."""
        if cursor is listener.session.broadcast:
            self._broadcasts.redeliver(listener)
        elif listener.writable():
            self._catch_up.read(listener, cursor, "redelivery")

    # --- time ----------------------------------------------------------------------------------

    def tick(self) -> None:
        """Try again what failed, and sweep; to be called once a second."""
        now = self._clock()
        self._observer.tick()
        self._acks.flush()
        self._mailboxes.flush()
        self._catch_up.tick()
        self._broadcasts.tick()
        self._topics.tick()
        for registrations in self._registrations():
            registrations.tick(now)

    def sweep_soon(self) -> None:
        """Entries may have been lost: look at every feed within seconds."""
        for registrations in self._registrations():
            registrations.hurry()
        self._topics.presence.look_again()

    def _registrations(self) -> tuple[Registrations[Any], ...]:
        kinds = (self._broadcasts, self._topics, self._mailboxes)
        return tuple(each.registrations for each in kinds)

    # --- after a lapse -------------------------------------------------------------------------

    def lapsed(self, node: str) -> None:
        """Register under a new node id from now on: the lease of the old one lapsed."""
        self._identity.become(node)
        self._mailboxes.lapsed()

    async def register_again(self) -> None:
        """Register everything under the node's present id, and close every gap.

        Raises:
            Unavailable: Redis cannot be reached; to be called again.
        """
        former = self._identity.former
        # Now, so that the former registration of one that leaves meanwhile is removed as well.
        rounds = [(each, list(each.batches())) for each in self._registrations()]
        (broadcast, everyone), *others = rounds
        await broadcast.register_again(everyone)
        self._topics.presence.reassert()
        for registrations, batches in others:
            await registrations.register_again(batches)
        self._identity.cleaned(former)

    def close(self) -> None:
        """Remove what is registered still, as far as Redis can be reached."""
        self._mailboxes.flush()
        self._broadcasts.close()


def _skips(listener: Listener, withdrawn: Entry, window: int) -> bool:
    """Whether a listener that is in step goes on without an entry that was withdrawn."""
    cursor = listener.session.cursor
    if not cursor.offer(withdrawn.id, withdrawn.previous, window):
        return False
    cursor.skip(withdrawn.id)
    return True


def _answer(listener: Listener, ref: Ref, position: int) -> None:
    listener.send(messages.reply(ref, acked=ids.render(position)))
