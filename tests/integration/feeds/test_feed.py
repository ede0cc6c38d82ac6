"""The scripts on a real server: what a feed keeps, who is owed what, what Redis is left with."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
import redis

from pushsvc.errors import IdempotencyConflict, PushError, StoreUnavailable, TooManyDevices
from pushsvc.feeds.feed import (
    MAX_DEVICES,
    Acknowledged,
    Acknowledgement,
    Appended,
    Bounds,
    Full,
    Join,
)
from pushsvc.feeds.nodes import Entry, unpack
from pushsvc.protocol import ids
from pushsvc.protocol.delivery import UNKNOWN, Backlog, LogEntry
from pushsvc.protocol.feeds import BROADCAST, mailbox, topic
from pushsvc.protocol.notifications import Append
from pushsvc.server.embedded import EmbeddedServer
from pushsvc.store.schema import HEAD
from tests.support.store import FEED, Store

TOPIC = topic("scores.nba")
BOUNDS = Bounds(entries=10, retention=3600, connections=4)


@pytest.fixture
async def store(valkey: EmbeddedServer, prefix: str) -> AsyncIterator[Store]:
    store = Store(valkey.url, prefix, BOUNDS)
    yield store
    await store.aclose()


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
    assert result.listeners == {"n1.1": 1}


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


async def test_an_id_is_no_later_one_because_its_text_looks_so(store: Store) -> None:
    first = ids.render(await store.publish())
    await store.join("n1.1", "phone")
    await store.ack("phone", ids.parse(first))
    last = first
    while last[:12] == first[:12]:  # a later hundredth of a second
        last = ids.render(await store.publish())
    early = ids.parse(f"{last[:12]}-{'1' * (len(last) - 13)}")
    assert first < ids.render(early) < last
    assert await store.ack("phone", early) == ids.parse(first)


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


async def test_what_passed_its_retention_is_removed_and_told(store: Store) -> None:
    await store.join("n1.1", "phone")
    old = await store.publish()
    log, cursors = store.keys.log(FEED), store.keys.cursors(FEED)
    assert 1.5 * store.redis.pttl(log) < store.redis.pttl(cursors)
    store.redis.pexpire(log, 1)
    async with asyncio.timeout(5):
        while store.redis.exists(log):
            await asyncio.sleep(0.01)
    backlog = await store.join("n1.2", "phone")
    assert (backlog.gap, backlog.upto, held(backlog)) == ("trimmed", old, [])


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
    await store.aclose()


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
    await store.commands.one("PING")
    assert store.redis.hkeys(store.keys.listeners(FEED)) == ["n2.1"]


async def test_the_check_tells_the_head_or_that_a_registration_is_lost(store: Store) -> None:
    sent = await store.publish()
    await store.join("n1.1", "phone")
    known, lost = await store.feeds.check([(FEED, "n1.1"), (FEED, "n1.2")])
    assert known == sent
    assert lost is None


async def test_every_key_has_a_time_to_live(store: Store, prefix: str) -> None:
    await store.join("n1.1", "phone")
    sent = await store.publish(once="k")
    await store.ack("phone", sent)
    await store.feeds.claim("k", "f")
    keys = list(store.redis.scan_iter(f"{prefix}*"))
    assert len(keys) == 6
    assert {key: store.redis.pttl(key) for key in keys if store.redis.pttl(key) <= 0} == {}


async def test_the_scripts_are_loaded_again_where_redis_forgot_them(store: Store) -> None:
    first = await store.publish()
    store.redis.script_flush()
    (refused,), _ = await store.feeds.append([Append("u:u1", b"x")])
    assert isinstance(refused, StoreUnavailable)
    second = await store.publish()
    assert held(await store.join("n1.1", "phone")) == [first, second]


async def test_all_keys_of_a_feed_live_in_one_cluster_slot(store: Store) -> None:
    keys = store.keys
    for user in ("u1", "a.b_c-d:e@f=g"):
        feed = mailbox(user)
        names = [keys.log(feed), keys.listeners(feed), keys.cursors(feed), keys.once(feed, "d")]
        assert {name[name.index("{") : name.index("}") + 1] for name in names} == {f"{{{feed}}}"}


# --- what takes the place of something older -----------------------------------------------------


async def test_a_newer_message_takes_the_place_of_an_older_one_with_its_key(store: Store) -> None:
    await store.publish("1:0", collapse_key="score")
    other = await store.publish("hello")
    third = await store.publish("2:0", collapse_key="score")
    fourth = await store.publish("sunny", collapse_key="weather")
    backlog = await store.join("n1.1", "phone")
    assert (backlog.gap, backlog.entries) == (
        "", [LogEntry(other, b"hello"), LogEntry(third, b"2:0"), LogEntry(fourth, b"sunny")],
    )  # fmt: skip


async def test_who_was_sent_what_was_replaced_misses_nothing(store: Store) -> None:
    await store.join("n1.1", "phone")
    older = await store.publish("old", collapse_key="k")
    newer = await store.publish("new", collapse_key="k")
    backlog = await store.read("phone", older)
    assert (backlog.gap, held(backlog)) == ("", [newer])
    assert await store.ack("phone", older) == older


async def test_keys_of_different_feeds_do_not_meet(store: Store) -> None:
    mine = await store.publish(collapse_key="k")
    await store.publish(feed=mailbox("u2"), collapse_key="k")
    await store.publish(feed=TOPIC, collapse_key="k")
    assert held(await store.join("n1.1", "phone")) == [mine]


async def test_a_message_that_replaces_the_only_one_is_no_gap(store: Store) -> None:
    for body in "abc":
        newest = await store.publish(body, collapse_key="k")
    backlog = await store.join("n1.1", "phone")
    assert (backlog.gap, held(backlog)) == ("", [newest])


# --- topics --------------------------------------------------------------------------------------


async def test_who_subscribes_is_sent_the_latest_of_each_key_and_nothing_else(store: Store) -> None:
    for body, key in (("a1", "a"), ("b1", "b"), ("plain", ""), ("a2", "a")):
        await store.publish(body, TOPIC, collapse_key=key)
    backlog = await store.subscribe(TOPIC)
    assert [entry.body for entry in backlog.entries] == [b"b1", b"a2"]
    assert (backlog.cursor, backlog.start, backlog.gap) == (ids.START, ids.START, "")
    assert backlog.upto == backlog.head == backlog.entries[-1].id


async def test_the_state_holds_nothing_whose_time_to_live_has_passed(store: Store) -> None:
    await store.publish("short", TOPIC, collapse_key="a", ttl=0.001)
    await store.publish("long", TOPIC, collapse_key="b")
    async with asyncio.timeout(5):
        while [e.body for e in (await store.subscribe(TOPIC)).entries] != [b"long"]:
            await asyncio.sleep(0.005)


async def test_the_state_is_bounded_and_keeps_the_newest(store: Store) -> None:
    for number in range(BOUNDS.entries + 1):
        await store.publish(f"v{number}", TOPIC, collapse_key=f"k{number}")
    await store.publish("last", TOPIC, collapse_key="k10")
    state = [entry.body for entry in (await store.subscribe(TOPIC)).entries]
    assert state == [*(b"v%d" % n for n in range(1, 10)), b"last"]


async def test_the_state_survives_what_is_trimmed_from_the_log(store: Store) -> None:
    await store.publish("state", TOPIC, collapse_key="k")
    for _ in range(BOUNDS.entries):
        await store.publish("event", TOPIC)
    assert [e.body for e in (await store.subscribe(TOPIC)).entries] == [b"state"]


async def test_a_topic_that_never_was_is_empty(store: Store) -> None:
    assert await store.subscribe(TOPIC) == Backlog(0, 0, 0, 0, "", [])


async def test_a_subscription_from_a_position_is_sent_what_follows_it(store: Store) -> None:
    sent = [await store.publish(str(n), TOPIC) for n in range(4)]
    backlog = await store.subscribe(TOPIC, since=sent[1])
    assert (backlog.gap, backlog.start, held(backlog)) == ("", sent[1], sent[2:])
    assert held(await store.subscribe(TOPIC, since=sent[3])) == []


async def test_a_position_before_what_is_kept_is_a_gap(store: Store) -> None:
    sent = [await store.publish(str(n), TOPIC) for n in range(BOUNDS.entries + 3)]
    backlog = await store.subscribe(TOPIC, since=sent[0])
    assert (backlog.gap, held(backlog)) == ("trimmed", sent[3:])
    assert (await store.subscribe(TOPIC, since=sent[2])).gap == ""


async def test_a_position_that_the_topic_never_had_is_a_reset(store: Store) -> None:
    assert (await store.subscribe(TOPIC, since=7 << 64)).gap == "reset"
    sent = [await store.publish(str(n), TOPIC) for n in range(2)]
    for since in (sent[1] + 1, 7 << 64):
        backlog = await store.subscribe(TOPIC, since=since)
        assert backlog.gap == "reset"
    ahead = await store.subscribe(TOPIC, since=sent[1] + 1)
    assert (ahead.start, held(ahead)) == (ids.START, sent)


async def test_nodes_listen_to_topics_and_say_for_how_many(store: Store) -> None:
    await store.subscribe(TOPIC, "n1", 3)
    await store.subscribe(TOPIC, "n2", 1)
    assert (await store.append(feed=TOPIC)).listeners == {"n1": 3, "n2": 1}
    store.feeds.recount([(TOPIC, "n1", 7)])
    assert await store.feeds.listening(TOPIC) == {"n1": 7, "n2": 1}
    await store.feeds.leave([(TOPIC, ["n1"])])
    assert await store.feeds.listening(TOPIC) == {"n2": 1}


async def test_a_count_makes_no_registration_of_a_node_that_has_left(store: Store) -> None:
    await store.subscribe(TOPIC, "n1", 3)
    assert await store.feeds.recount([(TOPIC, "n1", 4), (TOPIC, "n2", 1)]) == [1, 0]
    await store.feeds.leave([(TOPIC, ["n1"])])
    assert await store.feeds.recount([(TOPIC, "n1", 4)]) == [0]
    assert await store.feeds.listening(TOPIC) == {}


async def test_a_topic_is_read_on_from_a_position_and_nobody_acknowledges(store: Store) -> None:
    sent = [await store.publish(str(n), TOPIC) for n in range(4)]
    backlog = await store.read("", sent[1], TOPIC)
    assert (backlog.gap, backlog.start, backlog.upto) == ("", sent[1], sent[3])
    assert backlog.entries == [LogEntry(sent[2], b"2"), LogEntry(sent[3], b"3")]
    for _ in range(BOUNDS.entries):
        await store.publish(feed=TOPIC)
    assert (await store.read("", sent[1], TOPIC)).gap == "trimmed"
    assert (await store.read("", 1 << 120, TOPIC)).gap == "reset"


async def test_every_key_of_a_topic_has_a_time_to_live(store: Store, prefix: str) -> None:
    await store.subscribe(TOPIC)
    await store.publish(feed=TOPIC, collapse_key="k")
    keys = list(store.redis.scan_iter(f"{prefix}*"))
    assert len(keys) == 5
    assert {key: store.redis.pttl(key) for key in keys if store.redis.pttl(key) <= 0} == {}


# --- what one device settles for all, and what is recalled ---------------------------------------


async def test_what_any_device_may_settle_is_settled_by_the_first_ack(store: Store) -> None:
    await store.join("n1.1", "phone")
    await store.join("n2.1", "laptop")
    for_all = await store.publish("all")
    for_any = await store.publish("any", any_device=True)
    done = await store.acknowledge("phone", for_any, connection="n1.1")
    assert done.position == for_any
    assert done.settled == [for_any]
    assert done.others == {"n1.1": "phone", "n2.1": "laptop"}
    laptop = await store.join("n2.2", "laptop")
    assert laptop.entries == [LogEntry(for_all, b"all"), LogEntry(for_any, None, "acked")]
    assert not (await store.acknowledge("laptop", for_any, connection="n2.1")).settled


async def test_an_ack_of_more_settles_what_came_before(store: Store) -> None:
    await store.join("n1.1", "phone")
    first, second = [await store.publish(any_device=True) for _ in range(2)]
    third = await store.publish()
    assert (await store.acknowledge("phone", second)).settled == [first, second]
    assert not (await store.acknowledge("phone", third)).settled


async def test_what_was_trimmed_is_not_settled(store: Store) -> None:
    await store.join("n1.1", "phone")
    await store.publish(any_device=True)
    for _ in range(BOUNDS.entries):
        last = await store.publish()
    assert not (await store.acknowledge("phone", last)).settled
    assert store.redis.hkeys(store.keys.marks(FEED)) == []


async def test_a_new_device_is_not_handed_what_was_settled(store: Store) -> None:
    await store.join("n1.1", "phone")
    await store.join("n1.2", "laptop")
    first, second = await store.publish(any_device=True), await store.publish()
    await store.ack("phone", first)
    assert held(await store.join("n1.3", "watch")) == [second]
    assert held(await store.read("laptop", ids.START)) == [second]


async def test_a_recalled_entry_is_named_to_who_has_not_acknowledged_it(store: Store) -> None:
    await store.join("n1.1", "phone")
    first, second, third = [await store.publish(str(n)) for n in range(3)]
    await store.join("n1.2", "laptop")
    await store.ack("laptop", second)
    assert await store.withdraw(second)
    assert (await store.join("n1.3", "phone")).entries == [
        LogEntry(first, b"0"), LogEntry(second, None, "recalled"), LogEntry(third, b"2"),
    ]  # fmt: skip
    assert held(await store.join("n1.4", "laptop")) == [third]
    backlog = await store.read("phone", second)
    assert (backlog.gap, backlog.entries) == ("", [LogEntry(third, b"2")])


async def test_what_is_not_kept_cannot_be_withdrawn_and_a_second_time_is_like_the_first(
    store: Store,
) -> None:
    live = await store.publish(ttl=0)
    kept = await store.publish()
    assert not await store.withdraw(live)
    assert await store.withdraw(kept)
    assert await store.withdraw(kept)


# --- acknowledgements ----------------------------------------------------------------------------


async def test_an_ack_by_request_names_what_is_kept_and_was_meant_for_the_device(
    store: Store,
) -> None:
    sent = [await store.publish() for _ in range(2)]
    live = await store.publish(ttl=0)
    assert await store.ack("phone", sent[0], "stored") == ids.START, "it never connected"
    await store.join("n1.1", "phone")
    assert await store.ack("phone", live, "stored") == ids.START
    assert await store.ack("phone", sent[1], "stored") == sent[1]
    assert await store.ack("phone", sent[0], "stored") == sent[1]
    assert await store.ack("phone", live) == live, "who was sent it may acknowledge it"


async def test_other_connections_of_the_user_are_named_and_the_only_one_is_not(
    store: Store,
) -> None:
    await store.join("n1.1", "phone")
    first, second = await store.publish(), await store.publish()
    assert (await store.acknowledge("phone", first, connection="n1.1")).others == {}
    assert (await store.acknowledge("phone", second)).others == {"n1.1": "phone"}
    await store.join("n2.1", "phone")
    third = await store.publish()
    assert (await store.acknowledge("phone", third, connection="n1.1")).others == {
        "n1.1": "phone", "n2.1": "phone",
    }  # fmt: skip
    again = await store.acknowledge("phone", third, connection="n2.1")
    assert again.others == {}, "nothing moved"


async def test_an_ack_that_may_owe_a_receipt_says_so(store: Store) -> None:
    await store.join("n1.1", "phone")
    sent = await store.publish(receipt="shop")
    assert (await store.acknowledge("phone", sent)).receipts


async def test_a_device_has_a_place_in_the_broadcast_beside_its_mailbox(store: Store) -> None:
    heard, newer = 5 << 64, 6 << 64
    assert (await store.join("n1.1", "phone", broadcast=heard)).broadcast == heard
    assert (await store.join("n1.1", "phone", broadcast=newer)).broadcast == heard
    assert await store.ack("phone", newer, "broadcast") == newer
    assert await store.ack("phone", heard, "broadcast") == newer
    assert (await store.join("n1.1", "phone", broadcast=newer + 1)).broadcast == newer
    assert (await store.join("n1.2", "laptop", broadcast=newer + 1)).broadcast == newer + 1
    assert (await store.join("n1.1", "phone")).cursor == ids.START


async def test_who_never_connected_has_no_place_in_the_broadcast(store: Store) -> None:
    assert await store.ack("phone", 5 << 64, "broadcast") == ids.START


async def test_the_broadcast_tells_other_connections_too(store: Store) -> None:
    await store.join("n1.1", "phone")
    await store.join("n2.1", "phone")
    done = await store.acknowledge("phone", 5 << 64, "broadcast", "n1.1")
    assert done.others == {"n1.1": "phone", "n2.1": "phone"}
    assert await store.publish(feed=BROADCAST)


async def test_a_mailbox_remembers_only_so_many_withdrawals(store: Store) -> None:
    await store.join("n1.1", "phone")
    for _ in range(300):
        await store.ack("phone", await store.publish(any_device=True))
    assert 100 < store.redis.hlen(store.keys.marks(FEED)) <= 256


async def test_what_is_replaced_can_be_settled_no_more(store: Store) -> None:
    for _ in range(5):
        await store.publish(any_device=True, collapse_key="k")
    assert store.redis.hlen(store.keys.marks(FEED)) == 1


# --- what is for one device ----------------------------------------------------------------------


async def test_what_is_for_one_device_is_read_by_that_alone(store: Store) -> None:
    for number, device in enumerate(("phone", "laptop")):
        await store.join(f"n1.{number}", device)
    sent = [await store.publish(device=device) for device in ("", "phone", "", "laptop", "phone")]
    for device, owed in (
        ("phone", [0, 1, 2, 4]), ("laptop", [0, 2, 3]), ("new", [0, 2]),
    ):  # fmt: skip
        backlog = await store.join("n2.1", device)
        assert held(backlog) == [sent[number] for number in owed]
        assert backlog.upto == backlog.head == sent[-1]
        assert backlog.gap == ""
        assert held(await store.read(device, sent[0])) == [sent[n] for n in owed if n]


async def test_a_long_run_of_what_is_for_others_is_read_in_parts(store: Store) -> None:
    large = Store(store.url, store.keys.prefix, replace(BOUNDS, entries=1000))
    await large.join("n1.1", "phone")
    for _ in range(150):
        await large.publish(device="laptop")
    own = await large.publish(device="phone")
    position, found = ids.START, []
    for _ in range(4):
        backlog = await large.read("phone", position)
        assert backlog.upto > position
        position = backlog.upto
        found += held(backlog)
        if position == backlog.head:
            break
    assert found == [own]
    await large.aclose()


async def test_a_device_that_never_came_is_owed_what_is_for_it(store: Store) -> None:
    await store.join("n1.1", "laptop")
    first, second = [await store.publish() for _ in range(2)]
    await store.ack("laptop", first)
    own = await store.publish(device="phone")
    last = await store.publish()
    assert await store.ack("laptop", last) == last
    # As if it had come when that was published: it is not held to what others acknowledged since.
    assert held(await store.join("n1.2", "phone")) == [second, own, last]
    assert held(await store.join("n1.3", "tablet")) == []


async def test_the_first_device_of_a_user_is_owed_all_that_waits(store: Store) -> None:
    waiting = await store.publish()
    own = await store.publish(device="phone")
    assert held(await store.join("n1.1", "phone")) == [waiting, own]


async def test_what_is_not_kept_makes_no_place_for_a_device(store: Store) -> None:
    await store.publish(device="phone", ttl=0)
    assert not store.redis.hexists(store.keys.cursors(FEED), "phone")


async def test_a_device_of_too_many_is_refused_and_nothing_is_published(store: Store) -> None:
    for number in range(MAX_DEVICES):
        await store.publish(device=f"d{number}")
    (result,), _ = await store.feeds.append([Append(FEED, b"x", device="one more")])
    assert isinstance(result, TooManyDevices)
    fields = map(str, store.redis.hkeys(store.keys.cursors(FEED)))
    assert sum(not name.startswith("~") for name in fields) == MAX_DEVICES
    assert await store.publish(device="d0")
    # It may come, and makes room for itself.
    await store.join("n1.1", "one more")
    assert await store.publish(device="one more")


async def test_a_place_that_was_made_anew_takes_nothing_from_who_comes_back(store: Store) -> None:
    await store.join("n1.1", "laptop")
    first = await store.publish()
    between = await store.publish()
    await store.ack("laptop", between)
    # The phone held the first when its cursor was lost.
    own = await store.publish(device="phone")
    assert held(await store.join("n1.2", "phone", held=first)) == [between, own]


async def test_a_collapse_key_is_of_one_device(store: Store) -> None:
    everybodys = await store.publish(collapse_key="k")
    await store.publish(collapse_key="k", device="phone")
    own = await store.publish(collapse_key="k", device="phone")
    other = await store.publish(collapse_key="k", device="laptop")
    assert held(await store.join("n1.1", "phone")) == [everybodys, own]
    assert held(await store.join("n1.2", "laptop")) == [everybodys, other]
    newer = await store.publish(collapse_key="k")
    assert held(await store.join("n1.1", "phone")) == [own, newer]


async def test_only_the_connections_of_the_device_count(store: Store) -> None:
    for number, device in enumerate(("phone", "laptop", "phone")):
        await store.join(f"n{number}.1", device)
    wanted = {"n0.1": 1, "n1.1": 0, "n2.1": 1}  # the others' nodes are told, to go on behind it
    for fields in ({}, {"ttl": 0}, {"once": "a" * 32}, {"once": "a" * 32}, {"collapse_key": "k"}):
        assert (await store.append(device="phone", **fields)).listeners == wanted
    assert await store.feeds.listening(FEED, "phone") == {"n0.1": 1, "n2.1": 1}


async def test_an_ack_by_request_of_what_is_for_another_device_changes_nothing(
    store: Store,
) -> None:
    await store.join("n1.1", "laptop")
    first = await store.publish()
    own = await store.publish(device="phone")
    assert await store.ack("laptop", first, "stored") == first
    assert await store.ack("laptop", own, "stored") == first
    await store.join("n1.2", "phone")
    assert await store.ack("phone", own, "stored") == own


async def test_a_recall_is_told_to_the_device_alone(store: Store) -> None:
    for number, device in enumerate(("phone", "laptop")):
        await store.join(f"n1.{number}", device)
    own, last = await store.publish(device="phone"), await store.publish()
    await store.ack("laptop", last)
    for _ in range(2):  # a second time is like the first
        _, acked, _, device = await store.recall(own)
        assert (acked, device) == ([], b"phone")
    told = (await store.read("phone", ids.START)).entries
    assert [(entry.id, entry.withdrawn) for entry in told] == [(own, "recalled"), (last, "")]
    await store.ack("phone", last)
    assert (await store.recall(own))[1] == [b"phone"]
    assert [entry.id for entry in (await store.read("tablet", ids.START)).entries] == [last]


async def test_an_ack_of_another_device_owes_no_receipt(store: Store) -> None:
    for number, device in enumerate(("phone", "laptop")):
        await store.join(f"n1.{number}", device)
    await store.publish(device="phone", receipt="backend")
    last = await store.publish()
    assert not (await store.acknowledge("laptop", last)).receipts
    assert (await store.acknowledge("phone", last)).receipts


# --- what is sent in the step that appends it ----------------------------------------------------


@pytest.fixture
async def sending(valkey: EmbeddedServer, prefix: str) -> AsyncIterator[Store]:
    """One whose publishes are sent at once, where they are alone in their pipeline."""
    store = Store(valkey.url, prefix, BOUNDS, sends=True)
    store.redis.xadd(store.keys.inbox("n1"), {"c": ""})
    yield store
    await store.aclose()


def inbox(store: Store, node: str = "n1") -> list[Entry]:
    """What lies in the inbox of a node."""
    with redis.Redis.from_url(store.url) as raw:
        came = raw.xrange(store.keys.inbox(node))
    return [entry for _, fields in came if b"p" in fields for entry in unpack(fields[b"p"])]


@pytest.mark.parametrize("user", ["u1", "a-user-whose-name-is-no-short-string-in-messagepack"])
@pytest.mark.parametrize("size", [0, 1, 255, 256, 70_000])
async def test_one_that_is_alone_is_sent_in_the_step_that_appends_it(
    sending: Store, user: str, size: int
) -> None:
    feed = mailbox(user)
    sending.redis.hset(sending.keys.listeners(feed), mapping={"n1.1": "a 1", "n1.2": "b 1"})
    first = await sending.append("x" * size, feed)
    second = await sending.append("y" * size, feed)
    third = await sending.append("z" * size, feed, device=user)
    assert first.sent
    assert second.sent
    assert third.sent
    assert inbox(sending) == [
        Entry.of(feed, first.id, ids.START, b"x" * size),
        Entry.of(feed, second.id, first.id, b"y" * size),
        Entry.of(feed, third.id, second.id, b"z" * size, user),
    ]


async def test_no_inbox_is_made_for_a_node_that_is_gone(sending: Store) -> None:
    await sending.join("n1.1", "phone")
    await sending.join("n2.1", "laptop")
    assert (await sending.append()).sent
    assert len(inbox(sending)) == 1
    assert not sending.redis.exists(sending.keys.inbox("n2"))


async def test_what_is_not_alone_and_what_asks_for_more_is_left_to_the_publisher(
    sending: Store,
) -> None:
    await sending.join("n1.1", "phone")
    await sending.subscribe(TOPIC, "n1")
    for fields in (
        {"any_device": True}, {"collapse_key": "k"}, {"once": "k"}, {"feed": TOPIC},
        {"device": "phone", "collapse_key": "k"},
    ):  # fmt: skip
        assert not (await sending.append(**fields)).sent
    results, _ = await sending.feeds.append([Append(FEED, b"1"), Append(FEED, b"2")])
    both = await asyncio.gather(*(sending.feeds.append([Append(FEED, b"")]) for _ in range(2)))
    results += both[1][0]
    assert [isinstance(each, Appended) and each.sent for each in results] == [False] * 3


async def test_a_server_that_refuses_the_inbox_has_the_notification_all_the_same(
    sending: Store,
) -> None:
    sending.redis.set(sending.keys.inbox("n2"), "of another type")
    await sending.join("n1.1", "phone")
    await sending.join("n2.1", "laptop")
    appended = await sending.append()
    assert not appended.sent
    assert held(await sending.read("phone", ids.START)) == [appended.id]
    # Nobody tries that with each notification again.
    sending.redis.delete(sending.keys.inbox("n2"))
    assert not (await sending.append()).sent


# --- what an operation costs, whatever else is kept ----------------------------------------------


async def microseconds(
    store: Store, act: Callable[[], Awaitable[object]], times: int = 15
) -> float:
    """What a script costs Redis, at best."""

    def spent() -> float:
        return float(store.redis.info("commandstats")["cmdstat_evalsha"]["usec"])

    costs = []
    for _ in range(times):
        before = spent()
        await act()
        costs.append(spent() - before)
    return min(costs)


async def commands(store: Store, act: Callable[[], Awaitable[object]]) -> dict[str, int]:
    """How often each command runs, inside scripts and out, by the server's own count."""

    def counted() -> dict[str, int]:
        stats = store.redis.info("commandstats")
        return {name.removeprefix("cmdstat_"): stats[name]["calls"] for name in stats}

    await act()  # the first time makes keys, and gives the server the scripts
    before = counted()
    await act()
    after = counted()
    ran = {name: calls - before.get(name, 0) for name, calls in after.items() if name != "info"}
    return {name: calls for name, calls in ran.items() if calls}


