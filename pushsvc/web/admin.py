"""The admin port: liveness, readiness, metrics, and a page that shows them."""

from collections.abc import Callable
from importlib.resources import files
from typing import Any, ClassVar

import tornado.web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from pushsvc.web import dev
from pushsvc.web.base import Handler, NotFoundHandler

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


class ConsoleHandler(Handler):
    """``/console``: the state and the rates of this process, live."""

    route: ClassVar[str] = "console"

    def get(self) -> None:
        """Answer with the page; it reads ``/readyz`` and ``/metrics``."""
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header(
            "Content-Security-Policy",
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        )
        self.finish((files("pushsvc.web") / "console.html").read_bytes())


def application(
    report: Report, registry: CollectorRegistry, mint: dev.Mint | None = None
) -> tornado.web.Application:
    """The application of the admin port.

    Args:
        report: what the process says of itself.
        registry: the metrics.
        mint: makes tokens for who asks, in development only.
    """
    for_development = [] if mint is None else [(dev.PATH, dev.TokenHandler, {"mint": mint})]
    return tornado.web.Application(
        [
            *for_development,
            (r"/livez", LiveHandler),
            (r"/readyz", ReadyHandler, {"report": report}),
            (r"/metrics", MetricsHandler, {"registry": registry}),
            (r"/console", ConsoleHandler),
            (r"/", tornado.web.RedirectHandler, {"url": "/console", "permanent": False}),
        ],
        default_handler_class=NotFoundHandler,
        log_function=lambda _: None,
    )
