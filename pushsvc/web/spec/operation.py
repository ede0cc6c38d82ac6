"""What an operation of the HTTP API is, and what many of them share."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pushsvc import errors
from pushsvc.errors import PushError
from pushsvc.web.connection_request import MAX_TOPICS
from pushsvc.web.spec import schemas
from pushsvc.web.spec.schemas import NAME, POSITION, Schema, array, described, text

JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A good answer to an operation."""

    status: int
    meaning: str
    schema: Schema | None = None
    example: Any = None
    media_type: str = JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """One media type of a request's body; ``examples`` by their name."""

    schema: Schema
    examples: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A method on a path: who may use it, what it takes and every answer that it may give."""

    method: str
    path: str
    id: str
    tag: str
    summary: str
    description: str
    answers: tuple[Answer, ...]
    errors: tuple[type[PushError], ...] = ()
    meanings: dict[type[PushError], str] = field(default_factory=dict)
    """What an error means here, where that is not what it always means."""
    parameters: tuple[Schema, ...] = ()
    bodies: dict[str, Body] = field(default_factory=dict)
    body_required: bool = True
    security: tuple[str, ...] = ("bearer",)


TAGS: Final = {
    "publish": "Send notifications to users, topics or everyone.",
    "receive": "Listen on a WebSocket, or, behind proxies that break those, on an event stream or "
    "by long-polling: the same messages, positions and acknowledgements.",
    "look": "See what is kept for a user, who is connected, and what became of notifications.",
    "push": "Reach devices that are away, by Web Push, Apple's push service (APNs) or Firebase "
    "Cloud Messaging (FCM).",
    "administer": "Revoke tokens and close the connections that were made with them.",
    "documents": "This API, described.",
}

ALWAYS: Final = (errors.InvalidRequest, PushError)
"""What a request may meet whatever it asks for."""
WITH_TOKEN: Final = (
    *ALWAYS,
    errors.InvalidToken,
    errors.Forbidden,
    errors.Unavailable,
    errors.StoreUnavailable,
    errors.Overloaded,
)
WITH_BODY: Final = (
    errors.InvalidJSON,
    errors.RequestTimeout,
    errors.LengthRequired,
    errors.PayloadTooLarge,
    errors.UnsupportedMediaType,
)
PUBLISH: Final = (
    *WITH_TOKEN,
    *WITH_BODY,
    errors.InvalidName,
    errors.IdempotencyConflict,
    errors.RateLimited,
    errors.QuotaExceeded,
    errors.TopicFull,
    errors.DurabilityNotReached,
)
ASKING: Final = (
    *WITH_TOKEN,
    errors.InvalidName,
    errors.OriginRefused,
    errors.RateLimited,
)
LISTEN: Final = (
    *WITH_TOKEN,
    errors.InvalidName,
    errors.OriginRefused,
    errors.TooManyConnections,
)


def query(name: str, schema: Schema, example: Any = None) -> Schema:
    """A parameter in the query."""
    found = {"name": name, "in": "query", "schema": schema, "description": schema["description"]}
    return found if example is None else {**found, "example": example}


def in_path(name: str, description: str, example: str, schema: Schema = NAME) -> Schema:
    """A parameter in the path."""
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": schema,
        "description": description,
        "example": example,
    }


USER: Final = in_path("user", "the user's id", "u1")
DEVICE_IN_PATH: Final = in_path("device", "which device of the user", "phone")
TOPIC: Final = in_path("topic", "the topic", "scores.nba", schemas.TOPIC)


IN_PATH_ID: Final = in_path(
    "id", "the notification, or what is scheduled", "1764000000123-0", schemas.RECALLABLE
)
SCHEDULED: Final = in_path(
    "id", "what is scheduled", "s-06432a7c9d1e6b7f21c04e9a", schemas.SCHEDULED_ID
)
DEVICE: Final = query("device", described(NAME, "which device of the user; `default` without it"))
TICKET: Final = "ticket"
_POSITION: Final = "u=1764000000123-0,b=0-0,t:scores.nba=1764000000456-0"
LAST_EVENT_ID: Final = {
    "name": "Last-Event-ID",
    "in": "header",
    "schema": POSITION,
    "description": "the `id` of the last event seen, or the `position` of the answer before",
    "example": _POSITION,
}
AFTER: Final = query(
    "after",
    described(POSITION, "the same as `Last-Event-ID`, for who can set no header; that one counts"),
    _POSITION,
)
KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": text("a quoted string", pattern=r'^"[ !#-\[\]-~]{1,255}"$'),
    "description": "repeating a request with the same key and body publishes nothing new, for 24 h",
    "example": '"7f3a-1"',
}
TRACEPARENT: Final = {
    "name": "traceparent",
    "in": "header",
    "schema": text("W3C Trace Context; a malformed one is ignored"),
    "description": "the trace that this is a part of; it goes on to the clients",
    "example": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}
TOPICS: Final = query(
    "topic",
    array(
        schemas.TOPIC,
        "topics to listen to, each a parameter of its own; their positions have to fit into the"
        " headers of the next request",
        maxItems=MAX_TOPICS,
    ),
    ["scores.nba"],
)

DELIVERED: Final = {
    "type": "notification",
    "id": "1764000000123-0",
    "time": "2025-11-24T16:00:00.123Z",
    "event": "order.shipped",
    "data": {"order": 17, "carrier": "DHL"},
}


def in_both_forms(operations: Iterable[Operation]) -> Iterator[Operation]:
    """Operations, each whose path names a user or a topic also with that in the query."""
    for each in operations:
        yield each
        if each.parameters and each.parameters[0] in (USER, TOPIC):
            named, *others = each.parameters
            name = named["name"]
            path = each.path.replace(f"s/{{{name}}}", "", 1)
            if DEVICE_IN_PATH in others:
                path = path.replace("/{device}", "", 1)
                others[others.index(DEVICE_IN_PATH)] = {**DEVICE_IN_PATH, "in": "query"}
                name = "user and the device"
            yield replace(
                each,
                path=path,
                id=f"{each.id}ByQuery",
                summary=f"{each.summary} (the {name} in the query)",
                description=f"The same as `{each.path}`, whatever the {name} is called: proxies "
                f"decode `%2F` in a path, and URL parsers swallow `..`. {each.description}",
                parameters=({**named, "in": "query"}, *others),
            )
