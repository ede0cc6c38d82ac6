"""Asks where a notification is: its feed, and all live nodes through their inboxes.

A question is a control message like any other. Each node puts its answer under a key of its own
that lives for seconds, as the process that asked may have gone by then. That need be no node, and
takes only those answers that come in time.

A node that died holds its lease for some seconds, and just then operators ask. It is waited for
once at most, and not at all once it has said nothing of itself for a while.
"""

import asyncio
import secrets
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from pushsvc.admin.timeline import Timeline, timeline, unknown
from pushsvc.feeds.event_log import Answer, EventLog
from pushsvc.feeds.nodes import ControlMessage, Leases, Outbox
from pushsvc.feeds.summaries import Summaries
from pushsvc.feeds.trace_answers import TraceAnswers
from pushsvc.protocol import ids
from pushsvc.protocol.feeds import by_node, namespace_of

QUESTION: Final = "trace"
"""The kind of the control message that asks; its values: a name, the id, and of the following what
applies.
"""
PLACES: Final = "places"
"""Spares a node to search its event log again: the positions of its connections are enough.

A node of an older version does not know it, and tells everything.
"""
WITHIN: Final = "in:"
"""Before the namespace of which alone a node is to tell; one of an older version tells of all."""
CONSOLE: Final = "console"
"""What the asking process is called in the trace of what it published; no node's id is a word."""
PATIENCE: Final = 1.0
"""Seconds in which a node is to answer."""
MOST_ALSO: Final = 50
"""Most other feeds that are told to have an entry with this id."""
FIRST_PAUSE: Final = 0.005
LONGEST_PAUSE: Final = 0.05


class TraceQuery:
    """Traces notifications.

    Args:
        answers: what the feed keeps, and where the nodes put what they know.
        leases: who is live; it is looked up anew for each trace.
        summaries: what each of them said of itself, and when.
        outbox: for the questions.
        event_log: what the asking process accepted itself.
        patience: seconds in which a node is to answer.
    """

    def __init__(
        self,
        answers: TraceAnswers,
        leases: Leases,
        summaries: Summaries,
        outbox: Outbox,
        event_log: EventLog,
        patience: float = PATIENCE,
    ) -> None:
        self._answers = answers
        self._leases = leases
        self._summaries = summaries
        self._outbox = outbox
        self._event_log = event_log
        self._patience = patience

    async def trace(self, entry_id: int, feed: str | None, namespace: str = "") -> Timeline:
        """The trace of a notification.

        Args:
            entry_id: its id.
            feed: where it was published; None to ask the nodes, which remember what was lately.
            namespace: of the feed, and of all that is told.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        asked, silent = await self._nodes()
        unasked = dict.fromkeys(silent)
        also: Sequence[str] = ()
        if feed is None:
            answers = await self._ask(asked, entry_id, "", within_namespace(namespace))
            answers |= self._own(entry_id, None, namespace)
            # Mailboxes first: a topic's name sorts before a user's.
            found = sorted(
                {
                    each.feed
                    for answer in answers.values()
                    if answer
                    for each in answer.seen
                    if namespace_of(each.feed) == namespace
                },
                key=lambda name: (by_node(name), name),
            )
            if not found:
                return unknown(entry_id, answers | unasked, silent)
            feed, also = found[0], found[1 : MOST_ALSO + 1]
            there = [node for node in asked if answers[node] is not None]
            positions = await self._ask(there, entry_id, feed, PLACES)
            answers = {
                node: None if answer is None else _joined(feed, answer, positions.get(node))
                for node, answer in answers.items()
            }
        else:
            answers = await self._ask(asked, entry_id, feed) | self._own(entry_id, feed)
        kept = await self._answers.kept(entry_id, feed)
        one = timeline(entry_id, feed, kept, answers | unasked, silent)
        return msgspec.structs.replace(one, also=also)

    async def _nodes(self) -> tuple[list[str], list[str]]:
        """The live nodes: those to ask, and those that have been silent for too long."""
        live = sorted(await self._leases.fetch_live())
        now = round(1000 * self._leases.redis_time())
        # There may be more nodes than summaries are read: the rest is asked.
        summaries = zip(live, await self._summaries.of(live), strict=False)
        silent = [node for node, summary in summaries if summary.silence(now)]
        return [node for node in live if node not in silent], silent

    def _own(
        self, entry_id: int, feed: str | None, namespace: str | None = None
    ) -> dict[str, Answer | None]:
        """What the asking process knows by itself."""
        own = self._event_log.about(entry_id, feed, CONSOLE, namespace)
        return {CONSOLE: Answer(own, [], self._event_log.since())} if own else {}

    async def _ask(
        self, nodes: Sequence[str], entry_id: int, feed: str, *more: str
    ) -> dict[str, Answer | None]:
        """What each of some nodes knows, None for one that did not answer in time."""
        question = secrets.token_hex(8)
        for node in nodes:
            self._outbox.notify(
                node, ControlMessage(QUESTION, feed, [question, ids.render(entry_id), *more])
            )
        answers: dict[str, Answer | None] = dict.fromkeys(nodes)
        deadline = time.monotonic() + self._patience
        pause = FIRST_PAUSE
        missing = list(nodes)
        while missing and time.monotonic() < deadline:
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            came = await self._answers.take(question, missing)
            answers |= came
            missing = [node for node in missing if node not in came]
        return answers


def within_namespace(namespace: str) -> str:
    """The value of a question about one namespace."""
    return WITHIN + namespace


def namespace_asked(values: Sequence[str]) -> str | None:
    """The namespace that the values of a question name, None for all."""
    return next((each.removeprefix(WITHIN) for each in values if each.startswith(WITHIN)), None)


def _joined(feed: str, first: Answer, positions: Answer | None) -> Answer:
    """What a node told of all feeds, and then of one, as if it was asked for the one at once."""
    seen = [each for each in first.seen if each.feed == feed]
    if positions is None:
        return Answer(seen, [], first.since)
    return Answer(positions.seen or seen, positions.positions, first.since)
