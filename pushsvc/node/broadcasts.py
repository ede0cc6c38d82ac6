"""The broadcasts of a node: one for each namespace that has a connection here.

That of the default namespace stays once someone has come; any other goes some time after the last
of its namespace has left.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from pushsvc.errors import PushError, checked
from pushsvc.feeds.feed import Feeds
from pushsvc.feeds.nodes import Entry
from pushsvc.node.broadcast import Broadcast
from pushsvc.node.catch_up import CatchUp, Reader
from pushsvc.node.identity import NodeIdentity
from pushsvc.node.listener import Everyone, Listener
from pushsvc.node.observer import Observer
from pushsvc.node.registrations import Backlogs, Counts, Registrations
from pushsvc.node.tasks import Tasks
from pushsvc.node.turns import Turns
from pushsvc.protocol import ids
from pushsvc.protocol.delivery import Backlog, Cursor
from pushsvc.protocol.feeds import BROADCAST
from pushsvc.protocol.session import Policy

CHECK_SECONDS: Final = 10
"""How often the registrations and the newest ids are checked."""
LINGER: Final = 30.0
"""Seconds without a connection after which a namespace's broadcast goes: a client that polls is
never away for that long."""


class Broadcasts:
    """What every connection of a node listens to, each in its namespace.

    Args:
        identity: the node, which is what is registered.
        feeds: where.
        everyone: the connections.
        reader: of the feeds, for all of them.
        catch_up: for those that are not in step.
        policy: the rules of every session.
        observer: told of what is dispatched, and what the sweep finds.
        turns: for what goes to many.
        clock: seconds on a monotonic clock.
    """

    def __init__(
        self,
        identity: NodeIdentity,
        feeds: Feeds,
        everyone: Everyone,
        reader: Reader,
        catch_up: CatchUp,
        policy: Policy,
        observer: Observer,
        turns: Turns,
        clock: Callable[[], float],
    ) -> None:
        self.registrations: Registrations[Broadcast] = Registrations(
            self, feeds, identity, observer, turns, seconds=CHECK_SECONDS, now=clock()
        )
        self._identity = identity
        self._feeds = feeds
        self._everyone = everyone
        self._reader = reader
        self._catch_up = catch_up
        self._policy = policy
        self._observer = observer
        self._turns = turns
        self._clock = clock
        self._broadcasts: dict[str, Broadcast] = {}
        self._registering: dict[Broadcast, Backlogs] = {}
        # Since when nobody listens to those of which that is so.
        self._deserted: dict[str, float] = {}
        self._counts = Counts(feeds, identity)
        # Those whose position is to be asked for before anything is sent again.
        self._unsettled: set[Listener] = set()
        self._tasks = Tasks("broadcasts")

    # --- coming and going ----------------------------------------------------------------------

    async def ready(self, feed: str) -> None:
        """Wait until the node is registered for a broadcast, once.

        The broadcast stays until the caller has had its turn to add a connection.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        broadcast = self._broadcasts.get(feed)
        if broadcast is None:
            broadcast = self._broadcasts[feed] = Broadcast(
                feed,
                self._everyone,
                self._reader,
                self._catch_up,
                self._policy,
                self._observer,
                self._turns,
                self._clock,
            )
        if not broadcast.registered:
            broadcast.coming += 1
            try:
                await self._register(broadcast)
            finally:
                broadcast.coming -= 1

    async def _register(self, broadcast: Broadcast) -> None:
        while not broadcast.registered:
            registering = self._registering.get(broadcast)
            if registering is None or registering.done():
                registering = self.registrations.register([broadcast])
                self._registering[broadcast] = registering
            (result,) = await asyncio.shield(registering)
            checked(result)  # one under an id that the node has lost does not count: once more
        self._registering.pop(broadcast, None)

    def head(self, feed: str) -> int:
        """The newest id of a broadcast that this node knows of."""
        broadcast = self._broadcasts.get(feed)
        return ids.START if broadcast is None else broadcast.head

    def start(self, listener: Listener) -> None:
        """A listener has its position: it reads on if that is not the newest."""
        self._broadcasts[listener.session.broadcast.feed].start(listener)

    def _leave_deserted(self, now: float) -> None:
        """Let those go to which nobody has listened for a while."""
        deserted = [
            feed
            for feed, each in self._broadcasts.items()
            if feed != BROADCAST and not each.coming and not len(each)
        ]
        self._deserted = {feed: self._deserted.get(feed, now) for feed in deserted}
        for feed, since in self._deserted.items():
            if now - since >= LINGER:
                del self._broadcasts[feed]
                self._counts.forget(feed)
                self._feeds.clean([(feed, [self._identity.id])])

    # --- from the inbox ------------------------------------------------------------------------

    def deliver(self, entry: Entry) -> None:
        """Dispatch an entry to everyone, after what they are being sent."""
        broadcast = self._broadcasts.get(entry.feed)
        if broadcast is not None:
            broadcast.deliver(entry)
        else:
            # The farewell was lost.
            self._feeds.clean([(entry.feed, [self._identity.id])])

    def pass_on(self, entry: Entry, payload: bytes) -> None:
        """Hand over what is ephemeral, and no entry, to those who have room for it."""
        broadcast = self._broadcasts.get(entry.feed)
        if broadcast is not None:
            broadcast.pass_on(entry, payload)

    # --- redelivery ----------------------------------------------------------------------------

    def redeliver(self, listener: Listener) -> None:
        """The cursor was rewound: send again what no connection of the device has acknowledged."""
        cursor = listener.session.broadcast
        if listener.writable() and not cursor.reading:
            cursor.hold()
            self._tasks.spawn(self._redeliver(listener))

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
        cursor.release()
        cursor.settle(position, self._clock())
        self._catch_up.read_on(listener, cursor, "redelivery")

    # --- time ----------------------------------------------------------------------------------

    def tick(self) -> None:
        """Say how many listen here, and try again what failed; to be called once a second."""
        self._leave_deserted(self._clock())
        registered = [each for each in self._broadcasts.values() if each.registered]
        self._counts.tell([(each.cursor.feed, len(each)) for each in registered])
        unsettled, self._unsettled = self._unsettled, set()
        for listener in unsettled:
            self._tasks.spawn(self._redeliver(listener))
        for each in registered:
            each.read_on()

    def close(self) -> None:
        """Nobody listens here any more."""
        self._feeds.clean((feed, [self._identity.id]) for feed in self._broadcasts)
        self._broadcasts.clear()

    async def aclose(self) -> None:
        """Drop what is under way."""
        await self._tasks.cancel()

    # --- as registrations see them -------------------------------------------------------------

    def feeds(self) -> Sequence[str]:
        """The broadcasts that the node is registered for; before that ``ready`` sees to it."""
        return [feed for feed, each in self._broadcasts.items() if each.registered]

    def members(self, feed: str) -> Sequence[Broadcast]:
        """The broadcast, once the node is registered for it."""
        broadcast = self._broadcasts.get(feed)
        return () if broadcast is None or not broadcast.registered else (broadcast,)

    def here(self, broadcast: Broadcast) -> bool:
        """Whether it has not gone."""
        return self._broadcasts.get(broadcast.cursor.feed) is broadcast

    def cursor(self, broadcast: Broadcast) -> Cursor:
        """The cursor of the node."""
        return broadcast.cursor

    def registered_as(self, broadcast: Broadcast, node: str) -> str:  # noqa: ARG002
        """The id of the node."""
        return node

    def is_registered(self, broadcast: Broadcast) -> bool:
        """Whether the node was registered once."""
        return broadcast.registered

    def register(self, broadcasts: Sequence[Broadcast]) -> Backlogs:
        """Register the node, and read what it missed."""
        wanted = [
            (
                each.cursor.feed,
                self._identity.id,
                len(each),
                each.cursor.sent if each.registered else None,
            )
            for each in broadcasts
        ]
        future = self._feeds.subscribe(wanted)
        for each, (feed, _, count, _) in zip(broadcasts, wanted, strict=True):
            self._counts.registered(feed, count)
            if each.cursor.reading:
                each.cursor.hold()  # what came since that read began counts for its answer
            else:
                each.cursor.begin_read()
        return future

    def registered(self, broadcast: Broadcast, backlog: Backlog, node: str) -> None:
        """The first answer tells where the node begins."""
        if broadcast.registered:
            broadcast.was_read(backlog)
        elif node == self._identity.id:
            broadcast.begin(backlog.head)

    def not_registered(self, broadcast: Broadcast) -> None:
        """Read on all the same."""
        if broadcast.registered:
            broadcast.read("retry")

    def late(self, broadcast: Broadcast, head: int) -> bool:  # noqa: ARG002 - the answer tells it
        """Read what did not come."""
        broadcast.read("sweep")
        return True
