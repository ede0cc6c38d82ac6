"""The spans of a notification: published, delivered, acknowledged.

A span is made only for a notification whose publisher sent a trace context that is recorded. Its
``traceparent`` is in the notification's body, so nothing is looked up to go on with the trace, and
a connection keeps nothing. What goes to many at once (a topic, the broadcast, what is ephemeral) is
one span with their number.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple, Protocol

from pushsvc.protocol import ids, tracecontext
from pushsvc.protocol.feeds import MAILBOX, is_broadcast

MOST_WAITING: Final = 4096
"""Most deliveries of a node that wait for the span of their acknowledgement."""
MOST_CONNECTIONS: Final = 64
"""Most connections of a user for which one entry makes a span each."""

Value = str | int | float | bool
Attributes = Mapping[str, Value]


class Span(Protocol):
    """A span that is under way."""

    @property
    def traceparent(self) -> str:
        """The context for what follows from it."""

    def end(self, attributes: Attributes, error: str = "") -> None:
        """End it now; ``error`` is a code, empty where it went well."""


class Tracer(Protocol):
    """What makes spans."""

    def start(
        self,
        name: str,
        kind: Literal["producer", "consumer"],
        parent: str,
        since: float | None = None,
    ) -> Span:
        """Begin a span.

        Args:
            name: what is done.
            kind: the role in it.
            parent: the ``traceparent`` that it follows from.
            since: when it began, in seconds since the epoch; None for now.
        """


class _Sent(NamedTuple):
    """A delivery that waits for its acknowledgement."""

    id: int
    at: float
    traceparent: str


class Publishing:
    """The span of what one request publishes into one trace.

    Args:
        span: the span.
        node: the node that serves the request.
    """

    def __init__(self, span: Span, node: str) -> None:
        self.traceparent = span.traceparent
        self._span = span
        self._node = node
        self._ids: list[int] = []
        self._kinds: set[str] = set()
        self._error = ""

    def accepted(self, feed: str, entry_id: int) -> None:
        """A notification was accepted; 0 is the id of one that has none."""
        self._ids.append(entry_id)
        self._kinds.add(destination(feed))

    def failed(self, code: str) -> None:
        """A notification was not accepted."""
        self._error = code

    def end(self) -> None:
        """Everything was published, or failed."""
        attributes = _operation("publish", "send", self._node)
        if len(self._kinds) == 1:
            (attributes["pushsvc.destination.kind"],) = self._kinds
        if len(self._ids) == 1 and self._ids[0]:
            attributes["messaging.message.id"] = ids.render(self._ids[0])
        elif len(self._ids) > 1:
            attributes["messaging.batch.message_count"] = len(self._ids)
        self._span.end(attributes, self._error)


class Spans:
    """Makes the spans of a node.

    Args:
        tracer: makes them.
        node: the present id of the node.
        clock: seconds since the epoch.
    """

    def __init__(
        self, tracer: Tracer, node: Callable[[], str], clock: Callable[[], float] = time.time
    ) -> None:
        self._tracer = tracer
        self._node = node
        self._clock = clock
        # By the number of the connection, the one longest without a delivery first.
        self._waiting: OrderedDict[int, list[_Sent]] = OrderedDict()
        self._count = 0

    def publish(self, parent: str) -> Publishing:
        """Begin to publish; ``parent`` is a context that is recorded."""
        return Publishing(self._tracer.start("publish", "producer", parent), self._node())

    def delivery(self, feed: str, entry_id: int, body: bytes | None) -> "Delivery | None":
        """An entry of a mailbox is about to be sent; None where nothing of it is recorded."""
        parent = tracecontext.recorded(body or b"")
        return Delivery(self, feed, entry_id, parent) if parent else None

    def sent(self, feed: str, entry_id: int, parent: str, number: int, attempt: int) -> None:
        """An entry of a mailbox was sent to a connection."""
        node = self._node()
        span = self._tracer.start("deliver", "consumer", parent)
        span.end(
            {
                **_about("deliver", "deliver", node, feed, entry_id),
                "pushsvc.connection": f"{node}.{number:x}",
                "pushsvc.attempt": attempt,
            }
        )
        self._wait(number, _Sent(entry_id, self._clock(), span.traceparent))

    def spread(self, feed: str, entry_id: int, body: bytes, sent: int, late: int) -> None:
        """An entry went to all who listen; ``late`` of them read it from the feed instead."""
        parent = tracecontext.recorded(body)
        if parent:
            self._tracer.start("deliver", "consumer", parent).end(
                {
                    **_about("deliver", "deliver", self._node(), feed, entry_id),
                    "pushsvc.connections": sent,
                    "pushsvc.connections.late": late,
                }
            )

    def acked(self, number: int, position: int) -> None:
        """A connection has acknowledged everything up to a position of its mailbox."""
        waiting = self._waiting.get(number)
        if waiting is None:
            return
        node = self._node()
        left = []
        for sent in waiting:
            if sent.id > position:
                left.append(sent)
                continue
            span = self._tracer.start("ack", "consumer", sent.traceparent, sent.at)
            span.end(
                {
                    **_operation("ack", "settle", node),
                    "messaging.message.id": ids.render(sent.id),
                    "pushsvc.connection": f"{node}.{number:x}",
                }
            )
        self._count -= len(waiting) - len(left)
        if left:
            self._waiting[number] = left
        else:
            del self._waiting[number]

    def left(self, number: int) -> None:
        """A connection has gone: what it did not acknowledge will be delivered again elsewhere."""
        self._count -= len(self._waiting.pop(number, ()))

    def _wait(self, number: int, sent: _Sent) -> None:
        waiting = self._waiting.setdefault(number, [])
        self._waiting.move_to_end(number)
        for place, earlier in enumerate(waiting):
            if earlier.id == sent.id:
                waiting[place] = sent  # the ack is of the last attempt
                return
        waiting.append(sent)
        self._count += 1
        while self._count > MOST_WAITING:
            _, forgotten = self._waiting.popitem(last=False)
            self._count -= len(forgotten)

    def __len__(self) -> int:
        return self._count


class Delivery:
    """An entry of a mailbox on its way to the user's connections here."""

    __slots__ = ("_feed", "_id", "_left", "_parent", "_spans")

    def __init__(self, spans: Spans, feed: str, entry_id: int, parent: str) -> None:
        self._spans = spans
        self._feed = feed
        self._id = entry_id
        self._parent = parent
        self._left = MOST_CONNECTIONS

    def to(self, number: int, attempt: int) -> None:
        """It was sent to a connection, for the ``attempt``-th time."""
        if self._left:
            self._left -= 1
            self._spans.sent(self._feed, self._id, self._parent, number, attempt)


def _operation(name: str, kind: str, node: str) -> dict[str, Value]:
    # Who it is for is in no span: a trace is read by more people than a mailbox.
    return {
        "messaging.system": "pushsvc",
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
        "pushsvc.node": node,
    }


def _about(name: str, kind: str, node: str, feed: str, entry_id: int) -> dict[str, Value]:
    attributes = _operation(name, kind, node)
    attributes["pushsvc.destination.kind"] = destination(feed)
    if entry_id:
        attributes["messaging.message.id"] = ids.render(entry_id)
    return attributes


def destination(feed: str) -> Literal["user", "topic", "broadcast"]:
    """What kind of feed it is."""
    if feed.startswith(MAILBOX):
        return "user"
    return "broadcast" if is_broadcast(feed) else "topic"
