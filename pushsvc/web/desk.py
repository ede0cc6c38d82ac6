"""What the console asks and does: ``/console/api/`` on the admin port.

Whoever holds ``push.admin`` or ``push.observe`` sees everything; acting needs ``push.admin``, and
sending ``push.publish``. The rest of the API is served by the very handlers of the public port.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import msgspec

from pushsvc import __version__
from pushsvc.auth.gate import Gate
from pushsvc.auth.tokens import SCOPE_ADMIN, SCOPE_OBSERVE, SCOPE_PUBLISH, Claims, TokenCheck
from pushsvc.errors import Forbidden
from pushsvc.feeds.mailboxes import Device, Mailboxes
from pushsvc.feeds.summaries import Histogram, Summaries, Summary
from pushsvc.protocol import ids
from pushsvc.protocol.feeds import mailbox
from pushsvc.protocol.grants import NOTHING
from pushsvc.protocol.names import require_name
from pushsvc.web.base import Handler, authorize
from pushsvc.web.publish import PublishHandler
from pushsvc.web.revocations import DisconnectHandler, RevocationsHandler
from pushsvc.web.tracing import TraceHandler
from pushsvc.web.users import NotificationsHandler, RecallHandler, rfc3339

API: Final = r"/console/api"
SEES: Final = frozenset({SCOPE_ADMIN, SCOPE_OBSERVE})
"""With any of these scopes a token sees the console."""


def may(claims: Claims) -> dict[str, bool]:
    """What the holder of a token that sees the console may do besides."""
    acts = SCOPE_ADMIN in claims.scopes
    return {
        "publish": SCOPE_PUBLISH in claims.scopes,
        "disconnect": acts,
        "revoke": acts,
        "recall": acts,
    }


class DeskGate(Gate):
    """The gate of the console: it lets in who may see it.

    It follows nothing in the background. Each request brings the view of what is revoked, and of
    which nodes are live, up to date, so a desk that nobody sits at costs nothing.

    Args:
        verifier: of tokens; closed by ``aclose``.
        revocations: where the revocations of all nodes are.
        tickets: where the tickets of all nodes are.
        look: brings the view of the live nodes up to date.
    """

    def __init__(
        self,
        verifier: TokenCheck,
        revocations: Any,
        tickets: Any,
        look: Callable[[], Awaitable[object]],
    ) -> None:
        super().__init__(verifier, revocations, tickets)
        self._look = look

    def verify_cached(self, token: str) -> Claims | None:  # noqa: ARG002 - the gate's interface
        """Nothing can be told without I/O."""
        return None

    async def verify(self, token: str) -> Claims:
        """Verify a token.

        Raises:
            InvalidToken: the token is not good here, or was revoked.
            Forbidden: its holder may not see the console.
            PushError: Redis or the keys cannot be reached.
        """
        claims = await super().verify(token)
        if not claims.scopes & SEES:
            raise Forbidden(
                f"the console needs a token with the scope {SCOPE_ADMIN} or {SCOPE_OBSERVE}"
            )
        await asyncio.gather(self.refresh(), self._look())
        self.check(claims)
        # Topics are for clients: here a scope opens everything, and nothing else does.
        return msgspec.structs.replace(claims, grants=NOTHING)


@dataclass(frozen=True, slots=True)
class Desk:
    """What the handlers of the console are made with."""

    gate: DeskGate
    summaries: Summaries
    live: Callable[[], Awaitable[frozenset[str]]]
    """The ids of the live nodes."""
    redis_time: Callable[[], float]
    """Now by Redis time, in seconds since the epoch, as of the last look at the live nodes."""
    mailboxes: Mailboxes
    publish: dict[str, Any]
    users: dict[str, Any]
    acts: dict[str, Any]
    trace: dict[str, Any]

    def rules(self) -> list[Any]:
        """The paths of the console's API."""
        seen = {"verifier": self.gate}
        user = API + r"/users/([^/]+)"
        return [
            (API + r"/me", MeHandler, seen),
            (
                API + r"/overview",
                OverviewHandler,
                {
                    **seen,
                    "summaries": self.summaries,
                    "live": self.live,
                    "redis_time": self.redis_time,
                },
            ),
            (user, UserHandler, {**seen, "mailboxes": self.mailboxes}),
            (user + r"/notifications", SeenNotificationsHandler, self.users),
            (user + r"/notifications/([^/]+)", AdminRecallHandler, self.users),
            (user + r"/disconnect", DisconnectHandler, self.acts),
            (API + r"/notifications", PublishHandler, self.publish),
            (API + r"/revocations", SeenRevocationsHandler, self.acts),
            (API + r"/trace", TraceHandler, self.trace),
        ]


