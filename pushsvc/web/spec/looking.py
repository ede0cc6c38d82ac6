"""The operations that look into what is kept, who is there and what became of it."""

from typing import Final

from pushsvc import errors
from pushsvc.auth.tokens import SCOPE_ADMIN, SCOPE_PUBLISH
from pushsvc.protocol.read_state import Verb
from pushsvc.web import receipts, users
from pushsvc.web.spec import schemas
from pushsvc.web.spec.operation import (
    ASKING,
    DELIVERED,
    IN_PATH_ID,
    JSON,
    SCHEDULED,
    TOPIC,
    USER,
    WITH_BODY,
    WITH_TOKEN,
    Answer,
    Body,
    Operation,
    query,
)
from pushsvc.web.spec.schemas import ID, Schema, described, integer, ref


def _limit(page: int, most: int) -> Schema:
    described = integer(f"most entries; {page} without it", minimum=1, maximum=most)
    return query("limit", described)


_MAY_READ: Final = f"With the scope `{SCOPE_PUBLISH}` or `{SCOPE_ADMIN}`, or a user about itself."

_SUMMARIES: Final = {
    Verb.READ: "Say that notifications were read",
    Verb.UNREAD: "Have notifications unread again",
    Verb.ARCHIVE: "Archive notifications, and thereby read them",
    Verb.UNARCHIVE: "List archived notifications again",
}


def _flag(description: str) -> Schema:
    return schemas.choice(("true", "false"), description)


_MAY_CANCEL: Final = (
    f"With the scope `{SCOPE_PUBLISH}` or `{SCOPE_ADMIN}`, and the id of the answer to a publish "
    "with `at`. What is out stays."
)
_CANCELLED: Final = Answer(
    status=200,
    meaning="It never goes out.",
    schema=ref("Recalled"),
    example={"id": SCHEDULED["example"], "acked": [], "cancelled": True},
)
_NOT_WAITING: Final = "It is out already, or nothing with this id was scheduled there."

_RECEIPT: Final = {
    "id": "1764000001200-0",
    "type": "receipt",
    "time": "2025-11-24T16:00:01.200Z",
    "notification": "1764000000123-0",
    "user": "u1",
    "status": "acked",
    "device": "phone",
    "at": "2025-11-24T16:00:01.020Z",
}

WEBHOOK: Final = {
    "type": "receipt",
    "timestamp": _RECEIPT["time"],
    "data": {**_RECEIPT, "publisher": "backend"},
}
"""An example of what is posted to a webhook."""

