"""What can be done with a feed: publish, join, subscribe, leave, read, ack, check.

Each operation is one script on one slot, handed to a lane. The operations that a node performs for
many connections at once return futures, so that nothing is awaited per connection.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from pushsvc.errors import IdempotencyConflict, PushError, TooManyConnections
from pushsvc.feeds.keys import Keys
from pushsvc.feeds.lane import Lane
from pushsvc.feeds.pipe import Command, reached
from pushsvc.feeds.scripts import Scripts
from pushsvc.protocol import ids
from pushsvc.protocol.delivery import UNKNOWN, Backlog, Entry
from pushsvc.protocol.feeds import RECEIPTS, by_node

READ_COUNT: Final = 64
"""Most entries of one read."""
READ_BYTES: Final = 256 * 1024
"""Bytes after which a read ends; the last entry may go over it."""
STATE_COUNT: Final = 512
"""Most values of one read of a topic's state: each read looks at all of them."""
BROADCAST_PLACE: Final = "~b:"
"""Before a device in its mailbox's cursors: its position in the broadcast, as in lib.lua."""
MAX_DEVICES: Final = 64
"""Most devices with a cursor in one mailbox; one more takes the place of the furthest behind."""
MOST_RECEIPTS: Final = 100_000
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
    receipts: int = MOST_RECEIPTS
    """Receipts that are kept for one publisher; they come from many mailboxes."""


class Append(msgspec.Struct, frozen=True, gc=False):
    """One message for one feed.

    Args:
        feed: where it is appended.
        body: the end of the JSON object that clients are sent.
        ttl: seconds that it is worth delivering; None for the feed's retention, 0 for live only.
        once: the digest of an idempotency key: a second append with the same one is answered with
            the first one's id.
        collapse_key: it takes the place of an older message with the same key.
        any_device: it is settled for all devices of the user once one has acknowledged it.
        receipt: the publisher that is told what became of it; empty for none.
        ephemeral: it is no entry of the feed, and reaches only who is connected and keeps up.
    """

    feed: str
    body: bytes
    ttl: float | None = None
    once: str | None = None
    collapse_key: str = ""
    any_device: bool = False
    receipt: str = ""
    ephemeral: bool = False


class Appended(msgspec.Struct, frozen=True, gc=False):
    """An append that happened: its id, the id before it, and who listened.

    ``listeners`` maps connection ids, or the ids of whole nodes, to how many connections each is.
    """

    id: int
    previous: int
    listeners: Mapping[str, int]
    receipts: bool = False
    """A receipt may be due: something was trimmed."""


class Join(NamedTuple):
    """A connection that is to be registered.

    ``held`` is the position that the client says it holds, None where it says nothing.
    ``broadcast`` is the newest id of the broadcast, where a device that was never here before
    begins. ``again`` says that the connection was let in before its node's lease lapsed.
    ``withdrawn`` asks for what was withdrawn before the position held, too.
    """

    feed: str
    connection: str
    device: str
    held: int | None
    broadcast: int
    again: bool = False
    withdrawn: bool = False


class Rest(NamedTuple):
    """What is left of a topic's state: after the last id that was read, up to where it began."""

    after: int
    upto: int


WHOLE: Final = Rest(ids.START, ids.START)


class Acknowledgement(NamedTuple):
    """A position to write down.

    ``kind`` is empty for an id that the device was sent, ``stored`` for one that must be in the
    mailbox, ``broadcast`` for one of the broadcast. ``connection`` is the one that acknowledges,
    empty for a request.
    """

    feed: str
    device: str
    id: int
    kind: str = ""
    connection: str = ""


