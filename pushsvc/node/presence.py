"""Presence: who listens to a topic, over all nodes, and who came and went.

Each node writes down its own people, under its own id, so that they leave when its lease does. A
change is only a hint to the other nodes: those that have someone who wants to know read the whole
truth again, a moment later, and tell the difference. A lost hint is healed by the next reading.

Where very many listen to a topic, that truth is a number, and so is what is told.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain
from typing import Final

from pushsvc.errors import PushError, Unavailable
from pushsvc.feeds.feed import Feeds
from pushsvc.feeds.nodes import ControlMessage, Leases, Outbox
from pushsvc.node.identity import NodeIdentity
from pushsvc.node.listener import Listener
from pushsvc.node.readings import FRESH_COUNT, MOST_NAMED, Readings, Seen
from pushsvc.node.tasks import Tasks
from pushsvc.node.turns import Turns, Work, parts
from pushsvc.protocol import messages
from pushsvc.protocol.feeds import name_of, topic
from pushsvc.protocol.messages import Ref
from pushsvc.protocol.session import Policy

LINGER: Final = 2.0
"""Seconds after which one who left has left: who comes back sooner was never away."""
PAUSE: Final = 0.25
"""Seconds for which changes are collected before they are told."""
REASSERT: Final = 30.0
"""Seconds between two full writings, and readings, of what this node knows."""
SPREAD: Final = 10.0
"""Seconds over which such a writing is spread where it is a large one."""
BATCH: Final = 256
"""Users from which on a submission is full; the last part may go over it."""
MOST_PAUSE: Final = 0.5
"""Most seconds between two of them."""
CHECKED: Final = 8
"""Topics that are looked at in each second for the people of dead nodes."""

Changes = dict[str, tuple[list[str], list[str]]]
"""For each topic who came and who left."""
Part = tuple[str, list[str], list[str]]
Answers = asyncio.Future[list[list[str] | PushError]]
Submitted = tuple[list[Part], Answers]


class _Follower:
    """How one is told: who came and went, or only how many there are."""

    __slots__ = ("by_name",)

    def __init__(self, *, by_name: bool) -> None:
        self.by_name = by_name


class _News:
    """What followers are told, of the difference between what they were told and a reading."""

    __slots__ = ("_changes", "_count", "_counted", "_large")

    def __init__(self, name: str, known: Seen, seen: Seen) -> None:
        self._large = seen.users is None
        self._changes: list[bytes] = []
        if known.users is not None and seen.users is not None:
            self._changes += _changes(name, seen.users - known.users, known.users - seen.users)
        self._count = [messages.present(name, seen.count)]
        self._counted = self._count if seen.count != known.count else []

    def __bool__(self) -> bool:
        return bool(self._changes or self._counted or self._large)

    def to(self, follower: _Follower) -> list[bytes]:
        """The messages to one, which is told the count alone from a large topic on."""
        if not follower.by_name:
            return self._counted
        if self._large:
            # Nobody is named any more, until the client asks again.
            follower.by_name = False
            return self._count
        return self._changes


class Presence:
    """Who is here.

    Args:
        identity: the node, under whose id its people are written down.
        feeds: where.
        outbox: for hints to other nodes.
        leases: who is live.
        policy: the rules of every session.
        turns: for what is told to many.
        clock: seconds on a monotonic clock.
    """

    def __init__(
        self,
        identity: NodeIdentity,
        feeds: Feeds,
        outbox: Outbox,
        leases: Leases,
        policy: Policy,
        turns: Turns,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._identity = identity
        self._feeds = feeds
        self._outbox = outbox
        self._leases = leases
        self._policy = policy
        self._turns = turns
        self._clock = clock
        self._here: dict[str, dict[str, int]] = {}
        self._came: dict[str, set[str]] = {}
        self._leaving: dict[tuple[str, str], float] = {}
        self._followers: dict[str, dict[Listener, _Follower]] = {}
        # What they were told last, or are being told.
        self._known: dict[str, Seen] = {}
        # What they are to be told once that is done.
        self._news: dict[str, Seen] = {}
        self._readings = Readings(feeds, leases, self._write_now, self._listening, clock)
        self._unread: set[str] = set()
        self._hinted: set[str] = set()
        self._live: frozenset[str] = frozenset()
        self._reassert_at = clock() + REASSERT
        self._reasserting: asyncio.Task[None] | None = None
        # Topics that are still to be looked at for people of dead nodes.
        self._unchecked: list[str] = []
        self._tasks = Tasks("presence")
        self._writing: asyncio.Handle | None = None

    # --- this node's people --------------------------------------------------------------------

    def came(self, feed: str, user: str) -> None:
        """A connection of a user listens to a topic from now on."""
        people = self._here.setdefault(feed, {})
        people[user] = people.get(user, 0) + 1
        self._readings.came(feed, user)
        if people[user] > 1 or self._leaving.pop((feed, user), None) is not None:
            return
        self._came.setdefault(feed, set()).add(user)
        if self._writing is None:
            self._writing = asyncio.get_running_loop().call_soon(self._write_came)

    def left(self, feed: str, user: str) -> None:
        """A connection of a user does not listen to a topic any more."""
        people = self._here.get(feed, {})
        if people.get(user, 0) > 1:
            people[user] -= 1
            return
        people.pop(user, None)
        self._leaving[feed, user] = self._clock() + LINGER

    def _listening(self, feed: str) -> Collection[str]:
        return self._here.get(feed, ())

    def _write_now(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._write_came()

    def _write_came(self) -> None:
        self._writing = None
        came, self._came = self._came, {}
        self._write({feed: (sorted(users), []) for feed, users in came.items()})

    def _write(self, changes: Changes) -> None:
        if changes:
            parts = _parts(changes)
            # At once: a question that is asked next is answered with them.
            self._tasks.spawn(self._written(self._submit(parts), parts))

    def _submit(self, changes: Iterator[Part]) -> Submitted:
        """Hand the next changes over, as far as they are still true."""
        true = map(self._still, _some(changes))
        parts = [(feed, came, gone) for feed, came, gone in true if came or gone]
        future: Answers = asyncio.get_running_loop().create_future()
        if not parts:
            future.set_result([])
            return parts, future
        try:
            future = self._feeds.present(
                (feed, self._identity.id, came, gone) for feed, came, gone in parts
            )
        except Unavailable as error:
            future.set_exception(error)
            future.exception()  # a task that is cancelled before it begins would not look
        return parts, future

    def _still(self, part: Part) -> Part:
        feed, came, gone = part
        here = self._here.get(feed, {})
        came = [user for user in came if user in here or (feed, user) in self._leaving]
        return feed, came, [user for user in gone if user not in here]

    async def _written(self, first: Submitted, rest: Iterator[Part], pause: float = 0.0) -> None:
        """See to the answers, and hand over the rest little by little."""
        await self._was_written(*first)
        for part in rest:
            await asyncio.sleep(pause)
            await self._was_written(*self._submit(chain([part], rest)))

    async def _was_written(self, parts: list[Part], future: Answers) -> None:
        try:
            answers = await future
        except Unavailable as error:
            answers = [error] * len(parts)
        nodes: dict[str, set[str]] = {}
        later = self._clock() + LINGER
        for (feed, _, gone), answer in zip(parts, answers, strict=True):
            if isinstance(answer, PushError):
                self._reassert_at = min(self._reassert_at, later)
                self._leaving.update({(feed, user): later for user in gone})
            else:
                nodes.setdefault(feed, set()).update(answer)
        for feed, listening in nodes.items():
            for node in listening - {self._identity.id}:
                self._outbox.notify(node, ControlMessage("presence", feed, []))
            self.changed(feed)

    # --- those who want to know ----------------------------------------------------------------

    def follow(self, listener: Listener, feed: str, *, by_name: bool) -> None:
        """Tell a listener from now on who comes and goes, or how many there are."""
        self._followers.setdefault(feed, {})[listener] = _Follower(by_name=by_name)

    def unfollow(self, listener: Listener, feed: str) -> None:
        """Stop telling a listener."""
        followers = self._followers.get(feed)
        if followers is not None:
            followers.pop(listener, None)
            if not followers:
                del self._followers[feed]
                self._known.pop(feed, None)
                self._news.pop(feed, None)

    def ask(self, listener: Listener, name: str, ref: Ref, *, follows: bool) -> None:
        """Answer with who listens to a topic, and tell changes from now on."""
        self._tasks.spawn(self._answer(listener, name, ref, follows=follows))

    async def _answer(self, listener: Listener, name: str, ref: Ref, *, follows: bool) -> None:
        feed = topic(name, listener.session.namespace)
        try:
            seen = await self._readings.seen(feed)
        except PushError as error:
            listener.send(messages.error(error, ref))
            return
        # Whoever follows from now on begins where the others are: the next difference is for all.
        seen = self._learn(feed, seen)
        payload = messages.reply(ref, topic=name, **seen.to_json())
        listener.send(payload)
        listener.session.answered(len(payload), self._policy, self._clock())
        # Who has unsubscribed meanwhile would not be forgotten any more.
        if follows and listener.open and name in (listener.session.topics or ()):
            first = feed not in self._followers
            self._known.setdefault(feed, seen)
            self.follow(listener, feed, by_name=seen.users is not None)
            if first:
                self.changed(feed)  # hints that came since the reading were for nobody

    async def who(self, feed: str) -> Seen:
        """The users that listen to a topic on any live node.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        return await self._readings.seen(feed)

    def changed(self, feed: str) -> None:
        """Someone came or went: look, in a moment, if anyone wants to know."""
        if feed in self._followers and feed not in self._hinted:
            self._hinted.add(feed)
            known = self._known.get(feed)
            pause = FRESH_COUNT if known is not None and known.users is None else PAUSE
            asyncio.get_running_loop().call_later(pause, self._look, feed)

    def _look(self, feed: str) -> None:
        self._hinted.discard(feed)
        self._tasks.spawn(self._tell(feed))

    async def _tell(self, feed: str) -> None:
        try:
            seen = await self._readings.seen(feed, anew=True)
        except PushError:
            self._unread.add(feed)  # for the next tick
            return
        self._learn(feed, seen)

    def _learn(self, feed: str, seen: Seen) -> Seen:
        """Tell the difference that a reading makes; what is known now.

        A reading that was overtaken by a later one says nothing. One that waits for others to be
        told is not known yet: who begins to follow meanwhile begins where they are.
        """
        known = self._known.get(feed)
        if known is None:
            return seen
        newest = self._news.get(feed, known)
        # Of one reading, the one that knows more is the later: who came since was added.
        if (seen.turn, seen.count) >= (newest.turn, newest.count):
            self._news[feed] = seen
            name = f"presence {feed}"
            if not self._turns.waits(name):
                self._turns.run(name, self._say(feed), len(self._followers.get(feed, ())))
        return self._known.get(feed, seen)

    def _say(self, feed: str) -> Work:
        """Tell followers what is new."""
        known, seen = self._known.get(feed), self._news.pop(feed, None)
        if known is None or seen is None:
            return
        self._known[feed] = seen
        news = _News(name_of(feed), known, seen)
        if not news:
            return
        for place, part in enumerate(parts(list(self._followers.get(feed, {}).items()))):
            if place:
                yield
            followers = self._followers.get(feed, {})
            for listener, follower in part:
                # One that began anew meanwhile began with what was known then.
                if listener.open and followers.get(listener) is follower:
                    for payload in news.to(follower):
                        listener.send(payload)

    # --- time ----------------------------------------------------------------------------------

    def tick(self) -> None:
        """Let go who has left, and look again where a node died; to be called once a second."""
        now = self._clock()
        due = [each for each, at in self._leaving.items() if at <= now]
        changes: Changes = {}
        for feed, user in due:
            del self._leaving[feed, user]
            if user not in self._here.get(feed, {}):
                changes.setdefault(feed, ([], []))[1].append(user)
            if not self._here.get(feed):
                self._here.pop(feed, None)
        self._write(changes)
        self._readings.tick()
        live = frozenset(self._leases.live)
        if self._live - live:
            self.look_again()
            self._unchecked = list(self._here)
        self._live = live
        self._check()
        unread, self._unread = self._unread, set()
        for feed in unread:
            self.changed(feed)
        if now >= self._reassert_at and (self._reasserting is None or self._reasserting.done()):
            self.reassert(SPREAD)
            if not self._unchecked:
                self._unchecked = list(self._here)

    def reassert(self, seconds: float = 0.0) -> None:
        """Write everyone down again: what was lost comes back, under the node's present id.

        Args:
            seconds: over which it is spread where these are many.
        """
        self._reassert_at = self._clock() + REASSERT
        if self._reasserting is not None:
            self._reasserting.cancel()  # all of what it has not done yet is done again
        if self._here:
            parts = self._everyone()
            users = sum(map(len, self._here.values()))
            pause = min(MOST_PAUSE, seconds * BATCH / max(1, users))
            work = self._written(self._submit(parts), parts, pause)
            self._reasserting = self._tasks.spawn(work)
        self.look_again()

    def _everyone(self) -> Iterator[Part]:
        """Who is here, at each topic once its turn comes."""
        for feed in list(self._here):
            yield from _parts({feed: (sorted(self._here.get(feed, ())), [])})

    def _check(self) -> None:
        """Remove the people of dead nodes from some topics that nobody asks about."""
        feeds, self._unchecked = self._unchecked[:CHECKED], self._unchecked[CHECKED:]
        if feeds:
            self._tasks.spawn(self._checked(feeds))

    async def _checked(self, feeds: list[str]) -> None:
        for feed in feeds:
            try:
                found = await self._readings.search(feed)
            except PushError:
                return  # another round follows
            if found:
                self.changed(feed)

    def look_again(self) -> None:
        """Hints may have been lost: read every topic of which someone wants to know."""
        for feed in self._followers:
            self.changed(feed)

    async def aclose(self) -> None:
        """Take the node's people along."""
        if self._writing is not None:
            self._writing.cancel()
        await self._readings.aclose()
        await self._tasks.cancel()
        everyone: dict[str, set[str]] = {feed: set(people) for feed, people in self._here.items()}
        for feed, user in self._leaving:
            everyone.setdefault(feed, set()).add(user)
        self._here.clear()
        self._leaving.clear()
        if any(everyone.values()):
            changes: Changes = {feed: ([], sorted(users)) for feed, users in everyone.items()}
            parts = _parts(changes)
            await self._written(self._submit(parts), parts)


def _some(changes: Iterator[Part]) -> Iterator[Part]:
    """The next changes, as many as one submission takes."""
    size = 0
    for part in changes:
        yield part
        size += len(part[1]) + len(part[2])
        if size >= BATCH:
            return


def _parts(changes: Changes) -> Iterator[Part]:
    """Changes, in parts of a bounded size."""
    for feed, (came, gone) in changes.items():
        for first in range(0, len(came), MOST_NAMED):
            yield feed, came[first : first + MOST_NAMED], []
        for first in range(0, len(gone), MOST_NAMED):
            yield feed, [], gone[first : first + MOST_NAMED]


def _changes(name: str, joined: frozenset[str], left: frozenset[str]) -> Iterable[bytes]:
    """The messages that tell a change, each of a bounded size."""
    come, gone = sorted(joined), sorted(left)
    for first in range(0, max(len(come), len(gone)), MOST_NAMED):
        part = slice(first, first + MOST_NAMED)
        yield messages.presence(name, come[part], gone[part])
