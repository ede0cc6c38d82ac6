"""The schedule: publishes that wait for their time, beside the log of their feed.

What goes out does so in the step of Redis that takes it out of the schedule, and so does what is
recalled: whatever dies and however many nodes try, it ends as one of both, once. A feed is put into
a work queue before anything is scheduled there, so a node that dies in between forgets nothing.
"""

import contextlib
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import structlog

from pushsvc.errors import (
    DurabilityNotReached,
    InvalidRequest,
    NotFound,
    PushError,
    TooManyRequests,
    checked,
)
from pushsvc.feeds.feed import ONCE_SECONDS, Bounds
from pushsvc.feeds.work_queue import WorkQueue
from pushsvc.protocol import ids
from pushsvc.protocol.notifications import Append
from pushsvc.protocol.scheduled import TOLERANCE, ScheduledIds
from pushsvc.protocol.timestamps import rfc3339
from pushsvc.store.redis import Redis
from pushsvc.store.server_connection import reached

MOST_BYTES: Final = 16 * 1024 * 1024
"""Bytes that may wait for one feed; a message is no larger."""
LOOK_COUNT: Final = 16
"""Most publishes of one look at a feed."""
LOOK_BYTES: Final = 64 * 1024
"""Bytes after which a look ends; the last publish may go over it."""
UNREADABLE: Final = 5.0
"""Seconds until the next look at what this node cannot read, and another one may."""
MOST_UNREADABLE: Final = 1000
"""Most of them that are remembered, so that each is logged once."""

_RECALLED: Final = b"recalled"
_encode: Final = msgspec.msgpack.Encoder().encode
# What a newer node adds is passed over, what an older one lacks has its default.
_decode: Final = msgspec.msgpack.Decoder(Append).decode

log = structlog.get_logger("pushsvc.schedule")


class Kept(NamedTuple):
    """A publish that waits."""

    id: str
    at: int
    """Milliseconds since the epoch."""


class Due(NamedTuple):
    """What of a feed is due."""

    wait: float | None
    """Seconds until the next look at the feed, None if nothing else waits."""
    publishes: Sequence[tuple[int, Append]]
    """Each with the time at which it was due, in milliseconds since the epoch."""


class Waiting(NamedTuple):
    """A publish that waits, as it is kept."""

    id: str
    at: int
    """Milliseconds since the epoch."""
    append: Append


class Start(NamedTuple):
    """Behind what a part of what waits begins, whether that still waits or not."""

    at: int
    """Milliseconds since the epoch."""
    id: str


