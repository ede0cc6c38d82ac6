"""What a process does in Redis: the parts of ``feeds``, put together as the settings say."""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from pushsvc.errors import PushError
from pushsvc.feeds.departures import Departures
from pushsvc.feeds.event_log import EventLog
from pushsvc.feeds.feed import Bounds, Feeds
from pushsvc.feeds.history import History
from pushsvc.feeds.nodes import BLOCK_SECONDS, Inbox, Leases, Outbox
from pushsvc.feeds.publisher import Publisher, confirmation
from pushsvc.feeds.push_registrations import PushRegistrations
from pushsvc.feeds.pushes import AGAIN, Pushes
from pushsvc.feeds.quota import ClientQuota
from pushsvc.feeds.read_state import ReadStates
from pushsvc.feeds.receipt_log import ReceiptLog
from pushsvc.feeds.receipts import HOLD, Receipts
from pushsvc.feeds.revocations import RevocationStore
from pushsvc.feeds.schedule import Schedule
from pushsvc.feeds.summaries import Summaries
from pushsvc.feeds.tickets import Tickets
from pushsvc.feeds.trace_answers import TraceAnswers
from pushsvc.feeds.user_data import UserData
from pushsvc.feeds.work_queue import WorkQueue
from pushsvc.node.webhooks import HOLD as WEBHOOK_HOLD
from pushsvc.server.checks import redis_access, redis_confirms, redis_permits
from pushsvc.settings import Durability, Settings
from pushsvc.store.blocking import BlockingConnection
from pushsvc.store.pipeline_queue import MAX_PIPELINE, PipelineQueue
from pushsvc.store.redis import Redis
from pushsvc.store.schema import Keys
from pushsvc.store.scripts import Scripts
from pushsvc.store.server_connection import Command, StoreConnection
from pushsvc.store.topology import connector

ANSWER_SECONDS: Final = 5.0
"""How long Redis may take for a pipeline."""
SESSIONS_AT_ONCE: Final = 32
"""Answers to connections in a turn of the event loop: what follows one takes about 0.1 ms."""
PUSH_LEASE: Final = 10.0
"""Seconds until the mailboxes whose pushes a node took are taken by another."""
FIRST_ANSWER_SECONDS: Final = 2.0
"""How long a start waits for Redis to say what is permitted; a node starts without Redis, too."""


@dataclass(frozen=True, slots=True)
class Store:
    """What a process does in Redis."""

    redis: Redis
    """For what neither waits for a durability nor belongs to a connection."""
    feeds: Feeds
    leases: Leases
    outbox: Outbox
    receipts: Receipts
    receipt_log: ReceiptLog
    webhooks: WorkQueue | None
    publisher: Publisher
    push_registrations: PushRegistrations
    pushes: Pushes
    read_states: ReadStates
    schedule: Schedule
    departures: Departures
    history: History
    user_data: UserData
    event_log: EventLog
    summaries: Summaries
    revocations: RevocationStore
    tickets: Tickets
    answers: TraceAnswers
    open_inbox: Callable[[str], Inbox]
    """Makes the inbox of a node, by its id."""
    queues: Sequence[PipelineQueue]


def publish_seconds(settings: Settings) -> float:
    """How long Redis may take for a pipeline of publishes."""
    memory = settings.durability is Durability.MEMORY
    return ANSWER_SECONDS + (0 if memory else settings.durability_timeout_seconds)


async def _ask(
    connect: Callable[[float], StoreConnection],
    keys: Keys,
    confirm: Command | None,
    settings: Settings,
) -> None:
    """Ask Redis whether it permits, and can confirm, what a node asks of it.

    Raises:
        SettingsError: it does not.
    """
    asking = connect(FIRST_ANSWER_SECONDS)
    try:
        await redis_permits(asking, keys, confirm, settings)
    except PushError:
        pass  # it is not reachable yet; the log tells when a command is refused later
    finally:
        await asking.aclose()
    confirming = connect(publish_seconds(settings))
    try:
        await redis_confirms(confirming, confirm)
    finally:
        await confirming.aclose()


