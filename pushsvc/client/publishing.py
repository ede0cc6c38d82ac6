"""What a publisher sends and what it is answered: notifications to requests, answers to receipts.

Pure: no socket, no clock. What sends the requests is ``core``.
"""

import json
import re
import uuid
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, Required, TypedDict

from pushsvc.client.calls import HELD_UP, Request
from pushsvc.client.errors import OutcomeUnknown, PushError, Refused, Unavailable

ONE: Final = "/v1/notifications"
MANY: Final = "/v1/notifications/batch"
MOST: Final = 1000
"""Notifications of one request, each user counted."""
MAX_BODY: Final = 2**20
"""Bytes of a request that every node takes, as it is set by default."""

_OPENING, _CLOSING = b'{"notifications":[', b"]}"
_key = re.compile(r"[ -~]{1,255}").fullmatch


class Push(TypedDict, total=False):
    """A push of a notification to devices that are away."""

    after: float
    """Seconds that a device has to acknowledge the notification; by default the service's."""
    title: str
    body: str
    url: str
    """What opens: ``https://…``, or a path of the app."""
    icon: str
    badge: int | Literal["unread"]
    """The number at the app's icon: that, or how many are unread then."""
    urgency: Literal["very-low", "low", "normal", "high"]


class Content(TypedDict, total=False):
    """What a notification says."""

    data: Required[Any]
    """Any JSON value, or bytes."""
    event: str | None
    """What kind of notification it is, such as ``order.shipped``."""
    ttl: float | None
    """Seconds that it is worth delivering; 0 is live only; by default the service's retention."""
    collapse_key: str | None
    """It takes the place of an older one with the same key."""
    ephemeral: bool
    """Worthless a moment later: it has no id and is never stored."""
    deliver: Literal["all", "any-device"]
    """To all devices of the user, or until one has acknowledged it. Users only."""
    receipt: bool
    """Whether the service is to tell what became of it. Users only."""
    inbox: bool
    """False for a signal, which is delivered like all others and is in no inbox: it is neither
    counted as unread nor listed there. Users only."""
    at: datetime | str | None
    """When it is to be published, if not now: a time with its zone."""
    push: Push | None
    """What devices are shown that are away and have not acknowledged it in time. Users only."""


class Note(Content, total=False):
    """A notification, and who gets it: exactly one of ``user``, ``topic`` and ``broadcast``."""

    user: str
    device: str | None
    """This one of the user's devices, and no other."""
    topic: str
    broadcast: bool


@dataclass(frozen=True, slots=True)
class Receipt:
    """A notification was accepted."""

    id: str | None
    """``<milliseconds>-<sequence>``; None for what is ephemeral; of what is scheduled its name
    until it is out, which takes it back."""
    durability: str
    """How safe it was at that moment: ``none``, ``memory``, ``replica`` or ``fsync``."""
    connections: int
    """Live connections that it was routed to."""
    at: datetime | None = None
    """When it goes out, of what is scheduled; None for what is out."""


Result = Receipt | PushError
"""What became of one notification of several."""


def key_of(given: str | None) -> str:
    """The caller's idempotency key, or one of our own.

    Raises:
        ValueError: it has characters, or a length, that keys may not have.
    """
    if given is None:
        return uuid.uuid4().hex
    if not _key(given):
        raise ValueError("an idempotency key is 1 to 255 printable ASCII characters")
    return given


def encode(note: Mapping[str, Any]) -> bytes:
    """One notification as JSON.

    Raises:
        TypeError: ``data`` is no JSON value.
        ValueError: it does not name exactly one of ``user``, ``topic`` and ``broadcast``, or a
            device of none, or its time has no zone.
    """
    fields = {name: value for name, value in note.items() if value is not None}
    to = {name: fields.pop(name) for name in ("user", "topic", "broadcast") if fields.get(name)}
    fields.pop("broadcast", None)
    if len(to) != 1:
        raise ValueError("name exactly one of user, topic and broadcast=True")
    if "device" in fields:
        if "user" not in to:
            raise ValueError("a device is one of a user: name both")
        to["device"] = fields.pop("device")
    return _json({"to": to, **_content(note, fields)})


