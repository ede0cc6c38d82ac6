"""Has what a provider is given of a notification fit into what it takes (pure)."""

from collections.abc import Callable
from typing import Final

import msgspec

from pushsvc.protocol.push import MAX_PAYLOAD
from pushsvc.push.provider import PushMessage

_MARK: Final = "…"
"""What stands where the rest of a body was left out."""


def fit(
    message: PushMessage, encode: Callable[[PushMessage], bytes], most: int = MAX_PAYLOAD
) -> bytes:
    """What ``encode`` makes of a message, with as much of it as there is room for.

    The body is shortened first; where that is not enough, ids only are left, and at last nothing
    but the notification's own id.

    Args:
        message: what a device is to be told.
        encode: makes JSON of it, in which a body stands once.
        most: bytes that may be made.
    """
    payload = encode(message)
    if len(payload) <= most:
        return payload
    if message.text is not None:
        body = shortened(message.text.body, len(payload) - most)
        if body:
            text = msgspec.structs.replace(message.text, body=body)
            return encode(message._replace(text=text))
        payload = encode(message.ids_only())
        if len(payload) <= most:
            return payload
    return encode(message.ids_only()._replace(capability="", tag="", group=""))


def shortened(body: str, excess: int) -> str:
    """A text that takes less room in JSON, cut between two characters; empty if that is too much.

    Args:
        body: the text.
        excess: the bytes that are too many.
    """
    excess += len(_MARK.encode())
    end = len(body)
    while excess > 0 and end > 0:
        end -= 1
        excess -= len(msgspec.json.encode(body[end])) - 2  # without the quotes
    kept = body[:end].rstrip()
    return kept + _MARK if kept else ""
