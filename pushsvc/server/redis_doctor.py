"""What is wrong with the Redis of a node, and what to change."""

import unicodedata
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from pushsvc.auth.tokens import LEEWAY
from pushsvc.errors import PushError
from pushsvc.feeds.nodes import skew
from pushsvc.feeds.publisher import confirmation
from pushsvc.protocol.feeds import MAILBOX, name_of, namespace_of
from pushsvc.server import checks
from pushsvc.server.build import FIRST_ANSWER_SECONDS, publish_seconds
from pushsvc.server.findings import Finding, State, refused
from pushsvc.settings import PREFIX, Durability, Settings, SettingsError
from pushsvc.store.inspection import Server, inspect, wide_feeds
from pushsvc.store.schema import Keys
from pushsvc.store.server_connection import StoreConnection
from pushsvc.store.topology import Connect, connector

OLDEST: Final = 7
"""The oldest major version of Redis."""
MEMORY_FULL: Final = 0.85
"""The part of its memory from which on Redis is told of."""
CLIENTS_OF_WORKER: Final = 6
CLIENTS_OF_ADMIN_PORT: Final = 5
"""Connections to a server that a node has."""
MOST_KEYS: Final = 200_000
"""Keys that are looked at for names: a fifth of a second of Redis' time, a millisecond at once."""
NAMES_TOLD: Final = 3

_RULE: Final = "docs/operations/redis.md"


async def redis_findings(settings: Settings) -> AsyncIterator[Finding]:
    """Everything about Redis; where it cannot be reached, only that."""
    try:
        access = checks.redis_access(settings)
    except SettingsError as error:
        yield refused("redis", error)
        return
    connect = connector(settings.redis_url.get_secret_value(), access)
    connection = connect(FIRST_ANSWER_SECONDS)
    try:
        async for finding in _reached(settings, connection, connect):
            yield finding
    except PushError as error:
        yield Finding(
            State.FAIL,
            "redis",
            f"{settings.redis_url} cannot be reached: {error.__cause__ or error.detail}",
            f"start it, open the way to it, or correct {PREFIX}REDIS_URL ({_RULE})",
        )
    finally:
        await connection.aclose()


async def _reached(
    settings: Settings, connection: StoreConnection, connect: Connect
) -> AsyncIterator[Finding]:
    keys = Keys(settings.redis_prefix)
    confirm = confirmation(settings.durability, settings.durability_timeout_seconds)
    try:
        await checks.redis_permits(connection, keys, confirm, settings)
    except SettingsError as error:
        yield refused("redis", error)
        with suppress(PushError):
            for finding in _servers(settings, connection, await inspect(connection)):
                yield finding
        return
    yield Finding(
        State.OK, "redis", f"{settings.redis_url} lets this node in and permits what it needs"
    )
    servers = await inspect(connection)
    for finding in _servers(settings, connection, servers):
        yield finding
    yield await _durability(settings, connect, servers)
    yield await _names(connection, keys)


def _servers(
    settings: Settings, connection: StoreConnection, servers: Sequence[Server]
) -> Iterator[Finding]:
    """What the servers say of themselves."""
    for server in servers:
        if server.error:
            yield Finding(
                State.FAIL,
                "redis",
                f"{server.name} cannot be reached: {server.error}",
                "start it, or fail over to its replica",
            )
    answering = [server for server in servers if not server.error]
    for finding in topology(settings, answering, connection.unserved()):
        yield finding
    for server in answering:
        for finding in server_findings(server, settings):
            yield finding


def topology(settings: Settings, servers: Sequence[Server], unserved: int) -> Iterator[Finding]:
    """Whether Redis is run as the URL says.

    Args:
        settings: of the node.
        servers: what the primaries say.
        unserved: slots of a Cluster that no primary serves.
    """
    parts = urlsplit(settings.redis_url.get_secret_value())
    kind = parts.scheme.partition("+")[2]
    if unserved:
        yield Finding(
            State.FAIL,
            "redis cluster",
            f"{unserved} of its slots are served by no primary: what belongs there gets 503",
            "bring that primary back, or give the slots away: redis-cli --cluster check names them",
        )
    if kind and "," not in parts.netloc:
        yield Finding(
            State.WARN,
            f"redis {kind}",
            f"{PREFIX}REDIS_URL names one server: a node that starts while it is away finds none",
            "name more of them, separated by commas",
        )
    for server in servers:
        if not kind and server.mode == "cluster":
            yield Finding(
                State.FAIL,
                "redis cluster",
                f"{server.name} belongs to a Cluster, and {PREFIX}REDIS_URL names a single server",
                "write redis+cluster:// in place of redis://",
            )
        if server.is_replica:
            yield Finding(
                State.FAIL,
                "redis",
                f"{server.name} is a replica, which takes no writes",
                "name the primary, or have Sentinel name it: redis+sentinel://",
            )


