"""The operations that publish."""

from typing import Final

from pushsvc import errors
from pushsvc.auth.tokens import SCOPE_PUBLISH
from pushsvc.protocol import cloudevents
from pushsvc.protocol.names import NAME_RULE
from pushsvc.web.publish import NDJSON
from pushsvc.web.spec.operation import (
    JSON,
    KEY,
    PUBLISH,
    TRACEPARENT,
    Answer,
    Body,
    Operation,
)
from pushsvc.web.spec.schemas import ref

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
REFUSED: Final = errors.InvalidName(f"user id must be a string of {NAME_RULE}").problem()

_MAY_PUBLISH: Final = (
    f"Needs the scope `{SCOPE_PUBLISH}`, or, for a topic, a token whose `topics.publish` covers "
    "it. What is stored without the scope draws on the user's budget of bytes "
    "(`quota_exceeded`), and a topic may be full for it (`topic_full`)."
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
            "published: repeat it with the same `Idempotency-Key`. With `at` it is published then; "
            "the answer comes once that is stored, and a recall takes its `id`.\n\n"
            # A list among several kinds of body is what generators make code of that fails for all
            # of them, so this one is told in words.
            f"CloudEvents 1.0 are taken too: structured, batched (a list of them, "
            f"`{cloudevents.BATCHED}`), or in binary mode (`ce-` headers and the data as the "
            "body). `pushuser`, `pushtopic` or `pushbroadcast` says whom an event is for, its "
            "`type` becomes the `event`, its `source` and `id` the idempotency key."
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
                    "later": {
                        "to": {"user": "u1"},
                        "data": "a reminder",
                        "at": "2026-01-31T09:00:00Z",
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
            cloudevents.STRUCTURED: Body(schema=ref("CloudEvent"), examples={"event": EVENT}),
        },
        answers=(
            Answer(
                status=202,
                meaning="It is in its feed; for `users`, each is there or has a problem, in order.",
                schema=ref("Published"),
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
            "`Idempotency-Key` covers the whole request. Too many are refused with 400 before they "
            "are parsed. From a token without that scope each counts against the rate of its "
            "user, good or bad, and the body is at most as long as a message on a socket.\n\n"
            # OpenAPI 3.1 has no schema for lines of JSON, and generators complain of them.
            f"They are taken one a line too, as `{NDJSON}`, and as CloudEvents, as at "
            "`/v1/notifications`."
        ),
        parameters=(KEY, TRACEPARENT),
        bodies={
            JSON: Body(
                schema=ref("Batch"),
                examples={"batch": {"notifications": [NOTE, {**NOTE, "to": {"user": "u2"}}]}},
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
