"""What push providers say of a refusal (pure)."""

from collections.abc import Mapping
from typing import Any

import msgspec


def said(body: bytes) -> Mapping[str, Any]:
    """The JSON object in the body of an answer; empty where that is anything else.

    Args:
        body: as it came, bounded.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
