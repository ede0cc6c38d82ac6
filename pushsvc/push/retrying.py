"""When a push provider asks to be asked again (pure)."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

MOST: Final = 86_400.0
"""Seconds that are believed of a provider that asks for more."""

_DIGITS: Final = 10
_DATE: Final = 40


def retry_after(headers: Mapping[str, str], now: float) -> float:
    """The seconds that an answer asks to wait in ``Retry-After`` (RFC 9110, 10.2.3); 0 for none.

    Args:
        headers: of the answer, with their names in lower case.
        now: Unix seconds.
    """
    asked = headers.get("retry-after", "").strip()
    if asked.isascii() and asked.isdigit() and len(asked) <= _DIGITS:
        return min(float(asked), MOST)
    if not asked or len(asked) > _DATE:
        return 0.0
    try:
        moment = parsedate_to_datetime(asked)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max((moment - datetime.fromtimestamp(now, UTC)).total_seconds(), 0.0), MOST)
