"""The operations that publish."""

from typing import Final

from pushsvc import errors
from pushsvc.auth.tokens import SCOPE_PUBLISH
from pushsvc.protocol import cloudevents
from pushsvc.web.spec.operation import (
    JSON,
    KEY,
    NDJSON,
    PUBLISH,
    TRACEPARENT,
    Answer,
    Body,
    Operation,
)
from pushsvc.web.spec.schemas import array, ref, text

NOTE: Final = {
    "to": {"user": "u1"},
    "event": "order.shipped",
    "data": {"order": 17, "carrier": "DHL"},
    "ttl": 86400,
}
EVENT: Final = {
    "specversion": "1.0",
    "id": "7f3a-1",
    "source": "/orders",
    "type": "order.shipped",
    "pushuser": "u1",
    "data": {"order": 17, "carrier": "DHL"},
}
TOLD: Final = {"id": "1764000000123-0", "durability": "memory", "connections": 2}
REFUSED: Final = errors.InvalidName(
    "user id must be a string of 1 to 128 characters of A-Z a-z 0-9 . _ - : @ ="
).problem()
CLOUD: Final = {
    cloudevents.STRUCTURED: Body(schema=ref("CloudEvent"), examples={"event": EVENT}),
    cloudevents.BATCHED: Body(
        schema=array(ref("CloudEvent"), "events", maxItems=1000), examples={"batch": [EVENT]}
    ),
}

_MAY_PUBLISH: Final = (
    f"Needs the scope `{SCOPE_PUBLISH}`, or, for a topic, a token whose `topics.publish` covers it."
)

PUBLISHING: Final = (
    Operation(
        method="POST",
        path="/v1/notifications",
        id="publish",
        tag="publish",
        summary="Publish a notification",
        description=(
            f"{_MAY_PUBLISH} The answer comes once the notification is in its "
            "feed, at the durability that it names. After a 503 it may or may not have been "
            "published: repeat it with the same `Idempotency-Key`.\n\n"
            "CloudEvents 1.0 are taken too, structured, batched, or in binary mode (`ce-` headers "
            "and the data as the body). `pushuser`, `pushtopic` or `pushbroadcast` says whom an "
            "event is for, its `type` becomes the `event`, its `source` and `id` the idempotency "
            "key."
        ),
        parameters=(KEY, TRACEPARENT),
        bodies={
            JSON: Body(
                schema=ref("Notification"),
                examples={
                    "user": NOTE,
                    "topic": {
                        "to": {"topic": "scores.nba"},
                        "data": {"home": 88, "away": 91},
                        "collapse_key": "game-7",
                    },
                    "everyone": {"to": {"broadcast": True}, "data": "back at 18:00", "ttl": 3600},
                    "settled by the first device": {
                        "to": {"users": ["u1", "u2"]},
                        "data": {"call": "c-9"},
                        "deliver": "any-device",
                        "receipt": True,
                    },
                },
            ),
            **CLOUD,
        },
        answers=(
            Answer(
                status=202,
                meaning="It is in its feed; for `users`, each is there or has a problem, in order.",
                schema={"anyOf": [ref("Accepted"), ref("Results")]},
                example=TOLD,
            ),
        ),
        errors=PUBLISH,
    ),
    Operation(
        method="POST",
        path="/v1/notifications/batch",
        id="publishBatch",
        tag="publish",
        summary="Publish up to 1000 notifications",
        description=(
            f"{_MAY_PUBLISH} Each user of a list counts. One that cannot be "
            "accepted is a problem in its place and does not hold up the others. An "
            "`Idempotency-Key` covers the whole request."
        ),
        parameters=(KEY, TRACEPARENT),
        bodies={
            JSON: Body(
                schema=ref("Batch"),
                examples={"batch": {"notifications": [NOTE, {**NOTE, "to": {"user": "u2"}}]}},
            ),
            NDJSON: Body(
                schema=text("one notification a line"),
                examples={"lines": '{"to":{"user":"u1"},"data":1}\n{"to":{"user":"u2"},"data":2}'},
            ),
        },
        answers=(
            Answer(
                status=202,
                meaning="Each is in its feed or has a problem, in the order given.",
                schema=ref("BatchResults"),
                example={"results": [TOLD, REFUSED]},
            ),
        ),
        errors=PUBLISH,
    ),
)
