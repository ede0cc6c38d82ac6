"""What a trace is made of: what a feed keeps of a notification, and what the nodes know of it.

Each node puts its answer under a key of its own that lives for seconds: the process that asked may
have gone by then.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from pushsvc.errors import PushError
from pushsvc.feeds.event_log import Answer
from pushsvc.feeds.history import Acked, Acks
from pushsvc.protocol import ids
from pushsvc.protocol.feeds import by_node
from pushsvc.store import schema
from pushsvc.store.redis import Redis

ANSWER_MS: Final = 10_000
"""How long an answer that is not taken is kept."""
LOOKS: Final = 1000
"""Most entries before it, and most acks, that are looked at."""
LOOK_BYTES: Final = 4 * 1024 * 1024
"""Bytes of those entries after which no more are."""

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Answer).decode


class Kept(NamedTuple):
    """What a feed keeps of an entry, and of the devices that are owed it.

    The defaults are those of a feed that knows nothing.
    """

    now: int
    """Milliseconds since the epoch, like all times here."""
    expires: int | None = None
    """None where the entry is not kept."""
    body: bytes = b""
    withdrawn: str = ""
    """Why it was withdrawn."""
    ended: tuple[str, int] | None = None
    """How it ended, and when, where a receipt is to tell that."""
    listeners: Mapping[str, str] = {}
    """Of a mailbox: connection id to device."""
    cursors: Mapping[str, int] = {}
    """Device to the last id that it acknowledged."""
    starts: Mapping[str, int] = {}
    """Device to the id at which it began."""
    acked: Sequence[Acked] = ()
    """The devices that have acknowledged this id, or a later one."""
    head: int = ids.START
    trimmed: int = ids.START
    before: Sequence[tuple[int, str]] = ()
    """The ids of those kept before it, newest first, each with the device that it is for."""
    device: str = ""
    """The one device that it is for; empty for all, and where that is not known any more."""

    @property
    def owed(self) -> bool:
        """Whether a device that has not had it is still to be sent it."""
        return self.expires is not None and self.expires > self.now


class TraceAnswers:
    """The answers of one Redis.

    A coroutine that asks Redis raises ``PushError`` where that cannot be reached or refuses.

    Args:
        redis: any queue without a tail.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def put(self, question: str, node: str, answer: Answer) -> None:
        """Put a node's answer where the question is waited for; it may get lost."""
        key = self._redis.keys.answer(question, node)
        self._redis.forget([("SET", key, _pack(answer), "PX", ANSWER_MS)])

    async def take(self, question: str, nodes: Sequence[str]) -> dict[str, Answer | None]:
        """Take the answers of those nodes that have given one; nothing stays behind.

        What another version says counts for nothing: None.
        """
        key = self._redis.keys.answer
        came = await self._redis.submit([("GETDEL", key(question, node)) for node in nodes])
        answers = {}
        for node, packed in zip(nodes, came, strict=True):
            if isinstance(packed, PushError):
                raise packed
            if packed is not None:
                answers[node] = _answer(packed)
        return answers

    async def kept(self, entry_id: int, feed: str) -> Kept:
        """What a feed keeps of an entry."""
        keys = self._redis.keys
        answer = await self._redis.run(
            "trace",
            (
                keys.log(feed), keys.listeners(feed), keys.cursors(feed), keys.marks(feed),
                keys.acks(feed),
            ),
            ids.render(entry_id), LOOKS, LOOK_BYTES,
        )  # fmt: skip
        return _kept(entry_id, feed, answer)


def _answer(packed: bytes) -> Answer | None:
    try:
        return _unpack(packed)
    except msgspec.DecodeError:
        return None


def _kept(entry_id: int, feed: str, answer: Any) -> Kept:
    now, kept, withdrawn, mark, whose, listeners, fields, since, acks, before = answer
    device = schema.device(whose)
    cursors = schema.cursors(fields)
    return Kept(
        now=int(now),
        expires=int(kept[0]) if kept else None,
        body=kept[1] if kept else b"",
        withdrawn=withdrawn.decode(),
        ended=schema.how_it_ended(mark),
        listeners={} if by_node(feed) else schema.devices(listeners),
        cursors=cursors.devices,
        starts=cursors.began,
        acked=Acks(cursors.devices, cursors.began, schema.ack_records(acks), int(since)).of(
            entry_id, device
        ),
        head=cursors.head,
        trimmed=cursors.trimmed,
        before=schema.addressed(before),
        device=device,
    )
