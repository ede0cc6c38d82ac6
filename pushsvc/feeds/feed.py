"""What can be done with a feed: publish, join, leave, read, ack, check.

Each operation is one script on one slot, handed to a lane. The operations that a node performs for
many connections at once return futures, so that nothing is awaited per connection.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pushsvc.errors import IdempotencyConflict, PushError, TooManyConnections
from pushsvc.feeds.keys import Keys
from pushsvc.feeds.lane import Lane
from pushsvc.feeds.pipe import Command
from pushsvc.feeds.scripts import Scripts
from pushsvc.protocol import ids
from pushsvc.protocol.delivery import UNKNOWN, Backlog, Entry

READ_COUNT: Final = 64
"""Most entries of one read."""
READ_BYTES: Final = 256 * 1024
"""Bytes after which a read ends; the last entry may go over it."""
MAX_DEVICES: Final = 64
"""Most devices with a cursor in one mailbox; one more takes the place of the furthest behind."""
ONCE_SECONDS: Final = 86400
"""How long an idempotency key is remembered."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a feed keeps."""

    entries: int
    retention: float
    """Seconds."""
    connections: int
    """Most connections of one user, over all nodes."""


@dataclass(frozen=True, slots=True)
class Append:
    """One message for one feed.

    ``ttl`` is in seconds, None for the feed's retention and 0 for live only. ``once`` is the digest
    of an idempotency key: a second append with the same one is answered with the first one's id.
    """

    feed: str
    body: bytes
    ttl: float | None = None
    once: str | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    """An append that happened: its id, the id before it, and who listened."""

    id: int
    previous: int
    listeners: Sequence[str]


