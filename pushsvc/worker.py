"""The composition root: builds a worker out of its parts, starts it, drains it, stops it."""

import asyncio
import contextlib
import resource
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog
from tornado.httpclient import AsyncHTTPClient

from pushsvc import metrics
from pushsvc.auth.gate import Gate
from pushsvc.auth.keys import MAX_JWKS, KeyConfigError, verifier
from pushsvc.auth.tokens import Verifier
from pushsvc.codes import Close
from pushsvc.errors import PushError
from pushsvc.feeds.agenda import Agenda
from pushsvc.feeds.connect import connector
from pushsvc.feeds.feed import Bounds, Feeds
from pushsvc.feeds.history import History
from pushsvc.feeds.keys import Keys
from pushsvc.feeds.lane import Lane
from pushsvc.feeds.nodes import BLOCK_SECONDS, Leases, Outbox
from pushsvc.feeds.pipe import Pipe
from pushsvc.feeds.publisher import Durability, Publisher, confirmation
from pushsvc.feeds.receipt_log import ReceiptLog
from pushsvc.feeds.receipts import HOLD, Receipts
from pushsvc.feeds.revocations import RevocationStore
from pushsvc.feeds.scripts import Scripts
from pushsvc.feeds.tickets import Tickets
from pushsvc.node.acks import Acks
from pushsvc.node.connections import Connections
from pushsvc.node.drain import drain
from pushsvc.node.feeder import Feeder, Reader
from pushsvc.node.hub import Hub
from pushsvc.node.membership import Membership, new_node_id
from pushsvc.node.presence import Presence
from pushsvc.node.renewals import Renewals
from pushsvc.node.requests import Requests
from pushsvc.node.topics import Topics
from pushsvc.node.webhooks import HOLD as WEBHOOK_HOLD
from pushsvc.node.webhooks import Webhooks
from pushsvc.protocol.limits import Rate
from pushsvc.protocol.session import Policy
from pushsvc.settings import PREFIX, Settings, SettingsError
from pushsvc.web import api
from pushsvc.web.cors import Origins
from pushsvc.web.rates import RequestRates
from pushsvc.web.socket import Admission, Handshakes

ANSWER_SECONDS: Final = 5.0
"""How long Redis may take for a pipeline."""
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


def verifier_of(settings: Settings, fetch: Callable[[str], Awaitable[bytes]]) -> Verifier:
    """The verifier of tokens.

    Raises:
        SettingsError: the keys are missing, unreadable or unfit.
    """
    pem = None
    if settings.jwt_public_key_file is not None:
        try:
            pem = Path(settings.jwt_public_key_file).read_bytes()
        except OSError as error:
            raise SettingsError(
                PREFIX + "JWT_PUBLIC_KEY_FILE", f"cannot be read: {error.strerror}"
            ) from None
    secret = settings.jwt_secret
    try:
        return verifier(
            algorithms=settings.jwt_algorithms,
            secret=None if secret is None else secret.get_secret_value(),
            public_key_pem=pem,
            jwks_url=settings.jwt_jwks_url,
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
            fetch=fetch,
        )
    except KeyConfigError as error:
        raise SettingsError(PREFIX + error.variable, error.message) from None


async def _fetch(url: str) -> bytes:
    """Get a JWKS document."""
    client = AsyncHTTPClient(force_instance=True, max_body_size=MAX_JWKS)
    try:
        answer = await client.fetch(
            url, connect_timeout=5, request_timeout=10, follow_redirects=False
        )
        return answer.body
    finally:
        client.close()


@dataclass(frozen=True, slots=True)
class _Store:
    """What a worker does in Redis."""

    keys: Keys
    scripts: Scripts
    lane: Lane
    """For what neither waits for a durability nor belongs to a connection."""
    sessions: Lane
    couriers: Lane
    feeds: Feeds
    leases: Leases
    outbox: Outbox
    receipts: Receipts
    receipt_log: ReceiptLog
    webhooks: Agenda | None
    publisher: Publisher
    connect_inbox: Callable[[], Pipe]


