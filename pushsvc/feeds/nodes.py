"""Nodes as Redis sees them: leases, and an inbox stream for each.

A connection's id begins with the id of the node that holds it, so the listeners of a feed say where
to send a copy, and a node whose lease has lapsed takes all of its registrations with it.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, TypeVar

import msgspec
from redis.exceptions import RedisError

from pushsvc import metrics
from pushsvc.errors import PushError, StoreUnavailable, Unavailable
from pushsvc.feeds.keys import Keys
from pushsvc.feeds.lane import Lane
from pushsvc.feeds.pipe import Command, Pipe
from pushsvc.feeds.scripts import Scripts

Item = TypeVar("Item")

INBOX_PACKETS: Final = 10_000
"""Packets an inbox keeps; what is trimmed unread is read from the feeds."""
PACKET_BYTES: Final = 256 * 1024
"""Bytes of bodies after which a packet is full."""
BUSY: Final = 2_000
"""Copies that wait, from which on what may be dropped is dropped."""
BLOCK_SECONDS: Final = 2.0
"""How long a read of the inbox waits for a packet."""


class Copy(NamedTuple):
    """A copy of a feed's entry, on its way to a node that holds a listener."""

    feed: str
    id: int
    """0 for what is ephemeral, and no entry."""
    previous: int
    body: bytes


class Notice(NamedTuple):
    """Something that listeners of a feed have to know, and that is no entry of it."""

    kind: str
    """``acked``, ``withdrawn`` or ``presence``; ``trace`` asks the node itself."""
    feed: str
    values: list[str]


class Beat(NamedTuple):
    """The answer to a lease's renewal."""

    redis_ms: int
    """Redis time, milliseconds since the epoch."""
    live: frozenset[str] | None
    """The live nodes, or None where the lease had lapsed."""


def node_of(connection: str) -> str:
    """The node that holds a connection."""
    return connection.partition(".")[0]


# Ids are integers of more than 64 bits, so a packet carries their two halves.
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[tuple[str, int, int, int, int, bytes]]).decode
_SEQUENCE: Final = (1 << 64) - 1


def pack(entries: Sequence[Copy]) -> bytes:
    """A packet of courier entries."""
    return _pack(
        [
            (feed, i >> 64, i & _SEQUENCE, previous >> 64, previous & _SEQUENCE, body)
            for feed, i, previous, body in entries
        ]
    )


def unpack(packet: bytes) -> list[Copy]:
    """The courier entries of a packet.

    Raises:
        msgspec.DecodeError: the bytes are not a packet.
    """
    return [
        Copy(feed, ms << 64 | seq, prev_ms << 64 | prev_seq, body)
        for feed, ms, seq, prev_ms, prev_seq, body in _unpack(packet)
    ]


_pack_notice = msgspec.msgpack.Encoder().encode
_unpack_notice = msgspec.msgpack.Decoder(tuple[str, str, list[str]]).decode


def unpack_notice(packet: bytes) -> Notice:
    """The notice in a packet.

    Raises:
        msgspec.DecodeError: the bytes are not one.
    """
    return Notice(*_unpack_notice(packet))


