"""What the console asks and does: ``/console/api/`` on the admin port.

A holder of ``push.admin`` or ``push.observe`` sees everything in its namespace; acting needs
``push.admin``, and sending ``push.publish``. An operator sees all namespaces. The rest of the API
is served by the very handlers and operations of the public port.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import msgspec

from pushsvc import __version__
from pushsvc.admin.namespace import InNamespace, OperationInNamespace
from pushsvc.admin.trace_api import TraceHandler
from pushsvc.auth.authenticator import Authenticator
from pushsvc.auth.tokens import SCOPE_ADMIN, SCOPE_OBSERVE, SCOPE_PUBLISH, Claims, TokenCheck
from pushsvc.errors import Forbidden, InvalidRequest
from pushsvc.feeds.mailboxes import Device, Mailboxes
from pushsvc.feeds.push_registrations import PushRegistrations
from pushsvc.feeds.summaries import Histogram, Summaries, Summary
from pushsvc.protocol import encoding, ids
from pushsvc.protocol.feeds import mailbox
from pushsvc.protocol.names import require_name
from pushsvc.protocol.timestamps import rfc3339
from pushsvc.web.base import Handler, OperationHandler
from pushsvc.web.operation import Operation, Request
from pushsvc.web.publish import PublishOperation
from pushsvc.web.rates import RequestRates
from pushsvc.web.revocations import DisconnectOperation, RevocationsOperation
from pushsvc.web.users import (
    DISCONNECT,
    NAMED,
    NOTIFICATION,
    NOTIFICATIONS,
    NotificationsHandler,
    RecallHandler,
)

API: Final = r"/console/api"
VIEWERS: Final = frozenset({SCOPE_ADMIN, SCOPE_OBSERVE})
"""With any of these scopes a token sees the console."""


def sees_nodes(claims: Claims, verifier: TokenCheck) -> bool:
    """Whether a token sees what is told of whole nodes, which count all namespaces."""
    return claims.operator or not any(verifier.namespaces.values())


def permissions(claims: Claims, verifier: TokenCheck) -> dict[str, bool]:
    """What the holder of a token that sees the console may do besides."""
    acts = SCOPE_ADMIN in claims.scopes
    return {
        "overview": sees_nodes(claims, verifier),
        "publish": SCOPE_PUBLISH in claims.scopes,
        "disconnect": acts,
        "revoke": acts,
        "recall": acts,
    }


class ConsoleAuthenticator(Authenticator):
    """The authenticator of the console: it admits tokens that may see it.

    It follows nothing in the background. Each request brings the view of what is revoked in the
    namespace of its token, and of which nodes are live, up to date, so a console that nobody uses
    costs nothing.

    Args:
        verifier: of tokens; closed by ``aclose``.
        revocations: where the revocations of all nodes are.
        tickets: where the tickets of all nodes are.
        refresh_live: brings the view of the live nodes up to date.
        redis_time: now by Redis time, in Unix seconds.
    """

    def __init__(
        self,
        verifier: TokenCheck,
        revocations: Any,
        tickets: Any,
        refresh_live: Callable[[], Awaitable[object]],
        redis_time: Callable[[], float],
    ) -> None:
        super().__init__(verifier, revocations, tickets, redis_time=redis_time)
        self._refresh_live = refresh_live

    def verify_cached(self, token: str) -> Claims | None:  # noqa: ARG002 - the authenticator's interface
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
        if not claims.scopes & VIEWERS:
            raise Forbidden(
                f"the console needs a token with the scope {SCOPE_ADMIN} or {SCOPE_OBSERVE}: "
                f"{self.looked_at(token)}"
            )
        await asyncio.gather(self.refresh_within(claims.namespace), self._refresh_live())
        self.check(claims)
        return claims


@dataclass(frozen=True, slots=True)
class ConsoleApi:
    """The console's API: its paths, and what their handlers are made with."""

    authenticator: ConsoleAuthenticator
    summaries: Summaries
    live: Callable[[], Awaitable[frozenset[str]]]
    """The ids of the live nodes."""
    redis_time: Callable[[], float]
    """Now by Redis time, in seconds since the epoch, as of the last look at the live nodes."""
    mailboxes: Mailboxes
    push: dict[str, Any]
    publish: Operation
    revocations: Operation
    disconnect: Operation
    timeout: float
    """Seconds in which the body of a request must arrive."""
    users: dict[str, Any]
    recall: dict[str, Any]
    trace: dict[str, Any]

    def rules(self) -> list[Any]:
        """The paths of the console's API."""
        viewing = {"verifier": self.authenticator}
        return [
            (API + r"/me", MeHandler, viewing),
            (
                API + r"/overview",
                OverviewHandler,
                {
                    **viewing,
                    "summaries": self.summaries,
                    "live": self.live,
                    "redis_time": self.redis_time,
                },
            ),
            (API + r"/push", PushHandler, {**viewing, **self.push}),
            *(rule for of in NAMED for rule in self._of_user(API + of.removeprefix("/v1"))),
            (API + r"/notifications", OperationHandler, self._having(self.publish)),
            (API + r"/revocations", OperationHandler, self._having(self.revocations)),
            (API + r"/trace", TraceHandler, self.trace),
        ]

    def _of_user(self, named: str) -> list[Any]:
        """The paths of what names a user, and below it."""
        viewing = {"verifier": self.authenticator, "mailboxes": self.mailboxes}
        return [
            (named, UserHandler, viewing),
            (named + NOTIFICATIONS, ConsoleNotificationsHandler, self.users),
            (named + NOTIFICATION, ConsoleRecallHandler, self.recall),
            (named + DISCONNECT, OperationHandler, self._having(self.disconnect)),
        ]

    def _having(self, serves: Operation) -> dict[str, Any]:
        return {"serves": serves, "timeout": self.timeout}


