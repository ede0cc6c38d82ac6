"""The composition root: builds a worker out of its parts, starts it, drains it, stops it."""

import asyncio
import contextlib
import functools
import resource
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import structlog

from pushsvc import metrics
from pushsvc.auth.gate import Gate
from pushsvc.codes import Close
from pushsvc.feeds.tracer import reply
from pushsvc.node.acks import Acks
from pushsvc.node.connections import Connections
from pushsvc.node.drain import drain
from pushsvc.node.feeder import Feeder, Reader
from pushsvc.node.hub import Hub
from pushsvc.node.membership import Membership, new_node_id
from pushsvc.node.presence import Presence
from pushsvc.node.renewals import Renewals
from pushsvc.node.reporter import Reporter
from pushsvc.node.requests import Requests
from pushsvc.node.topics import Topics
from pushsvc.node.webhooks import Webhooks
from pushsvc.node.witness import Witness
from pushsvc.protocol.limits import Rate
from pushsvc.protocol.session import Policy
from pushsvc.settings import Settings
from pushsvc.store import ANSWER_SECONDS, Store, open_store
from pushsvc.verifying import verifier_of
from pushsvc.web import api
from pushsvc.web.cors import Origins
from pushsvc.web.rates import RequestRates
from pushsvc.web.socket import Admission, Handshakes

SPARE_DESCRIPTORS: Final = 100
"""Descriptors for everything that is not a connection of the public port."""
LEAST_STREAMS: Final = 100
"""Connections for requests that there is always room for."""

log = structlog.get_logger("pushsvc.worker")


@dataclass(frozen=True, slots=True)
class Worker:
    """A running worker, as its process sees it."""

    port: int
    node: Callable[[], str]
    troubles: Callable[[], list[str]]
    connections: Callable[[], int]
    drain: Callable[[float], Coroutine[Any, Any, None]]

    def report(self) -> dict[str, Any]:
        """What ``/readyz`` says."""
        return {
            "troubles": self.troubles(),
            "node": self.node(),
            "connections": self.connections(),
        }


def policy_of(settings: Settings) -> Policy:
    """The rules of every session."""
    rate = settings.rate_messages_per_second
    burst = settings.rate_burst
    return Policy(
        heartbeat=settings.heartbeat_seconds,
        window=settings.ack_window,
        ack_timeout=settings.ack_timeout_seconds,
        ack_attempts=settings.ack_attempts,
        messages=Rate(rate, burst),
        bytes=Rate(
            settings.rate_bytes_per_second,
            max(2 * settings.max_message_bytes, 2 * settings.rate_bytes_per_second),
        ),
        # A client may ack whatever it is sent, one by one.
        control=Rate(max(1000.0, 10 * rate), max(2000.0, 20 * burst)),
    )


@dataclass(frozen=True, slots=True)
class _Node:
    """What a worker does with connections."""

    hub: Hub
    topics: Topics
    acks: Acks
    connections: Connections
    witness: Witness


def _node(settings: Settings, store: Store, gate: Gate, stack: AsyncExitStack) -> _Node:
    clock = time.monotonic
    policy = policy_of(settings)
    node = new_node_id()
    reader = Reader(store.feeds)
    feeder = Feeder(reader, policy, clock, store.journal, store.leases.redis_time)
    presence = Presence(node, store.feeds, store.outbox, store.leases, clock)
    stack.push_async_callback(presence.aclose)
    topics = Topics(
        node,
        store.feeds,
        reader,
        feeder,
        presence,
        lambda listeners, frame: connections.fan_out(listeners, frame),  # noqa: PLW0108 - it is made later
        sweep_seconds=settings.sweep_seconds,
        clock=clock,
    )
    acks = Acks(store.feeds, store.outbox, store.receipts.soon)
    stack.push_async_callback(acks.aclose)
    hub = Hub(
        node,
        store.feeds,
        store.leases,
        acks,
        feeder,
        topics,
        policy,
        store.journal,
        sweep_seconds=settings.sweep_seconds,
        clock=clock,
    )
    renewals = Renewals(gate, policy, clock)
    stack.push_async_callback(renewals.aclose)
    requests = Requests(topics, store.publisher, settings.max_message_bytes)
    stack.push_async_callback(requests.aclose)
    connections = Connections(
        policy, settings.max_message_bytes, hub, renewals.renew, requests.serve, clock
    )
    stack.callback(connections.close)
    witness = Witness(
        hub, store.journal, policy.window, functools.partial(reply, store.lane, store.keys)
    )
    return _Node(hub, topics, acks, connections, witness)


