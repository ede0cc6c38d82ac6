"""The push providers of a process, made of what its settings name.

Each is imported where it is wanted: its libraries are an extra.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pushsvc.push.hosts import Hosts
from pushsvc.push.provider import Provider

if TYPE_CHECKING:  # an extra, which may be missing
    from pushsvc.push.apns import ApnsKey
    from pushsvc.push.fcm import FcmCredentials
    from pushsvc.push.vapid import VapidKeys


class PushConfig(NamedTuple):
    """What providers there are to be, with their keys as they were loaded."""

    vapid: "VapidKeys | None" = None
    vapid_subject: str = ""
    """Whom push services can ask, ``mailto:`` or ``https:``."""
    apns: "ApnsKey | None" = None
    apns_url: str = ""
    """In place of Apple's; empty for that."""
    fcm: "FcmCredentials | None" = None
    fcm_url: str = ""
    """In place of that of FCM; empty for that."""
    hosts: tuple[str, ...] = ()
    """Push services besides the known ones."""
    allow_private: bool = False
    """For tests: endpoints may have any host and port."""
    ids_only: bool = False
    """Whether providers are given no texts."""
    ca_file: Path | None = None
    """The authorities that may certify servers, in place of the system's."""


@asynccontextmanager
async def providers(config: PushConfig) -> AsyncIterator[dict[str, Provider]]:
    """The providers that a configuration names, by name, until the context ends.

    Raises:
        ValueError: the file of authorities cannot be used.
        ModuleNotFoundError: a library of the extra ``push`` is missing.
    """
    made: dict[str, Provider] = {}
    async with AsyncExitStack() as stack:
        if config.vapid is not None or config.fcm is not None:
            from pushsvc.push.outbound import Outbound  # noqa: PLC0415 - an extra, may be missing

            hosts = Hosts(config.hosts, allow_private=config.allow_private)
            out = Outbound(hosts, ca_file=config.ca_file)
            stack.push_async_callback(out.aclose)
        if config.vapid is not None:
            from pushsvc.push.web_push import WebPush  # noqa: PLC0415 - the same

            made["web"] = WebPush(config.vapid, config.vapid_subject, out, hosts)
        if config.apns is not None:
            from pushsvc.push.apns import Apns  # noqa: PLC0415 - the same

            made["apns"] = Apns(config.apns, url=config.apns_url, ca_file=config.ca_file)
        if config.fcm is not None:
            from pushsvc.push.fcm import Fcm  # noqa: PLC0415 - the same

            made["fcm"] = Fcm(config.fcm, out, url=config.fcm_url)
        for provider in made.values():
            stack.push_async_callback(provider.aclose)
        yield made
