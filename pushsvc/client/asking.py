"""What a backend asks a node beside publishing: questions to requests, answers to what they say.

Pure: no socket, no clock. Users and topics are named in the query, so that any name works through
any proxy.
"""

import json
import re
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Generic, Literal, TypeVar
from urllib.parse import quote, urlencode

from pushsvc.client.calls import Request
from pushsvc.client.errors import Refused
from pushsvc.client.marks import Mark, MarkKind
from pushsvc.client.messages import Present

LARGEST_PAGE: Final = 100
"""Notifications that a page may have."""

MALFORMED: Final = (LookupError, TypeError, ValueError, AttributeError)
"""What reading an answer raises where it is not as documented."""

T = TypeVar("T")
Json = Mapping[str, Any]

NOT_KEPT: Final = (
    "this user's mailbox does not hold",
    "nothing with this id is scheduled",
    "it is out",
)
"""How a 404 begins that says that a notification is not there; any other one is of a path."""

_id = re.compile(r"[0-9]{1,20}-[0-9]{1,20}|s-[0-9a-f]{24}").fullmatch


@dataclass(frozen=True, slots=True)
class Acked:
    """A device acknowledged a notification."""

    device: str
    time: datetime | None
    """None where it is not known any more."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A notification that a mailbox keeps."""

    id: str
    """``<milliseconds>-<sequence>``, growing within the mailbox."""
    time: datetime
    """When it was published, in UTC."""
    expires: datetime
    data: Any
    """What was published: any JSON value, or bytes."""
    event: str | None
    acked: tuple[Acked, ...]
    """The devices that acknowledged it."""
    raw: Json = field(repr=False, compare=False)
    """As it was sent: its fields are those of PROTOCOL.md."""
    device: str | None = None
    """The one device that it is for, None where it is for all."""
    read: bool = False
    """Whether the user has seen it, on whatever device."""
    archived: bool = False
    inbox: bool = True
    """False where it was published so: it is neither read nor unread."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some of what a mailbox keeps, newest first."""

    notifications: tuple[Kept, ...]
    next: str | None
    """The ``before`` of the next page; None where this is the last one."""
    unread: int | None = None
    """How many notifications of the user are unread, listed here or not; None where a node of a
    version before that answered."""


@dataclass(frozen=True, slots=True)
class Only:
    """Which notifications of a mailbox are listed."""

    unread: bool = False
    event: str | None = None
    archived: bool | Literal["any"] = False
    """Those that are archived, those that are not, or both."""
    inbox: bool = False
    """Without those that were published with ``inbox=False``."""

    def query(self) -> dict[str, str]:
        """As it is asked for: what is not asked for is left out, as nodes of before know none."""
        query = {} if self.event is None else {"event": self.event}
        if self.archived:
            query["archived"] = "any" if self.archived == "any" else "true"
        flags = {"unread": self.unread, "inbox": self.inbox}
        return query | {name: "true" for name, asked in flags.items() if asked}


ALL: Final = Only()
"""All that are not archived."""


@dataclass(frozen=True, slots=True)
class Recalled:
    """A notification was taken back."""

    id: str
    acked: tuple[str, ...]
    """The devices that had acknowledged it by then."""
    cancelled: bool = False
    """It was scheduled, and never goes out."""
    notification: str | None = None
    """The id of the notification that something scheduled had become."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device that is connected."""

    name: str
    connections: int
    since: datetime


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a notification that was published with ``receipt=True``, for one user."""

    id: str
    """Of the receipt."""
    time: datetime
    notification: str
    """The id of the notification."""
    user: str
    status: str
    """``acked``, ``expired``, ``trimmed``, ``replaced`` or ``recalled``; besides that ``pushed``
    and ``push_failed`` for each device that was to get its push, and ``read``."""
    device: str | None
    """Which one acknowledged it first, or was to get the push."""
    at: datetime


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Some receipts, oldest first."""

    receipts: tuple[Outcome, ...]
    next: str
    """The ``after`` of the next call: yours to keep."""
    gap: str | None
    """``trimmed`` where some after ``after`` are not kept any more."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """Tokens that are refused from now on."""

    user: str | None
    jti: str | None
    issued_before: datetime | None
    """Tokens issued up to then, of the user, or of everyone."""
    expires_at: datetime
    """Afterwards the tokens are good again, where they live so long."""


@dataclass(frozen=True, slots=True)
class Erased:
    """A user was erased."""

    user: str
    keys: int
    """How many keys Redis had of the user; 0 where there was nothing."""
    left: bool
    """Whether names stay, until they expire, that the nodes' Redis user may not look for."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """Stands for a token, once, in ``?ticket=`` of a socket, a stream or a poll."""

    ticket: str = field(repr=False)
    expires_in: float
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """A request, and what its answer means."""

    request: Request
    read: Callable[[Json], T]
    """Raises one of ``MALFORMED`` where the answer is not as documented."""
    otherwise: Callable[[Refused], T] | None = None
    """What a refusal means, where that is an answer too; raises it where it is none."""


