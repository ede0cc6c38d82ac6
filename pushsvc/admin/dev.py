"""What ``pushsvc dev`` serves on its admin port: tokens, a node that can be killed, and the demo.

Any program that reaches these addresses gets any token, so what must not reach them is a web page:
one of another origin, or one whose own name was pointed at this machine (DNS rebinding). Tokens are
for pages that this machine serves too, such as those of a front end's own development server: what
serves those could ask by itself.
"""

from asyncio import Future
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal
from urllib.parse import urlsplit

import msgspec
import tornado.web

from pushsvc.errors import (
    InvalidRequest,
    InvalidToken,
    MethodNotAllowed,
    NotFound,
    OriginRefused,
    UnsupportedMediaType,
)
from pushsvc.protocol import encoding
from pushsvc.web.base import Handler
from pushsvc.web.cors import Origins
from pushsvc.web.pages import FileHandler, folder

LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
"""The names of this machine for itself."""
DEFAULT_TTL: Final = 3600
MAX_TTL: Final = 7 * 86400
Mint = Callable[[str, Sequence[str], float, Mapping[str, Sequence[str]] | None], str]
"""Makes a token of a user, scopes, a time to live in seconds, and patterns of topics."""


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """A node's process; without an id before it first spoke, without a pid when it is dead."""

    node: str | None
    pid: int | None
    ready: bool
    kill: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Development:
    """What the handlers need of the process that they are in."""

    mint: Mint
    nodes: Callable[[], list[WorkerProcess]]
    host: str
    port: int
    admin_host: str
    admin_port: int
    allowed_origins: Collection[str] = ()
    """Of pages that may connect to the node."""

    def node_url(self) -> str:
        """Where pages on this machine find the node."""
        return f"http://{address(self.host, self.port)}"

    def admin_url(self) -> str:
        """Where the demo is served."""
        return f"http://{address(self.admin_host, self.admin_port)}"

    def origins(self) -> list[str]:
        """The origins of the pages on the admin port."""
        return [f"http://{address(name, self.admin_port)}" for name in sorted(LOOPBACK)]


def address(host: str, port: int) -> str:
    """Host and port as a URL has them; what stands for all addresses is this machine here."""
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def rules(development: Development) -> list[Any]:
    """The paths of the admin port that only development has."""
    having = {"development": development}
    node = development.node_url()
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        f"connect-src 'self' {node} {node.replace('http', 'ws', 1)}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    demo = {
        "folder": folder("pushsvc.admin", "demo"),
        "headers": {"Content-Security-Policy": policy, "Referrer-Policy": "same-origin"},
        "index": "index.html",
        "missing": "there is no such page: begin at /demo",
    }
    return [
        (r"/dev/token", TokenHandler, having),
        (r"/dev/console", ConsoleHandler, having),
        (r"/dev/node", NodeHandler, having),
        (r"/dev/kill", KillHandler, having),
        (r"/demo(?:/([a-z]+(?:\.[a-z]+)?))?", FileHandler, demo),
        (r"/(?:demo/)?", tornado.web.RedirectHandler, {"url": "/demo", "permanent": False}),
    ]


class Topics(msgspec.Struct, forbid_unknown_fields=True):
    """Patterns of the topics that a token is to open."""

    subscribe: list[str] = []
    publish: list[str] = []


class TokenRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What a token is to say; ``ttl`` is in seconds."""

    user: str
    scopes: list[Literal["push.receive", "push.publish", "push.admin", "push.observe"]] = []
    topics: Topics | None = None
    ttl: int | float = DEFAULT_TTL


class KillRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Which node is to die; the only one, where none is named."""

    node: str | None = None


class _DevHandler(Handler):
    """Base of what programs on this machine, and the pages of this port, may ask for."""

    def initialize(self, development: Development) -> None:
        self._development = development

    def prepare(self) -> None:
        """Refuse other web pages, and what is no JSON: a page could send it without asking."""
        if self.request.method not in self.allow.split(", "):
            raise MethodNotAllowed(f"this path serves {self.allow}")
        if not is_loopback(self._host):
            raise OriginRefused("ask at 127.0.0.1 or localhost, not under another name")
        if "Origin" in self.request.headers and not self.may_ask(self.request.headers["Origin"]):
            raise OriginRefused(self.refusal)
        if self.request.method != "POST":
            return
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise UnsupportedMediaType(f"send Content-Type application/json, not {kind[:80]!r}")

    refusal: ClassVar[str] = "pages of other origins may not ask: ask from a program"

    def may_ask(self, origin: str) -> bool:
        """Whether a page of this origin may."""
        return origin.lower() == f"http://{self._host}"

    def minted(self, *wanted: Any) -> str:
        """A token.

        Raises:
            InvalidRequest: there is no such token.
        """
        try:
            return self._development.mint(*wanted)
        except InvalidToken as error:  # no token was sent, so this is no 401
            raise InvalidRequest(error.detail) from None

    @property
    def _host(self) -> str:
        return self.request.headers.get("Host", "").lower()


