"""The OpenAPI 3.1 document of the public port."""

from typing import Any, Final

from pushsvc import __version__, errors
from pushsvc.errors import PushError
from pushsvc.protocol import notifications
from pushsvc.web.spec import schemas
from pushsvc.web.spec.administering import ADMINISTERING
from pushsvc.web.spec.answers import SCHEMAS
from pushsvc.web.spec.looking import LOOKING, WEBHOOK
from pushsvc.web.spec.operation import ALWAYS, JSON, TAGS, Answer, Operation, in_both_forms
from pushsvc.web.spec.publishing import PUBLISHING
from pushsvc.web.spec.pushing import PUSHING
from pushsvc.web.spec.receiving import RECEIVING
from pushsvc.web.users import AckBody, ReadStateBody

PROBLEM_JSON: Final = "application/problem+json"

DESCRIPTION: Final = (
    "Push notifications: an acknowledged, durable mailbox per user and device, topics, and a "
    "broadcast. The messages on a socket are in the AsyncAPI document, `/asyncapi.json`."
)

SECURITY: Final = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A JSON Web Token with `sub`, `aud` and `exp`; `scope` holds `push.publish` "
        "or `push.admin` where an operation needs it.",
    },
    "capability": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "pc1",
        "description": "The `capability` that a push carries: good for one notification.",
    },
    "ticket": {
        "type": "apiKey",
        "in": "query",
        "name": "ticket",
        "description": "What `POST /v1/tickets` gave for a token: good once, for 30 seconds.",
    },
}


def _document(path: str, name: str, summary: str, media_type: str, kind: str) -> Operation:
    return Operation(
        method="GET",
        path=path,
        id=name,
        tag="documents",
        summary=summary,
        description="Needs no token.",
        answers=(
            Answer(
                status=200,
                meaning="The document.",
                schema={"type": kind},
                media_type=media_type,
            ),
        ),
        errors=ALWAYS,
        security=(),
    )


OPERATIONS: Final = (
    *PUBLISHING,
    *RECEIVING,
    *in_both_forms(LOOKING),
    *in_both_forms(PUSHING),
    *in_both_forms(ADMINISTERING),
    _document("/openapi.json", "openapi", "This document", JSON, "object"),
    _document(
        "/asyncapi.json", "asyncapi", "The messages of the socket, as AsyncAPI 3.0", JSON, "object"
    ),
    _document("/docs", "docs", "Both documents as a page", "text/html", "string"),
    _document(
        "/client.js", "client", "The JavaScript client, one module", "text/javascript", "string"
    ),
    _document("/inbox.js", "bell", "The element `<pushsvc-inbox>`", "text/javascript", "string"),
    _document(
        "/push-sw.js", "worker", "The service worker that shows pushes", "text/javascript", "string"
    ),
)
"""All operations of the public port."""


def document() -> dict[str, Any]:
    """The document, as JSON values."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "pushsvc",
            "version": __version__,
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": meaning} for name, meaning in TAGS.items()],
        "paths": paths,
        "webhooks": {"receipt": {"post": _webhook()}},
        "components": {
            "schemas": {
                **schemas.of_shapes([notifications.Notification, AckBody, ReadStateBody]),
                **SCHEMAS,
                "Problem": schemas.PROBLEM,
            },
            "securitySchemes": SECURITY,
        },
    }


def _webhook() -> dict[str, Any]:
    """What a node sends to the address that it is given for receipts."""
    headers = {
        "webhook-id": "the same for each attempt: a receiver that has seen it is done",
        "webhook-timestamp": "when this attempt was made, in seconds since 1970",
        "webhook-signature": "`v1,` and the base64 of the HMAC-SHA256 of id, timestamp and body, "
        "joined by full stops",
    }
    return {
        "operationId": "receiptWebhook",
        "tags": ["look"],
        "summary": "A receipt, as a signed webhook",
        "description": "Sent to `PUSHSVC_WEBHOOK_URL`, in order, by Standard Webhooks. What is "
        "not answered with 2xx is sent again, ever more rarely, for three days.",
        "security": [],
        "parameters": [
            {
                "name": name,
                "in": "header",
                "required": True,
                "schema": {"type": "string"},
                "description": meaning,
            }
            for name, meaning in headers.items()
        ],
        "requestBody": {
            "required": True,
            "content": {
                JSON: {
                    "schema": schemas.ref("WebhookMessage"),
                    "examples": {"acked": {"value": WEBHOOK}},
                }
            },
        },
        "responses": {
            "2XX": {"description": "It is taken."},
            "410": {"description": "No more of them are wanted at this address."},
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.description,
        "security": [{name: []} for name in operation.security],
    }
    if operation.parameters:
        found["parameters"] = list(operation.parameters)
    if operation.bodies:
        found["requestBody"] = {
            "required": operation.body_required,
            "content": {
                media_type: {
                    "schema": body.schema,
                    "examples": {name: {"value": value} for name, value in body.examples.items()},
                }
                for media_type, body in operation.bodies.items()
            },
        }
    found["responses"] = {
        **{str(answer.status): _answer(answer) for answer in operation.answers},
        **_refusals(operation),
    }
    return found


def _answer(answer: Answer) -> dict[str, Any]:
    found: dict[str, Any] = {"description": answer.meaning}
    if answer.schema is not None:
        content: dict[str, Any] = {"schema": answer.schema}
        if answer.example is not None:
            content["example"] = answer.example
        found["content"] = {answer.media_type: content}
    return found


def _refusals(operation: Operation) -> dict[str, Any]:
    """The answers that tell errors, by status."""
    by_status: dict[int, dict[type[PushError], str]] = {}
    for kind in operation.errors:
        told = operation.meanings.get(kind, schemas.meaning(kind))
        by_status.setdefault(kind.status, {})[kind] = told
    return {str(status): _refusal(by_status[status]) for status in sorted(by_status)}


def _refusal(kinds: dict[type[PushError], str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "description": "\n".join(f"`{kind.code}`: {told}" for kind, told in kinds.items()),
        "content": {
            PROBLEM_JSON: {
                "schema": schemas.ref("Problem"),
                "examples": {
                    kind.code: {"value": _example(kind, told)} for kind, told in kinds.items()
                },
            }
        },
    }
    headers = _headers(next(iter(kinds)))
    return {**found, "headers": headers} if headers else found


def _example(kind: type[PushError], told: str) -> dict[str, Any]:
    example = kind(told).problem()
    if issubclass(kind, errors.TooManyRequests | errors.Unavailable):
        example["retry_after"] = 1.0
    return example


def _headers(kind: type[PushError]) -> dict[str, Any]:
    """The headers that tell with an error what to do."""
    if issubclass(kind, errors.TooManyRequests | errors.Unavailable):
        seconds = schemas.integer("whole seconds to wait", minimum=0)
        return {"Retry-After": {"schema": seconds, "required": True}}
    if issubclass(kind, errors.InvalidToken):
        scheme = schemas.constant("Bearer", "how to send a token")
        return {"WWW-Authenticate": {"schema": scheme, "required": True}}
    return {}
