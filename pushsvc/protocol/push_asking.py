"""What a publish says of a push: its shape, and what of it is kept (pure)."""

import re
from typing import Final, Literal

import msgspec

from pushsvc.errors import InvalidRequest
from pushsvc.protocol.push import PushText, Urgency

MIN_AFTER: Final = 0.5
"""Seconds: what is sooner counts as this."""
MAX_AFTER: Final = 30 * 86_400
"""Seconds."""
MAX_TEXT: Final = 2600
"""Most bytes of all that is shown, as JSON: a payload has an id and a capability besides."""
MAX_BADGE: Final = 2**31 - 1
MOST_BYTES: Final = {"title": 256, "body": 2000, "url": 1024, "icon": 1024}

_control = re.compile("[\x00-\x1f\x7f-\x9f]").search
_address = re.compile(r"https?://[^/]|/(?![/\\])").match
_encode: Final = msgspec.json.Encoder().encode


class PushAsked(msgspec.Struct, forbid_unknown_fields=True):
    """The member ``push`` of a notification; ``after`` is in seconds."""

    after: int | float | None = None
    title: str = ""
    body: str = ""
    url: str = ""
    icon: str = ""
    badge: int | Literal["unread"] | None = None
    urgency: Urgency = "normal"


def asked(push: PushAsked, default: float | None) -> tuple[bytes, float]:
    """Check what is asked for.

    Args:
        push: as it was published.
        default: seconds until a push that does not say; None where each has to.

    Returns:
        What is kept of it (``PushText`` as JSON), and after how many seconds it goes out.

    Raises:
        InvalidRequest: a value is too long, out of its range, or missing.
    """
    after = default if push.after is None else push.after
    if after is None:
        raise InvalidRequest(
            '"push" needs "after": the seconds that a device has to acknowledge the notification;'
            " this server sets none for all (PUSH_AFTER_SECONDS)"
        )
    if not 0 <= after <= MAX_AFTER:
        raise InvalidRequest(f'"after" of a push is a number of seconds from 0 to {MAX_AFTER}')
    for name, most in MOST_BYTES.items():
        _check_text(name, getattr(push, name), most)
    for name, value in (("url", push.url), ("icon", push.icon)):
        if value and not _address(value):
            raise InvalidRequest(
                f'"{name}" of a push begins with "https://", "http://" or a single "/"'
            )
    if isinstance(push.badge, int) and not 0 <= push.badge <= MAX_BADGE:
        raise InvalidRequest(f'"badge" of a push is "unread" or a number from 0 to {MAX_BADGE}')
    badge = "" if push.badge is None else push.badge
    text = PushText(push.title, push.body, push.url, push.icon, badge, push.urgency)
    kept = _encode(text)
    if len(kept) > MAX_TEXT:
        raise InvalidRequest(
            f"what a push shows takes {len(kept)} bytes as JSON, at most {MAX_TEXT} are sent: "
            "shorten it; the data of the notification may say more"
        )
    return kept, max(MIN_AFTER, after)


def _check_text(name: str, text: str, most: int) -> None:
    size = len(text.encode())
    if size > most:
        raise InvalidRequest(f'"{name}" of a push takes {size} bytes, at most {most} are shown')
    if _control(text.replace("\n", "") if name == "body" else text):
        raise InvalidRequest(f'"{name}" of a push holds a control character: take it out')
