"""Pages in browsers: which may call, and what tells their browser so (the Fetch standard, CORS)."""

import re
from collections.abc import Collection, Mapping
from typing import Final

from pushsvc.errors import OriginRefused
from pushsvc.printable import printable
from pushsvc.protocol.answers import Pairs

ALLOWED_HEADERS: Final = (
    "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, traceparent, tracestate"
)
EXPOSED_HEADERS: Final = "Retry-After"
MAX_AGE: Final = 7200
"""Seconds that a browser need not ask again; Chromium forgets after these anyway."""
MAX_SHOWN: Final = 300
"""Characters of a refused origin that are told: a scheme, the longest host name and a port fit."""
_PORT: Final = re.compile(r":[0-9]{1,5}\Z")
_VARY: Final = (("Vary", "Origin"),)
_EXPOSED: Final = ("Access-Control-Expose-Headers", EXPOSED_HEADERS)


class Origins:
    """Which pages may connect.

    Args:
        allowed: origins, with ``:*`` for any port, or ``*`` for all; a page served under the same
            host as the node is always allowed.
    """

    def __init__(self, allowed: Collection[str]) -> None:
        self._all = "*" in allowed
        self._allowed = frozenset(origin.lower() for origin in allowed)

    def allow(self, headers: Mapping[str, str]) -> bool:
        """Whether a request is of no browser page, or of one that may connect.

        Args:
            headers: of the request, asked with lower-case names.
        """
        origin = headers.get("origin")
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
        host = headers.get("host", "").lower()
        return bool(host) and origin.partition("://")[2] == host

    def check(self, headers: Mapping[str, str]) -> None:
        """Refuse a browser page of another origin (RFC 6455, section 10.2).

        Args:
            headers: of the request, asked with lower-case names.

        Raises:
            OriginRefused: the page may not connect.
        """
        if self.allow(headers):
            return
        origin = headers["origin"]
        if origin == "null":
            raise OriginRefused(
                "the page has no origin, as files and sandboxed frames have none: serve it over "
                "http or https, and name that origin in PUSHSVC_ALLOWED_ORIGINS"
            )
        shown = printable(origin[:MAX_SHOWN])
        raise OriginRefused(
            f"pages of {shown} may not connect: add this origin to PUSHSVC_ALLOWED_ORIGINS"
        )


def cross_origin(origins: Origins, headers: Mapping[str, str]) -> Pairs:
    """The headers that tell a browser that its page may read an answer, be it an error.

    Args:
        origins: which pages may.
        headers: of the request, asked with lower-case names.
    """
    origin = headers.get("origin")
    if origin is None or not origins.allow(headers):
        return _VARY
    return (*_VARY, ("Access-Control-Allow-Origin", origin), _EXPOSED)


def preflight(allow: str, headers: Mapping[str, str]) -> Pairs:
    """The headers that answer what a browser asks before it lets a page call.

    Args:
        allow: the methods that the path serves.
        headers: of the request, asked with lower-case names.
    """
    if "origin" not in headers:
        return (("Allow", allow),)
    return (
        ("Allow", allow),
        ("Access-Control-Allow-Methods", allow),
        ("Access-Control-Allow-Headers", ALLOWED_HEADERS),
        ("Access-Control-Max-Age", str(MAX_AGE)),
    )
