"""JSON schemas of what goes over the wire, for the documents that the node serves.

What callers send is read off the shapes in ``protocol.messages``; what they are sent is built by
functions there, so its schemas are written down here and held against real messages by the tests.
"""

import itertools
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

import msgspec

from pushsvc import errors
from pushsvc.errors import PROBLEM_PREFIX, PushError
from pushsvc.protocol import encoding, messages, notifications, push_asking, read_state
from pushsvc.protocol.names import (
    LABEL_RULE,
    MAX_LABEL,
    MAX_NAME,
    NAME_RULE,
    TOPIC_RULE,
    UNPRINTABLE,
)

Schema = dict[str, Any]

REF: Final = "#/components/schemas/{name}"
"""Where both documents keep their schemas."""


def ref(name: str) -> Schema:
    """A reference to a schema of the document."""
    return {"$ref": REF.format(name=name)}


def record(
    description: str, required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None
) -> Schema:
    """An object with these fields and no others."""
    return {
        "description": description,
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


def described(schema: Schema, description: str) -> Schema:
    """The same schema, said for one place."""
    return {**schema, "description": description}


def array(items: Schema, description: str, **bounds: int) -> Schema:
    """A list."""
    return {"type": "array", "items": items, "description": description, **bounds}


def text(description: str, **more: Any) -> Schema:
    """A string."""
    return {"type": "string", "description": description, **more}


def number(description: str, **more: Any) -> Schema:
    """A number."""
    return {"type": "number", "description": description, **more}


def integer(description: str, **more: Any) -> Schema:
    """An integer."""
    return {"type": "integer", "description": description, **more}


def flag(description: str) -> Schema:
    """A boolean."""
    return {"type": "boolean", "description": description}


# Generators of code make nothing, or something that does not parse, of a value without a type.


def constant(value: str | Literal[True, False], description: str | None = None) -> Schema:
    """A value that is always the same."""
    schema = {"type": "boolean" if isinstance(value, bool) else "string", "const": value}
    return schema if description is None else described(schema, description)


def choice(values: Iterable[str], description: str) -> Schema:
    """One of some strings."""
    return {"type": "string", "enum": list(values), "description": description}


def either(names: Iterable[str], description: str) -> Schema:
    """One of some schemas of the document, under a name of its own."""
    return {"description": description, "anyOf": [ref(name) for name in names]}


def anything(description: str) -> Schema:
    """Any JSON."""
    return {"description": description}


NAME: Final = {
    "type": "string",
    "pattern": rf"^[^\u0000-\u001f\u007f-\u009f]{{1,{MAX_NAME}}}$",
    "description": NAME_RULE,
}
"""A user id or a device. A pattern counts characters, and the rule bytes."""
# Up to U+FFFF: a class with more than that is no pattern to those who read it without the flag "u",
# as most validators do. What is beyond is refused by the node all the same.
_UNPRINTABLE: Final = "".join(
    each if each == "-" else f"\\u{ord(each):04x}"
    for each in itertools.takewhile(lambda each: ord(each) <= 0xFFFF, UNPRINTABLE)
)
TOPIC: Final = {
    "type": "string",
    "pattern": rf"^[^\u0000-\u001f\u007f-\u009f{_UNPRINTABLE}*]{{1,{MAX_NAME}}}$",
    "description": TOPIC_RULE,
}
LABEL: Final = {
    "type": "string",
    "pattern": f"^[A-Za-z0-9._:@=-]{{1,{MAX_LABEL}}}$",
    "description": LABEL_RULE,
}
"""An event or a collapse key."""
ID: Final = {
    "type": "string",
    "pattern": r"^(0|[1-9][0-9]{0,14})-(0|[1-9][0-9]{0,18})$",
    "description": "the id of a notification: `<milliseconds>-<sequence>`",
}
SCHEDULED_ID: Final = {
    "type": "string",
    "pattern": "^s-[0-9a-f]{24}$",
    "description": "the id of what is scheduled, until it is out",
}
RECALLABLE: Final = {
    "type": "string",
    "pattern": f"{ID['pattern']}|{SCHEDULED_ID['pattern']}",
    "description": "the id of a notification, or of what is scheduled",
}
_PLACE: Final = (
    f"(u|b|t:([A-Za-z0-9._:@=-]|%[0-9A-F]{{2}}){{1,{MAX_NAME}}})"
    "=(0|[1-9][0-9]{0,14})-(0|[1-9][0-9]{0,18})"
)
POSITION: Final = {
    "type": "string",
    "pattern": f"^({_PLACE}(,{_PLACE})*)?$",
    "description": "an id for each feed that is listened to, as an earlier answer gave them",
}
BASE64: Final = {
    "type": "string",
    "contentEncoding": "base64",
    "pattern": "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
}
INSTANT: Final = {"type": "string", "format": "date-time"}
TIME: Final = {
    "type": "string",
    "format": "date-time",
    "description": "when it was published, by the clock of Redis",
}
_ADDRESS: Final = r"^(https?://[^/]|/([^/\\]|$)|$)"
"""The address that a push leads to."""
REFERENCE: Final = {
    "type": ["integer", "string"],
    "description": "of the client's choice; the answer carries it",
}
CONNECTIONS: Final = integer("live connections that it was routed to", minimum=0)
UNREAD: Final = integer("how many notifications of the mailbox are unread", minimum=0)
DURABILITIES: Final = ("memory", "replica", "fsync", "none")


# --- what callers send ---------------------------------------------------------------------------

# What a field means and which values it takes, by its name or by `Shape.name`.
FIELDS: Final[dict[str, Schema]] = {
    "to": {"description": "whom it is for"},
    "To.user": described(NAME, "one user"),
    "To.device": described(NAME, "with `user`: this one of the user's devices, and no other"),
    "To.users": array(
        NAME,
        "many users, each once",
        minItems=1,
        maxItems=notifications.MAX_USERS,
        uniqueItems=True,
    ),
    "To.topic": described(TOPIC, "all who subscribe to this topic"),
    "To.broadcast": constant(True, "everyone"),
    "data": anything(
        f"any JSON, at most {encoding.MAX_DEPTH} levels deep; a base64 string with `encoding`"
    ),
    "event": described(LABEL, "what kind of notification it is"),
    "ttl": number(
        "seconds that it is worth delivering; 0 is live only; the default, and the most, is the "
        "retention",
        minimum=0,
        maximum=notifications.MAX_TTL,
    ),
    "collapse_key": described(LABEL, "a newer notification with the same key replaces this one"),
    "ephemeral": flag("never stored, has no id, is dropped first under pressure"),
    "deliver": choice(
        ("all", "any-device"),
        "`any-device`: settled for all devices of the user when one has acked it",
    ),
    "receipt": flag("record what becomes of it, for `GET /v1/receipts`"),
    "encoding": constant(
        "base64", "`data` is the base64 of bytes; MessagePack clients are sent the bytes"
    ),
    "at": {
        **INSTANT,
        "description": "publish it then, at most the retention ahead; for backends",
    },
    "inbox": flag(
        "`false` for a signal: it is for the program, neither read nor unread; for users only"
    ),
    "push": {"description": "also reach devices that have not acknowledged it by then"},
    "PushAsked.after": number(
        "seconds that a device has to acknowledge it; without it the server's "
        "`PUSH_AFTER_SECONDS`, if that is set",
        minimum=0,
        maximum=push_asking.MAX_AFTER,
    ),
    "PushAsked.title": text("one line, at most 256 bytes", maxLength=256),
    "PushAsked.body": text("what it says, at most 2,000 bytes", maxLength=2000),
    "PushAsked.url": text(
        "what a tap opens: `https://…`, or a path of the page", pattern=_ADDRESS, maxLength=1024
    ),
    "PushAsked.icon": text("a picture, by the same rule", pattern=_ADDRESS, maxLength=1024),
    "PushAsked.badge": {
        "anyOf": [
            {"type": "integer", "minimum": 0, "maximum": push_asking.MAX_BADGE},
            {"type": "string", "const": "unread"},
        ],
        "description": "the number at the app's icon; `unread`: as many as are unread then",
    },
    "PushAsked.urgency": choice(("very-low", "low", "normal", "high"), "how urgent it is"),
    "ids": array(
        ID,
        "some notifications of the mailbox; none to change nothing and ask how many are unread",
        maxItems=read_state.MAX_IDS,
    ),
    "until": described(ID, "all up to this one; what came after it stays as it is"),
    "ref": REFERENCE,
    "id": ID,
    "broadcast": flag("whether the id is one of the broadcast"),
    "topic": TOPIC,
    "topics": {
        "type": "object",
        "additionalProperties": {"anyOf": [ID, {"type": "null"}]},
        "description": "topics, each with the id to replay from, or null",
    },
    "since": described(ID, "replay what is kept after this one"),
    "device": described(NAME, "which device of the user"),
    "token": text("a JSON Web Token"),
}


def of_shapes(kinds: Iterable[Any]) -> dict[str, Schema]:
    """The schemas of shapes in the code, with what their fields mean."""
    _, components = msgspec.json.schema_components(list(kinds), ref_template=REF)
    return {name: _finished(name, schema) for name, schema in components.items()}


def _finished(shape: str, schema: Schema) -> Schema:
    fields = {
        name: {**_plain(field), **FIELDS.get(f"{shape}.{name}", FIELDS.get(name, {}))}
        for name, field in schema["properties"].items()
    }
    finished = {**schema, "properties": fields}
    finished["description"] = " ".join(schema.get("description", "").replace("``", "`").split())
    del finished["title"]
    if shape == "ReadStateBody":
        finished |= {"minProperties": 1, "maxProperties": 1}
    if shape == "To":
        # By "not", as generators take "oneOf" for shapes to choose from, and these have no fields.
        two = itertools.combinations(("user", "users", "topic", "broadcast"), 2)
        finished |= {
            "minProperties": 1,
            "dependentRequired": {"device": ["user"]},
            "not": {"anyOf": [{"required": list(each)} for each in two]},
        }
    if "encoding" in fields:
        finished["dependentSchemas"] = {"encoding": {"properties": {"data": BASE64}}}
    return finished


def _plain(field: Schema) -> Schema:
    """A field without null, which means the same as leaving it out."""
    kinds = [kind for kind in field.get("anyOf", [field]) if kind.get("type") != "null"]
    if kinds == [{"type": "integer"}, {"type": "number"}]:
        return {"type": "number"}
    if kinds == [{"type": "integer"}, {"type": "string"}]:
        return {"type": ["integer", "string"]}
    plain = dict(kinds[0]) if len(kinds) == 1 else {"anyOf": kinds}
    plain.pop("default", None)
    values = plain.pop("enum", None)
    if values is not None:
        plain |= constant(*values) if len(values) == 1 else {"type": "string", "enum": values}
    return plain


def client_messages() -> dict[str, type[msgspec.Struct]]:
    """What a client may send on its socket, by the ``type`` of the message."""
    return {
        str(kind.__struct_config__.tag): kind for kind in typing.get_args(messages.ClientMessage)
    }


# --- what callers are sent -----------------------------------------------------------------------


def error_kinds() -> list[type[PushError]]:
    """Every error that a caller can meet, in the order of the tree."""
    kinds: list[type[PushError]] = []
    to_walk = [kind for kind in PushError.__subclasses__() if kind.__module__ == errors.__name__]
    for kind in to_walk:
        kinds.append(kind)
        kinds += [below for below in kind.__subclasses__() if below.__module__ == errors.__name__]
    return [*kinds, PushError]


def meaning(kind: type[PushError]) -> str:
    """When an error is met, in a sentence."""
    if kind is PushError:
        return "The server made an error; it is logged."
    return (kind.__doc__ or "").partition("\n")[0].replace("``", "`")


PROBLEM: Final = {
    "description": "what is wrong and what to change (RFC 9457)",
    "type": "object",
    "properties": {
        "type": choice(
            sorted({PROBLEM_PREFIX + kind.code for kind in error_kinds()}),
            "stable; its last part is the `code` of an `error` message",
        ),
        "title": text("the same for all problems of the type"),
        "status": integer("the status of the answer"),
        "detail": text("a sentence that says what to change"),
        "retry_after": number("seconds after which trying again makes sense", minimum=0),
    },
    "required": ["type", "title", "status", "detail"],
    "additionalProperties": False,
}
ACCEPTED: Final = record(
    "a notification that is in its feed, or waits for its time",
    {
        "durability": choice(DURABILITIES, "what was reached; `none` for one that is live only"),
        "connections": CONNECTIONS,
    },
    {
        "id": described(
            RECALLABLE,
            "its id; none for one that is ephemeral; of what is scheduled one that names it until "
            "it is out, and recalls it then, too",
        ),
        "at": {**INSTANT, "description": "when it goes out, of what is scheduled"},
    },
)

LIFETIME: Final = number("seconds from its time until it leaves the mailbox, where that was given")
SIGNAL: Final = constant(False, "it is a signal, which is neither read nor unread")
TRACEPARENT: Final = text("the trace that it belongs to (W3C Trace Context), to go on with")
_NOTIFICATION_FIELDS: Final = {
    "topic": described(TOPIC, "the topic that it was published to"),
    "broadcast": constant(True, "it is for everyone"),
    "event": FIELDS["event"],
    "from": described(NAME, "the user that published it on a socket"),
    "encoding": FIELDS["encoding"],
    "traceparent": TRACEPARENT,
    "inbox": SIGNAL,
    "ttl": LIFETIME,
}


def _message(
    kind: str, description: str, required: Mapping[str, Schema], **optional: Any
) -> Schema:
    return record(description, {"type": constant(kind), **required}, optional)


_DATA: Final = anything("what was published")

SERVER_MESSAGES: Final[dict[str, Schema]] = {
    "welcome": _message(
        "welcome",
        "The first message of every connection.",
        {
            "connection": text("the id of the connection, for support"),
            "user": NAME,
            "device": NAME,
            "heartbeat": number("seconds without traffic after which the server asks for life"),
            "window": integer("most notifications that are sent and not acknowledged", minimum=1),
            "expires_at": integer("when the token expires, in seconds since the epoch"),
            "unread": UNREAD,
        },
    ),
    "notification": _message(
        "notification",
        "One notification, in the order of the ids of its feed.",
        {"id": ID, "time": TIME, "data": _DATA},
        attempt=integer("how often it was sent, from 2 on", minimum=2),
        read=constant(True, "the user has seen it before it was sent"),
        archived=constant(True, "the user is done with it"),
        **_NOTIFICATION_FIELDS,
    ),
    "ephemeral": _message(
        "notification",
        "A notification that is not stored: it has no id and is not acknowledged.",
        {"time": TIME, "ephemeral": constant(True), "data": _DATA},
        **_NOTIFICATION_FIELDS,
    ),
    "gap": _message(
        "gap",
        "Notifications after `after` are gone before this device was sent or acknowledged them.",
        {
            "after": described(ID, "the last id held"),
            "reason": choice(
                ("trimmed", "reset"),
                "`trimmed` by a bound, the retention or their ttl; `reset`: the server lost data, "
                "ids may come again",
            ),
        },
        topic=described(TOPIC, "in which topic; none in the mailbox"),
        broadcast=constant(True, "in the broadcast"),
        unread=described(UNREAD, "of a reset in the mailbox: how many are unread now"),
    ),
    "withdrawn": _message(
        "withdrawn",
        "A notification that this device may hold is withdrawn.",
        {
            "id": ID,
            "reason": choice(
                ("recalled", "acked"), "`recalled` by a backend; `acked` by another device"
            ),
        },
    ),
    **{
        verb.value: _message(
            verb.value,
            f"Another connection of the user, or a backend, asked for `{verb}`.",
            {"unread": UNREAD},
            ids=FIELDS["ids"],
            until=FIELDS["until"],
        )
        for verb in read_state.Verb
    },
    "presence": _message(
        "presence",
        "Who came to a topic and who left it, for who asked for its presence.",
        {"topic": TOPIC, "joined": array(NAME, "users"), "left": array(NAME, "users")},
        count=integer("of a large topic, in place of names: how many are there", minimum=0),
    ),
    "reply": _message(
        "reply",
        "The answer to a message that carried a `ref`.",
        {"ref": {**REFERENCE, "type": ["integer", "string", "null"]}},
        acked=described(ID, "to ack: the device's position"),
        topic=described(TOPIC, "to what names one topic"),
        last=described(ID, "to subscribe: where it begins, the newest id of the topic"),
        topics={
            "type": "object",
            "additionalProperties": ID,
            "description": "to subscribe with many: each with where it begins",
        },
        id=described(ID, "to publish: the id; none for an ephemeral message"),
        durability=choice(DURABILITIES, "to publish: what was reached"),
        connections=described(CONNECTIONS, "to publish: live connections that it was routed to"),
        users=array(NAME, "to presence: who is here, the first 500, or some of a large topic"),
        count=integer("to presence: how many are here", minimum=0),
        sample=constant(True, "to presence: the topic is large"),
        unread=described(UNREAD, "to read, unread, archive and unarchive: how many are unread"),
        expires_at=integer("to refresh: when the new token expires, in seconds since 1970"),
    ),
    "error": _message(
        "error",
        "What was wrong with a message; the connection lives on. `token_expiring` comes unasked.",
        {
            "code": text("the last part of a problem's `type`"),
            "detail": text("a sentence that says what to change"),
            "temporary": flag("whether the same message may succeed later"),
        },
        ref=REFERENCE,
        retry_after=number("seconds after which trying again makes sense", minimum=0),
    ),
    "reconnect": _message(
        "reconnect",
        "The node stops, or the connection is old: it will close with 4001.",
        {"retry_after": number("come back after so many seconds", minimum=0)},
    ),
    "pong": _message("pong", "The answer to `ping`.", {}, ref=REFERENCE),
}
"""The messages of a node, by name; all but ``ephemeral`` have the name as their ``type``."""

CLOSED: Final = _message(
    "closed",
    "The last message of an event stream, which has no close frame.",
    {
        "code": integer("a close code", minimum=1000, maximum=4999),
        "reason": text("its sentence"),
    },
)