class Outbox:
    """Puts courier entries into inboxes, one packet a node while an earlier one is under way."""

    def __init__(self, lane: Lane, keys: Keys) -> None:
        self._lane = lane
        self._keys = keys
        self._waiting: dict[str, list[Copy]] = {}
        self._notices: dict[str, list[Notice]] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether copies wait because an earlier packet is still under way, more than a few."""
        return len(self._waiting) > 0 and sum(map(len, self._waiting.values())) > BUSY

    def post(self, node: str, entry: Copy) -> None:
        """Send a copy. It may get lost: the feed is what counts."""
        self._put(self._waiting, node, entry)

    def notify(self, node: str, notice: Notice) -> None:
        """Send a notice. It may get lost: whoever sends it must be able to live with that."""
        self._put(self._notices, node, notice)

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
            while self._waiting or self._notices:
                waiting, self._waiting = self._waiting, {}
                notices, self._notices = self._notices, {}
                commands = [
                    c for node, entries in waiting.items() for c in self._add(node, entries)
                ]
                commands += [
                    self._xadd(node, "n", _pack_notice(notice))
                    for node, several in notices.items()
                    for notice in several
                ]
                try:
                    results = await self._lane.submit(commands)
                except Unavailable:
                    metrics.courier_lost.inc(sum(map(len, waiting.values())))
                    continue
                lost = sum(isinstance(result, PushError) for result in results)
                metrics.courier_lost.inc(lost)
        finally:
            self._task = None

    def _add(self, node: str, entries: list[Copy]) -> list[Command]:
        commands = []
        first = size = 0
        for i, entry in enumerate(entries):
            size += len(entry.body)
            if size > PACKET_BYTES or i == len(entries) - 1:
                commands.append(self._xadd(node, "p", pack(entries[first : i + 1])))
                first, size = i + 1, 0
        return commands

    def _xadd(self, node: str, kind: str, packet: bytes) -> Command:
        # NOMKSTREAM: only a node makes its inbox, so none is left behind for a dead one.
        key = self._keys.inbox(node)
        return ("XADD", key, "NOMKSTREAM", "MAXLEN", "~", INBOX_PACKETS, "*", kind, packet)


class Leases:
    """The leases of the nodes, and who is live, as of the last renewal or look."""

    def __init__(self, lane: Lane, keys: Keys, scripts: Scripts, seconds: float) -> None:
        self.seconds = seconds
        self.live: frozenset[str] = frozenset()
        self.redis_offset = 0.0
        """Redis time less this machine's clock, in seconds."""
        self._known = False
        self._lane = lane
        self._keys = keys
        self._digests = scripts.digests

    async def renew(self, node: str, *, take: bool) -> Beat:
        """Renew a node's lease, or take one that it does not hold yet.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        sent = time.time()
        redis_ms, held, *live = await self._lane.one(
            "EVALSHA", self._digests["lease"], 1, self._keys.nodes,
            node, round(self.seconds * 1000), "1" if take else "0",
        )  # fmt: skip
        self.redis_offset = redis_ms / 1000 - (sent + time.time()) / 2
        if not held:
            return Beat(redis_ms, None)
        self._see(live)
        return Beat(redis_ms, self.live)

    async def look(self) -> frozenset[str]:
        """The live nodes, for who holds no lease itself.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        sent = time.time()
        redis_ms, *live = await self._lane.one(
            "EVALSHA", self._digests["live"], 1, self._keys.nodes
        )
        self.redis_offset = redis_ms / 1000 - (sent + time.time()) / 2
        return self._see(live)

    def _see(self, live: Iterable[bytes]) -> frozenset[str]:
        self._known = True
        self.live = frozenset(name.decode() for name in live)
        return self.live

    async def dead(self, connections: Iterable[str]) -> list[str]:
        """Those of some registrations whose node's lease has lapsed.

        A node that the last renewal did not show may be dead, or younger than that renewal. So
        this asks again, after the registrations were read: a node holds a lease before it registers
        a connection.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        suspects = [each for each in connections if node_of(each) not in self.live]
        if not suspects or not self._known:
            return []  # before the first look nothing is known, Redis time included
        now = round(self.redis_time() * 1000)
        names = await self._lane.one("ZRANGE", self._keys.nodes, f"({now}", "+inf", "BYSCORE")
        live = {name.decode() for name in names}
        return [each for each in suspects if node_of(each) not in live]

    async def give_up(self, node: str) -> None:
        """End a node's lease and remove its inbox.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        await self._lane.submit([("ZREM", self._keys.nodes, node), ("DEL", self._keys.inbox(node))])

    def redis_time(self) -> float:
        """Now by Redis time, seconds since the epoch."""
        return time.time() + self.redis_offset


class Inbox:
    """One node's inbox, read on a connection of its own.

    Args:
        pipe: the way to Redis for the blocking reads; its answers may take
            ``BLOCK_SECONDS`` and more.
        lane: for everything else.
    """

    def __init__(self, pipe: Pipe, lane: Lane, keys: Keys, node: str, lease: float) -> None:
        self._pipe = pipe
        self._lane = lane
        self._key = keys.inbox(node)
        self._expire_ms = round(lease * 10_000)
        self._last = b"0-0"

    async def open(self) -> None:
        """Make the inbox, so that publishers may write to it.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        await self.beat(b"")

    async def beat(self, canary: bytes) -> int:
        """Put a canary into the inbox, drop what was read, and renew the key.

        Returns:
            How many packets the inbox holds.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        trimmed, added, _, length = await self._lane.submit(
            [
                ("XTRIM", self._key, "MINID", "~", self._last),
                ("XADD", self._key, "MAXLEN", "~", INBOX_PACKETS, "*", "c", canary),
                ("PEXPIRE", self._key, self._expire_ms),
                ("XLEN", self._key),
            ]
        )
        for result in (trimmed, added, length):
            if isinstance(result, PushError):
                raise result
        return int(length)

    async def read(self) -> list[tuple[bytes, bytes]]:
        """Wait for what is in the inbox.

        Returns:
            What came, in order; nothing after ``BLOCK_SECONDS``. Each has a kind: ``p`` for a
            packet of copies, ``n`` for a notice, ``c`` for a canary.

        Raises:
            StoreUnavailable: Redis cannot be reached or refuses.
        """
        try:
            (answer,) = await self._pipe.execute([
                ("XREAD", "COUNT", 100, "BLOCK", round(BLOCK_SECONDS * 1000),
                 "STREAMS", self._key, self._last)
            ])  # fmt: skip
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"the inbox cannot be read: {error}") from error
        if isinstance(answer, Exception):
            raise StoreUnavailable(f"the inbox cannot be read: {answer}")
        came: list[tuple[bytes, bytes]] = []
        for _, entries in answer or ():
            for entry_id, (kind, value, *_) in entries:  # a newer version may say more
                came.append((kind, value))
                self._last = entry_id
        return came
