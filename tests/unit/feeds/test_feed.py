"""The scripts on a real server: what a feed keeps, who is owed what, what Redis is left with."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import redis

from pushsvc.embedded import EmbeddedServer
from pushsvc.errors import IdempotencyConflict
from pushsvc.feeds.connect import connector
from pushsvc.feeds.feed import MAX_DEVICES, Append, Appended, Bounds, Feeds, Full
from pushsvc.feeds.keys import Keys, mailbox
from pushsvc.feeds.lane import Lane
from pushsvc.feeds.scripts import Scripts
from pushsvc.protocol import ids
from pushsvc.protocol.delivery import UNKNOWN, Backlog

FEED = mailbox("u1")
BOUNDS = Bounds(entries=10, retention=3600, connections=4)


class Store:
    """Feeds, and a look behind them."""

    def __init__(self, url: str, prefix: str, bounds: Bounds) -> None:
        scripts = Scripts()
        self.lane = Lane("test", connector(url)(5), scripts)
        self.keys = Keys(prefix)
        self.feeds = Feeds(self.keys, scripts, bounds, publishing=self.lane, sessions=self.lane)
        self.redis = redis.Redis.from_url(url, decode_responses=True)

    async def publish(self, body: str = "x", **fields: Any) -> int:
        (result,), _ = await self.feeds.append([Append(FEED, body.encode(), **fields)])
        assert isinstance(result, Appended), result
        return result.id

    async def join(self, connection: str, device: str, held: int | None = None) -> Backlog:
        (result,) = await self.feeds.join([(FEED, connection, device, held)])
        return Feeds.joined(result)

    async def read(self, device: str, held: int) -> Backlog:
        return Feeds.backlog((await self.feeds.read(FEED, device, held))[0])

    async def ack(self, device: str, entry_id: int) -> int:
        (cursor,) = await self.feeds.ack([(FEED, device, entry_id)])
        return ids.parse(cursor)


@pytest.fixture
async def store(valkey: EmbeddedServer, prefix: str) -> AsyncIterator[Store]:
    store = Store(valkey.url, prefix, BOUNDS)
    yield store
    await store.lane.aclose()
    store.redis.close()


def held(backlog: Backlog) -> list[int]:
    return [entry.id for entry in backlog.entries if entry.body is not None]


async def test_each_entry_names_the_one_before_it(store: Store) -> None:
    first = await store.publish()
    (result,), _ = await store.feeds.append([Append(FEED, b"y")])
    assert isinstance(result, Appended)
    assert result.previous == first
    assert result.id > first


async def test_a_join_registers_and_reads_in_one_step(store: Store) -> None:
    sent = [await store.publish(str(i)) for i in range(3)]
    backlog = await store.join("n1.1", "phone")
    assert held(backlog) == sent
    assert [entry.body for entry in backlog.entries] == [b"0", b"1", b"2"]
    (result,), _ = await store.feeds.append([Append(FEED, b"y")])
    assert isinstance(result, Appended)
    assert result.listeners == ["n1.1"]


async def test_what_was_acked_is_not_read_again(store: Store) -> None:
    sent = [await store.publish() for _ in range(4)]
    await store.join("n1.1", "phone")
    assert await store.ack("phone", sent[1]) == sent[1]
    assert held(await store.join("n1.2", "phone")) == sent[2:]


async def test_cursors_move_forward_only_and_never_past_the_head(store: Store) -> None:
    sent = [await store.publish() for _ in range(3)]
    await store.join("n1.1", "phone")
    assert await store.ack("phone", sent[2]) == sent[2]
    assert await store.ack("phone", sent[0]) == sent[2]
    assert await store.ack("phone", sent[2] + 1) == sent[2]
    assert await store.ack("phone", ids.parse("99999999999999-0")) == sent[2]


async def test_a_new_device_starts_after_what_any_device_acked(store: Store) -> None:
    sent = [await store.publish() for _ in range(4)]
    await store.join("n1.1", "phone")
    await store.ack("phone", sent[1])
    assert held(await store.join("n1.2", "laptop")) == sent[2:]


async def test_a_device_that_joined_keeps_its_place_while_others_ack(store: Store) -> None:
    sent = [await store.publish() for _ in range(2)]
    await store.join("n1.1", "phone")
    await store.join("n1.2", "laptop")
    await store.ack("laptop", sent[1])
    assert held(await store.join("n1.3", "phone")) == sent


async def test_of_too_many_devices_the_one_furthest_behind_makes_room(store: Store) -> None:
    sent = await store.publish()
    for number in range(MAX_DEVICES):
        await store.join("n1.1", f"d{number}")
        if number:
            await store.ack(f"d{number}", sent)
    await store.join("n1.1", "one-more")
    cursors = store.redis.hgetall(store.keys.cursors(FEED))
    devices = [name for name in cursors if not str(name).startswith("~")]
    assert len(devices) == MAX_DEVICES
    assert "d0" not in devices
    # It comes back as a new one, and is not left to believe that it missed nothing.
    assert (await store.join("n1.1", "d0")).gap == "trimmed"
    assert (await store.join("n1.1", "d0")).gap == ""


async def test_the_oldest_entries_make_room_and_who_was_owed_them_is_told(store: Store) -> None:
    sent = [await store.publish() for _ in range(13)]
    backlog = await store.join("n1.1", "phone")
    assert backlog.gap == "trimmed"
    assert held(backlog) == sent[3:]
    await store.ack("phone", sent[12])
    assert (await store.join("n1.2", "phone")).gap == ""


async def test_who_acked_everything_trimmed_is_told_nothing(store: Store) -> None:
    sent = [await store.publish() for _ in range(3)]
    await store.join("n1.1", "phone")
    await store.ack("phone", sent[2])
    for _ in range(10):
        await store.publish()
    assert (await store.join("n1.2", "phone")).gap == ""


async def test_an_entry_past_its_time_to_live_is_named_without_its_body(store: Store) -> None:
    entry_id = await store.publish(ttl=0.001)
    later = await store.publish()
    async with asyncio.timeout(5):
        while True:
            backlog = await store.read("phone", 0)
            if backlog.entries[0].body is None:
                break
    assert [entry.id for entry in backlog.entries] == [entry_id, later]


async def test_a_live_only_message_has_an_id_and_is_not_kept(store: Store) -> None:
    before = await store.publish()
    live = await store.publish(ttl=0)
    (result,), _ = await store.feeds.append([Append(FEED, b"y")])
    assert isinstance(result, Appended)
    assert before < live == result.previous
    assert held(await store.join("n1.1", "phone")) == [before, result.id]


async def test_what_passed_its_retention_is_removed_and_told(
    valkey: EmbeddedServer, prefix: str
) -> None:
    store = Store(valkey.url, prefix, replace(BOUNDS, retention=0.2))
    await store.join("n1.1", "phone")
    old = await store.publish()
    async with asyncio.timeout(5):
        while store.redis.exists(store.keys.log(FEED)):
            await asyncio.sleep(0.01)
    backlog = await store.join("n1.2", "phone")
    assert (backlog.gap, backlog.upto, held(backlog)) == ("trimmed", old, [])
    await store.lane.aclose()
    store.redis.close()


async def test_a_long_backlog_comes_in_parts_that_join_up(
    valkey: EmbeddedServer, prefix: str
) -> None:
    store = Store(valkey.url, prefix, replace(BOUNDS, entries=1000))
    sent = [await store.publish() for _ in range(150)]
    got: list[int] = []
    backlog = await store.join("n1.1", "phone")
    while True:
        got += held(backlog)
        if backlog.upto == backlog.head:
            break
        backlog = await store.read("phone", backlog.upto)
    assert got == sent
    await store.lane.aclose()
    store.redis.close()


async def test_large_entries_end_a_read_early(store: Store) -> None:
    sent = [await store.publish("x" * 100_000) for _ in range(8)]
    backlog = await store.join("n1.1", "phone")
    assert held(backlog) == sent[:3]
    assert backlog.upto == sent[2]


async def test_a_position_that_redis_does_not_know_any_more_is_a_reset(store: Store) -> None:
    sent = [await store.publish() for _ in range(3)]
    await store.join("n1.1", "phone")
    await store.ack("phone", sent[0])
    backlog = await store.join("n2.1", "phone", held=sent[2] + 1000)
    assert backlog.gap == "reset"
    assert held(backlog) == sent[1:]


async def test_ids_never_go_back_even_where_the_clock_does(store: Store) -> None:
    future = "99999999999000-5"
    store.redis.hset(store.keys.cursors(FEED), "~head", future)
    first, second = await store.publish(), await store.publish()
    assert ids.parse(future) < first < second


async def test_a_repeated_key_is_answered_with_the_first_id(store: Store) -> None:
    first = await store.publish(once="k")
    (result,), _ = await store.feeds.append([Append(FEED, b"x", once="k")])
    assert isinstance(result, Appended)
    assert (result.id, result.previous) == (first, UNKNOWN)
    assert held(await store.join("n1.1", "phone")) == [first]


async def test_a_key_belongs_to_one_request(store: Store) -> None:
    await store.feeds.claim("k", "fingerprint")
    await store.feeds.claim("k", "fingerprint")
    with pytest.raises(IdempotencyConflict, match="another body"):
        await store.feeds.claim("k", "other")


async def test_a_user_holds_so_many_connections_and_may_join_again_with_one(store: Store) -> None:
    for number in range(BOUNDS.connections):
        await store.join(f"n1.{number}", "phone")
    await store.join("n1.0", "phone")
    with pytest.raises(Full) as caught:
        await store.join("n1.9", "phone")
    assert sorted(caught.value.listeners) == [f"n1.{n}" for n in range(BOUNDS.connections)]


async def test_a_late_leave_removes_its_own_registration_only(store: Store) -> None:
    await store.join("n1.1", "phone")
    await store.join("n2.1", "phone")
    store.feeds.leave([(FEED, ["n1.1"])])
    await store.lane.one("PING")
    assert store.redis.hkeys(store.keys.listeners(FEED)) == ["n2.1"]


async def test_the_check_tells_the_head_or_that_a_registration_is_lost(store: Store) -> None:
    sent = await store.publish()
    await store.join("n1.1", "phone")
    known, lost = await store.feeds.check([(FEED, "n1.1"), (FEED, "n1.2")])
    assert ids.parse(known) == sent
    assert lost is None


async def test_every_key_has_a_time_to_live(store: Store, prefix: str) -> None:
    await store.join("n1.1", "phone")
    sent = await store.publish(once="k")
    await store.ack("phone", sent)
    await store.feeds.claim("k", "f")
    keys = list(store.redis.scan_iter(f"{prefix}*"))
    assert len(keys) == 5
    assert {key: store.redis.pttl(key) for key in keys if store.redis.pttl(key) <= 0} == {}


async def test_the_scripts_are_loaded_again_where_redis_forgot_them(store: Store) -> None:
    first = await store.publish()
    store.redis.script_flush()
    second = await store.publish()
    assert held(await store.join("n1.1", "phone")) == [first, second]


async def test_all_keys_of_a_feed_live_in_one_cluster_slot(store: Store) -> None:
    keys = store.keys
    for user in ("u1", "a.b_c-d:e@f=g"):
        feed = mailbox(user)
        names = [keys.log(feed), keys.listeners(feed), keys.cursors(feed), keys.once(feed, "d")]
        assert {name[name.index("{") : name.index("}") + 1] for name in names} == {f"{{{feed}}}"}
