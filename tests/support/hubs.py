"""A hub with all that belongs to it, for listeners that are no sockets."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pushsvc.feeds.feed import Feeds
from pushsvc.feeds.journal import Journal
from pushsvc.feeds.nodes import Leases, Outbox
from pushsvc.node.acks import Acks
from pushsvc.node.feeder import Feeder, Reader
from pushsvc.node.hub import Hub
from pushsvc.node.presence import Presence
from pushsvc.node.topics import Topics
from pushsvc.protocol.delivery import Cursor
from pushsvc.protocol.feeds import BROADCAST, mailbox
from pushsvc.protocol.session import Policy, Session


def session_of(user: str, device: str, *, expires: float = 1e9, seen: float = 0.0) -> Session:
    """A session as the handshake makes it."""
    return Session(user, device, expires, seen, Cursor(mailbox(user), device), Cursor(BROADCAST))


@dataclass(frozen=True, slots=True)
class Parts:
    """A hub and what it is made of."""

    hub: Hub
    reader: Reader
    topics: Topics
    presence: Presence
    acks: Acks
    journal: Journal

    async def aclose(self) -> None:
        """Finish what is under way."""
        await self.presence.aclose()
        await self.acks.aclose()


def parts(
    node: str,
    feeds: Feeds,
    leases: Leases,
    outbox: Outbox,
    policy: Policy,
    *,
    sweep_seconds: float,
    clock: Callable[[], float],
) -> Parts:
    """A hub, put together as a worker does it."""
    reader = Reader(feeds)
    journal = Journal(1000)
    feeder = Feeder(reader, policy, clock, journal, leases.redis_time)
    presence = Presence(node, feeds, outbox, leases, clock)
    topics = Topics(
        node, feeds, reader, feeder, presence, fan_out, sweep_seconds=sweep_seconds, clock=clock
    )
    acks = Acks(feeds, outbox, lambda _feed: None)
    hub = Hub(
        node,
        feeds,
        leases,
        acks,
        feeder,
        topics,
        policy,
        journal,
        sweep_seconds=sweep_seconds,
        clock=clock,
    )
    return Parts(hub, reader, topics, presence, acks, journal)


def fan_out(listeners: Iterable[Any], frame: bytes) -> list[Any]:
    """Write a frame to each; those that have no room for it."""
    blocked = []
    for listener in listeners:
        if listener.writable():
            listener.write(frame)
        else:
            blocked.append(listener)
    return blocked
