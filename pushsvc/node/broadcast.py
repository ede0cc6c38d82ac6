"""A broadcast: a feed that every connection of a namespace listens to, as one node has it.

The node is the listener that Redis knows, with a cursor of its own: what it misses it reads once,
for all. The position of a device is kept beside its mailbox.
"""

from collections.abc import Callable
from typing import Final

from pushsvc.feeds.nodes import Entry
from pushsvc.node.catch_up import CatchUp, Reader, own
from pushsvc.node.dispatch import dispatch, pass_on
from pushsvc.node.listener import Everyone, Listener, Listeners
from pushsvc.node.observer import Observer
from pushsvc.node.turns import Turns, Work, parts
from pushsvc.protocol import ids
from pushsvc.protocol.delivery import Backlog, Cursor
from pushsvc.protocol.feeds import namespace_of
from pushsvc.protocol.session import Policy
from pushsvc.protocol.wire import Wire

READS: Final = 16
"""Connections that are handed what was read in one step: each may be sent many entries."""


class Broadcast:
    """What every connection of a namespace listens to on a node.

    Args:
        feed: the broadcast's.
        everyone: the connections of the node, in all namespaces.
        reader: of the feed, for all of them.
        catch_up: for those that are not in step.
        policy: the rules of every session.
        observer: told of what is dispatched.
        turns: for what goes to many.
        clock: seconds on a monotonic clock.

    Attributes:
        cursor: up to where it stands the node has had everything.
        head: the newest id that this node knows of, be it that it is still to be dispatched.
        registered: whether the node is registered; it was once, and stays so.
        coming: connections that wait for that.
    """

    __slots__ = (
        "_begun", "_catch_up", "_clock", "_everyone", "_namespace", "_observer", "_policy",
        "_reader", "_turns", "coming", "cursor", "head", "registered",
    )  # fmt: skip

    def __init__(
        self,
        feed: str,
        everyone: Everyone,
        reader: Reader,
        catch_up: CatchUp,
        policy: Policy,
        observer: Observer,
        turns: Turns,
        clock: Callable[[], float],
    ) -> None:
        self.cursor = Cursor(feed, acks=False)
        self.head = ids.START
        # The same without what waits to be dispatched.
        self._begun = ids.START
        self.registered = False
        self.coming = 0
        self._namespace = namespace_of(feed)
        self._everyone = everyone
        self._reader = reader
        self._catch_up = catch_up
        self._policy = policy
        self._observer = observer
        self._turns = turns
        self._clock = clock

    def __len__(self) -> int:
        return len(self._listeners())

    def _listeners(self) -> Listeners:
        return self._everyone.within(self._namespace)

    def start(self, listener: Listener) -> None:
        """A listener has its position: it reads on if that is not the newest."""
        cursor = listener.session.broadcast
        cursor.release()
        cursor.follow(self.head)
        if cursor.sent > self.head:
            self._catch_up.read(listener, cursor, "backlog")  # Redis lost entries, or it is ahead
        else:
            if cursor.sent == self.head:
                cursor.confirm()
            self._catch_up.read_on(listener, cursor, "backlog")

    def deliver(self, entry: Entry) -> None:
        """Dispatch an entry to everyone, after what they are being sent."""
        feed = self.cursor.feed
        # Whoever comes while it waits begins there, and is not owed it.
        self.head = max(self.head, entry.id)
        if self._turns.full(feed, len(self)):
            self._begun = max(self._begun, entry.id)
            self.cursor.follow(entry.id)  # to be read after what waits
            self._turns.put_off(feed, self.read_on)
            self._observer.fanned_out(entry, 0, 1)
        else:
            self._turns.run(feed, self._deliver(entry), len(self), len(entry.body))

    def _deliver(self, entry: Entry) -> Work:
        entry_id = entry.id
        self.head = max(self.head, entry_id)  # if Redis lost entries, it was set back
        self._begun = max(self._begun, entry_id)
        if self.cursor.offer(entry_id, entry.previous, 1):
            self.cursor.take(entry_id, self._clock())
        self.read_on()
        frames: dict[Wire, bytes] = {}
        sent = late = 0
        for place, part in enumerate(parts(list(self._listeners()))):
            if place:
                yield
            got, missed = dispatch(
                entry, part, self._policy.window, self._clock(), broadcast=True, frames=frames
            )
            sent += len(got)
            for listener in missed:
                cursor = listener.session.broadcast
                if cursor.sent < entry_id:
                    late += 1
                    # What the node itself lacks is read for all who have all before it.
                    if cursor.sent < self.cursor.sent:
                        self._catch_up.read_on(listener, cursor, "gap")
        self._observer.fanned_out(entry, sent, late)
        self.read_on()

    def pass_on(self, entry: Entry, payload: bytes) -> None:
        """Hand over what is ephemeral, and no entry, to those who have room for it."""
        feed = self.cursor.feed
        if self._turns.full(feed, len(self)):
            self._observer.passed_on(entry, 0, len(self))
        else:
            self._turns.run(feed, self._pass_on(entry, payload), len(self), len(payload))

    def _pass_on(self, entry: Entry, payload: bytes) -> Work:
        frames: dict[Wire, bytes] = {}
        sent = dropped = 0
        for place, part in enumerate(parts(list(self._listeners()))):
            if place:
                yield
            here, full = pass_on(payload, part, frames)
            sent += here
            dropped += full
        self._observer.passed_on(entry, sent, dropped)

    # --- what the node has missed --------------------------------------------------------------

    def begin(self, head: int) -> None:
        """The first registration was answered: this is where the node begins."""
        self.registered = True
        self.head = max(self.head, head)
        self._begun = max(self._begun, head)
        self.cursor.release()
        self.cursor.jump(head)
        self.read_on()

    def read_on(self) -> None:
        """Read what did not come, once for everyone."""
        if self.registered and self.cursor.wants(1):
            self.read("gap")

    def read(self, cause: str) -> None:
        """Read on, whatever is known of the feed."""
        self._reader.read(self.cursor, cause, self.was_read)

    def was_read(self, backlog: Backlog) -> None:
        """Hand what was lost on the way here to everyone that was in step until then."""
        self._turns.run(self.cursor.feed, self._hand_over(backlog), len(self), backlog.size)

    def _hand_over(self, backlog: Backlog) -> Work:
        cursor = self.cursor
        lost = backlog.gap == "reset" or max(cursor.head, backlog.head) < self._begun
        if lost:
            self.head = self._begun = backlog.head
        self.head = max(self.head, backlog.head)
        self._begun = max(self._begun, backlog.head)
        came, sent = cursor.head, cursor.sent
        cursor.release()
        cursor.jump(backlog.head if lost else max(sent, backlog.head))
        if lost:
            cursor.lost_after(backlog.head)
        if came > sent:
            cursor.follow(came)  # meanwhile
        if backlog.entries or backlog.gap or lost:
            for place, listener in enumerate(list(self._listeners()), 1):
                if listener.open:
                    self._hand_on(listener, backlog, lost=lost)
                if not place % READS:
                    yield
        self.read_on()

    def _hand_on(self, listener: Listener, backlog: Backlog, *, lost: bool) -> None:
        cursor = listener.session.broadcast
        serves = (
            backlog.start <= cursor.sent < backlog.upto  # entries may have come meanwhile
            if not backlog.gap
            else backlog.start == cursor.sent or backlog.gap == "reset"
        )
        if serves and not cursor.reading:
            self._catch_up.carry_out(listener, cursor, own(cursor, backlog), "gap")
            return
        if lost:
            cursor.lost_after(backlog.head)
        cursor.follow(backlog.head)
        self._catch_up.read_on(listener, cursor, "gap")
