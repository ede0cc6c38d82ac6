"""The composition root: builds a worker out of its parts, starts it, drains it, stops it."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from pushsvc import __version__, metrics
from pushsvc.admin.reporter import Reporter
from pushsvc.admin.trace import QUESTION
from pushsvc.admin.trace_responder import TraceResponder
from pushsvc.auth.authenticator import Authenticator
from pushsvc.auth.tokens import Verifier
from pushsvc.codes import Close
from pushsvc.feeds.nodes import ControlMessage
from pushsvc.feeds.user_data import ERASED
from pushsvc.node.connections import Connection, Connections
from pushsvc.node.drain import Drained, depart_until, drain, pause
from pushsvc.node.membership import Membership
from pushsvc.node.node import Domain, Node
from pushsvc.node.pusher import Pusher
from pushsvc.node.spans import Tracer
from pushsvc.node.transport import PLAIN, Secure, Transport
from pushsvc.node.webhooks import Webhooks
from pushsvc.protocol.feeds import broadcast
from pushsvc.protocol.limits import Rate
from pushsvc.protocol.read_state import Verb
from pushsvc.protocol.session import Policy
from pushsvc.push.provider import Provider
from pushsvc.server import checks
from pushsvc.server.auth_file import AuthFile
from pushsvc.server.build import ANSWER_SECONDS, Store, open_store, publish_seconds
from pushsvc.server.verifier import verifier_of
from pushsvc.settings import Settings
from pushsvc.web import api
from pushsvc.web.admission import AT_ONCE, CONNECTIONS, POLLS, Admission
from pushsvc.web.certificates import Certificates
from pushsvc.web.cors import Origins
from pushsvc.web.front import Front
from pushsvc.web.handshake import Handshakes
from pushsvc.web.operation import MAX_SMALL
from pushsvc.web.poll import Poll, PollOperation
from pushsvc.web.publish import BatchOperation, PublishOperation
from pushsvc.web.push import (
    MAX_REGISTRATION,
    Capabilities,
    DevicePushOperation,
    DevicesOperation,
    PushedOperation,
    PushOperation,
    PushReadOperation,
)
from pushsvc.web.rates import RequestRates
from pushsvc.web.revocations import DisconnectOperation, RevocationsOperation
from pushsvc.web.tickets import TicketsOperation
from pushsvc.web.users import MAX_NAMED, AckOperation, ReadStateOperation

if TYPE_CHECKING:
    from pushsvc.push.providers import PushConfig

STOP_SECONDS: Final = 20.0
"""Most seconds that a worker takes to stop, beyond its delay, its drain and the time-out of
``DURABILITY``: for requests under way, peers that do not answer a close, and a Redis that hangs."""

log = structlog.get_logger("pushsvc.worker")


class Worker:
    """A running worker, as its process sees it.

    Args:
        settings: of the worker.
        node: the connections.
        membership: of the node.
        verifier: of tokens.
        front: the public port.
        port: its number.
    """

    def __init__(
        self,
        settings: Settings,
        node: Node,
        membership: Membership,
        verifier: Verifier | AuthFile,
        front: "_Front",
        port: int,
    ) -> None:
        self.port = port
        self._settings = settings
        self._node = node
        self._membership = membership
        self._verifier = verifier
        self._front = front

    def node(self) -> str:
        """The present id of the node."""
        return self._node.identity.id

    def connections(self) -> int:
        """How many sockets and streams it holds."""
        return len(self._node.connections)

    def troubles(self) -> list[str]:
        """Why it should get no traffic; empty when it is ready."""
        front = self._front
        if front.admission.draining:
            return ["draining"]
        return [
            *self._membership.troubles(), *self._verifier.troubles(), *front.http.troubles(),
        ]  # fmt: skip

    def report(self) -> dict[str, Any]:
        """What ``/readyz`` says."""
        return {
            "troubles": self.troubles(),
            "node": self.node(),
            "connections": self.connections(),
        }

    async def drain(self, hurry: asyncio.Event) -> None:
        """Send all clients elsewhere; at once when the event is set."""
        settings, front = self._settings, self._front
        admission = front.admission
        admission.draining = True
        await pause(settings.drain_delay_seconds, hurry)
        log.info("draining", connections=self.connections(), seconds=settings.drain_seconds)
        admission.closed = True
        front.http.stop()
        await drain(self._present, lambda: admission.under_way, settings.drain_seconds, hurry)
        # What was let in before, and waits for Redis, is there by then or gets an error.
        deadline = time.monotonic() + ANSWER_SECONDS
        while admission.under_way and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        # A handshake takes several answers of Redis: some are let in after that time.
        finished = front.http.finished(publish_seconds(settings))
        await depart_until(finished, self._present)
        await self._node.connections.settled()

    def _present(self) -> list[Drained]:
        polls = (poll for poll in self._front.polls if not poll.departing)
        return [*self._node.connections.present(), *polls]


@dataclass(frozen=True, slots=True)
class _Front:
    """The public port of a worker."""

    admission: Admission
    polls: set[Poll]
    http: Front


def byte_rate(settings: Settings) -> Rate:
    """How many bytes a client may send, by whichever way."""
    rate = settings.rate_bytes_per_second
    return Rate(rate, max(2 * settings.max_message_bytes, 2 * rate))


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
        bytes=byte_rate(settings),
        # A client may ack whatever it is sent, one by one.
        control=Rate(max(1000.0, 10 * rate), max(2000.0, 20 * burst)),
    )


def _node(
    settings: Settings,
    store: Store,
    authenticator: Authenticator,
    transport: Transport,
    rates: RequestRates,
    stack: AsyncExitStack,
) -> Node:
    """The node of this process."""
    tracer = _tracer(settings, stack)  # closed after the connections, whose end makes spans too
    node = Node(
        Domain(
            feeds=store.feeds,
            leases=store.leases,
            outbox=store.outbox,
            publisher=store.publisher,
            read_states=store.read_states,
            event_log=store.event_log,
            receipts_due=store.receipts.schedule,
            verifier=authenticator,
            is_erased=store.user_data.is_erased,
        ),
        policy_of(settings),
        time.monotonic,
        max_message=settings.max_message_bytes,
        sweep_seconds=settings.sweep_seconds,
        acks_gather=settings.acks_gather_seconds,
        max_age=settings.max_connection_age_seconds,
        transport=transport,
        tracer=tracer,
        owe=lambda caller, cost: rates.owe(caller, time.monotonic(), cost),
    )
    stack.push_async_callback(node.aclose)
    responder = TraceResponder(
        node.identity,
        node.listeners,
        store.event_log,
        node.policy.window,
        store.answers.put,
    )
    node.dispatcher.on(QUESTION, responder.answer)
    return node


async def _providers(config: "PushConfig | None", stack: AsyncExitStack) -> Mapping[str, Provider]:
    """What reaches devices that are away, by name."""
    if config is None:
        return {}
    from pushsvc.push.providers import providers  # noqa: PLC0415 - costs who pushes nothing nothing

    return await stack.enter_async_context(providers(config))


def _tracer(settings: Settings, stack: AsyncExitStack) -> Tracer | None:
    """What makes spans, if they are wanted.

    Raises:
        SettingsError: see ``checks.telemetry``.
    """
    telemetry = checks.telemetry(settings)
    if telemetry is not None:
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
        tls = checks.tls(settings)
        push = checks.push(settings)
        metrics.build_info.labels(__version__).set(1)
        store = await open_store(settings, stack)
        redis_time = store.leases.redis_time
        authenticator = Authenticator(
            verify, store.revocations, store.tickets, redis_time=redis_time
        )
        stack.push_async_callback(authenticator.aclose)
        # Devices and tabs come back together, and go again as pages are left.
        rates = RequestRates(
            CONNECTIONS * settings.rate_messages_per_second,
            max(AT_ONCE * settings.rate_burst, 2 * settings.max_connections_per_user),
        )
        transport = PLAIN if tls is None else Secure(lambda: tls.context)
        node = _node(settings, store, authenticator, transport, rates, stack)
        _close_revoked(node.connections, authenticator)
        for queue in store.queues:
            # A promoted replica may lack registrations that were made a moment before.
            queue.on_change = node.dispatcher.sweep_soon
        membership = Membership(
            node.identity,
            node.dispatcher,
            node.observer,
            store.leases,
            store.open_inbox,
            time.monotonic,
        )
        # A task that dies of an error nobody foresaw takes the worker with it: half a node would
        # look healthy.
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        providers = await _providers(push, stack)
        _start(settings, store, authenticator, tasks, stack)
        if push is not None and providers:
            pusher = Pusher(
                providers,
                store.pushes,
                store.read_states,
                authenticator,
                store.event_log,
                redis_time,
                ids_only=push.ids_only,
            )
            pusher.start(tasks)
            stack.push_async_callback(pusher.aclose)
        membership.start(tasks)
        stack.push_async_callback(membership.aclose)
        front = _front(settings, store, node, authenticator, rates, providers, demo, stack)
        verify.start()
        _close_gone(node.connections, verify)
        following = tasks.create_task(verify.follow(), name="issuers")
        stack.callback(following.cancel)
        node.dispatcher.on(ERASED, _forget(store, node, front.polls))
        front.http.listen(sockets)
        running = Worker(settings, node, membership, verify, front, sockets[0].getsockname()[1])
        reporter = Reporter(
            store.summaries,
            running.node,
            running.troubles,
            running.connections,
            started=time.time(),
            redis_time=redis_time,
        )
        for name, work in (("ticks", _tick(node, tls)), ("reports", reporter.run())):
            task = tasks.create_task(work, name=name)
            stack.callback(task.cancel)
        yield running


def _close_revoked(connections: Connections, authenticator: Authenticator) -> None:
    """Have connections closed whose token is revoked."""

    def close(namespace: str, _: object) -> None:
        everyone = broadcast(namespace)

        def check(connection: Connection) -> None:
            session = connection.session
            if session.broadcast.feed == everyone and authenticator.revoked_key(
                namespace, session.user, session.token_key, session.issued
            ):
                connection.end(Close.REVOKED)

        connections.each(f"revoked {namespace}", check)

    authenticator.on_change = close


def _forget(store: Store, node: Node, polls: set[Poll]) -> Callable[[ControlMessage], None]:
    """What forgets a user who was erased, and has its connections begin anew."""

    def forget(message: ControlMessage) -> None:
        feed, (user, *_) = message.feed, message.values
        store.event_log.forget(feed, user)
        for poll in [each for each in polls if each.session.cursor.feed == feed]:
            poll.depart(0.0)

        def check(connection: Connection) -> None:
            if connection.session.cursor.feed == feed:
                connection.depart(0.0)

        node.connections.each(f"erased {feed}", check)

    return forget


def _close_gone(connections: Connections, issuers: Verifier | AuthFile) -> None:
    """Have connections closed whose issuer is trusted no more, or has its users elsewhere."""

    def close(gone: Mapping[str, Close]) -> None:
        def check(connection: Connection) -> None:
            code = gone.get(connection.session.issuer)
            if code is not None:
                connection.end(code)

        connections.each(f"gone {sorted(gone.items())}", check)

    issuers.on_gone = close


def _front(
    settings: Settings,
    store: Store,
    node: Node,
    authenticator: Authenticator,
    rates: RequestRates,
    providers: Mapping[str, Provider],
    demo: str | None,
    stack: AsyncExitStack,
) -> _Front:
    """What serves the public port."""
    max_connections, max_places = _room(settings.max_connections)
    metrics.max_connections.set(max_connections)
    admission = Admission(
        authenticator,
        node.dispatcher,
        node.connections,
        rates,
        RequestRates(
            POLLS * settings.rate_messages_per_second,
            max(settings.rate_burst, 2 * settings.max_connections_per_user),
        ),
        max_connections=max_connections,
        max_handshakes=settings.max_handshakes,
    )
    origins = Origins(settings.allowed_origins)
    handshakes = Handshakes(
        admission, origins, node.connections, node.dispatcher, node.topics, store.read_states
    )
    polls: set[Poll] = set()
    routes = _routes(settings, store, node, authenticator, admission, polls, origins, providers)
    http = Front(
        node.readiness,
        admission,
        handshakes,
        routes.operations(),
        api.application(routes, origins, demo),
        request_timeout=settings.request_timeout_seconds,
        max_places=max_places,
        max_bodies=max(settings.max_bodies_bytes, settings.max_body_bytes),
    )
    stack.push_async_callback(http.aclose)
    return _Front(admission, polls, http)


def stop_seconds(settings: Settings) -> float:
    """Most seconds from the signal until a worker has ended."""
    waiting = settings.drain_delay_seconds + settings.drain_seconds
    return waiting + publish_seconds(settings) - ANSWER_SECONDS + STOP_SECONDS


def _start(
    settings: Settings,
    store: Store,
    authenticator: Authenticator,
    tasks: asyncio.TaskGroup,
    stack: AsyncExitStack,
) -> None:
    """Start what runs beside the connections."""
    following = tasks.create_task(authenticator.follow(), name="revocations")
    stack.callback(following.cancel)
    store.receipts.start(tasks)
    stack.push_async_callback(store.receipts.aclose)
    store.departures.start(tasks)
    stack.push_async_callback(store.departures.aclose)
    if store.webhooks is not None and settings.webhook_url and settings.webhook_secret:
        webhooks = Webhooks(
            settings.webhook_url,
            settings.webhook_secret.get_secret_value(),
            store.webhooks,
            store.receipt_log,
            store.leases.redis_time,
        )
        webhooks.start(tasks)
        stack.push_async_callback(webhooks.aclose)


def _routes(
    settings: Settings,
    store: Store,
    node: Node,
    authenticator: Authenticator,
    admission: Admission,
    polls: set[Poll],
    origins: Origins,
    providers: Mapping[str, Provider],
) -> api.Routes:
    """What the paths of the public port are served with."""
    small = min(MAX_SMALL, settings.max_body_bytes)
    client_rates = RequestRates(settings.rate_messages_per_second, settings.rate_burst)
    asking = {"verifier": authenticator, "rates": client_rates}
    publishing: dict[str, Any] = {
        "publisher": store.publisher,
        "rates": RequestRates(
            settings.publish_rate_per_second, advice=", or use the batch address"
        ),
        "client_rates": client_rates,
        "client_bytes": RequestRates(*byte_rate(settings), what="bytes"),
        "max_message": settings.max_message_bytes,
        "push_after": settings.push_after_seconds,
        "spans": node.spans,
        "verifier": authenticator,
        "max_body": settings.max_body_bytes,
        "origins": origins,
    }
    asked: dict[str, Any] = {"rates": client_rates, "verifier": authenticator, "origins": origins}
    reading: dict[str, Any] = {
        **asked,
        "read_states": store.read_states,
        "max_body": min(MAX_NAMED, settings.max_body_bytes),
    }
    revoking: dict[str, Any] = {
        "authenticator": authenticator,
        "push_registrations": store.push_registrations,
        "max_body": small,
    }
    opening: dict[str, Any] = {
        "capabilities": Capabilities(
            store.push_registrations,
            authenticator,
            RequestRates(settings.rate_messages_per_second, settings.rate_burst),
            store.leases.redis_time,
        ),
        "origins": origins,
    }
    return api.Routes(
        publish=PublishOperation(**publishing),
        batch=BatchOperation(**publishing),
        ack=AckOperation(
            ack=node.acks.write,
            rates=RequestRates(1000),  # as generous as acknowledging on a socket
            verifier=authenticator,
            max_body=small,
            origins=origins,
        ),
        poll=PollOperation(
            admission=admission,
            connections=node.connections,
            dispatcher=node.dispatcher,
            topics=node.topics,
            polls=polls,
            read_states=store.read_states,
            origins=origins,
        ),
        read=ReadStateOperation(Verb.READ, **reading),
        unread=ReadStateOperation(Verb.UNREAD, **reading),
        archive=ReadStateOperation(Verb.ARCHIVE, **reading),
        unarchive=ReadStateOperation(Verb.UNARCHIVE, **reading),
        tickets=TicketsOperation(
            authenticator=authenticator, rates=client_rates, max_body=small, origins=origins
        ),
        revocations=RevocationsOperation(**revoking),
        disconnect=DisconnectOperation(**revoking),
        push_ways=PushOperation(providers=providers, web_key=_web_key(providers), origins=origins),
        pushed=PushedOperation(history=store.history, pushes=store.pushes, **opening),
        push_read=PushReadOperation(read_states=store.read_states, **opening),
        devices=DevicesOperation(
            history=store.history,
            registrations=store.push_registrations,
            max_body=small,
            **asked,
        ),
        device_push=DevicePushOperation(
            registrations=store.push_registrations,
            providers=providers,
            redis_time=store.leases.redis_time,
            max_body=min(MAX_REGISTRATION, settings.max_body_bytes),
            **asked,
        ),
        users={**asking, "history": store.history},
        recall={**asking, "history": store.history, "schedule": store.schedule},
        topics={**asking, "presence": node.presence},
        cancel={"schedule": store.schedule, "verifier": authenticator},
        receipts={"receipt_log": store.receipt_log, "verifier": authenticator},
        user_data={"data": store.user_data, "verifier": authenticator},
    )


def _web_key(providers: Mapping[str, Provider]) -> str | None:
    """The key that pages subscribe with, if there is Web Push."""
    web = providers.get("web")
    key: str | None = getattr(web, "public_key", None)
    return key


async def _tick(node: Node, tls: Certificates | None) -> None:
    """Everything that is done once a second; how late it runs is the lag of the loop."""
    loop = asyncio.get_running_loop()
    due = loop.time() + 1
    while True:
        await asyncio.sleep(max(0.0, due - loop.time()))
        metrics.loop_lag.observe(max(0.0, loop.time() - due))
        due = max(due + 1, loop.time())
        node.tick()
        if tls is not None:
            tls.tick()


def _room(wanted: int) -> tuple[int, int]:
    """How many sockets, and how many other connections, fit into the descriptor limit.

    Args:
        wanted: most sockets.
    """
    limit = checks.descriptors()
    connections, streams = checks.room(wanted, limit)
    if connections < wanted:
        log.warning(
            "fewer connections fit than MAX_CONNECTIONS allows: raise the descriptor limit",
            max_connections=wanted,
            fit=connections,
            descriptors=limit,
        )
    return connections, streams
