"""Receipts on a real server: one for each notification and user, whatever dies on the way."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import redis

from pushsvc.errors import PushError, StoreUnavailable, checked
from pushsvc.feeds.feed import Acknowledgement, Appended, Bounds, Feeds, Join
from pushsvc.feeds.receipt_log import ReceiptLog
from pushsvc.feeds.receipts import MOST_FOUND, RETRY, Receipts
from pushsvc.feeds.work_queue import WorkQueue
from pushsvc.protocol import ids
from pushsvc.protocol.delivery import UNKNOWN
from pushsvc.protocol.feeds import mailbox, receipts
from pushsvc.protocol.notifications import Append
from pushsvc.protocol.receipts import SHORTEST_LOOK, receipt
from pushsvc.server.embedded import EmbeddedServer
from tests.support.redis import redis_at

FEED = mailbox("u1")
BACKEND = receipts("backend")


class Flaky(Feeds):
    """Feeds whose appends can be made to fail, or to be answered by nobody."""

    lost = 0
    refused = 0
    given: tuple[bytes, ...] = ()
    """The receipts that were appended here."""

    async def append(
        self, appends: Sequence[Append]
    ) -> tuple[list[Appended | PushError], list[bool]]:
        if self.refused:
            self.refused -= 1
            return [StoreUnavailable("no room") for _ in appends], [False] * len(appends)
        answer = await super().append(appends)
        for append, result in zip(appends, answer[0], strict=True):
            assert isinstance(result, Appended)
            if append.feed == BACKEND and result.previous != UNKNOWN:
                self.given += (append.body,)
        if self.lost:
            self.lost -= 1
            raise StoreUnavailable("the answer was lost")
        return answer


class Store:
    """One node's receipts, and a look behind them."""

    def __init__(self, url: str, prefix: str, entries: int) -> None:
        self.commands = redis_at(url, prefix)
        self.keys = self.commands.keys
        bounds = Bounds(entries=entries, retention=3600, connections=4)
        self.feeds = Flaky(bounds, publishing=self.commands, sessions=self.commands)
        self.work = WorkQueue("receipts", self.commands, hold=30, keep=7200)
        self.hooks = WorkQueue("webhooks", self.commands, hold=30, keep=7200)
        self.receipts = Receipts(self.feeds, self.commands, self.work, self.hooks)
        self.receipt_log = ReceiptLog(self.commands, keep=7200)
        self.redis = redis.Redis.from_url(url, decode_responses=True)

    async def publish(self, **fields: Any) -> int:
        append = Append(FEED, b'"data":1}', **{"receipt": "backend", **fields})
        await self.receipts.foresee([append])
        (result,), _ = await self.feeds.append([append])
        assert isinstance(result, Appended), result
        return result.id

    async def join(self, device: str) -> None:
        await self.feeds.join([Join(FEED, "n1.1", device, None, ids.START)])

    async def ack(self, device: str, entry_id: int) -> None:
        (answer,) = await self.feeds.ack([Acknowledgement(FEED, device, entry_id)])
        assert checked(answer).position == entry_id

    async def recall(self, entry_id: int) -> None:
        keys = self.keys
        await self.commands.run(
            "withdraw",
            (keys.log(FEED), keys.listeners(FEED), keys.cursors(FEED), keys.marks(FEED)),
            ids.render(entry_id),
            3_600_000,
        )

    async def collect(self) -> float | None:
        (look,) = await self.receipts.collect([FEED])
        return look

    async def told(self, publisher: str = BACKEND) -> list[dict[str, Any]]:
        """The receipts so far."""
        page = await self.receipt_log.read(publisher, ids.START, 1000)
        return [json.loads(receipt(each.id, each.body)) for each in page.receipts]

    async def statuses(self) -> list[tuple[int, str]]:
        return [(ids.parse(each["notification"]), each["status"]) for each in await self.told()]

    def owed(self) -> list[str]:
        """The marks of receipts that are owed."""
        marks = map(str, self.redis.hkeys(self.keys.marks(FEED)))
        return [mark for mark in marks if mark.startswith("r:")]

    async def outlive(self, entry_id: int) -> None:
        """Wait until the time to live of a notification has passed."""
        mark = self.redis.hget(self.keys.marks(FEED), f"r:{ids.render(entry_id)}")
        assert mark is not None
        async with asyncio.timeout(5):
            while True:
                seconds, microseconds = self.redis.time()
                if seconds * 1000 + microseconds // 1000 > int(mark.split()[1]):
                    return
                await asyncio.sleep(0.005)

    def in_work_queue(self) -> list[str]:
        return list(map(str, self.redis.zrange(self.keys.work_queue("receipts", "due"), 0, -1)))

    def make_due(self) -> None:
        """Let the time of everything in the work queue come."""
        for feed in self.in_work_queue():
            self.redis.zadd(self.keys.work_queue("receipts", "due"), {feed: 1})

    async def aclose(self) -> None:
        await self.receipts.aclose()
        await self.commands.aclose()
        self.redis.close()