async def test_what_happens_all_day_runs_no_command_too_many(store: Store) -> None:
    """Each costs Redis about a microsecond, and a write costs replicas and the disk as well."""
    assert await commands(store, lambda: store.join("n1.1", "phone")) == {
        "evalsha": 1, "hlen": 1, "hmget": 1, "time": 1, "hset": 1, "pttl": 2,
    }  # fmt: skip
    newcomers = iter((mailbox("new-1"), mailbox("new-2")))
    assert await commands(
        store, lambda: store.feeds.join([Join(next(newcomers), "n1.1", "phone", None, 0)])
    ) == {
        "evalsha": 1, "hlen": 1, "hmget": 1, "hgetall": 1, "time": 1, "hset": 2, "pexpire": 2,
        "pttl": 1,
    }  # fmt: skip
    assert await commands(store, store.publish) == {
        "evalsha": 1, "time": 1, "hget": 1, "pttl": 1, "xadd": 1, "hset": 1, "xlen": 1,
        "hkeys": 1,
    }  # fmt: skip
    sent = iter([await store.publish() for _ in range(2)])
    assert await commands(
        store, lambda: store.acknowledge("phone", next(sent), connection="n1.1")
    ) == {"evalsha": 1, "hmget": 1, "hset": 1, "xadd": 1, "pttl": 1, "hlen": 1, "hkeys": 1}
    assert await commands(store, lambda: store.join("n1.1", "phone")) == {
        "evalsha": 1, "hlen": 1, "hmget": 1, "time": 1, "hset": 1, "pttl": 2, "xlen": 1,
        "zcount": 1,
    }  # fmt: skip
    last = await store.publish()
    assert await commands(store, lambda: store.read("phone", ids.START)) == {
        "evalsha": 1, "hmget": 1, "xrange": 1, "time": 1, "hkeys": 1, "exists": 1,
    }  # fmt: skip
    assert await commands(store, lambda: store.read("phone", last)) == {"evalsha": 1, "hmget": 1}
    assert await commands(store, lambda: store.feeds.check([(FEED, "n1.1")])) == {
        "evalsha": 1, "hexists": 1, "pttl": 1, "hget": 1,
    }  # fmt: skip


