"""OpenTelemetry: makes spans and sends them to a collector (OTLP over HTTP).

The only module that knows OpenTelemetry, which is an extra: it is imported where ``TRACING`` is
``otlp``. Where spans go, and which, say the standard ``OTEL_*`` variables, which the SDK reads.
Spans are sent by a thread of the SDK, from a queue that drops what is too much.
"""

import asyncio
import contextlib
import logging
import threading
import time
from typing import Final, Literal

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from pushsvc import __version__
from pushsvc.logs import Sampler
from pushsvc.node.spans import Attributes

FLUSH_SECONDS: Final = 3.0
"""How long a stopping node waits for its last spans to be taken."""
LOG_SECONDS: Final = 60.0
"""A part of the SDK that has a trouble is heard once in so many seconds."""

_KINDS: Final = {"producer": SpanKind.PRODUCER, "consumer": SpanKind.CONSUMER}

log = structlog.get_logger("pushsvc.telemetry")


class _Span:
    """A span of the SDK, as ``node.spans`` sees it."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        context = span.get_span_context()
        self.traceparent = (
            f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 3:02x}"
        )

    def end(self, attributes: Attributes, error: str = "") -> None:
        """End it now; ``error`` is a code, empty where it went well."""
        self._span.set_attributes(attributes)
        if error:
            self._span.set_attribute("error.type", error)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


class Telemetry:
    """Makes spans and sends them, until it is closed.

    Raises:
        ValueError: an ``OTEL_*`` variable cannot be used.
    """

    def __init__(self) -> None:
        _tame_logs()
        resource = Resource.create()
        named = resource.attributes.get(SERVICE_NAME, "")
        if str(named).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "pushsvc"}))
        self._exporter = OTLPSpanExporter()
        self._provider = TracerProvider(
            # What the environment says of the resource wins.
            resource=Resource({SERVICE_VERSION: __version__}).merge(resource),
            shutdown_on_exit=False,  # it would wait for a collector that is down
        )
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("pushsvc", __version__)

    def start(
        self,
        name: str,
        kind: Literal["producer", "consumer"],
        parent: str,
        since: float | None = None,
    ) -> _Span:
        """Begin a span; see ``node.spans.Tracer``."""
        span = self._tracer.start_span(
            name,
            trace.set_span_in_context(trace.NonRecordingSpan(_context(parent)), Context()),
            _KINDS[kind],
            start_time=None if since is None else int(since * 1e9),
        )
        return _Span(span)

    async def aclose(self) -> None:
        """Send what is left, for as long as ``FLUSH_SECONDS``; then give up."""
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # nobody waits any more
                loop.call_soon_threadsafe(done.set)

        # A thread of its own that nobody joins: one of the pool would hold the process up.
        threading.Thread(target=shut_down, name="spans-flush", daemon=True).start()
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                await done.wait()
        except TimeoutError:
            log.warning("the last spans were not taken in time", seconds=FLUSH_SECONDS)
            self._exporter.shutdown()  # type: ignore[no-untyped-call]  # the SDK left it out


def _context(traceparent: str) -> SpanContext:
    return SpanContext(
        trace_id=int(traceparent[3:35], 16),
        span_id=int(traceparent[36:52], 16),
        is_remote=True,
        trace_flags=TraceFlags(int(traceparent[53:], 16)),
    )


class _Tamed(logging.Handler):
    """What the SDK says, sampled and without tracebacks: a collector that is down is no error."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._sampler = Sampler(limit=1, interval=LOG_SECONDS)

    def emit(self, record: logging.LogRecord) -> None:
        """Log it, unless the same part of the SDK said something within a minute.

        A collector that is down makes the exporter say many things, with one cause.
        """
        suppressed = self._sampler.allow(record.name, time.monotonic())
        if suppressed is not None:
            log.warning("OpenTelemetry", detail=record.getMessage(), suppressed=suppressed)


def _tame_logs() -> None:
    logger = logging.getLogger("opentelemetry")
    logger.handlers = [_Tamed()]
    logger.propagate = False
