"""The composition root: builds a worker out of its parts, starts it, drains it, stops it."""

import asyncio
import contextlib
import errno
import gc
import resource
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog
import uvloop
from prometheus_client import REGISTRY, CollectorRegistry
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from pushsvc import metrics
from pushsvc.auth.keys import MAX_JWKS, KeyConfigError, verifier
from pushsvc.auth.tokens import Verifier
from pushsvc.errors import PushError
from pushsvc.feeds.connect import connector
from pushsvc.feeds.feed import Bounds, Feeds
from pushsvc.feeds.keys import Keys
from pushsvc.feeds.lane import Lane
from pushsvc.feeds.nodes import BLOCK_SECONDS, Leases, Outbox
from pushsvc.feeds.pipe import Pipe
from pushsvc.feeds.publisher import Durability, Publisher, confirmation
from pushsvc.feeds.scripts import Scripts
from pushsvc.node.connections import Connections
from pushsvc.node.drain import drain
from pushsvc.node.hub import Hub
from pushsvc.node.membership import Membership, new_node_id
from pushsvc.node.renewals import Renewals
from pushsvc.protocol.limits import Rate
from pushsvc.protocol.session import Policy
from pushsvc.settings import PREFIX, Settings, SettingsError
from pushsvc.web import admin, api
from pushsvc.web.publish import PublishRates
from pushsvc.web.socket import Admission, Handshakes, Origins

BACKLOG: Final = 4096
"""Connections that the kernel holds until they are accepted."""
ANSWER_SECONDS: Final = 5.0
"""How long Redis may take for a pipeline."""
SPARE_DESCRIPTORS: Final = 100
"""Descriptors for everything that is not a connection of the public port."""
LEAST_STREAMS: Final = 100
"""Connections for requests that there is always room for."""

log = structlog.get_logger("pushsvc.run")


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


def bind(settings: Settings, *, shared: bool = False) -> list[socket.socket]:
    """The sockets of the public port; ``shared`` with other processes.

    Raises:
        SettingsError: the address cannot be bound.
    """
    with _naming("HOST", "PORT"):
        return bind_sockets(settings.port, settings.host, backlog=BACKLOG, reuse_port=shared)


def bind_admin(settings: Settings) -> list[socket.socket]:
    """The sockets of the admin port.

    Raises:
        SettingsError: the address cannot be bound.
    """
    with _naming("ADMIN_HOST", "ADMIN_PORT"):
        return bind_sockets(settings.admin_port, settings.admin_host)


def hold_port(settings: Settings) -> socket.socket:
    """Keep the public port for processes that share it, without accepting on it.

    Raises:
        SettingsError: the address cannot be bound.
    """
    with _naming("HOST", "PORT"):
        family = socket.getaddrinfo(settings.host, settings.port)[0][0]
        held = socket.socket(family, socket.SOCK_STREAM)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((settings.host, settings.port))
    return held


@dataclass(frozen=True, slots=True)
class _Store:
    """What a worker does in Redis."""

    feeds: Feeds
    leases: Leases
    publisher: Publisher
    couriers: Lane
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
    for lane in (publishing, sessions, couriers):
        stack.push_async_callback(lane.aclose)
    bounds = Bounds(
        settings.mailbox_max, settings.retention_seconds, settings.max_connections_per_user
    )
    feeds = Feeds(keys, scripts, bounds, publishing=publishing, sessions=sessions)
    leases = Leases(couriers, keys, scripts, settings.lease_seconds)
    outbox = Outbox(couriers, keys)
    stack.push_async_callback(outbox.aclose)
    await _check_durability(publishing, confirm)
    return _Store(
        feeds,
        leases,
        Publisher(feeds, outbox, leases, durability),
        couriers,
        lambda: connect(BLOCK_SECONDS + ANSWER_SECONDS),
    )


