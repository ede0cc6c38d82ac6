"""The revocations that all nodes share, each node reading only what is new to it."""

import uuid
from typing import Any, Final, NamedTuple

from pushsvc.errors import Overloaded
from pushsvc.feeds.keys import Keys
from pushsvc.feeds.lane import Lane
from pushsvc.feeds.scripts import Scripts
from pushsvc.protocol.revocation import Revocation

MAX_REVOCATIONS: Final = 100_000
"""Most revocations that are kept; further ones are refused until some are over."""
MAX_LISTED: Final = 1000
"""Most revocations in a list."""
PAGE: Final = 1000
"""Most revocations read at once."""

_ALL, _USER, _TOKEN = "a", "u:", "j:"


class Changes(NamedTuple):
    """What was revoked since the last look; ``afresh`` where that is all there is."""

    entries: list[Revocation]
    afresh: bool


class RevocationStore:
    """The revocations of one Redis, as one node reads them.

    Args:
        lane: any without a tail.
        keys: the key names.
        scripts: the operations.
    """

    def __init__(self, lane: Lane, keys: Keys, scripts: Scripts) -> None:
        self._lane = lane
        self._digests = scripts.digests
        self._entries = keys.revocations("entries")
        self._order = keys.revocations("order")
        self._ends = keys.revocations("ends")
        self._revision = keys.revocations("revision")
        # The data set that was read, and how far. A number alone would come round to the same value
        # again in a Redis that was emptied.
        self._epoch = b"-"
        self._seen = b"0"

    async def add(self, revocation: Revocation) -> Revocation:
        """Add a revocation.

        Returns:
            What is held now: where the same tokens were revoked before, the later of both times.

        Raises:
            Overloaded: there are as many as may be kept.
            PushError: Redis cannot be reached or refuses.
        """
        keys = (self._entries, self._order, self._ends, self._revision)
        held = await self._lane.one(
            "EVALSHA", self._digests["revoke"], len(keys), *keys,
            _field(revocation), revocation.until, revocation.issued_before,
            MAX_REVOCATIONS, uuid.uuid4().hex,
        )  # fmt: skip
        if held is None:
            raise Overloaded(
                f"{MAX_REVOCATIONS} revocations are kept, which is all there may be: revoke by "
                "issue time, with a shorter ttl",
                retry_after=60.0,
            )
        return _revocation(_field(revocation).encode(), held)

    async def changes(self) -> Changes | None:
        """What changed since the last call that did not fail.

        Returns:
            None if nothing did. Everything, where this is the first call or Redis was emptied.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        keys = (self._entries, self._order, self._revision)
        epoch, seen = self._epoch, self._seen
        entries: list[Revocation] = []
        afresh = False
        while True:
            found, upto, *fields = await self._lane.one(
                "EVALSHA", self._digests["revoked"], len(keys), *keys, epoch, seen, PAGE
            )
            if found != epoch:
                entries, afresh = [], True
            entries += [_revocation(fields[i], fields[i + 1]) for i in range(0, len(fields), 2)]
            epoch, seen = found, upto
            if len(fields) < 2 * PAGE:
                break
        self._epoch, self._seen = epoch, seen
        return Changes(entries, afresh) if entries or afresh else None

    async def newest(self) -> list[Revocation]:
        """The newest revocations, newest first, at most ``MAX_LISTED``.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        fields = await self._lane.one("ZREVRANGE", self._order, 0, MAX_LISTED - 1)
        if not fields:
            return []
        values = await self._lane.one("HMGET", self._entries, *fields)
        return [
            _revocation(field, value)
            for field, value in zip(fields, values, strict=True)
            if value is not None  # over, and dropped between the two commands
        ]


def _field(revocation: Revocation) -> str:
    if revocation.token_id is not None:
        return _TOKEN + revocation.token_id
    return _ALL if revocation.user is None else _USER + revocation.user


def _revocation(field: bytes, value: Any) -> Revocation:
    name = field.decode()
    until, issued = map(int, value.split())
    if name.startswith(_TOKEN):
        return Revocation(until, token_id=name.removeprefix(_TOKEN))
    user = name.removeprefix(_USER) if name.startswith(_USER) else None
    return Revocation(until, user, issued_before=issued)
