"""Every key name and every field name in Redis; no other module of Python builds or reads one.

The braces are Redis Cluster hash tags: all keys of a feed live in one slot, so that one script can
use them. What stands for users, topics and devices is their stored form, which holds no braces,
tilde or space: feeds are named with it, and here and in ``feeds/`` is where it is made and read.
Everything else of Python knows names only.

``lua/lib.lua`` has the names that the scripts use; a test compares the two.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from pushsvc.protocol import ids
from pushsvc.protocol.feeds import by_node
from pushsvc.protocol.names import named, stored

OWN: Final = "~"
"""What the fields of the cursors begin with that are no devices, whose stored form holds none."""
HEAD: Final = "~head"
"""Of the cursors: the newest id of the feed."""
STORED: Final = "~stored"
"""The newest id in the log."""
TRIMMED: Final = "~trimmed"
"""The newest id that was trimmed."""
FIRST: Final = "~first"
"""The first id that was published to this data set."""
EVICTED: Final = "~evicted"
"""The last device whose position was dropped; the one field of the cursors that holds a name."""
BROADCAST: Final = "~b:"
"""Before a device: its position in the broadcast."""
BEGAN: Final = "~s:"
"""Before a device: where it began. It has not acknowledged what others did before it came."""
BYTES: Final = "~bytes"
"""Of what clients publish to: at most how many bytes it holds, and until when it is full.

Of what is scheduled: about how many bytes wait."""
ORDERED: Final = "~ordered"
"""Of topics: the newest id in the log up to which the order of the latest is known to be right."""
SEEN: Final = "~seen"
"""Of mailboxes: the newest id in the log and how many are there, as the read state has them."""
ASKS: Final = "~asks"
"""Of mailboxes: the newest id whose publisher is told when it is read."""
SENT: Final = "~sent"
"""Of a publisher's receipts: how far they were sent on."""
FAILURES: Final = "~failures"
"""How often the next one could not be."""

ANY_DEVICE: Final = "a:"
"""Of the marks, before an id: any one device settles it."""
WITHDRAWN: Final = "w:"
"""Before an id: it was withdrawn, and why."""
RECEIPT: Final = "r:"
"""Before an id: it is owed a receipt."""
FOR_DEVICE: Final = "v:"
"""Before an id that is owed a receipt: the one device that it is for."""

DEVICE: Final = "v"
"""Of an entry of the log, behind its body: the one device that it is for."""

REVOKED_USER: Final = "u:"
"""Of the revocations, before a user: their tokens."""
REVOKED_ID: Final = "j:"
"""Before the id of a token."""
REVOKED_ALL: Final = "a"
"""The tokens of all users."""

PACKET: Final = "p"
"""Of an inbox: a batch of entries."""
MESSAGE: Final = "n"
"""A control message."""
CANARY: Final = "c"
"""What a node sends itself."""
INBOX: Final = ":inbox"
"""What the key of an inbox ends with."""

LOG: Final = ":log"
"""What the key of a feed's log ends with."""
UNREAD: Final = ":unread"
"""And in its place those of a mailbox's read state, which scripts make of it."""
READ: Final = ":read"
ARCHIVED: Final = ":archived"
SIGNAL: Final = "n"
"""Of an entry in a log: it has no read state."""
DEVICES: Final = ":devices"
"""And in its place what the keys of a mailbox's pushes end with, which scripts make of it."""
PUSHES: Final = ":pushes"
PUSH: Final = ":push:"
"""Before the id of a notification."""
ASKED: Final = ":asked"
"""Whose publisher wants to know when it is read, and what is read and yet to be told."""
TOLD: Final = ":told"

TEXT: Final = "~text"
"""Of a push record: what is shown, as JSON."""
PUBLISHER: Final = "~publisher"
"""Who wants receipts, as the feed of these is called after ``r:``."""
EVENT: Final = "~event"
KEY: Final = "~key"
"""The collapse key."""
OWED: Final = "~owed:"
"""Before a device: the receipt of its outcome is yet to be given."""