class Feeds:
    """The feeds of one Redis.

    Args:
        keys: the key names.
        scripts: the operations.
        bounds: how much a feed keeps.
        publishing: the lane of appends; its tail waits for their durability.
        sessions: the lane of everything that connections need.
    """

    def __init__(
        self, keys: Keys, scripts: Scripts, bounds: Bounds, *, publishing: Lane, sessions: Lane
    ) -> None:
        self.keys = keys
        self.bounds = bounds
        self._digests = scripts.digests
        self._publishing = publishing
        self._sessions = sessions
        self._retention = round(bounds.retention * 1000)

    # --- publishing ----------------------------------------------------------------------------

    async def claim(self, digest: str, fingerprint: str) -> None:
        """Bind an idempotency key to one request.

        Raises:
            IdempotencyConflict: the key was used for another request.
            PushError: Redis cannot be reached or refuses.
        """
        key = self.keys.request(digest)
        taken, bound = await self._sessions.submit(
            [("SET", key, fingerprint, "NX", "EX", ONCE_SECONDS), ("GET", key)]
        )
        for result in (taken, bound):
            if isinstance(result, PushError):
                raise result
        if bound is not None and bound.decode() != fingerprint:
            raise IdempotencyConflict(
                "this Idempotency-Key was used for a request with another body: use a new key"
            )

    async def append(self, appends: Sequence[Append]) -> tuple[list[Appended | PushError], Any]:
        """Append messages, each to its feed, in order.

        Returns:
            For each what came of it, where an error stands for a message that was not appended;
            and the answer to the publishing lane's tail, None without one.

        Raises:
            StoreUnavailable: it is not known which of the appends happened.
        """
        results = await self._publishing.submit([self._append(append) for append in appends])
        confirmed = results.pop() if len(results) > len(appends) else None
        return [self._appended(result) for result in results], confirmed

    def _append(self, append: Append) -> Command:
        keys, feed = self.keys, append.feed
        names = [keys.log(feed), keys.listeners(feed), keys.cursors(feed)]
        if append.once is not None:
            names.append(keys.once(feed, append.once))
        retention = self._retention
        ttl = retention
        if append.ttl is not None:
            ttl = min(retention, max(1, round(append.ttl * 1000)) if append.ttl > 0 else 0)
        return (
            "EVALSHA", self._digests["publish"], len(names), *names,
            append.body, ttl, self.bounds.entries, retention,
            ONCE_SECONDS * 1000,
        )  # fmt: skip

    @staticmethod
    def _appended(result: Any) -> Appended | PushError:
        if isinstance(result, PushError):
            return result
        entry_id, previous, listeners = result
        return Appended(
            ids.parse(entry_id),
            ids.parse(previous) if previous else UNKNOWN,
            [listener.decode() for listener in listeners],
        )

    # --- connections ---------------------------------------------------------------------------

    def join(self, joins: Iterable[tuple[str, str, str, int | None]]) -> asyncio.Future[list[Any]]:
        """Register connections and read their backlogs, each in one step.

        Args:
            joins: for each feed, connection id, device and the position held, None at first.

        Returns:
            A future of the answers, each for ``joined``.
        """
        keys, bounds = self.keys, self.bounds
        return self._sessions.submit(
            [
                (
                    "EVALSHA", self._digests["join"], 3,
                    keys.log(feed), keys.listeners(feed), keys.cursors(feed),
                    connection, device, "" if held is None else ids.render(held),
                    READ_COUNT, READ_BYTES, self._retention, bounds.connections, MAX_DEVICES,
                )
                for feed, connection, device, held in joins
            ]
        )  # fmt: skip

    @staticmethod
    def joined(result: Any) -> Backlog:
        """The backlog in an answer to ``join``.

        Raises:
            Full: the user holds as many connections as it may.
            PushError: Redis refused.
        """
        if isinstance(result, PushError):
            raise result
        if not result[0]:
            raise Full([listener.decode() for listener in result[1:]])
        return _backlog(result)

    def leave(self, leaves: Iterable[tuple[str, Sequence[str]]]) -> asyncio.Future[list[Any]]:
        """Remove exactly these registrations of each feed; a later one of a device stays."""
        return self._sessions.submit(self._leave(leaves))

    def clean(self, leaves: Iterable[tuple[str, Sequence[str]]]) -> None:
        """Remove registrations of dead nodes; the next publish tries again what fails now."""
        self._sessions.forget(self._leave(leaves))

    def _leave(self, leaves: Iterable[tuple[str, Sequence[str]]]) -> list[Command]:
        listeners = self.keys.listeners
        return [("HDEL", listeners(feed), *connections) for feed, connections in leaves]

    def read(self, feed: str, device: str, held: int) -> asyncio.Future[list[Any]]:
        """Read on from a position, or from the device's cursor where that is further."""
        keys = self.keys
        return self._sessions.submit(
            [
                (
                    "EVALSHA", self._digests["read"], 2, keys.log(feed), keys.cursors(feed),
                    device, ids.render(held), READ_COUNT, READ_BYTES,
                )
            ]
        )  # fmt: skip

    @staticmethod
    def backlog(result: Any) -> Backlog:
        """The backlog in an answer to ``read``.

        Raises:
            PushError: Redis refused.
        """
        if isinstance(result, PushError):
            raise result
        return _backlog(result)

    def ack(self, acks: Iterable[tuple[str, str, int]]) -> asyncio.Future[list[Any]]:
        """Move cursors forward: feed, device and id of each."""
        keys, digest, retention = self.keys, self._digests["ack"], self._retention
        return self._sessions.submit(
            [
                ("EVALSHA", digest, 1, keys.cursors(feed), device, ids.render(entry_id), retention)
                for feed, device, entry_id in acks
            ]
        )

    def check(self, checks: Iterable[tuple[str, str]]) -> asyncio.Future[list[Any]]:
        """The newest ids of feeds, for feed and connection id of each: the sweep.

        Returns:
            A future of the answers: the id as bytes, or None where the registration was lost.
        """
        keys, digest, retention = self.keys, self._digests["check"], self._retention
        return self._sessions.submit(
            [
                ("EVALSHA", digest, 2, keys.listeners(feed), keys.cursors(feed), connection,
                 retention)
                for feed, connection in checks
            ]
        )  # fmt: skip


class Full(TooManyConnections):
    """The user holds as many connections as it may; ``listeners`` are their ids."""

    def __init__(self, listeners: Sequence[str]) -> None:
        super().__init__(
            f"this user holds {len(listeners)} connections: close one first", retry_after=30.0
        )
        self.listeners = listeners


def _backlog(result: Any) -> Backlog:
    cursor, head, start, upto, gap, *entries = result
    return Backlog(
        ids.parse(cursor),
        ids.parse(head),
        ids.parse(start),
        ids.parse(upto),
        gap.decode(),
        [Entry(ids.parse(entries[i]), entries[i + 1]) for i in range(0, len(entries), 2)],
    )