@pytest.fixture
async def store(valkey: EmbeddedServer, prefix: str) -> AsyncIterator[Store]:
    store = Store(valkey.url, prefix, entries=10)
    yield store
    await store.aclose()


async def test_the_first_device_that_acks_is_in_the_receipt_and_the_only_one(
    store: Store,
) -> None:
    await store.join("phone")
    await store.join("laptop")
    sent = await store.publish()
    assert await store.collect() == pytest.approx(SHORTEST_LOOK, abs=1)
    assert await store.told() == []
    await store.ack("phone", sent)
    await store.ack("laptop", sent)
    assert await store.collect() is None
    (told,) = await store.told()
    assert told == {
        "id": told["id"], "type": "receipt", "time": told["time"],
        "notification": ids.render(sent), "user": "u1", "status": "acked", "device": "phone",
        "at": told["at"],
    }  # fmt: skip
    await store.ack("laptop", await store.publish(receipt=""))
    assert await store.collect() is None
    assert len(await store.told()) == 1
    assert store.owed() == []


async def test_what_is_for_one_device_is_settled_by_that_alone(store: Store) -> None:
    for device in ("phone", "laptop"):
        await store.join(device)
    everybodys = await store.publish()
    own, gone = await store.publish(device="phone"), await store.publish(device="watch")
    last = await store.publish()
    await store.ack("laptop", last)
    await store.collect()
    assert await store.statuses() == [(everybodys, "acked"), (last, "acked")]
    await store.recall(gone)
    await store.ack("phone", own)
    await store.collect()
    told = {ids.parse(each["notification"]): each for each in (await store.told())[2:]}
    assert {each: told[each]["status"] for each in told} == {own: "acked", gone: "recalled"}
    assert told[own]["device"] == "phone"
    assert not store.redis.exists(store.keys.marks(FEED)) or store.redis.hkeys(
        store.keys.marks(FEED)
    ) == [f"w:{ids.render(gone)}"]


async def test_what_is_for_one_device_expires_though_others_acknowledge(store: Store) -> None:
    for device in ("phone", "laptop"):
        await store.join(device)
    own = await store.publish(device="phone", ttl=0.2)
    last = await store.publish()
    await store.ack("laptop", last)
    await store.outlive(own)
    await store.collect()
    assert sorted(await store.statuses()) == [(own, "expired"), (last, "acked")]


async def test_a_device_that_began_anew_has_not_acknowledged_what_it_never_had(
    store: Store,
) -> None:
    for device in ("phone", "laptop"):
        await store.join(device)
    own, last = await store.publish(device="phone", ttl=0.3), await store.publish()
    await store.ack("laptop", last)
    store.redis.hdel(store.keys.cursors(FEED), "phone")  # it made room for others
    await store.join("phone")
    later = await store.publish()
    await store.ack("phone", later)
    await store.outlive(own)
    await store.collect()
    assert (own, "expired") in await store.statuses()


async def test_each_receipt_goes_to_who_asked_for_it(store: Store) -> None:
    await store.join("phone")
    await store.publish(receipt="a")
    await store.publish(receipt="")
    last = await store.publish(receipt="b")
    await store.ack("phone", last)
    await store.collect()
    assert [len(await store.told(receipts(name))) for name in ("a", "b")] == [1, 1]


async def test_one_ack_settles_all_before_it_each_with_the_device_that_came_first(
    store: Store,
) -> None:
    await store.join("phone")
    await store.join("laptop")
    sent = [await store.publish() for _ in range(4)]
    await store.ack("laptop", sent[0])
    await store.ack("phone", sent[2])
    await store.ack("laptop", sent[1])
    look = await store.collect()
    assert look is not None
    assert [each["device"] for each in await store.told()] == ["laptop", "phone", "phone"]
    assert store.owed() == [f"r:{ids.render(sent[3])}"]


async def test_what_expired_is_told_with_its_expiry_and_not_before(store: Store) -> None:
    sent = await store.publish(ttl=0.2)
    look = await store.collect()
    assert look is not None
    assert 0 < look <= 0.2
    async with asyncio.timeout(5):
        while not await store.told():
            await store.receipts.due()
    (told,) = await store.told()
    assert told["status"] == "expired"
    assert await store.statuses() == [(sent, "expired")]


