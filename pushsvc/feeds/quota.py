"""What clients store by publishing: a budget of bytes for each user, over all nodes.

A backend is trusted with its Redis. A client does as whoever holds its token likes, and what it
publishes is kept for days.
"""

from collections.abc import Sequence
from typing import Final

from pushsvc import metrics
from pushsvc.errors import Overloaded, PushError, QuotaExceeded, TopicFull
from pushsvc.feeds.feed import Appended
from pushsvc.protocol import ids
from pushsvc.protocol.delivery import UNKNOWN
from pushsvc.protocol.feeds import mailbox, namespace_of
from pushsvc.protocol.notifications import Append
from pushsvc.store.redis import Redis
from pushsvc.store.server_connection import Command

ENTRY_BYTES: Final = 256
"""What an entry takes in Redis beside its body, about."""
FEED_BYTES: Final = 2048
"""What a topic takes that was not there before."""


def cost(append: Append) -> int:
    """The bytes that a publish takes out of the budget; nothing for what is not even numbered."""
    if append.ephemeral:
        return 0
    once = ENTRY_BYTES if append.once else 0  # which is remembered whatever it is of
    if append.ttl == 0:
        return ENTRY_BYTES + once
    # With a collapse key it is part of the state, too.
    return (ENTRY_BYTES + len(append.body)) * (2 if append.collapse_key else 1) + once


def _later(append: Append, result: Appended | PushError) -> int:
    if isinstance(result, Appended):
        if result.previous == UNKNOWN:
            return -cost(append)  # a repeat
        # What others stored does not add to a budget.
        freed = min(result.freed, cost(append))
        return (FEED_BYTES if result.previous == ids.START else 0) - freed
    return -cost(append) if isinstance(result, TopicFull | Overloaded) else 0


class ClientQuota:
    """The budgets of the users.

    Args:
        redis: where they are; any queue whose answers come in order.
        most: bytes of one user; 0 for no limit.
        seconds: in which an empty budget fills up again.
    """

    def __init__(self, redis: Redis, most: int, seconds: float) -> None:
        self._redis = redis
        self._most = most
        self._window = round(seconds * 1000)

    async def spend(self, user: str, appends: Sequence[Append]) -> None:
        """Account for what a client is about to publish.

        Raises:
            QuotaExceeded: it is over the user's budget; nothing was taken.
            PushError: Redis cannot be reached or refuses.
        """
        size = sum(map(cost, appends))
        if not size or not self._most:
            return
        wait = await self._redis.execute(self._command(user, appends, size))
        if wait:
            metrics.published.labels(QuotaExceeded.code).inc(len(appends))
            raise QuotaExceeded(
                f"this user's publishes may store {self._most} bytes in "
                f"{self._window / 1000:g} s: wait, publish less, or send as ephemeral what need "
                "not be kept",
                retry_after=wait / 1000,
            )
        metrics.client_bytes.inc(size)

    def settle(
        self, user: str, appends: Sequence[Append], results: Sequence[Appended | PushError]
    ) -> None:
        """Account for what turned out.

        Topics that are new cost more; what stored nothing, and what took the place of another, is
        given back.
        """
        if not (self._most and appends and appends[0].client):
            return
        size = sum(map(_later, appends, results))
        if size:
            self._redis.forget([self._command(user, appends, size, "1")])

    def _command(self, user: str, appends: Sequence[Append], size: int, *how: str) -> Command:
        # Who publishes does so in the namespace of its own mailbox.
        key = self._redis.keys.stored(mailbox(user, namespace_of(appends[0].feed)))
        return self._redis.script("spend", (key,), size, self._most, self._window, *how)