async def _store(settings: Settings, stack: AsyncExitStack) -> _Store:
    durability = Durability(settings.durability.value)
    confirm = confirmation(durability, settings.durability_timeout_seconds)
    url = settings.redis_url.get_secret_value()
    if confirm is not None and "+cluster" in url:
        # WAIT speaks for one connection, the appends of a pipeline go to several servers.
        raise SettingsError(PREFIX + "DURABILITY", "a Cluster is served with memory only")
    connect = connector(url)
    keys, scripts = Keys(settings.redis_prefix), Scripts()
    slow = ANSWER_SECONDS + (settings.durability_timeout_seconds if confirm else 0)
    publishing = Lane("publish", connect(slow), scripts, confirm)
    sessions = Lane("sessions", connect(ANSWER_SECONDS), scripts)
    couriers = Lane("couriers", connect(ANSWER_SECONDS), scripts)
    upkeep = Lane("upkeep", connect(ANSWER_SECONDS), scripts)
    for lane in (publishing, sessions, couriers, upkeep):
        stack.push_async_callback(lane.aclose)
    bounds = Bounds(
        settings.mailbox_max, settings.retention_seconds, settings.max_connections_per_user
    )
    feeds = Feeds(keys, scripts, bounds, publishing=publishing, sessions=sessions)
    leases = Leases(couriers, keys, scripts, settings.lease_seconds)
    outbox = Outbox(couriers, keys)
    stack.push_async_callback(outbox.aclose)
    keep = 2.0 * settings.retention_seconds
    webhooks = None
    if settings.webhook_url is not None:
        webhooks = Agenda("webhooks", upkeep, keys, scripts, hold=WEBHOOK_HOLD, keep=keep)
    agenda = Agenda("receipts", upkeep, keys, scripts, hold=HOLD, keep=keep)
    receipts = Receipts(feeds, upkeep, keys, scripts, agenda, webhooks)
    # Acknowledgements are the last to end, and may still call for a look.
    stack.push_async_callback(receipts.aclose)
    await _check_durability(publishing, confirm)
    return _Store(
        keys,
        scripts,
        upkeep,
        sessions,
        couriers,
        feeds,
        leases,
        outbox,
        receipts,
        ReceiptLog(upkeep, keys, scripts, keep=keep),
        webhooks,
        Publisher(feeds, outbox, leases, durability, receipts),
        lambda: connect(BLOCK_SECONDS + ANSWER_SECONDS),
    )


@dataclass(frozen=True, slots=True)
class _Node:
    """What a worker does with connections."""

    hub: Hub
    topics: Topics
    acks: Acks
    connections: Connections


def _node(settings: Settings, store: _Store, gate: Gate, stack: AsyncExitStack) -> _Node:
    clock = time.monotonic
    policy = policy_of(settings)
    node = new_node_id()
    reader = Reader(store.feeds)
    feeder = Feeder(reader, policy, clock)
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
    return _Node(hub, topics, acks, connections)


@asynccontextmanager
async def worker(settings: Settings, sockets: list[socket.socket]) -> AsyncIterator[Worker]:
    """A worker that serves on these sockets until the context ends.

    Raises:
        SettingsError: a setting does not fit its surroundings.
    """
    async with AsyncExitStack() as stack:
        verify = verifier_of(settings, _fetch)
        max_connections, max_streams = _room(settings.max_connections)
        store = await _store(settings, stack)
        gate = Gate(
            verify,
            RevocationStore(store.lane, store.keys, store.scripts),
            Tickets(store.lane, store.keys),
        )
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
            node.hub, store.leases, store.couriers, store.keys, store.connect_inbox, time.monotonic
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

        yield Worker(
            port=sockets[0].getsockname()[1],
            node=lambda: node.hub.node,
            troubles=troubles,
            connections=lambda: len(connections),
            drain=leave,
        )


def _start(
    settings: Settings, store: _Store, gate: Gate, tasks: asyncio.TaskGroup, stack: AsyncExitStack
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
    store: _Store,
    node: _Node,
    gate: Gate,
    admission: Admission,
    stopping: asyncio.Event,
) -> api.Routes:
    """What the paths of the public port are served with."""
    bounded = {"max_body": settings.max_body_bytes, "timeout": settings.request_timeout_seconds}
    client_rates = RequestRates(settings.rate_messages_per_second, settings.rate_burst)
    history = History(
        store.keys,
        store.scripts,
        lane=store.sessions,
        leases=store.leases,
        outbox=store.outbox,
        retention=settings.retention_seconds,
        receipts_due=store.receipts.soon,
    )
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
        users={**asking, "history": history},
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


async def _check_durability(lane: Lane, confirm: tuple[Any, ...] | None) -> None:
    """Refuse to start where Redis can never confirm what is asked for."""
    if confirm is None or confirm[0] != "WAITAOF":
        return
    try:
        results = await lane.submit([("PING",)])
    except PushError:
        return  # it is not reachable yet; publishes will tell
    if isinstance(results[-1], PushError):
        raise SettingsError(
            PREFIX + "DURABILITY",
            "fsync needs a Redis 7.2 or Valkey with appendonly on: "
            f"it answered {results[-1].detail!r}",
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
