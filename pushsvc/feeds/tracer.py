"""Asks where a notification is: its feed, and all live nodes through their inboxes.

A question is a notice like any other, so it takes the courier's way. Each node puts its answer
under a key of its own that lives for seconds, whoever asked may have gone by then. Who asks need be
no node, and asks only for those answers that come in time.

A node that died holds its lease for some seconds, and just then operators ask. It is waited for
once at most, and not at all once it has said nothing of itself for a while.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from pushsvc.errors import PushError
from pushsvc.feeds.history import OWN, STARTED, Acks, pairs
from pushsvc.feeds.journal import Answer, Journal
from pushsvc.feeds.keys import Keys
from pushsvc.feeds.lane import Lane
from pushsvc.feeds.nodes import Leases, Notice, Outbox
from pushsvc.feeds.reach import Kept
from pushsvc.feeds.scripts import Scripts
from pushsvc.feeds.summaries import Summaries
from pushsvc.feeds.trace import Trace, trace, unknown
from pushsvc.protocol import ids
from pushsvc.protocol.feeds import by_node

QUESTION: Final = "trace"
"""The kind of the notice that asks; its values are the question's name, the id, and ``PLACES``."""
PLACES: Final = "places"
"""Spares a node to search its journal again: where its connections stand is enough.

A node of an older version does not know it, and tells everything.
"""
CONSOLE: Final = "console"
"""What the asking process is called in the trace of what it published; no node's id is a word."""
PATIENCE: Final = 1.0
"""Seconds in which a node is to answer."""
ANSWER_MS: Final = 10_000
"""How long an answer that nobody takes is kept."""
LOOKS: Final = 1000
"""Most entries before it, and most acks, that are looked at."""
MOST_ALSO: Final = 50
"""Most other feeds that are told to have an entry with this id."""
FIRST_PAUSE: Final = 0.005
LONGEST_PAUSE: Final = 0.05

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Answer).decode


def reply(lane: Lane, keys: Keys, question: str, node: str, answer: Answer) -> None:
    """Put a node's answer where the question is waited for; it may get lost."""
    lane.forget([("SET", keys.answer(question, node), _pack(answer), "PX", ANSWER_MS)])


