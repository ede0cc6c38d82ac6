"""The AsyncAPI 3.0 document: the messages of the socket, and of what stands in for it."""

from typing import Any, Final

from pushsvc import __version__
from pushsvc.codes import Close, means_reconnect
from pushsvc.protocol import messages
from pushsvc.web.spec import schemas
from pushsvc.web.spec.openapi import SECURITY
from pushsvc.web.spec.operation import TAGS
from pushsvc.web.spec.schemas import CLOSED, SERVER_MESSAGES, Schema, described, text

DESCRIPTION: Final = (
    "One JSON object in each text frame (`pushsvc.v1.json`), or the same as MessagePack in binary "
    "frames (`pushsvc.v1.msgpack`, where `data` may be bytes). `welcome` comes first, then what "
    "the device has not acknowledged, then what is published. A message of a client that carries "
    "a `ref` is answered with `reply` or `error`."
)

_ID: Final = "1764000000123-0"
_TIME: Final = "2025-11-24T16:00:00.123Z"

_WAYS_IN: Final = ("bearer", "ticket")
"""By which of the security schemes a socket is opened."""

SERVER_EXAMPLES: Final[dict[str, list[dict[str, Any]]]] = {
    "welcome": [
        {
            "type": "welcome",
            "connection": "4f0c2a91b3d2.1f",
            "user": "u1",
            "device": "phone",
            "heartbeat": 25,
            "window": 64,
            "expires_at": 1764003600,
            "unread": 3,
        }
    ],
    "notification": [
        {
            "type": "notification",
            "id": _ID,
            "time": _TIME,
            "event": "order.shipped",
            "data": {"order": 17},
        },
        {
            "type": "notification",
            "id": _ID,
            "time": _TIME,
            "topic": "chat.room1",
            "from": "u2",
            "data": "hello",
        },
    ],
    "ephemeral": [
        {
            "type": "notification",
            "time": _TIME,
            "ephemeral": True,
            "topic": "chat.room1",
            "event": "typing",
            "from": "u2",
            "data": None,
        }
    ],
    "gap": [{"type": "gap", "topic": "scores.nba", "after": _ID, "reason": "trimmed"}],
    "withdrawn": [{"type": "withdrawn", "id": _ID, "reason": "recalled"}],
    "read": [{"type": "read", "ids": [_ID], "unread": 2}],
    "unread": [{"type": "unread", "ids": [_ID], "unread": 3}],
    "archive": [{"type": "archive", "until": _ID, "unread": 0}],
    "unarchive": [{"type": "unarchive", "ids": [_ID], "unread": 0}],
    "presence": [
        {"type": "presence", "topic": "chat.room1", "joined": ["u2"], "left": []},
        {"type": "presence", "topic": "chat.lobby", "joined": [], "left": [], "count": 48213},
    ],
    "reply": [
        {"type": "reply", "ref": 1, "acked": _ID},
        {"type": "reply", "ref": 2, "topic": "scores.nba", "last": _ID},
        {"type": "reply", "ref": 3, "unread": 2},
    ],
    "error": [
        {
            "type": "error",
            "ref": 1,
            "code": "rate_limited",
            "detail": "over the message rate: slow down",
            "retry_after": 0.1,
            "temporary": True,
        }
    ],
    "reconnect": [{"type": "reconnect", "retry_after": 0.4}],
    "pong": [{"type": "pong", "ref": 6}],
}

CLIENT_EXAMPLES: Final[dict[str, list[dict[str, Any]]]] = {
    "ack": [{"type": "ack", "id": _ID}, {"type": "ack", "id": _ID, "broadcast": True, "ref": 1}],
    "subscribe": [
        {"type": "subscribe", "topic": "scores.nba", "since": _ID, "ref": 1},
        {"type": "subscribe", "topics": {"scores.nba": _ID, "chat.r1": None}, "ref": 1},
    ],
    "unsubscribe": [{"type": "unsubscribe", "topic": "scores.nba", "ref": 2}],
    "publish": [
        {"type": "publish", "topic": "chat.room1", "data": "hello", "ref": 3},
        {
            "type": "publish",
            "topic": "chat.room1",
            "event": "typing",
            "data": None,
            "ephemeral": True,
        },
    ],
    "presence": [{"type": "presence", "topic": "chat.room1", "ref": 4}],
    "refresh": [{"type": "refresh", "token": "eyJ...", "ref": 5}],
    "ping": [{"type": "ping", "ref": 6}],
    "read": [{"type": "read", "ids": [_ID], "ref": 7}, {"type": "read", "until": _ID}],
    "unread": [{"type": "unread", "ids": [_ID]}],
    "archive": [{"type": "archive", "ids": [_ID]}],
    "unarchive": [{"type": "unarchive", "ids": [_ID]}],
}

_SERVER: Final = "server."
_CLIENT: Final = "client."


