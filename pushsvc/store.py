"""What a process does in Redis: the parts of ``feeds``, put together as the settings say."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

from pushsvc.errors import PushError
from pushsvc.feeds.agenda import Agenda
from pushsvc.feeds.connect import connector
from pushsvc.feeds.feed import Bounds, Feeds
from pushsvc.feeds.history import History
from pushsvc.feeds.journal import Journal
from pushsvc.feeds.keys import Keys
from pushsvc.feeds.lane import Lane
from pushsvc.feeds.nodes import BLOCK_SECONDS, Leases, Outbox
from pushsvc.feeds.pipe import Pipe
from pushsvc.feeds.publisher import Durability, Publisher, confirmation
from pushsvc.feeds.receipt_log import ReceiptLog
from pushsvc.feeds.receipts import HOLD, Receipts
from pushsvc.feeds.revocations import RevocationStore
from pushsvc.feeds.scripts import Scripts
from pushsvc.feeds.summaries import Summaries
from pushsvc.feeds.tickets import Tickets
from pushsvc.node.webhooks import HOLD as WEBHOOK_HOLD
from pushsvc.settings import PREFIX, Settings, SettingsError

ANSWER_SECONDS: Final = 5.0
"""How long Redis may take for a pipeline."""


@dataclass(frozen=True, slots=True)
class Store:
    """What a process does in Redis."""

    keys: Keys
    scripts: Scripts
    lane: Lane
    """For what neither waits for a durability nor belongs to a connection."""
    couriers: Lane
    feeds: Feeds
    leases: Leases
    outbox: Outbox
    receipts: Receipts
    receipt_log: ReceiptLog
    webhooks: Agenda | None
    publisher: Publisher
    history: History
    journal: Journal
    summaries: Summaries
    revocations: RevocationStore
    tickets: Tickets
    connect_inbox: Callable[[], Pipe]


async def open_store(settings: Settings, stack: AsyncExitStack) -> Store:
    """What a process does in Redis, until the stack ends; connections are opened when first used.

    Args:
        settings: of the process.
        stack: takes what is to be closed.

    Raises:
        SettingsError: Redis cannot do what the settings ask for.
    """
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
    history = History(
        keys,
        scripts,
        lane=sessions,
        leases=leases,
        outbox=outbox,
        retention=settings.retention_seconds,
        receipts_due=receipts.soon,
    )
    journal = Journal(settings.trace_events)
    return Store(
        keys=keys,
        scripts=scripts,
        lane=upkeep,
        couriers=couriers,
        feeds=feeds,
        leases=leases,
        outbox=outbox,
        receipts=receipts,
        receipt_log=ReceiptLog(upkeep, keys, scripts, keep=keep),
        webhooks=webhooks,
        publisher=Publisher(feeds, outbox, leases, durability, receipts, journal),
        history=history,
        journal=journal,
        summaries=Summaries(upkeep, keys, settings.lease_seconds),
        revocations=RevocationStore(upkeep, keys, scripts),
        tickets=Tickets(upkeep, keys),
        connect_inbox=lambda: connect(BLOCK_SECONDS + ANSWER_SECONDS),
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