class Keys:
    """The key names below one prefix.

    Attributes:
        node: what the keys of a node begin with, before its id.
        wide: the pattern of the keys of users and topics whose stored form is not the name itself.
    """

    __slots__ = ("_feed", "node", "nodes", "prefix", "probe", "wide")

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._feed = f"{prefix}:{{"
        self.node = f"{prefix}:node:"
        self.nodes = f"{prefix}:nodes"
        self.probe = f"{prefix}:probe"
        self.wide = self._feed + "[ut]:*%*}:*"

    def log(self, feed: str) -> str:
        """Stream: the entries of a feed."""
        return self._feed + feed + "}:log"

    def read_state(self, feed: str, which: str) -> str:
        """Sorted set: the ids of a mailbox that are ``UNREAD``, ``READ`` or ``ARCHIVED``.

        Each by its expiry (ms). Scripts make the name of that of the log.
        """
        return self._feed + feed + "}" + which

    def listeners(self, feed: str) -> str:
        """Hash: connection id to device and the time it joined (ms), or node id to how many."""
        return self._feed + feed + "}:listeners"

    def cursors(self, feed: str) -> str:
        """Hash: device to the last id it acknowledged; names with a tilde are the feed's own."""
        return self._feed + feed + "}:cursors"

    def latest(self, feed: str) -> str:
        """Hash: collapse key to the newest id with it; on a topic, to its expiry and body too."""
        return self._feed + feed + "}:latest"

    def order(self, feed: str) -> str:
        """Stream: the ids of a topic's latest, each with its key, and its expiry and length."""
        return self._feed + feed + "}:order"

    def marks(self, feed: str) -> str:
        """Hash: what is special about single entries of a mailbox."""
        return self._feed + feed + "}:marks"

    def acks(self, feed: str) -> str:
        """Stream: who acknowledged what, and when."""
        return self._feed + feed + "}:acks"

    def present(self, feed: str) -> str:
        """Hash: node id and user, for each user that a node holds a subscription of."""
        return self._feed + feed + "}:present"

    def times(self, feed: str) -> str:
        """Sorted set: the ids of what is scheduled, by when it goes out (ms)."""
        return self._feed + feed + "}:times"

    def scheduled(self, feed: str) -> str:
        """Hash: the id of what is scheduled to what is published then."""
        return self._feed + feed + "}:scheduled"

    def became(self, feed: str, scheduled_id: str) -> str:
        """String: the id of the notification that something scheduled became, or ``recalled``."""
        return self._feed + feed + "}:became:" + scheduled_id

    def all_of(self, feed: str) -> tuple[str, ...]:
        """All keys of a mailbox, or of receipts, whose name is known ahead; the cursors first.

        But not the devices, each of which has a key elsewhere that goes with it.
        """
        of = self._feed + feed
        parts = (
            "cursors", "log", "listeners", "latest", "marks", "acks", "times", "scheduled",
            "unread", "read", "archived", "pushes", "asked", "told",
        )  # fmt: skip
        return tuple(f"{of}}}:{part}" for part in parts)

    def below(self, feed: str) -> str:
        """The pattern of all keys of a feed; no stored form holds what has a meaning there."""
        return f"{self._feed}{feed}}}:*"

    def erased(self, digest: str) -> str:
        """String: of a mailbox, by its digest, up to which id it was erased."""
        return f"{self.prefix}:erased:{digest}"

    # What the scripts use that run for each message and connection, in the order of their KEYS.

    def publish(self, feed: str, once: str | None) -> tuple[str, ...]:
        """Of ``publish.lua``; with the digest of an idempotency key, if there is one."""
        of = self._feed + feed
        names = (
            of + "}:log",
            of + "}:listeners",
            of + "}:cursors",
            of + "}:latest",
            of + "}:order" if by_node(feed) else of + "}:marks",
        )
        return names if once is None else (*names, of + "}:once:" + once)

    def publish_scheduled(self, feed: str, scheduled_id: str) -> tuple[str, ...]:
        """Of ``publish.lua`` for what was scheduled."""
        became = self.became(feed, scheduled_id)
        return (*self.publish(feed, None), became, self.times(feed), self.scheduled(feed))

    def schedule(self, feed: str, once: str | None) -> tuple[str, ...]:
        """Of ``schedule.lua``; with the digest of an idempotency key, if there is one."""
        names = (self.times(feed), self.scheduled(feed))
        # Apart from those of what is published at once: a node of before reads an id there.
        return names if once is None else (*names, self.once(feed, f"at.{once}"))

    def join(self, feed: str) -> tuple[str, ...]:
        """Of ``join.lua``."""
        of = self._feed + feed
        return of + "}:log", of + "}:listeners", of + "}:cursors", of + "}:marks"

    def read(self, feed: str) -> tuple[str, ...]:
        """Of ``read.lua``, without the marks of a mailbox."""
        of = self._feed + feed
        return of + "}:log", of + "}:cursors"

    def read_mailbox(self, feed: str) -> tuple[str, ...]:
        """Of ``read.lua``."""
        of = self._feed + feed
        return of + "}:log", of + "}:cursors", of + "}:marks"

    def ack(self, feed: str) -> tuple[str, ...]:
        """Of ``ack.lua``."""
        of = self._feed + feed
        return (
            of + "}:cursors", of + "}:listeners", of + "}:log", of + "}:marks", of + "}:acks",
        )  # fmt: skip

    def subscribe(self, feed: str) -> tuple[str, ...]:
        """Of ``subscribe.lua``."""
        of = self._feed + feed
        return (
            of + "}:listeners", of + "}:log", of + "}:cursors", of + "}:latest", of + "}:order",
        )  # fmt: skip

    def check(self, feed: str) -> tuple[str, ...]:
        """Of ``check.lua``."""
        of = self._feed + feed
        return of + "}:listeners", of + "}:cursors"

    def once(self, feed: str, digest: str) -> str:
        """String: the id of what an idempotency key published to a feed."""
        return f"{self.prefix}:{{{feed}}}:once:{digest}"

    def request(self, digest: str) -> str:
        """String: the fingerprint of the request that an idempotency key was used for."""
        return f"{self.prefix}:once:{digest}"

    def inbox(self, node: str) -> str:
        """Stream: what other nodes send one node."""
        return self.node + node + INBOX

    def summary(self, node: str) -> str:
        """String: what one node says of itself."""
        return f"{self.prefix}:node:{node}:summary"

    def answer(self, question: str, node: str) -> str:
        """String: what one node knows of a notification that is asked for, for seconds."""
        return f"{self.prefix}:answer:{question}:{node}"

    def revocations(self, part: str, namespace: str = "") -> str:
        """What is revoked in a namespace.

        ``entries`` is a hash of whose tokens to the times, ``order`` and ``ends`` are sorted sets
        of the same by when they came and when they end, ``revision`` is a hash that counts them.
        Of all namespaces together ``changed`` is a sorted set: those with a name by when something
        was last revoked there (ms).
        """
        within = f"{namespace}/" if namespace else ""
        return f"{self.prefix}:{{revocations}}:{within}{part}"

    def ticket(self, digest: str) -> str:
        """String: the claims that a ticket stands for."""
        return f"{self.prefix}:ticket:{digest}"

    def work_queue(self, name: str, part: str) -> str:
        """Feeds that are to be looked at.

        ``due`` is a sorted set of them by when (ms), ``owed`` a hash of when each was last put
        there, ``claims`` a hash of the leases: who looks at them now, and until when.
        """
        return f"{self.prefix}:{{{name}}}:{part}"

    def stored(self, mailbox: str) -> str:
        """String: when the budget of bytes that its user may store is full again (ms)."""
        return f"{self.prefix}:stored:{mailbox}"

    def devices(self, feed: str) -> str:
        """Hash: of a mailbox, device to where it is reached while it is away."""
        return self._feed + feed + "}" + DEVICES

    def pushes(self, feed: str) -> str:
        """Sorted set: the ids of a mailbox whose pushes are pending, by the next look (ms)."""
        return self._feed + feed + "}" + PUSHES

    def push_record(self, feed: str, entry_id: str) -> str:
        """Hash: what a push of one notification shows, and device to what came of it."""
        return self._feed + feed + "}" + PUSH + entry_id

    def asked(self, feed: str) -> str:
        """Hash: of a mailbox, id to the publisher that is told when it is read."""
        return self._feed + feed + "}" + ASKED

    def told(self, feed: str) -> str:
        """Hash: id to whom is yet to be told that it was read, and when that was (ms)."""
        return self._feed + feed + "}" + TOLD

    def push_owner(self, digest: str) -> str:
        """String: the mailbox and the device that a push address is of."""
        return f"{self.prefix}:push:owner:{digest}"

    def push_token(self, token_key: int) -> str:
        """Hash: the mailboxes and devices that one token registered for pushes."""
        return f"{self.prefix}:push:token:{token_key}"

    def push_since(self, namespace: str) -> str:
        """String: push registrations by tokens issued up to then (Unix s) are void."""
        return f"{self.prefix}:push:since:{namespace}"

    def push(self, part: str) -> str:
        """``stopped`` is a hash of push providers that are stopped, to who did that and when (ms).

        ``secret`` is a string: the key of capabilities.
        """
        return f"{self.prefix}:push:{part}"

    def webhook_gone(self, digest: str) -> str:
        """String: set while the webhook address with this digest is not to be used."""
        return f"{self.prefix}:webhook:{digest}:gone"


