"""The messages on a connection: what clients send, and what they are sent."""

import re
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from pushsvc.errors import InvalidRequest, PushError
from pushsvc.protocol import ids
from pushsvc.protocol.encoding import encode, shape
from pushsvc.protocol.names import require_topic
from pushsvc.protocol.read_state import ARCHIVED, READ, Change, Verb, change_from
from pushsvc.protocol.timestamps import rfc3339

SUBPROTOCOL: Final = "pushsvc.v1.json"
MSGPACK_SUBPROTOCOL: Final = "pushsvc.v1.msgpack"
MAX_SUBSCRIPTIONS: Final = 256
"""Most topics that one message may name, and that one connection may listen to."""

# --- what a client sends on its socket ---------------------------------------------------------

Ref = int | str | None


class Ack(msgspec.Struct, tag="ack", forbid_unknown_fields=True):
    """Everything up to this notification is done, for this device."""

    id: str
    broadcast: bool = False
    ref: Ref = None


class Subscribe(msgspec.Struct, tag="subscribe", forbid_unknown_fields=True):
    """Listen to a topic, or to several, each from a position or from now on."""

    topic: str | None = None
    since: str | None = None
    topics: dict[str, str | None] | None = None
    ref: Ref = None

    def positions(self) -> dict[str, int | None]:
        """The topics, each with the position to go on from.

        Raises:
            InvalidRequest: it names both one topic and several, none, or too many.
            InvalidName: a topic is none.
        """
        if (self.topic is None) == (self.topics is None):
            raise InvalidRequest('a subscription needs exactly one of "topic" and "topics"')
        if self.topic is not None:
            topics = {self.topic: self.since}
        else:
            if self.since is not None:
                raise InvalidRequest('with "topics" each position stands beside its topic')
            topics = self.topics or {}
        if not 1 <= len(topics) <= MAX_SUBSCRIPTIONS:
            raise InvalidRequest(f'"topics" needs 1 to {MAX_SUBSCRIPTIONS} topics: split them')
        return {
            require_topic(topic): None if since is None else ids.parse_untrusted(since)
            for topic, since in topics.items()
        }


class Unsubscribe(msgspec.Struct, tag="unsubscribe", forbid_unknown_fields=True):
    """Do not listen to a topic any more."""

    topic: str
    ref: Ref = None


class Publish(msgspec.Struct, tag="publish", forbid_unknown_fields=True):
    """A message to a topic; the fields are those of a notification."""

    topic: str
    data: Any
    event: str | None = None
    ttl: int | float | None = None
    collapse_key: str | None = None
    ephemeral: bool = False
    encoding: Literal["base64"] | None = None
    ref: Ref = None


class Presence(msgspec.Struct, tag="presence", forbid_unknown_fields=True):
    """Asks who listens to a topic, and to be told of changes from then on."""

    topic: str
    ref: Ref = None


class Refresh(msgspec.Struct, tag="refresh", forbid_unknown_fields=True):
    """A new token for the live socket."""

    token: str
    ref: Ref = None


class Ping(msgspec.Struct, tag="ping", forbid_unknown_fields=True):
    """A sign of life that wants an answer."""

    ref: Ref = None


class ReadState(msgspec.Struct, forbid_unknown_fields=True):
    """Base of what changes the read state of notifications in the mailbox."""

    ids: list[str] | None = None
    until: str | None = None
    ref: Ref = None

    def change(self) -> Change:
        """What is asked for.

        Raises:
            InvalidRequest: it names both ids and a last one, none of them, or too many.
        """
        return change_from(Verb(str(self.__struct_config__.tag)), self.ids, self.until)


class Read(ReadState, tag="read"):
    """The user has seen these notifications, or all up to one."""


class Unread(ReadState, tag="unread"):
    """These notifications are to be seen anew."""


class Archive(ReadState, tag="archive"):
    """The user is done with these notifications: they are neither listed nor counted."""


class Unarchive(ReadState, tag="unarchive"):
    """These notifications are listed again, as read."""


ClientMessage = (
    Ack
    | Subscribe
    | Unsubscribe
    | Publish
    | Presence
    | Refresh
    | Ping
    | Read
    | Unread
    | Archive
    | Unarchive
)


