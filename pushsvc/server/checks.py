"""What a node needs of its surroundings, each checked in one place.

The start refuses what cannot work, and logs what can; ``pushsvc doctor`` tells of both.
"""

import resource
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from cryptography import x509

from pushsvc.egress import tls_context
from pushsvc.settings import PREFIX, Settings, SettingsError
from pushsvc.store.credentials import TLS, Access, AccessError, Login
from pushsvc.store.permissions import refusal, unconfirmable
from pushsvc.store.schema import Keys
from pushsvc.store.server_connection import Command, StoreConnection
from pushsvc.web.certificates import CertificateError, Certificates

if TYPE_CHECKING:  # an extra, which may be missing
    from pushsvc.push.apns import ApnsKey
    from pushsvc.push.fcm import FcmCredentials
    from pushsvc.push.providers import PushConfig
    from pushsvc.push.vapid import VapidKeys
    from pushsvc.server.telemetry import Telemetry

Loaded = TypeVar("Loaded")

SPARE_DESCRIPTORS: Final = 200
"""Descriptors for everything that is not a connection of the public port, the admin port's too."""
LEAST_STREAMS: Final = 100
"""Connections for requests that there is always room for."""


def redis_access(settings: Settings) -> Access:
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


async def redis_permits(
    connection: StoreConnection, keys: Keys, confirm: Command | None, settings: Settings
) -> None:
    """Whether Redis lets the node in, and permits what it needs.

    Raises:
        SettingsError: it does not.
        StoreUnavailable: it cannot be asked now.
    """
    refused = await refusal(connection, keys, confirm)
    if refused is None:
        return
    if refused.login:
        variable = "REDIS_URL" if settings.redis_password_file is None else "REDIS_PASSWORD_FILE"
        raise SettingsError(PREFIX + variable, refused.text)
    variable = "REDIS_URL" if settings.redis_username is None else "REDIS_USERNAME"
    raise SettingsError(
        PREFIX + variable, refused.text, "give the user the rule in docs/operations/redis.md"
    )


async def redis_confirms(connection: StoreConnection, confirm: Command | None) -> None:
    """Whether Redis can confirm the durability that is asked for, as far as can be known.

    Raises:
        SettingsError: it never can.
    """
    answer = await unconfirmable(connection, confirm)
    if answer is not None:
        raise SettingsError(
            PREFIX + "DURABILITY",
            f"fsync needs a Redis 7.2 or Valkey with appendonly on: it answered {answer!r}",
        )


def tls(settings: Settings) -> Certificates | None:
    """What the public port shows to speak TLS, if it is wanted there.

    Raises:
        SettingsError: the certificate or its key cannot be used.
    """
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    try:
        return Certificates(settings.tls_cert_file, settings.tls_key_file)
    except CertificateError as error:
        raise SettingsError(PREFIX + error.variable, error.message) from None


def telemetry(settings: Settings) -> "Telemetry | None":
    """What sends spans, if they are wanted.

    Raises:
        SettingsError: OpenTelemetry is not installed, or one of its variables cannot be used.
    """
    if settings.tracing == "off":
        return None
    variable = PREFIX + "TRACING"
    try:
        from pushsvc.server.telemetry import Telemetry  # noqa: PLC0415 - an extra, which may be missing

        return Telemetry()
    except ModuleNotFoundError as error:
        raise SettingsError(
            variable,
            f"otlp needs OpenTelemetry (no module {error.name})",
            "pip install 'pushsvc[otel]'",
        ) from None
    except ValueError as error:  # some are read as the SDK is imported
        raise SettingsError(variable, f"an OTEL_ variable cannot be used: {error}") from None


def push(settings: Settings) -> "PushConfig | None":
    """What reaches devices that are away, with its keys loaded; None where nothing is to.

    Raises:
        SettingsError: a file cannot be used, or a library is not installed.
    """
    vapid, apns, fcm = (
        settings.push_vapid_key_file,
        settings.push_apns_key_file,
        settings.push_fcm_credentials_file,
    )
    if vapid is None and apns is None and fcm is None:
        return None
    from pushsvc.push.providers import PushConfig  # noqa: PLC0415 - costs who pushes nothing nothing

    def load_apns(file: Path) -> "ApnsKey":
        from pushsvc.push.apns import load_key  # noqa: PLC0415 - an extra, which may be missing

        key_id, team_id = settings.push_apns_key_id, settings.push_apns_team_id
        return load_key(file, key_id=key_id or "", team_id=team_id or "")

    def load_fcm(file: Path) -> "FcmCredentials":
        from pushsvc.push import fcm, outbound  # noqa: F401, PLC0415 - what it sends with, too

        return fcm.load_credentials(file)

    def load_vapid(file: Path) -> "VapidKeys":
        from pushsvc.push import vapid, web_push  # noqa: F401, PLC0415 - what it sends with, too

        return vapid.load_keys(file)

    try:
        tls_context(settings.push_ca_file)
    except ValueError as error:
        raise SettingsError(PREFIX + "PUSH_CA_FILE", str(error)) from None
    return PushConfig(
        vapid=_loaded("PUSH_VAPID_KEY_FILE", vapid, load_vapid),
        vapid_subject=settings.push_vapid_subject or "",
        apns=_loaded("PUSH_APNS_KEY_FILE", apns, load_apns),
        apns_url=settings.push_apns_url or "",
        fcm=_loaded("PUSH_FCM_CREDENTIALS_FILE", fcm, load_fcm),
        fcm_url=settings.push_fcm_url or "",
        hosts=settings.push_hosts,
        allow_private=settings.push_allow_private,
        ids_only=settings.push_content == "ids",
        ca_file=settings.push_ca_file,
    )


def _loaded(name: str, file: Path | None, load: Callable[[Path], Loaded]) -> Loaded | None:
    """What is in a file that a setting names, if one does.

    Raises:
        SettingsError: it cannot be used, or a library for it is not installed.
    """
    if file is None:
        return None
    try:
        return load(file)
    except ModuleNotFoundError as error:
        raise SettingsError(
            PREFIX + name,
            f"needs a library that is not installed (no module {error.name})",
            "pip install 'pushsvc[push]'",
        ) from None
    except ValueError as error:
        raise SettingsError(PREFIX + name, f"'{file}' {error}") from None


def descriptors() -> int:
    """How many this process may have; the soft limit is raised to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard
    return soft


def room(wanted: int, limit: int) -> tuple[int, int]:
    """How many sockets, and how many other connections, fit into the descriptor limit.

    Args:
        wanted: most sockets.
        limit: descriptors of a process.
    """
    connections = max(1, min(wanted, limit - SPARE_DESCRIPTORS - LEAST_STREAMS))
    return connections, max(LEAST_STREAMS, limit - SPARE_DESCRIPTORS - connections)


def dates(file: Path) -> list[tuple[datetime, datetime]]:
    """From when and until when each certificate of a PEM file is good; empty if it has none."""
    try:
        found = x509.load_pem_x509_certificates(file.read_bytes())
    except (OSError, ValueError):
        return []  # where that matters, whoever uses the file says so
    return [(each.not_valid_before_utc, each.not_valid_after_utc) for each in found]
