"""Tokens for who tries things out on the same machine: served by ``pushsvc dev`` only.

Whoever reaches this address gets any token, so what must not reach it is a web page: one of another
origin, or one whose own name was pointed at this machine (DNS rebinding).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Final, Literal
from urllib.parse import urlsplit

import msgspec

from pushsvc.errors import (
    InvalidRequest,
    InvalidToken,
    MethodNotAllowed,
    OriginRefused,
    UnsupportedMediaType,
)
from pushsvc.protocol import encoding
from pushsvc.web.base import Handler

PATH: Final = "/dev/token"
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
"""The names of this machine for itself."""
DEFAULT_TTL: Final = 3600
MAX_TTL: Final = 7 * 86400

Mint = Callable[[str, Sequence[str], float, Mapping[str, Sequence[str]] | None], str]
"""Makes a token of a user, scopes, a time to live in seconds, and patterns of topics."""


class Topics(msgspec.Struct, forbid_unknown_fields=True):
    """Patterns of the topics that a token is to open."""

    subscribe: list[str] = []
    publish: list[str] = []


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """What a token is to say; ``ttl`` is in seconds."""

    user: str
    scopes: list[Literal["push.receive", "push.publish", "push.admin"]] = []
    topics: Topics | None = None
    ttl: int | float = DEFAULT_TTL


class TokenHandler(Handler):
    """``/dev/token``: any token, for the asking."""

    route: ClassVar[str] = "dev_token"
    allow: ClassVar[str] = "POST"

    def initialize(self, mint: Mint) -> None:
        """Take what the application passes."""
        self._mint = mint

    def prepare(self) -> None:
        """Refuse web pages, and what is no JSON: a page could send that without asking first."""
        if self.request.method != "POST":
            raise MethodNotAllowed("tokens are made by POST")
        host = self.request.headers.get("Host", "").lower()
        origin = self.request.headers.get("Origin")
        if not _is_loopback(host):
            raise OriginRefused("ask for tokens at 127.0.0.1 or localhost, not under another name")
        if origin is not None and origin.lower() != f"http://{host}":
            raise OriginRefused("pages of other origins get no tokens: ask from a program")
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise UnsupportedMediaType(f"send Content-Type application/json, not {kind[:80]!r}")

    def post(self) -> None:
        """Make a token."""
        wanted = encoding.shape(encoding.decode(self.request.body), Wanted)
        if not 1 <= wanted.ttl <= MAX_TTL:
            raise InvalidRequest(f'"ttl" is a number of seconds from 1 to {MAX_TTL}')
        topics = wanted.topics
        patterns = None
        if topics is not None:
            patterns = {"subscribe": topics.subscribe, "publish": topics.publish}
        try:
            token = self._mint(wanted.user, wanted.scopes, wanted.ttl, patterns)
        except InvalidToken as error:  # no token was sent, so this is no 401
            raise InvalidRequest(error.detail) from None
        self.write_json(200, {"token": token})


def _is_loopback(host: str) -> bool:
    try:
        return urlsplit(f"//{host}").hostname in LOOPBACK
    except ValueError:
        return False