class MeHandler(Handler):
    """Says who asks, and what the console may offer."""

    route: ClassVar[str] = "console_me"

    def initialize(self, verifier: TokenCheck) -> None:
        """Take what the application passes."""
        self._verifier = verifier

    async def get(self) -> None:
        """Answer."""
        claims = await authorize(self.request, self._verifier)
        self.write_json(
            200,
            {
                "user": claims.user,
                "scopes": sorted(claims.scopes),
                "may": may(claims),
                "expires_at": claims.expires,
            },
        )


class OverviewHandler(Handler):
    """Lists the live nodes with what they say of themselves."""

    route: ClassVar[str] = "console_overview"

    def initialize(
        self,
        verifier: TokenCheck,
        summaries: Summaries,
        live: Callable[[], Awaitable[frozenset[str]]],
        redis_time: Callable[[], float],
    ) -> None:
        """Take what the application passes."""
        self._verifier = verifier
        self._summaries = summaries
        self._live = live
        self._redis_time = redis_time

    async def get(self) -> None:
        """Answer."""
        await authorize(self.request, self._verifier)
        found = await self._summaries.of(sorted(await self._live()))
        found.sort(key=lambda each: (each.host or "", each.pid or 0, each.node))
        now = round(1000 * self._redis_time())
        self.write_json(
            200,
            {
                "time": rfc3339(now),
                "version": __version__,
                "nodes": [_node(each, now) for each in found],
            },
        )


class UserHandler(Handler):
    """Shows a user's devices: where each is connected, what it has and what waits for it."""

    route: ClassVar[str] = "console_user"

    def initialize(self, verifier: TokenCheck, mailboxes: Mailboxes) -> None:
        """Take what the application passes."""
        self._verifier = verifier
        self._mailboxes = mailboxes

    async def get(self, user: str) -> None:
        """Answer."""
        await authorize(self.request, self._verifier)
        found = await self._mailboxes.look(mailbox(require_name(user, "user id")))
        self.write_json(
            200,
            {
                "user": user,
                "online": found.online,
                "devices": [_device(each) for each in found.devices],
                "mailbox": {
                    "length": found.length,
                    "oldest": _id(found.oldest),
                    "newest": _id(found.newest),
                },
            },
        )


class SeenNotificationsHandler(NotificationsHandler):
    """Lists what a mailbox keeps, to whoever sees the console."""

    backends: ClassVar[frozenset[str]] = SEES


class AdminRecallHandler(RecallHandler):
    """Takes one notification back."""

    backends: ClassVar[frozenset[str]] = frozenset({SCOPE_ADMIN})


class SeenRevocationsHandler(RevocationsHandler):
    """Revokes tokens; whoever sees the console sees what is revoked."""

    readers: ClassVar[frozenset[str]] = SEES


def _node(summary: Summary, now: int) -> dict[str, Any]:
    silence = summary.silence(now)
    troubles = [f"has said nothing for {silence} s"] if silence else []
    troubles += summary.troubles
    return {
        "node": summary.node,
        "host": summary.host,
        "pid": summary.pid,
        "version": summary.version,
        "started": None if summary.started is None else rfc3339(summary.started),
        "time": None if summary.time is None else rfc3339(summary.time),
        "silent": silence > 0,
        "ready": not troubles,
        "troubles": troubles,
        "connections": summary.connections,
        "totals": {name: summary.totals.get(name, 0) for name in TOTALS},
        "latency": {"deliver": _histogram(summary.deliver), "ack": _histogram(summary.ack)},
        "loop_lag": _histogram(summary.loop_lag),
    }


TOTALS: Final = (
    "handshakes", "published", "delivered", "redelivered", "acked", "gaps", "closes",
    "client_errors", "redis_errors",
)  # fmt: skip
"""The counters of a node; one whose version counts others has 0 for these."""


def _histogram(histogram: Histogram) -> dict[str, Any]:
    return {"bounds": histogram.bounds, "counts": histogram.counts}


def _device(device: Device) -> dict[str, Any]:
    return {
        "device": device.device,
        "connections": [
            {"connection": each.connection, "node": each.node, "since": rfc3339(each.since)}
            for each in device.connections
        ],
        "acked": _id(device.acked),
        "broadcast": _id(device.broadcast),
        "waiting": device.waiting,
        "more": device.more,
    }


def _id(entry_id: int | None) -> str | None:
    return None if entry_id is None else ids.render(entry_id)
