"""Feed ids: ``<milliseconds>-<sequence>`` on the wire and in Redis, one integer in memory.

As an integer an id compares and hashes at the price of an ``int``, and an idle connection's ids
take no string each.
"""

import re

from pushsvc.errors import InvalidRequest

START = 0
"""The position before the first entry of every feed, ``0-0``."""

_SHIFT = 64
_SEQUENCE = (1 << _SHIFT) - 1
_FORM = re.compile(r"(?:0|[1-9]\d{0,14})-(?:0|[1-9]\d{0,18})", re.ASCII)


def parse(text: bytes | str) -> int:
    """Read an id that Redis wrote.

    Raises:
        ValueError: the text has another form.
    """
    if isinstance(text, str):
        text = text.encode()
    milliseconds, _, sequence = text.partition(b"-")
    return int(milliseconds) << _SHIFT | int(sequence)


def parse_untrusted(text: str) -> int:
    """Read an id that a client wrote.

    Raises:
        InvalidRequest: the text is not an id.
    """
    if not _FORM.fullmatch(text):
        raise InvalidRequest("an id looks like 1764000000000-0: use one that was delivered")
    return parse(text)


def render(value: int) -> str:
    """The id as clients and Redis write it."""
    return f"{value >> _SHIFT}-{value & _SEQUENCE}"


def milliseconds(value: int) -> int:
    """When the entry was published, in milliseconds since the epoch, by Redis time."""
    return value >> _SHIFT
