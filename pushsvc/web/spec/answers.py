"""The schemas of the HTTP API that the code has no shape for."""

import itertools
from typing import Final

from pushsvc.protocol import cloudevents, notifications
from pushsvc.protocol.notifications import MAX_BATCH
from pushsvc.protocol.push_registering import (
    APNS,
    FCM,
    MAX_APP,
    MAX_DEVICE_TOKEN,
    MAX_ENDPOINT,
    MAX_KEY,
    PROVIDERS,
    WEB,
)
from pushsvc.protocol.receipts import Status
from pushsvc.protocol.revocation import DEFAULT_TTL, MAX_TOKEN_ID, MAX_TTL
from pushsvc.web.spec import schemas
from pushsvc.web.spec.schemas import (
    BASE64,
    ID,
    LABEL,
    NAME,
    POSITION,
    TOPIC,
    Schema,
    array,
    described,
    integer,
    ref,
    text,
)


def _results(of: Schema, description: str) -> Schema:
    return schemas.record(description, {"results": array(of, "in the order given")})


_INSTANT: Final = schemas.INSTANT

_ISSUED_BEFORE: Final = integer("tokens issued up to then, in seconds since 1970", minimum=0)
_KEPT: Final = schemas.number(
    f"seconds to remember it, longer than the tokens live; {DEFAULT_TTL // 86400} days without it",
    minimum=1,
    maximum=MAX_TTL,
)

_PROVIDER: Final = schemas.choice(PROVIDERS, "a push provider")
_REGISTERED: Final = {
    "provider": _PROVIDER,
    "registered": {**_INSTANT, "description": "when that was"},
    "expires": {**_INSTANT, "description": "until when it lasts, unless a push goes out before"},
}
_HOST: Final = {"host": text("of Web Push: the push service")}


def _printable(description: str, most: int) -> Schema:
    """A text without spaces that was given to the device."""
    return text(description, pattern=f"^[!-~]{{1,{most}}}$")


_STRING: Final = {"type": "string", "pattern": r"^[^\x00-\x1f\x7f-\x9f]+$"}
_TARGETS: Final = ("pushuser", "pushtopic", "pushbroadcast")


def _all_of(*names: str) -> Schema:
    return {"required": list(names)}