def server_findings(server: Server, settings: Settings) -> Iterator[Finding]:
    """What one server says of itself."""
    yield version(server)
    yield clock(server)
    if server.info is None:
        yield Finding(
            State.SKIP,
            "redis server",
            f"memory, persistence and clients of {server.name} are told to administrators only",
            f"run doctor with an administrator in {PREFIX}REDIS_URL, or permit +info ({_RULE})",
        )
        if settings.durability is Durability.REPLICA:
            yield replicas(server, settings.durability)
        return
    yield from memory(server)
    yield persistence(server)
    yield replicas(server, settings.durability)
    yield clients(server, settings.workers)


def version(server: Server) -> Finding:
    """Whether it is new enough."""
    told = server.version
    major = told.rpartition(" ")[2].partition(".")[0]
    if not major.isdecimal():
        return Finding(State.SKIP, "redis version", f"{server.name} does not say which it is")
    if int(major) < OLDEST:
        return Finding(
            State.FAIL,
            "redis version",
            f"{server.name} is {told}, which lacks commands that a node uses",
            f"take Redis {OLDEST}.0 or newer, or Valkey",
        )
    return Finding(State.OK, "redis version", f"{server.name} is {told}")


def clock(server: Server) -> Finding:
    """Whether its clock and this machine's agree."""
    if server.time is None:
        return Finding(State.SKIP, "clock", f"{server.name} does not tell the time")
    ahead = skew(server.time, server.sent, server.heard)
    if abs(ahead) > LEEWAY:
        side = "ahead of" if ahead > 0 else "behind"
        return Finding(
            State.FAIL,
            "clock",
            f"this machine is {abs(ahead):.0f} s {side} {server.name}, more than the {LEEWAY:g} s"
            " that tokens are granted: some are refused too early, others taken too long",
            "have NTP set the clock that is wrong (timedatectl, chronyc tracking)",
        )
    return Finding(State.OK, "clock", f"that of {server.name} is within {abs(ahead) + 0.01:.2f} s")


def memory(server: Server) -> Iterator[Finding]:
    """What happens when its memory is short, and whether that is soon."""
    check, policy, most, used = "redis memory", server.policy, server.max_memory, server.memory
    if policy is None or most is None or used is None:
        yield Finding(State.SKIP, check, f"{server.name} does not tell its limit and its policy")
        return
    if policy != "noeviction":
        yield Finding(
            State.FAIL if most else State.WARN,
            check,
            f"maxmemory-policy of {server.name} is {policy}: when memory is short it throws"
            " mailboxes away, and nobody is told",
            "set maxmemory-policy to noeviction",
        )
    if not most:
        yield Finding(
            State.WARN,
            check,
            f"maxmemory of {server.name} is not set: it takes what the machine has, and is killed",
            "set maxmemory (docs/operations/sizing.md)",
        )
    elif used > MEMORY_FULL * most:
        yield Finding(
            State.WARN,
            check,
            f"{server.name} uses {used / most:.0%} of its maxmemory; when it is full, publishing"
            " and connecting get 503",
            "raise maxmemory, or add shards (docs/operations/capacity.md)",
        )
    elif policy == "noeviction":
        yield Finding(State.OK, check, f"{server.name} uses {used / most:.0%}, and evicts nothing")


def persistence(server: Server) -> Finding:
    """Whether what is accepted outlives a restart of it."""
    check = "redis persistence"
    if server.persists is None:
        return Finding(State.SKIP, check, f"{server.name} does not tell it")
    if not server.persists:
        # What fsync needs is said where its command is tried.
        return Finding(
            State.WARN,
            check,
            f"appendonly of {server.name} is no: a restart of it loses mailboxes, cursors and"
            " idempotency keys",
            "set appendonly yes",
        )
    return Finding(State.OK, check, f"{server.name} has appendonly")


