"""The mailboxes that connections of this node listen to, each connection registered by its id."""

import asyncio
import functools
from collections.abc import Callable, Sequence
from typing import Any, Final

from pushsvc.errors import PushError, Unavailable, checked
from pushsvc.feeds.feed import Feeds, Full, Join
from pushsvc.feeds.nodes import Leases
from pushsvc.node.catch_up import CatchUp
from pushsvc.node.identity import NodeIdentity
from pushsvc.node.listener import Everyone, Listener
from pushsvc.node.observer import Observer
from pushsvc.node.registrations import Backlogs, Registrations
from pushsvc.node.turns import Turns
from pushsvc.protocol.delivery import Backlog, Cursor
from pushsvc.protocol.session import Policy

MOST_LEFT: Final = 10_000
"""Most registrations that wait to be removed while Redis cannot be reached."""


class Mailboxes:
    """Registers connections with their mailboxes, and removes those that left.

    Args:
        identity: whose connections they are.
        feeds: where they are registered.
        listeners: the connections.
        leases: who is live.
        catch_up: lets them read on.
        policy: the rules of every session.
        observer: told what the sweep finds.
        turns: for checks of many.
        broadcast_head: the newest id of a broadcast, where a device begins that is new.
        sweep_seconds: the longest that a lost entry can delay a quiet mailbox.
        now: seconds on a monotonic clock.
    """

    def __init__(
        self,
        identity: NodeIdentity,
        feeds: Feeds,
        listeners: Everyone,
        leases: Leases,
        catch_up: CatchUp,
        policy: Policy,
        observer: Observer,
        turns: Turns,
        broadcast_head: Callable[[str], int],
        *,
        sweep_seconds: float,
        now: float,
    ) -> None:
        self.listeners = listeners
        self.registrations: Registrations[Listener] = Registrations(
            self, feeds, identity, observer, turns, seconds=sweep_seconds, now=now
        )
        self._identity = identity
        self._feeds = feeds
        self._leases = leases
        self._catch_up = catch_up
        self._policy = policy
        self._broadcast_head = broadcast_head
        # Registrations to remove, each with its feed: one that stayed would count as a connection
        # of the user for as long as this node lives.
        self._left: list[tuple[str, str]] = []
        # Those that could not be removed: they must not hold up the others until the next tick.
        self._failed: list[tuple[str, str]] = []

    # --- coming and going ----------------------------------------------------------------------

    async def join(self, listener: Listener, held: int | None, *, withdrawn: bool) -> Backlog:
        """Register a listener and read what it is owed.

        Args:
            listener: the connection.
            held: the position in the mailbox that the client says it holds.
            withdrawn: whether it is told what was withdrawn of that.

        Raises:
            TooManyConnections: the user holds as many connections as it may.
            Unavailable: Redis cannot be reached.
        """
        while True:
            node = self._identity.id
            joined = self._joined(listener, held, again=False)._replace(withdrawn=withdrawn)
            backlog = await self._join_with_room(joined)
            if node == self._identity.id:
                return backlog
            # Meanwhile the node came back under a new id, and nothing is sent to the old one.
            self._feeds.clean([(joined.feed, [joined.connection])])

    async def _join_with_room(self, joined: Join) -> Backlog:
        try:
            return await self._join_one(joined)
        except Full as full:
            dead = await self._leases.dead(full.listeners)
            if not dead:
                raise
            self._feeds.clean([(joined.feed, dead)])
            return await self._join_one(joined)

    async def _join_one(self, joined: Join) -> Backlog:
        (result,) = await self._feeds.join([joined])
        return checked(result)

    def _joined(self, listener: Listener, held: int | None, *, again: bool) -> Join:
        session = listener.session
        return Join(
            session.cursor.feed,
            self._identity.connection_id(listener.number),
            session.device,
            held,
            self._broadcast_head(session.broadcast.feed),
            again,
            withdrawn=True,
        )

    @property
    def leaving(self) -> bool:
        """Whether registrations are to be removed in the next turn of the loop."""
        return bool(self._left)

    def leave(self, listener: Listener) -> None:
        """Forget a listener, and have its registration removed."""
        self.listeners.remove(listener)
        if not self._left:
            asyncio.get_running_loop().call_soon(self._remove_left)
        connection = self._identity.connection_id(listener.number)
        self._left.append((listener.session.cursor.feed, connection))

    def flush(self) -> None:
        """Remove what is registered still, as far as Redis can be reached."""
        self._left = (self._failed + self._left)[-MOST_LEFT:]
        self._failed = []
        self._remove_left()

    def _remove_left(self) -> None:
        left, self._left = self._left, []
        if not left:
            return
        try:
            future = self._feeds.leave((feed, (connection,)) for feed, connection in left)
        except Unavailable:
            self._keep(left)
            return
        future.add_done_callback(functools.partial(self._were_removed, left))

    def _were_removed(self, left: list[tuple[str, str]], future: asyncio.Future[list[Any]]) -> None:
        error = future.exception()
        results = [error] * len(left) if error is not None else future.result()
        self._keep([x for x, r in zip(left, results, strict=True) if isinstance(r, PushError)])

    def _keep(self, failed: list[tuple[str, str]]) -> None:
        """Keep those that could not be removed for the next ``flush``."""
        if failed:
            self._failed = (self._failed + failed)[-MOST_LEFT:]

    def lapsed(self) -> None:
        """The lease is gone, and took along what was to be removed."""
        self._left.clear()
        self._failed.clear()

    # --- as registrations see them -------------------------------------------------------------

    def feeds(self) -> Sequence[str]:
        """The mailboxes."""
        return self.listeners.feeds()

    def members(self, feed: str) -> Sequence[Listener]:
        """The listeners of one."""
        return self.listeners.of(feed)

    def here(self, listener: Listener) -> bool:
        """Not while its handshake is under way, which registers it, and not once it has left."""
        return listener.open

    def cursor(self, listener: Listener) -> Cursor:
        """Its cursor in the mailbox."""
        return listener.session.cursor

    def registered_as(self, listener: Listener, node: str) -> str:
        """The id of the connection."""
        return self._identity.connection_id(listener.number, node)

    def is_registered(self, listener: Listener) -> bool:
        """The handshake was answered, so it is."""
        return listener.open

    def register(self, listeners: Sequence[Listener]) -> Backlogs:
        """Register connections that were let in before."""
        future = self._feeds.join(
            [self._joined(each, each.session.cursor.sent, again=True) for each in listeners]
        )
        for listener in listeners:
            listener.session.cursor.begin_read()
        return future

    def registered(self, listener: Listener, backlog: Backlog, node: str) -> None:  # noqa: ARG002 - the same for each id
        """Go on with what came meanwhile."""
        self._catch_up.carry_out(listener, listener.session.cursor, backlog, "rejoin")

    def not_registered(self, listener: Listener) -> None:
        """Read on all the same."""
        self._catch_up.read(listener, listener.session.cursor, "retry")

    def late(self, listener: Listener, head: int) -> bool:
        """Read on if there is room."""
        if not listener.writable():
            return False
        cursor = listener.session.cursor
        cursor.follow(head)
        late = head < cursor.sent or cursor.wants(self._policy.window)
        if late:
            self._catch_up.read(listener, cursor, "sweep")
        return late  # what waits for acknowledgements has not been lost on its way here
