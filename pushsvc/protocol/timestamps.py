"""Times as they are written (RFC 3339): UTC, with milliseconds; and as callers write them."""

import functools
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import msgspec

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_Aware = Annotated[datetime, msgspec.Meta(tz=True)]


@functools.lru_cache(maxsize=64)
def _second(since_epoch: int) -> str:
    """A time without its fraction, which most notifications of a moment share."""
    return datetime.fromtimestamp(since_epoch, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def rfc3339(milliseconds: int) -> str:
    """A time, given in milliseconds since the epoch."""
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


def from_rfc3339(text: str) -> int:
    """The first whole millisecond since the epoch that is not before a time.

    Raises:
        ValueError: the text is not a time of RFC 3339, or is a leap second.
    """
    time: datetime = msgspec.convert(text, _Aware)
    return -((_EPOCH - time) // _MILLISECOND)