def replicas(server: Server, durability: Durability) -> Finding:
    """Whether there is another copy, where one is wanted or there could be."""
    check, count = "redis replicas", server.replicas
    if count is None:
        return Finding(State.SKIP, check, f"{server.name} does not tell them")
    if not count and durability is Durability.REPLICA:
        return Finding(
            State.FAIL,
            check,
            f"{server.name} has none, and {PREFIX}DURABILITY=replica has every publish wait for"
            " one in vain",
            f"add a replica, or set {PREFIX}DURABILITY to memory or fsync",
        )
    if count and server.stops_when_cut_off is False:
        return Finding(
            State.WARN,
            check,
            f"{server.name} has {count}, and takes writes when it is cut off from them: a failover"
            " throws those away",
            "set min-replicas-to-write 1",
        )
    return Finding(State.OK, check, f"{server.name} has {count}")


def clients(server: Server, workers: int) -> Finding:
    """Whether it has room for the connections of a node."""
    check, free = "redis clients", server.free_clients
    needed = workers * CLIENTS_OF_WORKER + CLIENTS_OF_ADMIN_PORT
    if free is None:
        return Finding(State.SKIP, check, f"{server.name} does not tell how many it takes")
    if free < needed:
        return Finding(
            State.WARN,
            check,
            f"{server.name} takes {free} more, and a node needs {needed}",
            "raise maxclients",
        )
    return Finding(State.OK, check, f"{server.name} takes {free} more; a node needs {needed}")


async def _durability(settings: Settings, connect: Connect, servers: Sequence[Server]) -> Finding:
    """Whether the durability can be confirmed: by trying, or by who there is to confirm it."""
    check = "durability"
    if settings.durability is Durability.REPLICA:
        return followed(servers)
    confirm = confirmation(settings.durability, settings.durability_timeout_seconds)
    connection = connect(publish_seconds(settings))
    try:
        await checks.redis_confirms(connection, confirm)
    except SettingsError as error:
        return refused(check, error)
    finally:
        await connection.aclose()
    return Finding(State.OK, check, f"{settings.durability}")


def followed(servers: Sequence[Server]) -> Finding:
    """Whether every primary has a replica that can confirm a publish."""
    check = "durability"
    alone = [each.name for each in servers if not each.error and each.replicas == 0]
    if alone:
        return Finding(
            State.FAIL,
            check,
            f"replica, and {', '.join(alone)} has none: each publish waits for it in vain",
            f"add a replica, or set {PREFIX}DURABILITY to memory or fsync",
        )
    silent = [each.name for each in servers if each.replicas is None]
    if silent:
        return Finding(
            State.SKIP, check, f"replica, and {', '.join(silent)} does not tell who can confirm it"
        )
    return Finding(State.OK, check, f"{Durability.REPLICA}")


async def _names(connection: StoreConnection, keys: Keys) -> Finding:
    """Whether names look like others that they are not."""
    found = await wide_feeds(connection, keys, MOST_KEYS)
    if found is None:
        return Finding(
            State.SKIP,
            "names",
            "the keys of Redis are shown to administrators only",
            f"run doctor with an administrator in {PREFIX}REDIS_URL, or permit +scan ({_RULE})",
        )
    looked = "" if found.whole else f", as far as was looked ({MOST_KEYS} keys)"
    return names(found.feeds, looked)


def names(feeds: frozenset[str], looked: str = "") -> Finding:
    """Names that another form of Unicode looks the same as.

    They are compared byte for byte, so each form is a mailbox or a topic of its own.

    Args:
        feeds: those of users and topics.
        looked: how far was looked, for the text.
    """
    known: dict[tuple[str, str, str], str] = {}
    for feed in sorted(feeds):
        with suppress(UnicodeDecodeError):  # made by somebody else
            known[feed[:2], namespace_of(feed), name_of(feed)] = feed
    odd = [each for each in known if not unicodedata.is_normalized("NFC", each[2])]
    if not odd:
        return Finding(State.OK, "names", f"all are in NFC{looked}")
    twins = [
        (kind, namespace, name)
        for kind, namespace, name in odd
        if (kind, namespace, unicodedata.normalize("NFC", name)) in known
    ]
    told = ", ".join(
        f"{'user' if kind == MAILBOX else 'topic'} {name!a}"
        for kind, _, name in (twins or odd)[:NAMES_TOLD]
    )
    both = f", {len(twins)} of them in both forms" if twins else ""
    return Finding(
        State.WARN,
        "names",
        f"{len(odd)} users or topics are not in NFC{both}{looked}: {told}; the same name in NFC"
        " looks alike and is another mailbox",
        "have whoever issues tokens and publishes normalise names to NFC",
    )
