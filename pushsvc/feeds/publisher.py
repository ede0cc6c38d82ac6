"""Publishing: append to the feed, confirm its durability, then send it to the listeners' nodes.

The feed is the truth, and what is sent only saves time: when this process dies between the two, the
notification is late by at most a sweep, and never lost.
"""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final

import msgspec

from pushsvc import metrics
from pushsvc.errors import DurabilityNotReached, Overloaded, PushError
from pushsvc.feeds.event_log import ACCEPTED, EventLog
from pushsvc.feeds.feed import Appended, Feeds
from pushsvc.feeds.nodes import ControlMessage, Entry, Leases, Outbox, node_of
from pushsvc.feeds.pushes import Pushes
from pushsvc.feeds.quota import ClientQuota
from pushsvc.feeds.receipts import Receipts
from pushsvc.feeds.schedule import Schedule
from pushsvc.protocol import ids
from pushsvc.protocol.notifications import Append
from pushsvc.protocol.timestamps import rfc3339
from pushsvc.settings import Durability
from pushsvc.store.server_connection import Command

NOT_STORED: Final = "none"
"""What stands for the durability of what is live only."""
HEARD_SECONDS: Final = 1.0
"""How old the view of who listens may be for what is ephemeral."""
MOST_HEARD: Final = 10_000
"""Most feeds of which that is remembered."""


class Published(msgspec.Struct, frozen=True, gc=False):
    """A publish that was accepted."""

    id: int
    """0 for what is ephemeral, and for what waits: these have none."""
    durability: Durability | None
    """None for what is live only: it is not stored."""
    connections: int
    """Live connections that it was routed to."""
    scheduled: str = ""
    """The id under which it waits for its time, empty for what is out."""
    at: int = 0
    """When that is, in milliseconds since the epoch."""

    def to_json(self) -> dict[str, str | int]:
        """The members of the answer's JSON."""
        told: dict[str, str | int] = {"id": ids.render(self.id)} if self.id else {}
        if self.scheduled:
            told = {"id": self.scheduled, "at": rfc3339(self.at)}
        told["durability"] = NOT_STORED if self.durability is None else self.durability
        told["connections"] = self.connections
        return told


def confirmation(durability: Durability, timeout: float) -> Command | None:
    """The command that waits until a pipeline's appends have reached a durability."""
    milliseconds = round(timeout * 1000)
    if durability is Durability.REPLICA:
        return ("WAIT", 1, milliseconds)
    if durability is Durability.FSYNC:
        return ("WAITAOF", 1, 0, milliseconds)
    return None


