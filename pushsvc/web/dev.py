"""What ``pushsvc dev`` serves on its admin port: tokens, a node that can be killed, and the demo.

Whoever reaches these addresses gets any token, so what must not reach them is a web page: one of
another origin, or one whose own name was pointed at this machine (DNS rebinding).
"""

from collections.abc import Callable, Mapping, Sequence
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
from pushsvc.web.pages import FileHandler, folder

LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
"""The names of this machine for itself."""
DEFAULT_TTL: Final = 3600
MAX_TTL: Final = 7 * 86400
Mint = Callable[[str, Sequence[str], float, Mapping[str, Sequence[str]] | None], str]
"""Makes a token of a user, scopes, a time to live in seconds, and patterns of topics."""


@dataclass(frozen=True, slots=True)
class Process:
    """A node's process; without an id before it first spoke, without a pid when it is dead."""

    node: str | None
    pid: int | None
    ready: bool
    kill: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Development:
    """What the handlers need of the process that they are in."""

    mint: Mint
    nodes: Callable[[], list[Process]]
    host: str
    port: int
    admin_host: str
    admin_port: int

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
        "folder": folder("demo"),
        "headers": {"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"},
        "index": "index.html",
        "missing": "there is no such page: begin at /demo",
    }
    return [
        (r"/dev/token", TokenHandler, having),
        (r"/dev/node", NodeHandler, having),
        (r"/dev/kill", KillHandler, having),
        (r"/demo(?:/([a-z]+(?:\.[a-z]+)?))?", FileHandler, demo),
        (r"/(?:demo/)?", tornado.web.RedirectHandler, {"url": "/demo", "permanent": False}),
    ]


def redirect(admin_url: str) -> list[Any]:
    """The paths of the public port that lead to the demo."""
    to = {"url": admin_url + "{0}", "permanent": False}
    return [(r"(/demo(?:/[a-z]+)?)/?", tornado.web.RedirectHandler, to)]


class Topics(msgspec.Struct, forbid_unknown_fields=True):
    """Patterns of the topics that a token is to open."""

    subscribe: list[str] = []
    publish: list[str] = []


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """What a token is to say; ``ttl`` is in seconds."""

    user: str
    scopes: list[Literal["push.receive", "push.publish", "push.admin", "push.observe"]] = []
    topics: Topics | None = None
    ttl: int | float = DEFAULT_TTL


class Victim(msgspec.Struct, forbid_unknown_fields=True):
    """Which node is to die; the only one, where none is named."""

    node: str | None = None


class _Guarded(Handler):
    """Base of what programs on this machine, and the pages of this port, may ask for."""

    def initialize(self, development: Development) -> None:
        """Take what the application passes."""
        self._development = development

    def prepare(self) -> None:
        """Refuse other web pages, and what is no JSON: a page could send it without asking."""
        if self.request.method != self.allow:
            raise MethodNotAllowed(f"this path serves {self.allow}")
        host = self.request.headers.get("Host", "").lower()
        origin = self.request.headers.get("Origin")
        if not _is_loopback(host):
            raise OriginRefused("ask at 127.0.0.1 or localhost, not under another name")
        if origin is not None and origin.lower() != f"http://{host}":
            raise OriginRefused("pages of other origins may not ask: ask from a program")
        if self.request.method == "GET":
            return
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise UnsupportedMediaType(f"send Content-Type application/json, not {kind[:80]!r}")


class TokenHandler(_Guarded):
    """``/dev/token``: any token, for the asking."""

    route: ClassVar[str] = "dev_token"
    allow: ClassVar[str] = "POST"

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
            token = self._development.mint(wanted.user, wanted.scopes, wanted.ttl, patterns)
        except InvalidToken as error:  # no token was sent, so this is no 401
            raise InvalidRequest(error.detail) from None
        self.write_json(200, {"token": token})


class NodeHandler(_Guarded):
    """``/dev/node``: where the node is, and the processes behind it."""

    route: ClassVar[str] = "dev_node"

    def get(self) -> None:
        """Answer."""
        nodes = [
            {"node": each.node, "pid": each.pid, "ready": each.ready}
            for each in self._development.nodes()
        ]
        self.write_json(200, {"url": self._development.node_url(), "nodes": nodes})


class KillHandler(_Guarded):
    """``/dev/kill``: the sudden death of a node, by SIGKILL; another takes its place."""

    route: ClassVar[str] = "dev_kill"
    allow: ClassVar[str] = "POST"

    def post(self) -> None:
        """Kill it, and answer when it is dead."""
        victim = encoding.shape(encoding.decode(self.request.body), Victim)
        alive = [each for each in self._development.nodes() if each.pid is not None]
        found = [each for each in alive if victim.node in (None, each.node)]
        if not found:
            raise NotFound("no such node is alive now: GET /dev/node lists those that are")
        if len(found) > 1:
            names = ", ".join(str(each.node) for each in found)
            raise InvalidRequest(f'name the "node" that is to die, one of {names}')
        found[0].kill()
        self.write_json(200, {"node": found[0].node, "pid": found[0].pid})


def _is_loopback(host: str) -> bool:
    try:
        return urlsplit(f"//{host}").hostname in LOOPBACK
    except ValueError:
        return False
