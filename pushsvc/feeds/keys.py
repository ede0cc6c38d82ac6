"""Every key name in Redis; no other module builds one.

The braces are Redis Cluster hash tags: all keys of a feed live in one slot, so that one script can
use them. Feed names are built from validated names only, which hold no braces.
"""

from typing import Final

MAILBOX: Final = "u:"


def mailbox(user: str) -> str:
    """The feed of a user's mailbox."""
    return MAILBOX + user


class Keys:
    """The key names below one prefix."""

    __slots__ = ("nodes", "prefix")

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes = f"{prefix}:nodes"

    def log(self, feed: str) -> str:
        """Stream: the entries of a feed."""
        return f"{self.prefix}:{{{feed}}}:log"

    def listeners(self, feed: str) -> str:
        """Hash: connection id to device and the time it joined (ms)."""
        return f"{self.prefix}:{{{feed}}}:listeners"

    def cursors(self, feed: str) -> str:
        """Hash: device to the last id it acknowledged; names with a tilde are the feed's own."""
        return f"{self.prefix}:{{{feed}}}:cursors"

    def once(self, feed: str, digest: str) -> str:
        """String: the id of what an idempotency key published to a feed."""
        return f"{self.prefix}:{{{feed}}}:once:{digest}"

    def request(self, digest: str) -> str:
        """String: the fingerprint of the request that an idempotency key was used for."""
        return f"{self.prefix}:once:{digest}"

    def inbox(self, node: str) -> str:
        """Stream: courier packets for one node."""
        return f"{self.prefix}:node:{node}:inbox"
