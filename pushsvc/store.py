"""What a process does in Redis: the parts of ``feeds``, put together as the settings say."""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pushsvc.errors import PushError, StoreUnavailable
from pushsvc.feeds.access import TLS, Access, AccessError, Login
from pushsvc.feeds.agenda import Agenda
from pushsvc.feeds.connect import connector
from pushsvc.feeds.feed import Bounds, Feeds
from pushsvc.feeds.history import History
from pushsvc.feeds.journal import Journal
from pushsvc.feeds.keys import Keys
from pushsvc.feeds.lane import Lane
from pushsvc.feeds.nodes import BLOCK_SECONDS, Leases, Outbox
from pushsvc.feeds.permissions import refusal
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
FIRST_ANSWER_SECONDS: Final = 2.0
"""How long a start waits for Redis to say what is permitted; a node starts without Redis, too."""


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
    lanes: Sequence[Lane]


def publish_seconds(settings: Settings) -> float:
    """How long Redis may take for a pipeline of publishes."""
    memory = settings.durability.value == Durability.MEMORY.value
    return ANSWER_SECONDS + (0 if memory else settings.durability_timeout_seconds)


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
    connect = connector(url, _access(settings))
    keys, scripts = Keys(settings.redis_prefix), Scripts()
    publishing = Lane("publish", connect(publish_seconds(settings)), scripts, confirm)
    sessions = Lane("sessions", connect(ANSWER_SECONDS), scripts)
    # Nobody else's server may delay a renewal: each lane waits for the slowest of a Cluster.
    leasing = Lane("leases", connect(ANSWER_SECONDS), scripts)
    couriers = Lane("couriers", connect(ANSWER_SECONDS), scripts)
    upkeep = Lane("upkeep", connect(ANSWER_SECONDS), scripts)
    lanes = (publishing, sessions, leasing, couriers, upkeep)
    for lane in lanes:
        stack.push_async_callback(lane.aclose)
    bounds = Bounds(
        settings.mailbox_max, settings.retention_seconds, settings.max_connections_per_user
    )
    feeds = Feeds(keys, scripts, bounds, publishing=publishing, sessions=sessions)
    leases = Leases(leasing, keys, scripts, settings.lease_seconds)
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
    await _check_permissions(connect(FIRST_ANSWER_SECONDS), keys, confirm, settings)
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
        lanes=lanes,
    )


def _access(settings: Settings) -> Access:
    """What lets this node in to Redis.

    Raises:
        SettingsError: a file for that cannot be used.
    """

    def login(file: Path | None, user: str | None) -> Login | None:
        return None if file is None else Login(file, user or "")

    access = Access(
        login=login(settings.redis_password_file, settings.redis_username),
        sentinel=login(settings.redis_sentinel_password_file, settings.redis_sentinel_username),
        tls=TLS(settings.redis_ca_file, settings.redis_cert_file, settings.redis_key_file),
    )
    try:
        access.check()
    except AccessError as error:
        raise SettingsError(PREFIX + error.variable, error.message) from None
    return access


async def _check_permissions(
    pipe: Pipe, keys: Keys, confirm: tuple[Any, ...] | None, settings: Settings
) -> None:
    """Refuse to start where Redis does not let the node in, or not permit what it needs."""
    try:
        refused = await refusal(pipe, keys, confirm)
    except PushError:
        return  # it is not reachable yet; the log tells when a command is refused later
    finally:
        await pipe.aclose()
    if refused is None:
        return
    if refused.login:
        variable = "REDIS_URL" if settings.redis_password_file is None else "REDIS_PASSWORD_FILE"
        raise SettingsError(PREFIX + variable, refused.text)
    variable = "REDIS_URL" if settings.redis_username is None else "REDIS_USERNAME"
    raise SettingsError(
        PREFIX + variable, f"{refused.text} (docs/operations/redis.md has the rule)"
    )


async def _check_durability(lane: Lane, confirm: tuple[Any, ...] | None) -> None:
    """Refuse to start where Redis can never confirm what is asked for."""
    if confirm is None or confirm[0] != "WAITAOF":
        return
    try:
        results = await lane.submit([("PING",)])
    except PushError:
        return  # it is not reachable yet; publishes will tell
    if isinstance(results[-1], StoreUnavailable):
        return  # it loads its data, or fails over
    if isinstance(results[-1], PushError):
        raise SettingsError(
            PREFIX + "DURABILITY",
            "fsync needs a Redis 7.2 or Valkey with appendonly on: "
            f"it answered {results[-1].detail!r}",
        )
