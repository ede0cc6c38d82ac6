from dataclasses import dataclass, field

from pushsvc.node.spans import MOST_CONNECTIONS, MOST_WAITING, Attributes, Spans
from pushsvc.protocol.encoding import encode

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BODY = encode({"traceparent": PARENT, "data": 1})[1:]
FEED = "u:u1"


@dataclass
class Span:
    """A span, kept."""

    name: str
    parent: str
    since: float | None
    traceparent: str
    attributes: Attributes | None = None
    error: str = ""

    def end(self, attributes: Attributes, error: str = "") -> None:
        assert self.attributes is None, "a span ends once"
        self.attributes, self.error = attributes, error


@dataclass
class Tracer:
    """Keeps what it made."""

    made: list[Span] = field(default_factory=list)

    def start(self, name: str, kind: str, parent: str, since: float | None = None) -> Span:
        assert kind == ("producer" if name == "publish" else "consumer")
        span = Span(name, parent, since, f"{PARENT[:36]}{len(self.made) + 1:016x}-01")
        self.made.append(span)
        return span

    def named(self, name: str) -> list[Span]:
        return [span for span in self.made if span.name == name]


def spans_of(tracer: Tracer) -> Spans:
    return Spans(tracer, lambda: "n1", lambda: 1000.0)


def deliver(spans: Spans, number: int, entry_id: int, attempt: int = 1) -> None:
    delivery = spans.delivery(FEED, entry_id, BODY)
    assert delivery is not None
    delivery.to(number, attempt)


def test_an_ack_ends_all_deliveries_up_to_it_and_only_those_of_its_connection() -> None:
    tracer = Tracer()
    spans = spans_of(tracer)
    for entry_id in (1, 2, 3):
        deliver(spans, 7, entry_id)
    deliver(spans, 8, 1)
    spans.acked(7, 2)
    acks = tracer.named("ack")
    assert [ack.parent for ack in acks] == [span.traceparent for span in tracer.made[:2]]
    assert {ack.since for ack in acks} == {1000.0}
    assert len(spans) == 2
    spans.acked(7, 2)
    spans.acked(9, 99)
    assert len(tracer.named("ack")) == 2


def test_what_was_sent_again_is_acknowledged_once_from_the_last_attempt() -> None:
    tracer = Tracer()
    spans = spans_of(tracer)
    deliver(spans, 7, 1)
    deliver(spans, 7, 1, attempt=2)
    assert len(spans) == 1
    spans.acked(7, 1)
    (ack,) = tracer.named("ack")
    assert ack.parent == tracer.made[1].traceparent
    assert len(spans) == 0


def test_a_connection_that_leaves_takes_along_what_it_did_not_acknowledge() -> None:
    spans = spans_of(Tracer())
    deliver(spans, 7, 1)
    spans.left(7)
    spans.left(7)
    assert len(spans) == 0


def test_deliveries_that_are_never_acknowledged_are_bounded() -> None:
    tracer = Tracer()
    spans = spans_of(tracer)
    for number in range(MOST_WAITING + 10):
        deliver(spans, number, 1)
    assert len(spans) == MOST_WAITING
    spans.acked(0, 1)
    spans.acked(MOST_WAITING + 9, 1)
    assert len(tracer.named("ack")) == 1


def test_a_user_with_many_connections_makes_a_bounded_number_of_spans() -> None:
    tracer = Tracer()
    delivery = spans_of(tracer).delivery(FEED, 1, BODY)
    assert delivery is not None
    for number in range(MOST_CONNECTIONS + 10):
        delivery.to(number, 1)
    assert len(tracer.made) == MOST_CONNECTIONS


def test_what_belongs_to_no_recorded_trace_makes_no_span() -> None:
    tracer = Tracer()
    spans = spans_of(tracer)
    assert spans.delivery(FEED, 1, b'"data":1}') is None
    assert spans.delivery(FEED, 1, None) is None
    spans.spread("b", 1, b'"data":1}', 5, 0)
    assert not tracer.made


def test_a_publish_that_failed_in_part_says_so_and_counts_what_was_accepted() -> None:
    tracer = Tracer()
    publishing = spans_of(tracer).publish(PARENT)
    publishing.accepted(FEED, 1)
    publishing.accepted("b", 2)
    publishing.failed("overloaded")
    publishing.end()
    (span,) = tracer.made
    assert span.error == "overloaded"
    assert span.attributes is not None
    assert span.attributes["messaging.batch.message_count"] == 2
    assert "pushsvc.destination.kind" not in span.attributes
    assert "messaging.message.id" not in span.attributes