async def test_the_same_for_a_topic(store: Store) -> None:
    async def subscribe() -> None:
        await store.subscribe(TOPIC, since=ids.START)

    assert await commands(store, subscribe) == {"evalsha": 1, "hset": 1, "pttl": 1, "hmget": 1}
    assert await commands(store, lambda: store.publish(feed=TOPIC)) == {
        "evalsha": 1, "time": 1, "hmget": 1, "pttl": 1, "xadd": 1, "hset": 1, "xlen": 1,
        "hgetall": 1,
    }  # fmt: skip
    assert await commands(store, lambda: store.publish(feed=TOPIC, ttl=0)) == {
        "evalsha": 1, "time": 1, "hmget": 1, "hset": 1, "pttl": 1, "hgetall": 1,
    }  # fmt: skip


async def test_what_follows_each_other_shares_a_call(store: Store) -> None:
    feeds = [mailbox(f"u{i}") for i in range(40)]
    for feed in feeds:
        await store.feeds.join([Join(feed, "n1.1", "phone", None, 0)])
    appends = [Append(feed, b"1") for feed in feeds]
    ran = await commands(store, lambda: store.feeds.append(appends))
    assert (ran["evalsha"], ran["time"], ran["xadd"]) == (2, 2, 40)
    results, _ = await store.feeds.append(appends)
    acks = [
        Acknowledgement(feed, "phone", each.id, connection="n1.1")
        for feed, each in zip(feeds, results, strict=True)
        if isinstance(each, Appended)
    ]
    before = store.redis.info("commandstats")["cmdstat_evalsha"]["calls"]
    found = await store.feeds.ack(acks)
    assert [isinstance(a, Acknowledged) and a.position for a in found] == [a.id for a in acks]
    assert store.redis.info("commandstats")["cmdstat_evalsha"]["calls"] - before == 1


