"""Publishing: append to the feed, confirm its durability, then send copies to the listeners' nodes.

The feed is the truth and the copy is a courier: when this process dies between the two, the
message is late by at most a sweep, and never lost.
"""

import enum
import time
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from pushsvc import metrics
from pushsvc.errors import DurabilityNotReached, PushError
from pushsvc.feeds.feed import Append, Appended, Feeds
from pushsvc.feeds.journal import ACCEPTED, Journal
from pushsvc.feeds.nodes import Copy, Leases, Outbox, node_of
from pushsvc.feeds.pipe import Command
from pushsvc.feeds.receipts import Receipts

HEARD_SECONDS: Final = 1.0
"""How old the view of who listens may be for what is ephemeral."""
MOST_HEARD: Final = 10_000
"""Most feeds of which that is remembered."""


class Durability(enum.StrEnum):
    """What has happened to a message before it is answered with 202."""

    NONE = "none"
    """Live only: it is not stored."""
    MEMORY = "memory"
    """It is in the memory of the Redis primary."""
    REPLICA = "replica"
    """At least one replica has it too."""
    FSYNC = "fsync"
    """It is on the primary's disk."""


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """A publish that was accepted."""

    id: int
    """0 for what is ephemeral, and has none."""
    durability: Durability
    connections: int
    """Live connections that it was routed to."""


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
        feeds: where messages are appended; the tail of its publishing lane is ``confirmation``.
        outbox: for the copies.
        leases: who is live.
        durability: what to wait for.
        receipts: what owes publishers an answer.
        journal: remembers what was accepted.
    """

    def __init__(
        self,
        feeds: Feeds,
        outbox: Outbox,
        leases: Leases,
        durability: Durability,
        receipts: Receipts,
        journal: Journal,
    ) -> None:
        self._feeds = feeds
        self._outbox = outbox
        self._leases = leases
        self._durability: Final = durability
        self._receipts = receipts
        self._journal = journal
        # Who listens to a feed, as read a moment ago, for what is ephemeral.
        self._heard: OrderedDict[str, tuple[float, Mapping[str, int]]] = OrderedDict()

    async def pass_on(self, feed: str, body: bytes) -> Receipt:
        """Send something ephemeral to who listens; under pressure it is dropped.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        listeners = await self._listening(feed)
        if self._outbox.busy:
            metrics.ephemeral_dropped.labels("outbox").inc()
            return Receipt(0, Durability.NONE, 0)
        for node in {node_of(each) for each in listeners}:
            self._outbox.post(node, Copy(feed, 0, 0, body))
        metrics.published.labels("accepted").inc()
        return Receipt(0, Durability.NONE, sum(listeners.values()))

    async def _listening(self, feed: str) -> Mapping[str, int]:
        """Who listens to a feed on nodes that are live, as of the last second."""
        now = time.monotonic()
        at, listeners = self._heard.get(feed, (0.0, {}))
        if now - at >= HEARD_SECONDS or not at:
            listeners = await self._feeds.listening(feed)
            dead = set(await self._leases.dead(listeners))
            listeners = {each: n for each, n in listeners.items() if each not in dead}
            self._heard[feed] = (now, listeners)
            self._heard.move_to_end(feed)
            if len(self._heard) > MOST_HEARD:
                self._heard.popitem(last=False)
        return listeners

    async def publish(self, appends: Sequence[Append], by: str = "") -> list[Receipt | PushError]:
        """Publish messages, each to its feed, in order.

        Args:
            appends: the messages.
            by: who publishes them.

        Returns:
            For each a receipt, or why it was not accepted.

        Raises:
            StoreUnavailable: it is not known which were appended, as of those that have it for an
                answer; a retry with the same idempotency keys is safe.
            Overloaded: none was appended.
        """
        owed = [append for append in appends if append.receipt]
        if owed:
            await self._receipts.owe(owed)
        results, confirmed = await self._feeds.append(appends)
        dead = await self._dead(results)
        durability = self._durability
        now = self._leases.redis_time()
        receipts: list[Receipt | PushError] = []
        accepted = 0
        for append, result, reached in zip(appends, results, confirmed, strict=True):
            outcome: Receipt | PushError
            if isinstance(result, PushError):
                outcome = result
            else:
                connections, nodes = self._route(append, result, dead)
                at = Durability.NONE if append.ttl == 0 else durability if reached else ""
                if self._journal.takes(result.id):
                    self._journal.add(
                        (
                            now,
                            ACCEPTED,
                            append.feed,
                            result.id,
                            by,
                            str(at),
                            connections,
                            tuple(nodes),
                        )
                    )
                if result.receipts:
                    self._receipts.soon(append.feed)
                if append.ttl == 0:
                    outcome = Receipt(result.id, Durability.NONE, connections)
                elif reached:
                    outcome = Receipt(result.id, durability, connections)
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
            receipts.append(outcome)
        metrics.published.labels("accepted").inc(accepted)
        return receipts

    async def _dead(self, results: Sequence[Appended | PushError]) -> Collection[str]:
        """Those of the listeners whose node is gone."""
        appended = (result for result in results if isinstance(result, Appended))
        try:
            return frozenset(
                await self._leases.dead(each for one in appended for each in one.listeners)
            )
        except PushError:
            return ()  # a copy too many does no harm

    def _route(
        self, append: Append, appended: Appended, dead: Collection[str]
    ) -> tuple[int, Collection[str]]:
        """Send a copy to each live node that holds a listener, and clean up after dead nodes.

        Returns:
            How many live connections listen, and on which nodes.
        """
        live = {each: n for each, n in appended.listeners.items() if each not in dead}
        nodes = {node_of(each) for each in live}
        for node in nodes:
            self._outbox.post(node, Copy(append.feed, appended.id, appended.previous, append.body))
        if len(live) < len(appended.listeners):
            gone = [each for each in appended.listeners if each in dead]
            self._feeds.clean([(append.feed, gone)])
        return sum(live.values()), nodes
