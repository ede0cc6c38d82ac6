"""Receipts: what became of a notification, as its publisher reads it."""

from enum import StrEnum
from typing import Final

import msgspec

from pushsvc.protocol import ids
from pushsvc.protocol.timestamps import rfc3339

SHORTEST_LOOK: Final = 60.0
LONGEST_LOOK: Final = 3600.0
"""Seconds between two looks at a mailbox that owes receipts, whoever else may call for one."""

_encode = msgspec.json.Encoder().encode


class Status(StrEnum):
    """What became of it for one user; exactly one of the first five is told."""

    ACKED = "acked"
    """A device acknowledged it, the first one to do so."""
    EXPIRED = "expired"
    """Its time to live, or the retention, passed first."""
    TRIMMED = "trimmed"
    """Newer notifications took its room in the mailbox."""
    REPLACED = "replaced"
    """A newer one with the same collapse key took its place."""
    RECALLED = "recalled"
    """It was recalled."""
    PUSHED = "pushed"
    """A push provider took the push for a device, once for each device."""
    PUSH_FAILED = "push_failed"
    """The push for a device went to nobody, once for each device."""
    READ = "read"
    """It was marked as read, or archived."""


def body(
    notification: int, user: str, status: Status, at: int, device: str, reason: str = ""
) -> bytes:
    """What of a receipt is stored: the end of a JSON object.

    Args:
        notification: its id.
        user: whose mailbox it was in.
        status: how it ended.
        at: when, in milliseconds since the epoch.
        device: which one acknowledged it, or was to get the push; empty if none did, or it is not
            known.
        reason: of a push: the push provider, and why it failed.
    """
    fields = {"notification": ids.render(notification), "user": user, "status": status.value}
    if device:
        fields["device"] = device
    if reason:
        fields["reason"] = reason
    return _encode(fields | {"at": rfc3339(at)})[1:]


def receipt(receipt_id: int, stored: bytes, **fields: str) -> bytes:
    """One receipt as it is read; ``stored`` is what ``body`` made."""
    head = {
        "id": ids.render(receipt_id),
        "type": "receipt",
        "time": rfc3339(ids.milliseconds(receipt_id)),
        **fields,
    }
    return _encode(head)[:-1] + b"," + stored


def next_look(now: int, earliest_expiry: int, newest: int) -> float:
    """Seconds until a mailbox with open receipts is worth another look.

    An ack calls for a look itself; the node that should see to it may die before it does. That is
    likeliest soon after the notification, so the looks get rarer.

    Args:
        now: milliseconds since the epoch.
        earliest_expiry: of those that are open, the same.
        newest: when the newest of them was published, the same.
    """
    age = (now - newest) / 1000
    look = min(max(age, SHORTEST_LOOK), LONGEST_LOOK)
    return min(max(0.0, (earliest_expiry - now) / 1000), look)
