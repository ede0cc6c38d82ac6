"""The shapes on the wire: what clients and publishers send, and what they are sent.

Everything is JSON that any client can read (I-JSON, RFC 7493): duplicate names, lone surrogates and
numbers beyond a double are refused at the edge, so what is stored can be forwarded as it is.
"""

import functools
import json
import re
from datetime import UTC, datetime
from typing import Any, Final, Never, TypeVar

import msgspec

from pushsvc.errors import InvalidJSON, InvalidRequest, PayloadTooLarge, PushError
from pushsvc.protocol import ids
from pushsvc.protocol.names import require_name

SUBPROTOCOL: Final = "pushsvc.v1.json"
MAX_USERS: Final = 1000
"""Most users that one notification may name."""
MAX_DEPTH: Final = 64
"""Most arrays and objects within one another."""
MAX_TTL: Final = 10 * 365 * 86400

_encode = msgspec.json.Encoder().encode
Shape = TypeVar("Shape")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise InvalidJSON("an object has the same name twice: send each name once")
    return fields


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise InvalidJSON("a number is larger than a double can hold: send it as a string")
    return number


def _constant(name: str) -> Never:
    raise InvalidJSON(f"{name} is not JSON: send a number, a string or null")


def _integer(text: str) -> int:
    _finite(text)
    return int(text)


_decoder = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_constant=_constant
)
# Looks at each integer, which only those need that have as many digits as the largest double.
_careful_decoder = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_float=_finite,
    parse_int=_integer,
    parse_constant=_constant,
)
_has_long_number = re.compile(rb"\d{309}").search


def decode(data: bytes) -> Any:
    """Parse JSON strictly.

    Raises:
        InvalidJSON: the bytes are not UTF-8, not JSON, too deep, or not I-JSON.
    """
    value = _decode(data)
    if b"\\u" in data:
        encode(value)  # only an escape can be half of a surrogate pair: what cannot be sent back
    return value


def _decode(data: bytes) -> Any:
    try:
        decoder = _careful_decoder if _has_long_number(data) else _decoder
        return decoder.decode(data.decode())
    except UnicodeDecodeError:
        raise InvalidJSON("the text is not UTF-8: encode JSON as UTF-8") from None
    except RecursionError:
        raise InvalidJSON(f"nested deeper than {MAX_DEPTH} levels: flatten the data") from None
    except ValueError as error:
        raise InvalidJSON(f"not JSON: {str(error)[:200]}") from None


def encode(value: Any) -> bytes:
    """Write compact JSON.

    Raises:
        InvalidJSON: a string holds a lone surrogate, or the value is nested too deep.
    """
    try:
        return _encode(value)
    except UnicodeEncodeError:
        raise InvalidJSON(
            "a string holds half of a surrogate pair: send whole characters"
        ) from None
    except RecursionError:
        raise InvalidJSON(f"nested deeper than {MAX_DEPTH} levels: flatten the data") from None


