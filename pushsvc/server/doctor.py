"""What is wrong with the surroundings of a node, and what to change: ``pushsvc doctor``.

What the start of a node checks is checked by the same functions. Beyond that, all is told that an
operator would have to know, such as what Redis does when its memory is short.
"""

import asyncio
import http.client
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from socket import socket
from typing import Final

import msgspec

from pushsvc.auth.tokens import KeySource
from pushsvc.errors import PROBLEM_PREFIX
from pushsvc.server import checks, process
from pushsvc.server.findings import Finding, State, refused
from pushsvc.server.redis_doctor import redis_findings
from pushsvc.server.verifier import verifier_of
from pushsvc.settings import PREFIX, Settings, SettingsError

SOON: Final = timedelta(days=7)
"""How long before its end a certificate is told of."""
PROBE_SECONDS: Final = 1.0
"""How long whoever serves a port may take to say who that is."""


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Everything, one after the other, as each is found."""
    for finding in _settings(settings):
        yield finding
    async for finding in redis_findings(settings):
        yield finding
    async for finding in _keys(settings):
        yield finding
    for finding in certificates(settings, datetime.now(UTC)):
        yield finding
    yield await port("port", settings, process.bind)
    yield await port("admin port", settings, process.bind_admin)
    yield files(settings.max_connections, checks.descriptors())
    if settings.tracing != "off":
        yield await _tracing(settings)
    for finding in push(settings):
        yield finding


# --- settings ------------------------------------------------------------------------------------


def _settings(settings: Settings) -> Iterator[Finding]:
    """What the table takes, and is a mistake all the same."""
    given = len(settings.model_fields_set)
    yield Finding(State.OK, "settings", f"{given} are given, and all can be used")
    topic, user = settings.client_bytes_per_topic, settings.client_bytes_per_user
    if 0 < topic < 2 * user or (topic and not user):
        yield Finding(
            State.WARN,
            "settings",
            f"one user may fill a topic for everybody: {PREFIX}CLIENT_BYTES_PER_TOPIC is {topic}"
            f" and {PREFIX}CLIENT_BYTES_PER_USER {user or 'unlimited'}",
            f"set {PREFIX}CLIENT_BYTES_PER_TOPIC to at least twice the other",
        )


# --- keys, certificates --------------------------------------------------------------------------


async def _keys(settings: Settings) -> AsyncIterator[Finding]:
    """Whether tokens can be verified."""
    try:
        verifier = verifier_of(settings)
    except SettingsError as error:
        yield refused("keys", error)
        return
    try:
        sources = verifier.sources()
        await asyncio.gather(*(source.fetch() for source in sources))
        for source in sources:
            yield _source(source)
    finally:
        await verifier.aclose()


def _source(source: KeySource) -> Finding:
    missing = source.missing()
    if missing is None:
        algorithms = ", ".join(source.algorithms)
        return Finding(State.OK, "keys", f"{source.setting} verifies {algorithms}")
    return Finding(
        State.FAIL,
        "keys",
        missing,
        "mend the way to it, or the address (docs/operations/issuers.md has the reasons)",
    )


def certificates(settings: Settings, now: datetime) -> Iterator[Finding]:
    """Whether each certificate that a setting names is good now, and for a while."""
    try:
        checks.tls(settings)
    except SettingsError as error:
        yield refused("certificate", error)
    for field, file in (
        ("TLS_CERT_FILE", settings.tls_cert_file),
        ("REDIS_CA_FILE", settings.redis_ca_file),
        ("REDIS_CERT_FILE", settings.redis_cert_file),
        ("JWT_CA_FILE", settings.jwt_ca_file),
        ("PUSH_CA_FILE", settings.push_ca_file),
        ("JWT_PUBLIC_KEY_FILE", settings.jwt_public_key_file),
    ):
        dates = [] if file is None else checks.dates(file)
        if not dates:
            continue
        if field.endswith("CERT_FILE"):  # a chain, which is good as long as all of it is
            begins, ends = max(begins for begins, _ in dates), min(ends for _, ends in dates)
        else:  # one that is to come, beside those that have been
            begins, ends = max(dates, key=lambda each: each[1])
        what, change = f"{PREFIX}{field}: '{file}'", "renew it; no restart is needed"
        # The key of a certificate is used whatever its dates are.
        bad = State.WARN if field == "JWT_PUBLIC_KEY_FILE" else State.FAIL
        if ends <= now:
            yield Finding(bad, "certificate", f"{what} has expired on {ends:%F %T} UTC", change)
        elif begins > now:
            yield Finding(
                bad,
                "certificate",
                f"{what} is good from {begins:%F %T} UTC on",
                "compare the clock of this machine, or take one that is good",
            )
        elif ends - now < SOON:
            yield Finding(State.WARN, "certificate", f"{what} ends on {ends:%F %T} UTC", change)
        else:
            yield Finding(State.OK, "certificate", f"{what} is good until {ends:%F %T} UTC")


# --- this machine --------------------------------------------------------------------------------


async def port(
    check: str, settings: Settings, bind: Callable[[Settings], Sequence[socket]]
) -> Finding:
    """Whether a port can be had, or a node has it already."""
    try:
        for bound in bind(settings):
            bound.close()
    except process.PortInUse as error:
        if await asyncio.to_thread(_is_node, settings, admin=check.startswith("admin")):
            return Finding(State.OK, check, "a node of pushsvc serves it already")
        return refused(check, error)
    except SettingsError as error:
        return refused(check, error)
    return Finding(State.OK, check, "it is free")


def _is_node(settings: Settings, *, admin: bool) -> bool:
    """Whether what serves a port refuses as a node does."""
    host = settings.admin_host if admin else settings.host
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    at = settings.admin_port if admin else settings.port
    connection = http.client.HTTPConnection(here, at, timeout=PROBE_SECONDS)
    if not admin and settings.tls_cert_file is not None:
        # Its answer says who it is, and it is told nothing.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(here, at, timeout=PROBE_SECONDS, context=context)
    try:
        connection.request("GET", "/who-are-you")
        answer = msgspec.json.decode(connection.getresponse().read(4096))
    except (OSError, http.client.HTTPException, ValueError):
        return False
    finally:
        connection.close()
    return isinstance(answer, dict) and str(answer.get("type")).startswith(PROBLEM_PREFIX)


def files(wanted: int, limit: int) -> Finding:
    """Whether the limit of open files leaves room for the connections.

    Args:
        wanted: connections of each worker.
        limit: open files of each process.
    """
    fit, _ = checks.room(wanted, limit)
    if fit < wanted:
        needed = wanted + checks.SPARE_DESCRIPTORS + checks.LEAST_STREAMS
        return Finding(
            State.WARN,
            "files",
            f"the limit of {limit} open files leaves room for {fit} of the {wanted} connections"
            f" that {PREFIX}MAX_CONNECTIONS has each worker hold",
            f"raise it to {needed} (ulimit -n; LimitNOFILE= of systemd), or lower the setting",
        )
    return Finding(State.OK, "files", f"{limit} leave room for {wanted} connections a worker")


async def _tracing(settings: Settings) -> Finding:
    """Whether spans can be sent."""
    try:
        telemetry = checks.telemetry(settings)
    except SettingsError as error:
        return refused("tracing", error)
    if telemetry is not None:
        await telemetry.aclose()
    return Finding(State.OK, "tracing", f"{settings.tracing}")


def push(settings: Settings) -> Iterator[Finding]:
    """Whether the keys of push providers can be used, where there are any."""
    try:
        config = checks.push(settings)
    except SettingsError as error:
        yield refused("push", error)
        return
    if config is None:
        return
    ways = {"web": config.vapid, "apns": config.apns, "fcm": config.fcm}
    named = ", ".join(name for name, key in ways.items() if key is not None)
    yield Finding(State.OK, "push", f"the keys of {named} can be used")
    if config.allow_private:
        yield Finding(
            State.WARN,
            "push",
            f"{PREFIX}PUSH_ALLOW_PRIVATE lets whoever may register have nodes call any address",
            "take it out where users may register",
        )
