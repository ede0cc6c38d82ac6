"""Mailboxes as an operator looks at them."""

from collections.abc import AsyncIterator

import pytest

from pushsvc.feeds import mailboxes
from pushsvc.feeds.feed import Bounds
from pushsvc.feeds.mailboxes import Device, Mailbox, Mailboxes
from pushsvc.feeds.nodes import Leases
from pushsvc.server.embedded import EmbeddedServer
from tests.support.store import FEED, Store


class Operator(Store):
    """A store that is looked at."""

    def __init__(self, url: str, prefix: str) -> None:
        super().__init__(url, prefix, Bounds(entries=5000, retention=60, connections=8))
        self.leases = Leases(self.commands, 10)
        self.mailboxes = Mailboxes(self.commands, self.leases)

    async def look(self) -> Mailbox:
        await self.leases.fetch_live()
        return await self.mailboxes.view(FEED)

    async def device(self, name: str) -> Device:
        (found,) = (each for each in (await self.look()).devices if each.device == name)
        return found


@pytest.fixture
async def store(valkey: EmbeddedServer, prefix: str) -> AsyncIterator[Operator]:
    store = Operator(valkey.url, prefix)
    await store.leases.renew("n1", take=True)
    yield store
    await store.aclose()


async def test_a_mailbox_that_never_was_is_empty(store: Operator) -> None:
    assert await store.look() == Mailbox(0, None, None, [])
    assert not (await store.look()).online


async def test_what_a_device_has_not_acknowledged_waits_for_it(store: Operator) -> None:
    await store.join("n1.1", "phone")
    await store.join("n1.2", "tab")
    sent = [await store.publish() for _ in range(10)]
    await store.ack("phone", sent[6])
    found = await store.look()
    assert (found.length, found.oldest, found.newest) == (10, sent[0], sent[-1])
    assert [(each.device, each.acked, each.waiting, each.more) for each in found.devices] == [
        ("phone", sent[6], 3, False),
        ("tab", None, 10, False),
    ]
    await store.ack("phone", sent[-1])
    assert (await store.device("phone")).waiting == 0


async def test_what_is_for_one_device_waits_for_that_alone(store: Operator) -> None:
    await store.join("n1.1", "phone")
    await store.join("n1.2", "tab")
    sent = [await store.publish(device=device) for device in ("phone", "", "tab", "phone")]
    assert [(each.device, each.waiting) for each in (await store.look()).devices] == [
        ("phone", 3),
        ("tab", 2),
    ]
    await store.ack("phone", sent[1])
    await store.ack("tab", sent[2])
    assert [(each.device, each.waiting) for each in (await store.look()).devices] == [
        ("phone", 1),
        ("tab", 0),
    ]


async def test_what_is_withdrawn_or_has_outlived_its_time_does_not_wait(store: Operator) -> None:
    await store.join("n1.1", "phone")
    sent = [await store.publish() for _ in range(3)]
    await store.publish(ttl=0.001)
    await store.withdraw(sent[1])
    while (await store.device("phone")).waiting != 2:
        pass
    assert (await store.look()).length == 3


async def test_all_that_one_device_holds_open_is_listed(store: Operator) -> None:
    for number in range(3):
        await store.join(f"n1.{number}", "phone")
    found = await store.device("phone")
    assert [each.connection for each in found.connections] == ["n1.0", "n1.1", "n1.2"]
    assert {each.node for each in found.connections} == {"n1"}
    now = (await store.leases.renew("n1", take=False)).redis_ms
    assert all(0 <= now - each.since < 60_000 for each in found.connections)


async def test_connections_of_dead_nodes_are_not_told(store: Operator) -> None:
    await store.join("n1.1", "phone")
    await store.join("n2.1", "tab")
    found = await store.look()
    assert found.online
    assert [len(each.connections) for each in found.devices] == [1, 0]
    await store.leases.give_up("n1")
    assert not (await store.look()).online


async def test_the_positions_in_the_broadcast_are_told(store: Operator) -> None:
    await store.join("n1.1", "phone", broadcast=7 << 64)
    await store.join("n1.2", "tab")
    assert [each.broadcast for each in (await store.look()).devices] == [7 << 64, None]


async def test_a_device_without_a_place_is_told_where_it_is_connected(store: Operator) -> None:
    await store.join("n1.1", "phone")
    store.redis.hdel(store.keys.cursors(FEED), "phone", "~b:phone")
    store.redis.hset(store.keys.cursors(FEED), "~evicted", "phone")
    found = await store.device("phone")
    assert (found.acked, found.broadcast, len(found.connections)) == (None, None, 1)


@pytest.mark.parametrize("bound", ["LOOKS", "LOOK_BYTES"])
async def test_looking_ends_somewhere_and_says_so(
    store: Operator, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(mailboxes, bound, 100)
    await store.join("n1.1", "behind")
    await store.join("n1.2", "ahead")
    sent = [await store.publish("xxxx") for _ in range(200)]
    await store.ack("ahead", sent[-11])
    behind, ahead = await store.device("behind"), await store.device("ahead")
    assert (ahead.waiting, ahead.more) == (10, False)
    assert 10 < behind.waiting <= 100
    assert behind.more
    assert (await store.look()).length == 200


@pytest.mark.parametrize("kept", [0, 1, 31, 32, 33, 64, 999, 1000])
async def test_the_count_is_right_at_every_length(store: Operator, kept: int) -> None:
    await store.join("n1.1", "phone")
    sent = [await store.publish() for _ in range(kept)]
    found = await store.device("phone")
    assert (found.waiting, found.more) == (kept, False)
    if sent:
        await store.ack("phone", sent[len(sent) // 2])
        assert (await store.device("phone")).waiting == kept - len(sent) // 2 - 1