class Acknowledged(NamedTuple):
    """A position that was written down, and who else is concerned."""

    position: int
    others: Mapping[str, str] = {}
    """The user's connections, each with its device, where there are others."""
    settled: Sequence[int] = ()
    """Ids that are thereby settled for all devices."""
    receipts: bool = False
    """A receipt may be due."""


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

    async def append(
        self, appends: Sequence[Append]
    ) -> tuple[list[Appended | PushError], list[bool]]:
        """Append messages, each to its feed, in order.

        Returns:
            For each what came of it, where an error stands for a message of which it is not known
            that it was appended; and for each whether it has the durability that the publishing
            lane's tail waits for.

        Raises:
            StoreUnavailable: it is not known which of the appends happened.
        """
        count = len(appends)
        results = await self._publishing.submit([self._append(append) for append in appends])
        confirmed = list(map(reached, results[count:])) or [True] * count
        return list(map(self._appended, appends, results)), confirmed

    def _append(self, append: Append) -> Command:
        keys, feed = self.keys, append.feed
        names = [
            keys.log(feed), keys.listeners(feed), keys.cursors(feed), keys.latest(feed),
            keys.marks(feed),
        ]  # fmt: skip
        if append.once is not None:
            names.append(keys.once(feed, append.once))
        retention = self._retention
        ttl = retention
        if append.ttl is not None:
            ttl = min(retention, max(1, round(append.ttl * 1000)) if append.ttl > 0 else 0)
        return (
            "EVALSHA", self._digests["publish"], len(names), *names,
            append.body, ttl, self._most(feed), retention, ONCE_SECONDS * 1000,
            "1" if by_node(feed) else "", append.collapse_key, "1" if append.any_device else "",
            append.receipt,
        )  # fmt: skip

    def _most(self, feed: str) -> int:
        """How many entries a feed keeps."""
        bounds = self.bounds
        return bounds.receipts if feed.startswith(RECEIPTS) else bounds.entries

    @staticmethod
    def _appended(append: Append, result: Any) -> Appended | PushError:
        if isinstance(result, PushError):
            return result
        entry_id, previous, listeners, receipts = result
        return Appended(
            ids.parse(entry_id),
            ids.parse(previous) if previous else UNKNOWN,
            _counts(listeners)
            if by_node(append.feed)
            else {listener.decode(): 1 for listener in listeners},
            bool(receipts),
        )

    async def listening(self, feed: str) -> Mapping[str, int]:
        """Who listens to a feed, without appending to it.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        listeners = await self._sessions.one("HGETALL", self.keys.listeners(feed))
        if by_node(feed):
            return _counts(listeners)
        return {listener.decode(): 1 for listener in listeners[::2]}

    # --- connections ---------------------------------------------------------------------------

    def join(self, joins: Iterable[Join]) -> asyncio.Future[list[Any]]:
        """Register connections and read their backlogs, each in one step.

        Returns:
            A future of the answers, each for ``joined``.
        """
        keys, bounds = self.keys, self.bounds
        return self._sessions.submit(
            [
                (
                    "EVALSHA", self._digests["join"], 4,
                    keys.log(feed), keys.listeners(feed), keys.cursors(feed), keys.marks(feed),
                    connection, device, "" if held is None else ids.render(held),
                    READ_COUNT, READ_BYTES, self._retention, bounds.connections, MAX_DEVICES,
                    ids.render(broadcast), "1" if again else "", "1" if withdrawn else "",
                )
                for feed, connection, device, held, broadcast, again, withdrawn in joins
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

    def subscribe(
        self, subscriptions: Iterable[tuple[str, str, int, int | Rest | None]]
    ) -> asyncio.Future[list[Any]]:
        """Register nodes as listeners of feeds and read from them, each in one step.

        Args:
            subscriptions: for each feed, node id, how many listen there, and the position from
                which to read, None to begin with the feed's state, which may take several reads:
                ``Rest`` goes on with it.

        Returns:
            A future of the answers, each for ``backlog``.
        """
        return self._sessions.submit([self._subscribe(*each) for each in subscriptions])

    def _subscribe(self, feed: str, node: str, count: int, since: int | Rest | None) -> Command:
        keys = self.keys
        rest = since if isinstance(since, Rest) else WHOLE
        place = ids.render(since) if isinstance(since, int) else ""
        return (
            "EVALSHA", self._digests["subscribe"], 4,
            keys.listeners(feed), keys.log(feed), keys.cursors(feed), keys.latest(feed),
            node, count, place, READ_COUNT if place else STATE_COUNT, READ_BYTES, self._retention,
            ids.render(rest.after), ids.render(rest.upto) if rest is not WHOLE else "",
        )  # fmt: skip

    def recount(self, counts: Iterable[tuple[str, str, int]]) -> asyncio.Future[list[Any]]:
        """Say how many listen on a node: feed, node id and count of each."""
        listeners = self.keys.listeners
        return self._sessions.submit(
            [("HSET", listeners(feed), node, n) for feed, node, n in counts]
        )

    async def broadcast_position(self, feed: str, device: str) -> int:
        """What a device has acknowledged of the broadcast, which its mailbox keeps.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        position = await self._sessions.one(
            "HGET", self.keys.cursors(feed), BROADCAST_PLACE + device
        )
        return ids.parse(position) if position else ids.START

    async def holds(self, feed: str, entry_id: int) -> bool:
        """Whether an entry is in a feed's log.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        at = ids.render(entry_id)
        return bool(await self._sessions.one("XRANGE", self.keys.log(feed), at, at))

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
        """Read on from a position, or from the device's cursor where that is further.

        Args:
            feed: what to read.
            device: whose cursor the feed keeps; empty where it keeps none.
            held: the position.
        """
        keys = self.keys
        names = [keys.log(feed), keys.cursors(feed)]
        if device:
            names.append(keys.marks(feed))
        return self._sessions.submit(
            [
                (
                    "EVALSHA", self._digests["read"], len(names), *names, device,
                    ids.render(held), READ_COUNT, READ_BYTES,
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

    def ack(self, acks: Iterable[Acknowledgement]) -> asyncio.Future[list[Any]]:
        """Move cursors forward.

        Returns:
            A future of the answers, each for ``acknowledged``.
        """
        keys, digest, retention = self.keys, self._digests["ack"], self._retention
        most = self.bounds.entries
        return self._sessions.submit(
            [
                (
                    "EVALSHA", digest, 5,
                    keys.cursors(feed), keys.listeners(feed), keys.log(feed), keys.marks(feed),
                    keys.acks(feed),
                    device, ids.render(entry_id), retention, most, kind, 1 if connection else 0,
                )
                for feed, device, entry_id, kind, connection in acks
            ]
        )  # fmt: skip

    @staticmethod
    def acknowledged(result: Any) -> Acknowledged:
        """What an answer to ``ack`` says.

        Raises:
            PushError: Redis refused.
        """
        if isinstance(result, PushError):
            raise result
        if isinstance(result, bytes):
            return Acknowledged(ids.parse(result))
        position, others, settled, receipts = result
        return Acknowledged(
            ids.parse(position), devices(others), [ids.parse(i) for i in settled], bool(receipts)
        )

    def present(
        self, changes: Iterable[tuple[str, str, Sequence[str], Sequence[str]]]
    ) -> asyncio.Future[list[Any]]:
        """Say who came to topics and who left: feed, node id, and the users of each kind.

        Returns:
            A future of the answers: the ids of the nodes that listen to the topic, none where
            nothing has changed.
        """
        keys = self.keys
        return self._sessions.submit(
            [
                (
                    "EVALSHA", self._digests["present"], 2, keys.present(feed),
                    keys.listeners(feed), node, self._retention, len(came), *came, *gone,
                )
                for feed, node, came, gone in changes
            ]
        )  # fmt: skip

    async def who(self, feed: str) -> list[tuple[str, str]]:
        """The node and the user of everyone who is said to be at a topic, dead nodes included.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        fields = await self._sessions.one("HKEYS", self.keys.present(feed))
        return [tuple(field.decode().split(" ", 1)) for field in fields]

    def gone(self, feed: str, people: Iterable[tuple[str, str]]) -> None:
        """Forget the people of dead nodes; the next reader tries again what fails now."""
        fields = [f"{node} {user}" for node, user in people]
        self._sessions.forget([("HDEL", self.keys.present(feed), *fields)])

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


def devices(listeners: Sequence[bytes]) -> dict[str, str]:
    """Connection ids with their devices, of a flat list of the fields of a mailbox's listeners."""
    return {
        listeners[i].decode(): listeners[i + 1].partition(b" ")[0].decode()
        for i in range(0, len(listeners), 2)
    }


def _counts(listeners: Sequence[bytes]) -> dict[str, int]:
    return {listeners[i].decode(): int(listeners[i + 1]) for i in range(0, len(listeners), 2)}


_WITHDRAWN: Final = {1: "recalled", 2: "acked"}


def _entry(entry_id: bytes, body: bytes | int | None) -> Entry:
    if isinstance(body, int):
        return Entry(ids.parse(entry_id), None, _WITHDRAWN[body])
    return Entry(ids.parse(entry_id), body)


def _backlog(result: Any) -> Backlog:
    cursor, head, start, upto, gap, broadcast, *entries = result
    return Backlog(
        ids.parse(cursor),
        ids.parse(head),
        ids.parse(start),
        ids.parse(upto),
        gap.decode(),
        [_entry(entries[i], entries[i + 1]) for i in range(0, len(entries), 2)],
        ids.parse(broadcast) if broadcast else ids.START,
    )
