"""The one rule for names: user ids, devices, topics and events."""

import re
from typing import Final

from pushsvc.errors import InvalidName

MAX_NAME: Final = 128
"""Characters, which are also bytes: names are ASCII."""

NAME_RULE: Final = f"1 to {MAX_NAME} characters of A-Z a-z 0-9 . _ - : @ ="
"""The rule as told to callers."""

# Names become parts of Redis keys, header values and log lines. The alphabet therefore leaves out
# braces (Redis Cluster hash tags), control characters, white space and everything past ASCII.
# fullmatch, not match with "$": the dollar sign would let a trailing line feed through.
_match = re.compile(rf"[A-Za-z0-9._:@=-]{{1,{MAX_NAME}}}").fullmatch


def is_name(text: str) -> bool:
    """Whether the text is a valid name: 1 to 128 characters of ``A-Z a-z 0-9 . _ - : @ =``."""
    return _match(text) is not None


def require_name(text: object, what: str) -> str:
    """Check a name that came from a caller.

    Args:
        text: any decoded value; only a string can be a name.
        what: what the name stands for, as the caller knows it ("user", "topic").

    Returns:
        The same text, now known to be a string and a valid name.

    Raises:
        InvalidName: the value is not a string or breaks the rule; the value is not repeated.
    """
    if isinstance(text, str) and is_name(text):
        return text
    raise InvalidName(f"{what} must be a string of {NAME_RULE}")
