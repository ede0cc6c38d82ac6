"""A node put together as a process does it, for listeners that are no sockets."""

from collections.abc import Callable, Iterable
from typing import Any, cast

from pushsvc.auth.tokens import TokenCheck
from pushsvc.feeds.event_log import EventLog
from pushsvc.feeds.feed import Feeds
from pushsvc.feeds.nodes import Leases, Outbox
from pushsvc.feeds.publisher import Publisher
from pushsvc.feeds.read_state import ReadStates
from pushsvc.node.identity import NodeIdentity
from pushsvc.node.node import Domain, Node
from pushsvc.protocol.delivery import Cursor
from pushsvc.protocol.feeds import broadcast, mailbox
from pushsvc.protocol.session import Policy, Session


def session_of(
    user: str, device: str, *, namespace: str = "", expires: float = 1e9, seen: float = 0.0
) -> Session:
    """A session as the handshake makes it."""
    cursor = Cursor(mailbox(user, namespace), device)
    return Session(user, device, expires, seen, cursor, Cursor(broadcast(namespace)))


def new_node(
    identity: str,
    feeds: Feeds,
    leases: Leases,
    outbox: Outbox,
    policy: Policy,
    *,
    sweep_seconds: float,
    clock: Callable[[], float],
) -> Node:
    """A node whose clients neither publish nor bring new tokens."""
    domain = Domain(
        feeds=feeds,
        leases=leases,
        outbox=outbox,
        publisher=cast(Publisher, None),
        read_states=cast(ReadStates, None),
        event_log=EventLog(1000),
        receipts_due=lambda _feed: None,
        verifier=cast(TokenCheck, None),
    )
    return Node(
        domain,
        policy,
        clock,
        max_message=64 * 1024,
        sweep_seconds=sweep_seconds,
        identity=NodeIdentity(identity),
        fan_out=fan_out,
    )


def fan_out(listeners: Iterable[Any], frame: bytes) -> list[Any]:
    """Write a frame to each; those that have no room for it."""
    blocked = []
    for listener in listeners:
        if listener.writable():
            listener.write(frame)
        else:
            blocked.append(listener)
    return blocked
