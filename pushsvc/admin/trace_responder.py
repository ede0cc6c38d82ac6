"""Answers for this node where a notification is: its event log, its connections' positions."""

from collections.abc import Callable
from typing import Final

from pushsvc.admin.trace import PLACES, namespace_asked
from pushsvc.feeds.event_log import Answer, ConnectionPosition, EventLog
from pushsvc.feeds.nodes import ControlMessage
from pushsvc.node.identity import NodeIdentity
from pushsvc.node.listener import Everyone, Listener
from pushsvc.protocol import ids

MOST_POSITIONS: Final = 100
"""Most connections of one answer."""

Reply = Callable[[str, str, Answer], None]
"""Takes the name of a question, the node's id, and the answer."""


class TraceResponder:
    """Answers the questions that come to a node as control messages of the kind ``QUESTION``.

    Args:
        identity: the node.
        listeners: its connections.
        event_log: what it did lately.
        window: most notifications that a connection is sent ahead of its acknowledgements.
        reply: where answers go.
    """

    def __init__(
        self,
        identity: NodeIdentity,
        listeners: Everyone,
        event_log: EventLog,
        window: int,
        reply: Reply,
    ) -> None:
        self._identity = identity
        self._listeners = listeners
        self._event_log = event_log
        self._window = window
        self._reply = reply

    def answer(self, question: ControlMessage) -> None:
        """Reply to a question, by its name, with what is known here."""
        name, entry_id, *more = question.values  # a newer version may say more
        node, feed = self._identity.id, question.feed
        about = ids.parse(entry_id)
        seen = []
        if PLACES not in more:
            seen = self._event_log.about(about, feed or None, node, namespace_asked(more))
        listeners = self._listeners.of(feed)[:MOST_POSITIONS]
        positions = [self._position(each) for each in listeners if each.open]
        self._reply(name, node, Answer(seen, positions, self._event_log.since()))

    def _position(self, listener: Listener) -> ConnectionPosition:
        cursor = listener.session.cursor
        return ConnectionPosition(
            connection=self._identity.connection_id(listener.number),
            device=cursor.device,
            sent=ids.render(cursor.sent),
            acked=ids.render(cursor.acked),
            unacked=cursor.outstanding,
            window=self._window,
            writable=listener.writable(),
        )