class Tracer:
    """Traces notifications.

    Args:
        lane: for all that it asks of Redis.
        keys: the key names.
        scripts: the operations.
        leases: who is live; it is looked up anew for each trace.
        summaries: what each of them said of itself, and when.
        outbox: for the questions.
        journal: what the asking process accepted itself.
        patience: seconds in which a node is to answer.
    """

    def __init__(
        self,
        lane: Lane,
        keys: Keys,
        scripts: Scripts,
        leases: Leases,
        summaries: Summaries,
        outbox: Outbox,
        journal: Journal,
        patience: float = PATIENCE,
    ) -> None:
        self._lane = lane
        self._keys = keys
        self._digest = scripts.digests["trace"]
        self._leases = leases
        self._summaries = summaries
        self._outbox = outbox
        self._journal = journal
        self._patience = patience

    async def trace(self, entry_id: int, feed: str | None) -> Trace:
        """The trace of a notification.

        Args:
            entry_id: its id.
            feed: where it was published; None to ask the nodes, which remember what was lately.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        asked, silent = await self._nodes()
        unasked = dict.fromkeys(silent)
        also: Sequence[str] = ()
        if feed is None:
            answers = await self._ask(asked, entry_id, "") | self._own(entry_id, None)
            # Mailboxes first: a topic's name sorts before a user's.
            found = sorted(
                {each.feed for answer in answers.values() if answer for each in answer.seen},
                key=lambda name: (by_node(name), name),
            )
            if not found:
                return unknown(entry_id, answers | unasked, silent)
            feed, also = found[0], found[1 : MOST_ALSO + 1]
            there = [node for node in asked if answers[node] is not None]
            places = await self._ask(there, entry_id, feed, PLACES)
            answers = {
                node: None if answer is None else _joined(feed, answer, places.get(node))
                for node, answer in answers.items()
            }
        else:
            answers = await self._ask(asked, entry_id, feed) | self._own(entry_id, feed)
        kept = await self._look(entry_id, feed)
        told = trace(entry_id, feed, kept, answers | unasked, silent)
        return msgspec.structs.replace(told, also=also)

    async def _nodes(self) -> tuple[list[str], list[str]]:
        """The live nodes: those to ask, and those that have been silent for too long."""
        live = sorted(await self._leases.look())
        now = round(1000 * self._leases.redis_time())
        # There may be more nodes than summaries are read: the rest is asked.
        told = zip(live, await self._summaries.of(live), strict=False)
        silent = [node for node, summary in told if summary.silence(now)]
        return [node for node in live if node not in silent], silent

    def _own(self, entry_id: int, feed: str | None) -> dict[str, Answer | None]:
        """What the asking process knows by itself."""
        own = self._journal.about(entry_id, feed, CONSOLE)
        return {CONSOLE: Answer(own, [], self._journal.since())} if own else {}

    async def _look(self, entry_id: int, feed: str) -> Kept:
        """What the feed keeps."""
        keys = self._keys
        answer = await self._lane.one(
            "EVALSHA", self._digest, 5, keys.log(feed), keys.listeners(feed), keys.cursors(feed),
            keys.marks(feed), keys.acks(feed), ids.render(entry_id), LOOKS,
        )  # fmt: skip
        return _kept(entry_id, feed, answer)

    async def _ask(
        self, nodes: Sequence[str], entry_id: int, feed: str, *more: str
    ) -> dict[str, Answer | None]:
        """What each of some nodes knows, None for one that did not answer in time."""
        question = secrets.token_hex(8)
        for node in nodes:
            self._outbox.notify(
                node, Notice(QUESTION, feed, [question, ids.render(entry_id), *more])
            )
        answers: dict[str, Answer | None] = dict.fromkeys(nodes)
        deadline = time.monotonic() + self._patience
        pause = FIRST_PAUSE
        missing = list(nodes)
        while missing and time.monotonic() < deadline:
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            # Taken, so that nothing stays behind.
            came = await self._lane.submit(
                [("GETDEL", self._keys.answer(question, node)) for node in missing]
            )
            for node, packed in zip(tuple(missing), came, strict=True):
                if isinstance(packed, PushError):
                    raise packed
                if packed is not None:
                    missing.remove(node)
                    # What another version says counts for nothing.
                    with contextlib.suppress(msgspec.DecodeError):
                        answers[node] = _unpack(packed)
        return answers


def _joined(feed: str, first: Answer, places: Answer | None) -> Answer:
    """What a node told of all feeds, and then of one, as if it was asked for the one at once."""
    seen = [each for each in first.seen if each.feed == feed]
    if places is None:
        return Answer(seen, [], first.since)
    return Answer(places.seen or seen, places.places, first.since)


def _kept(entry_id: int, feed: str, answer: Any) -> Kept:
    now, kept, withdrawn, mark, listeners, cursors, since, acks, before = answer
    fields = pairs(cursors)
    positions = {name: ids.parse(at) for name, at in fields.items() if not name.startswith(OWN)}
    starts = {
        name.removeprefix(STARTED): ids.parse(at)
        for name, at in fields.items()
        if name.startswith(STARTED)
    }
    times = [
        (ids.milliseconds(ids.parse(acks[i])), acks[i + 1].decode(), ids.parse(acks[i + 2]))
        for i in range(0, len(acks), 3)
    ]
    return Kept(
        now=int(now),
        expires=int(kept[0]) if kept else None,
        body=kept[1] if kept else b"",
        withdrawn=withdrawn.decode(),
        ended=_ended(mark.decode()),
        listeners={} if by_node(feed) else _devices(pairs(listeners)),
        cursors=positions,
        starts=starts,
        acked=Acks(positions, starts, times, int(since)).of(entry_id),
        head=ids.parse(fields.get("~head", "0-0")),
        trimmed=ids.parse(fields.get("~trimmed", "0-0")),
        before=[ids.parse(each) for each in before],
    )


def _devices(listeners: Mapping[str, str]) -> dict[str, str]:
    """Connection id to device."""
    return {connection: value.partition(" ")[0] for connection, value in listeners.items()}


def _ended(mark: str) -> tuple[str, int] | None:
    """How an entry ended, from the mark of a receipt that is owed: who asked, expiry, how, when."""
    parts = mark.split(" ")
    return (parts[2], int(parts[3])) if len(parts) == 4 else None