async def open_store(settings: Settings, stack: AsyncExitStack) -> Store:
    """What a process does in Redis, until the stack ends; connections are opened when first used.

    Args:
        settings: of the process.
        stack: takes what is to be closed.

    Raises:
        SettingsError: Redis cannot do what the settings ask for.
    """
    durability = settings.durability
    confirm = confirmation(durability, settings.durability_timeout_seconds)
    url = settings.redis_url.get_secret_value()
    connect = connector(url, redis_access(settings))
    keys, scripts = Keys(settings.redis_prefix), Scripts()
    queues: list[PipelineQueue] = []

    def redis(
        name: str,
        seconds: float = ANSWER_SECONDS,
        tail: Command | None = None,
        at_once: int = MAX_PIPELINE,
    ) -> Redis:
        queue = PipelineQueue(name, connect(seconds), scripts, tail, at_once=at_once)
        stack.push_async_callback(queue.aclose)
        queues.append(queue)
        return Redis(queue, keys, scripts)

    publishing = redis("publish", publish_seconds(settings), confirm)
    sessions = redis("sessions", at_once=SESSIONS_AT_ONCE)
    # Nobody else's server may delay a renewal: each queue waits for the slowest of a Cluster.
    leasing = redis("leases")
    inboxes = redis("couriers")
    maintenance = redis("upkeep")
    bounds = Bounds(
        settings.mailbox_max,
        settings.retention_seconds,
        settings.max_connections_per_user,
        client_bytes=settings.client_bytes_per_topic,
    )
    one_server = not url.startswith(("redis+cluster:", "rediss+cluster:"))
    sends = one_server and durability is Durability.MEMORY
    feeds = Feeds(bounds, publishing=publishing, sessions=sessions, sends=sends)
    leases = Leases(leasing, settings.lease_seconds)
    outbox = Outbox(inboxes)
    stack.push_async_callback(outbox.aclose)
    keep = 2.0 * settings.retention_seconds
    webhooks = None
    if settings.webhook_url is not None:
        webhooks = WorkQueue("webhooks", maintenance, hold=WEBHOOK_HOLD, keep=keep)
    work = WorkQueue("receipts", maintenance, hold=HOLD, keep=keep)
    receipts = Receipts(feeds, maintenance, work, webhooks)
    # Acknowledgements are the last to end, and may still call for a look.
    stack.push_async_callback(receipts.aclose)
    await _ask(connect, keys, confirm, settings)
    history = History(
        sessions,
        leases=leases,
        outbox=outbox,
        retention=settings.retention_seconds,
        receipts_due=receipts.schedule,
    )
    event_log = EventLog(settings.trace_events)
    quota = ClientQuota(sessions, settings.client_bytes_per_user, settings.client_bytes_seconds)
    # What a dead node had taken is late by no more than its lease.
    scheduled = WorkQueue("scheduled", maintenance, hold=settings.lease_seconds, keep=keep)
    schedule = Schedule(publishing, maintenance, scheduled, bounds, leases.redis_time)
    pushed = WorkQueue("push", maintenance, hold=PUSH_LEASE, keep=keep, again=AGAIN)
    pushes = Pushes(feeds, maintenance, pushed, PushRegistrations(maintenance), webhooks)
    publisher = Publisher(
        feeds, outbox, leases, durability, receipts, event_log, quota, schedule, pushes
    )
    return Store(
        redis=maintenance,
        feeds=feeds,
        leases=leases,
        outbox=outbox,
        receipts=receipts,
        receipt_log=ReceiptLog(maintenance, keep=keep),
        webhooks=webhooks,
        publisher=publisher,
        push_registrations=pushes.registrations,
        pushes=pushes,
        read_states=ReadStates(sessions, outbox, receipts),
        schedule=schedule,
        departures=Departures(schedule, publisher, scheduled),
        history=history,
        user_data=UserData(
            maintenance,
            lambda: connect(ANSWER_SECONDS),
            leases=leases,
            outbox=outbox,
            queues=[work, scheduled, pushed, *([] if webhooks is None else [webhooks])],
            history=history,
            schedule=schedule,
            pushes=pushes,
            retention=settings.retention_seconds,
        ),
        event_log=event_log,
        summaries=Summaries(maintenance, settings.lease_seconds),
        revocations=RevocationStore(maintenance),
        tickets=Tickets(maintenance),
        answers=TraceAnswers(maintenance),
        open_inbox=lambda node: Inbox(
            BlockingConnection(connect(BLOCK_SECONDS + ANSWER_SECONDS)),
            inboxes,
            node,
            settings.lease_seconds,
        ),
        queues=queues,
    )
