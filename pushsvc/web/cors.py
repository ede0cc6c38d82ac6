"""Pages in browsers: which may call, and what tells their browser so (the Fetch standard, CORS)."""

import re
from collections.abc import Collection
from typing import Final

from tornado.httputil import HTTPHeaders

from pushsvc.errors import InvalidRequest, OriginRefused
from pushsvc.printable import printable
from pushsvc.web.base import BodyHandler, Handler

ALLOWED_HEADERS: Final = (
    "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, traceparent, tracestate"
)
EXPOSED_HEADERS: Final = "Retry-After"
MAX_AGE: Final = 7200
"""Seconds that a browser need not ask again; Chromium forgets after these anyway."""
MAX_SHOWN: Final = 300
"""Characters of a refused origin that are told: a scheme, the longest host name and a port fit."""
_PORT: Final = re.compile(r":[0-9]{1,5}\Z")


class Origins:
    """Which pages may connect.

    Args:
        allowed: origins, with ``:*`` for any port, or ``*`` for all; a page served under the same
            host as the node is always allowed.
    """

    def __init__(self, allowed: Collection[str]) -> None:
        self._all = "*" in allowed
        self._allowed = frozenset(origin.lower() for origin in allowed)

    def allow(self, headers: HTTPHeaders) -> bool:
        """Whether a request is of no browser page, or of one that may connect."""
        origin = headers.get("Origin")
        if origin is None:
            return True
        origin = origin.lower()
        if origin == "null":
            return False
        if self._all or origin in self._allowed:
            return True
        if _PORT.sub("", origin) + ":*" in self._allowed:
            return True
        # An origin is scheme://host[:port], nothing that needs parsing.
        host = headers.get("Host", "").lower()
        return bool(host) and origin.partition("://")[2] == host

    def check(self, headers: HTTPHeaders) -> None:
        """Refuse a browser page of another origin (RFC 6455, section 10.2).

        Raises:
            OriginRefused: the page may not connect.
        """
        if self.allow(headers):
            return
        origin = headers["Origin"]
        if origin == "null":
            raise OriginRefused(
                "the page has no origin, as files and sandboxed frames have none: serve it over "
                "http or https, and name that origin in PUSHSVC_ALLOWED_ORIGINS"
            )
        shown = printable(origin[:MAX_SHOWN])
        raise OriginRefused(
            f"pages of {shown} may not connect: add this origin to PUSHSVC_ALLOWED_ORIGINS"
        )


def cross_origin(origins: Origins, headers: HTTPHeaders) -> dict[str, str]:
    """The headers that tell a browser that its page may read an answer, be it an error."""
    answer = {"Vary": "Origin"}
    if "Origin" in headers and origins.allow(headers):
        answer["Access-Control-Allow-Origin"] = headers["Origin"]
        answer["Access-Control-Expose-Headers"] = EXPOSED_HEADERS
    return answer


class CrossOrigin(Handler):
    """What ``CrossOriginHandler`` and ``CrossOriginBodyHandler`` share.

    The application's setting ``origins`` says which pages may call. A handler's ``allow`` names
    OPTIONS too.
    """

    def set_default_headers(self) -> None:
        """Tell the browser that its page may read the answer, be it an error."""
        super().set_default_headers()
        for name, value in cross_origin(self._origins, self.request.headers).items():
            self.set_header(name, value)

    @property
    def _origins(self) -> Origins:
        origins: Origins = self.settings["origins"]
        return origins

    def check_origin(self) -> None:
        """Refuse a page that may not call.

        Raises:
            OriginRefused: it may not.
        """
        self._origins.check(self.request.headers)

    def preflight(self) -> None:
        """Answer what a browser asks before it lets a page call."""
        self.set_status(204)
        self.set_header("Allow", self.allow)
        if "Origin" in self.request.headers:
            self.set_header("Access-Control-Allow-Methods", self.allow)
            self.set_header("Access-Control-Allow-Headers", ALLOWED_HEADERS)
            self.set_header("Access-Control-Max-Age", str(MAX_AGE))
        self.finish()


class CrossOriginHandler(CrossOrigin):
    """Base of handlers that pages may call, and that read no body."""

    def prepare(self) -> None:
        """Refuse a page that may not call, whatever it asks for."""
        self.check_origin()

    def options(self, *_: str, **__: str) -> None:
        self.preflight()


class CrossOriginBodyHandler(CrossOrigin, BodyHandler):
    """Base of handlers that pages may call, and that read a body."""

    async def admit(self) -> None:
        self.check_origin()
        if self.request.method != "OPTIONS":
            await super().admit()
        elif self._length() or "Transfer-Encoding" in self.request.headers:
            raise InvalidRequest("send OPTIONS without a body")

    def options(self, *_: str, **__: str) -> None:
        """Answer a preflight, for which no token is needed."""
        self.body()
        self.preflight()
