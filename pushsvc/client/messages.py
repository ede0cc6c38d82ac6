"""What a client is given: notifications, and what else the service says by itself."""

import base64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from pushsvc.client.errors import Refused
from pushsvc.client.feed import Feed
from pushsvc.client.marks import Mark

Raw = dict[str, Any]
"""A message as it was sent: its fields are those of PROTOCOL.md."""


class Notification:
    """One notification.

    Args:
        raw: the message as it was sent.
        feed: where it is from; None where it has no id.
        acknowledge: called by ``ack``.
    """

    __slots__ = ("_acknowledge", "feed", "raw")

    def __init__(
        self,
        raw: Raw,
        feed: Feed | None,
        acknowledge: "Callable[[Notification], Awaitable[None]]",
    ) -> None:
        self.raw = raw
        self.feed = feed
        self._acknowledge = acknowledge

    @property
    def data(self) -> Any:
        """What was published: any JSON value, or bytes where ``encoding`` was ``base64``."""
        value: Any = self.raw.get("data")
        return base64.b64decode(value) if self.raw.get("encoding") == "base64" else value

    @property
    def id(self) -> str | None:
        """``<milliseconds>-<sequence>``, growing within a feed; None for what is ephemeral."""
        return self.raw.get("id")

    @property
    def time(self) -> datetime:
        """When it was published, in UTC, by the clock of the service."""
        return datetime.fromisoformat(self.raw["time"])

    @property
    def event(self) -> str | None:
        """What kind of notification it is, such as ``order.shipped``."""
        return self.raw.get("event")

    @property
    def topic(self) -> str | None:
        """The topic that it came by; None for one to this user, or to all."""
        return self.raw.get("topic")

    @property
    def broadcast(self) -> bool:
        """Whether it went to everyone."""
        return bool(self.raw.get("broadcast"))

    @property
    def sender(self) -> str | None:
        """The user whose client published it; None for one of a backend."""
        return self.raw.get("from")

    @property
    def attempt(self) -> int:
        """1, or more where it was sent on this connection before and not acknowledged in time."""
        return int(self.raw.get("attempt", 1))

    @property
    def ephemeral(self) -> bool:
        """Whether it was sent to those who are connected only, and kept nowhere."""
        return bool(self.raw.get("ephemeral"))

    @property
    def read(self) -> bool:
        """Whether the user has seen it already, on another device or before it came again."""
        return bool(self.raw.get("read"))

    @property
    def inbox(self) -> bool:
        """Whether it is one of the user's inbox: not of a topic or to all, and not a signal."""
        mine = self.id is not None and self.topic is None and not self.broadcast
        return mine and self.raw.get("inbox") is not False

    @property
    def needs_ack(self) -> bool:
        """Whether it comes again until it is acknowledged: not of a topic, and not ephemeral."""
        return self.feed is not None and self.feed.acked

    async def ack(self) -> None:
        """Say that this one, and all before it of its feed, are done, for this device.

        What is not acknowledged comes again. Acknowledging twice, or what needs none (of a topic,
        or ephemeral), changes nothing. While there is no connection it is remembered.
        """
        await self._acknowledge(self)

    def __repr__(self) -> str:
        return f"Notification({self.raw!r})"


@dataclass(frozen=True, slots=True)
class Gap:
    """Notifications are gone before this device was given them."""

    raw: Raw
    after: str
    """The id after which they were."""
    reason: str
    """``trimmed``: by a bound or their age. ``reset``: the service lost data."""
    topic: str | None
    """Of this topic; None for the mailbox or the broadcast."""
    broadcast: bool


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A notification that was not acknowledged here is not to be shown any more."""

    raw: Raw
    id: str
    reason: str
    """``recalled`` by the backend, or ``acked`` by another device."""


@dataclass(frozen=True, slots=True)
class Presence:
    """Who came to a topic, and who left it, since the last time."""

    raw: Raw
    """The message that told it; after a reconnect that is the answer that names all."""
    topic: str
    joined: tuple[str, ...]
    left: tuple[str, ...]
    count: int | None = None
    """How many listen to a large topic, where nobody is named; ask again to be told names."""


class Present(tuple[tuple[str, ...], int]):  # noqa: SLOT001 - no slot fits behind a tuple
    """Who listens to a topic, as ``users, count``.

    Args:
        users: their names, 500 at most.
        count: how many they are.
        sample: whether the topic is a large one, of which ``users`` are some; of its changes the
            number is told, and no names until it is asked about again.
    """

    sample: bool

    def __new__(cls, users: tuple[str, ...], count: int, *, sample: bool) -> Self:
        """Both, as a tuple, and what is to be known of them."""
        made = super().__new__(cls, (users, count))
        made.sample = sample
        return made


@dataclass(frozen=True, slots=True)
class Marked:
    """What the user has read or archived was changed: on another device, or by a backend."""

    raw: Raw
    mark: Mark
    """What became of which notifications."""
    unread: int
    """How many are unread now."""


@dataclass(frozen=True, slots=True)
class Problem:
    """The service refused something that nobody waits for; the client goes on without it."""

    raw: Raw
    code: str
    detail: str
    topic: str | None = None
    """The topic that is not listened to, where it is that: asking for it again is up to you."""

    def as_error(self) -> Refused:
        """The same, for a program that does not go on."""
        about = "" if self.topic is None else f"{self.topic}: "
        return Refused(about + self.detail, code=self.code)


Message = Notification | Gap | Withdrawn | Presence | Marked | Problem
"""What ``async for`` over a client gives."""
