"""Draining: even batches, and what each client is told."""

import json

from hypothesis import given
from hypothesis import strategies as st

from pushsvc.codes import Close
from pushsvc.node.drain import STEP, batches, drain


@given(st.lists(st.integers()), st.floats(0, 60))
def test_everyone_is_asked_once_within_the_time(items: list[int], seconds: float) -> None:
    cut = list(batches(items, seconds))
    assert [item for batch in cut for item in batch] == items
    assert len(cut) * STEP <= seconds + STEP


@given(st.integers(1, 5000), st.floats(1, 60))
def test_batches_differ_by_the_last_one_only(count: int, seconds: float) -> None:
    sizes = [len(batch) for batch in batches(list(range(count)), seconds)]
    assert len(set(sizes[:-1])) <= 1
    assert sizes[-1] <= sizes[0]


class Client:
    def __init__(self) -> None:
        self.told: list[object] = []

    def send(self, payload: bytes) -> None:
        self.told.append(json.loads(payload)["type"])

    def end(self, code: Close) -> None:
        self.told.append(code)


async def test_each_client_is_told_to_reconnect_and_closed_with_4001() -> None:
    clients = [Client() for _ in range(25)]
    await drain(list(clients), 0.3)
    assert all(client.told == ["reconnect", Close.DRAINING] for client in clients)
