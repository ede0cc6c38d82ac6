"""What a backend, or a user, asks about a mailbox: what it keeps, who is there, acknowledging."""

import time
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Final

import msgspec

from pushsvc.auth.tokens import SCOPE_ADMIN, SCOPE_PUBLISH, Claims, TokenCheck
from pushsvc.errors import NotFound
from pushsvc.feeds.history import SIGNALS, UNARCHIVED, History, Retained, Wanted
from pushsvc.feeds.read_state import ReadStates
from pushsvc.feeds.schedule import Schedule
from pushsvc.protocol import encoding, ids
from pushsvc.protocol.feeds import mailbox, name_of
from pushsvc.protocol.names import require_label, require_name
from pushsvc.protocol.read_state import ARCHIVED, LOOKED_AT_ONCE, READ, Verb, change_from
from pushsvc.protocol.scheduled import is_scheduled_id
from pushsvc.protocol.timestamps import rfc3339
from pushsvc.web.base import CrossOriginHandler
from pushsvc.web.cors import Origins
from pushsvc.web.operation import (
    JSON,
    Admitted,
    Answer,
    Request,
    TokenOperation,
    json_answer,
    lacking,
    media_type,
    subject,
)
from pushsvc.web.query import Query
from pushsvc.web.rates import RequestRates

NAMED: Final = (r"/v1/users/(?P<user>[^/]+)", r"/v1/user")
"""A user in the path, or in the query: proxies decode ``%2F``, and URL parsers swallow ``..``."""
NOTIFICATIONS: Final = r"/notifications"
NOTIFICATION: Final = r"/notifications/(?P<notification>[^/]+)"
PRESENCE: Final = r"/presence"
DISCONNECT: Final = r"/disconnect"
ACK: Final = r"/v1/ack"

PAGE: Final = 20
"""Notifications on a page, where the request does not say."""
MAX_PAGE: Final = 100

MAX_NAMED: Final = 64 * 1024
"""Most bytes of a body that names notifications: as many as a change may name, at their longest."""

BACKEND: Final = frozenset({SCOPE_PUBLISH, SCOPE_ADMIN})
"""With any of these scopes a token may ask about every user."""

Acknowledge = Callable[[str, str, int, bool], Awaitable[int]]
"""Move a device's position: feed, device, id, whether it is one of the broadcast; the position."""


class UserHandler(CrossOriginHandler):
    """Base of what is asked about one user.

    Args:
        history: of the mailboxes.
        verifier: of tokens.
        rates: how fast each user may ask.
    """

    backends: ClassVar[frozenset[str]] = BACKEND
    """With any of these scopes a token may ask about every user."""

    def initialize(self, *, history: History, verifier: TokenCheck, rates: RequestRates) -> None:
        self._history = history
        self._verifier = verifier
        self._rates = rates

    async def backend(self, part: str | None) -> str:
        """The mailbox of a user that a backend names, in the path or in the query.

        Raises:
            InvalidRequest: nothing names one.
            InvalidToken: there is no token, or it is refused.
            Forbidden: the token is not a backend's.
            InvalidName: the user id is not one.
        """
        claims = await self.authorized()
        if not claims.scopes & self.backends:
            needed = f"use a token with the scope {self._backends()}"
            raise lacking(needed, self.request.headers, self._verifier)
        user = require_name(self.subject(part, "user"), "user id")
        return mailbox(user, claims.namespace)

    async def reader(self, part: str | None) -> str:
        """The mailbox of a user that a backend, or the user, asks about, by path or query.

        Who may ask about themselves only need not say who they are.

        Raises:
            InvalidRequest: a backend names none.
            InvalidToken: there is no token, or it is refused.
            RateLimited: the user asks too often.
            Forbidden: the token is another user's.
            InvalidName: the user id is not one.
        """
        claims = await self.authorized()
        may_all = bool(claims.scopes & self.backends)
        if may_all or part is not None or Query(self.request.query).one("user") is not None:
            user = self.subject(part, "user")
        else:
            user = claims.user
        if not may_all:
            self._rates.spend(claims.caller, time.monotonic())
            if claims.user != user:
                needed = f"use the user's own token, or one with the scope {self._backends()}"
                raise lacking(needed, self.request.headers, self._verifier)
        return mailbox(require_name(user, "user id"), claims.namespace)

    def _backends(self) -> str:
        return " or ".join(sorted(self.backends))


