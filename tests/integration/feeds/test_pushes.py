"""Pushes on a real server: who is to get one, and one only, whatever breaks off on the way."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from pushsvc.feeds.feed import Bounds
from pushsvc.feeds.nodes import Outbox
from pushsvc.feeds.pushes import Done, PushOutcome
from pushsvc.feeds.read_state import ReadStates
from pushsvc.feeds.receipts import Receipts
from pushsvc.feeds.work_queue import WorkQueue
from pushsvc.protocol import ids
from pushsvc.protocol.feeds import mailbox
from pushsvc.protocol.push import PushText
from pushsvc.protocol.read_state import Change, Verb
from pushsvc.server.embedded import EmbeddedServer
from pushsvc.store import schema
from tests.support.pushes import PushStore
from tests.support.store import FEED

BOUNDS = Bounds(entries=10, retention=3600, connections=4)
OTHER = mailbox("u2")


@pytest.fixture
async def store(valkey: EmbeddedServer, prefix: str) -> AsyncIterator[PushStore]:
    store = PushStore(valkey.url, prefix, BOUNDS)
    yield store
    await store.aclose()


async def test_each_device_that_has_not_acknowledged_is_due_once(store: PushStore) -> None:
    for device in ("phone", "tablet", "laptop"):
        await store.register(device)
    await store.join("n1.1", "phone")
    await store.join("n1.2", "laptop")
    sent = await store.push(push_event="order", collapse_key="k")
    await store.ack("laptop", sent)
    due = await store.look()
    assert {each.device for each in due.pushes} == {"phone", "tablet"}
    push = due.pushes[0]
    assert (push.text, push.event, push.collapse_key) == (
        PushText("Your order", "It is on its way."),
        "order",
        "k",
    )
    assert push.notification == sent
    assert await store.pushes.settle([Done(each, "sent") for each in due.pushes]) == set()
    assert await store.look() == (None, [])
    assert store.pending() == []
    record = await store.pushes.record(FEED, sent)
    assert record is not None
    assert {device: each.state for device, each in record.outcomes.items()} == {
        "phone": "sent",
        "tablet": "sent",
    }


async def test_without_registered_devices_a_publish_leaves_nothing(store: PushStore) -> None:
    sent = await store.push()
    assert store.pending() == []
    assert await store.pushes.record(FEED, sent) is None


async def test_a_push_is_due_after_its_time(store: PushStore) -> None:
    await store.register("phone")
    await store.push(push_after=60.0)
    due = await store.look()
    assert due.pushes == []
    assert due.wait is not None
    assert 50 < due.wait <= 60


@pytest.mark.parametrize("how", ["read", "archived", "recalled", "replaced", "erased", "trimmed"])
async def test_what_is_done_with_or_gone_is_not_pushed(store: PushStore, how: str) -> None:
    await store.register("phone")
    sent = await store.push(collapse_key="k")
    states = ReadStates(store.commands, Outbox(store.commands))
    if how == "read":
        await states.change(FEED, Change(Verb.READ, [sent], None))
    elif how == "archived":
        await states.change(FEED, Change(Verb.ARCHIVE, [], sent))
    elif how == "recalled":
        assert await store.withdraw(sent)
    elif how == "replaced":
        await store.publish(collapse_key="k")
    elif how == "trimmed":
        for _ in range(10):
            await store.publish()
    else:
        store.redis.delete(store.keys.log(FEED))
    assert await store.look() == (None, [])
    assert store.pending() == []


async def test_what_has_expired_is_not_pushed(store: PushStore) -> None:
    await store.register("phone")
    sent = await store.push(ttl=0.001)
    while store.redis.exists(store.keys.push_record(FEED, ids.render(sent))):
        await asyncio.sleep(0)
    assert await store.devices_due() == set()
    assert store.pending() == []


async def test_what_is_for_one_device_is_pushed_to_that(store: PushStore) -> None:
    await store.register("phone")
    await store.register("tablet")
    await store.push(device="tablet", collapse_key="k 1")
    (push,) = (await store.look()).pushes
    assert (push.device, push.collapse_key) == ("tablet", "k 1")


async def test_what_any_device_settles_is_pushed_until_one_did(store: PushStore) -> None:
    await store.register("phone")
    await store.register("tablet")
    await store.join("n1.1", "phone")
    sent = await store.push(any_device=True)
    assert await store.devices_due() == {"phone", "tablet"}
    await store.ack("phone", sent)
    assert await store.devices_due() == set()


async def test_a_device_that_registers_before_it_is_due_is_reached_too(store: PushStore) -> None:
    await store.register("phone")
    await store.push()
    await store.register("tablet")
    assert await store.devices_due() == {"phone", "tablet"}


async def test_a_retry_waits_for_its_time(store: PushStore) -> None:
    await store.register("phone")
    sent = await store.push()
    (push,) = (await store.look()).pushes
    await store.settle(push, "retry", wait=30.0, detail="503 busy now")
    due = await store.look()
    assert due.pushes == []
    assert due.wait is not None
    assert 20 < due.wait <= 30
    record = await store.pushes.record(FEED, sent)
    assert record is not None
    assert record.outcomes["phone"][2:] == ("fcm", 1, "503 busy now")
    await store.settle(push._replace(attempts=1), "retry", wait=0.0)
    (again,) = (await store.look()).pushes
    assert again.attempts == 2


async def test_a_final_outcome_is_not_overwritten(store: PushStore) -> None:
    await store.register("phone")
    sent = await store.push()
    (push,) = (await store.look()).pushes
    await store.settle(push)
    await store.settle(push, "retry", wait=1.0)
    await store.settle(push, "failed")
    record = await store.pushes.record(FEED, sent)
    assert record is not None
    assert isinstance(record.outcomes["phone"], PushOutcome)
    assert record.outcomes["phone"].state == "sent"
    assert await store.look() == (None, [])


async def test_each_outcome_has_one_receipt(store: PushStore) -> None:
    await store.register("phone")
    await store.register("tablet")
    sent = await store.push(receipt="backend")
    phone, tablet = sorted((await store.look()).pushes, key=lambda each: each.device)
    done = [Done(phone, "sent"), Done(tablet, "failed", "gone: 410", remove=True)]
    for _ in range(3):
        await store.pushes.settle(done)
    told = {each["device"]: each for each in store.told()}
    assert len(store.told()) == 2
    assert told["phone"]["status"] == "pushed"
    assert told["tablet"]["status"] == "push_failed"
    assert told["tablet"]["reason"] == "fcm: gone: 410"
    assert told["phone"]["notification"] == ids.render(sent)
    assert set(await store.registrations.of(FEED)) == {"phone"}


async def test_a_settling_that_broke_off_is_gone_on_with(store: PushStore) -> None:
    await store.register("phone")
    await store.push(receipt="backend")
    (push,) = (await store.look()).pushes
    await store.commands.execute(store.outcome_of_a_crash(push))
    assert store.told() == []
    due = await store.look()
    assert due == (0.0, [])
    assert [each["status"] for each in store.told()] == ["pushed"]
    assert await store.look() == (None, [])
    await store.settle(push)
    assert len(store.told()) == 1


async def test_a_receipt_that_was_given_before_the_node_died_is_not_given_again(
    store: PushStore,
) -> None:
    await store.register("phone")
    sent = await store.push(receipt="backend")
    (push,) = (await store.look()).pushes
    await store.settle(push)
    # As if the last step had not happened.
    at = ids.render(sent)
    store.redis.hset(store.keys.push_record(FEED, at), "~owed:phone", "1")
    store.redis.zadd(store.keys.pushes(FEED), {at: 1})
    await store.look()
    assert len(store.told()) == 1
    assert store.pending() == []


async def test_what_was_sent_has_its_registration_last_on(store: PushStore) -> None:
    await store.register("phone")
    await store.push()
    (owner,) = store.redis.keys(f"{store.keys.prefix}:push:owner:*")
    for key in (owner, store.keys.devices(FEED)):
        store.redis.expire(key, 100)
    await store.send_all()
    assert min(store.redis.ttl(owner), store.redis.ttl(store.keys.devices(FEED))) > 100_000


async def test_a_mailbox_is_on_the_queue_before_its_push(store: PushStore) -> None:
    await store.register("phone")
    await store.push()
    assert [lease.feed for lease in await store.work.lease(8)] == [FEED]


async def test_all_that_is_pushed_may_be_erased(store: PushStore) -> None:
    await store.register("phone")
    sent = await store.push(receipt="backend")
    names = set(store.redis.keys(f"{store.keys.prefix}:{{{FEED}}}:*"))
    known = {*store.keys.all_of(FEED)}
    assert {store.keys.pushes(FEED), store.keys.asked(FEED)} <= known
    record = store.keys.push_record(FEED, ids.render(sent))
    assert names - known == {store.keys.devices(FEED), record}
    assert schema.left_by(record.encode()) == ids.render(sent)


# --- receipts of reading -------------------------------------------------------------------------


def reading(store: PushStore) -> tuple[ReadStates, Receipts]:
    receipts = Receipts(
        store.feeds, store.commands, WorkQueue("receipts", store.commands, hold=1, keep=60)
    )
    return ReadStates(store.commands, Outbox(store.commands), receipts), receipts


@pytest.mark.parametrize("verb", [Verb.READ, Verb.ARCHIVE])
async def test_a_publisher_is_told_once_that_it_was_read(store: PushStore, verb: Verb) -> None:
    states, receipts = reading(store)
    sent = await store.publish(receipt="backend")
    other = await store.publish()
    changed = await states.change(FEED, Change(verb, [sent, other], None))
    assert changed == (0, 2)
    await states.change(FEED, Change(Verb.UNREAD, [sent], None))
    await states.change(FEED, Change(Verb.READ, [sent], None))
    for _ in range(2):
        await receipts.collect([FEED])
    await receipts.aclose()
    (told,) = store.told()
    assert (told["status"], told["notification"]) == ("read", ids.render(sent))
    assert not store.redis.exists(store.keys.asked(FEED), store.keys.told(FEED))


async def test_that_it_was_read_is_told_besides_how_it_ended(store: PushStore) -> None:
    states, receipts = reading(store)
    await store.join("n1.1", "phone")
    sent = [await store.publish(receipt="backend") for _ in range(3)]
    await store.ack("phone", sent[-1])
    await states.change(FEED, Change(Verb.READ, [], sent[1]))
    await receipts.collect([FEED])
    await receipts.aclose()
    told = [(each["status"], each["notification"]) for each in store.told()]
    assert sorted(told) == [
        *(("acked", ids.render(each)) for each in sent),
        *(("read", ids.render(each)) for each in sent[:2]),
    ]


async def test_the_mailbox_waits_for_a_look_before_it_is_marked(store: PushStore) -> None:
    states, receipts = reading(store)
    sent = await store.publish(receipt="backend")
    looked: list[bool] = []

    async def foresee(mailbox: str) -> None:
        looked.append(bool(store.redis.exists(store.keys.told(mailbox))))

    receipts.foresee_reading = foresee  # type: ignore[method-assign]
    await states.change(FEED, Change(Verb.READ, [sent], None))
    await receipts.aclose()
    assert looked == [False]


async def test_what_nobody_reads_is_forgotten_with_the_log(store: PushStore) -> None:
    for _ in range(60):
        last = await store.publish(receipt="backend")
    asked = store.redis.hkeys(store.keys.asked(FEED))
    assert BOUNDS.entries <= len(asked) <= 2 * BOUNDS.entries + 16
    assert ids.render(last) in asked
