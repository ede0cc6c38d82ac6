"""What users have read: the read state of what their mailboxes keep, and how much is unread."""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol, Self, TypeVar

from pushsvc.errors import StoreUnavailable
from pushsvc.feeds.nodes import ControlMessage, Outbox, node_of
from pushsvc.feeds.receipts import Receipts
from pushsvc.protocol import ids
from pushsvc.protocol.read_state import Change, Verb
from pushsvc.store import schema
from pushsvc.store.redis import Redis
from pushsvc.store.server_connection import Command

CHANGED: Final = "read_state"
"""The kind of the control message that tells of a change."""
TO_FORESEE: Final = -1
"""In place of how many were looked at: receipts are to be foreseen first."""
MOST_CALLS: Final = 512
"""Most calls that bring the read state of a mailbox up to date for one question."""


class Counted(Protocol):
    """An answer that says how many are unread."""

    @property
    def unread(self) -> int:
        """Below 0 where there is more to look at."""


Answer = TypeVar("Answer", bound=Counted)


class _Reply(NamedTuple):
    unread: int
    looked: int
    listeners: Sequence[bytes]

    @classmethod
    def of(cls, reply: Any) -> Self:
        return cls(reply[0], reply[1], reply[2:])


class Changed(NamedTuple):
    """What came of a change."""

    unread: int
    """How many of the mailbox are unread now."""
    looked: int
    """How many notifications were looked at for it."""


class Told(NamedTuple):
    """A change, as the nodes are told of it that hold connections of the user."""

    change: Change
    connection: str
    """The one that asked for it, empty where none did."""
    unread: int
    """How many were unread then."""


class ReadStates:
    """The read states of all mailboxes.

    A publish does not touch them. Whoever asks brings that of the mailbox up to date, in calls of a
    bounded size.

    A coroutine that asks Redis raises ``PushError`` where that cannot be reached or refuses.

    Args:
        redis: for connections.
        outbox: for the nodes that hold connections of a user.
        receipts: for publishers that want to know what was read; None where none is told.
    """

    def __init__(self, redis: Redis, outbox: Outbox, receipts: Receipts | None = None) -> None:
        self._redis = redis
        self._outbox = outbox
        self._receipts = receipts

    async def change(self, feed: str, change: Change, connection: str = "") -> Changed:
        """Change the read state of notifications, and tell the user's other connections.

        Args:
            feed: the mailbox.
            change: of what; what the mailbox does not keep is passed over.
            connection: that asks for it, and is not told; empty where none does.
        """
        wanted = [change.until] if change.until is not None else change.ids
        until = "" if change.until is None else "1"
        some = [*map(ids.render, wanted)]
        command = self._command(feed, change.verb, until, "", *some)
        reply = await up_to_date(self._redis, command, _Reply.of)
        if reply.looked == TO_FORESEE:
            if self._receipts is not None:
                await self._receipts.foresee_reading(feed)
            command = self._command(feed, change.verb, until, "1", *some)
            reply = await up_to_date(self._redis, command, _Reply.of)
        looked = reply.looked
        if looked < TO_FORESEE:
            looked = 2 * TO_FORESEE - looked
            if self._receipts is not None:
                self._receipts.schedule(feed)
        message = ControlMessage(CHANGED, feed, _values(Told(change, connection, reply.unread)))
        others = {node_of(each) for each in schema.devices(reply.listeners) if each != connection}
        for node in others:
            self._outbox.notify(node, message)
        return Changed(reply.unread, looked)

    async def count(self, feed: str) -> int:
        """How many of a mailbox are unread."""
        command = self._command(feed, "", "", "")
        return (await up_to_date(self._redis, command, _Reply.of)).unread

    def _command(self, feed: str, *args: str) -> Command:
        keys = self._redis.keys
        names = (keys.log(feed), keys.cursors(feed), keys.listeners(feed))
        return self._redis.script("read_state", names, *args)


async def up_to_date(redis: Redis, command: Command, read: Callable[[Any], Answer]) -> Answer:
    """Execute a command until the read state of its mailbox is up to date; its answer then.

    Args:
        redis: for the command.
        command: each call of it looks at a part of what is new.
        read: what a reply means.

    Raises:
        StoreUnavailable: it takes more than so many calls. What they did stays done.
        PushError: Redis cannot be reached or refuses.
    """
    for _ in range(MOST_CALLS):
        answer = read(await redis.execute(command))
        if answer.unread >= 0:
            return answer
    raise StoreUnavailable(
        "the mailbox holds much that was not counted before: retry, which goes on from here",
        retry_after=1.0,
    )


def _values(told: Told) -> list[str]:
    change = told.change
    until = "" if change.until is None else ids.render(change.until)
    return [told.connection, str(told.unread), change.verb, until, *map(ids.render, change.ids)]


def told_of(message: ControlMessage) -> Told:
    """The change that a control message tells of."""
    connection, unread, verb, until, *some = message.values
    last = ids.parse(until) if until else None
    return Told(
        Change(Verb(verb), [ids.parse(each) for each in some], last), connection, int(unread)
    )