async def test_an_ack_after_the_expiry_does_not_count(store: Store) -> None:
    await store.join("phone")
    sent = await store.publish(ttl=0.001)
    await store.outlive(sent)
    later = await store.publish(receipt="")
    await store.ack("phone", later)
    await store.collect()
    assert await store.statuses() == [(sent, "expired")]


async def test_an_ack_before_the_expiry_counts_however_late_that_is_seen(store: Store) -> None:
    await store.join("phone")
    sent = await store.publish(ttl=0.3)
    await store.ack("phone", sent)
    await store.outlive(sent)
    await store.collect()
    assert await store.statuses() == [(sent, "acked")]


async def test_an_ack_that_is_not_kept_any_more_still_counts(store: Store) -> None:
    await store.join("phone")
    sent = await store.publish()
    await store.ack("phone", sent)
    store.redis.delete(store.keys.acks(FEED))
    await store.collect()
    (told,) = await store.told()
    assert (told["status"], "device" in told) == ("acked", False)


async def test_what_was_trimmed_is_told(store: Store) -> None:
    sent = [await store.publish() for _ in range(12)]
    await store.collect()
    assert await store.statuses() == [(sent[0], "trimmed"), (sent[1], "trimmed")]


async def test_what_a_newer_one_replaced_is_told(store: Store) -> None:
    sent = await store.publish(collapse_key="score")
    await store.publish(collapse_key="score", receipt="")
    await store.collect()
    assert await store.statuses() == [(sent, "replaced")]


async def test_what_was_recalled_is_told(store: Store) -> None:
    await store.join("phone")
    first, second = await store.publish(), await store.publish()
    await store.recall(first)
    await store.ack("phone", second)
    await store.collect()
    assert await store.statuses() == [(first, "recalled"), (second, "acked")]


async def test_what_one_device_settled_for_all_is_acked(store: Store) -> None:
    await store.join("phone")
    await store.join("laptop")
    sent = await store.publish(any_device=True)
    await store.ack("laptop", sent)
    await store.collect()
    assert await store.statuses() == [(sent, "acked")]


async def test_an_append_whose_answer_was_lost_is_not_repeated(store: Store) -> None:
    await store.join("phone")
    sent = await store.publish()
    await store.ack("phone", sent)
    store.feeds.lost = 1
    with pytest.raises(StoreUnavailable):
        await store.collect()
    assert len(store.owed()) == 1
    assert await store.collect() is None
    assert await store.statuses() == [(sent, "acked")]
    assert store.owed() == []


async def test_two_nodes_that_look_at_once_give_one_receipt(store: Store) -> None:
    await store.join("phone")
    sent = [await store.publish() for _ in range(5)]
    await store.ack("phone", sent[4])
    await asyncio.gather(*(store.collect() for _ in range(8)))
    assert await store.statuses() == [(each, "acked") for each in sent]


async def test_a_refused_append_is_tried_again(store: Store) -> None:
    await store.join("phone")
    sent = await store.publish()
    await store.ack("phone", sent)
    store.feeds.refused = 1
    assert await store.collect() == RETRY
    assert len(store.owed()) == 1
    assert await store.collect() is None
    assert await store.statuses() == [(sent, "acked")]


async def test_more_than_one_look_finds_are_all_given(valkey: EmbeddedServer, prefix: str) -> None:
    store = Store(valkey.url, prefix, entries=1000)
    await store.join("phone")
    sent = [await store.publish() for _ in range(MOST_FOUND + 5)]
    await store.ack("phone", sent[-1])
    store.receipts.schedule(FEED)
    await store.receipts.aclose()
    assert await store.statuses() == [(each, "acked") for each in sent]
    await store.aclose()


async def test_an_ack_whose_node_died_before_it_looked_is_found_by_another(
    store: Store, valkey: EmbeddedServer
) -> None:
    await store.join("phone")
    sent = await store.publish()
    await store.ack("phone", sent)
    other = Store(valkey.url, store.keys.prefix, entries=10)
    await other.receipts.due()
    assert await other.told() == []
    store.make_due()
    await other.receipts.due()
    assert await other.statuses() == [(sent, "acked")]
    await other.aclose()


