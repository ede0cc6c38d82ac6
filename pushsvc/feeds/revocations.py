"""The revocations that all nodes share, each node reading only what is new to it."""

import uuid
from typing import Any, Final, NamedTuple

from pushsvc.errors import Overloaded
from pushsvc.protocol.revocation import TOLERANCE, Order, Revocation, not_a_time
from pushsvc.store import schema
from pushsvc.store.redis import Redis

MAX_REVOCATIONS: Final = 100_000
"""Most revocations that are kept; further ones are refused until some are over."""
MAX_LISTED: Final = 1000
"""Most revocations in a list."""
PAGE: Final = 1000
"""Most revocations, or namespaces, read at once."""
TOLD_SECONDS: Final = 3600
"""How long nodes are told that something was revoked in a namespace."""


class Changes(NamedTuple):
    """What was revoked since the last look; ``afresh`` where that is all there is."""

    entries: list[Revocation]
    afresh: bool


class RevocationStore:
    """The revocations of one namespace in one Redis, as one node reads them.

    A coroutine that asks Redis raises ``PushError`` where that cannot be reached or refuses.

    Args:
        redis: any queue without a tail.
        namespace: whose they are.
    """

    def __init__(self, redis: Redis, namespace: str = "") -> None:
        keys = redis.keys
        self._redis = redis
        self._namespace = namespace
        self._entries = keys.revocations("entries", namespace)
        self._order = keys.revocations("order", namespace)
        self._ends = keys.revocations("ends", namespace)
        self._revision = keys.revocations("revision", namespace)
        self._changed = keys.revocations("changed")
        self._told = b"0"
        # The data set that was read, and how far. A number alone would come round to the same value
        # again in a Redis that was emptied.
        self._epoch = b"-"
        self._seen = b"0"

    def within(self, namespace: str) -> "RevocationStore":
        """Those of another namespace: none counts, or is told, among those of this one."""
        return RevocationStore(self._redis, namespace)

    async def add(self, order: Order) -> Revocation:
        """Revoke, as of now by Redis time.

        Returns:
            What is held now: where the same tokens were revoked before, the later of both times.

        Raises:
            InvalidRequest: it names a time that is still to come.
            Overloaded: there are as many as may be kept.
        """
        keys: tuple[str, ...] = (self._entries, self._order, self._ends, self._revision)
        told: tuple[str | int, ...] = ()
        if self._namespace:
            keys = (*keys, self._changed)
            told = (self._namespace, round(TOLD_SECONDS * 1000))
        field = schema.revoked(order.user, order.token_id)
        held = await self._redis.run(
            "revoke", keys, field, round(order.ttl * 1000),
            "" if order.issued_before is None else order.issued_before,
            TOLERANCE, MAX_REVOCATIONS, uuid.uuid4().hex, *told,
        )  # fmt: skip
        if held == 0:
            raise not_a_time()
        if held is None:
            raise Overloaded(
                f"{MAX_REVOCATIONS} revocations are kept, which is all there may be: revoke by "
                "issue time, with a shorter ttl",
                retry_after=60.0,
            )
        return _revocation(field.encode(), held)

    async def changed(self) -> list[str]:
        """The namespaces with a name in which something was revoked, a page of them at most.

        Returns:
            Those since the last call that did not fail, or within ``TOLD_SECONDS``.
        """
        rows = await self._redis.one(
            "ZRANGEBYSCORE", self._changed, b"(" + self._told, "+inf",
            "WITHSCORES", "LIMIT", 0, PAGE,
        )  # fmt: skip
        if rows:
            self._told = rows[-1]
        return [name.decode() for name in rows[::2]]

    async def changes(self) -> Changes | None:
        """What changed since the last call that did not fail.

        Returns:
            None if nothing did. Everything, where this is the first call or Redis was emptied.
        """
        keys = (self._entries, self._order, self._revision)
        epoch, seen = self._epoch, self._seen
        entries: list[Revocation] = []
        afresh = False
        while True:
            found, upto, *fields = await self._redis.run("revoked", keys, epoch, seen, PAGE)
            if found != epoch:
                entries, afresh = [], True
            entries += [_revocation(fields[i], fields[i + 1]) for i in range(0, len(fields), 2)]
            epoch, seen = found, upto
            if len(fields) < 2 * PAGE:
                break
        self._epoch, self._seen = epoch, seen
        return Changes(entries, afresh) if entries or afresh else None

    async def newest(self) -> list[Revocation]:
        """The newest revocations, newest first, at most ``MAX_LISTED``."""
        fields = await self._redis.one("ZREVRANGE", self._order, 0, MAX_LISTED - 1)
        if not fields:
            return []
        values = await self._redis.one("HMGET", self._entries, *fields)
        return [
            _revocation(field, value)
            for field, value in zip(fields, values, strict=True)
            if value is not None  # over, and dropped between the two commands
        ]


def _revocation(field: bytes, value: Any) -> Revocation:
    user, token_id = schema.whose(field.decode())
    until, issued = map(int, value.split())
    if token_id is not None:
        return Revocation(until, token_id=token_id)
    return Revocation(until, user, issued_before=issued)