class MeHandler(Handler):
    """Says who asks, and what the console may offer."""

    route: ClassVar[str] = "console_me"

    def initialize(self, verifier: TokenCheck) -> None:
        self._verifier = verifier

    async def get(self) -> None:
        claims = await self.authorized()
        self.write_json(
            200,
            {
                "user": claims.user,
                "namespace": claims.namespace,
                "operator": claims.operator,
                "scopes": sorted(claims.scopes),
                "may": permissions(claims, self._verifier),
                "expires_at": claims.expires,
            },
        )


class _PushSwitch(msgspec.Struct, forbid_unknown_fields=True):
    """What is asked of a push provider."""

    provider: str
    action: Literal["stop", "go-on"]


class PushHandler(Handler):
    """Tells of the push providers, and stops one on all nodes or lets it go on."""

    route: ClassVar[str] = "console_push"

    def initialize(
        self, verifier: TokenCheck, registrations: PushRegistrations, providers: Sequence[str]
    ) -> None:
        self._verifier = verifier
        self._registrations = registrations
        self._providers = providers

    async def get(self) -> None:
        claims = await self.authorized()
        if not sees_nodes(claims, self._verifier):
            raise Forbidden(
                "push providers are of all namespaces: a token of an operator sees them"
            )
        await self._tell()

    async def post(self) -> None:
        claims = await self.authorized()
        if SCOPE_ADMIN not in claims.scopes or not sees_nodes(claims, self._verifier):
            raise Forbidden(
                "push providers are of all namespaces: an operator may stop them, with the scope"
                f" {SCOPE_ADMIN}"
            )
        asked = encoding.shape(encoding.decode(self.request.body), _PushSwitch)
        if asked.provider not in self._providers:
            there = ", ".join(self._providers) or "none"
            raise InvalidRequest(f'"provider" is one that is configured here: {there}')
        if asked.action == "stop":
            await self._registrations.stop(asked.provider, claims.user)
        else:
            await self._registrations.go_on(asked.provider)
        await self._tell()

    async def _tell(self) -> None:
        stopped = await self._registrations.stopped()
        told = [{"provider": each, "stopped": each in stopped} for each in self._providers]
        self.write_json(200, {"providers": told})


