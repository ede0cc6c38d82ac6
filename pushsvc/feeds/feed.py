"""What can be done with a feed: publish, join, subscribe, leave, read, ack, check.

Each operation is one script on one slot. The operations that a node performs for
many connections at once return futures, so that nothing is awaited per connection.
"""

import asyncio
import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from pushsvc.errors import (
    IdempotencyConflict,
    NotFound,
    PushError,
    TooManyConnections,
    TooManyDevices,
    TopicFull,
)
from pushsvc.feeds.nodes import INBOX_PACKETS, pack_head, pack_tail
from pushsvc.protocol import ids
from pushsvc.protocol.delivery import UNKNOWN, Backlog, LogEntry
from pushsvc.protocol.feeds import MAILBOX, RECEIPTS, by_node
from pushsvc.protocol.names import stored
from pushsvc.protocol.notifications import Append
from pushsvc.protocol.read_state import ARCHIVED, READ
from pushsvc.store import schema
from pushsvc.store.redis import Redis
from pushsvc.store.server_connection import Command, reached

READ_COUNT: Final = 64
"""Most entries of one read."""
READ_BYTES: Final = 256 * 1024
"""Bytes after which a read ends; the last entry may go over it."""
STATE_COUNT: Final = 512
"""Most values of one read of a topic's state."""
PEOPLE_COUNT: Final = 512
"""About how many of those at a topic one step of a search looks at."""
MAX_DEVICES: Final = 64
"""Most devices with a cursor in one mailbox; one more replaces the furthest behind."""
MOST_RECEIPTS: Final = 100_000
ONCE_SECONDS: Final = 86400
"""How long an idempotency key is remembered: from the publish, or the time that this has."""


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
    client_bytes: int = 0
    """Bytes that a topic may hold for a client to publish to it; 0 for any."""


class Appended(msgspec.Struct, frozen=True, gc=False):
    """An append that happened: its id, the id before it, and who listened.

    ``listeners`` maps connection ids, or the ids of whole nodes, to how many connections each is
    that gets it: 0 for those of another device than the one that it is for, whose nodes are told.
    """

    id: int
    previous: int
    listeners: Mapping[str, int]
    receipts: bool = False
    """A receipt may be due: something was trimmed."""
    freed: int = 0
    """Bytes of a topic that went, where a client's took the place of another."""
    sent: bool = False
    """It is in the inboxes of all nodes that listen."""


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


_PLAIN: Final = ("",) * 6
"""The options of a publish that has none."""
_OPTIONS: Final = 10
"""How many there are before the device that it is for."""

WHOLE: Final = Rest(ids.START, ids.START)


class AckKind(enum.StrEnum):
    """What a device acknowledges."""

    SENT = ""
    """An id of its mailbox that it was sent."""
    STORED = "stored"
    """One that must be in the mailbox: it is not known that it was sent."""
    BROADCAST = "broadcast"
    """An id of the broadcast."""


class Acknowledgement(NamedTuple):
    """A position to write down; ``connection`` acknowledges it, empty for a request."""

    feed: str
    device: str
    id: int
    kind: AckKind = AckKind.SENT
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


class _StatePart(NamedTuple):
    """A part of a topic's state, of which the values are yet to be read."""

    head: int
    start: int
    upto: int
    gap: str
    ids: Sequence[int]
    keys: Sequence[bytes]


