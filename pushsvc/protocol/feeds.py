"""The feeds: everything that can be listened to, each under one name.

A feed's name is its kind, the namespace unless that is the default one, and the stored form of
the user, topic or publisher: ``u:42``, ``u:acme/42``, ``t:scores.nba``, ``b``, ``b:acme/``. Stored
forms and namespaces hold neither braces nor a slash, so a feed's name can stand in a key as it is,
and those of two namespaces are never the same. Clients are told no namespace: to them their own
feeds are called as those of the default namespace are.
"""

import sys
from typing import Any, Final

from pushsvc.protocol.names import named, stored

MAILBOX: Final = "u:"
TOPIC: Final = "t:"
BROADCAST: Final = "b"
"""The feed that everyone of the default namespace listens to; what those of others begin with."""
RECEIPTS: Final = "r:"


def mailbox(user: str, namespace: str = "") -> str:
    """The feed of a user's mailbox."""
    return f"{MAILBOX}{namespace}/{stored(user)}" if namespace else MAILBOX + stored(user)


def topic(name: str, namespace: str = "") -> str:
    """The feed of a topic."""
    return f"{TOPIC}{namespace}/{stored(name)}" if namespace else TOPIC + stored(name)


def receipts(publisher: str, namespace: str = "") -> str:
    """The feed of a publisher's receipts."""
    return (
        f"{RECEIPTS}{namespace}/{stored(publisher)}" if namespace else RECEIPTS + stored(publisher)
    )


def broadcast(namespace: str = "") -> str:
    """The feed that everyone of a namespace listens to; one string for all who do."""
    return sys.intern(f"{BROADCAST}:{namespace}/") if namespace else BROADCAST


def is_broadcast(feed: str) -> bool:
    """Whether a feed is the broadcast of its namespace."""
    return feed.startswith(BROADCAST)


def name_of(feed: str) -> str:
    """The user, topic or publisher of a feed."""
    return named(feed[feed.find("/", 2) + 1 or 2 :])


def namespace_of(feed: str) -> str:
    """The namespace of a feed, empty for the default one."""
    return feed[2 : max(2, feed.find("/", 2))]


def plain(feed: str) -> str:
    """A feed as it is called in its namespace."""
    return feed if "/" not in feed else feed[:2] + feed[feed.index("/") + 1 :]


def by_node(feed: str) -> bool:
    """Whether whole nodes listen to a feed, and not single connections."""
    return not feed.startswith(MAILBOX)


def fields_of(feed: str) -> dict[str, Any]:
    """What a message says of its feed; nothing for a mailbox."""
    if feed.startswith(TOPIC):
        return {"topic": name_of(feed)}
    return {"broadcast": True} if is_broadcast(feed) else {}
