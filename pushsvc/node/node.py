"""A node: what a process does with connections, put together once for all who need one."""

from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from pushsvc.auth.tokens import TokenCheck
from pushsvc.feeds.event_log import EventLog
from pushsvc.feeds.feed import Feeds
from pushsvc.feeds.nodes import Leases, Outbox
from pushsvc.feeds.publisher import Publisher
from pushsvc.feeds.read_state import ReadStates
from pushsvc.node.acks import Acks
from pushsvc.node.broadcasts import Broadcasts
from pushsvc.node.catch_up import CatchUp, Reader
from pushsvc.node.channel import FanOut
from pushsvc.node.connections import Connections
from pushsvc.node.dispatcher import Dispatcher, IsErased, never_erased
from pushsvc.node.identity import NodeIdentity
from pushsvc.node.listener import Everyone
from pushsvc.node.mailboxes import Mailboxes
from pushsvc.node.observer import Observer
from pushsvc.node.presence import Presence
from pushsvc.node.read_state import ReadStateNews
from pushsvc.node.readiness import ReadinessSet
from pushsvc.node.renewals import Renewals
from pushsvc.node.requests import Requests
from pushsvc.node.spans import Spans, Tracer
from pushsvc.node.topics import Topics
from pushsvc.node.transport import PLAIN, Transport
from pushsvc.node.turns import Turns
from pushsvc.protocol.session import Policy


@dataclass(frozen=True, slots=True)
class Domain:
    """What a node needs of its process: the feeds, and who else is there."""

    feeds: Feeds
    leases: Leases
    outbox: Outbox
    publisher: Publisher
    read_states: ReadStates
    event_log: EventLog
    receipts_due: Callable[[str], None]
    """Told of mailboxes that may owe a receipt."""
    verifier: TokenCheck
    is_erased: IsErased = never_erased
    """Whether a mailbox was erased since it had a position."""


class Node:
    """The connections of a process, and all that feeds them; to be made in a running loop.

    Args:
        domain: what it works with.
        policy: the rules of every session.
        clock: seconds on a monotonic clock.
        max_message: most bytes of a client's message.
        sweep_seconds: the longest that a lost entry can delay a quiet feed.
        acks_gather: seconds for which acknowledgements gather that nobody waits for.
        max_age: seconds after which a connection is asked to go elsewhere; 0 for never.
        transport: how sockets are read and written.
        tracer: makes spans; None where nothing is traced.
        identity: the node's; a new one where there is none.
        fan_out: writes to subscribers that are no sockets of this node; for tests.
        owe: accounts a user for what its connections asked for, given which and how much.
    """

    def __init__(
        self,
        domain: Domain,
        policy: Policy,
        clock: Callable[[], float],
        *,
        max_message: int,
        sweep_seconds: float,
        acks_gather: float = 0.0,
        max_age: float = 0.0,
        transport: Transport = PLAIN,
        tracer: Tracer | None = None,
        identity: NodeIdentity | None = None,
        fan_out: FanOut | None = None,
        owe: Callable[[str, int], None] = lambda _caller, _cost: None,
    ) -> None:
        self.identity = identity = identity or NodeIdentity()
        self.policy = policy
        self.spans = None if tracer is None else Spans(tracer, lambda: identity.id)
        feeds, leases, outbox = domain.feeds, domain.leases, domain.outbox
        self.observer = observer = Observer(domain.event_log, leases.redis_time, self.spans)
        self.turns = turns = Turns(observer.flush)
        self.reader = reader = Reader(feeds, observer)
        self.listeners = listeners = Everyone()
        catch_up = CatchUp(reader, policy, clock, observer)
        self.presence = Presence(identity, feeds, outbox, leases, policy, turns, clock)
        self.topics = Topics(
            identity,
            feeds,
            reader,
            catch_up,
            self.presence,
            fan_out or self._fan_out,
            observer,
            turns,
            sweep_seconds=sweep_seconds,
            clock=clock,
        )
        self.broadcasts = Broadcasts(
            identity, feeds, listeners, reader, catch_up, policy, observer, turns, clock
        )
        mailboxes = Mailboxes(
            identity,
            feeds,
            listeners,
            leases,
            catch_up,
            policy,
            observer,
            turns,
            self.broadcasts.head,
            sweep_seconds=sweep_seconds,
            now=clock(),
        )
        self.acks = Acks(feeds, outbox, domain.receipts_due, acks_gather)
        self._read_state = read_state = ReadStateNews(identity, domain.read_states, listeners)
        self.dispatcher = Dispatcher(
            identity,
            leases,
            mailboxes,
            self.broadcasts,
            self.topics,
            self.acks,
            catch_up,
            read_state,
            policy,
            observer,
            clock,
            domain.is_erased,
        )
        self._renewals = Renewals(domain.verifier, policy, clock)
        self._requests = Requests(
            self.topics,
            domain.publisher,
            domain.read_states,
            identity,
            policy,
            clock,
            max_message,
            owe,
        )
        self.readiness = ReadinessSet(clock, transport, turns)
        self.connections = Connections(
            policy,
            max_message,
            self.dispatcher,
            self._renewals.renew,
            self._requests.serve,
            self.readiness,
            max_age=max_age,
        )

    def _fan_out(self, listeners: Iterable[Any], frame: bytes) -> list[Any]:
        return self.connections.fan_out(listeners, frame)

    def tick(self) -> None:
        """Do what the time asks for; to be called once a second."""
        self.readiness.tick()
        self.dispatcher.tick()

    async def aclose(self) -> None:
        """Drop the connections, finish what is under way, and write down what was acknowledged."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.presence.aclose)
            stack.push_async_callback(self.acks.aclose)
            stack.push_async_callback(self._renewals.aclose)
            stack.push_async_callback(self._requests.aclose)
            stack.push_async_callback(self._read_state.aclose)
            stack.push_async_callback(self.broadcasts.aclose)
            stack.callback(self.dispatcher.close)
            stack.callback(self.readiness.close)
            stack.callback(self.connections.close)
            stack.callback(self.turns.close)
