"""Receipts on request: collected from the mailboxes that owe them, kept in each publisher's feed.

The marks of a mailbox are the outbox: a receipt that is owed stays marked until it is in its
publisher's feed, where a second append of the same one is noticed. So where a node dies on the way,
the next look goes on from there. A mailbox is looked at when something happened in it that may
settle a receipt, and by the work queue, into which it is put before a notification with a receipt
is appended.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Iterable, Sequence
from itertools import compress, islice
from typing import Any, Final, NamedTuple

import structlog

from pushsvc import metrics
from pushsvc.errors import PushError
from pushsvc.feeds.feed import Appended, Feeds
from pushsvc.feeds.work_queue import WorkQueue
from pushsvc.protocol import ids
from pushsvc.protocol.delivery import UNKNOWN
from pushsvc.protocol.feeds import RECEIPTS, name_of
from pushsvc.protocol.names import named
from pushsvc.protocol.notifications import Append
from pushsvc.protocol.receipts import SHORTEST_LOOK, Status, body, next_look
from pushsvc.store.redis import Redis
from pushsvc.store.schema import receipt_marks

POLL: Final = 1.0
"""Seconds between two looks at the work queue."""
HOLD: Final = 30.0
"""Seconds until the mailboxes that a node took are taken by another."""
AT_ONCE: Final = 64
"""Mailboxes that are looked at together."""
MOST_FOUND: Final = 16
"""Most receipts of one look at a mailbox."""
MOST_WAITING: Final = 100_000
"""Most mailboxes that wait for a look out of turn; the work queue has the others."""
RETRY: Final = 5.0
"""Seconds until the next look at a mailbox whose receipts could not be appended."""

log = structlog.get_logger("pushsvc.receipts")


class Settled(NamedTuple):
    """A receipt that can be given."""

    mailbox: str
    notification: int
    feed: str
    """The publisher's, of receipts."""
    status: Status
    at: int
    """Milliseconds since the epoch."""
    device: str
    """The one that acknowledged it, empty if none did or it is not known."""

    def append(self) -> Append:
        """The receipt as an entry of the publisher's feed."""
        which = f"{self.mailbox} {self.notification}"
        if self.status is Status.READ:
            which += " read"  # besides how it ended
        digest = hashlib.sha256(which.encode()).hexdigest()[:32]
        user = name_of(self.mailbox)
        text = body(self.notification, user, self.status, self.at, self.device)
        return Append(self.feed, text, once=digest)


