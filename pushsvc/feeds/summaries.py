"""What each node says of itself, for all others to read."""

from typing import Annotated

import msgspec

from pushsvc.errors import PushError
from pushsvc.store.redis import Redis

EVERY = 2.0
"""Most seconds between two summaries of a node."""
SILENT = 6.0
"""Seconds without a summary after which a node is not taken to be well, whatever the last one says.
Several were missed; its lease may go on for longer, as a summary costs others nothing."""
KEPT = 10.0
"""Seconds that a summary is kept at least; whether its node lives, the lease says."""
UNHEARD = "has not said anything of itself: it has just started, or its version is older"
"""The trouble of a live node without a summary."""
MOST_NODES = 1000
"""Most nodes whose summaries are read."""


Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999)]
"""Since the epoch; of four-digit years, so that it can be written as a date."""


class Histogram(msgspec.Struct, frozen=True):
    """How often something took how long, since the node's start.

    Args:
        bounds: upper bounds of the buckets in seconds, ascending.
        counts: for each bound how many took no longer, and at last how many there were.
    """

    bounds: tuple[float, ...] = ()
    counts: tuple[int, ...] = (0,)


class Summary(msgspec.Struct, frozen=True):
    """What a node says of itself; None and 0 stand for what it has not said yet.

    Args:
        node: its id.
        host: the name of its machine.
        pid: of its process.
        version: of the service.
        started: milliseconds since the epoch.
        troubles: why it should get no traffic.
        connections: that it holds.
        totals: counters since its start, by name.
        deliver: from the append to the socket.
        ack: from the append to the acknowledgement.
        loop_lag: how late its event loop runs what is due.
        time: when it says so, in milliseconds since the epoch, by Redis time.
    """

    node: str
    host: str | None = None
    pid: int | None = None
    version: str | None = None
    started: Milliseconds | None = None
    troubles: tuple[str, ...] = (UNHEARD,)
    connections: int = 0
    totals: dict[str, int] = {}
    deliver: Histogram = Histogram()
    ack: Histogram = Histogram()
    loop_lag: Histogram = Histogram()
    time: Milliseconds | None = None

    def silence(self, now: int) -> int:
        """Whole seconds that the node has said nothing for, or 0 where that is not long.

        Args:
            now: milliseconds since the epoch, by Redis time.
        """
        if self.time is None or now - self.time < 1000 * SILENT:
            return 0
        return (now - self.time) // 1000


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Summary).decode


class Summaries:
    """The summaries of all nodes.

    Args:
        redis: any queue without a tail.
        lease: seconds that a node's lease lasts.
    """

    def __init__(self, redis: Redis, lease: float) -> None:
        self._redis = redis
        self._keep_ms = round(1000 * max(KEPT, 3 * lease))

    def tell(self, summary: Summary) -> None:
        """Write a node's summary; it may get lost, as the next one follows soon."""
        key = self._redis.keys.summary(summary.node)
        self._redis.forget([("SET", key, _encode(summary), "PX", self._keep_ms)])

    async def of(self, nodes: list[str]) -> list[Summary]:
        """The summaries of nodes, in the same order, of ``MOST_NODES`` at most.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        nodes = nodes[:MOST_NODES]
        if not nodes:
            return []
        # One by one: on a Cluster the keys are in different slots.
        texts = await self._redis.submit(
            [("GET", self._redis.keys.summary(node)) for node in nodes]
        )
        return [_read(node, text) for node, text in zip(nodes, texts, strict=True)]


def _read(node: str, text: bytes | PushError | None) -> Summary:
    if isinstance(text, PushError):
        raise text
    try:
        return Summary(node) if text is None else _decode(text)
    except msgspec.DecodeError:
        return Summary(
            node, troubles=("says of itself what this version cannot read: its version is another",)
        )