@asynccontextmanager
async def worker(
    settings: Settings, sockets: list[socket.socket], demo: str | None = None
) -> AsyncIterator[Worker]:
    """A worker that serves on these sockets until the context ends.

    Args:
        settings: of the worker.
        sockets: of the public port.
        demo: the port that serves the demo, in development; ``/demo`` leads there.

    Raises:
        SettingsError: a setting does not fit its surroundings.
    """
    async with AsyncExitStack() as stack:
        verify = verifier_of(settings)
        max_connections, max_streams = _room(settings.max_connections)
        store = await open_store(settings, stack)
        gate = Gate(verify, store.revocations, store.tickets)
        stack.push_async_callback(gate.aclose)
        node = _node(settings, store, gate, stack)
        connections = node.connections

        def close_revoked(_: object) -> None:
            for connection in list(connections):
                session = connection.session
                if gate.revoked_key(session.user, session.token_key, session.issued):
                    connection.end(Close.REVOKED)

        gate.on_change = close_revoked
        membership = Membership(
            node.hub,
            store.leases,
            store.couriers,
            store.keys,
            store.connect_inbox,
            node.witness.notice,
            time.monotonic,
        )
        # A task that dies of an error nobody foresaw takes the worker with it: half a node would
        # look healthy.
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        _start(settings, store, gate, tasks, stack)
        membership.start(tasks)
        stack.push_async_callback(membership.aclose)

        admission = Admission(
            connections,
            max_connections=max_connections,
            max_handshakes=settings.max_handshakes,
        )
        origins = Origins(settings.allowed_origins)
        handshakes = Handshakes(gate, origins, admission, connections, node.hub, node.topics)
        stopping = asyncio.Event()
        application = api.Application(
            handshakes,
            _routes(settings, store, node, gate, admission, stopping),
            admission=admission,
            origins=origins,
            demo=demo,
        )
        server = api.Server(
            application,
            request_timeout=settings.request_timeout_seconds,
            max_streams=max_streams,
        )
        server.add_sockets(sockets)
        stack.push_async_callback(server.close_all_connections)
        stack.callback(server.stop)
        ticking = tasks.create_task(_tick(connections, node.hub, server), name="ticks")
        stack.callback(ticking.cancel)

        async def leave(seconds: float) -> None:
            admission.draining = True
            server.stop()
            stopping.set()
            log.info("draining", connections=len(connections), seconds=seconds)
            await handshakes.finished()
            await drain(list(connections), seconds)
            await connections.settled()
            await application.finished(ANSWER_SECONDS)

        def troubles() -> list[str]:
            return ["draining"] if admission.draining else membership.troubles()

        reporter = Reporter(
            store.summaries,
            lambda: node.hub.node,
            troubles,
            connections.__len__,
            started=time.time(),
            redis_time=store.leases.redis_time,
        )
        reporting = tasks.create_task(reporter.run(), name="reports")
        stack.callback(reporting.cancel)
        yield Worker(
            port=sockets[0].getsockname()[1],
            node=lambda: node.hub.node,
            troubles=troubles,
            connections=lambda: len(connections),
            drain=leave,
        )


def _start(
    settings: Settings, store: Store, gate: Gate, tasks: asyncio.TaskGroup, stack: AsyncExitStack
) -> None:
    """Start what runs beside the connections."""
    following = tasks.create_task(gate.follow(), name="revocations")
    stack.callback(following.cancel)
    store.receipts.start(tasks)
    stack.push_async_callback(store.receipts.aclose)
    if store.webhooks is not None and settings.webhook_url and settings.webhook_secret:
        webhooks = Webhooks(
            settings.webhook_url,
            settings.webhook_secret.get_secret_value(),
            store.webhooks,
            store.receipt_log,
        )
        webhooks.start(tasks)
        stack.push_async_callback(webhooks.aclose)


def _routes(
    settings: Settings,
    store: Store,
    node: _Node,
    gate: Gate,
    admission: Admission,
    stopping: asyncio.Event,
) -> api.Routes:
    """What the paths of the public port are served with."""
    bounded = {"max_body": settings.max_body_bytes, "timeout": settings.request_timeout_seconds}
    client_rates = RequestRates(settings.rate_messages_per_second, settings.rate_burst)
    asking = {"verifier": gate, "rates": client_rates}
    return api.Routes(
        publish={
            **bounded,
            "publisher": store.publisher,
            "store": store.feeds,
            "rates": RequestRates(
                settings.publish_rate_per_second, advice=", or use the batch address"
            ),
            "client_rates": client_rates,
            "max_message": settings.max_message_bytes,
            "verifier": gate,
        },
        users={**asking, "history": store.history},
        topics={**asking, "presence": node.topics.presence},
        # As generous as acknowledging on a socket.
        ack={**bounded, "verifier": gate, "ack": node.acks.write, "rates": RequestRates(1000)},
        tickets={**bounded, "gate": gate, "rates": client_rates},
        gate={**bounded, "gate": gate},
        poll={
            "gate": gate,
            "admission": admission,
            "connections": node.connections,
            "hub": node.hub,
            "topics": node.topics,
            "stopping": stopping,
            "rates": RequestRates(settings.rate_messages_per_second, settings.rate_burst),
        },
        receipts={"receipt_log": store.receipt_log, "verifier": gate},
    )


async def _tick(connections: Connections, hub: Hub, server: api.Server) -> None:
    """Everything that is done once a second; how late it runs is the lag of the loop."""
    loop = asyncio.get_running_loop()
    due = loop.time() + 1
    while True:
        await asyncio.sleep(max(0.0, due - loop.time()))
        metrics.loop_lag.observe(max(0.0, loop.time() - due))
        due = max(due + 1, loop.time())
        connections.tick()
        hub.tick()
        server.tick()


def _room(wanted: int) -> tuple[int, int]:
    """How many sockets, and how many other connections, fit into the descriptor limit.

    Args:
        wanted: most sockets.
    """
    descriptors, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        descriptors = hard
    connections = max(1, min(wanted, descriptors - SPARE_DESCRIPTORS - LEAST_STREAMS))
    if connections < wanted:
        log.warning(
            "fewer connections fit than MAX_CONNECTIONS allows: raise the descriptor limit",
            max_connections=wanted,
            fit=connections,
            descriptors=descriptors,
        )
    return connections, max(LEAST_STREAMS, descriptors - SPARE_DESCRIPTORS - connections)
