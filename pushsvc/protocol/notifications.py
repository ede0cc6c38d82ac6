"""What is published: the shapes that publishers send, and what of them is stored."""

import base64
from typing import Any, Final, Literal

import msgspec

from pushsvc.errors import InvalidRequest, PayloadTooLarge
from pushsvc.protocol.encoding import check_depth, encode, shape
from pushsvc.protocol.messages import Publish
from pushsvc.protocol.names import require_name

MAX_USERS: Final = 1000
"""Most users that one notification may name."""
MAX_TTL: Final = 10 * 365 * 86400
"""Seconds."""
ENVELOPE: Final = 160
"""Most bytes that the head of a message adds to a body."""


class To(msgspec.Struct, forbid_unknown_fields=True):
    """Whom a notification is for: exactly one of the fields."""

    user: str | None = None
    users: list[str] | None = None
    topic: str | None = None
    broadcast: Literal[True] | None = None


class Notification(msgspec.Struct, forbid_unknown_fields=True):
    """A notification as a publisher writes it; ``ttl`` is in seconds, 0 is live only."""

    to: To
    data: Any
    event: str | None = None
    ttl: int | float | None = None
    collapse_key: str | None = None
    ephemeral: bool = False
    deliver: Literal["all", "any-device"] = "all"
    receipt: bool = False
    encoding: Literal["base64"] | None = None

    def users(self) -> list[str]:
        """The users it is for; none where it is for a topic or for everyone.

        Raises:
            InvalidRequest: there is no target, or more than one kind of target.
            InvalidName: a user id is not one.
        """
        to = self.to
        if [to.user, to.users, to.topic, to.broadcast].count(None) != 3:
            raise InvalidRequest(
                '"to" needs exactly one of "user", "users", "topic" and "broadcast"'
            )
        if to.topic is not None or to.broadcast:
            return []
        users = [to.user] if to.users is None else to.users
        if not 1 <= len(users) <= MAX_USERS:
            raise InvalidRequest(f'"users" needs 1 to {MAX_USERS} user ids: split the list')
        if len(set(users)) < len(users):
            raise InvalidRequest('"users" names a user twice: name each once')
        return [require_name(user, "user id") for user in users]


def notification_from(
    value: Any, max_message: int, sender: str = "", traceparent: str = ""
) -> tuple[Notification, bytes]:
    """Check a parsed notification and encode what of it is stored.

    Args:
        value: the parsed JSON.
        max_message: most bytes of the message that clients will be sent.
        sender: the user that sends it, empty for a backend.
        traceparent: the trace context that it carries on, empty without one.

    Returns:
        The notification and its body, the end of the JSON object that clients are sent.

    Raises:
        InvalidRequest: it has not the documented shape.
        PayloadTooLarge: the message for the clients would be over the limit.
    """
    note = shape(value, Notification)
    users = note.users()
    _check_options(note)
    if not users and (note.deliver != "all" or note.receipt):
        raise InvalidRequest('"deliver" and "receipt" are for "user" and "users" only')
    if (note.ephemeral or note.ttl == 0) and (note.deliver != "all" or note.receipt):
        raise InvalidRequest('what is not stored can have neither "deliver" nor "receipt"')
    if note.to.topic is not None:
        require_name(note.to.topic, "topic")
    return note, body_of(
        note,
        max_message,
        topic=note.to.topic,
        sender=sender,
        broadcast=bool(note.to.broadcast),
        traceparent=traceparent,
    )


def _check_options(note: Notification | Publish) -> None:
    """Check what all messages can say.

    Raises:
        InvalidRequest: a value is out of its range, or two exclude each other.
        InvalidName: the event or the collapse key is no name.
    """
    if note.event is not None:
        require_name(note.event, "event")
    if note.collapse_key is not None:
        require_name(note.collapse_key, "collapse_key")
    if note.ttl is not None and not 0 <= note.ttl <= MAX_TTL:
        raise InvalidRequest(f'"ttl" is a number of seconds from 0 to {MAX_TTL}')
    if note.ephemeral and not (note.ttl is None and note.collapse_key is None):
        raise InvalidRequest('"ephemeral" is never stored: leave "ttl" and "collapse_key" out')
    if note.collapse_key is not None and note.ttl == 0:
        raise InvalidRequest('a live-only message replaces nothing: leave "collapse_key" out')
    if note.encoding is not None:
        try:
            base64.b64decode(note.data, validate=True)
        except (ValueError, TypeError):
            raise InvalidRequest('with "encoding" the data is a base64 string') from None
    check_depth(note.data)


def publish_from(message: Publish, max_message: int, sender: str) -> bytes:
    """Check what a client publishes and encode what of it is stored.

    Raises:
        InvalidRequest: it has not the documented shape.
        PayloadTooLarge: the message for the clients would be over the limit.
    """
    require_name(message.topic, "topic")
    _check_options(message)
    return body_of(message, max_message, topic=message.topic, sender=sender)


def body_of(
    note: Notification | Publish,
    max_message: int,
    *,
    topic: str | None,
    sender: str = "",
    broadcast: bool = False,
    traceparent: str = "",
) -> bytes:
    """What of a notification is stored: the end of the JSON object that clients are sent.

    Raises:
        PayloadTooLarge: the message for the clients would be over the limit.
    """
    fields: dict[str, Any] = {}
    if traceparent:
        fields["traceparent"] = traceparent  # the first, where nodes look for it
    if topic is not None:
        fields["topic"] = topic
    if broadcast:
        fields["broadcast"] = True
    if note.event is not None:
        fields["event"] = note.event
    if sender:
        fields["from"] = sender
    if note.encoding is not None:
        fields["encoding"] = note.encoding
    fields["data"] = note.data
    body = encode(fields)[1:]
    if len(body) + ENVELOPE > max_message:
        raise PayloadTooLarge(
            f"the notification takes {len(body) + ENVELOPE} bytes, at most {max_message} are "
            "delivered: send less data, or a link to it"
        )
    return body
