"""What users have read elsewhere, as their connections on this node are told."""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Final

from pushsvc.errors import PushError
from pushsvc.feeds.nodes import ControlMessage
from pushsvc.feeds.read_state import ReadStates, Told, told_of
from pushsvc.node.identity import NodeIdentity
from pushsvc.node.listener import Everyone, Listener
from pushsvc.node.tasks import Tasks
from pushsvc.protocol import messages
from pushsvc.protocol.read_state import Change, Verb

MOST_EARLY: Final = 16
"""Most changes that a connection is told of which came while it joined; the newest."""
GATHER: Final = 0.25
"""Seconds in which what changes the count of a user makes one message that tells it."""
NOTHING: Final = Change(Verb.READ)
"""What tells the count, and changes nothing."""


class ReadStateNews:
    """Tells connections of changes of the read state, and of the count where only that changed.

    How many are unread is asked for each change, since those of two nodes may come in another order
    than they were made in.

    Args:
        identity: the node.
        read_states: of all mailboxes.
        listeners: the connections.
    """

    def __init__(
        self, identity: NodeIdentity, read_states: ReadStates, listeners: Everyone
    ) -> None:
        self._identity = identity
        self._read_states = read_states
        self._listeners = listeners
        self._tasks = Tasks("read states")
        # What came for those that join: it belongs behind what they are sent first.
        self._early: dict[int, deque[bytes]] = {}
        # Those that are to be told the count in a moment, by their numbers.
        self._behind: dict[str, set[int]] = {}

    def joining(self, listener: Listener) -> None:
        """A listener is about to read its mailbox: what changes from now on may not be in that."""
        self._early[listener.number] = deque(maxlen=MOST_EARLY)

    def joined(self, listener: Listener) -> None:
        """It was sent what it read."""
        for payload in self._early.pop(listener.number, ()):
            listener.send(payload)

    def left(self, listener: Listener) -> None:
        """It is gone."""
        self._early.pop(listener.number, None)

    def changed(self, message: ControlMessage) -> None:
        """A control message tells of a change."""
        if not self._listeners.of(message.feed):
            return
        self._tasks.spawn(self._count(message.feed, told_of(message)))

    async def _count(self, feed: str, told: Told) -> None:
        try:
            unread = await self._read_states.count(feed)
        except PushError:
            unread = told.unread  # as it was
        payload = messages.read_state(told.change, unread)
        for listener in self._listeners.of(feed):
            if self._identity.connection_id(listener.number) != told.connection:
                self._tell(listener, payload)

    def recount(self, feed: str, listeners: Iterable[Listener]) -> None:
        """Something came to a mailbox, or left it, of which these are told nothing but the count.

        That is asked in a moment, once for all that comes until then.
        """
        numbers = {listener.number for listener in listeners}
        behind = self._behind.get(feed)
        if behind is not None:
            behind |= numbers
        elif numbers:
            self._behind[feed] = numbers
            self._tasks.spawn(self._recount(feed))

    async def _recount(self, feed: str) -> None:
        await asyncio.sleep(GATHER)
        behind = self._behind.pop(feed)
        try:
            unread = await self._read_states.count(feed)
        except PushError:
            return  # the next answer says it
        payload = messages.read_state(NOTHING, unread)
        for listener in self._listeners.of(feed):
            if listener.number in behind:
                self._tell(listener, payload)

    async def aclose(self) -> None:
        """Finish what is under way."""
        await self._tasks.finish()

    def _tell(self, listener: Listener, payload: bytes) -> None:
        early = self._early.get(listener.number)
        if early is None:
            listener.send(payload)
        else:
            early.append(payload)
