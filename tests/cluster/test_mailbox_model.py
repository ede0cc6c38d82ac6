"""Mailboxes against the model: any interleaving keeps the promises."""

import os
from typing import Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from pushsvc.feeds import feed as feed_module
from pushsvc.node import catch_up as catch_up_module
from pushsvc.node import registrations as registrations_module
from pushsvc.server.embedded import EmbeddedServer
from tests.cluster.mailbox_model import Model, Store

EXAMPLES: Final = int(os.environ.get("MODEL_EXAMPLES", "120"))
STEPS: Final = int(os.environ.get("MODEL_STEPS", "50"))


def test_every_interleaving_keeps_the_promises(
    valkey: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Small limits, so that few entries reach them.
    monkeypatch.setattr(catch_up_module, "CHUNK", 500)
    monkeypatch.setattr(registrations_module, "BATCH", 2)
    monkeypatch.setattr(feed_module, "READ_COUNT", 4)
    store = Store(valkey.url)
    try:
        run_state_machine_as_test(
            type("Running", (Model,), {"store": store}),
            settings=settings(
                max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )  # fmt: skip
    finally:
        store.close()
