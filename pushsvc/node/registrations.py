"""What a node has registered in Redis as listeners of feeds, and how that stays true.

A registration can be lost: a failover to a replica that lacked it, a lease that lapsed. An entry
can be lost on its way to the inbox. Both are found by the **sweep**, which checks each feed's
registration and newest id in turn, and mended in the same way: register again, and read on from
where the cursor stands. This is the one recovery algorithm, for mailboxes, topics and the
broadcast.
"""

import asyncio
import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

from pushsvc.errors import PushError, Unavailable
from pushsvc.feeds.feed import Feeds
from pushsvc.node.identity import NodeIdentity
from pushsvc.node.observer import Observer
from pushsvc.node.sweep_schedule import SweepSchedule
from pushsvc.node.turns import Turns, Work
from pushsvc.protocol.delivery import Backlog, Cursor

BATCH: Final = 256
"""Most that are registered or checked in one submission."""
SWEEP_NOW: Final = 5
"""Seconds over which an urgent sweep is spread."""

Member = TypeVar("Member")
"""What is registered: a connection, or all of a node that listens to a feed."""

Backlogs = asyncio.Future[list[Backlog | PushError]]


class FeedKind(Protocol[Member]):
    """Feeds of one kind, and what is registered as their listeners."""

    def feeds(self) -> Sequence[str]:
        """The feeds that someone here listens to."""

    def members(self, feed: str) -> Sequence[Member]:
        """What is registered for a feed, or was told to be."""

    def here(self, member: Member) -> bool:
        """Whether it still listens: registered now, one that has left would stay so."""

    def cursor(self, member: Member) -> Cursor:
        """Where it stands in its feed."""

    def registered_as(self, member: Member, node: str) -> str:
        """The name under which it is registered while the node has an id."""

    def is_registered(self, member: Member) -> bool:
        """Whether its first registration was answered."""

    def register(self, members: Sequence[Member]) -> Backlogs:
        """Register members under the node's present id, each with a read from where it stands.

        Raises:
            Unavailable: Redis cannot be reached; nothing was submitted.
        """

    def registered(self, member: Member, backlog: Backlog, node: str) -> None:
        """It is registered under an id, and this is what it has to read."""

    def not_registered(self, member: Member) -> None:
        """It may not be registered; the next turns of the sweep try again."""

    def late(self, member: Member, head: int) -> bool:
        """The feed's newest id is not where its cursor stands; whether it reads on now."""