class Publisher:
    """Publishes to feeds.

    Args:
        feeds: where messages are appended; the tail of its publishing queue is ``confirmation``.
        outbox: for what goes to other nodes.
        leases: who is live.
        durability: what to wait for.
        receipts: what owes publishers an answer.
        event_log: remembers what was accepted.
        quota: of what clients store.
        schedule: keeps what is not to be published yet.
        pushes: are foreseen; None where nothing asks for any.
    """

    def __init__(
        self,
        feeds: Feeds,
        outbox: Outbox,
        leases: Leases,
        durability: Durability,
        receipts: Receipts,
        event_log: EventLog,
        quota: ClientQuota,
        schedule: Schedule,
        pushes: Pushes | None = None,
    ) -> None:
        self._feeds = feeds
        self._outbox = outbox
        self._leases = leases
        self._durability: Final = durability
        self._receipts = receipts
        self._event_log = event_log
        self._quota = quota
        self._schedule = schedule
        self._pushes = pushes
        # Who listens to a feed as which device, as read a moment ago, for what is ephemeral.
        self._heard: OrderedDict[tuple[str, str], tuple[float, Mapping[str, int]]] = OrderedDict()

    async def _pass_on(self, append: Append) -> Published | PushError:
        """Send something ephemeral to those that listen; under pressure it is dropped."""
        try:
            listeners = await self._listening(append.feed, append.device)
        except PushError as error:
            return error
        if self._outbox.busy:
            metrics.ephemeral_dropped.labels("outbox").inc()
            return Published(0, None, 0)
        entry = Entry.of(append.feed, 0, 0, append.body, append.device)
        for node in {node_of(each) for each in listeners}:
            self._outbox.post(node, entry)
        metrics.published.labels("accepted").inc()
        return Published(0, None, sum(listeners.values()))

    async def _listening(self, feed: str, device: str) -> Mapping[str, int]:
        """Who listens to a feed on nodes that are live, as of the last second."""
        now = time.monotonic()
        at, listeners = self._heard.get((feed, device), (0.0, {}))
        if now - at >= HEARD_SECONDS or not at:
            listeners = await self._feeds.listening(feed, device)
            dead = set(await self._leases.dead(listeners))
            listeners = {each: n for each, n in listeners.items() if each not in dead}
            self._heard[feed, device] = (now, listeners)
            self._heard.move_to_end((feed, device))
            if len(self._heard) > MOST_HEARD:
                self._heard.popitem(last=False)
        return listeners

    async def admit(self, appends: Sequence[Append], by: str) -> None:
        """Account for what a client is about to publish; before anything is done for it.

        Raises:
            QuotaExceeded: it is over the user's budget.
            PushError: Redis cannot be reached or refuses.
        """
        await self._quota.spend(by, appends)

    def abandon(self, appends: Sequence[Append], by: str) -> None:
        """Give back what was admitted and is not published."""
        self._quota.settle(by, appends, [Overloaded("not published")] * len(appends))

    async def claim(self, digest: str, fingerprint: str, appends: Sequence[Append]) -> None:
        """Bind an idempotency key to one request, until a day after the last of it goes out.

        Raises:
            IdempotencyConflict: the key was used for another request.
            PushError: Redis cannot be reached or refuses.
        """
        at = max(append.at for append in appends)
        ahead = at / 1000 - self._leases.redis_time() if at else 0.0
        await self._feeds.claim(digest, fingerprint, ahead)

    async def publish(self, appends: Sequence[Append], by: str = "") -> list[Published | PushError]:
        """Publish messages, each to its feed, in order; what is ephemeral after what is stored.

        What has a time is kept until then, before all others are published. Where there are both,
        each has its own result, also where nothing of one kind could be done.

        Args:
            appends: the messages.
            by: who publishes them.

        Returns:
            For each what was accepted, or why it was not.

        Raises:
            StoreUnavailable: it is not known which were appended, as of those that have it for an
                answer; a retry with the same idempotency keys is safe.
            DurabilityNotReached: all were to be kept for later, and none is.
            Overloaded: none was appended.
        """
        stored = [append for append in appends if not (append.ephemeral or append.at)]
        if len(stored) == len(appends) > 0:
            return await self._append(appends, by)
        later = [append for append in appends if append.at]
        if later and stored:
            kept = iter(await _apart(self._keep, later, by))
            outcomes = iter(await _apart(self._append, stored, by))
        else:
            kept = iter(await self._keep(later, by) if later else ())
            outcomes = iter(await self._append(stored, by) if stored else ())
        return [
            await self._pass_on(append)
            if append.ephemeral
            else next(kept if append.at else outcomes)
            for append in appends
        ]

    async def _keep(self, appends: Sequence[Append], by: str) -> list[Published | PushError]:
        """Keep what has a time until then."""
        outcomes: list[Published | PushError] = []
        for each in await self._schedule.keep(appends, by):
            if isinstance(each, PushError):
                metrics.published.labels(each.code).inc()
                outcomes.append(each)
            else:
                metrics.published.labels("scheduled").inc()
                outcomes.append(Published(0, self._durability, 0, each.id, each.at))
        return outcomes

    async def _append(self, appends: Sequence[Append], by: str) -> list[Published | PushError]:
        """Publish what is stored, or was numbered at least."""
        await self._foresee(appends)
        try:
            results, confirmed = await self._feeds.append(appends)
        except Overloaded:  # none of them was sent
            self.abandon(appends, by)
            raise
        self._quota.settle(by, appends, results)
        suspects = self._suspects(results)
        dead = await self._dead(suspects) if suspects else ()
        durability = self._durability
        kept = durability.value  # looked up once: that takes as long as the rest of an event
        now = self._leases.redis_time()
        outcomes: list[Published | PushError] = []
        accepted = 0
        for append, result, reached in zip(appends, results, confirmed, strict=True):
            outcome: Published | PushError
            if isinstance(result, PushError):
                outcome = result
            else:
                connections, nodes = self._route(append, result, dead)
                if self._event_log.takes(result.id):
                    at = NOT_STORED if append.ttl == 0 else kept if reached else ""
                    to = tuple(nodes)
                    whose = append.by or by
                    device = append.device
                    self._event_log.add(
                        (now, ACCEPTED, append.feed, result.id, whose, at, connections, to, device)
                    )
                if result.receipts:
                    self._receipts.schedule(append.feed)
                if append.ttl == 0:
                    outcome = Published(result.id, None, connections)
                elif reached:
                    outcome = Published(result.id, durability, connections)
                else:
                    outcome = DurabilityNotReached(
                        "the notification was appended but did not reach durability "
                        f"{durability!s} in time: retry with the same Idempotency-Key; unless a "
                        "failover loses it meanwhile, it is not sent again"
                    )
            if isinstance(outcome, PushError):
                metrics.published.labels(outcome.code).inc()
            else:
                accepted += 1
            outcomes.append(outcome)
        metrics.published.labels("accepted").inc(accepted)
        return outcomes

    async def _foresee(self, appends: Sequence[Append]) -> None:
        """Foresee what is to follow, before they are appended."""
        owed = [append for append in appends if append.receipt]
        if owed:
            await self._receipts.foresee(owed)
        pushed = [append for append in appends if append.push]
        if pushed and self._pushes is not None:
            await self._pushes.foresee(pushed)

    def _suspects(self, results: Sequence[Appended | PushError]) -> Sequence[str]:
        """Those of the listeners whose node may be gone."""
        return self._leases.suspects(
            each for one in results if isinstance(one, Appended) for each in one.listeners
        )

    async def _dead(self, suspects: Sequence[str]) -> Collection[str]:
        """Those whose node is gone."""
        try:
            return frozenset(await self._leases.dead(suspects))
        except PushError:
            return ()  # one too many does no harm

    def _route(
        self, append: Append, appended: Appended, dead: Collection[str]
    ) -> tuple[int, Collection[str]]:
        """Send an entry to each live node that holds a listener, and clean up after dead nodes.

        Returns:
            How many live connections listen, and on which nodes.
        """
        live = appended.listeners
        if dead:
            live = {each: n for each, n in live.items() if each not in dead}
        nodes = {node_of(each) for each in live}
        if not appended.sent:
            entry = Entry.of(
                append.feed, appended.id, appended.previous, append.body, append.device
            )
            for node in nodes:
                self._outbox.post(node, entry)
        if append.any_device:
            shared = ControlMessage("shared", append.feed, [ids.render(appended.id)])
            for node in nodes:
                self._outbox.notify(node, shared)
        if len(live) < len(appended.listeners):
            gone = [each for each in appended.listeners if each in dead]
            self._feeds.clean([(append.feed, gone)])
        return sum(live.values()), nodes


_Part = Callable[[Sequence[Append], str], Awaitable[list[Published | PushError]]]


async def _apart(part: _Part, appends: Sequence[Append], by: str) -> list[Published | PushError]:
    """What came of a part of a request, of which an error is no error of the rest."""
    try:
        return await part(appends, by)
    except PushError as error:
        return [error] * len(appends)
