"""Publishes what is scheduled, when its time has come: any node does, each feed one at a time.

Two nodes that have the same feed, because the lease of one ended too soon, do no harm: what one has
published is not there any more for the other.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

import structlog

from pushsvc import metrics
from pushsvc.errors import DurabilityNotReached, NotFound, PushError
from pushsvc.feeds.publisher import Published, Publisher
from pushsvc.feeds.schedule import Schedule
from pushsvc.feeds.work_queue import SETTLING, WorkQueue
from pushsvc.logs import SampledLog
from pushsvc.protocol import ids

POLL: Final = 0.5
"""Seconds between two looks at what is due."""
AT_ONCE: Final = 128
"""Feeds that are looked at together."""
RETRY: Final = 1.0
"""Seconds until the next look at a feed where something could not be published."""

log = structlog.get_logger("pushsvc.departures")
sampled = SampledLog(log)


class Departures:
    """Publishes what is due.

    Args:
        schedule: what is scheduled.
        publisher: publishes it.
        work: the feeds in which something waits.
    """

    def __init__(self, schedule: Schedule, publisher: Publisher, work: WorkQueue) -> None:
        self._schedule = schedule
        self._publisher = publisher
        self._work = work
        self._closing = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Begin to look."""
        self._running = tasks.create_task(self._run(), name="departures")

    async def aclose(self) -> None:
        """Stop after the look that is under way: what a node drops has to wait for its lease."""
        self._closing.set()
        if self._running is not None:
            await asyncio.wait([self._running])

    async def _run(self) -> None:
        failing = False
        while not self._closing.is_set():
            more = False
            try:
                more = await self.turn()
            except PushError as error:
                if not failing:
                    log.warning("what is scheduled cannot be published", error=error.detail)
                failing = True
            else:
                if failing:
                    log.info("what is scheduled is published again")
                failing = False
            if not more:
                # Without the task that wait_for makes: it is what an idle node does most.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL):
                        await self._closing.wait()

    async def turn(self) -> bool:
        """Publish what is due in some feeds; whether there may be more.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        leases = await self._work.lease(AT_ONCE)
        if not leases:
            return False
        try:
            looks = await self._publish([lease.feed for lease in leases])
        except PushError:
            with contextlib.suppress(PushError):
                await self._work.release((lease, RETRY) for lease in leases)
            raise
        await self._work.release(zip(leases, looks, strict=True))
        return len(leases) == AT_ONCE or 0.0 in looks

    async def _publish(self, feeds: Sequence[str]) -> list[float | None]:
        """Publish what is due in some feeds; for each the seconds until the next look."""
        found = await self._schedule.due(feeds)
        looks: list[float | None] = []
        due = []
        for index, each in enumerate(found):
            if isinstance(each, PushError):
                looks.append(RETRY)
                sampled.warning(
                    "what is scheduled cannot be looked at, and is tried again",
                    feed=feeds[index],
                    error=each.detail,
                )
            else:
                looks.append(each.wait)
                due += [(index, at, append) for at, append in each.publishes]
        outcomes = await self._publisher.publish([append for *_, append in due])
        for (index, at, append), outcome in zip(due, outcomes, strict=True):
            if isinstance(outcome, Published):
                metrics.scheduled_late.observe((ids.milliseconds(outcome.id) - at) / 1000)
            if isinstance(outcome, Published | DurabilityNotReached | NotFound):
                # It is out, or was another node's, or recalled: a failover may bring it back.
                look = SETTLING
            else:
                look = RETRY
                sampled.warning(
                    "something scheduled cannot be published, and is tried again",
                    feed=append.feed,
                    id=append.scheduled,
                    error=outcome.detail,
                    late_seconds=round(self._schedule.late(at), 3),
                )
            wait = looks[index]
            looks[index] = look if wait is None else min(wait, look)
        return looks
