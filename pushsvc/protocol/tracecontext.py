"""W3C Trace Context, as a publish request brings it and a notification carries it on.

A body that carries one begins with it, so that looking for it is one comparison, whatever the
publisher's data holds.
"""

import re
from typing import Final

FIELD: Final = "traceparent"
"""The header of a request, the extension attribute of a CloudEvent, the field of a message."""
SAMPLED: Final = 0x01
"""The flag of a trace that its beginner records."""

_KNOWN_FLAGS: Final = 0x03  # sampled, random; others are to be cleared
_BEGINS: Final = b'"traceparent":"'
_SIZE: Final = 55

_traceparent = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-[ -~]*)?"
).fullmatch


def read(value: object) -> str:
    """A ``traceparent`` as version 00 writes it; empty where there is none or it is malformed.

    A malformed one is ignored, as the specification has it: no notification fails for its trace.
    """
    match = _traceparent(value.strip(" \t")) if isinstance(value, str) else None
    if match is None:
        return ""
    version, trace, parent, flags, more = match.groups()
    if version == "00" and more is not None:
        return ""
    return f"00-{trace}-{parent}-{int(flags, 16) & _KNOWN_FLAGS:02x}"


def is_sampled(traceparent: str) -> bool:
    """Whether spans of this trace are recorded; ``traceparent`` is one that ``read`` gave."""
    return bool(traceparent) and bool(int(traceparent[-2:], 16) & SAMPLED)


def recorded(body: bytes) -> str:
    """The context that a stored body carries, if its trace is recorded; else empty."""
    if not body.startswith(_BEGINS):
        return ""
    carried = body[len(_BEGINS) : len(_BEGINS) + _SIZE].decode("ascii", "replace")
    traceparent = read(carried)
    return traceparent if is_sampled(traceparent) else ""
