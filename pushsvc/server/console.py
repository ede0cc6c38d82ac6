"""What the console works with, put together: a process has it beside its worker, or without one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from pushsvc.admin.console_api import (
    ConsoleApi,
    ConsoleAuthenticator,
    ConsoleDisconnect,
    ConsolePublish,
    ConsoleRevocations,
)
from pushsvc.admin.trace import TraceQuery
from pushsvc.admin.trace_api import TraceRates
from pushsvc.feeds.mailboxes import Mailboxes
from pushsvc.server.build import open_store
from pushsvc.server.verifier import verifier_of
from pushsvc.settings import Settings
from pushsvc.web.cors import Origins
from pushsvc.web.rates import RequestRates

MAX_BODY: Final = 64 * 1024
"""Bytes of what the console sends: a notification to try something out."""


@asynccontextmanager
async def console_api(settings: Settings) -> AsyncIterator[ConsoleApi]:
    """What the console works with, until the context ends.

    It is no part of a worker: the admin port of several workers has the same one, and what is asked
    there waits behind nothing that clients do. Its connections to Redis are opened when it is first
    used.

    Raises:
        SettingsError: a setting does not fit its surroundings.
    """
    async with AsyncExitStack() as stack:
        verify = verifier_of(settings)
        store = await open_store(settings, stack)
        authenticator = ConsoleAuthenticator(
            verify,
            store.revocations,
            store.tickets,
            store.leases.fetch_live,
            store.leases.redis_time,
        )
        stack.push_async_callback(authenticator.aclose)
        following = asyncio.create_task(verify.follow(), name="issuers")
        stack.callback(following.cancel)
        rates = RequestRates(settings.rate_messages_per_second, settings.rate_burst)
        users = {"verifier": authenticator, "rates": rates, "history": store.history}
        revoking: dict[str, Any] = {
            "authenticator": authenticator,
            "push_registrations": store.push_registrations,
            "max_body": MAX_BODY,
        }
        yield ConsoleApi(
            authenticator=authenticator,
            summaries=store.summaries,
            live=store.leases.fetch_live,
            redis_time=store.leases.redis_time,
            mailboxes=Mailboxes(store.redis, store.leases),
            push={
                "registrations": store.push_registrations,
                "providers": [
                    name
                    for name, file in (
                        ("web", settings.push_vapid_key_file),
                        ("apns", settings.push_apns_key_file),
                        ("fcm", settings.push_fcm_credentials_file),
                    )
                    if file is not None
                ],
            },
            publish=ConsolePublish(
                publisher=store.publisher,
                rates=RequestRates(settings.publish_rate_per_second),
                max_message=settings.max_message_bytes,
                push_after=settings.push_after_seconds,
                verifier=authenticator,
                max_body=MAX_BODY,
                origins=Origins(()),  # pages of this very port and no others
            ),
            revocations=ConsoleRevocations(**revoking),
            disconnect=ConsoleDisconnect(**revoking),
            timeout=settings.request_timeout_seconds,
            users=users,
            recall={**users, "schedule": store.schedule},
            trace={
                "verifier": authenticator,
                "rates": TraceRates(),
                "traces": TraceQuery(
                    store.answers,
                    store.leases,
                    store.summaries,
                    store.outbox,
                    store.event_log,
                ),
            },
        )