class Receipts:
    """Collects receipts.

    Args:
        feeds: the mailboxes, and the feeds of the receipts.
        redis: any queue without a tail.
        work: the mailboxes that owe receipts.
        webhooks: the receipts' feeds that are sent on; None if none are.
    """

    def __init__(
        self,
        feeds: Feeds,
        redis: Redis,
        work: WorkQueue,
        webhooks: WorkQueue | None = None,
    ) -> None:
        self._feeds = feeds
        self._redis = redis
        self._work = work
        self._webhooks = webhooks
        self._waiting: dict[str, None] = {}
        self._looking: asyncio.Task[None] | None = None
        self._failing = False
        self._running: asyncio.Task[None] | None = None

    async def foresee(self, appends: Iterable[Append]) -> None:
        """Foresee the receipts of notifications; to be called before they are appended.

        Raises:
            PushError: Redis cannot be reached or refuses: they must not be appended.
        """
        retention = self._feeds.bounds.retention
        looks: dict[str, float] = {}
        for append in appends:
            if append.receipt and append.ttl != 0:
                ttl = retention if append.ttl is None else append.ttl
                look = min(ttl, retention, SHORTEST_LOOK)
                looks[append.feed] = min(look, looks.get(append.feed, look))
        if looks:
            await self._work.enqueue(looks)

    async def foresee_reading(self, mailbox: str) -> None:
        """Foresee the receipts of what is about to be marked as read.

        Raises:
            PushError: Redis cannot be reached or refuses: it must not be marked.
        """
        await self._work.enqueue({mailbox: SHORTEST_LOOK})

    def schedule(self, feed: str) -> None:
        """Something happened in a mailbox that may settle a receipt."""
        if len(self._waiting) < MOST_WAITING:
            self._waiting[feed] = None
        if not self._failing:
            self._look()

    async def collect(self, mailboxes: Sequence[str]) -> list[float | None]:
        """Give the receipts of mailboxes that can be given.

        Returns:
            For each in how many seconds to look again, None if it owes no more receipts.

        Raises:
            PushError: Redis cannot be reached; what was owed still is, or was given.
        """
        answers = await self._redis.submit([self._command(each) for each in mailboxes])
        looks: list[float | None] = []
        settled: list[Settled] = []
        for mailbox, answer in zip(mailboxes, answers, strict=True):
            if isinstance(answer, PushError):
                log.warning("a mailbox cannot be looked at", error=answer.detail)
                looks.append(RETRY)
                continue
            looks.append(_look(answer))
            settled += [_settled(mailbox, found) for found in answer[4:]]
        failed = await self._give(settled)
        return [
            RETRY if mailbox in failed else look
            for mailbox, look in zip(mailboxes, looks, strict=True)
        ]

    def _command(self, mailbox: str) -> tuple[Any, ...]:
        keys = self._redis.keys
        return self._redis.script(
            "collect",
            (
                keys.log(mailbox), keys.cursors(mailbox), keys.marks(mailbox), keys.acks(mailbox),
                keys.told(mailbox),
            ),
            MOST_FOUND,
        )  # fmt: skip

    async def _give(self, settled: Sequence[Settled]) -> set[str]:
        """Append receipts, then forget that they are owed.

        Returns:
            The mailboxes for which that failed.
        """
        if not settled:
            return set()
        feeds = {each.feed for each in settled}
        if self._webhooks is not None:
            await self._webhooks.enqueue(dict.fromkeys(feeds, POLL))
        results, confirmed = await self._feeds.append([each.append() for each in settled])
        keys = self._redis.keys
        given: dict[tuple[str, str], list[str]] = {}
        failed = set()
        for each, result, reached in zip(settled, results, confirmed, strict=True):
            if isinstance(result, Appended) and reached:
                fields: tuple[str, ...]
                if each.status is Status.READ:
                    key, fields = keys.told(each.mailbox), (ids.render(each.notification),)
                else:
                    key, fields = keys.marks(each.mailbox), receipt_marks(each.notification)
                given.setdefault((each.mailbox, key), []).extend(fields)
                if result.previous != UNKNOWN:
                    metrics.receipts.labels(each.status.value).inc()
            else:
                failed.add(each.mailbox)
        if given:
            dropped = await self._redis.submit(
                [("HDEL", key, *fields) for (_, key), fields in given.items()]
            )
            kept = (isinstance(result, PushError) for result in dropped)
            failed |= {mailbox for mailbox, _ in compress(given, kept)}
        if self._webhooks is not None:
            await self._webhooks.enqueue(dict.fromkeys(feeds, 0.0))
        return failed

    # --- what looks -----------------------------------------------------------------------------

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Begin to work the queue off."""
        self._running = tasks.create_task(self._run(), name="receipts")

    async def aclose(self) -> None:
        """Stop, once what was called for is looked at, or could not be."""
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
        self._look()
        if self._looking is not None:
            await self._looking

    async def _run(self) -> None:
        failing = False
        while True:
            self._look()
            try:
                await self.due()
            except PushError as error:
                if not failing:
                    log.warning("receipts cannot be collected", error=error.detail)
                failing = True
            else:
                failing = False
            await asyncio.sleep(POLL)

    async def due(self) -> None:
        """Look at the mailboxes of the work queue whose time has come.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        leases = await self._work.lease(AT_ONCE)
        while leases:
            looks = await self.collect([lease.feed for lease in leases])
            await self._work.release(zip(leases, looks, strict=True))
            more = len(leases) == AT_ONCE or 0.0 in looks
            leases = await self._work.lease(AT_ONCE) if more else []

    def _look(self) -> None:
        if self._waiting and self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look_out_of_turn())

    async def _look_out_of_turn(self) -> None:
        self._failing = False
        try:
            while self._waiting and not self._failing:
                mailboxes = list(islice(self._waiting, AT_ONCE))
                for mailbox in mailboxes:
                    del self._waiting[mailbox]
                await self._look_at(mailboxes)
        finally:
            self._looking = None

    async def _look_at(self, mailboxes: Sequence[str]) -> None:
        try:
            looks = await self.collect(mailboxes)
        except PushError:
            self._failing = True
            self._waiting.update(dict.fromkeys(mailboxes))
            return
        for mailbox, look in zip(mailboxes, looks, strict=True):
            if look == RETRY:
                self._failing = True
            if look in (RETRY, 0.0):
                self._waiting[mailbox] = None


def _look(answer: Sequence[Any]) -> float | None:
    now, earliest_expiry, newest, more = answer[:4]
    if more:
        return 0.0
    return next_look(now, earliest_expiry, newest) if earliest_expiry else None


def _settled(mailbox: str, found: Sequence[Any]) -> Settled:
    notification, publisher, status, at, device = found
    return Settled(
        mailbox,
        ids.parse(notification),
        RECEIPTS + publisher.decode(),
        Status(status.decode()),
        at,
        named(device.decode()),
    )