@asynccontextmanager
async def worker(settings: Settings, sockets: list[socket.socket]) -> AsyncIterator[Worker]:
    """A worker that serves on these sockets until the context ends.

    Raises:
        SettingsError: a setting does not fit its surroundings.
    """
    async with AsyncExitStack() as stack:
        clock = time.monotonic
        policy = policy_of(settings)
        verify = verifier_of(settings, _fetch)
        stack.push_async_callback(verify.aclose)
        max_connections, max_streams = _room(settings.max_connections)

        store = await _store(settings, stack)
        hub = Hub(
            new_node_id(),
            store.feeds,
            store.leases,
            policy,
            sweep_seconds=settings.sweep_seconds,
            clock=clock,
        )
        stack.push_async_callback(hub.aclose)
        renewals = Renewals(verify, policy, clock)
        stack.push_async_callback(renewals.aclose)
        connections = Connections(policy, settings.max_message_bytes, hub, renewals.renew, clock)
        stack.callback(connections.close)
        membership = Membership(
            hub, store.leases, store.couriers, store.feeds.keys, store.connect_inbox, clock
        )
        # A task that dies of an error nobody foresaw takes the worker with it: half a node would
        # look healthy.
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        membership.start(tasks)
        stack.push_async_callback(membership.aclose)

        admission = Admission(
            connections,
            max_connections=max_connections,
            max_handshakes=settings.max_handshakes,
        )
        handshakes = Handshakes(
            verify, Origins(settings.allowed_origins), admission, connections, hub
        )
        application = api.Application(
            admission=admission,
            handshakes=handshakes,
            publish={
                "publisher": store.publisher,
                "feeds": store.feeds,
                "rates": PublishRates(settings.publish_rate_per_second),
                "max_message": settings.max_message_bytes,
                "verifier": verify,
                "max_body": settings.max_body_bytes,
                "timeout": settings.request_timeout_seconds,
            },
        )
        server = api.Server(
            application,
            request_timeout=settings.request_timeout_seconds,
            max_streams=max_streams,
        )
        server.add_sockets(sockets)
        stack.push_async_callback(server.close_all_connections)
        stack.callback(server.stop)
        ticking = tasks.create_task(_tick(connections, hub, server), name="ticks")
        stack.callback(ticking.cancel)

        async def leave(seconds: float) -> None:
            admission.draining = True
            server.stop()
            log.info("draining", connections=len(connections), seconds=seconds)
            await handshakes.finished()
            await drain(list(connections), seconds)
            await connections.settled()
            await application.finished(ANSWER_SECONDS)

        def troubles() -> list[str]:
            return ["draining"] if admission.draining else membership.troubles()

        yield Worker(
            port=sockets[0].getsockname()[1],
            node=lambda: hub.node,
            troubles=troubles,
            connections=lambda: len(connections),
            drain=leave,
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


def settle_memory() -> None:
    """Keep the garbage collector from walking what lives as long as the process.

    What was built at the start is frozen, and a connection holds no reference cycle, so the oldest
    generation is worth a look only rarely.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


@asynccontextmanager
async def admin_server(
    sockets: list[socket.socket], report: admin.Report, registry: CollectorRegistry
) -> AsyncIterator[int]:
    """The admin port, until the context ends."""
    server = HTTPServer(admin.application(report, registry), max_header_size=api.MAX_HEADERS)
    server.add_sockets(sockets)
    try:
        yield sockets[0].getsockname()[1]
    finally:
        server.stop()
        await server.close_all_connections()


def until_signal() -> asyncio.Event:
    """An event that the first SIGINT or SIGTERM sets, or the terminal that is closed (SIGHUP)."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        numbers.append(signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    return stop


Started = Callable[[int, int], None]
"""Told the public and the admin port, once both are served."""


async def _serve(settings: Settings, started: Started) -> None:
    stop = until_signal()
    sockets, admin_sockets = bind(settings), bind_admin(settings)
    async with (
        worker(settings, sockets) as running,
        admin_server(admin_sockets, running.report, REGISTRY) as admin_port,
    ):
        settle_memory()
        metrics.ready.set_function(lambda: not running.troubles())
        log.info("serving", port=running.port, admin_port=admin_port, node=running.node())
        await _until_ready(running, stop)
        started(running.port, admin_port)
        await stop.wait()
        await running.drain(settings.drain_seconds)
    log.info("stopped")


async def _until_ready(running: Worker, stop: asyncio.Event, seconds: float = 5.0) -> None:
    """Wait for a first lease, so that who is told that the node is up finds it up."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while running.troubles() and not stop.is_set():
                await asyncio.sleep(0.01)


@contextlib.contextmanager
def _naming(host: str, port: str) -> Iterator[None]:
    """Say which setting is behind an address that cannot be bound."""
    try:
        yield
    except OSError as error:
        nowhere = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        raise SettingsError(
            PREFIX + (host if nowhere else port), f"cannot be bound: {error.strerror}"
        ) from None


def serve(settings: Settings, started: Started = lambda *_: None) -> None:
    """Run one worker and the admin port until a signal.

    Raises:
        SettingsError: a setting does not fit its surroundings.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, started))
