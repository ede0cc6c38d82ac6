"""What the console works with, put together: a process has it beside its worker, or without one."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from pushsvc.feeds.mailboxes import Mailboxes
from pushsvc.feeds.tracer import Tracer
from pushsvc.settings import Settings
from pushsvc.store import open_store
from pushsvc.verifying import verifier_of
from pushsvc.web.desk import Desk, DeskGate
from pushsvc.web.rates import RequestRates
from pushsvc.web.tracing import PER_SECOND as TRACES_PER_SECOND

MAX_BODY: Final = 64 * 1024
"""Bytes of what the console sends: a notification to try something out."""


@asynccontextmanager
async def desk(settings: Settings) -> AsyncIterator[Desk]:
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
        gate = DeskGate(verify, store.revocations, store.tickets, store.leases.look)
        stack.push_async_callback(gate.aclose)
        bounded = {"max_body": MAX_BODY, "timeout": settings.request_timeout_seconds}
        rates = RequestRates(settings.rate_messages_per_second, settings.rate_burst)
        yield Desk(
            gate=gate,
            summaries=store.summaries,
            live=store.leases.look,
            redis_time=store.leases.redis_time,
            mailboxes=Mailboxes(store.lane, store.keys, store.scripts, store.leases),
            publish={
                **bounded,
                "publisher": store.publisher,
                "store": store.feeds,
                "rates": RequestRates(settings.publish_rate_per_second),
                "client_rates": rates,
                "max_message": settings.max_message_bytes,
                "verifier": gate,
            },
            users={"verifier": gate, "rates": rates, "history": store.history},
            acts={**bounded, "gate": gate},
            trace={
                "verifier": gate,
                "rates": RequestRates(TRACES_PER_SECOND),
                "tracer": Tracer(
                    store.lane,
                    store.keys,
                    store.scripts,
                    store.leases,
                    store.summaries,
                    store.outbox,
                    store.journal,
                ),
            },
        )