LOOKING: Final = (
    Operation(
        method="GET",
        path="/v1/users/{user}/notifications",
        id="listNotifications",
        tag="look",
        summary="What is kept for a user, newest first",
        description=(
            f"{_MAY_READ} Each with the devices that acknowledged it, and when, and with what the "
            "user has made of it. Without any argument: all that is not archived."
        ),
        parameters=(
            USER,
            _limit(users.PAGE, users.MAX_PAGE),
            query("before", described(ID, "the `next` of the page before")),
            query("event", described(schemas.LABEL, "those of this event only")),
            query("unread", _flag("`true`: what is unread only")),
            query("inbox", _flag("`true`: without signals, which have no read state")),
            query(
                "archived",
                schemas.choice(
                    ("true", "false", "any"),
                    "`true`: what is archived only; `any`: that too; `false` without it",
                ),
            ),
        ),
        answers=(
            Answer(
                status=200,
                meaning="A page; `next` is null on the last one.",
                schema=ref("NotificationPage"),
                example={
                    "notifications": [
                        {
                            **{name: DELIVERED[name] for name in ("id", "time", "event", "data")},
                            "expires": "2025-11-25T16:00:00.123Z",
                            "acked": [{"device": "phone", "time": "2025-11-24T16:00:01.020Z"}],
                            "read": False,
                            "archived": False,
                        }
                    ],
                    "next": None,
                    "unread": 1,
                },
            ),
        ),
        errors=ASKING,
    ),
    *(
        Operation(
            method="POST",
            path=f"/v1/users/{{user}}/{verb}",
            id=f"{verb}Notifications",
            tag="look",
            summary=_SUMMARIES[verb],
            description=(
                f"{_MAY_READ} Of some, or of all up to one. The user's connections are told. "
                "What the mailbox does not keep, and signals, are passed over."
            ),
            parameters=(USER,),
            bodies={
                JSON: Body(
                    schema=ref("ReadStateBody"),
                    examples={
                        "some": {"ids": ["1764000000123-0"]},
                        "until": {"until": "1764000000123-0"},
                    },
                )
            },
            answers=(
                Answer(
                    status=200,
                    meaning="It is done; how many are unread now.",
                    schema=ref("Unread"),
                    example={"unread": 2},
                ),
            ),
            errors=(*ASKING, *WITH_BODY),
        )
        for verb in Verb
    ),
    Operation(
        method="DELETE",
        path="/v1/users/{user}/notifications/{id}",
        id="recall",
        tag="look",
        summary="Recall a notification",
        description=(
            f"With the scope `{SCOPE_PUBLISH}` or `{SCOPE_ADMIN}`. Devices that have not seen it "
            "never will, those that may hold it unacknowledged are sent `withdrawn`. With the id "
            "of the answer to a publish with `at` it never goes out, or, if it is out, the "
            "notification that it became is recalled."
        ),
        parameters=(USER, IN_PATH_ID),
        answers=(
            Answer(
                status=200,
                meaning="It is withdrawn; `acked` lists the devices that had acknowledged it.",
                schema=ref("Recalled"),
                example={"id": "1764000000123-0", "acked": ["phone"]},
            ),
        ),
        errors=(*ASKING, errors.NotFound),
        meanings={errors.NotFound: "The user's mailbox does not hold it."},
    ),
    Operation(
        method="DELETE",
        path="/v1/topics/{topic}/notifications/{id}",
        id="cancelForTopic",
        tag="look",
        summary="Recall what is scheduled for a topic",
        description=_MAY_CANCEL,
        parameters=(TOPIC, SCHEDULED),
        answers=(_CANCELLED,),
        errors=(*ASKING, errors.NotFound),
        meanings={errors.NotFound: _NOT_WAITING},
    ),
    Operation(
        method="DELETE",
        path="/v1/broadcast/notifications/{id}",
        id="cancelBroadcast",
        tag="look",
        summary="Recall what is scheduled for everyone",
        description=_MAY_CANCEL,
        parameters=(SCHEDULED,),
        answers=(_CANCELLED,),
        errors=(*ASKING, errors.NotFound),
        meanings={errors.NotFound: _NOT_WAITING},
    ),
    Operation(
        method="GET",
        path="/v1/users/{user}/presence",
        id="userPresence",
        tag="look",
        summary="The devices of a user that are connected",
        description=_MAY_READ,
        parameters=(USER,),
        answers=(
            Answer(
                status=200,
                meaning="The devices, over all nodes.",
                schema=ref("UserPresence"),
                example={
                    "user": "u1",
                    "online": True,
                    "devices": [
                        {
                            "device": "phone",
                            "connections": 1,
                            "since": "2025-11-24T15:59:00.000Z",
                        }
                    ],
                },
            ),
        ),
        errors=ASKING,
    ),
    Operation(
        method="GET",
        path="/v1/topics/{topic}/presence",
        id="topicPresence",
        tag="look",
        summary="The users who are subscribed to a topic",
        description=(
            f"With the scope `{SCOPE_PUBLISH}` or `{SCOPE_ADMIN}`, or a user whose "
            "`topics.subscribe` covers the topic."
        ),
        parameters=(TOPIC,),
        answers=(
            Answer(
                status=200,
                meaning=(
                    "The users, over all nodes: the first 500, and how many there are. Of a large "
                    "topic some, with `sample`, and how many there are, once for each node."
                ),
                schema=ref("TopicPresence"),
                example={"topic": "scores.nba", "users": ["u1", "u2"], "count": 2},
            ),
        ),
        errors=ASKING,
    ),
    Operation(
        method="GET",
        path="/v1/receipts",
        id="listReceipts",
        tag="look",
        summary="What became of notifications published with `receipt`",
        description=(
            f"Needs the scope `{SCOPE_PUBLISH}`; of the publisher of the token. Oldest first; "
            "`next` is the `after` of the next call, also when there was nothing new."
        ),
        parameters=(
            query("after", described(ID, "the `next` of the call before")),
            _limit(receipts.PAGE, receipts.MAX_PAGE),
        ),
        answers=(
            Answer(
                status=200,
                meaning="What is new.",
                schema=ref("ReceiptPage"),
                example={
                    "receipts": [_RECEIPT],
                    "next": "1764000001200-0",
                },
            ),
        ),
        errors=WITH_TOKEN,
    ),
)