def _get(path: str, **query: Any) -> Request:
    given = {name: value for name, value in query.items() if value is not None}
    return Request(f"{path}?{urlencode(given, quote_via=quote)}", method="GET", status=200)


def _post(path: str, value: Json | None, **query: str) -> Request:
    body = None if value is None else json.dumps(value, allow_nan=False).encode()
    return Request(path + (f"?{urlencode(query, quote_via=quote)}" if query else ""), body, 201)


def page(
    user: str, before: str | None = None, limit: int = LARGEST_PAGE, only: Only = ALL
) -> Question[Page]:
    """Some of what a user's mailbox keeps."""
    asked = only.query()
    request = _get("/v1/user/notifications", user=user, before=before, limit=limit, **asked)
    return Question(
        request,
        lambda told: Page(
            tuple(map(_kept, told["notifications"])), told["next"], told.get("unread")
        ),
    )


def _kept(told: Json) -> Kept:
    data = told["data"]
    return Kept(
        id=told["id"],
        time=datetime.fromisoformat(told["time"]),
        expires=datetime.fromisoformat(told["expires"]),
        data=b64decode(data) if told.get("encoding") == "base64" else data,
        event=told.get("event"),
        acked=tuple(
            Acked(each["device"], each["time"] and datetime.fromisoformat(each["time"]))
            for each in told["acked"]
        ),
        raw=told,
        device=told.get("device"),
        read=bool(told.get("read")),
        archived=bool(told.get("archived")),
        inbox=told.get("inbox") is not False,
    )


def recall(
    notification: str, user: str | None, topic: str | None, *, broadcast: bool
) -> Question[Recalled | None]:
    """Take a notification back.

    Raises:
        ValueError: it is no id, or it is not said where it is, or twice.
    """
    if [user is not None, topic is not None, broadcast].count(True) != 1:
        raise ValueError("name exactly one of user, topic and broadcast=True")
    given = _checked(notification)
    if user is not None:
        return _taken_back(f"/v1/user/notifications/{given}", user=user)
    if topic is not None:
        return _taken_back(f"/v1/topic/notifications/{given}", topic=topic)
    return _taken_back(f"/v1/broadcast/notifications/{given}")


def _checked(given: str) -> str:
    if not _id(given):
        raise ValueError(f"{given!r} is no id: it is the one of the publish's receipt")
    return given


def _taken_back(path: str, **whose: str) -> Question[Recalled | None]:
    asked = f"?{urlencode(whose, quote_via=quote)}" if whose else ""
    return Question(
        Request(path + asked, method="DELETE", status=200),
        lambda told: Recalled(
            told["id"],
            tuple(told["acked"]),
            told.get("cancelled", False),
            told.get("notification"),
        ),
        _none_kept,
    )


def _none_kept(refused: Refused) -> None:
    """Nothing, where a refusal says so."""
    if refused.status != 404 or not refused.detail.startswith(NOT_KEPT):
        raise refused


def mark(user: str, kind: MarkKind, ids: str | Iterable[str], until: str | None) -> Question[int]:
    """Change what a user has read or archived; how many are unread then.

    Without any id, nothing changes.

    Raises:
        ValueError: it names both ids and until, or too many, or an id is none.
    """
    parts = Mark.of(kind, ids, until) or [Mark(kind)]
    if len(parts) > 1:
        raise ValueError(f"more than {len(parts[0].ids)} ids: mark them in parts")
    request = replace(_post(f"/v1/user/{kind}", parts[0].which(), user=user), status=200)
    return Question(request, lambda told: int(told["unread"]))