class OverviewHandler(Handler):
    """Lists the live nodes with what they say of themselves, which is of all namespaces."""

    route: ClassVar[str] = "console_overview"

    def initialize(
        self,
        verifier: TokenCheck,
        summaries: Summaries,
        live: Callable[[], Awaitable[frozenset[str]]],
        redis_time: Callable[[], float],
    ) -> None:
        self._verifier = verifier
        self._summaries = summaries
        self._live = live
        self._redis_time = redis_time

    async def get(self) -> None:
        if not sees_nodes(await self.authorized(), self._verifier):
            raise Forbidden(
                "the overview counts all namespaces: use a token of an issuer that is an operator"
            )
        found = await self._summaries.of(sorted(await self._live()))
        found.sort(key=lambda each: (each.host or "", each.pid or 0, each.node))
        now = round(1000 * self._redis_time())
        self.write_json(
            200,
            {
                "time": rfc3339(now),
                "version": __version__,
                "nodes": [_node_json(each, now) for each in found],
            },
        )


class UserHandler(InNamespace):
    """Shows a user's devices: where each is connected, what it has and what waits for it."""

    route: ClassVar[str] = "console_user"

    def initialize(self, verifier: TokenCheck, mailboxes: Mailboxes) -> None:
        self._verifier = verifier
        self._mailboxes = mailboxes

    async def get(self, user: str | None = None) -> None:
        claims = await self.authorized()
        user = require_name(self.subject(user, "user"), "user id")
        found = await self._mailboxes.view(mailbox(user, claims.namespace))
        self.write_json(
            200,
            {
                "user": user,
                "online": found.online,
                "devices": [_device_json(each) for each in found.devices],
                "mailbox": {
                    "length": found.length,
                    "oldest": _id(found.oldest),
                    "newest": _id(found.newest),
                },
            },
        )


class ConsoleNotificationsHandler(InNamespace, NotificationsHandler):
    """Lists what a mailbox keeps, to all that may see the console."""

    backends: ClassVar[frozenset[str]] = VIEWERS


class ConsoleRecallHandler(InNamespace, RecallHandler):
    """Takes one notification back."""

    backends: ClassVar[frozenset[str]] = frozenset({SCOPE_ADMIN})


class ConsoleRevocations(OperationInNamespace, RevocationsOperation):
    """Revokes tokens; all that may see the console see what is revoked."""

    readers: ClassVar[frozenset[str]] = VIEWERS


class ConsoleDisconnect(OperationInNamespace, DisconnectOperation):
    """Revokes the tokens that a user has."""


class ConsolePublish(OperationInNamespace, PublishOperation):
    """Publishes one notification, for who may as a backend: topics are for clients, elsewhere."""

    def __init__(self, *, rates: RequestRates, **made: Any) -> None:
        super().__init__(rates=rates, client_rates=rates, client_bytes=rates, **made)

    async def authorized(self, request: Request) -> Claims:
        """What the request's token says; see ``InNamespace``.

        Raises:
            Forbidden: it has not the scope.
        """
        claims = await super().authorized(request)
        if SCOPE_PUBLISH not in claims.scopes:
            needed = f"sending from the console needs a token with the scope {SCOPE_PUBLISH}"
            raise self.lacking(needed, request)
        return claims


def _node_json(summary: Summary, now: int) -> dict[str, Any]:
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
        "latency": {
            "deliver": _histogram_json(summary.deliver),
            "ack": _histogram_json(summary.ack),
        },
        "loop_lag": _histogram_json(summary.loop_lag),
    }


TOTALS: Final = (
    "handshakes", "published", "delivered", "redelivered", "acked", "gaps", "closes",
    "client_errors", "redis_errors",
)  # fmt: skip
"""The counters of a node; one whose version counts others has 0 for these."""


def _histogram_json(histogram: Histogram) -> dict[str, Any]:
    return {"bounds": histogram.bounds, "counts": histogram.counts}


def _device_json(device: Device) -> dict[str, Any]:
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