_CLOUD_EVENT: Final = {
    "description": "a CloudEvent 1.0 in the JSON format; exactly one of `pushuser`, `pushtopic` "
    "and `pushbroadcast`, and at most one of `data` and `data_base64`",
    "type": "object",
    "properties": {
        "specversion": schemas.constant(cloudevents.SPECVERSION, "the version of CloudEvents"),
        "id": described(_STRING, "with `source` the identity of the event"),
        "source": described(_STRING, "what sends it"),
        "type": described(LABEL, "becomes the `event`"),
        "datacontenttype": described(_STRING, "the media type of the data; JSON without it"),
        "data": schemas.anything("JSON, or a string where the media type is another"),
        "data_base64": described(BASE64, "bytes, in place of `data`"),
        "pushuser": described(NAME, "the user whom it is for"),
        "pushtopic": described(TOPIC, "the topic whose subscribers it is for"),
        "pushbroadcast": schemas.constant(True, "it is for everyone"),
        "pushdevice": described(NAME, "with `pushuser`: the one device that it is for"),
        "pushttl": integer("`ttl`", minimum=0, maximum=notifications.MAX_TTL),
        "pushcollapsekey": described(LABEL, "`collapse_key`"),
        "pushdeliver": schemas.choice(("all", "any-device"), "`deliver`"),
        "pushephemeral": schemas.flag("`ephemeral`"),
        "pushreceipt": schemas.flag("`receipt`"),
        "pushinbox": schemas.flag("`inbox`"),
        "pushat": {**_INSTANT, "description": "`at`"},
        "traceparent": described(_STRING, "the trace of the event (Distributed Tracing extension)"),
    },
    "required": ["specversion", "id", "source", "type"],
    # By "not", as generators take "oneOf" for shapes to choose from, and these have no fields.
    "not": {
        "anyOf": [
            _all_of("data", "data_base64"),
            *(_all_of(*two) for two in itertools.combinations(_TARGETS, 2)),
            {"not": {"anyOf": [_all_of(name) for name in _TARGETS]}},
        ]
    },
    "dependentRequired": {"pushdevice": ["pushuser"]},
    "propertyNames": {"pattern": "^([a-z0-9]+|data_base64)$"},
    "additionalProperties": {
        "anyOf": [
            _STRING,
            {"type": "boolean"},
            {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
        ]
    },
}

POLLED: Final = ("notification", "ephemeral", "gap", "withdrawn", "error")
"""The messages that the answer to a poll may hold."""


def _message_name(name: str) -> str:
    return f"{name.capitalize()}Message"


SCHEMAS: Final[dict[str, Schema]] = {
    "Accepted": schemas.ACCEPTED,
    "Published": schemas.either(
        ("Accepted", "UserResults"),
        "the answer to a notification: to one user, or to a list of them",
    ),
    "Result": schemas.either(("Accepted", "Problem"), "the answer for one user of a list"),
    "UserResults": _results(ref("Result"), "an answer for each user of a list"),
    "Batch": schemas.record(
        "many notifications",
        {
            "notifications": array(
                ref("Notification"), f"at most {MAX_BATCH}", minItems=1, maxItems=MAX_BATCH
            )
        },
    ),
    "BatchResult": schemas.either(
        ("Accepted", "UserResults", "Problem"), "the answer for one notification of a batch"
    ),
    "BatchResults": _results(ref("BatchResult"), "an answer for each notification"),
    "CloudEvent": _CLOUD_EVENT,
    "Erased": schemas.record(
        "a user is erased",
        {
            "user": NAME,
            "erased": integer("how many keys Redis had of the user", minimum=0),
            "left": schemas.flag("names stay until they expire, which may not be looked for"),
        },
    ),
    "Export": schemas.record(
        "a part of what is kept of a user",
        {
            "user": NAME,
            "notifications": array(ref("Kept"), "newest first"),
            "scheduled": array(ref("Scheduled"), "the earliest first"),
            "next": {
                "anyOf": [{"type": "string"}, {"type": "null"}],
                "description": "names the next part",
            },
        },
        {
            "devices": array(ref("Place"), "of the first part: those with a place"),
            "connections": array(ref("Registration"), "of the first part: those registered"),
            "registered": array(
                ref("ReachedDevice"),
                "of the first part: the devices that are registered for pushes",
            ),
            "pushes": array(ref("PendingPush"), "of the first part: pushes that are pending"),
        },
    ),
    "ReachedDevice": schemas.record(
        "a device that is registered for pushes, without its address",
        {
            "device": NAME,
            "provider": schemas.choice(("web", "apns", "fcm"), "the way to it"),
            "registered": {**_INSTANT, "description": "when that was"},
        },
        {"host": text("of the push service (Web Push)")},
    ),
    "PendingPush": schemas.record(
        "a push that is pending",
        {"notification": ID, "at": {**_INSTANT, "description": "when it is looked at"}},
    ),
    "Place": schemas.record(
        "a device's positions",
        {
            "device": NAME,
            **{
                name: {"anyOf": [ID, {"type": "null"}], "description": what}
                for name, what in (
                    ("acked", "up to where it has acknowledged"),
                    ("began", "where it began"),
                    ("broadcast", "its position in the broadcast"),
                )
            },
        },
    ),
    "Registration": schemas.record(
        "a connection that is registered",
        {
            "connection": schemas.text("its id"),
            "device": NAME,
            "since": {**_INSTANT, "description": "when it was opened"},
        },
    ),
    "Scheduled": schemas.record(
        "a publish that waits",
        {
            "id": schemas.SCHEDULED_ID,
            "at": {**_INSTANT, "description": "when it goes out"},
            "data": schemas.anything("what was published"),
        },
        {
            "device": described(NAME, "the one device that it is for"),
            "collapse_key": schemas.FIELDS["collapse_key"],
            "by": described(NAME, "who published it"),
            "event": schemas.FIELDS["event"],
            "from": described(NAME, "the user that published it"),
            "encoding": schemas.FIELDS["encoding"],
            "traceparent": schemas.TRACEPARENT,
        },
    ),
    "NotificationPage": schemas.record(
        "what a mailbox keeps, newest first",
        {
            "notifications": array(ref("Kept"), "newest first"),
            "next": {"anyOf": [ID, {"type": "null"}], "description": "where the next page begins"},
            "unread": schemas.UNREAD,
        },
    ),
    "Kept": schemas.record(
        "a notification that is kept",
        {
            "id": ID,
            "time": schemas.TIME,
            "expires": {**_INSTANT, "description": "until when it is kept"},
            "data": schemas.anything("what was published"),
            "acked": array(ref("AckedBy"), "who acknowledged it"),
            "read": schemas.flag("whether the user has seen it"),
            "archived": schemas.flag("whether the user is done with it"),
        },
        {
            "inbox": schemas.SIGNAL,
            "ttl": schemas.LIFETIME,
            "device": described(NAME, "the one device that it is for"),
            "event": schemas.FIELDS["event"],
            "from": described(NAME, "the user that published it"),
            "encoding": schemas.FIELDS["encoding"],
            "traceparent": schemas.TRACEPARENT,
        },
    ),
    "AckedBy": schemas.record(
        "a device that acknowledged a notification",
        {
            "device": NAME,
            "time": {
                "type": ["string", "null"],
                "format": "date-time",
                "description": "when, if that is still known",
            },
        },
    ),
    "Recalled": schemas.record(
        "a notification that was recalled",
        {
            "id": described(schemas.RECALLABLE, "as it was asked for"),
            "acked": array(NAME, "the devices that had acknowledged it"),
        },
        {
            "cancelled": schemas.flag("true where it was scheduled, and never goes out"),
            "notification": described(ID, "what had become of something scheduled"),
        },
    ),
    "UserPresence": schemas.record(
        "where a user is connected",
        {
            "user": NAME,
            "online": schemas.flag("whether any device is connected"),
            "devices": array(ref("PresentDevice"), "the devices"),
        },
    ),
    "PresentDevice": schemas.record(
        "a device that is connected",
        {
            "device": NAME,
            "connections": integer("how many it holds", minimum=1),
            "since": {**_INSTANT, "description": "when the longest of them began"},
        },
    ),
    "PushProviders": schemas.record(
        "by which ways devices are reached while they are away",
        {"providers": array(_PROVIDER, "those that this server has; none, and nothing is pushed")},
        {"web": ref("WebPushKey")},
    ),
    "WebPushKey": schemas.record(
        "what a page needs to subscribe",
        {"key": text("the `applicationServerKey`: a point of P-256, base64url")},
    ),
    "RegisterForPush": schemas.either(
        ("RegisterWeb", "RegisterApns", "RegisterFcm"), "where a device is reached"
    ),
    "RegisterWeb": schemas.record(
        "a subscription of a browser",
        {
            "provider": schemas.constant(WEB, "Web Push"),
            "subscription": ref("PushSubscription"),
        },
        {"key": _printable("the `applicationServerKey` that it was made with", MAX_KEY)},
    ),
    "PushSubscription": {
        **schemas.record(
            "what `PushSubscription.toJSON()` gives; what else it has is passed over",
            {
                "endpoint": _printable("the URL that the push service gave", MAX_ENDPOINT),
                "keys": ref("PushKeys"),
            },
        ),
        "additionalProperties": True,
    },
    "PushKeys": {
        **schemas.record(
            "the keys of a subscription; others are passed over",
            {
                "p256dh": _printable("its public key, base64url", MAX_KEY),
                "auth": _printable("its secret, base64url", MAX_KEY),
            },
        ),
        "additionalProperties": True,
    },
    "RegisterApns": schemas.record(
        "an app on a device of Apple",
        {
            "provider": schemas.constant(APNS, "Apple's push service"),
            "token": _printable("the device token, hexadecimal", MAX_DEVICE_TOKEN),
            "topic": _printable("the app's bundle id", MAX_APP),
        },
        {
            "environment": schemas.choice(
                ("production", "sandbox"), "`sandbox` for a development build"
            )
        },
    ),
    "RegisterFcm": schemas.record(
        "an app that Firebase Cloud Messaging reaches",
        {
            "provider": schemas.constant(FCM, "Firebase Cloud Messaging"),
            "token": _printable("the registration token of the app", MAX_DEVICE_TOKEN),
        },
    ),
    "PushRegistered": schemas.record(
        "a device that is registered for pushes", {"device": NAME, **_REGISTERED}, _HOST
    ),
    "DeviceList": schemas.record(
        "the devices of a user", {"devices": array(ref("KnownDevice"), "in order of their names")}
    ),
    "KnownDevice": schemas.record(
        "a device of a user",
        {
            "device": NAME,
            "acked": {
                "anyOf": [ID, {"type": "null"}],
                "description": "up to where it has acknowledged",
            },
            "connections": integer("how many it holds", minimum=0),
            "push": ref("DevicePush"),
        },
    ),
    "DevicePush": {
        **schemas.record("how it is registered for pushes; null where not", _REGISTERED, _HOST),
        "type": ["object", "null"],
    },
    "Pushed": schemas.record(
        "the notification of a push",
        {
            "id": ID,
            "time": schemas.TIME,
            "read": schemas.flag("whether the user has seen it"),
            "unread": schemas.UNREAD,
        },
        {
            "title": text("in one line"),
            "body": text("what it says"),
            "url": text("what a tap opens"),
            "icon": text("a picture"),
            "tag": text("a newer one with the same tag takes its place"),
            "group": described(LABEL, "the event that it is of"),
            "urgency": schemas.choice(("very-low", "low", "normal", "high"), "how urgent it is"),
            "badge": integer("the number at the app's icon", minimum=0),
        },
    ),
    "TopicPresence": schemas.record(
        "who is subscribed to a topic",
        {
            "topic": TOPIC,
            "users": array(NAME, "the users, or some of a large topic"),
            "count": integer("how many", minimum=0),
        },
        {"sample": schemas.constant(True, "the topic is large: more than 1000 are there")},
    ),
    "ReceiptPage": schemas.record(
        "what became of notifications, oldest first",
        {
            "receipts": array(ref("Receipt"), "oldest first"),
            "next": described(ID, "the `after` of the next call"),
        },
        {
            "gap": schemas.choice(
                ("trimmed", "reset"),
                "receipts after `after` are gone: `trimmed` by the bound or the retention; "
                "`reset`: the server lost data",
            )
        },
    ),
    "Receipt": schemas.record(
        "what became of one notification for one user; told once",
        {
            "id": described(ID, "of the receipt"),
            "type": schemas.constant("receipt"),
            "time": {**_INSTANT, "description": "when the receipt was written"},
            "notification": ID,
            "user": NAME,
            "status": schemas.choice(
                (status.value for status in Status),
                "how it ended: `acked` by a device, the first one; `expired`; `trimmed` by the "
                "mailbox's bound; `replaced` by a newer one with the same collapse key; "
                "`recalled`. Besides that: `pushed` and `push_failed`, once for each device that "
                "was to get its push; `read` once it was marked as read or archived",
            ),
            "at": {**_INSTANT, "description": "when that was"},
        },
        {
            "device": described(
                NAME, "which one acknowledged it, where that is known, or was to get the push"
            ),
            "reason": text("of a push: the push provider, and why it failed"),
            "publisher": described(NAME, "in a webhook: whose receipt it is"),
            "namespace": text("in a webhook: the publisher's, unless it is the default one"),
        },
    ),
    "Unread": schemas.record("what is unread", {"unread": schemas.UNREAD}),
    "Poll": schemas.record(
        "messages",
        {
            "messages": array(ref("Message"), "in order"),
            "position": described(POSITION, "the `after` of the next request"),
            "unread": schemas.UNREAD,
        },
    ),
    "Message": schemas.either(
        map(_message_name, POLLED), "a message, as on the socket (see the AsyncAPI document)"
    ),
    **{_message_name(name): schemas.SERVER_MESSAGES[name] for name in POLLED},
    "Acked": schemas.record("a device's position", {"acked": ID}),
    "Ticket": schemas.record(
        "a ticket",
        {
            "ticket": text("for `?ticket=`, once"),
            "expires_in": integer("seconds", minimum=1),
        },
    ),
    "Disconnect": schemas.record("how long to remember it", {}, {"ttl": _KEPT}),
    "WebhookMessage": schemas.record(
        "what became of a notification, as it is posted to the webhook",
        {
            "type": schemas.constant("receipt"),
            "timestamp": {**_INSTANT, "description": "when the receipt was written"},
            "data": ref("Receipt"),
        },
    ),
    "Revoke": schemas.either(
        ("RevokeUser", "RevokeToken", "RevokeEveryone"),
        "which tokens: a user's, the one of an id, or everyone's",
    ),
    "RevokeUser": schemas.record(
        "a user's; those issued until 10 seconds from now without `issued_before`",
        {"user": NAME},
        {"issued_before": _ISSUED_BEFORE, "ttl": _KEPT},
    ),
    "RevokeToken": schemas.record(
        "one token",
        {"jti": text("its id", minLength=1, maxLength=MAX_TOKEN_ID)},
        {"ttl": _KEPT},
    ),
    "RevokeEveryone": schemas.record(
        "everyone's", {"issued_before": _ISSUED_BEFORE}, {"ttl": _KEPT}
    ),
    "Revocation": schemas.record(
        "tokens that are refused",
        {"expires_at": integer("until when, in seconds since 1970")},
        {
            "user": described(NAME, "whose; without it and `jti` everyone's"),
            "jti": text("the id of the token"),
            "issued_before": integer("tokens issued up to then, in seconds since 1970"),
        },
    ),
    "RevocationList": schemas.record(
        "revocations", {"revocations": array(ref("Revocation"), "newest first")}
    ),
}
"""The schemas that the code has no shape for."""
