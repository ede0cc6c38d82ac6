"""Every key name in Redis; no other module builds one.

The braces are Redis Cluster hash tags: all keys of a feed live in one slot, so that one script can
use them. Feed names are built from validated names only, which hold no braces.
"""


class Keys:
    """The key names below one prefix."""

    __slots__ = ("nodes", "prefix", "probe")

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes = f"{prefix}:nodes"
        self.probe = f"{prefix}:probe"

    def log(self, feed: str) -> str:
        """Stream: the entries of a feed."""
        return f"{self.prefix}:{{{feed}}}:log"

    def listeners(self, feed: str) -> str:
        """Hash: connection id to device and the time it joined (ms), or node id to how many."""
        return f"{self.prefix}:{{{feed}}}:listeners"

    def cursors(self, feed: str) -> str:
        """Hash: device to the last id it acknowledged; names with a tilde are the feed's own."""
        return f"{self.prefix}:{{{feed}}}:cursors"

    def latest(self, feed: str) -> str:
        """Hash: collapse key to the newest id with it; on a topic, to its expiry and body too."""
        return f"{self.prefix}:{{{feed}}}:latest"

    def marks(self, feed: str) -> str:
        """Hash: what is special about single entries of a mailbox; see ``marked`` in lib.lua."""
        return f"{self.prefix}:{{{feed}}}:marks"

    def acks(self, feed: str) -> str:
        """Stream: who acknowledged what, and when."""
        return f"{self.prefix}:{{{feed}}}:acks"

    def present(self, feed: str) -> str:
        """Hash: node id and user, for each user that a node holds a subscription of."""
        return f"{self.prefix}:{{{feed}}}:present"

    def once(self, feed: str, digest: str) -> str:
        """String: the id of what an idempotency key published to a feed."""
        return f"{self.prefix}:{{{feed}}}:once:{digest}"

    def request(self, digest: str) -> str:
        """String: the fingerprint of the request that an idempotency key was used for."""
        return f"{self.prefix}:once:{digest}"

    def inbox(self, node: str) -> str:
        """Stream: courier packets for one node."""
        return f"{self.prefix}:node:{node}:inbox"

    def summary(self, node: str) -> str:
        """String: what one node says of itself."""
        return f"{self.prefix}:node:{node}:summary"

    def answer(self, question: str, node: str) -> str:
        """String: what one node knows of a notification that is asked for, for seconds."""
        return f"{self.prefix}:answer:{question}:{node}"

    def revocations(self, part: str) -> str:
        """What is revoked.

        ``entries`` is a hash of whose tokens to the times, ``order`` and ``ends`` are sorted sets
        of the same by when they came and when they end, ``revision`` is a hash that counts them.
        """
        return f"{self.prefix}:{{revocations}}:{part}"

    def ticket(self, digest: str) -> str:
        """String: the claims that a ticket stands for."""
        return f"{self.prefix}:ticket:{digest}"

    def agenda(self, name: str, part: str) -> str:
        """Feeds that are to be looked at.

        ``due`` is a sorted set of them by when (ms), ``owed`` a hash of when each was last put
        there, ``claims`` a hash of who looks at them now, and until when.
        """
        return f"{self.prefix}:{{{name}}}:{part}"

    def webhook_gone(self, digest: str) -> str:
        """String: set while the webhook address with this digest is not to be used."""
        return f"{self.prefix}:webhook:{digest}:gone"
