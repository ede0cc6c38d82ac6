"""Push registrations on a real server: an address is of one device, whatever moves meanwhile."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from pushsvc.errors import TooManyDevices
from pushsvc.feeds.feed import Bounds
from pushsvc.protocol.feeds import mailbox
from pushsvc.protocol.push import MAX_DEVICES
from pushsvc.protocol.revocation import Revocation, token_key
from pushsvc.server.embedded import EmbeddedServer
from tests.support.pushes import PushStore
from tests.support.store import FEED

BOUNDS = Bounds(entries=10, retention=3600, connections=4)
OTHER = mailbox("u2")


@pytest.fixture
async def store(valkey: EmbeddedServer, prefix: str) -> AsyncIterator[PushStore]:
    store = PushStore(valkey.url, prefix, BOUNDS)
    yield store
    await store.aclose()


async def test_whether_a_registration_is_new_is_told(store: PushStore) -> None:
    assert await store.register("phone", "a")
    assert not await store.register("phone", "a", id="again")
    assert await store.register("phone", "b")
    assert (await store.registrations.of(FEED))["phone"].address == "b"


async def test_an_address_is_of_who_registered_it_last(store: PushStore) -> None:
    await store.register("phone", "a")
    await store.push()
    await store.register("phone", "a", feed=OTHER)
    assert await store.registrations.of(FEED) == {}
    assert await store.devices_due() == set()
    assert set(await store.registrations.of(OTHER)) == {"phone"}


async def test_an_address_that_moves_on_and_back_stays(store: PushStore) -> None:
    for feed in (FEED, OTHER, FEED):
        await store.register("phone", "a", feed=feed)
    await store.push()
    assert await store.devices_due() == {"phone"}
    assert await store.registrations.of(OTHER) == {}


async def test_of_those_that_register_an_address_together_one_is_reached(store: PushStore) -> None:
    feeds = [mailbox(f"m{i}") for i in range(8)]
    for _ in range(5):
        await asyncio.gather(*(store.register("phone", "a", feed=feed) for feed in feeds))
        for feed in feeds:
            await store.push(feed)
        due = [push for feed in feeds for push in (await store.look(feed)).pushes]
        assert len({each.mailbox for each in due}) == 1


async def test_a_registration_that_was_void_when_it_was_read_is_removed(store: PushStore) -> None:
    await store.register("phone", "a")
    await store.push()
    store.redis.delete(*store.redis.keys(f"{store.keys.prefix}:push:owner:*"))
    due = await store.look()
    assert due == (0.0, [])
    assert await store.registrations.of(FEED) == {}
    assert await store.look() == (None, [])


async def test_only_the_registration_that_is_meant_is_removed(store: PushStore) -> None:
    await store.register("phone", "a", id="one")
    assert not await store.registrations.remove(FEED, "phone", "other")
    assert await store.registrations.remove(FEED, "phone", "one")
    assert not await store.registrations.remove(FEED, "phone")
    assert store.redis.keys(f"{store.keys.prefix}:push:*") == []


async def test_a_failure_of_one_before_does_not_remove_the_next(store: PushStore) -> None:
    await store.register("phone", "a", id="one")
    await store.push()
    (push,) = (await store.look()).pushes
    await store.register("phone", "b", id="two")
    await store.settle(push, "failed", remove=True)
    assert (await store.registrations.of(FEED))["phone"].id == "two"


async def test_so_many_devices_may_be_registered(store: PushStore) -> None:
    for i in range(MAX_DEVICES):
        await store.register(f"d{i}")
    with pytest.raises(TooManyDevices):
        await store.register("more", "m")
    await store.register("d0", "again")
    # Those whose address somebody else took, unnoticed, make room.
    store.redis.delete(*store.redis.keys(f"{store.keys.prefix}:push:owner:*")[:1])
    assert await store.register("more", "m")
    assert len(await store.registrations.of(FEED)) == MAX_DEVICES


@pytest.mark.parametrize("how", ["user", "token", "all"])
async def test_what_a_revoked_token_registered_is_not_reached(store: PushStore, how: str) -> None:
    key = token_key("t1")
    await store.register("phone", token_key=key, issued=100)
    await store.register("tablet", token_key=token_key("t2"), issued=200)
    await store.register("phone", "elsewhere", token_key=key, issued=100, feed=OTHER)
    await store.push()
    await store.push(OTHER)
    revocation = {
        "user": Revocation(10**10, user="u1", issued_before=150),
        "token": Revocation(10**10, token_id="t1"),
        "all": Revocation(10**10, issued_before=150),
    }[how]
    await store.registrations.revoked("", revocation)
    assert await store.devices_due() == {"tablet"}
    assert await store.devices_due(OTHER) == ({"phone"} if how == "user" else set())


async def test_an_earlier_revocation_does_not_undo_a_later_one(store: PushStore) -> None:
    await store.register("phone", issued=100)
    await store.push()
    for until in (150, 50):
        await store.registrations.revoked("", Revocation(10**10, issued_before=until))
    assert await store.devices_due() == set()


async def test_a_revocation_of_another_namespace_concerns_nobody_else(store: PushStore) -> None:
    await store.register("phone", issued=100)
    await store.push()
    await store.registrations.revoked("shop", Revocation(10**10, issued_before=150))
    assert await store.devices_due() == {"phone"}


async def test_all_of_a_mailbox_are_removed(store: PushStore) -> None:
    for device in ("phone", "tablet"):
        await store.register(device, token_key=7)
    assert await store.registrations.remove_all(FEED) == 2
    assert store.redis.keys(f"{store.keys.prefix}:*push:*") == []


async def test_the_secret_is_the_same_for_all(store: PushStore) -> None:
    one, other = await asyncio.gather(*(store.registrations.secret() for _ in range(2)))
    assert one == other
    assert len(one) == 32


async def test_a_provider_is_stopped_and_goes_on(store: PushStore) -> None:
    await store.registrations.stop("web", "ann")
    assert await store.registrations.stopped() == {"web"}
    await store.registrations.go_on("web")
    assert await store.registrations.stopped() == frozenset()
