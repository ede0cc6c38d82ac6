"""What a backend, or a user, asks about a mailbox: what it keeps, who is there, acknowledging."""

import re
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import ClassVar, Final

import msgspec

from pushsvc.auth.tokens import SCOPE_ADMIN, SCOPE_PUBLISH, TokenCheck
from pushsvc.errors import Forbidden, InvalidRequest, NotFound
from pushsvc.feeds.history import History, Retained
from pushsvc.protocol import encoding, ids
from pushsvc.protocol.feeds import mailbox
from pushsvc.protocol.names import require_name
from pushsvc.web.base import authorize
from pushsvc.web.cors import CrossOriginBodyHandler, CrossOriginHandler
from pushsvc.web.publish import JSON
from pushsvc.web.rates import RequestRates

NOTIFICATIONS: Final = r"/v1/users/([^/]+)/notifications"
NOTIFICATION: Final = r"/v1/users/([^/]+)/notifications/([^/]+)"
PRESENCE: Final = r"/v1/users/([^/]+)/presence"
ACK: Final = r"/v1/ack"

PAGE: Final = 20
"""Notifications on a page, where the request does not say."""
MAX_PAGE: Final = 100

BACKEND: Final = frozenset({SCOPE_PUBLISH, SCOPE_ADMIN})
"""With any of these scopes a token may ask about every user."""

Acknowledge = Callable[[str, str, int, bool], Awaitable[int]]
"""Move a device's position: feed, device, id, whether it is one of the broadcast; the position."""

_limit = re.compile(r"[1-9][0-9]{0,2}").fullmatch


class UserHandler(CrossOriginHandler):
    """Base of what is asked about one user."""

    backends: ClassVar[frozenset[str]] = BACKEND
    """With any of these scopes a token may ask about every user."""

    def initialize(self, *, history: History, verifier: TokenCheck, rates: RequestRates) -> None:
        """Take what the application passes.

        Args:
            history: of the mailboxes.
            verifier: of tokens.
            rates: how fast each user may ask.
        """
        self._history = history
        self._verifier = verifier
        self._rates = rates

    def decode_argument(self, value: bytes, name: str | None = None) -> str:
        """A part of the path, or a value of the query."""
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise InvalidRequest(f"{name or 'the path'} is not UTF-8") from None

    async def backend(self, user: str) -> str:
        """The mailbox of a user that a backend names.

        Raises:
            InvalidToken: there is no token, or it is refused.
            Forbidden: the token is not a backend's.
            InvalidName: the user id is not one.
        """
        claims = await authorize(self.request, self._verifier)
        if not claims.scopes & self.backends:
            raise Forbidden(f"use a token with the scope {self._backends()}")
        return mailbox(require_name(user, "user id"))

    async def reader(self, user: str) -> str:
        """The mailbox of a user that a backend, or the user, asks about.

        Raises:
            InvalidToken: there is no token, or it is refused.
            RateLimited: the user asks too often.
            Forbidden: the token is another user's.
            InvalidName: the user id is not one.
        """
        claims = await authorize(self.request, self._verifier)
        if not claims.scopes & self.backends:
            self._rates.spend(claims.user, time.monotonic())
            if claims.user != user:
                raise Forbidden(
                    f"use the user's own token, or one with the scope {self._backends()}"
                )
        return mailbox(require_name(user, "user id"))

    def _backends(self) -> str:
        return " or ".join(sorted(self.backends))

    def query(self, name: str) -> str | None:
        """A value of the query, None without one.

        Raises:
            InvalidRequest: there are several.
        """
        values = self.get_query_arguments(name, strip=False)
        if len(values) > 1:
            raise InvalidRequest(f'"{name}" is there {len(values)} times: send it once')
        return values[0] if values else None