class Feeds:
    """The feeds of one Redis.

    A coroutine that asks Redis raises ``PushError`` where that cannot be reached or refuses.

    Args:
        bounds: how much a feed keeps.
        publishing: for the appends; the tail of its queue waits for their durability.
        sessions: for everything that connections need.
        sends: whether what is appended alone is sent in the same step: on one server, which has
            the inboxes beside the feeds, and where no durability is to be waited for before.
    """

    def __init__(
        self, bounds: Bounds, *, publishing: Redis, sessions: Redis, sends: bool = False
    ) -> None:
        self.bounds = bounds
        self._sends = sends
        self._keys = sessions.keys
        self._publishing = publishing
        self._sessions = sessions
        self._retention = round(bounds.retention * 1000)

    # --- publishing ----------------------------------------------------------------------------

    async def claim(self, digest: str, fingerprint: str, ahead: float = 0.0) -> None:
        """Bind an idempotency key to one request.

        Args:
            digest: what stands for the key.
            fingerprint: what stands for the request.
            ahead: seconds until what it asks for is to happen, from where on it is remembered.

        Raises:
            IdempotencyConflict: the key was used for another request.
        """
        key = self._keys.request(digest)
        seconds = ONCE_SECONDS + math.ceil(max(0.0, min(ahead, self.bounds.retention)))
        taken, bound = await self._sessions.submit(
            [("SET", key, fingerprint, "NX", "EX", seconds), ("GET", key)]
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
            queue's tail waits for.

        Raises:
            StoreUnavailable: it is not known which of the appends happened.
        """
        count = len(appends)
        # One that is alone in its pipeline is sent in the step that appends it, which saves a round
        # trip. Those of a busy moment go by the batch, which costs less still.
        alone = self._sends and count == 1 and self._publishing.queue.idle
        results = await self._publishing.submit(
            [self._append(append, sends=alone) for append in appends]
        )
        confirmed = list(map(reached, results[count:])) or [True] * count
        return list(map(self._appended, appends, results)), confirmed

    def _append(self, append: Append, *, sends: bool) -> Command:
        feed = append.feed
        retention = self._retention
        ttl = retention
        if append.ttl is not None:
            ttl = min(retention, max(1, round(append.ttl * 1000)) if append.ttl > 0 else 0)
        keys, remembered = self._keys.publish(feed, append.once), ONCE_SECONDS * 1000
        if append.scheduled:
            keys, remembered = self._keys.publish_scheduled(feed, append.scheduled), retention
        device, key = stored(append.device), append.collapse_key
        if device and key:
            key = f"{device} {key}"  # what is for one device replaces nothing of the others
        options: tuple[Any, ...] = (
            key, "1" if append.any_device else "", append.receipt,
            remembered if append.once or append.scheduled else "",
            self.bounds.client_bytes if append.client and not append.scheduled else "",
            append.scheduled,
        )  # fmt: skip
        if options == _PLAIN:  # most are: what is not said costs nothing there
            options = ()
            if sends and feed.startswith(MAILBOX):
                sending = pack_head(feed), pack_tail(append.device)
                options = *_PLAIN, self._keys.node, INBOX_PACKETS, *sending
        if device or append.signal or append.push:
            more: tuple[Any, ...] = device, MAX_DEVICES, "1" if append.signal else ""
            if append.push:
                more = *more, append.push, round(append.push_after * 1000), append.push_event
            options = *options, *("",) * (_OPTIONS - len(options)), *more
        alike: tuple[Any, ...] = ttl, self._most(feed), retention, "1" if by_node(feed) else ""
        script = self._publishing.script
        if options:
            return script("publish", keys, append.body, *alike, *options)
        return script("publish", keys, append.body, common=alike)  # said once for many

    def _most(self, feed: str) -> int:
        """How many entries a feed keeps."""
        bounds = self.bounds
        return bounds.receipts if feed.startswith(RECEIPTS) else bounds.entries

    def _appended(self, append: Append, result: Any) -> Appended | PushError:
        if isinstance(result, PushError):
            return result
        if result == b"devices":
            return TooManyDevices(
                f"this user has {MAX_DEVICES} devices, and this is none of them: let it connect "
                "first, which makes room for it, or name one that has"
            )
        if result is None and append.scheduled:
            return NotFound("what was scheduled waits no more: it was recalled, or is out already")
        if result is None:
            return TopicFull(
                f"the topic is full: with about {self.bounds.client_bytes} bytes in it clients "
                "publish no more until some have gone; send less, use a collapse_key again, or "
                "send as ephemeral what need not be kept"
            )
        entry_id, previous, receipts, freed, sent, *listeners = result.split()
        if sent == b"2":
            self._sends = False
        return Appended(
            ids.parse(entry_id),
            UNKNOWN if previous == b"0" else ids.parse(previous),
            _counted(append, listeners),
            receipts == b"1",
            int(freed),
            sent == b"1",
        )

    async def listening(self, feed: str, device: str = "") -> Mapping[str, int]:
        """Who listens to a feed, or as one device of a user, without appending to it."""
        listeners = await self._sessions.one("HGETALL", self._keys.listeners(feed))
        if by_node(feed):
            return schema.counts(listeners)
        devices = schema.devices(listeners)
        return {each: 1 for each, its in devices.items() if device in ("", its)}

    # --- connections ---------------------------------------------------------------------------

    def join(self, joins: Iterable[Join]) -> asyncio.Future[list[Backlog | PushError]]:
        """Register connections and read their backlogs, each in one step.

        Returns:
            A future of the backlogs, where ``Full`` stands for that of a user who holds as many
            connections as it may.
        """
        keys, script, bounds = self._keys.join, self._sessions.script, self.bounds
        return self._sessions.submit(
            [
                script(
                    "join", keys(feed),
                    connection, stored(device), "" if held is None else ids.render(held),
                    READ_COUNT, READ_BYTES, self._retention, bounds.connections, MAX_DEVICES,
                    ids.render(broadcast), "1" if again else "", "1" if withdrawn else "",
                )
                for feed, connection, device, held, broadcast, again, withdrawn in joins
            ],
            _joined,
        )  # fmt: skip

    def subscribe(
        self, subscriptions: Iterable[tuple[str, str, int, int | Rest | None]]
    ) -> asyncio.Future[list[Backlog | PushError]]:
        """Register nodes as listeners of feeds and read from them, each in one step.

        Args:
            subscriptions: for each feed, node id, how many listen there, and the position from
                which to read, None to begin with the feed's state, which may take several reads:
                ``Rest`` goes on with it.

        Returns:
            A future of what was read.
        """
        wanted = list(subscriptions)
        commands = [self._subscribe(*each) for each in wanted]
        if all(isinstance(since, int) for *_, since in wanted):
            return self._sessions.submit(commands, _backlog)
        parts = self._sessions.submit(commands, _subscribed)
        return asyncio.ensure_future(self._with_states([feed for feed, *_ in wanted], parts))

    async def _with_states(
        self,
        feeds: Sequence[str],
        future: asyncio.Future[list[Backlog | _StatePart | PushError]],
    ) -> list[Backlog | PushError]:
        """The answers, with the values of those that are parts of a state."""
        answers = await future
        parts = {i: answer for i, answer in enumerate(answers) if isinstance(answer, _StatePart)}
        commands = [
            ("HMGET", self._keys.latest(feeds[i]), *part.keys)
            for i, part in parts.items()
            if part.keys
        ]
        found = iter(await self._sessions.submit(commands) if commands else ())
        return [
            _state(answer, next(found) if answer.keys else ())
            if isinstance(answer, _StatePart)
            else answer
            for answer in answers
        ]

    def _subscribe(self, feed: str, node: str, count: int, since: int | Rest | None) -> Command:
        rest = since if isinstance(since, Rest) else WHOLE
        place = ids.render(since) if isinstance(since, int) else ""
        return self._sessions.script(
            "subscribe", self._keys.subscribe(feed),
            node, count, place, READ_COUNT if place else STATE_COUNT, READ_BYTES, self._retention,
            ids.render(rest.after), ids.render(rest.upto) if rest is not WHOLE else "",
        )  # fmt: skip

    def recount(
        self, counts: Iterable[tuple[str, str, int]]
    ) -> asyncio.Future[list[int | PushError]]:
        """Say how many listen on a node that is registered: feed, node id and count of each."""
        listeners, script = self._keys.listeners, self._sessions.script
        return self._sessions.submit(
            [script("recount", (listeners(feed),), node, n) for feed, node, n in counts], int
        )

    async def broadcast_position(self, feed: str, device: str) -> int:
        """What a device has acknowledged of the broadcast, which its mailbox keeps."""
        position = await self._sessions.one(
            "HGET", self._keys.cursors(feed), schema.broadcast_position(device)
        )
        return ids.parse(position) if position else ids.START

    async def holds(self, feed: str, entry_id: int) -> bool:
        """Whether an entry is in a feed's log."""
        at = ids.render(entry_id)
        return bool(await self._sessions.one("XRANGE", self._keys.log(feed), at, at))

    def leave(
        self, leaves: Iterable[tuple[str, Sequence[str]]]
    ) -> asyncio.Future[list[int | PushError]]:
        """Remove exactly these registrations of each feed; a later one of a device stays."""
        return self._sessions.submit(self._leave(leaves), int)

    def clean(self, leaves: Iterable[tuple[str, Sequence[str]]]) -> None:
        """Remove registrations of dead nodes; the next publish tries again what fails now."""
        self._sessions.forget(self._leave(leaves))

    def _leave(self, leaves: Iterable[tuple[str, Sequence[str]]]) -> list[Command]:
        listeners = self._keys.listeners
        return [("HDEL", listeners(feed), *connections) for feed, connections in leaves]

    def read(self, feed: str, device: str, held: int) -> asyncio.Future[list[Backlog | PushError]]:
        """Read on from a position, or from the device's cursor where that is further.

        Args:
            feed: what to read.
            device: whose cursor the feed keeps; empty where it keeps none.
            held: the position.
        """
        keys = self._keys.read_mailbox(feed) if device else self._keys.read(feed)
        command = self._sessions.script(
            "read", keys, stored(device), ids.render(held), READ_COUNT, READ_BYTES
        )
        return self._sessions.submit([command], _backlog)

    def ack(
        self, acks: Iterable[Acknowledgement]
    ) -> asyncio.Future[list[Acknowledged | PushError]]:
        """Move cursors forward; a future of what came of each."""
        keys, script = self._keys.ack, self._sessions.script
        retention, most = self._retention, self.bounds.entries
        return self._sessions.submit(
            [
                script(
                    "ack",
                    keys(feed),
                    stored(device),
                    ids.render(entry_id),
                    common=(retention, most, kind, 1 if connection else 0),
                )
                for feed, device, entry_id, kind, connection in acks
            ],
            _acknowledged,
        )

    def present(
        self, changes: Iterable[tuple[str, str, Sequence[str], Sequence[str]]]
    ) -> asyncio.Future[list[list[str] | PushError]]:
        """Say who came to topics and who left: feed, node id, and the users of each kind.

        Returns:
            For each a future of the ids of the nodes that listen to the topic, none where nothing
            has changed.
        """
        keys, script = self._keys, self._sessions.script
        return self._sessions.submit(
            [
                script(
                    "present", (keys.present(feed), keys.listeners(feed)),
                    node, self._retention, len(came), *map(stored, came), *map(stored, gone),
                )
                for feed, node, came, gone in changes
            ],
            _names,
        )  # fmt: skip

    async def who(self, feed: str, most: int, some: int) -> tuple[int, list[tuple[str, str]]]:
        """How many are said to be at a topic, and the node and the user of each.

        Those of dead nodes are included, and who listens on two nodes is there twice.

        Args:
            feed: of the topic.
            most: that are all told.
            some: at most so many are told of more.
        """
        keys = (self._keys.present(feed),)
        count, *fields = await self._sessions.run("who", keys, most, some)
        return count, [schema.present(field) for field in fields]

    async def people(self, feed: str, cursor: int) -> tuple[int, list[tuple[str, str]]]:
        """Some of those at a topic, however many they are, and the cursor for the next; 0 ends."""
        cursor, fields = await self._sessions.one(
            "HSCAN", self._keys.present(feed), cursor, "COUNT", PEOPLE_COUNT
        )
        return int(cursor), [schema.present(field) for field in fields[::2]]

    def gone(self, feed: str, people: Iterable[tuple[str, str]]) -> None:
        """Forget the people of dead nodes; the next reader tries again what fails now."""
        fields = [schema.presence(node, user) for node, user in people]
        self._sessions.forget([("HDEL", self._keys.present(feed), *fields)])

    def check(
        self, checks: Iterable[tuple[str, str]]
    ) -> asyncio.Future[list[int | PushError | None]]:
        """The newest ids of feeds, for feed and connection id of each: the sweep.

        Returns:
            A future of the ids, None where the registration was lost.
        """
        keys, script, retention = self._keys.check, self._sessions.script, self._retention
        return self._sessions.submit(
            [
                script("check", keys(feed), connection, common=(retention,))
                for feed, connection in checks
            ],
            _head,
        )


def _counted(append: Append, listeners: Sequence[bytes]) -> Mapping[str, int]:
    """The ``listeners`` of ``Appended``."""
    if by_node(append.feed):
        return schema.counts(listeners)
    if not append.device:
        return {listener.decode(): 1 for listener in listeners}
    device = stored(append.device).encode()
    return {
        listeners[i].decode(): int(listeners[i + 1] == device) for i in range(0, len(listeners), 3)
    }


class Full(TooManyConnections):
    """The user holds as many connections as it may; ``listeners`` are their ids."""

    def __init__(self, listeners: Sequence[str]) -> None:
        super().__init__(
            f"this user holds {len(listeners)} connections: close one first", retry_after=30.0
        )
        self.listeners = listeners


_WITHDRAWN: Final = {1: "recalled", 2: "acked"}
_LATER: Final = b"-1"
"""In place of a count: it takes another call."""
_STATES: Final = {b"": "", b"r": READ, b"a": ARCHIVED}


def _entry(entry_id: bytes, body: bytes | int | None) -> LogEntry:
    place, _, state = entry_id.partition(b" ")
    if isinstance(body, int):
        return LogEntry(ids.parse(place), None, _WITHDRAWN[body])
    return LogEntry(ids.parse(place), body, state=_STATES[state])


def _joined(result: Any) -> Backlog | Full:
    if not result[0]:
        return Full([listener.decode() for listener in result[1:]])
    return _backlog(result)


def _subscribed(result: Any) -> Backlog | _StatePart:
    if result[5] != b"state":
        return _backlog(result)
    _, head, start, upto, gap, _, *found = result
    return _StatePart(
        ids.parse(head),
        ids.parse(start),
        ids.parse(upto),
        gap.decode(),
        list(map(ids.parse, found[::2])),
        found[1::2],
    )


def _state(part: _StatePart, values: Any) -> Backlog | PushError:
    """A part of a state, without what was replaced or removed before its value was read.

    That went after the state began: what took its place comes as what is published.
    """
    if isinstance(values, PushError):
        return values
    entries: list[LogEntry] = []
    for entry_id, value in zip(part.ids, values, strict=True):
        if value is not None:
            its_id, _, body = value.split(b" ", 2)
            if ids.parse(its_id) == entry_id:
                entries.append(LogEntry(entry_id, body))
    return Backlog(ids.START, part.head, part.start, part.upto, part.gap, entries)


def _acknowledged(result: Any) -> Acknowledged:
    if isinstance(result, bytes):
        return Acknowledged(ids.parse(result))
    position, others, settled, receipts = result
    return Acknowledged(
        ids.parse(position), schema.devices(others), [ids.parse(i) for i in settled], bool(receipts)
    )


def _head(result: bytes | None) -> int | None:
    return None if result is None else ids.parse(result)


def _names(result: Sequence[bytes]) -> list[str]:
    return [name.decode() for name in result]


def _backlog(result: Any) -> Backlog:
    cursor, head, start, upto, gap, more, *entries = result
    broadcast, _, unread = more.partition(b" ")
    return Backlog(
        ids.parse(cursor),
        ids.parse(head),
        ids.parse(start),
        ids.parse(upto),
        gap.decode(),
        [_entry(entries[i], entries[i + 1]) for i in range(0, len(entries), 2)],
        ids.parse(broadcast) if broadcast else ids.START,
        int(unread) if unread and unread != _LATER else None,
    )
