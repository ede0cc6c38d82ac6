"""The admin port: liveness, readiness, metrics, and the console."""

from collections.abc import Callable
from typing import Any, ClassVar, Final, cast

import tornado.web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders
from tornado.iostream import IOStream

from pushsvc.admin import dev
from pushsvc.admin.console_api import ConsoleApi
from pushsvc.errors import NotFound
from pushsvc.web import pages
from pushsvc.web.base import MAX_HEADERS, Handler, NotFoundHandler
from pushsvc.web.cors import ALLOWED_HEADERS, Origins
from pushsvc.web.http_connection import KEEP_ALIVE

MAX_CONNECTIONS: Final = 100
"""Connections that the admin port keeps: far more than probes, Prometheus and people hold. More
would take the descriptors of the public port."""
MAX_BODY: Final = 16 * 1024
"""Bytes of a request, save for what the console sends."""
BODY_SECONDS: Final = 30.0
"""Seconds that the body of a request may take to arrive."""

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""What the console may do: nothing that does not come from the same origin, no text as markup."""

Report = Callable[[], dict[str, Any]]
"""What the process says of itself: ``troubles``, empty when it is ready, and more."""


class LiveHandler(Handler):
    """``/livez``: the event loop turns."""

    route: ClassVar[str] = "livez"
    allow: ClassVar[str] = "GET, HEAD"

    def get(self) -> None:
        self.write_json(200, {"status": "alive"})

    head = get  # what a health check may ask with


class ReadyHandler(Handler):
    """``/readyz``: whether this process should get traffic."""

    route: ClassVar[str] = "readyz"
    allow: ClassVar[str] = "GET, HEAD"

    def initialize(self, report: Report) -> None:
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
        self._registry = registry

    def get(self) -> None:
        encode, content_type = choose_encoder(self.request.headers.get("Accept", ""))
        self.set_header("Content-Type", content_type)
        self.finish(encode(self._registry))


class PublicPathHandler(Handler):
    """``/v1/…``: says to a client that took this port for the public one which it is.

    A page of this machine, which somebody develops, may read that: it would be told nothing but
    that a request failed. No other: it could find the admin ports of its visitors' networks.
    """

    allow: ClassVar[str] = "OPTIONS"

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Vary", "Origin")
        if self._is_local():
            self.set_header("Access-Control-Allow-Origin", self.request.headers["Origin"])

    def prepare(self) -> None:
        if self.request.method != "OPTIONS" or not self._is_local():
            raise NotFound(
                "this is the admin port: clients and backends use the public one, which is "
                "PUSHSVC_PORT, 8080 unless it was set"
            )

    def options(self) -> None:
        """Answer what a browser asks first, or its page would not be told."""
        self.set_status(204)
        self.set_header("Access-Control-Allow-Methods", "*")
        self.set_header("Access-Control-Allow-Headers", ALLOWED_HEADERS)
        self.finish()

    def _is_local(self) -> bool:
        """Whether a page of this machine asks."""
        return dev.is_loopback(self.request.headers.get("Origin", "").partition("://")[2])


class SecurityHeaders(tornado.web.OutputTransform):
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
        headers.setdefault("Referrer-Policy", "no-referrer")
        headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
        return status_code, headers, chunk


def _console_pages() -> list[Any]:
    """The paths of the console's page."""
    having = {
        "folder": pages.folder("pushsvc.admin", "console"),
        "headers": {"Content-Security-Policy": POLICY},
    }
    return [
        (r"/console/?", pages.FileHandler, {**having, "index": "index.html"}),
        (r"/console/assets/(.+)", pages.FileHandler, having),
    ]


def application(
    report: Report,
    registry: CollectorRegistry,
    console: ConsoleApi,
    development: dev.Development | None = None,
) -> tornado.web.Application:
    """The application of the admin port.

    Args:
        report: what the process says of itself.
        registry: the metrics.
        console: what the console asks and does.
        development: what is served besides, by ``pushsvc dev`` only.
    """
    return tornado.web.Application(
        [
            *([] if development is None else dev.rules(development)),
            (r"/livez", LiveHandler),
            (r"/readyz", ReadyHandler, {"report": report}),
            (r"/metrics", MetricsHandler, {"registry": registry}),
            *_console_pages(),
            *console.rules(),
            *pages.client(),
            (r"/v1/.*", PublicPathHandler),
            (r"/", tornado.web.RedirectHandler, {"url": "/console", "permanent": False}),
        ],
        default_handler_class=NotFoundHandler,
        transforms=[SecurityHeaders],
        log_function=lambda _: None,
        origins=Origins(()),  # pages of this very port and no others
    )


class Server(HTTPServer):
    """The server of the admin port, which keeps no more than ``MAX_CONNECTIONS``.

    Args:
        application: what is served.
    """

    def initialize(self, application: tornado.web.Application) -> None:  # type: ignore[override]
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
        self._held.pop(cast("Any", server_conn).stream, None)
        super().on_close(server_conn)
