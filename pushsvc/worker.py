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

from pushsvc import __version__, metrics
from pushsvc.auth.gate import Gate
from pushsvc.codes import Close
from pushsvc.feeds.tracer import reply
from pushsvc.node.acks import Acks
from pushsvc.node.connections import Connections
from pushsvc.node.drain import Drained, depart_until, drain, pause
from pushsvc.node.feeder import Feeder, Reader
from pushsvc.node.hub import Hub
from pushsvc.node.membership import Membership, new_node_id
from pushsvc.node.presence import Presence
from pushsvc.node.renewals import Renewals
from pushsvc.node.reporter import Reporter
from pushsvc.node.requests import Requests
from pushsvc.node.spans import Spans, Tracer
from pushsvc.node.topics import Topics
from pushsvc.node.transport import PLAIN, Transport
from pushsvc.node.webhooks import Webhooks
from pushsvc.node.witness import Witness
from pushsvc.protocol.limits import Rate
from pushsvc.protocol.session import Policy
from pushsvc.settings import PREFIX, Settings, SettingsError
from pushsvc.store import ANSWER_SECONDS, Store, open_store, publish_seconds
from pushsvc.verifying import verifier_of
from pushsvc.web import api
from pushsvc.web.certificates import CertificateError, Certificates
from pushsvc.web.cors import Origins
from pushsvc.web.poll import Poll
from pushsvc.web.rates import RequestRates
from pushsvc.web.socket import Admission, Handshakes
from pushsvc.web.tls import Tls

SPARE_DESCRIPTORS: Final = 200
"""Descriptors for everything that is not a connection of the public port, the admin port's too."""
LEAST_STREAMS: Final = 100
"""Connections for requests that there is always room for."""
STOP_SECONDS: Final = 20.0
"""Most seconds that a worker takes to stop, beyond its delay, its drain and the time-out of
``DURABILITY``: for requests under way, peers that do not answer a close, and a Redis that hangs."""

log = structlog.get_logger("pushsvc.worker")


@dataclass(frozen=True, slots=True)
class Worker:
    """A running worker, as its process sees it."""

    port: int
    node: Callable[[], str]
    troubles: Callable[[], list[str]]
    connections: Callable[[], int]
    drain: Callable[[asyncio.Event], Coroutine[Any, Any, None]]
    """Sends all clients elsewhere; at once when the event is set."""

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
    spans: Spans | None


def _node(
    settings: Settings, store: Store, gate: Gate, transport: Transport, stack: AsyncExitStack
) -> _Node:
    clock = time.monotonic
    policy = policy_of(settings)
    node = new_node_id()
    reader = Reader(store.feeds)
    tracer = _tracer(settings, stack)  # closed after the connections, whose end makes spans too
    spans = None if tracer is None else Spans(tracer, lambda: hub.node)
    feeder = Feeder(reader, policy, clock, store.journal, store.leases.redis_time, spans)
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
        spans=spans,
    )
    renewals = Renewals(gate, policy, clock)
    stack.push_async_callback(renewals.aclose)
    requests = Requests(topics, store.publisher, settings.max_message_bytes)
    stack.push_async_callback(requests.aclose)
    stack.callback(hub.close)
    connections = Connections(
        policy,
        settings.max_message_bytes,
        hub,
        renewals.renew,
        requests.serve,
        clock,
        max_age=settings.max_connection_age_seconds,
        transport=transport,
    )
    stack.callback(connections.close)
    witness = Witness(
        hub, store.journal, policy.window, functools.partial(reply, store.lane, store.keys)
    )
    return _Node(hub, topics, acks, connections, witness, spans)


def _tls(settings: Settings) -> Tls | None:
    """What it takes to speak TLS on the public port, if it is wanted there.

    Raises:
        SettingsError: the certificate or its key cannot be used.
    """
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    try:
        return Tls(Certificates(settings.tls_cert_file, settings.tls_key_file))
    except CertificateError as error:
        raise SettingsError(PREFIX + error.variable, error.message) from None


def _tracer(settings: Settings, stack: AsyncExitStack) -> Tracer | None:
    """What makes spans, if they are wanted.

    Raises:
        SettingsError: OpenTelemetry is not installed, or one of its variables cannot be used.
    """
    if settings.tracing == "off":
        return None
    variable = PREFIX + "TRACING"
    try:
        from pushsvc.telemetry import Telemetry  # noqa: PLC0415 - an extra, which may be missing

        telemetry = Telemetry()
    except ModuleNotFoundError as error:
        raise SettingsError(
            variable,
            f"otlp needs OpenTelemetry (no module {error.name}): pip install 'pushsvc[otel]'",
        ) from None
    except ValueError as error:  # some are read as the SDK is imported
        raise SettingsError(variable, f"an OTEL_ variable cannot be used: {error}") from None
    stack.push_async_callback(telemetry.aclose)
    return telemetry


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
        tls = _tls(settings)
        max_connections, max_streams = _room(settings.max_connections)
        metrics.max_connections.set(max_connections)
        metrics.build_info.labels(__version__).set(1)
        store = await open_store(settings, stack)
        gate = Gate(verify, store.revocations, store.tickets)
        stack.push_async_callback(gate.aclose)
        node = _node(settings, store, gate, PLAIN if tls is None else tls.transport, stack)
        connections = node.connections

        def close_revoked(_: object) -> None:
            for connection in list(connections):
                session = connection.session
                if gate.revoked_key(session.user, session.token_key, session.issued):
                    connection.end(Close.REVOKED)

        gate.on_change = close_revoked
        for lane in store.lanes:
            # A promoted replica may lack registrations that were made a moment before.
            lane.on_change = node.hub.sweep_soon
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
        polls: set[Poll] = set()
        application = api.Application(
            handshakes,
            _routes(settings, store, node, gate, admission, polls),
            admission=admission,
            origins=origins,
            demo=demo,
        )
        server = _server(application, settings, max_streams, tls, stack)
        server.add_sockets(sockets)
        ticking = tasks.create_task(_tick(connections, node.hub, server), name="ticks")
        stack.callback(ticking.cancel)

        def present() -> list[Drained]:
            return [*connections.present(), *(poll for poll in polls if not poll.departing)]

        async def leave(hurry: asyncio.Event) -> None:
            admission.draining = True
            await pause(settings.drain_delay_seconds, hurry)
            log.info("draining", connections=len(connections), seconds=settings.drain_seconds)
            admission.closed = True
            server.stop()
            await drain(present, lambda: admission.in_flight, settings.drain_seconds, hurry)
            # What was let in before, and waits for Redis, is there by then or gets an error.
            deadline = time.monotonic() + ANSWER_SECONDS
            while admission.in_flight and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
            # A handshake takes several answers of Redis: some are let in after that time.
            await depart_until(application.finished(publish_seconds(settings)), present)
            await connections.settled()

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


def stop_seconds(settings: Settings) -> float:
    """Most seconds from the signal until a worker has ended."""
    waiting = settings.drain_delay_seconds + settings.drain_seconds
    return waiting + publish_seconds(settings) - ANSWER_SECONDS + STOP_SECONDS


def _server(
    application: api.Application,
    settings: Settings,
    max_streams: int,
    tls: Tls | None,
    stack: AsyncExitStack,
) -> api.Server:
    server = api.Server(
        application,
        request_timeout=settings.request_timeout_seconds,
        max_streams=max_streams,
        tls=tls,
    )
    stack.push_async_callback(server.close_all_connections)
    stack.callback(server.stop)
    return server


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
    polls: set[Poll],
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
            "spans": node.spans,
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
            "polls": polls,
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