async def test_a_publisher_that_dies_after_its_append_still_gets_its_receipt(
    store: Store,
) -> None:
    """The place in the work queue comes first, and a look that is too early does not remove it."""
    append = Append(FEED, b"1}", receipt="backend")
    await store.receipts.foresee([append])
    store.make_due()
    await store.receipts.due()
    assert store.in_work_queue() == [FEED]
    await store.join("phone")
    (result,), _ = await store.feeds.append([append])
    assert isinstance(result, Appended)
    await store.ack("phone", result.id)
    store.make_due()
    await store.receipts.due()
    assert await store.statuses() == [(result.id, "acked")]


async def test_only_what_wants_a_receipt_and_is_kept_gets_into_the_work_queue(store: Store) -> None:
    await store.publish(receipt="")
    await store.publish(ttl=0)
    assert store.in_work_queue() == []


async def test_looks_out_of_turn_that_fail_are_made_up_for(store: Store) -> None:
    await store.join("phone")
    sent = await store.publish()
    await store.ack("phone", sent)
    store.feeds.refused = 1
    store.receipts.schedule(FEED)
    async with asyncio.TaskGroup() as tasks:
        store.receipts.start(tasks)
        async with asyncio.timeout(5):
            while not await store.told():
                await asyncio.sleep(0.01)
        await store.receipts.aclose()
        await store.receipts.aclose()
    assert await store.statuses() == [(sent, "acked")]


async def test_a_look_out_of_turn_that_fails_forever_does_not_hold_up_the_end(
    store: Store,
) -> None:
    await store.join("phone")
    await store.ack("phone", await store.publish())
    store.feeds.refused = 1000
    store.receipts.schedule(FEED)
    async with asyncio.timeout(5):
        await store.receipts.aclose()


async def test_receipts_that_were_given_are_to_be_sent_on(store: Store) -> None:
    await store.join("phone")
    await store.ack("phone", await store.publish())
    await store.collect()
    assert [lease.feed for lease in await store.hooks.lease(10)] == [BACKEND]


async def test_every_key_has_a_time_to_live(store: Store, prefix: str) -> None:
    await store.join("phone")
    await store.ack("phone", await store.publish())
    await store.publish()
    store.make_due()
    await store.receipts.due()
    keys = list(store.redis.scan_iter(f"{prefix}*"))
    assert [key for key in keys if store.redis.pttl(key) <= 0] == []


class Model:
    """What becomes of each notification, if nothing ever fails."""

    def __init__(self, entries: int) -> None:
        self.entries = entries
        self.kept: list[int] = []
        self.ended: dict[int, str] = {}

    def publish(self, entry_id: int) -> None:
        self.kept.append(entry_id)
        for each in self.kept[: -self.entries]:
            self.end(each, "trimmed")

    def end(self, entry_id: int, how: str) -> None:
        self.kept.remove(entry_id)
        self.ended.setdefault(entry_id, how)

    def ack(self, entry_id: int) -> None:
        for each in self.kept:
            if each <= entry_id:
                self.ended.setdefault(each, "acked")


@pytest.mark.parametrize("seed", range(10))
async def test_whatever_fails_each_notification_gets_the_one_receipt_that_is_true(
    valkey: EmbeddedServer, prefix: str, seed: int
) -> None:
    """Two nodes, of which appends and answers get lost at random, and looks come late."""
    chance = random.Random(seed)
    model = Model(entries=6)
    stores = [Store(valkey.url, prefix, model.entries) for _ in range(2)]
    for device in ("phone", "laptop"):
        await stores[0].join(device)
    for _ in range(150):
        store = chance.choice(stores)
        match chance.randrange(8):
            case 0 | 1 | 2:
                model.publish(await store.publish())
            case 3 if model.kept:
                entry_id = chance.choice(model.kept)
                device = chance.choice(("phone", "laptop"))
                await store.feeds.ack([Acknowledgement(FEED, device, entry_id)])
                model.ack(entry_id)
            case 4 if model.kept:
                entry_id = chance.choice(model.kept)
                await store.recall(entry_id)
                model.end(entry_id, "recalled")
            case what:
                store.feeds.lost, store.feeds.refused = chance.choice([(0, 0), (1, 0), (0, 1)])
                store.make_due()
                with contextlib.suppress(StoreUnavailable):
                    await (store.collect() if what == 5 else store.receipts.due())
                store.feeds.lost = store.feeds.refused = 0
    model.publish(await store.publish())
    model.ack(model.kept[-1])
    await store.ack("phone", model.kept[-1])
    while store.owed():
        await store.collect()
    given = [json.loads(b"{" + each) for store in stores for each in store.feeds.given]
    assert len(given) == len(model.ended)
    assert {ids.parse(each["notification"]): each["status"] for each in given} == model.ended
    for store in stores:
        await store.aclose()