class ConsoleHandler(_DevHandler):
    """``/dev/console``: the console, signed in, for whoever enters the address.

    A page that led here could not read the token, but it would have a window of the console.
    """

    route: ClassVar[str] = "dev_console"

    def prepare(self) -> None:
        super().prepare()
        headers = self.request.headers
        # A new tab is cross-site to WebKit whoever opens it, but no page can name one of another
        # origin as the referrer. Without a referrer the site counts, which not every browser tells.
        referrer = headers.get("Referer")
        if referrer is None:
            ours = headers.get("Sec-Fetch-Site", "none") in {"none", "same-origin"}
        else:
            ours = referrer.lower().startswith(f"http://{self._host}/")
        if not ours:
            raise OriginRefused("a page of another origin leads here: enter the address yourself")

    def get(self) -> None:
        token = self.minted("admin", ["push.admin", "push.publish"], DEFAULT_TTL, None)
        # In the fragment, which no server is sent and no log has.
        self.redirect(f"/console#token={token}")


class TokenHandler(_DevHandler):
    """``/dev/token``: any token, for the asking; by pages of this machine too."""

    route: ClassVar[str] = "dev_token"
    allow: ClassVar[str] = "POST, OPTIONS"
    refusal: ClassVar[str] = (
        "pages of this origin get no token: those of http://localhost and http://127.0.0.1 do,"
        " as --allowed-origins names them; or ask from a program"
    )

    def may_ask(self, origin: str) -> bool:
        """A page of this port, or one of this machine that may connect to the node too."""
        if super().may_ask(origin):
            return True
        allowed = Origins(self._development.allowed_origins)
        return is_loopback(origin.partition("://")[2]) and allowed.allow(self.request.headers)

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> "Future[None]":
        """Let the page read the answer, be it an error."""
        origin = self.request.headers.get("Origin")
        self.set_header("Vary", "Origin")
        if origin is not None and is_loopback(self._host) and self.may_ask(origin):
            self.set_header("Access-Control-Allow-Origin", origin)
        return super().finish(chunk)

    def options(self) -> None:
        """Answer a preflight."""
        self.set_status(204)
        self.set_header("Access-Control-Allow-Methods", "POST")
        self.set_header("Access-Control-Allow-Headers", "Content-Type")
        self.finish()

    def post(self) -> None:
        wanted = encoding.shape(encoding.decode(self.request.body), TokenRequest)
        if not 1 <= wanted.ttl <= MAX_TTL:
            raise InvalidRequest(f'"ttl" is a number of seconds from 1 to {MAX_TTL}')
        topics = wanted.topics
        patterns = None
        if topics is not None:
            patterns = {"subscribe": topics.subscribe, "publish": topics.publish}
        token = self.minted(wanted.user, wanted.scopes, wanted.ttl, patterns)
        self.write_json(200, {"token": token})


class NodeHandler(_DevHandler):
    """``/dev/node``: where the node is, and the processes behind it."""

    route: ClassVar[str] = "dev_node"

    def get(self) -> None:
        nodes = [
            {"node": each.node, "pid": each.pid, "ready": each.ready}
            for each in self._development.nodes()
        ]
        self.write_json(200, {"url": self._development.node_url(), "nodes": nodes})


class KillHandler(_DevHandler):
    """``/dev/kill``: the sudden death of a node, by SIGKILL; another takes its place."""

    route: ClassVar[str] = "dev_kill"
    allow: ClassVar[str] = "POST"

    def post(self) -> None:
        victim = encoding.shape(encoding.decode(self.request.body), KillRequest)
        alive = [each for each in self._development.nodes() if each.pid is not None]
        found = [each for each in alive if victim.node in (None, each.node)]
        if not found:
            raise NotFound("no such node is alive now: GET /dev/node lists those that are")
        if len(found) > 1:
            names = ", ".join(str(each.node) for each in found)
            raise InvalidRequest(f'name the "node" that is to die, one of {names}')
        found[0].kill()
        self.write_json(200, {"node": found[0].node, "pid": found[0].pid})


def is_loopback(host: str) -> bool:
    """Whether a host, as a URL has it, is this machine."""
    try:
        return urlsplit(f"//{host}").hostname in LOOPBACK
    except ValueError:
        return False