class NotificationsHandler(UserHandler):
    """Lists what a mailbox keeps."""

    route: ClassVar[str] = "user_notifications"
    allow: ClassVar[str] = "GET, OPTIONS"

    async def get(self, user: str | None = None) -> None:
        """Answer with a page, newest first."""
        feed = await self.reader(user)
        query = Query(self.request.query)
        before = query.position("before", "an earlier page")
        limit = query.number("limit", 1, MAX_PAGE, PAGE)
        page = await self._history.page(feed, before, limit, wanted(query))
        following = b"null" if page.following is None else b'"%b"' % _id(page.following)
        entries = b",".join(map(listed, page.entries))
        self.set_header("Content-Type", JSON)
        told = entries, following, page.unread
        self.finish(b'{"notifications":[%b],"next":%b,"unread":%d}\n' % told)


def wanted(query: Query) -> Wanted:
    """Which notifications the arguments of a list ask for.

    Raises:
        InvalidRequest: a value is none that they take.
        InvalidName: the event is no name.
    """
    event = query.one("event")
    if event is not None:
        require_label(event, "event")
    unread, inbox = query.flag("unread"), query.flag("inbox")
    archived = query.choice("archived", ("true", "false", "any"), "false")
    states = {"true": "a", "false": UNARCHIVED, "any": UNARCHIVED + "a"}[archived]
    if unread:
        states = "u" if "u" in states else ""
    elif not inbox and archived != "true":
        states += SIGNALS
    return Wanted(states, event or "")


class RecallHandler(UserHandler):
    """Takes one notification back.

    Args:
        history: of the mailboxes.
        schedule: what is scheduled.
        verifier: of tokens.
        rates: how fast each user may ask.
    """

    route: ClassVar[str] = "recall"
    allow: ClassVar[str] = "DELETE, OPTIONS"

    def initialize(  # type: ignore[override]  # Tornado passes what the application names
        self, *, history: History, schedule: Schedule, verifier: TokenCheck, rates: RequestRates
    ) -> None:
        super().initialize(history=history, verifier=verifier, rates=rates)
        self._schedule = schedule

    async def delete(self, notification: str, user: str | None = None) -> None:
        """Withdraw it, and say who had acknowledged it by then."""
        feed = await self.backend(user)
        told: dict[str, str] = {}
        if is_scheduled_id(notification):
            became = await self._schedule.recall(feed, notification)
            if became is None:
                self.write_json(200, {"id": notification, "acked": [], "cancelled": True})
                return
            entry_id = became
            told = {"notification": ids.render(became)}
        else:
            entry_id = ids.parse_untrusted(notification)
        acked = await self._history.recall(feed, entry_id)
        if acked is None:
            raise NotFound(
                "this user's mailbox does not hold this notification: it was withdrawn, settled, "
                "replaced or trimmed, or never was there"
            )
        self.write_json(200, {"id": notification, **told, "acked": acked})


class PresenceHandler(UserHandler):
    """Says whether a user is connected, and with which devices."""

    route: ClassVar[str] = "user_presence"
    allow: ClassVar[str] = "GET, OPTIONS"

    async def get(self, user: str | None = None) -> None:
        feed = await self.reader(user)
        devices = [
            {"device": each.device, "connections": each.connections, "since": rfc3339(each.since)}
            for each in await self._history.present(feed)
        ]
        self.write_json(200, {"user": name_of(feed), "online": bool(devices), "devices": devices})


class AckBody(msgspec.Struct, forbid_unknown_fields=True):
    """Everything up to this notification is done, for this device of the token's user."""

    id: str
    device: str = "default"
    broadcast: bool = False


class AckOperation(TokenOperation):
    """Acknowledges, for clients that listen without a socket.

    Args:
        ack: moves a device's position.
        rates: how fast each user may acknowledge.
        verifier: of tokens.
        max_body: most bytes of a body.
        origins: which pages may call.
    """

    route: ClassVar[str] = "ack"
    allow: ClassVar[str] = "POST, OPTIONS"

    def __init__(
        self,
        *,
        ack: Acknowledge,
        rates: RequestRates,
        verifier: TokenCheck,
        max_body: int,
        origins: Origins,
    ) -> None:
        super().__init__(verifier, max_body=max_body, origins=origins)
        self._ack = ack
        self._rates = rates

    def permit(self, request: Request, claims: Claims) -> None:  # noqa: ARG002 - the interface
        """Account for the request."""
        self._rates.spend(claims.caller, time.monotonic())

    async def answer(self, request: Request, admitted: Admitted, body: bytes) -> Answer:
        """Move the device's position, and answer with it."""
        media_type(request.headers, JSON)
        ack = encoding.shape(encoding.decode(body), AckBody)
        device = require_name(ack.device, "device")
        entry_id = ids.parse_untrusted(ack.id)
        feed = mailbox(admitted.claims.user, admitted.claims.namespace)
        position = await self._ack(feed, device, entry_id, ack.broadcast)
        return json_answer(200, {"acked": ids.render(position)})


