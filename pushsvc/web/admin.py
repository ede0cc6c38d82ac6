"""The admin port: liveness, readiness, metrics, and the console."""

from collections.abc import Callable
from typing import Any, ClassVar, Final, cast

import tornado.web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders
from tornado.iostream import IOStream

from pushsvc.web import dev, pages
from pushsvc.web.api import KEEP_ALIVE, MAX_HEADERS
from pushsvc.web.base import Handler, NotFoundHandler
from pushsvc.web.cors import Origins
from pushsvc.web.desk import Desk

MAX_CONNECTIONS: Final = 100
"""Connections that the admin port keeps: far more than probes, Prometheus and people hold. More
would take the descriptors of the public port."""
MAX_BODY: Final = 16 * 1024
"""Bytes of a request, save for what the console sends."""
BODY_SECONDS: Final = 30.0
"""Seconds that the body of a request may take to arrive."""

Report = Callable[[], dict[str, Any]]
"""What the process says of itself: ``troubles``, empty when it is ready, and more."""


class LiveHandler(Handler):
    """``/livez``: the event loop turns."""

    route: ClassVar[str] = "livez"
    allow: ClassVar[str] = "GET, HEAD"

    def get(self) -> None:
        """Answer."""
        self.write_json(200, {"status": "alive"})

    head = get  # what a health check may ask with


class ReadyHandler(Handler):
    """``/readyz``: whether this process should get traffic."""

    route: ClassVar[str] = "readyz"
    allow: ClassVar[str] = "GET, HEAD"

    def initialize(self, report: Report) -> None:
        """Take what the application passes."""
        self._report = report

    def get(self) -> None:
        """Answer with 200, or with 503 and what is wrong."""
        report = self._report()
        ready = not report["troubles"]
        self.write_json(
            200 if ready else 503, {"status": "ready" if ready else "unready", **report}
        )

    head = get


class MetricsHandler(Handler):
    """``/metrics``: for Prometheus, as text or OpenMetrics."""

    route: ClassVar[str] = "metrics"

    def initialize(self, registry: CollectorRegistry) -> None:
        """Take what the application passes."""
        self._registry = registry

    def get(self) -> None:
        """Answer with every metric."""
        encode, content_type = choose_encoder(self.request.headers.get("Accept", ""))
        self.set_header("Content-Type", content_type)
        self.finish(encode(self._registry))


class Sealed(tornado.web.OutputTransform):
    """Gives each answer of the admin port the headers that it did not set itself.

    An answer is no page unless it says so, and nothing learns from where a link was followed.
    """

    def transform_first_chunk(
        self,
        status_code: int,
        headers: HTTPHeaders,
        chunk: bytes,
        finishing: bool,  # noqa: FBT001, ARG002 - Tornado's interface
    ) -> tuple[int, HTTPHeaders, bytes]:
        """Add the headers."""
        headers.setdefault("Referrer-Policy", "no-referrer")
        headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
        return status_code, headers, chunk


def application(
    report: Report,
    registry: CollectorRegistry,
    desk: Desk,
    development: dev.Development | None = None,
) -> tornado.web.Application:
    """The application of the admin port.

    Args:
        report: what the process says of itself.
        registry: the metrics.
        desk: what the console asks and does.
        development: what is served besides, by ``pushsvc dev`` only.
    """
    return tornado.web.Application(
        [
            *([] if development is None else dev.rules(development)),
            (r"/livez", LiveHandler),
            (r"/readyz", ReadyHandler, {"report": report}),
            (r"/metrics", MetricsHandler, {"registry": registry}),
            *pages.console(),
            *desk.rules(),
            *pages.client(),
            (r"/", tornado.web.RedirectHandler, {"url": "/console", "permanent": False}),
        ],
        default_handler_class=NotFoundHandler,
        transforms=[Sealed],
        log_function=lambda _: None,
        origins=Origins(()),  # pages of this very port and no others
    )


class Server(HTTPServer):
    """The server of the admin port, which keeps no more than ``MAX_CONNECTIONS``.

    Args:
        application: what is served.
    """

    def initialize(self, application: tornado.web.Application) -> None:  # type: ignore[override]
        """See the class."""
        self._held: dict[IOStream, None] = {}
        super().initialize(
            application,
            max_header_size=MAX_HEADERS,
            max_body_size=MAX_BODY,
            idle_connection_timeout=KEEP_ALIVE,
            body_timeout=BODY_SECONDS,
        )

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Take a new connection, in the place of the oldest if there are too many.

        It is not refused, as on the public port: a node whose health checks are refused is killed.
        """
        if len(self._held) >= MAX_CONNECTIONS:
            oldest = next(iter(self._held))
            del self._held[oldest]
            oldest.close()
        self._held[stream] = None
        super().handle_stream(stream, address)

    def on_close(self, server_conn: object) -> None:
        """A connection is over."""
        self._held.pop(cast("Any", server_conn).stream, None)
        super().on_close(server_conn)
