"""The operations that register devices for pushes, and those that a push opens."""

from typing import Final

from pushsvc import errors
from pushsvc.auth.tokens import SCOPE_ADMIN, SCOPE_PUBLISH
from pushsvc.protocol.push_registering import APNS, FCM, WEB
from pushsvc.web.spec.operation import (
    ALWAYS,
    ASKING,
    DEVICE_IN_PATH,
    JSON,
    USER,
    WITH_BODY,
    Answer,
    Body,
    Operation,
)
from pushsvc.web.spec.schemas import Schema, ref

_MAY: Final = f"With the scope `{SCOPE_PUBLISH}` or `{SCOPE_ADMIN}`, or a user about itself."
_CAPABILITY: Final = (
    "Takes the `capability` of a push in place of a token, and nothing else: it is good for this "
    "notification until that expires, while the device is registered."
)
_WITH_CAPABILITY: Final = (
    *ALWAYS,
    errors.InvalidToken,
    errors.OriginRefused,
    errors.RateLimited,
    errors.Unavailable,
    errors.StoreUnavailable,
    errors.Overloaded,
)
_REGISTERED: Final = {
    "device": "phone",
    "provider": WEB,
    "registered": "2025-11-24T16:00:00.123Z",
    "expires": "2026-08-21T16:00:00.123Z",
    "host": "updates.push.services.mozilla.com",
}
_KEY: Final = (
    "BDd3_hVL9fZi9Ybo2UUzA284WG5FZR30_95YeZJsiApwXKpNcF1rRPF3foIiBHXRdJI2Qhumhf6_LFTeZaNndIo"
)
_BODIES: Final[dict[str, Schema]] = {
    WEB: {
        "provider": WEB,
        "subscription": {
            "endpoint": "https://updates.push.services.mozilla.com/wpush/v2/gAAAAABl",
            "keys": {"p256dh": _KEY, "auth": "BTBZMqHH6r4Tts7J_aSIgg"},
        },
    },
    APNS: {
        "provider": APNS,
        "token": "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0",
        "topic": "com.example.app",
        "environment": "production",
    },
    FCM: {"provider": FCM, "token": "bk3RNwTe3H0:CI2k_HHwgIpoDKCIZvvDMExUdFQ3P1"},
}

PUSHING: Final = (
    Operation(
        method="GET",
        path="/v1/push",
        id="pushProviders",
        tag="push",
        summary="By which ways devices are reached while they are away",
        description="Needs no token. Without any provider, nothing is pushed.",
        answers=(
            Answer(
                status=200,
                meaning="The providers; of Web Push the key that a page subscribes with.",
                schema=ref("PushProviders"),
                example={"providers": [FCM, WEB], WEB: {"key": _KEY}},
            ),
        ),
        errors=(*ALWAYS, errors.OriginRefused),
        security=(),
    ),
    Operation(
        method="PUT",
        path="/v1/users/{user}/devices/{device}/push",
        id="registerForPush",
        tag="push",
        summary="Register a device for pushes",
        description=(
            f"{_MAY} A device has one registration, and what is registered for another device, of "
            "whatever user, is taken from that. Do it each time the app starts: it is kept for 270 "
            "days from then, or from the last push that went out."
        ),
        parameters=(USER, DEVICE_IN_PATH),
        bodies={
            JSON: Body(
                schema=ref("RegisterForPush"),
                examples=_BODIES,
            )
        },
        answers=(
            Answer(
                status=200,
                meaning="It was registered like that before, and is for longer now.",
                schema=ref("PushRegistered"),
                example=_REGISTERED,
            ),
            Answer(
                status=201,
                meaning="It is registered.",
                schema=ref("PushRegistered"),
                example=_REGISTERED,
            ),
        ),
        errors=(*ASKING, *WITH_BODY, errors.TooManyDevices),
        meanings={
            errors.TooManyDevices: "The user has as many registered devices as one may.",
        },
    ),
    Operation(
        method="GET",
        path="/v1/users/{user}/devices/{device}/push",
        id="showPushRegistration",
        tag="push",
        summary="Whether a device is registered for pushes",
        description=f"{_MAY} Tokens, endpoints and keys are not told.",
        parameters=(USER, DEVICE_IN_PATH),
        answers=(
            Answer(
                status=200,
                meaning="It is.",
                schema=ref("PushRegistered"),
                example=_REGISTERED,
            ),
        ),
        errors=(*ASKING, errors.NotFound),
        meanings={errors.NotFound: "It is not."},
    ),
    Operation(
        method="DELETE",
        path="/v1/users/{user}/devices/{device}/push",
        id="endPushRegistration",
        tag="push",
        summary="Send a device no more pushes",
        description=f"{_MAY} As a user logs out. Repeating it does no harm.",
        parameters=(USER, DEVICE_IN_PATH),
        answers=(Answer(status=204, meaning="It is not registered."),),
        errors=ASKING,
    ),
    Operation(
        method="GET",
        path="/v1/users/{user}/devices",
        id="listDevices",
        tag="look",
        summary="The devices of a user: what each has, and how it is reached",
        description=_MAY,
        parameters=(USER,),
        answers=(
            Answer(
                status=200,
                meaning="Those that have acknowledged something, are connected or registered.",
                schema=ref("DeviceList"),
                example={
                    "devices": [
                        {
                            "device": "phone",
                            "acked": "1764000000123-0",
                            "connections": 0,
                            "push": {
                                name: value
                                for name, value in _REGISTERED.items()
                                if name != "device"
                            },
                        }
                    ]
                },
            ),
        ),
        errors=ASKING,
    ),
    Operation(
        method="GET",
        path="/v1/push/notification",
        id="pushedNotification",
        tag="push",
        summary="The text of the notification of a push",
        description=_CAPABILITY,
        answers=(
            Answer(
                status=200,
                meaning="As it is now; fields that are empty are not there.",
                schema=ref("Pushed"),
                example={
                    "id": "1764000000123-0",
                    "time": "2025-11-24T16:00:00.123Z",
                    "title": "Your order is on its way",
                    "body": "DHL brings it tomorrow.",
                    "url": "/orders/17",
                    "group": "order.shipped",
                    "urgency": "normal",
                    "badge": 2,
                    "read": False,
                    "unread": 2,
                },
            ),
        ),
        errors=(*_WITH_CAPABILITY, errors.NotFound),
        meanings={errors.NotFound: "The mailbox holds it no more."},
        security=("capability",),
    ),
    Operation(
        method="POST",
        path="/v1/push/read",
        id="readPushed",
        tag="push",
        summary="Say that the notification of a push was read",
        description=f"{_CAPABILITY} The user's connections are told.",
        answers=(
            Answer(
                status=200,
                meaning="It is done; how many are unread now.",
                schema=ref("Unread"),
                example={"unread": 1},
            ),
        ),
        errors=_WITH_CAPABILITY,
        security=("capability",),
    ),
)
