"""The feeds: everything that can be listened to, each under one name.

Names of users, topics and publishers hold no braces, so a feed's name can stand in a key as it is.
"""

from typing import Any, Final

MAILBOX: Final = "u:"
TOPIC: Final = "t:"
BROADCAST: Final = "b"
"""The feed that everyone listens to."""
RECEIPTS: Final = "r:"


def mailbox(user: str) -> str:
    """The feed of a user's mailbox."""
    return MAILBOX + user


def topic(name: str) -> str:
    """The feed of a topic."""
    return TOPIC + name


def receipts(publisher: str) -> str:
    """The feed of a publisher's receipts."""
    return RECEIPTS + publisher


def name_of(feed: str) -> str:
    """The user, topic or publisher of a feed."""
    return feed[2:]


def by_node(feed: str) -> bool:
    """Whether whole nodes listen to a feed, and not single connections."""
    return not feed.startswith(MAILBOX)


def fields_of(feed: str) -> dict[str, Any]:
    """What a message says of its feed; nothing for a mailbox."""
    if feed.startswith(TOPIC):
        return {"topic": name_of(feed)}
    return {"broadcast": True} if feed == BROADCAST else {}
