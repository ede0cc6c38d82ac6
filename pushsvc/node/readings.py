"""Who is at a topic, read once for all who ask in one moment.

A topic of a few is read whole. One of many is counted, and some of its people are named: nothing
that is done for who asks about it, or is told of it, grows with how many are there.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection
from typing import Any, Final

from pushsvc.errors import Overloaded, PushError, Unavailable
from pushsvc.feeds.feed import Feeds
from pushsvc.feeds.nodes import Leases
from pushsvc.node.tasks import Tasks

LARGE: Final = 1000
"""Most users, each counted once a node, of a topic that is read whole."""
SAMPLE: Final = 100
"""Most users that are named of a larger one."""
MOST_NAMED: Final = 500
"""Most users that one message names."""
FRESH: Final = 0.25
"""Seconds for which a reading answers who asks."""
FRESH_COUNT: Final = 1.0
"""The same of a topic that is counted."""
MOST_KEPT: Final = 256
"""Topics whose last reading is kept."""
STEP_PAUSE: Final = 0.02
"""Seconds between two steps of a search for the people of dead nodes."""


class Seen:
    """What a reading saw.

    Args:
        turn: higher for a later reading.
        count: how many users; of many, each is counted once for each node.
        users: all of them; None where they are many.
        some: of those.
    """

    __slots__ = ("_named", "count", "turn", "users")

    def __init__(
        self, turn: int, count: int, users: frozenset[str] | None, some: Collection[str] = ()
    ) -> None:
        self.turn = turn
        self.count = count
        self.users = users
        self._named = None if users is not None else sorted(some)

    @property
    def named(self) -> list[str]:
        """Those that an answer names, in order."""
        if self._named is None:
            self._named = sorted(self.users or ())[:MOST_NAMED]
        return self._named

    def also(self, user: str) -> "Seen":
        """The same, and a user who has come since."""
        if self.users is None or user in self.users:
            return self
        users = self.users | {user}
        return Seen(self.turn, len(users), users)

    def to_json(self) -> dict[str, Any]:
        """The fields of an answer."""
        sample = {"sample": True} if self.users is None else {}
        return {"users": self.named, "count": self.count, **sample}


class _Kept:
    """The last reading of a topic, and the one that is under way."""

    __slots__ = ("at", "coming", "seen")

    def __init__(self) -> None:
        self.seen: Seen | None = None
        self.at = 0.0
        """When it began."""
        self.coming: asyncio.Future[Seen] | None = None

    def fresh(self, now: float) -> Seen | None:
        if self.seen is None:
            return None
        valid = FRESH_COUNT if self.seen.users is None else FRESH
        return self.seen if now - self.at < valid else None


class Readings:
    """Reads who is at topics.

    Args:
        feeds: where.
        leases: who is live.
        write: hands over what is still to be written, so that a reading sees it.
        here: the users that listen to a topic on this node.
        clock: seconds on a monotonic clock.
    """

    def __init__(
        self,
        feeds: Feeds,
        leases: Leases,
        write: Callable[[], None],
        here: Callable[[str], Collection[str]],
        clock: Callable[[], float],
    ) -> None:
        self._feeds = feeds
        self._leases = leases
        self._write = write
        self._here = here
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        self._turns = 0
        self._searched: set[str] = set()
        self._tasks = Tasks("presence readings")

    async def seen(self, feed: str, *, anew: bool = False) -> Seen:
        """Who is at a topic.

        Args:
            feed: of the topic.
            anew: by a reading that has not begun yet; for those who are told of changes, which
                is never put off: there are no more of their topics than subscriptions.

        Raises:
            Overloaded: as many readings are under way as are kept.
            PushError: Redis cannot be reached or refuses.
        """
        kept = self._kept.get(feed)
        if kept is None:
            if not self._make_room() and not anew:
                raise Overloaded("who is at too many topics is asked at once: ask again")
            kept = self._kept[feed] = _Kept()
        if anew:
            if kept.coming is not None:
                await asyncio.wait([kept.coming])
        elif (seen := kept.fresh(self._clock())) is not None:
            return seen
        if kept.coming is None:
            kept.coming = asyncio.get_running_loop().create_future()
            self._tasks.spawn(self._read(feed, kept, kept.coming))
        return await asyncio.shield(kept.coming)

    async def _read(self, feed: str, kept: _Kept, coming: asyncio.Future[Seen]) -> None:
        began = self._clock()
        try:
            kept.seen = seen = await self._look(feed)
            kept.at = began
            coming.set_result(seen)
        except PushError as error:
            coming.set_exception(error)
        finally:
            kept.coming = None
            if not coming.done():
                coming.set_exception(Unavailable("this node stops: ask another one"))
            coming.exception()  # who has asked may have gone

    async def _look(self, feed: str) -> Seen:
        self._turns += 1
        turn = self._turns
        self._write()
        count, people = await self._feeds.who(feed, LARGE, SAMPLE)
        dead = await self._forget(feed, people)
        live = {user for node, user in people if node not in dead}
        if count > len(people):
            if dead:
                self._tasks.spawn(self._search(feed))
            return Seen(turn, count, None, live)
        # Who came meanwhile is not away.
        users = frozenset(live.union(self._here(feed)))
        return Seen(turn, len(users), users)

    async def _forget(self, feed: str, people: Collection[tuple[str, str]]) -> set[str]:
        """Remove the people of dead nodes; which nodes these are."""
        nodes = {node for node, _ in people}
        dead = {each.removesuffix(".") for each in await self._leases.dead(f"{n}." for n in nodes)}
        if dead:
            self._feeds.gone(feed, [each for each in people if each[0] in dead])
        return dead

    async def _search(self, feed: str) -> None:
        if feed not in self._searched:
            with contextlib.suppress(PushError):  # another round follows
                await self.search(feed)

    async def search(self, feed: str) -> bool:
        """Remove the people of dead nodes, step by step; whether there were any.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        found = False
        cursor = 0
        self._searched.add(feed)
        try:
            while True:
                cursor, people = await self._feeds.people(feed, cursor)
                found = bool(await self._forget(feed, people)) or found
                if not cursor:
                    return found
                await asyncio.sleep(STEP_PAUSE)
        finally:
            self._searched.discard(feed)

    def came(self, feed: str, user: str) -> None:
        """A user listens on this node from now on: who asks next is told so."""
        kept = self._kept.get(feed)
        if kept is not None and kept.seen is not None:
            kept.seen = kept.seen.also(user)

    def tick(self) -> None:
        """Forget what nobody has asked about for a second; to be called once a second."""
        now = self._clock()
        for feed, kept in list(self._kept.items()):
            if kept.coming is None and kept.fresh(now) is None:
                del self._kept[feed]

    def _make_room(self) -> bool:
        """Whether one more reading may be kept; the oldest that are not under way make room."""
        over = len(self._kept) - MOST_KEPT + 1
        if over > 0:
            idle = [feed for feed, kept in self._kept.items() if kept.coming is None]
            for feed in idle[:over]:
                del self._kept[feed]
        return len(self._kept) < MOST_KEPT

    async def aclose(self) -> None:
        """Read no more: who waits for an answer is told that the node stops."""
        await self._tasks.cancel()