async def test_one_that_fails_in_a_call_is_no_concern_of_the_others(store: Store) -> None:
    """Be it refused by a command, or go wrong in the script itself."""
    feeds = [mailbox(f"u{i}") for i in range(5)]
    store.redis.set(store.keys.log(feeds[1]), "of another type")
    store.redis.hset(store.keys.cursors(feeds[3]), HEAD, "no id")
    results, confirmed = await store.feeds.append([Append(feed, b"1") for feed in feeds])
    assert confirmed == [True] * 5
    assert [isinstance(each, Appended) for each in results] == [True, False, True, False, True]
    wrong_type, wrong_id = results[1], results[3]
    assert isinstance(wrong_type, PushError)
    assert "WRONGTYPE" in wrong_type.detail
    assert isinstance(wrong_id, PushError)
    for feed in feeds[::2]:
        assert store.redis.xlen(store.keys.log(feed)) == 1


async def test_what_a_server_refuses_for_want_of_memory_is_told_of_each() -> None:
    with EmbeddedServer(extra=["--maxmemory", "1"]) as server:
        store = Store(server.url, "t", BOUNDS)
        results, _ = await store.feeds.append([Append(mailbox(f"u{i}"), b"1") for i in range(3)])
        assert ["out of memory" in str(each) for each in results] == [True] * 3
        await store.aclose()