# Half of all that clients send, as encoders write it. Parsing it would cost more than the rest of
# what is done for it, and have the same outcome.
_usual_ack = re.compile(
    rb'\{"type": ?"ack", ?"id": ?"((?:0|[1-9]\d{0,14})-(?:0|[1-9]\d{0,18}))"\}'
).fullmatch


def usual_ack(payload: bytes) -> int | None:
    """The id in an ack as encoders write it; None for all else, which must be parsed."""
    ack = _usual_ack(payload)
    return None if ack is None else ids.parse(ack[1])


def client_message(value: Any) -> ClientMessage:
    """One message of a client, of which ``value`` is what was parsed.

    Raises:
        InvalidRequest: it is of no known type, or not of that type's shape.
    """
    if not isinstance(value, dict):
        raise InvalidRequest('a message is a JSON object with a "type"')
    return shape(value, ClientMessage)  # type: ignore[arg-type]  # a union is no `type`


def ref_of(value: Any) -> Ref:
    """The ``ref`` of a message that could not be used, so that its error can carry it."""
    ref = value.get("ref") if isinstance(value, dict) else None
    return ref if isinstance(ref, int | str) and not isinstance(ref, bool) else None


# --- what a client is sent ---------------------------------------------------------------------


def welcome(
    *,
    connection: str,
    user: str,
    device: str,
    heartbeat: float,
    window: int,
    expires_at: int,
    unread: int,
) -> bytes:
    """The first message of a connection; times are in seconds."""
    return encode(
        {
            "type": "welcome",
            "connection": connection,
            "user": user,
            "device": device,
            # Strictly typed clients read a whole number where the documents show one.
            "heartbeat": int(heartbeat) if heartbeat == int(heartbeat) else heartbeat,
            "window": window,
            "expires_at": expires_at,
            "unread": unread,
        }
    )


_STATES: Final = {"": "", READ: '"read":true,', ARCHIVED: '"read":true,"archived":true,'}


def notification(entry_id: int, body: bytes, attempt: int, state: str = "") -> bytes:
    """One notification.

    Args:
        entry_id: its id.
        body: what ``body_of`` made of it when it was published.
        attempt: from 1 on.
        state: its read state, where it may be another than unread.
    """
    published = ids.milliseconds(entry_id)
    again = f'"attempt":{attempt},' if attempt > 1 else ""
    again += _STATES[state]
    return (
        f'{{"type":"notification","id":"{ids.render(entry_id)}",'
        f'"time":"{rfc3339(published)}",{again}'
    ).encode() + body


def ephemeral(now: float, body: bytes) -> bytes:
    """A message that is no entry of a feed, and has no id; ``now`` in seconds since the epoch."""
    stamp = rfc3339(int(now * 1000))
    return f'{{"type":"notification","time":"{stamp}","ephemeral":true,'.encode() + body


def gap(after: int, reason: str, **feed: Any) -> bytes:
    """Entries after ``after`` are gone; ``feed`` says of which feed, if not of the mailbox."""
    return encode({"type": "gap", **feed, "after": ids.render(after), "reason": reason})


def withdrawn(entry_id: int, reason: str) -> bytes:
    """A notification that the device may hold is withdrawn: ``recalled`` or ``acked`` elsewhere."""
    return encode({"type": "withdrawn", "id": ids.render(entry_id), "reason": reason})


def read_state(change: Change, unread: int) -> bytes:
    """The user changed the read state of notifications, elsewhere; how many are unread now."""
    return encode({**change.to_json(), "unread": unread})


def presence(topic: str, joined: Sequence[str], left: Sequence[str]) -> bytes:
    """Who came to a topic and who left it."""
    return encode({"type": "presence", "topic": topic, "joined": list(joined), "left": list(left)})


def present(topic: str, count: int) -> bytes:
    """How many are at a topic, where these are too many to name who came and who left."""
    return encode({"type": "presence", "topic": topic, "joined": [], "left": [], "count": count})


def closed(code: int, reason: str) -> bytes:
    """The last message of a stream that has no close frame."""
    return encode({"type": "closed", "code": code, "reason": reason})


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
    """The connection ends: come back, to another node, after ``retry_after`` seconds."""
    return encode({"type": "reconnect", "retry_after": round(retry_after, 3)})


def pong(ref: Ref) -> bytes:
    """The answer to a client's ``ping``."""
    return encode({"type": "pong"} if ref is None else {"type": "pong", "ref": ref})