def feed_of(key: bytes) -> str:
    """The feed that a key belongs to; empty if it belongs to none."""
    return key.decode(errors="replace").partition("{")[2].partition("}")[0]


def left_by(key: bytes) -> str | None:
    """What a key of a feed was left by that no other key names.

    Returns:
        The id of something scheduled, or of the notification of a push, empty for an idempotency
        key, None for any other key.
    """
    kind, _, rest = key.decode(errors="replace").partition("}:")[2].partition(":")
    if kind in ("became", "push"):
        return rest
    return "" if kind == "once" else None


# --- what the hashes hold ------------------------------------------------------------------------


def pairs(fields: Any) -> dict[str, str]:
    """A hash as Redis answers it: names and values in turn."""
    return {
        name.decode(): value.decode() for name, value in zip(fields[::2], fields[1::2], strict=True)
    }


def broadcast_position(device: str) -> str:
    """Of a mailbox's cursors: the field of a device's position in the broadcast."""
    return BROADCAST + stored(device)


class Cursors(NamedTuple):
    """A mailbox's cursors."""

    devices: Mapping[str, int]
    """Device to the last id that it acknowledged."""
    began: Mapping[str, int]
    """Device to the id at which it began."""
    broadcast: Mapping[str, int]
    """Device to its position in the broadcast."""
    head: int
    trimmed: int