async def test_keys_live_on_while_they_are_used(store: Store) -> None:
    """They are renewed before they have lived a sixteenth of what they are given."""
    retention = round(BOUNDS.retention * 1000)
    listeners, log, acks, cursors = (
        key(FEED)
        for key in (store.keys.listeners, store.keys.log, store.keys.acks, store.keys.cursors)
    )
    await store.join("n1.1", "phone")
    await store.ack("phone", await store.publish())
    for life in (1.0, 0.8, 0.1):
        # as if time had passed
        for key in (log, acks):
            store.redis.pexpire(key, int(retention * life))
        for key in (listeners, cursors):
            store.redis.pexpire(key, int(2 * retention * life))
        await store.ack("phone", await store.publish())
        await store.feeds.check([(FEED, "n1.1")])
        for key in (log, acks):
            assert store.redis.pttl(key) >= retention - 1000
        for key in (listeners, cursors):
            assert 2 * retention >= store.redis.pttl(key) >= 2 * retention * 15 / 16 - 1000


async def test_a_lowered_retention_takes_effect_with_the_next_use(store: Store) -> None:
    """Not only when what was given under the longer one runs out, days later."""
    for feed in (FEED, TOPIC):
        for body in ("first", "second"):
            await store.publish(body, feed, collapse_key=body)
    await store.subscribe(TOPIC)
    await store.join("n1.1", "phone")
    await store.ack("phone", await store.publish("any", any_device=True))
    await store.feeds.present([(TOPIC, "n1", ["u1"], [])])
    lowered = Store(store.url, store.keys.prefix, replace(BOUNDS, retention=3))
    old = ids.milliseconds(await store.publish("old", TOPIC)) + 3000
    async with asyncio.timeout(30):
        while (now := store.redis.time())[0] * 1000 + now[1] // 1000 <= old:
            await asyncio.sleep(0.05)
    newest = await lowered.publish("new", collapse_key="new", any_device=True)
    in_topic = await lowered.publish("new", TOPIC, collapse_key="new")
    assert held(await lowered.read("fresh", ids.START)) == [newest]
    assert held(await lowered.read("", ids.START, TOPIC)) == [in_topic]
    await lowered.ack("phone", newest)
    await lowered.feeds.check([(FEED, "n1.1")])
    await lowered.subscribe(TOPIC)
    await lowered.feeds.present([(TOPIC, "n1", ["u2"], [])])
    lives = {key: store.redis.pttl(key) for key in store.redis.scan_iter(f"{store.keys.prefix}*")}
    assert len(lives) == 12
    assert {key: life for key, life in lives.items() if life > 6000} == {}
    await lowered.aclose()


