"""The one rule for names: user ids, devices and topics, and how each stands where it is written.

A name is what its owner calls it, compared byte for byte and never normalised. Identity providers
issue ``auth0|507f``, mail addresses and GUIDs in braces, so nearly everything is one. What is
stored is the **stored form**: every byte outside ``A-Z a-z 0-9 . _ - : @ =`` percent-encoded (RFC
3986, section 2.1), so that what stands in a key, a field or a position never holds what has a
meaning there: ``~ { } , % /`` and white space.
"""

import functools
import re
from typing import Final
from urllib.parse import unquote_to_bytes

from pushsvc.errors import InvalidName

MAX_NAME: Final = 256
"""Bytes of UTF-8."""

NAME_RULE: Final = f"1 to {MAX_NAME} bytes of UTF-8 without control characters"
"""The rule for user ids and devices, as told to callers."""

TOPIC_RULE: Final = f"1 to {MAX_NAME} bytes of printable UTF-8 without white space and *"
"""The rule for topics, as told to callers."""

MAX_LABEL: Final = 128
"""Characters, which are also bytes."""

LABEL_RULE: Final = f"1 to {MAX_LABEL} characters of A-Z a-z 0-9 . _ - : @ ="
"""The rule for events and collapse keys, as told to callers."""

NAMESPACE_RULE: Final = "1 to 63 characters of a-z 0-9 -, of which the first is no -"
"""The rule for namespaces, as told to callers."""

UNPRINTABLE: Final = (
    " \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
    "\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u202a-\u202e"
    "\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f"
)
"""Characters that no topic holds, as ranges: white space (categories Zs, Zl, Zp) and what gives
format to others and is not seen by itself (Cf, as of Unicode 17; joiners of emoji, too).

Written down, since what Python knows depends on its version, and nodes must agree. What is not
assigned yet is allowed: it may be an emoji of a newer phone.
"""

_ALPHABET: Final = "A-Za-z0-9._:@=-"
_PLAIN: Final = f"[{_ALPHABET}]"
# What most names are: their stored form is the name itself. fullmatch, not match with "$": the
# dollar sign would let a trailing line feed through.
_match_plain = re.compile(rf"{_PLAIN}{{1,{MAX_NAME}}}").fullmatch
_match_label = re.compile(rf"{_PLAIN}{{1,{MAX_LABEL}}}").fullmatch
_match_namespace = re.compile(r"[a-z0-9][a-z0-9-]{0,62}").fullmatch
_substitute_wide = re.compile(f"[^{_ALPHABET}]").sub
_match_encoded = re.compile(rf"(?:[!~*'(){_ALPHABET}]|%[0-9A-Fa-f]{{2}})+").fullmatch
find_stray_percent: Final = re.compile(r"%(?![0-9A-Fa-f]{2})").search
"""Finds what is not percent-encoded: it would be read as it stands."""
# Category Cc, and what a string of Python can hold that UTF-8 cannot.
_find_control = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]").search

_find_unprintable = re.compile(f"[{UNPRINTABLE}*]").search


def is_name(text: str) -> bool:
    """Whether a text is a user id or a device: see ``NAME_RULE``."""
    if _match_plain(text) is not None:
        return True
    # By characters first: what is far too long is not encoded to be counted.
    return (
        1 <= len(text) <= MAX_NAME
        and _find_control(text) is None
        and (text.isascii() or len(text.encode()) <= MAX_NAME)
    )


def is_topic(text: str) -> bool:
    """Whether a text is a topic: see ``TOPIC_RULE``."""
    return _match_plain(text) is not None or (is_name(text) and _find_unprintable(text) is None)


def require_name(text: object, what: str) -> str:
    """Check a user id or a device that came from a caller.

    Args:
        text: any decoded value; only a string can be a name.
        what: what the name stands for, as the caller knows it ("user", "device").

    Returns:
        The same text, now known to be a string and a valid name.

    Raises:
        InvalidName: the value is not a string or breaks the rule; the value is not repeated.
    """
    if isinstance(text, str) and is_name(text):
        return text
    raise InvalidName(f"{what} must be a string of {NAME_RULE}")


def require_topic(text: object) -> str:
    """Check a topic that came from a caller.

    Args:
        text: any decoded value.

    Returns:
        The same text, now known to be a string and a valid topic.

    Raises:
        InvalidName: the value is not a string or breaks the rule; the value is not repeated.
    """
    if isinstance(text, str) and is_topic(text):
        return text
    raise InvalidName(f"topic must be a string of {TOPIC_RULE}")


def require_label(text: object, what: str) -> str:
    """Check the type of an event or a collapse key, which publishers choose from ``LABEL_RULE``.

    Args:
        text: any decoded value.
        what: what it is, as the caller knows it ("event").

    Raises:
        InvalidName: the value is not a string or breaks the rule; the value is not repeated.
    """
    if isinstance(text, str) and _match_label(text) is not None:
        return text
    raise InvalidName(f"{what} must be a string of {LABEL_RULE}")


def is_namespace(text: str) -> bool:
    """Whether a text is the name of a namespace that is not the default one."""
    return _match_namespace(text) is not None


def caller(user: str, namespace: str) -> str:
    """A user among those of all namespaces; no name holds the character between them."""
    return f"{namespace}\0{user}" if namespace else user


def was_name(text: str) -> bool:
    """Whether nodes of before take a text for a name, which to them was what a label is."""
    return _match_label(text) is not None


def stored(name: str) -> str:
    """The stored form of a name: the name itself where it holds nothing to encode."""
    return name if _match_plain(name) is not None else _encoded(name)


def named(form: str) -> str:
    """The name of a stored form."""
    return form if "%" not in form else _decoded(form)


def from_percent_encoded(text: str) -> str | None:
    """The name that a text from outside stands for, percent-encoded as a client may; None for none.

    A client encodes more or less than a stored form does, such as ``encodeURIComponent``.
    """
    if _match_plain(text) is not None:
        return text
    if len(text) > 3 * MAX_NAME or _match_encoded(text) is None:
        return None
    try:
        name = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        return None
    return name if is_name(name) else None


# A topic is encoded for each of its messages.
@functools.lru_cache(maxsize=1024)
def _encoded(name: str) -> str:
    # Byte by byte: latin-1 has a character for each.
    return _substitute_wide(lambda wide: f"%{ord(wide[0]):02X}", name.encode().decode("latin-1"))


@functools.lru_cache(maxsize=1024)
def _decoded(form: str) -> str:
    return unquote_to_bytes(form).decode()
