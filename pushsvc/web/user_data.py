"""Erasing a user, and telling all that is kept of one: ``/v1/users/{user}`` and ``…/export``."""

import hashlib
from typing import Any, ClassVar, Final

import structlog

from pushsvc.auth.tokens import SCOPE_ADMIN, Claims, TokenCheck
from pushsvc.errors import InvalidRequest
from pushsvc.feeds.schedule import Waiting
from pushsvc.feeds.user_data import UserData
from pushsvc.protocol import encoding, ids
from pushsvc.protocol.feeds import mailbox, receipts
from pushsvc.protocol.names import require_name
from pushsvc.protocol.timestamps import rfc3339
from pushsvc.web.base import Handler
from pushsvc.web.operation import JSON, lacking
from pushsvc.web.query import Query
from pushsvc.web.users import listed

EXPORT: Final = r"/export"

log = structlog.get_logger("pushsvc.admin")


class _UserDataHandler(Handler):
    """Base of what an administrator asks about all that is kept of a user.

    Args:
        data: of the users.
        verifier: of tokens.
    """

    def initialize(self, *, data: UserData, verifier: TokenCheck) -> None:
        self._data = data
        self._verifier = verifier

    async def administrator(self, part: str | None, what: str) -> tuple[Claims, str]:
        """Who asks, and the user that it is about; the log tells both, the user by a digest.

        Raises:
            InvalidToken: there is no token, or it is refused.
            Forbidden: it is no administrator's.
            InvalidRequest: nothing names a user.
            InvalidName: the user id is not one.
        """
        claims = await self.authorized()
        if SCOPE_ADMIN not in claims.scopes:
            needed = f"this needs a token with the scope {SCOPE_ADMIN}"
            raise lacking(needed, self.request.headers, self._verifier)
        user = require_name(self.subject(part, "user"), "user id")
        digest = hashlib.sha256(mailbox(user, claims.namespace).encode()).hexdigest()[:16]
        log.info(what, by=claims.user, namespace=claims.namespace, user_digest=digest)
        return claims, user


class EraseHandler(_UserDataHandler):
    """Erases a user."""

    route: ClassVar[str] = "erase"
    allow: ClassVar[str] = "DELETE"

    async def delete(self, user: str | None = None) -> None:
        """Erase all that is kept, and say how much that was."""
        claims, name = await self.administrator(user, "a user is erased")
        namespace = claims.namespace
        erased = await self._data.erase(name, mailbox(name, namespace), receipts(name, namespace))
        self.write_json(200, {"user": name, "erased": erased.keys, "left": erased.left})


class ExportHandler(_UserDataHandler):
    """Tells all that is kept of a user, in parts."""

    route: ClassVar[str] = "export"
    allow: ClassVar[str] = "GET"

    async def get(self, user: str | None = None) -> None:
        """Answer with a part."""
        place = Query(self.request.query).one("next") or ""
        what = "a user's data are read on" if place else "a user's data are read"
        claims, name = await self.administrator(user, what)
        part = await self._data.part(mailbox(name, claims.namespace), place)
        if part is None:
            raise InvalidRequest('"next" is what an earlier part gave: send it unchanged')
        told: dict[str, Any] = {"user": name}
        if part.places is not None:
            told["devices"] = [
                {"device": name, "acked": _id(acked), "began": _id(began), "broadcast": _id(seen)}
                for name, acked, began, seen in part.places
            ]
            told["connections"] = [
                {"connection": each.connection, "device": each.device, "since": rfc3339(each.since)}
                for each in part.connections
            ]
            told["registered"] = [
                {
                    "device": each.device,
                    "provider": each.provider,
                    **({"host": each.host} if each.host else {}),
                    "registered": rfc3339(each.at),
                }
                for each in part.registered
            ]
            told["pushes"] = [
                {"notification": ids.render(notification), "at": rfc3339(at)}
                for notification, at in part.pending
            ]
        head = encoding.encode(told)[:-1]
        kept = b",".join(map(listed, part.notifications))
        waiting = b",".join(map(_waiting, part.scheduled))
        following = encoding.encode(part.following or None)
        self.set_header("Content-Type", JSON)
        self.finish(
            b'%b,"notifications":[%b],"scheduled":[%b],"next":%b}\n'
            % (head, kept, waiting, following)
        )


def _id(entry_id: int | None) -> str | None:
    return None if entry_id is None else ids.render(entry_id)


def _waiting(each: Waiting) -> bytes:
    """Something scheduled, as JSON; its body is the end of a JSON object."""
    told: dict[str, Any] = {"id": each.id, "at": rfc3339(each.at)}
    for name in ("device", "collapse_key", "by"):
        if value := getattr(each.append, name):
            told[name] = value
    return encoding.encode(told)[:-1] + b"," + each.append.body
