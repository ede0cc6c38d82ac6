"""Pushes to devices that are away: what publishers and devices say of them (pure)."""

from typing import Final, Literal

import msgspec

ATTEMPT_SECONDS: Final = 6.0
"""Most seconds of one attempt, with all that belongs to it."""
MAX_PAYLOAD: Final = 3000
"""Most bytes of what a provider is given of a notification, before encryption."""
MAX_DEVICES: Final = 32
"""Most devices of a user that are registered for pushes."""
REGISTERED_SECONDS: Final = 270 * 86_400
"""How long a registration lasts that nobody renews and nothing was sent to."""

Urgency = Literal["very-low", "low", "normal", "high"]


class PushText(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a person is shown of a notification, as it is kept until the push goes out."""

    title: str = ""
    body: str = ""
    url: str = ""
    icon: str = ""
    badge: int | Literal["unread", ""] = ""
    """The number at the app's icon: that, or how many are unread then; empty leaves it."""
    urgency: Urgency = "normal"


class PushRegistration(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where one device of a user is reached while it is away, as Redis keeps it.

    Args:
        id: random, anew with each registration.
        provider: the way to it.
        address: the endpoint of a subscription (Web Push), or the token of the device.
        p256dh: of a subscription: its public key, as it came (base64url).
        auth: of a subscription: its secret, as it came (base64url).
        vapid_key: of a subscription: the public key that it was made with (base64url); empty where
            that is not known.
        topic: of APNs: the app's bundle id.
        sandbox: of APNs: whether the app is a development build.
        at: when it was made, in milliseconds since the epoch by Redis time.
        token_key: what the token that made it is revoked by (``revocation.token_key``).
        issued: when that token was issued, in Unix seconds.
    """

    id: str
    provider: Literal["web", "apns", "fcm"]
    address: str
    p256dh: str = ""
    auth: str = ""
    vapid_key: str = ""
    topic: str = ""
    sandbox: bool = False
    at: int = 0
    token_key: int = 0
    issued: int = 0
