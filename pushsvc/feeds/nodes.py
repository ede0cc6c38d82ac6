"""Nodes as Redis sees them: leases, and an inbox stream for each.

A connection's id begins with the id of the node that holds it, so the listeners of a feed say where
to send an entry, and a node whose lease has lapsed takes all of its registrations with it.
"""

import asyncio
import enum
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple, Self, TypeVar

import msgspec

from pushsvc import metrics
from pushsvc.errors import PushError, Unavailable
from pushsvc.store.blocking import BlockingConnection
from pushsvc.store.redis import Redis
from pushsvc.store.schema import CANARY, MESSAGE, PACKET
from pushsvc.store.server_connection import Command

Item = TypeVar("Item")

INBOX_PACKETS: Final = 10_000
"""Packets and messages that an inbox keeps; what is trimmed unread is read from the feeds."""
PACKET_BYTES: Final = 256 * 1024
"""Bytes of bodies after which a packet is full."""
BUSY: Final = 2_000
"""Entries that wait, from which on what may be dropped is dropped."""
BLOCK_SECONDS: Final = 2.0
"""How long a read of the inbox waits for a packet."""


_SEQUENCE: Final = (1 << 64) - 1


class Entry(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A feed's entry on its way to a node that holds a listener, as it stands in a packet.

    Ids are integers of more than 64 bits, so a packet carries their two halves.
    """

    feed: str
    ms: int
    sequence: int
    previous_ms: int
    previous_sequence: int
    body: bytes
    device: str = ""
    """The one device of the user that it is for, empty for all; nodes of before pass over it."""

    @classmethod
    def of(cls, feed: str, entry_id: int, previous: int, body: bytes, device: str = "") -> Self:
        """An entry by its whole ids."""
        return cls(
            feed,
            entry_id >> 64,
            entry_id & _SEQUENCE,
            previous >> 64,
            previous & _SEQUENCE,
            body,
            device,
        )

    @property
    def ephemeral(self) -> bool:
        """Whether it is no entry of the feed, and has no id."""
        return not self.ms

    @property
    def id(self) -> int:
        """Its id, 0 for what is ephemeral."""
        return self.ms << 64 | self.sequence

    @property
    def previous(self) -> int:
        """The id before it in the feed; ``UNKNOWN`` where it may be any."""
        return self.previous_ms << 64 | self.previous_sequence


class ControlMessage(NamedTuple):
    """What listeners of a feed have to know, and what is no entry of it."""

    kind: str
    """``acked``, ``withdrawn``, ``recalled``, ``shared``, ``presence``, ``read_state``, or
    ``erased``, which like ``trace`` is for the node itself."""
    feed: str
    values: list[str]


class Kind(enum.Enum):
    """What came into an inbox."""

    ENTRIES = enum.auto()
    """A packet of entries, for ``unpack``."""
    CONTROL = enum.auto()
    """For ``unpack_control``."""
    CANARY = enum.auto()
    UNKNOWN = enum.auto()
    """Of a newer version; the value is what it calls it."""


_KINDS: Final = {
    PACKET.encode(): Kind.ENTRIES,
    MESSAGE.encode(): Kind.CONTROL,
    CANARY.encode(): Kind.CANARY,
}


class Arrival(NamedTuple):
    """Something that came into an inbox."""

    kind: Kind
    value: bytes


class Beat(NamedTuple):
    """The answer to a lease's renewal."""

    redis_ms: int
    """Redis time, milliseconds since the epoch."""
    live: frozenset[str] | None
    """The live nodes, or None where the lease had lapsed."""


def node_of(connection: str) -> str:
    """The node that holds a connection."""
    return connection.partition(".")[0]


def connection_id(node: str, number: int) -> str:
    """The id of a connection: its node, and its number there."""
    return f"{node}.{number:x}"


pack: Callable[[Sequence[Entry]], bytes] = msgspec.msgpack.Encoder().encode
"""Makes a packet of entries."""
unpack: Callable[[bytes], list[Entry]] = msgspec.msgpack.Decoder(list[Entry]).decode
"""Reads the entries of a packet; raises ``msgspec.DecodeError`` where it is none."""

_pack_name = msgspec.msgpack.Encoder().encode
_pack_control = msgspec.msgpack.Encoder().encode
_unpack_control = msgspec.msgpack.Decoder(tuple[str, str, list[str]]).decode


def pack_head(feed: str) -> bytes:
    """How the packet of one entry begins, before its ids: a list of one, a list of seven."""
    return b"\x91\x97" + _pack_name(feed)


def pack_tail(device: str) -> bytes:
    """How the packet of one entry ends, behind its body."""
    return _pack_name(device)


def unpack_control(packet: bytes) -> ControlMessage:
    """The message in a packet.

    Raises:
        msgspec.DecodeError: the bytes are not one.
    """
    return ControlMessage(*_unpack_control(packet))


class Outbox:
    """Puts entries into inboxes, one packet a node while an earlier one is under way."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiting: dict[str, list[Entry]] = {}
        self._messages: dict[str, list[ControlMessage]] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether entries wait because an earlier packet is still under way, more than a few."""
        return len(self._waiting) > 0 and sum(map(len, self._waiting.values())) > BUSY

    def post(self, node: str, entry: Entry) -> None:
        """Send an entry. It may get lost: the feed is what counts."""
        self._put(self._waiting, node, entry)

    def notify(self, node: str, message: ControlMessage) -> None:
        """Send a control message; it may get lost, and its sender must live with that."""
        self._put(self._messages, node, message)

    def _put(self, waiting: dict[str, list[Item]], node: str, item: Item) -> None:
        there = waiting.get(node)
        if there is None:
            waiting[node] = [item]
        else:
            there.append(item)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def aclose(self) -> None:
        """Wait until everything posted was sent."""
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        try:
            while self._waiting or self._messages:
                waiting, self._waiting = self._waiting, {}
                messages, self._messages = self._messages, {}
                commands = [
                    c for node, entries in waiting.items() for c in self._add(node, entries)
                ]
                commands += [
                    self._xadd(node, MESSAGE, _pack_control(message))
                    for node, several in messages.items()
                    for message in several
                ]
                try:
                    results = await self._redis.submit(commands)
                except Unavailable:
                    metrics.courier_lost.inc(sum(map(len, waiting.values())))
                    continue
                lost = sum(isinstance(result, PushError) for result in results)
                metrics.courier_lost.inc(lost)
        finally:
            self._task = None

    def _add(self, node: str, entries: list[Entry]) -> list[Command]:
        commands = []
        first = size = 0
        for i, entry in enumerate(entries):
            size += len(entry.body)
            if size > PACKET_BYTES or i == len(entries) - 1:
                commands.append(self._xadd(node, PACKET, pack(entries[first : i + 1])))
                first, size = i + 1, 0
        return commands

    def _xadd(self, node: str, kind: str, packet: bytes) -> Command:
        # NOMKSTREAM: only a node makes its inbox, so none is left behind for a dead one.
        key = self._redis.keys.inbox(node)
        return ("XADD", key, "NOMKSTREAM", "MAXLEN", "~", INBOX_PACKETS, "*", kind, packet)


def skew(redis: float, sent: float, now: float) -> float:
    """Seconds by which this machine's clock is ahead of Redis', at the least.

    Args:
        redis: the time that Redis told.
        sent: by this machine's clock, when it was asked.
        now: when its answer was there.

    Returns:
        0 where it may be that they agree.
    """
    return sent - redis if redis < sent else min(0.0, now - redis)


class Leases:
    """The leases of the nodes, and who is live, as of the last renewal or look.

    A coroutine that asks Redis raises ``PushError`` where that cannot be reached or refuses.
    """

    def __init__(self, redis: Redis, seconds: float) -> None:
        self.seconds = seconds
        self.live: frozenset[str] = frozenset()
        self.skew = 0.0
        """See ``skew``."""
        # To the monotonic clock, so that a step of the other one is none of Redis time.
        self._offset = time.time() - time.monotonic()
        self._known = False
        self._redis = redis

    async def renew(self, node: str, *, take: bool) -> Beat:
        """Renew a node's lease, or take one that it does not hold yet."""
        sent = time.time(), time.monotonic()
        redis_ms, held, *live = await self._redis.run(
            "lease", (self._redis.keys.nodes,),
            node, round(self.seconds * 1000), "1" if take else "0",
        )  # fmt: skip
        self._compare(redis_ms / 1000, *sent)
        if not held:
            return Beat(redis_ms, None)
        self._see(live)
        return Beat(redis_ms, self.live)

    async def fetch_live(self) -> frozenset[str]:
        """The live nodes, for a process that holds no lease itself."""
        sent = time.time(), time.monotonic()
        redis_ms, *live = await self._redis.run("live", (self._redis.keys.nodes,))
        self._compare(redis_ms / 1000, *sent)
        return self._see(live)

    def _compare(self, redis: float, sent: float, sent_monotonic: float) -> None:
        """Redis told its time, between the sending of the question and now."""
        self.skew = skew(redis, sent, time.time())
        self._offset = redis - (sent_monotonic + time.monotonic()) / 2

    def _see(self, live: Iterable[bytes]) -> frozenset[str]:
        self._known = True
        self.live = frozenset(name.decode() for name in live)
        return self.live

    def suspects(self, connections: Iterable[str]) -> list[str]:
        """Those of some registrations whose node the last renewal did not show."""
        live = self.live
        return [each for each in connections if node_of(each) not in live]

    async def dead(self, connections: Iterable[str]) -> list[str]:
        """Those of some registrations whose node's lease has lapsed.

        A node that the last renewal did not show may be dead, or younger than that renewal. So
        this asks again, after the registrations were read: a node holds a lease before it registers
        a connection.
        """
        suspects = self.suspects(connections)
        if not suspects or not self._known:
            return []  # before the first look nothing is known, Redis time included
        now = round(self.redis_time() * 1000)
        nodes = self._redis.keys.nodes
        names = await self._redis.one("ZRANGE", nodes, f"({now}", "+inf", "BYSCORE")
        live = {name.decode() for name in names}
        return [each for each in suspects if node_of(each) not in live]

    async def give_up(self, node: str) -> None:
        """End a node's lease and remove its inbox."""
        keys = self._redis.keys
        await self._redis.submit([("ZREM", keys.nodes, node), ("DEL", keys.inbox(node))])

    def redis_time(self) -> float:
        """Now by Redis time, seconds since the epoch."""
        return time.monotonic() + self._offset


class Inbox:
    """One node's inbox, read on a connection of its own.

    A coroutine that asks Redis raises ``PushError`` where that cannot be reached or refuses.

    Args:
        reading: for the blocking reads; its answers may take ``BLOCK_SECONDS`` and more.
        redis: for everything else.
        node: whose inbox it is.
        lease: seconds that a lease lasts.
    """

    def __init__(self, reading: BlockingConnection, redis: Redis, node: str, lease: float) -> None:
        self._reading = reading
        self._redis = redis
        self._key = redis.keys.inbox(node)
        self._expire_ms = round(lease * 10_000)
        self._last = b"0-0"

    async def open(self) -> None:
        """Make the inbox, so that publishers may write to it."""
        await self.beat(b"")

    async def beat(self, canary: bytes) -> int:
        """Put a canary into the inbox, drop what was read, and renew the key.

        Returns:
            How many packets the inbox holds.
        """
        trimmed, added, _, length = await self._redis.submit(
            [
                ("XTRIM", self._key, "MINID", "~", self._last),
                ("XADD", self._key, "MAXLEN", "~", INBOX_PACKETS, "*", CANARY, canary),
                ("PEXPIRE", self._key, self._expire_ms),
                ("XLEN", self._key),
            ]
        )
        for result in (trimmed, added, length):
            if isinstance(result, PushError):
                raise result
        return int(length)

    async def read(self) -> list[Arrival]:
        """Wait for what is in the inbox.

        Returns:
            What came, in order; nothing after ``BLOCK_SECONDS``.

        Raises:
            StoreUnavailable: Redis cannot be reached or refuses.
        """
        answer = await self._reading.execute(
            "XREAD", "COUNT", 100, "BLOCK", round(BLOCK_SECONDS * 1000),
            "STREAMS", self._key, self._last,
        )  # fmt: skip
        came: list[Arrival] = []
        for _, entries in answer or ():
            for entry_id, (kind, value, *_) in entries:  # a newer version may say more
                known = _KINDS.get(kind)
                came.append(Arrival(known, value) if known else Arrival(Kind.UNKNOWN, kind))
                self._last = entry_id
        return came

    async def forget(self) -> None:
        """Drop all that was read, to the last byte; what is dropped otherwise stays for a while."""
        ms, _, sequence = self._last.partition(b"-")
        upto = b"%b-%d" % (ms, int(sequence) + 1)
        await self._redis.one("XTRIM", self._key, "MINID", upto)

    async def aclose(self) -> None:
        """Close the connection of the reads: an answer that was not waited for is on its way."""
        await self._reading.aclose()