def encode_for(users: Sequence[str], content: Mapping[str, Any]) -> bytes:
    """One notification for several users as JSON. Errors are those of ``encode``."""
    fields = {name: value for name, value in content.items() if value is not None}
    return _json({"to": {"users": list(users)}, **_content(content, fields)})


def _content(note: Mapping[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    data, at = note["data"], fields.get("at")
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise ValueError("at needs a time zone, such as datetime.now(UTC)")
        fields = fields | {"at": at.isoformat()}
    if isinstance(data, bytes | bytearray | memoryview):
        return fields | {"data": b64encode(data).decode(), "encoding": "base64"}
    return fields | {"data": data}  # None is a value too


def _json(value: Any) -> bytes:
    # NaN is no JSON: refused here, where the caller sees which one it was.
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()


def split(notes: Iterable[bytes], max_body: int) -> list[list[bytes]]:
    """Encoded notifications in parts that each fit into a request, in order.

    Args:
        notes: any number.
        max_body: bytes of a request. A notification that is larger has a part of its own, and
            the service says what is wrong with it.
    """
    parts: list[list[bytes]] = []
    room = 0
    for note in notes:
        size = len(note) + 1
        if not parts or len(parts[-1]) == MOST or size > room:
            parts.append([])
            room = max_body - len(_OPENING) - len(_CLOSING)
        parts[-1].append(note)
        room -= size
    return parts


def batch(notes: Sequence[bytes], key: str, repeat: str | None) -> Request:
    """A request that publishes all of them."""
    body = _OPENING + b",".join(notes) + _CLOSING
    return Request(MANY, body, key=key, repeat=repeat, count=len(notes))


def one(note: bytes, given: str | None) -> Request:
    """The request that publishes one, with the caller's idempotency key or one made here."""
    key = key_of(given)
    return Request(ONE, note, key=key, repeat=key)


def requests_for(notes: Iterable[bytes], given: str | None, max_body: int) -> list[Request]:
    """The requests that publish these, in order.

    Args:
        notes: encoded.
        given: the caller's idempotency key. Where there are several requests each has its own,
            made of it: the same notifications with the same key make the same requests again.
        max_body: bytes of a request.
    """
    parts = split(notes, max_body)
    key = key_of(given)
    keys = _keys(key, len(parts))
    return [batch(part, own, key) for part, own in zip(parts, keys, strict=True)]


def requests_to(users: Sequence[str], content: Content, given: str | None) -> list[Request]:
    """The requests that publish one notification to many users. See ``requests_for``."""
    parts = [users[first : first + MOST] for first in range(0, len(users), MOST)]
    key = key_of(given)
    keys = _keys(key, len(parts))
    return [
        Request(ONE, encode_for(part, content), key=own, repeat=key, count=len(part))
        for part, own in zip(parts, keys, strict=True)
    ]


def _keys(key: str, parts: int) -> list[str]:
    return [key] if parts == 1 else [key_of(f"{key}/{number}") for number in range(parts)]


def receipt(told: Mapping[str, Any]) -> Receipt:
    """The receipt of a request for one notification.

    Raises:
        OutcomeUnknown: the answer is no receipt.
    """
    try:
        at = told.get("at")
        return Receipt(
            told.get("id"),
            told["durability"],
            told["connections"],
            None if at is None else datetime.fromisoformat(at),
        )
    except (LookupError, TypeError, ValueError):
        raise OutcomeUnknown(f"the answer is no receipt: {told!s:.200}") from None


def results(told: Mapping[str, Any], request: Request) -> list[Result]:
    """The receipts and problems of a request for several.

    Raises:
        OutcomeUnknown: they are not as many as there were notifications.
    """
    found = told.get("results")
    if not isinstance(found, list) or len(found) != request.count:
        raise OutcomeUnknown(
            f"the answer has not one result for each of {request.count} notifications:"
            f" {told!s:.200}"
        )
    return [_result(each, request.repeat) for each in found]


def _result(told: Any, key: str | None) -> Result:
    if isinstance(told, dict) and "durability" in told:
        try:
            return receipt(told)
        except OutcomeUnknown as error:
            return error
    refused = Refused.of(told, None)
    if refused.status in HELD_UP:
        return Unavailable(f"not done in time; last: {refused}", key=key)
    return refused