class ReadStateBody(msgspec.Struct, forbid_unknown_fields=True):
    """Some notifications of the mailbox, or all up to one."""

    ids: list[str] | None = None
    until: str | None = None


class UserOperation(TokenOperation):
    """Base of operations on one user: by the user, or by a backend.

    Args:
        rates: how fast each user may ask.
        verifier: of tokens.
        max_body: most bytes of a body.
        origins: which pages may call.
    """

    def __init__(
        self, *, rates: RequestRates, verifier: TokenCheck, max_body: int, origins: Origins
    ) -> None:
        super().__init__(verifier, max_body=max_body, origins=origins)
        self._rates = rates

    def permit(self, request: Request, claims: Claims) -> None:
        """Check whose mailbox it is, and account for a user's request.

        Raises:
            Forbidden: the token is another user's.
            RateLimited: the user asks too often.
        """
        if claims.scopes & BACKEND:
            return
        self._rates.spend(claims.caller, time.monotonic())
        if self._user(request, claims) != claims.user:
            scopes = " or ".join(sorted(BACKEND))
            needed = f"use the user's own token, or one with the scope {scopes}"
            raise self.lacking(needed, request)

    @staticmethod
    def _user(request: Request, claims: Claims) -> str:
        """Whose mailbox it is: the user's own where it names none and may ask about no other."""
        if request.part is None and not claims.scopes & BACKEND:
            named = Query(request.query).one("user")
            return claims.user if named is None else named
        return subject(request.part, request.query, "user")

    def mailbox(self, request: Request, claims: Claims) -> str:
        """The mailbox that a request is about.

        Raises:
            InvalidRequest: a backend names no user.
            InvalidName: the user id is not one.
        """
        return mailbox(require_name(self._user(request, claims), "user id"), claims.namespace)


class ReadStateOperation(UserOperation):
    """Changes the read state of notifications in one way.

    Args:
        verb: the way.
        read_states: of the mailboxes.
        made: what ``UserOperation`` is made with.
    """

    route: ClassVar[str] = "read_state"
    allow: ClassVar[str] = "POST, OPTIONS"

    def __init__(self, verb: Verb, *, read_states: ReadStates, **made: Any) -> None:
        super().__init__(**made)
        self._verb = verb
        self._read_states = read_states

    async def answer(self, request: Request, admitted: Admitted, body: bytes) -> Answer:
        """Change it, and answer with how many are unread."""
        media_type(request.headers, JSON)
        claims = admitted.claims
        feed = self.mailbox(request, claims)
        named = encoding.shape(encoding.decode(body), ReadStateBody)
        change = change_from(self._verb, named.ids, named.until)
        changed = await self._read_states.change(feed, change)
        if not claims.scopes & BACKEND:
            cost = changed.looked // LOOKED_AT_ONCE
            self._rates.owe(claims.caller, time.monotonic(), cost)
        return json_answer(200, {"unread": changed.unread})


def _id(entry_id: int) -> bytes:
    return ids.render(entry_id).encode()


def listed(entry: Retained) -> bytes:
    """A notification in a list, as JSON; its body is the end of a JSON object."""
    acked = [
        {"device": each.device, "time": None if each.time is None else rfc3339(each.time)}
        for each in entry.acked
    ]
    state = (
        {}
        if entry.state is None
        else {"read": entry.state in (READ, ARCHIVED), "archived": entry.state == ARCHIVED}
    )
    head = encoding.encode(
        {
            "id": ids.render(entry.id),
            "time": rfc3339(ids.milliseconds(entry.id)),
            "expires": rfc3339(entry.expires),
            "acked": acked,
            **state,
            **({"device": entry.device} if entry.device else {}),
        }
    )
    return head[:-1] + b"," + entry.body
