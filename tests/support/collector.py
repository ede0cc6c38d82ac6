"""A collector of traces: OTLP over HTTP, decoded."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from tests.support.nodes import wait_until
from tests.support.services import HTTPService, QuietHandler


class Span(NamedTuple):
    """A span as the collector got it."""

    name: str
    kind: int
    trace: str
    id: str
    parent: str
    seconds: float
    error: bool
    attributes: dict[str, Any]
    resource: dict[str, Any]


def values(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value")
        for each in attributes
    }


class Collector(HTTPService):
    """Keeps the spans that it is sent."""

    def __init__(self) -> None:
        self.got: list[Span] = []
        collector = self

        class Handler(QuietHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

        super().__init__(Handler)

    def take(self, request: ExportTraceServiceRequest) -> None:
        for of_resource in request.resource_spans:
            resource = values(of_resource.resource.attributes)
            for of_scope in of_resource.scope_spans:
                self.got += [
                    Span(
                        span.name,
                        int(span.kind),
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                        span.status.code == 2,
                        values(span.attributes),
                        resource,
                    )
                    for span in of_scope.spans
                ]

    def of(self, trace: str) -> list[Span]:
        """What there is of a trace."""
        return [span for span in self.got if span.trace == trace]

    def spans(self, trace: str, *names: str) -> list[Span]:
        """Wait until a trace has spans of these names, and only as many; in that order."""

        def all_there() -> bool:
            return len(self.of(trace)) >= len(names)

        wait_until(all_there, f"{names} in the trace; there are {self.of(trace)}")
        got = self.of(trace)
        assert sorted(span.name for span in got) == sorted(names), got
        return sorted(got, key=lambda span: names.index(span.name))