def devices(user: str) -> Question[list[Device]]:
    """The devices of a user that are connected."""
    return Question(
        _get("/v1/user/presence", user=user),
        lambda told: [
            Device(each["device"], each["connections"], datetime.fromisoformat(each["since"]))
            for each in told["devices"]
        ],
    )


def presence(topic: str) -> Question[Present]:
    """Who listens to a topic."""
    return Question(
        _get("/v1/topic/presence", topic=topic),
        lambda told: Present(
            tuple(told["users"]), int(told["count"]), sample=bool(told.get("sample"))
        ),
    )


def receipts(after: str | None, limit: int, wait: int) -> Question[Outcomes]:
    """What became of notifications."""
    request = _get("/v1/receipts", after=after, limit=limit, wait=wait or None)
    return Question(
        replace(request, wait=wait),
        lambda told: Outcomes(
            tuple(map(_outcome, told["receipts"])), told["next"], told.get("gap")
        ),
    )


def _outcome(told: Json) -> Outcome:
    return Outcome(
        id=told["id"],
        time=datetime.fromisoformat(told["time"]),
        notification=told["notification"],
        user=told["user"],
        status=told["status"],
        device=told.get("device"),
        at=datetime.fromisoformat(told["at"]),
    )


def disconnect(user: str, ttl: float | None) -> Question[Revocation]:
    """Close a user's connections, and refuse the tokens that it has."""
    value = None if ttl is None else {"ttl": ttl}
    return Question(_post("/v1/user/disconnect", value, user=user), _revocation)


def erase(user: str) -> Question[Erased]:
    """Erase all that is kept of a user."""
    request = Request(
        f"/v1/user?{urlencode({'user': user}, quote_via=quote)}", method="DELETE", status=200
    )
    return Question(request, lambda told: Erased(told["user"], told["erased"], told["left"]))


def export(user: str, place: str | None) -> Question[Json]:
    """A part of what is kept of a user."""
    return Question(_get("/v1/user/export", user=user, next=place), _part)


def _part(told: Json) -> Json:
    return {**told, "next": told["next"], "notifications": told["notifications"]}


def revoke(
    user: str | None,
    jti: str | None,
    issued_before: datetime | float | None,
    ttl: float | None,
    *,
    everyone: bool,
) -> Question[Revocation]:
    """Refuse tokens from now on.

    Raises:
        ValueError: it does not say whose tokens, or twice.
    """
    if [user is not None, jti is not None, everyone].count(True) != 1:
        raise ValueError("name exactly one of user, jti and everyone=True")
    if everyone and issued_before is None:
        raise ValueError("everyone=True needs issued_before, such as time.time()")
    if jti is not None and issued_before is not None:
        raise ValueError("a jti is of one token: leave issued_before out")
    if isinstance(issued_before, datetime):
        issued_before = issued_before.timestamp()
    value = {
        "user": user,
        "jti": jti,
        "issued_before": None if issued_before is None else int(issued_before),
        "ttl": ttl,
    }
    given = {name: each for name, each in value.items() if each is not None}
    return Question(_post("/v1/revocations", given), _revocation)


def revocations() -> Question[list[Revocation]]:
    """What is revoked."""
    request = Request("/v1/revocations", method="GET", status=200)
    return Question(request, lambda told: [_revocation(each) for each in told["revocations"]])


def _revocation(told: Json) -> Revocation:
    before = told.get("issued_before")
    return Revocation(
        user=told.get("user"),
        jti=told.get("jti"),
        issued_before=None if before is None else datetime.fromtimestamp(before, UTC),
        expires_at=datetime.fromtimestamp(told["expires_at"], UTC),
    )


def ticket(token: str | None) -> Question[Ticket]:
    """A ticket for a token; None for the publisher's own."""
    return Question(
        replace(_post("/v1/tickets", None), bearer=token),
        lambda told: Ticket(told["ticket"], float(told["expires_in"])),
    )
