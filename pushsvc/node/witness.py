"""Answers for this node where a notification is: its journal, and where connections stand."""

from collections.abc import Callable
from typing import Final

from pushsvc.feeds.journal import Answer, Journal, Place
from pushsvc.feeds.nodes import Notice
from pushsvc.feeds.tracer import PLACES, QUESTION
from pushsvc.node.feeder import Listener
from pushsvc.node.hub import Hub
from pushsvc.protocol import ids

MOST_PLACES: Final = 100
"""Most connections of one answer."""

Reply = Callable[[str, str, Answer], None]
"""Takes the name of a question, the node's id, and the answer."""


class Witness:
    """Answers questions; other notices are the hub's.

    Args:
        hub: of the connections.
        journal: of the node.
        window: most notifications that a connection is sent ahead of its acknowledgements.
        reply: where answers go.
    """

    def __init__(self, hub: Hub, journal: Journal, window: int, reply: Reply) -> None:
        self._hub = hub
        self._journal = journal
        self._window = window
        self._reply = reply

    def notice(self, notice: Notice) -> None:
        """Answer a question, or hand a notice on."""
        if notice.kind != QUESTION:
            self._hub.notice(notice)
            return
        question, entry_id, *more = notice.values  # a newer version may say more
        node = self._hub.node
        about = ids.parse(entry_id)
        seen = [] if PLACES in more else self._journal.about(about, notice.feed or None, node)
        listeners = self._hub.listeners_of(notice.feed)[:MOST_PLACES]
        places = [self._place(each) for each in listeners if each.open]
        self._reply(question, node, Answer(seen, places, self._journal.since()))

    def _place(self, listener: Listener) -> Place:
        cursor = listener.session.cursor
        return Place(
            connection=self._hub.connection_id(listener),
            device=cursor.device,
            sent=ids.render(cursor.sent),
            acked=ids.render(cursor.acked),
            unacked=cursor.outstanding,
            window=self._window,
            writable=listener.writable(),
        )
