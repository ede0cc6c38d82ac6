"""What is published: the shape that publishers send, and the appends that it asks for."""

import base64
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

import msgspec

from pushsvc.errors import Forbidden, InvalidRequest, PayloadTooLarge
from pushsvc.protocol import feeds
from pushsvc.protocol.encoding import MAX_DEPTH, check_depth, encode, shape
from pushsvc.protocol.messages import Publish
from pushsvc.protocol.names import require_label, require_name, require_topic
from pushsvc.protocol.push_asking import PushAsked, asked
from pushsvc.protocol.timestamps import from_rfc3339

MAX_BATCH: Final = 1000
"""Most notifications in one batch, each user of a list counted."""
MAX_USERS: Final = 1000
"""Most users that one notification may name."""
MAX_TTL: Final = 10 * 365 * 86400
"""Seconds."""
ENVELOPE: Final = 160
"""Most bytes that the head of a message adds to a body."""


class To(msgspec.Struct, forbid_unknown_fields=True):
    """Whom a notification is for: exactly one of the fields, and of one user maybe one device."""

    user: str | None = None
    device: str | None = None
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
    at: str | None = None
    inbox: bool = True
    push: PushAsked | None = None


class Append(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One message for one feed.

    Args:
        feed: where it is appended.
        body: the end of the JSON object that clients are sent.
        ttl: seconds that it is worth delivering; None for the feed's retention, 0 for live only.
        once: the digest of an idempotency key: a second append with the same one is answered with
            the first one's id.
        collapse_key: it takes the place of an older message with the same key.
        any_device: it is settled for all devices of the user once one has acknowledged it.
        receipt: the publisher that is told what became of it, as its feed of receipts is called
            after ``r:``; empty for none.
        ephemeral: it is no entry of the feed, and reaches only who is connected and keeps up.
        client: a client publishes it, which may not store without bound.
        at: when it is to be published, in milliseconds since the epoch by Redis time; 0 for now.
        scheduled: the id under which it waited until now; empty for what did not.
        by: who had that published.
        device: the one device of the user that it is for; empty for all.
        signal: it has no read state: it is for the program, and not for the person.
        push: what devices that are away are shown (``PushText`` as JSON); empty for no push.
        push_after: seconds after which a device that has not acknowledged it gets the push.
        push_event: the event that it belongs to there; empty for none.
    """

    feed: str
    body: bytes
    ttl: float | None = None
    once: str | None = None
    collapse_key: str = ""
    any_device: bool = False
    receipt: str = ""
    ephemeral: bool = False
    client: bool = False
    at: int = 0
    scheduled: str = ""
    by: str = ""
    device: str = ""
    signal: bool = False
    push: bytes = b""
    push_after: float = 0.0
    push_event: str = ""


def appends_from(
    value: Any,
    max_message: int,
    *,
    by: str = "",
    namespace: str = "",
    client: bool = False,
    once: str | None = None,
    traceparent: str = "",
    push_after: float | None = None,
) -> list[Append]:
    """Check a parsed notification and make of it what is appended: one message for each feed.

    Args:
        value: the parsed JSON.
        max_message: most bytes of the message that clients will be sent.
        by: who publishes it.
        namespace: where, and to whom.
        client: whether that is a client, which clients are told.
        once: the digest of its idempotency key.
        traceparent: the trace context that it carries on, empty without one.
        push_after: seconds until a push whose publisher does not say; None where each has to.

    Raises:
        InvalidRequest: it has not the documented shape.
        InvalidName: a name in it is none.
        Forbidden: a client schedules it.
        PayloadTooLarge: the message for the clients would be over the limit.
    """
    note = shape(value, Notification)
    targets = _targets(note.to, namespace)
    _check_options(note)
    device = _device(note)
    addressed = note.to.topic is None and not note.to.broadcast
    if not addressed and (note.deliver != "all" or note.receipt):
        raise InvalidRequest('"deliver" and "receipt" are for "user" and "users" only')
    if not addressed and not note.inbox:
        raise InvalidRequest('"inbox" is for "user" and "users" only: nothing else is in an inbox')
    if (note.ephemeral or note.ttl == 0) and (note.deliver != "all" or note.receipt):
        raise InvalidRequest('what is not stored can have neither "deliver" nor "receipt"')
    push, after = b"", 0.0
    if note.push is not None:
        if not addressed:
            raise InvalidRequest('"push" is for "user" and "users" only: name whom it is to reach')
        if note.ephemeral or note.ttl == 0:
            raise InvalidRequest('what is not stored can have no "push": leave it out')
        push, after = asked(note.push, push_after)
    at = 0 if note.at is None else _time_of(note, note.at, client=client)
    body = body_of(
        note,
        max_message,
        topic=note.to.topic,
        sender=by if client else "",
        broadcast=bool(note.to.broadcast),
        traceparent=traceparent,
        inbox=_of_inbox(note) if addressed else {},
    )
    collapse_key, any_device = note.collapse_key or "", note.deliver == "any-device"
    receipt = feeds.receipts(by, namespace).removeprefix(feeds.RECEIPTS) if note.receipt else ""
    return [
        Append(
            feed,
            body,
            note.ttl,
            once,
            collapse_key,
            any_device,
            receipt,
            note.ephemeral,
            client,
            at,
            device=device,
            signal=not note.inbox,
            push=push,
            push_after=after,
            push_event=(note.event or "") if push else "",
        )
        for feed in targets
    ]


def _of_inbox(note: Notification) -> dict[str, Any]:
    """What an inbox has to know of what is for users."""
    fields: dict[str, Any] = {}
    if not note.inbox or note.ttl == 0:  # what is live only is in none either
        fields["inbox"] = False
    if note.ttl:
        fields["ttl"] = note.ttl  # with its time it says when it leaves
    return fields


def _device(note: Notification) -> str:
    """The one device that a notification is for, empty for all.

    Raises:
        InvalidRequest: it is not one of one user, or any other one would do.
        InvalidName: it is not the name of a device.
    """
    if note.to.device is None:
        return ""
    if note.to.user is None:
        raise InvalidRequest('"device" is one of a "user": name both, or leave "device" out')
    if note.deliver != "all":
        raise InvalidRequest('what is for one "device" is not for any: leave "deliver" out')
    return require_name(note.to.device, "device")


def _time_of(note: Notification, at: str, *, client: bool) -> int:
    """When a notification is to be published, in milliseconds since the epoch.

    Raises:
        Forbidden: it is a client's.
        InvalidRequest: it is not a time, or not for what is worthless a moment later.
    """
    if client:
        raise Forbidden('"at" is for backends: it needs a token with the scope push.publish')
    if note.ephemeral:
        raise InvalidRequest('"ephemeral" is never stored, not for later either: leave "at" out')
    try:
        return max(1, from_rfc3339(at))
    except ValueError:
        raise InvalidRequest(
            '"at" is a time with its offset from UTC (RFC 3339), such as "2026-01-31T09:00:00Z" or '
            '"2026-01-31T10:00:00+01:00"'
        ) from None


def _targets(to: To, namespace: str) -> list[str]:
    """The feeds that a notification is for.

    Raises:
        InvalidRequest: there is no target, or more than one kind of target.
        InvalidName: a user id or the topic is not one.
    """
    user, users, topic, broadcast = to.user, to.users, to.topic, to.broadcast
    if user is not None and users is None and topic is None and broadcast is None:
        return [feeds.mailbox(require_name(user, "user id"), namespace)]
    if [user, users, topic, broadcast].count(None) != 3:
        raise InvalidRequest('"to" needs exactly one of "user", "users", "topic" and "broadcast"')
    if topic is not None:
        return [feeds.topic(require_topic(topic), namespace)]
    if users is None:
        return [feeds.broadcast(namespace)]
    if not 1 <= len(users) <= MAX_USERS:
        raise InvalidRequest(f'"users" needs 1 to {MAX_USERS} user ids: split the list')
    if len(set(users)) < len(users):
        raise InvalidRequest('"users" names a user twice: name each once')
    return [feeds.mailbox(require_name(user, "user id"), namespace) for user in users]


def _check_options(note: Notification | Publish) -> None:
    """Check what all messages can say.

    Raises:
        InvalidRequest: a value is out of its range, or two exclude each other.
        InvalidName: the event or the collapse key is no name.
    """
    if note.event is not None:
        require_label(note.event, "event")
    if note.collapse_key is not None:
        require_label(note.collapse_key, "collapse_key")
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


def append_from(message: Publish, max_message: int, sender: str, namespace: str = "") -> Append:
    """Check what a client publishes on its connection and make of it what is appended.

    Args:
        message: of the client.
        max_message: most bytes of the message that clients will be sent.
        sender: its user.
        namespace: the user's.

    Raises:
        InvalidRequest: it has not the documented shape.
        PayloadTooLarge: the message for the clients would be over the limit.
    """
    require_topic(message.topic)
    _check_options(message)
    return Append(
        feeds.topic(message.topic, namespace),
        body_of(message, max_message, topic=message.topic, sender=sender),
        message.ttl,
        collapse_key=message.collapse_key or "",
        ephemeral=message.ephemeral,
        client=True,
    )


def body_of(
    note: Notification | Publish,
    max_message: int,
    *,
    topic: str | None,
    sender: str = "",
    broadcast: bool = False,
    traceparent: str = "",
    inbox: Mapping[str, Any] = MappingProxyType({}),
) -> bytes:
    """What of a notification is stored: the end of the JSON object that clients are sent.

    Raises:
        InvalidJSON: the data is nested too deep.
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
    fields.update(inbox)
    fields["data"] = note.data
    body = encode(fields)[1:]
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH:  # else it cannot be that deep
        check_depth(note.data)
    if len(body) + ENVELOPE > max_message:
        raise PayloadTooLarge(
            f"the notification takes {len(body) + ENVELOPE} bytes, at most {max_message} are "
            "delivered: send less data, or a link to it"
        )
    return body