def cursors(fields: Any) -> Cursors:
    """The cursors in a hash as Redis answers it."""
    devices: dict[str, int] = {}
    began: dict[str, int] = {}
    broadcast: dict[str, int] = {}
    own: dict[str, str] = {}
    for name, value in pairs(fields).items():
        if name.startswith(BEGAN):
            began[named(name.removeprefix(BEGAN))] = ids.parse(value)
        elif name.startswith(BROADCAST):
            broadcast[named(name.removeprefix(BROADCAST))] = ids.parse(value)
        elif name.startswith(OWN):
            own[name] = value
        else:
            devices[named(name)] = ids.parse(value)
    return Cursors(
        devices,
        began,
        broadcast,
        ids.parse(own.get(HEAD, "0-0")),
        ids.parse(own.get(TRIMMED, "0-0")),
    )


class Registration(NamedTuple):
    """A connection that listens to a mailbox."""

    device: str
    since: int
    """Milliseconds since the epoch."""


def registrations(fields: Any) -> dict[str, Registration]:
    """Connection id to its registration, of a mailbox's listeners as Redis answers them."""
    found = {}
    for connection, value in pairs(fields).items():
        device, _, since = value.partition(" ")
        found[connection] = Registration(named(device), int(since))
    return found


def devices(fields: Sequence[bytes]) -> dict[str, str]:
    """Connection id to device, of a mailbox's listeners as Redis answers them."""
    return {
        fields[i].decode(): named(fields[i + 1].partition(b" ")[0].decode())
        for i in range(0, len(fields), 2)
    }


def device(form: bytes) -> str:
    """The device that an entry is for, as a script tells it: empty for all."""
    return named(form.decode())


def addressed(fields: Sequence[bytes]) -> list[tuple[int, str]]:
    """The ids in a list of id and device in turn, each with the device that it is for."""
    return [(ids.parse(fields[i]), device(fields[i + 1])) for i in range(0, len(fields), 2)]


def counts(fields: Sequence[bytes]) -> dict[str, int]:
    """Node id to how many of its connections listen, where nodes are what listens."""
    return {fields[i].decode(): int(fields[i + 1]) for i in range(0, len(fields), 2)}


def presence(node: str, user: str) -> str:
    """Of a topic's present: the field of a user and the node that holds their subscription."""
    return f"{node} {stored(user)}"


def present(field: bytes) -> tuple[str, str]:
    """The node and the user of a field."""
    node, _, user = field.decode().partition(" ")
    return node, named(user)


def receipt_marks(entry_id: int) -> tuple[str, str]:
    """Of a mailbox's marks: the fields of a receipt that an entry is owed."""
    at = ids.render(entry_id)
    return RECEIPT + at, FOR_DEVICE + at


def how_it_ended(mark: bytes) -> tuple[str, int] | None:
    """How and when an entry ended, from its receipt's mark, None for one that has not.

    The mark is who asked, when the entry expires, and what ended it before and when.
    """
    parts = mark.decode().split(" ")
    return (parts[2], int(parts[3])) if len(parts) == 4 else None


class AckRecord(NamedTuple):
    """An acknowledgement as a mailbox keeps it."""

    time: int
    """Milliseconds since the epoch."""
    device: str
    id: int


def ack_records(fields: Sequence[bytes]) -> list[AckRecord]:
    """The acknowledgements in a list of time and number, device and id in turn."""
    return [
        AckRecord(
            ids.milliseconds(ids.parse(fields[i])),
            named(fields[i + 1].decode()),
            ids.parse(fields[i + 2]),
        )
        for i in range(0, len(fields), 3)
    ]


def revoked(user: str | None, token_id: str | None) -> str:
    """Of the revocations: the field of a token, of a user's tokens, or of everyone's."""
    if token_id is not None:
        return REVOKED_ID + token_id
    return REVOKED_ALL if user is None else REVOKED_USER + stored(user)


def whose(field: str) -> tuple[str | None, str | None]:
    """The user and the token of a field of the revocations."""
    if field.startswith(REVOKED_ID):
        return None, field.removeprefix(REVOKED_ID)
    return (
        named(field.removeprefix(REVOKED_USER)) if field.startswith(REVOKED_USER) else None
    ), None