class NotificationsHandler(UserHandler):
    """Lists what a mailbox keeps."""

    route: ClassVar[str] = "user_notifications"
    allow: ClassVar[str] = "GET, OPTIONS"

    async def get(self, user: str) -> None:
        """Answer with a page, newest first."""
        feed = await self.reader(user)
        page = await self._history.page(feed, self._before(), self._limit())
        following = b"null" if page.following is None else b'"%b"' % _id(page.following)
        self.set_header("Content-Type", JSON)
        self.finish(
            b'{"notifications":[%b],"next":%b}\n' % (b",".join(map(told, page.entries)), following)
        )

    def _before(self) -> int | None:
        before = self.query("before")
        if before is None:
            return None
        try:
            return ids.parse_untrusted(before)
        except InvalidRequest:
            raise InvalidRequest('"before" is the "next" of an earlier page') from None

    def _limit(self) -> int:
        limit = self.query("limit")
        if limit is None:
            return PAGE
        if not _limit(limit) or int(limit) > MAX_PAGE:
            raise InvalidRequest(f'"limit" is a number from 1 to {MAX_PAGE}')
        return int(limit)


class RecallHandler(UserHandler):
    """Takes one notification back."""

    route: ClassVar[str] = "recall"
    allow: ClassVar[str] = "DELETE, OPTIONS"

    async def delete(self, user: str, notification: str) -> None:
        """Withdraw it, and say who had acknowledged it by then."""
        feed = await self.backend(user)
        entry_id = ids.parse_untrusted(notification)
        acked = await self._history.recall(feed, entry_id)
        if acked is None:
            raise NotFound(
                "this user's mailbox does not hold this notification: it was withdrawn, settled, "
                "replaced or trimmed, or never was there"
            )
        self.write_json(200, {"id": ids.render(entry_id), "acked": acked})


class PresenceHandler(UserHandler):
    """Says whether a user is connected, and with which devices."""

    route: ClassVar[str] = "user_presence"
    allow: ClassVar[str] = "GET, OPTIONS"

    async def get(self, user: str) -> None:
        """Answer with the devices."""
        feed = await self.reader(user)
        devices = [
            {"device": each.device, "connections": each.connections, "since": rfc3339(each.since)}
            for each in await self._history.present(feed)
        ]
        self.write_json(200, {"user": user, "online": bool(devices), "devices": devices})


class AckBody(msgspec.Struct, forbid_unknown_fields=True):
    """Everything up to this notification is done, for this device of the token's user."""

    id: str
    device: str = "default"
    broadcast: bool = False


class AckHandler(CrossOriginBodyHandler):
    """Acknowledges, for who listens without a socket."""

    route: ClassVar[str] = "ack"
    allow: ClassVar[str] = "POST, OPTIONS"

    def initialize(  # type: ignore[override]  # Tornado passes what the application names
        self,
        *,
        ack: Acknowledge,
        rates: RequestRates,
        verifier: TokenCheck,
        max_body: int,
        timeout: float,
    ) -> None:
        """Take what the application passes.

        Args:
            ack: moves a device's position.
            rates: how fast each user may acknowledge.
            verifier: of tokens.
            max_body: most bytes of a body.
            timeout: seconds in which the body must arrive.
        """
        super().initialize(verifier, max_body, timeout)
        self._ack = ack
        self._rates = rates

    async def admit(self) -> None:
        """Refuse, by raising an error, what the headers alone condemn."""
        await super().admit()
        if self.request.method == "POST":
            self._rates.spend(self.claims.user, time.monotonic())

    async def post(self) -> None:
        """Move the device's position, and answer with it."""
        body = self.body()
        self.media_type(JSON)
        ack = encoding.shape(encoding.decode(body), AckBody)
        device = require_name(ack.device, "device")
        entry_id = ids.parse_untrusted(ack.id)
        position = await self._ack(mailbox(self.claims.user), device, entry_id, ack.broadcast)
        self.write_json(200, {"acked": ids.render(position)})


def _id(entry_id: int) -> bytes:
    return ids.render(entry_id).encode()


def rfc3339(milliseconds: int) -> str:
    """A time as in RFC 3339."""
    stamp = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return stamp.strftime("%Y-%m-%dT%H:%M:%S.") + f"{milliseconds % 1000:03d}Z"


def told(entry: Retained) -> bytes:
    """A notification as it is listed; its body is the end of a JSON object."""
    acked = [
        {"device": each.device, "time": None if each.time is None else rfc3339(each.time)}
        for each in entry.acked
    ]
    return (
        encoding.encode(
            {
                "id": ids.render(entry.id),
                "time": rfc3339(ids.milliseconds(entry.id)),
                "expires": rfc3339(entry.expires),
                "acked": acked,
            }
        )[:-1]
        + b","
        + entry.body
    )