class Schedule:
    """What is scheduled in all feeds.

    Args:
        publishing: for what must last: the tail of its queue waits for the durability.
        redis: any queue without a tail.
        work: the feeds in which something waits.
        bounds: how much a feed keeps.
        redis_time: now by Redis time, in Unix seconds.
    """

    def __init__(
        self,
        publishing: Redis,
        redis: Redis,
        work: WorkQueue,
        bounds: Bounds,
        redis_time: Callable[[], float],
    ) -> None:
        self._publishing = publishing
        self._redis = redis
        self._work = work
        self._most = bounds.entries
        self._retention = round(bounds.retention * 1000)
        self._redis_time = redis_time
        self._ids = ScheduledIds()
        self._unreadable: set[str] = set()

    async def keep(self, appends: Sequence[Append], by: str) -> list[Kept | PushError]:
        """Keep publishes until their time has come.

        Args:
            appends: the publishes, each with its time.
            by: who publishes them.

        Returns:
            For each its id, or why it is not kept.

        Raises:
            StoreUnavailable: it is not known which are kept, as of those that have it for an
                answer; a retry with the same idempotency keys is safe.
            DurabilityNotReached: none is.
            PushError: the same; Redis refuses.
        """
        times = _earliest(append for append in appends if self._may_be(append.at))
        if times:
            ((answer, confirmed),) = await self._lasting([self._work.at(times)])
            checked(answer)
            if not confirmed:
                raise DurabilityNotReached(
                    "nothing was scheduled, as writes do not reach the durability in time: retry"
                )
        results = await self._lasting([self._keep(append, by) for append in appends])
        # A look between the two found nothing, and may have put the next one off.
        times = _earliest(
            append
            for append, (answer, _) in zip(appends, results, strict=True)
            if isinstance(answer, PushError) or answer[0] == b""
        )
        if times:
            await self._redis.execute(self._work.at(times))
        return [
            self._kept(append, answer, confirmed=confirmed)
            for append, (answer, confirmed) in zip(appends, results, strict=True)
        ]

    def _may_be(self, at: int) -> bool:
        """Whether a time may be good, however far this node's clock is off: the script judges.

        What waits must be in the work queue before, and what is refused would call for looks there.
        """
        now, tolerance = self._redis_time() * 1000, TOLERANCE * 1000
        return now - 2 * tolerance <= at <= now + self._retention + tolerance

    async def _lasting(self, commands: Sequence[Any]) -> list[tuple[Any, bool]]:
        """Have commands executed; the result of each, and whether it has the durability."""
        count = len(commands)
        results = await self._publishing.submit(commands)
        confirmed = list(map(reached, results[count:])) or [True] * count
        return list(zip(results[:count], confirmed, strict=True))

    def _keep(self, append: Append, by: str) -> Any:
        stored = msgspec.structs.replace(append, at=0, once=None, by=by)
        return self._publishing.script(
            "schedule", self._publishing.keys.schedule(append.feed, append.once),
            self._ids.make(self._redis_time(), secrets.token_hex(5)), append.at, _encode(stored),
            self._most, MOST_BYTES, self._retention, round(TOLERANCE * 1000), ONCE_SECONDS * 1000,
            self._publishing.keys.became(append.feed, ""),
        )  # fmt: skip

    def _kept(self, append: Append, answer: Any, *, confirmed: bool) -> Kept | PushError:
        if isinstance(answer, PushError):
            return answer
        why, value = answer
        if why == b"past":
            return InvalidRequest(
                f'"at" is past: it is {rfc3339(value)} now; leave it out to publish at once'
            )
        if why == b"far":
            return InvalidRequest(
                f'"at" is at most the retention ({self._retention / 1000:g} s) ahead, and it is '
                f"{rfc3339(value)} now: schedule it nearer to its time"
            )
        if why == b"full":
            return TooManyRequests(
                f"too much is scheduled there: {self._most} publishes and {MOST_BYTES} bytes may "
                "wait for each user, each topic and the broadcast; recall some, or schedule it "
                "later",
                retry_after=max(1.0, value / 1000),
            )
        if not confirmed:
            return DurabilityNotReached(
                "it was scheduled but did not reach the durability in time: retry with the same "
                "Idempotency-Key"
            )
        return Kept(value.decode(), append.at)

    async def recall(self, feed: str, scheduled_id: str) -> int | None:
        """Recall what is scheduled.

        Returns:
            None: it never goes out. Else the id of the notification that it has become.

        Raises:
            NotFound: nothing with this id was scheduled in the feed, or that is long ago.
            DurabilityNotReached: it was recalled, but a failover may bring it back.
            PushError: Redis cannot be reached or refuses.
        """
        ((answer, confirmed),) = await self._lasting([self._cancel(feed, scheduled_id)])
        became = checked(answer)
        if became is None:
            raise NotFound(
                "nothing with this id is scheduled there: use the id of the answer to the publish, "
                "and name whom that was for"
            )
        if not confirmed:
            raise DurabilityNotReached("the recall did not reach the durability in time: retry")
        return None if became == _RECALLED else ids.parse(became)

    def _cancel(self, feed: str, scheduled_id: str) -> Any:
        keys = self._publishing.keys
        names = (keys.times(feed), keys.scheduled(feed), keys.became(feed, scheduled_id))
        return self._publishing.script("cancel", names, scheduled_id, self._retention)

    async def waiting(
        self, feed: str, start: Start, most: int
    ) -> tuple[list[Waiting], Start | None]:
        """What waits in a feed, the earliest first, without what is unreadable.

        Returns:
            At most so many, and where to go on; None at the end.
        """
        keys = self._redis.keys
        times = keys.times(feed)
        same = await self._redis.one("ZRANGEBYSCORE", times, start.at, start.at)
        found: list[Any] = [
            part for each in same if each > start.id.encode() for part in (each, start.at)
        ]
        found += await self._redis.one(
            "ZRANGEBYSCORE", times, f"({start.at}", "+inf", "WITHSCORES", "LIMIT", 0, most
        )
        found = found[: 2 * most]
        if not found:
            return [], None
        following = None
        if len(found) == 2 * most:
            following = Start(int(float(found[-1])), found[-2].decode())
        items = await self._redis.one("HMGET", keys.scheduled(feed), *found[::2])
        waiting = []
        for name, at, item in zip(found[::2], found[1::2], items, strict=True):
            with contextlib.suppress(msgspec.DecodeError):
                if item is not None:
                    waiting.append(Waiting(name.decode(), int(float(at)), _decode(item)))
        return waiting, following

    async def due(self, feeds: Sequence[str]) -> list[Due | PushError]:
        """What of some feeds is due.

        Raises:
            PushError: Redis cannot be reached.
        """
        keys, script = self._redis.keys, self._redis.script
        answers = await self._redis.submit(
            [
                script("due", (keys.times(feed), keys.scheduled(feed)), LOOK_COUNT, LOOK_BYTES)
                for feed in feeds
            ]
        )
        return [
            answer if isinstance(answer, PushError) else self._due(feed, answer)
            for feed, answer in zip(feeds, answers, strict=True)
        ]

    def late(self, at: int) -> float:
        """Seconds since a time in milliseconds since the epoch, by Redis time."""
        return self._redis_time() - at / 1000

    def _due(self, feed: str, answer: Sequence[Any]) -> Due:
        wait, *found = answer
        waits = [] if wait == b"" else [wait / 1000]
        publishes = []
        for i in range(0, len(found), 3):
            scheduled_id, at, item = found[i].decode(), found[i + 1], found[i + 2]
            if item is None:
                log.error("what is scheduled is lost: dropped", feed=feed, id=scheduled_id)
                self._publishing.forget([self._cancel(feed, scheduled_id)])
                continue
            try:
                append = _decode(item)
            except msgspec.DecodeError:
                self._put_off(feed, scheduled_id)
                waits.append(UNREADABLE)
            else:
                publishes.append((at, msgspec.structs.replace(append, scheduled=scheduled_id)))
        return Due(min(waits, default=None), publishes)

    def _put_off(self, feed: str, scheduled_id: str) -> None:
        """Leave an item to the nodes that can read it; meanwhile it is in nothing's way."""
        if scheduled_id not in self._unreadable:
            log.warning(
                "what is scheduled cannot be read here: it waits for a newer node, or a recall",
                feed=feed,
                id=scheduled_id,
            )
            if len(self._unreadable) >= MOST_UNREADABLE:
                self._unreadable.clear()
            self._unreadable.add(scheduled_id)
        later = round((self._redis_time() + UNREADABLE) * 1000)
        self._redis.forget([("ZADD", self._redis.keys.times(feed), "XX", later, scheduled_id)])


def _earliest(appends: Iterable[Append]) -> dict[str, int]:
    """When the first of each feed goes out."""
    times: dict[str, int] = {}
    for append in appends:
        times[append.feed] = min(append.at, times.get(append.feed, append.at))
    return times