class Registrations(Generic[Member]):
    """Keeps the members of one kind registered.

    Args:
        kind: what is registered.
        feeds: where.
        identity: under whose id.
        observer: told what the sweep finds.
        turns: for checks of many.
        seconds: how long a round of the sweep takes: the longest that a lost entry can delay a
            quiet feed.
        now: seconds on a monotonic clock.
    """

    def __init__(
        self,
        kind: FeedKind[Member],
        feeds: Feeds,
        identity: NodeIdentity,
        observer: Observer,
        turns: Turns,
        *,
        seconds: float,
        now: float,
    ) -> None:
        self._name = f"sweep of {type(kind).__name__}"
        self._turns = turns
        self._kind = kind
        self._feeds = feeds
        self._identity = identity
        self._observer = observer
        self._schedule = SweepSchedule(seconds, SWEEP_NOW, now)

    def batches(self, feeds: Sequence[str] | None = None) -> Iterator[list[Member]]:
        """The members of some feeds, or of all, in parts of a bounded size."""
        kind = self._kind
        members = [
            member
            for feed in (kind.feeds() if feeds is None else feeds)
            for member in kind.members(feed)
            if kind.here(member)
        ]
        for first in range(0, len(members), BATCH):
            yield members[first : first + BATCH]

    # --- registering ---------------------------------------------------------------------------

    def register(self, members: Sequence[Member]) -> Backlogs:
        """Register members, and let them read on.

        Raises:
            Unavailable: Redis cannot be reached; the next turns of the sweep try again.
        """
        members = [member for member in members if self._kind.here(member)]
        try:
            future = self._kind.register(members)
        except Unavailable:
            self._postpone(members)
            raise
        future.add_done_callback(functools.partial(self._registered, members, self._identity.id))
        return future

    def _registered(self, members: Sequence[Member], node: str, future: Backlogs) -> None:
        failed: list[Member] = []
        for member, result in zip(members, results_of(members, future), strict=True):
            if isinstance(result, PushError):
                failed.append(member)
                self._kind.not_registered(member)
            else:
                self._kind.registered(member, result, node)
        self._postpone(failed)

    async def register_again(self, batches: Sequence[Sequence[Member]]) -> None:
        """Register members under the node's new id, and close every gap.

        Raises:
            Unavailable: Redis cannot be reached; to be called again.
        """
        for members in batches:
            self._clean(members)
            future = self.register(members)
            await asyncio.wait([future])
            results = results_of(members, future)
            if results and all(isinstance(each, PushError) for each in results):
                # A server that starts, fails over or is full answers so, each command by itself.
                raise Unavailable("nothing could be registered again") from results[0]

    def _clean(self, members: Sequence[Member]) -> None:
        """Remove what is registered under former ids.

        First, and through the same queue: they count as connections of the user.
        """
        kind, former = self._kind, self._identity.former
        if former:
            self._feeds.clean(
                (
                    kind.cursor(member).feed,
                    [kind.registered_as(member, node) for node in former],
                )
                for member in members
            )

    # --- the sweep -----------------------------------------------------------------------------

    def hurry(self) -> None:
        """Entries or registrations may have been lost: check every feed within seconds."""
        self._schedule.hurry()

    def tick(self, now: float) -> None:
        """Check those whose turn it is; to be called once a second."""
        if self._turns.busy(self._name):
            return  # those of the last second are not through
        feeds = self._schedule.turn(self._kind.feeds, now)
        if feeds:
            self._turns.check(self._name, self._check_all(self.batches(feeds)))

    def _check_all(self, batches: Iterator[list[Member]]) -> Work:
        for members in batches:
            self._check(members)
            yield

    def _check(self, members: list[Member]) -> None:
        kind, node = self._kind, self._identity.id
        checks = [(kind.cursor(each).feed, kind.registered_as(each, node)) for each in members]
        try:
            future = self._feeds.check(checks)
        except Unavailable:
            self._postpone(members)
        else:
            future.add_done_callback(functools.partial(self._checked, members, node))

    def _checked(
        self,
        members: list[Member],
        node: str,
        future: asyncio.Future[list[int | PushError | None]],
    ) -> None:
        heads = results_of(members, future)
        if node != self._identity.id:
            return  # all of them are being registered anew
        lost: list[Member] = []
        failed: list[Member] = []
        in_step = late = 0
        for member, head in zip(members, heads, strict=True):
            if not self._kind.here(member):
                continue
            cursor = self._kind.cursor(member)
            if isinstance(head, PushError):
                failed.append(member)
            elif head is None or not self._kind.is_registered(member):
                lost.append(member)
            # Further on: an entry was lost on its way here; further back: Redis lost some.
            elif head != cursor.sent and not cursor.reading and self._kind.late(member, head):
                late += 1
            else:
                in_step += 1
        self._postpone(failed)
        self._observer.swept(in_step, late, len(lost))
        if lost:
            with contextlib.suppress(Unavailable):
                self.register(lost)

    def _postpone(self, members: Sequence[Member]) -> None:
        """These could not be looked at: they are next."""
        if members:
            self._schedule.put_back([self._kind.cursor(member).feed for member in members])


class Counts:
    """Says how many connections of the node listen to feeds where the node is registered.

    Args:
        feeds: where.
        identity: the node.
    """

    def __init__(self, feeds: Feeds, identity: NodeIdentity) -> None:
        self._feeds = feeds
        self._identity = identity
        self._told: dict[str, int] = {}

    def registered(self, feed: str, count: int) -> None:
        """A registration said it."""
        self._told[feed] = count

    def forget(self, feed: str) -> None:
        """Nobody listens here any more."""
        self._told.pop(feed, None)

    def tell(self, counts: Sequence[tuple[str, int]]) -> None:
        """Say it for each feed of which Redis was told something else, or may not have heard.

        Of feeds where the node is registered and nobody has left the last place since.
        """
        news = [(feed, count) for feed, count in counts if self._told.get(feed) != count]
        for first in range(0, len(news), BATCH):
            some = news[first : first + BATCH]
            try:
                future = self._feeds.recount((feed, self._identity.id, n) for feed, n in some)
            except Unavailable:
                return  # for the next tick
            self._told.update(some)
            future.add_done_callback(functools.partial(self._were_told, [feed for feed, _ in some]))

    def _were_told(self, feeds: Sequence[str], future: asyncio.Future[list[Any]]) -> None:
        for feed, result in zip(feeds, results_of(feeds, future), strict=True):
            if isinstance(result, PushError):
                self._told.pop(feed, None)


def results_of(members: Sequence[Any], future: asyncio.Future[list[Any]]) -> list[Any]:
    """A result for each member, the error of all where there is one."""
    if future.cancelled():
        return [Unavailable("the node stops")] * len(members)
    error = future.exception()
    return future.result() if error is None else [error] * len(members)
