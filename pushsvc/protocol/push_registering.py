"""How devices say where they are reached while they are away (pure)."""

import secrets
from collections.abc import Collection
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import msgspec

from pushsvc.errors import InvalidRequest
from pushsvc.protocol import encoding
from pushsvc.protocol.push import PushRegistration

MAX_ENDPOINT: Final = 2048
"""Most characters of a subscription's endpoint."""
MAX_DEVICE_TOKEN: Final = 4096
"""Most characters of what APNs or FCM know a device by."""
MAX_APP: Final = 255
"""Most characters of an app's bundle id."""
MAX_KEY: Final = 128
"""Most characters of a key of a subscription; an uncompressed point of P-256 has 87."""

WEB: Final = "web"
APNS: Final = "apns"
FCM: Final = "fcm"
PROVIDERS: Final = (WEB, APNS, FCM)
"""All that there are, of which a server may have some."""

_ID_BYTES: Final = 9


class Keys(msgspec.Struct, frozen=True):
    """The keys of a subscription; others than these are passed over."""

    p256dh: str
    auth: str


class Subscription(msgspec.Struct, frozen=True):
    """What ``PushSubscription.toJSON()`` gives in a browser; what else it has is passed over."""

    endpoint: str
    keys: Keys


class OfWeb(msgspec.Struct, frozen=True, tag_field="provider", tag=WEB, forbid_unknown_fields=True):
    """A subscription of a browser, and the key that it was made with."""

    subscription: Subscription
    key: str = ""


class OfApns(
    msgspec.Struct, frozen=True, tag_field="provider", tag=APNS, forbid_unknown_fields=True
):
    """An app on a device of Apple."""

    token: str
    topic: str
    environment: Literal["production", "sandbox"] = "production"


class OfFcm(msgspec.Struct, frozen=True, tag_field="provider", tag=FCM, forbid_unknown_fields=True):
    """An app that Firebase Cloud Messaging reaches."""

    token: str


def registration_from(
    value: Any, offered: Collection[str], *, at: int, token_key: int, issued: int
) -> PushRegistration:
    """The registration that a request asks for.

    Args:
        value: the parsed body.
        offered: the providers that this server has.
        at: the time, in milliseconds since the epoch.
        token_key: what the token of the request is revoked by.
        issued: when that token was issued, in Unix seconds; 0 where it does not say.

    Raises:
        InvalidRequest: it has not the documented shape, or is for another provider.
    """
    _check_provider(value, offered)
    asked: OfWeb | OfApns | OfFcm = encoding.shape(value, OfWeb | OfApns | OfFcm)  # type: ignore[arg-type]
    made: dict[str, Any] = {
        "id": secrets.token_urlsafe(_ID_BYTES), "at": at, "token_key": token_key, "issued": issued,
    }  # fmt: skip
    match asked:
        case OfWeb(Subscription(endpoint, Keys(p256dh, auth)), key):
            return PushRegistration(
                provider=WEB,
                address=_text(endpoint, "subscription.endpoint", MAX_ENDPOINT),
                p256dh=_text(p256dh, "subscription.keys.p256dh", MAX_KEY),
                auth=_text(auth, "subscription.keys.auth", MAX_KEY),
                vapid_key=_text(key, "key", MAX_KEY) if key else "",
                **made,
            )
        case OfApns(token, topic, environment):
            return PushRegistration(
                provider=APNS,
                address=_text(token, "token", MAX_DEVICE_TOKEN),
                topic=_text(topic, "topic", MAX_APP),
                sandbox=environment == "sandbox",
                **made,
            )
        case OfFcm(token):
            return PushRegistration(
                provider=FCM, address=_text(token, "token", MAX_DEVICE_TOKEN), **made
            )


def host_of(registration: PushRegistration) -> str:
    """The host of a subscription's push service; empty for what has no endpoint."""
    return (urlsplit(registration.address).hostname or "") if registration.provider == WEB else ""


def _check_provider(value: Any, offered: Collection[str]) -> None:
    """Check that this server has the provider that a body names."""
    if not offered:
        raise InvalidRequest(
            "this server reaches no devices that are away: set PUSHSVC_PUSH_VAPID_KEY_FILE,"
            " PUSHSVC_PUSH_APNS_KEY_FILE or PUSHSVC_PUSH_FCM_CREDENTIALS_FILE on it"
        )
    if isinstance(value, dict) and value.get("provider") not in list(offered):
        raise InvalidRequest(
            f'"provider" is {" or ".join(offered)}: this server has no other, see GET /v1/push'
        )


def _text(text: str, name: str, most: int) -> str:
    """A text of a request that is to be printable ASCII without spaces.

    Raises:
        InvalidRequest: it is not, or is empty or too long; it is not repeated, as a secret.
    """
    if not (1 <= len(text) <= most and text.isascii() and text.isprintable() and " " not in text):
        raise InvalidRequest(
            f'"{name}" has 1 to {most} printable ASCII characters: send it as it was given'
        )
    return text