@pytest.fixture
async def large(valkey: EmbeddedServer, prefix: str) -> AsyncIterator[Store]:
    """One that keeps much."""
    store = Store(valkey.url, prefix, Bounds(entries=1000, retention=3600, connections=4))
    yield store
    await store.aclose()


async def test_a_read_of_large_entries_costs_what_it_sends(large: Store) -> None:
    few, many = mailbox("few"), mailbox("many")
    for feed, count in ((few, 6), (many, 60)):
        for _ in range(count):
            await large.publish("x" * 60_000, feed)

    async def reads(feed: str) -> float:
        return await microseconds(large, lambda: large.feeds.read(feed, "d", ids.START))

    assert len((await large.read("d", ids.START, many)).entries) == 5
    assert await reads(many) < 3 * await reads(few)


async def test_a_read_of_what_has_passed_its_time_to_live_ends_as_early_as_any_other(
    large: Store,
) -> None:
    for _ in range(10):
        await large.publish("x" * 60_000, ttl=0.001)
    last = await large.publish("kept")
    async with asyncio.timeout(5):
        while held(part := await large.read("d", ids.START)):
            await asyncio.sleep(0.001)
    assert len(part.entries) == 5
    while part.upto < last:
        part = await large.read("d", part.upto)
    assert held(part) == [last]


async def test_an_ack_that_settles_many_looks_at_all_marks_twice(large: Store) -> None:
    def looks() -> int:
        stats = large.redis.info("commandstats")
        return sum(
            stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("hkeys", "hvals")
        )

    await large.join("n1.1", "phone")
    for count in (300, 500):  # more than are remembered
        sent = [await large.publish(any_device=True) for _ in range(count)]
        before = looks()
        assert list((await large.acknowledge("phone", sent[-1])).settled) == sent
        assert looks() - before == 2
        assert large.redis.hlen(large.keys.marks(FEED)) <= 256


async def test_an_ack_says_that_a_receipt_is_due_only_where_it_settles_one(store: Store) -> None:
    sent = [await store.publish(receipt="p"), await store.publish(receipt="p")]
    await store.join("n1.1", "phone")
    plain = await store.publish()
    store.redis.hdel(store.keys.marks(FEED), f"r:{ids.render(sent[0])}")  # it was given
    assert not (await store.acknowledge("phone", sent[0])).receipts
    assert (await store.acknowledge("phone", plain)).receipts
