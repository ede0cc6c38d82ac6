"""Pushes against a model: whatever happens, in whatever order, and wherever a node dies."""

import asyncio
import uuid
from collections.abc import Coroutine
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pushsvc.feeds.feed import Bounds
from pushsvc.feeds.nodes import Outbox
from pushsvc.feeds.pushes import Done
from pushsvc.feeds.read_state import ReadStates
from pushsvc.protocol.feeds import mailbox
from pushsvc.protocol.read_state import Change, Verb
from pushsvc.server.embedded import EmbeddedServer
from tests.support.pushes import PushStore
from tests.support.store import FEED

BOUNDS = Bounds(entries=1000, retention=3600, connections=4)
OTHER = mailbox("u2")
DEVICES = ("phone", "tablet", "laptop")
devices = st.sampled_from(DEVICES)
VERDICTS = st.sampled_from(["sent", "sent", "failed", "retry", "crash", "lost"])
"""Where the node dies: after the outcome was written, or before anything was."""


class Model(RuleBasedStateMachine):
    """One mailbox, its devices, and a node that looks, sends and dies."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.store = self.run(self.opened())
        self.registered: dict[str, str] = {}
        """Device to address."""
        self.acked: dict[str, int] = {}
        self.pending: set[int] = set()
        """What is worth a push, until somebody looked and nothing was left to do."""
        self.keys: dict[str, int] = {}
        self.live: list[int] = []
        self.final: set[tuple[int, str]] = set()

    def run(self, doing: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(doing)

    async def opened(self) -> PushStore:
        store = PushStore(self.url, f"t{uuid.uuid4().hex[:10]}", BOUNDS)
        self.states = ReadStates(store.commands, Outbox(store.commands))
        await store.states_begin(self.states)
        return store

    def teardown(self) -> None:
        self.run(self.store.aclose())
        self.loop.close()

    def is_due(self, notification: int, device: str) -> bool:
        return (
            notification in self.pending
            and device in self.registered
            and self.acked.get(device, 0) < notification
            and (notification, device) not in self.final
        )

    def due(self) -> set[tuple[int, str]]:
        return {
            (each, device)
            for each in self.pending
            for device in DEVICES
            if self.is_due(each, device)
        }

    def settled(self, *notifications: int) -> None:
        """Those of which nothing was left to do are forgotten, whoever registers later."""
        still = {each for each, _ in self.due()}
        self.pending -= {each for each in notifications if each not in still}

    @rule(key=st.sampled_from(["", "", "k"]))
    def publish(self, key: str) -> None:
        sent = self.run(self.store.push(receipt="backend", collapse_key=key))
        if key and key in self.keys:
            self.gone(self.keys[key])
        if key:
            self.keys[key] = sent
        self.live.append(sent)
        if self.registered:
            self.pending.add(sent)

    def gone(self, notification: int) -> None:
        self.pending.discard(notification)
        if notification in self.live:
            self.live.remove(notification)

    @rule(device=devices, which=st.integers(0, 3))
    @precondition(lambda self: self.live)
    def ack(self, device: str, which: int) -> None:
        upto = self.live[-1 - which % len(self.live)]
        self.run(self.store.ack(device, upto))
        self.acked[device] = max(upto, self.acked.get(device, 0))

    @rule(which=st.integers(0, 3), verb=st.sampled_from([Verb.READ, Verb.ARCHIVE]))
    @precondition(lambda self: self.live)
    def read(self, which: int, verb: Verb) -> None:
        notification = self.live[-1 - which % len(self.live)]
        self.run(self.states.change(FEED, Change(verb, [notification], None)))
        self.pending.discard(notification)

    @rule(which=st.integers(0, 3))
    @precondition(lambda self: self.live)
    def recall(self, which: int) -> None:
        notification = self.live[-1 - which % len(self.live)]
        assert self.run(self.store.withdraw(notification))
        self.gone(notification)

    @rule(device=devices, address=st.sampled_from(["", "moved"]))
    def register(self, device: str, address: str) -> None:
        self.run(self.store.register(device, address))
        address = address or f"at-{device}"
        for other in [each for each, held in self.registered.items() if held == address]:
            del self.registered[other]
        self.registered[device] = address

    @rule(device=devices)
    def move_elsewhere(self, device: str) -> None:
        self.run(self.store.register(device, self.registered.get(device, ""), feed=OTHER))
        address = self.registered.get(device) or f"at-{device}"
        for each in [each for each, held in self.registered.items() if held == address]:
            del self.registered[each]

    @rule(device=devices)
    def remove(self, device: str) -> None:
        self.run(self.store.registrations.remove(FEED, device))
        self.registered.pop(device, None)

    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        """A node looks, and sends; each push is settled, or the node dies before or meanwhile."""
        found = self.run(self.store.look())
        pushes = found.pushes
        given = [(each.notification, each.device) for each in pushes]
        assert len(given) == len(set(given))
        assert set(given) <= self.due()
        if len(self.pending) <= 16 and found.wait != 0.0:
            assert set(given) == self.due()
        self.settled(*self.pending)
        for each in pushes:
            verdict = data.draw(VERDICTS)
            key = (each.notification, each.device)
            if verdict == "crash":
                self.run(self.store.commands.execute(self.store.outcome_of_a_crash(each)))
                self.final.add(key)
            elif verdict == "retry":
                self.run(self.store.pushes.settle([Done(each, "retry", wait=0.0)]))
                self.settled(each.notification)
            elif verdict != "lost":
                times = data.draw(st.integers(1, 2))
                for _ in range(times):
                    self.run(self.store.pushes.settle([Done(each, verdict)]))  # type: ignore[arg-type]
                self.final.add(key)
                self.settled(each.notification)

    @invariant()
    def no_receipt_is_given_twice(self) -> None:
        told = [(each["notification"], each.get("device")) for each in self.store.told()]
        assert len(told) == len(set(told))

    @rule()
    def come_to_rest(self) -> None:
        """Looks go on until nothing is due: then each has had one, and every receipt was given."""
        for _ in range(50):
            found = self.run(self.store.look())
            self.run(self.store.pushes.settle([Done(each, "sent") for each in found.pushes]))
            self.final |= {(each.notification, each.device) for each in found.pushes}
            if found.wait is None and not found.pushes:
                break
        else:
            raise AssertionError("there is always something to do")
        assert self.due() == set()
        self.pending.clear()
        assert self.store.pending() == []
        assert len(self.store.told()) == len(self.final)


def test_each_device_that_is_away_gets_one(valkey: EmbeddedServer) -> None:
    Model.url = valkey.url
    run_state_machine_as_test(
        Model,
        settings=settings(
            max_examples=12,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