def shape(value: Any, kind: type[Shape]) -> Shape:
    """Check a parsed value against a documented shape.

    Raises:
        InvalidRequest: a field is missing, unknown or of another type; the detail says which.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest(_plain(str(error))) from None


def _plain(text: str) -> str:
    """An error of msgspec in the words of the wire: ``$.to.user`` is ``to.user``."""
    return (text[0].lower() + text[1:]).replace("`$.", "`").replace(" - at `$`", "")[:300]


def _depth_within(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        return levels > 0 and all(_depth_within(item, levels - 1) for item in value.values())
    if isinstance(value, list):
        return levels > 0 and all(_depth_within(item, levels - 1) for item in value)
    return True


# --- what a client sends on its socket ---------------------------------------------------------

Ref = int | str | None


class Ack(msgspec.Struct, tag="ack", forbid_unknown_fields=True):
    """Everything up to this notification is done, for this device."""

    id: str
    ref: Ref = None


class Refresh(msgspec.Struct, tag="refresh", forbid_unknown_fields=True):
    """A new token for the live socket."""

    token: str
    ref: Ref = None


class Ping(msgspec.Struct, tag="ping", forbid_unknown_fields=True):
    """A sign of life that wants an answer."""

    ref: Ref = None


ClientMessage = Ack | Refresh | Ping


# Half of all that clients send, as encoders write it. Parsing it would cost more than the rest of
# what is done for it, and have the same outcome.
_usual_ack = re.compile(rb'\{"type": ?"ack", ?"id": ?"([0-9-]{1,40})"\}').fullmatch


def client_message(payload: bytes) -> ClientMessage:
    """Read one message of a client.

    Raises:
        InvalidRequest: it is not JSON, of no known type, or not of that type's shape.
    """
    ack = _usual_ack(payload)
    if ack is not None:
        return Ack(ack[1].decode())
    value = decode(payload)
    if not isinstance(value, dict):
        raise InvalidRequest('a message is a JSON object with a "type"')
    return shape(value, ClientMessage)  # type: ignore[arg-type]  # a union is no `type`


def ref_of(payload: bytes) -> Ref:
    """The ``ref`` of a message that could not be used, so that its error can carry it."""
    try:
        value = decode(payload)
    except InvalidJSON:
        return None
    ref = value.get("ref") if isinstance(value, dict) else None
    return ref if isinstance(ref, int | str) and not isinstance(ref, bool) else None


# --- what a client is sent ---------------------------------------------------------------------


def welcome(
    *, connection: str, user: str, device: str, heartbeat: float, window: int, expires_at: int
) -> bytes:
    """The first message of a connection; times are in seconds."""
    return _encode(
        {
            "type": "welcome",
            "connection": connection,
            "user": user,
            "device": device,
            "heartbeat": heartbeat,
            "window": window,
            "expires_at": expires_at,
        }
    )


@functools.lru_cache(maxsize=64)
def _second(since_epoch: int) -> str:
    """A time without its fraction (RFC 3339), which most notifications of a moment share."""
    return datetime.fromtimestamp(since_epoch, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def notification(entry_id: int, body: bytes, attempt: int) -> bytes:
    """One notification; ``body`` is what ``notification_body`` made of it when it was published."""
    published = ids.milliseconds(entry_id)
    stamp = _second(published // 1000)
    again = f'"attempt":{attempt},' if attempt > 1 else ""
    return (
        f'{{"type":"notification","id":"{ids.render(entry_id)}",'
        f'"time":"{stamp}.{published % 1000:03d}Z",{again}'
    ).encode() + body


ENVELOPE: Final = 160
"""Most bytes that ``notification`` adds to a body."""


def gap(after: int, reason: str) -> bytes:
    """Entries after ``after`` are gone before they were acknowledged."""
    return _encode({"type": "gap", "after": ids.render(after), "reason": reason})


def reply(ref: Ref, **fields: Any) -> bytes:
    """The answer to a client message that carried a ``ref``."""
    return encode({"type": "reply", "ref": ref, **fields})


def error(problem: PushError, ref: Ref = None) -> bytes:
    """What was wrong with a client message."""
    fields: dict[str, Any] = {"type": "error"}
    if ref is not None:
        fields["ref"] = ref
    fields["code"] = problem.code
    fields["detail"] = problem.detail
    if problem.retry_after is not None:
        fields["retry_after"] = round(problem.retry_after, 3)
    fields["temporary"] = problem.temporary
    return encode(fields)


def reconnect(retry_after: float) -> bytes:
    """The node drains: come back after ``retry_after`` seconds."""
    return _encode({"type": "reconnect", "retry_after": round(retry_after, 3)})


def pong(ref: Ref) -> bytes:
    """The answer to a client's ``ping``."""
    return encode({"type": "pong"} if ref is None else {"type": "pong", "ref": ref})


# --- what a publisher sends --------------------------------------------------------------------


class To(msgspec.Struct, forbid_unknown_fields=True):
    """Whom a notification is for: exactly one of the fields."""

    user: str | None = None
    users: list[str] | None = None


class Notification(msgspec.Struct, forbid_unknown_fields=True):
    """A notification as a publisher writes it; ``ttl`` is in seconds, 0 is live only."""

    to: To
    data: Any
    event: str | None = None
    ttl: int | float | None = None

    def users(self) -> list[str]:
        """The users it is for.

        Raises:
            InvalidRequest: there is no target, or more than one kind of target.
            InvalidName: a user id is not one.
        """
        if (self.to.user is None) == (self.to.users is None):
            raise InvalidRequest('"to" needs exactly one of "user" and "users"')
        users = [self.to.user] if self.to.users is None else self.to.users
        if not 1 <= len(users) <= MAX_USERS:
            raise InvalidRequest(f'"users" needs 1 to {MAX_USERS} user ids: split the list')
        if len(set(users)) < len(users):
            raise InvalidRequest('"users" names a user twice: name each once')
        return [require_name(user, "user id") for user in users]


def notification_from(value: Any, max_message: int) -> tuple[Notification, bytes]:
    """Check a parsed notification and encode what of it is stored.

    Args:
        value: the parsed JSON.
        max_message: most bytes of the message that clients will be sent.

    Returns:
        The notification and its body, the end of the JSON object that clients are sent.

    Raises:
        InvalidRequest: it has not the documented shape.
        PayloadTooLarge: the message for the clients would be over the limit.
    """
    note = shape(value, Notification)
    if note.event is not None:
        require_name(note.event, "event")
    if note.ttl is not None and not 0 <= note.ttl <= MAX_TTL:
        raise InvalidRequest(f'"ttl" is a number of seconds from 0 to {MAX_TTL}')
    if not _depth_within(note.data, MAX_DEPTH):
        raise InvalidJSON(f"nested deeper than {MAX_DEPTH} levels: flatten the data")
    fields = {"data": note.data} if note.event is None else {"event": note.event, "data": note.data}
    body = encode(fields)[1:]
    if len(body) + ENVELOPE > max_message:
        raise PayloadTooLarge(
            f"the notification takes {len(body) + ENVELOPE} bytes, at most {max_message} are "
            "delivered: send less data, or a link to it"
        )
    return note, body