def document() -> dict[str, Any]:
    """The document, as JSON values."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "pushsvc",
            "version": __version__,
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0"},
            "tags": [{"name": "receive", "description": TAGS["receive"]}],
        },
        "defaultContentType": "application/json",
        "servers": {
            "node": {
                "host": "{host}",
                "protocol": "wss",
                "description": "The public port of any node.",
                "variables": {"host": {"default": "localhost:8080"}},
                "security": [{"$ref": f"#/components/securitySchemes/{name}"} for name in _WAYS_IN],
            }
        },
        "channels": {"socket": _socket(), "stream": _stream()},
        "operations": _operations(),
        "components": {
            "messages": _messages(),
            "schemas": _schemas(),
            "securitySchemes": {
                "bearer": SECURITY["bearer"],
                "ticket": {**SECURITY["ticket"], "type": "httpApiKey"},
            },
        },
        "x-close-codes": close_codes(),
        "x-errors": errors(),
    }


def close_codes() -> list[dict[str, Any]]:
    """Every code that a node closes with: its reason, and what to do."""
    return [
        {"code": int(code), "name": code.name.lower(), "reason": code.reason, "then": _then(code)}
        for code in Close
    ]


def _then(code: Close) -> str:
    if code is Close.TOKEN_EXPIRED:
        return "reconnect with a new token"
    if code >= 4000 or code in {Close.NORMAL, Close.GOING_AWAY}:
        return "reconnect" if means_reconnect(code) else "stop"
    return "send less" if code is Close.TOO_BIG else "mend the client"


def errors() -> list[dict[str, Any]]:
    """Every error: its code, its status over HTTP, and when it is met."""
    return [
        *(
            {"code": kind.code, "status": kind.status, "meaning": schemas.meaning(kind)}
            for kind in schemas.error_kinds()
        ),
        {
            "code": "token_expiring",
            "status": None,
            "meaning": "On a socket only: the token expires within a minute.",
        },
    ]


def client_names() -> list[str]:
    """The messages that a client may send."""
    return list(schemas.client_messages())


def _schemas() -> dict[str, Schema]:
    found = {
        _CLIENT + name: schemas.of_shapes([kind])[kind.__name__]
        for name, kind in schemas.client_messages().items()
    }
    found |= {_SERVER + name: schema for name, schema in SERVER_MESSAGES.items()}
    return found | {_SERVER + "closed": CLOSED}


def _messages() -> dict[str, Any]:
    examples = {_SERVER + name: found for name, found in SERVER_EXAMPLES.items()}
    examples |= {_CLIENT + name: found for name, found in CLIENT_EXAMPLES.items()}
    examples[_SERVER + "closed"] = [
        {"type": "closed", "code": int(Close.DRAINING), "reason": Close.DRAINING.reason}
    ]
    return {
        name: {
            "name": name.partition(".")[2],
            "summary": schema["description"],
            "payload": {"$ref": f"#/components/schemas/{name}"},
            "examples": [{"payload": payload} for payload in examples[name]],
        }
        for name, schema in _schemas().items()
    }


def _refs(names: list[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in names}


def _server_names() -> list[str]:
    return [_SERVER + name for name in SERVER_MESSAGES]


def _socket() -> dict[str, Any]:
    return {
        "address": "/v1/ws",
        "title": "WebSocket",
        "description": DESCRIPTION,
        "messages": _refs(_server_names() + [_CLIENT + name for name in client_names()]),
        "bindings": {
            "ws": {
                "method": "GET",
                "query": {
                    "type": "object",
                    "properties": {
                        "device": described(
                            schemas.NAME, "which device of the user; `default` without it"
                        ),
                        "ticket": text("in place of a token"),
                    },
                },
                "headers": {
                    "type": "object",
                    "properties": {
                        "Sec-WebSocket-Protocol": text(
                            f"`{messages.SUBPROTOCOL}` or `{messages.MSGPACK_SUBPROTOCOL}`, and, "
                            "by browsers, `bearer.<token>`"
                        )
                    },
                },
                "bindingVersion": "0.1.0",
            }
        },
    }


def _stream() -> dict[str, Any]:
    without = {_SERVER + name for name in ("reply", "pong")}
    names = [name for name in _server_names() if name not in without]
    return {
        "address": "/v1/stream",
        "title": "Event stream",
        "description": "The same messages as Server-Sent Events, and by `GET /v1/poll`. What a "
        "client says goes over HTTP: see the OpenAPI document.",
        "messages": _refs([*names, _SERVER + "closed"]),
    }


def _operations() -> dict[str, Any]:
    def sent_on(channel: str, names: list[str]) -> list[dict[str, str]]:
        return [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names]

    answers = {"ping": "pong"}
    found: dict[str, Any] = {
        "tell": {
            "action": "send",
            "channel": {"$ref": "#/channels/socket"},
            "summary": "What a node sends.",
            "description": "`welcome` first, then what is kept, then what comes.",
            "messages": sent_on("socket", _server_names()),
        },
        "stream": {
            "action": "send",
            "channel": {"$ref": "#/channels/stream"},
            "summary": "What a node sends where there is no socket.",
            "description": "The same; `closed` is the last one of a stream.",
            "messages": sent_on("stream", list(_stream()["messages"])),
        },
    }
    for name, kind in schemas.client_messages().items():
        good = answers.get(name, "reply")
        found[name] = {
            "action": "receive",
            "channel": {"$ref": "#/channels/socket"},
            "summary": (kind.__doc__ or "").partition("\n")[0],
            "description": f"Where it carries a `ref` it is answered with `{good}` or `error`.",
            "messages": sent_on("socket", [_CLIENT + name]),
            "reply": {
                "channel": {"$ref": "#/channels/socket"},
                "messages": sent_on("socket", [_SERVER + good, _SERVER + "error"]),
            },
        }
    return found
