"""The read state of a notification in a mailbox: unread, read or archived.

It is the user's, whatever device changes it. Acknowledging says that a device holds a notification;
this is what the person has made of it.
"""

import enum
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from pushsvc.errors import InvalidRequest
from pushsvc.protocol import ids as feed_ids

MAX_IDS: Final = 1000
"""Most notifications that one change names."""
LOOKED_AT_ONCE: Final = 100
"""Notifications that a change looks at which count as one more message of the client."""

UNREAD: Final = "unread"
READ: Final = "read"
ARCHIVED: Final = "archived"


class Verb(enum.StrEnum):
    """What becomes of a notification."""

    READ = "read"
    """Read, where it was unread."""
    UNREAD = "unread"
    """Unread, whatever it was."""
    ARCHIVE = "archive"
    """Archived, and thereby read."""
    UNARCHIVE = "unarchive"
    """Read, where it was archived."""


class Change(NamedTuple):
    """A change of the read state of some notifications, or of all up to one."""

    verb: Verb
    ids: Sequence[int] = ()
    until: int | None = None
    """The last of all that are meant; then no ids are named."""

    def to_json(self) -> dict[str, Any]:
        """The fields of the message that asks for it, and of the one that tells of it."""
        if self.until is not None:
            return {"type": self.verb, "until": feed_ids.render(self.until)}
        return {"type": self.verb, "ids": [feed_ids.render(each) for each in self.ids]}


def change_from(verb: Verb, ids: Sequence[str] | None, until: str | None) -> Change:
    """The change that a client asks for.

    Args:
        verb: what is to become of them.
        ids: which; none to change nothing, and ask how many are unread.
        until: the last of all that are meant.

    Raises:
        InvalidRequest: there are both ids and a last one, neither, too many, or one that is no id.
    """
    if (ids is None) == (until is None):
        raise InvalidRequest(f'"{verb}" needs exactly one of "ids" and "until"')
    if until is not None:
        return Change(verb, until=feed_ids.parse_untrusted(until))
    if ids is not None and len(ids) > MAX_IDS:
        raise InvalidRequest(f'"ids" names at most {MAX_IDS} notifications: split the list')
    return Change(verb, [feed_ids.parse_untrusted(each) for each in ids or ()])
