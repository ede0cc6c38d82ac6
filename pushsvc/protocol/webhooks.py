"""Standard Webhooks (standardwebhooks.com): what is signed and how, and when to try again.

Pure: time and chance are passed in.
"""

import base64
import email.utils
import hashlib
import hmac
import re
from collections.abc import Mapping
from enum import Enum
from typing import Final

import msgspec

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what secrets begin with
MIN_SECRET: Final = 24
MAX_SECRET: Final = 64
"""Bytes of a secret."""

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 3600.0
"""Seconds between two attempts, at most; twice as many after each failure until then."""
LONGEST_RETRY_AFTER: Final = 86_400.0
"""Seconds that a receiver can ask for at most."""
GIVE_UP_AFTER: Final = 3 * 86_400.0
"""Seconds after which a message that cannot be delivered is given up."""

_SECONDS = re.compile(r"\d{1,9}", re.ASCII)


class Verdict(Enum):
    """What an attempt to deliver came to."""

    DELIVERED = "delivered"
    RETRY = "retry"
    GONE = "gone"
    """The receiver wants no more of them, at this address."""


def secret_bytes(text: str) -> bytes:
    """The key in a secret.

    Raises:
        ValueError: the text is not ``whsec_`` and base64 of 24 to 64 bytes.
    """
    try:
        key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError:
        key = b""
    if not text.startswith(SECRET_PREFIX) or not MIN_SECRET <= len(key) <= MAX_SECRET:
        raise ValueError(
            f"is not {SECRET_PREFIX} and the base64 of {MIN_SECRET} to {MAX_SECRET} random bytes"
        )
    return key


def message_id(feed: str, entry_id: int) -> str:
    """The id of a message: the same for each attempt, and no other message's.

    An id holds no full stop, since one separates what is signed.
    """
    return "msg_" + hashlib.sha256(f"{feed} {entry_id}".encode()).hexdigest()[:32]


def payload(kind: str, timestamp: str, data: bytes) -> bytes:
    """The body of a message.

    Args:
        kind: what happened.
        timestamp: when, as in RFC 3339.
        data: a JSON object about it.
    """
    fields = {"type": kind, "timestamp": timestamp, "data": msgspec.Raw(data)}
    return msgspec.json.encode(fields)


def headers(secret: bytes, message: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of an attempt.

    Args:
        secret: the key.
        message: the message's id.
        timestamp: of the attempt, in Unix seconds.
        body: the payload.
    """
    signed = b"%b.%d.%b" % (message.encode(), timestamp, body)
    signature = base64.b64encode(hmac.digest(secret, signed, "sha256")).decode()
    return {
        "Content-Type": "application/json",
        "webhook-id": message,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{signature}",
    }


def verdict(status: int) -> Verdict:
    """What an HTTP status says about an attempt; redirects are not followed."""
    if 200 <= status <= 299:
        return Verdict.DELIVERED
    return Verdict.GONE if status == 410 else Verdict.RETRY


def pause(failures: int, chance: float, asked: float = 0.0) -> float:
    """Seconds until the next attempt: exponential backoff with full jitter.

    Args:
        failures: how many attempts have failed, at least one.
        chance: a random number from 0 to 1.
        asked: seconds that the receiver asked for.
    """
    most = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 32))
    return max(chance * most, min(asked, LONGEST_RETRY_AFTER))


def retry_after(answer: Mapping[str, str], now: float) -> float:
    """Seconds that an answer asks to wait for (RFC 9110, section 10.2.3); 0 if it does not.

    Args:
        answer: its headers.
        now: Unix seconds.
    """
    value = answer.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
        return max(0.0, date.timestamp() - now)
    except (ValueError, OverflowError):
        return 0.0
