"""What a mailbox tells of itself, on a real server: pages, who acknowledged, recall, presence."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.errors import checked
from pushsvc.feeds import history
from pushsvc.feeds.feed import Acknowledgement, Appended, Bounds, Feeds, Join
from pushsvc.feeds.history import Acked, Acks, History, Page
from pushsvc.feeds.nodes import ControlMessage, Leases, Outbox, unpack_control
from pushsvc.protocol import ids
from pushsvc.protocol.delivery import Backlog
from pushsvc.protocol.feeds import mailbox
from pushsvc.protocol.notifications import Append
from pushsvc.server.embedded import EmbeddedServer
from pushsvc.store import schema
from tests.support.redis import redis_at

FEED = mailbox("u1")
RETENTION = 3600.0


class Store:
    """A mailbox, its history, and a look behind them."""

    def __init__(self, url: str, prefix: str) -> None:
        self.url = url
        self.commands = redis_at(url, prefix)
        self.keys = self.commands.keys
        self.feeds = Feeds(Bounds(5000, RETENTION, 100),
            publishing=self.commands, sessions=self.commands,
        )  # fmt: skip
        self.outbox = Outbox(self.commands)
        self.leases = Leases(self.commands, 10)
        self.due: list[str] = []
        self.history = History(
            self.commands, leases=self.leases, outbox=self.outbox,
            retention=RETENTION, receipts_due=self.due.append,
        )  # fmt: skip
        self.redis = redis.Redis.from_url(url, decode_responses=True)

    async def publish(self, body: str = "x", **fields: Any) -> int:
        (result,), _ = await self.feeds.append([Append(FEED, body.encode(), **fields)])
        assert isinstance(result, Appended), result
        return result.id

    async def join(self, connection: str, device: str) -> Backlog:
        (result,) = await self.feeds.join([Join(FEED, connection, device, None, 0)])
        return checked(result)

    async def ack(self, device: str, entry_id: int) -> None:
        (result,) = await self.feeds.ack([Acknowledgement(FEED, device, entry_id)])
        assert checked(result).position == entry_id

    async def page(self, before: int | None = None, most: int = 100) -> Page:
        return await self.history.page(FEED, before, most)

    async def pages(self, most: int) -> list[Page]:
        """All of them, each by the one before."""
        pages = [await self.page(most=most)]
        while pages[-1].following is not None:
            pages.append(await self.page(pages[-1].following, most))
        return pages

    async def acked(self, entry_id: int) -> dict[str, int | None]:
        page = await self.page()
        (entry,) = (each for each in page.entries if each.id == entry_id)
        return dict(entry.acked)

    def now(self) -> int:
        seconds, micro = self.redis.time()
        return int(seconds) * 1000 + int(micro) // 1000

    async def node(self, name: str) -> None:
        """A live node with an inbox."""
        await self.leases.renew(name, take=True)
        self.redis.xadd(self.keys.inbox(name), {"c": ""})

    def notices(self, node: str) -> list[ControlMessage]:
        with redis.Redis.from_url(self.url) as raw:
            packets = [fields for _, fields in raw.xrange(self.keys.inbox(node))]
        return [unpack_control(fields[b"n"]) for fields in packets if b"n" in fields]


@pytest.fixture
async def store(valkey: EmbeddedServer, prefix: str) -> AsyncIterator[Store]:
    store = Store(valkey.url, prefix)
    yield store
    await store.outbox.aclose()
    await store.commands.aclose()
    store.redis.close()


def listed(*pages: Page) -> list[int]:
    return [entry.id for page in pages for entry in page.entries]


# --- pages ---------------------------------------------------------------------------------------


async def test_a_mailbox_that_never_was_is_empty(store: Store) -> None:
    assert await store.page() == Page([], None)


async def test_to_ask_about_a_mailbox_that_never_was_makes_no_key(store: Store) -> None:
    await store.page()
    assert not store.redis.keys(f"{store.keys.prefix}:*{{{FEED}}}*")


async def test_what_is_kept_is_listed_newest_first_with_its_body_and_its_end(store: Store) -> None:
    before = store.now()
    sent = [await store.publish(str(i), ttl=60 * (i + 1)) for i in range(3)]
    page = await store.page()
    assert listed(page) == sent[::-1]
    assert page.following is None
    assert [entry.body for entry in page.entries] == [b"2", b"1", b"0"]
    for entry, seconds in zip(page.entries, (180, 120, 60), strict=True):
        assert before <= entry.expires - seconds * 1000 <= store.now()
        assert entry.acked == []


@pytest.mark.parametrize("most", [1, 2, 3, 7, 10, 33, 99, 100])
async def test_pages_put_together_are_the_mailbox(store: Store, most: int) -> None:
    sent = [await store.publish(str(i)) for i in range(100)]
    pages = await store.pages(most)
    assert listed(*pages) == sent[::-1]
    assert all(len(page.entries) == most for page in pages[:-1])
    assert len(pages) == -(-100 // most)


async def test_a_page_goes_on_past_what_outlived_its_time_to_live(store: Store) -> None:
    kept = [await store.publish() for _ in range(2)]
    gone = [await store.publish(ttl=0.001) for _ in range(40)]
    kept.append(await store.publish())
    await passed(store, gone[-1])
    page = await store.page(most=3)
    assert listed(page) == kept[::-1]
    assert page.following is None


async def test_a_page_ends_after_as_many_bytes_though_their_time_has_passed(store: Store) -> None:
    oldest = await store.publish()
    gone = [await store.publish("x" * 60_000, ttl=0.001) for _ in range(40)]
    await passed(store, gone[-1])
    pages = await store.pages(100)
    assert len(pages) >= 40 * 60_000 // history.PAGE_BYTES
    assert [each.id for page in pages for each in page.entries] == [oldest]
    ends = [gone[-1] + 1, *(page.following or 0 for page in pages)]
    for above, below in itertools.pairwise(ends):
        looked = [each for each in gone if below <= each < above]
        assert 60_000 * len(looked) <= history.PAGE_BYTES


async def test_a_page_says_that_it_is_the_last_where_only_what_expired_follows(
    store: Store,
) -> None:
    gone = await store.publish(ttl=0.001)
    kept = await store.publish()
    await passed(store, gone)
    assert await store.page(most=1) == Page((await store.page()).entries, None, 1)
    assert listed(await store.page()) == [kept]


async def test_a_page_ends_after_many_looks_and_the_next_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "PAGE_LOOKS", 10)
    kept = await store.publish()
    gone = [await store.publish(ttl=0.001) for _ in range(15)]
    await passed(store, gone[-1])
    first, second = await store.pages(5)
    assert listed(first) == []
    assert first.following == gone[5]
    assert listed(second) == [kept]


async def test_a_page_ends_where_it_would_get_too_large(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "PAGE_BYTES", 100)
    sent = [await store.publish("x" * size) for size in (10, 200, 60, 40, 1)]
    pages = await store.pages(50)
    assert [listed(page) for page in pages] == [[sent[4], sent[3]], [sent[2]], [sent[1]], [sent[0]]]


async def test_before_the_first_id_there_is_nothing(store: Store) -> None:
    sent = await store.publish()
    assert await store.page(ids.START) == Page([], None, 1)
    assert await store.page(1) == Page([], None, 1)
    assert await store.page(sent) == Page([], None, 1)
    assert listed(await store.page(sent + 1)) == [sent]


async def test_what_is_live_only_is_not_kept(store: Store) -> None:
    await store.publish(ttl=0)
    assert await store.page() == Page([], None)


# --- who acknowledged ----------------------------------------------------------------------------


async def test_an_ack_counts_for_all_that_came_before_at_the_time_it_was_made(
    store: Store,
) -> None:
    sent = [await store.publish() for _ in range(4)]
    await store.join("n1.1", "phone")
    before = store.now()
    await store.ack("phone", sent[1])
    between = await later(store)
    await store.ack("phone", sent[2])
    told = [await store.acked(each) for each in sent]
    first, second = told[0]["phone"], told[2]["phone"]
    assert first is not None
    assert second is not None
    assert before <= first < between <= second <= store.now()
    assert told == [{"phone": first}, {"phone": first}, {"phone": second}, {}]


async def test_each_device_acknowledges_for_itself(store: Store) -> None:
    sent = await store.publish()
    for device in ("b", "a", "c"):
        await store.join(f"n1.{device}", device)
    await store.ack("c", sent)
    await store.ack("a", sent)
    assert list(await store.acked(sent)) == ["a", "c"]


async def test_what_is_for_one_device_is_acknowledged_by_that_alone(store: Store) -> None:
    await store.join("n1.1", "laptop")
    own = await store.publish(device="a phone")
    last = await store.publish()
    await store.ack("laptop", last)
    page = await store.history.page(FEED, None, 10)
    found = [(each.id, each.device, [one.device for one in each.acked]) for each in page.entries]
    assert found == [(last, "", ["laptop"]), (own, "a phone", [])]


async def test_a_device_has_not_acknowledged_what_others_did_before_it_came(store: Store) -> None:
    sent = [await store.publish()]
    await store.join("n1.1", "phone")
    await store.ack("phone", sent[0])
    await store.join("n1.2", "laptop")
    store.redis.hset(store.keys.cursors(FEED), schema.BEGAN + "laptop", ids.render(sent[0]))
    sent.append(await store.publish())
    assert set(await store.acked(sent[0])) == {"phone"}
    await store.ack("laptop", sent[1])
    assert set(await store.acked(sent[0])) == {"phone"}
    assert set(await store.acked(sent[1])) == {"laptop"}


async def test_the_time_of_an_ack_that_was_trimmed_is_not_made_up(store: Store) -> None:
    sent = [await store.publish() for _ in range(3)]
    for device in ("phone", "laptop"):
        await store.join(f"n1.{device}", device)
    await store.ack("phone", sent[0])
    await later(store)
    await store.ack("laptop", sent[0])
    await store.ack("phone", sent[2])
    times = await store.acked(sent[0])
    assert None not in times.values()
    # The oldest, as XADD with MAXLEN drops them.
    store.redis.xtrim(store.keys.acks(FEED), maxlen=2, approximate=False)
    assert await store.acked(sent[0]) == {"phone": None, "laptop": None}
    assert await store.acked(sent[2]) == {"phone": None}
    sent.append(await store.publish())
    await store.ack("phone", sent[3])
    # Trimmed or not: the one that is known stands right behind another of the device.
    assert (await store.acked(sent[3]))["phone"] is not None
    assert await store.acked(sent[0]) == {"phone": None, "laptop": None}


async def test_so_many_acks_are_looked_at_and_no_more(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "PAGE_LOOKS", 3)
    sent = await store.publish()
    for device in "abcd":
        await store.join(f"n1.{device}", device)
    for device in "abcd":
        await store.ack(device, sent)
    times = await store.acked(sent)
    assert [device for device, at in times.items() if at is None] == ["d"]


async def test_a_device_that_lost_its_cursor_has_acknowledged_what_it_did(store: Store) -> None:
    sent = await store.publish()
    await store.join("n1.1", "phone")
    await store.ack("phone", sent)
    time_of_it = (await store.acked(sent))["phone"]
    store.redis.hdel(store.keys.cursors(FEED), "phone")
    assert await store.acked(sent) == {"phone": time_of_it}


numbers = st.integers(1, 30)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), numbers), max_size=30),
    st.integers(0, 30),
    numbers,
)
def test_whatever_is_trimmed_a_time_is_right_or_unknown(
    acks: list[tuple[str, int]], trimmed: int, asked: int
) -> None:
    # Entry n was published at n, and the acks follow; cursors move forward only.
    cursors: dict[str, int] = {}
    made: list[tuple[int, str, int]] = []
    moment = 0
    for device, number in acks:
        if number > cursors.get(device, 0):
            moment = max(moment, number) + 1
            cursors[device] = number
            made.append((moment, device, number << 64))
    kept = made[trimmed:]
    since = kept[0][0] if kept and trimmed else 0
    told = Acks({name: n << 64 for name, n in cursors.items()}, {}, kept, since).of(asked << 64)
    right = {
        device: next(at for at, name, number in made if name == device and number >= asked << 64)
        for device, cursor in cursors.items()
        if cursor >= asked
    }
    assert [device for device, _ in told] == sorted(right)
    assert all(at is None or at == right[device] for device, at in told)
    if not trimmed:
        assert all(at is not None for _, at in told)


def test_an_entry_that_nobody_acknowledged_has_nobody() -> None:
    assert Acks({"a": 0}, {}, [], 0).of(1 << 64) == []
    assert Acks({"a": 1 << 64}, {}, [], 0).of(1 << 64) == [Acked("a", None)]


# --- recall --------------------------------------------------------------------------------------


async def test_a_recalled_notification_is_gone_and_who_had_acknowledged_it_is_told(
    store: Store,
) -> None:
    sent = [await store.publish() for _ in range(3)]
    await store.join("n1.1", "phone")
    await store.join("n1.2", "laptop")
    await store.ack("phone", sent[1])
    assert await store.history.recall(FEED, sent[1]) == ["phone"]
    assert listed(await store.page()) == [sent[2], sent[0]]
    assert store.due == []


@pytest.mark.parametrize("entry_id", [ids.START, 1, ids.parse("99999999999999-0")])
async def test_what_is_not_kept_cannot_be_recalled(store: Store, entry_id: int) -> None:
    await store.publish()
    await store.join("n1.1", "phone")
    assert await store.history.recall(FEED, entry_id) is None


async def test_each_live_node_of_the_listeners_is_told_once(store: Store) -> None:
    for name in ("n1", "n2", "n3"):
        await store.node(name)
    sent = await store.publish()
    for connection in ("n1.1", "n1.2", "n2.1", "gone.1"):
        await store.join(connection, "phone")
    await store.history.recall(FEED, sent)
    await store.outbox.aclose()
    notice = ControlMessage("withdrawn", FEED, [ids.render(sent), "recalled"])
    assert store.notices("n1") == [notice]
    assert store.notices("n2") == [notice]
    assert store.notices("n3") == []
    assert not store.redis.exists(store.keys.inbox("gone"))


async def test_of_what_is_for_one_device_nodes_are_told_which(store: Store) -> None:
    await store.node("n1")
    await store.join("n1.1", "a phone")
    own = await store.publish(device="a phone")
    assert await store.history.recall(FEED, own) == []
    await store.outbox.aclose()
    told = [ids.render(own), "recalled"]
    assert store.notices("n1") == [  # nodes of before know the second only
        ControlMessage("recalled", FEED, [*told, "a phone"]),
        ControlMessage("withdrawn", FEED, told),
    ]


async def test_a_recall_that_may_owe_a_receipt_says_so(store: Store) -> None:
    sent = await store.publish(receipt="backend")
    await store.history.recall(FEED, sent)
    assert store.due == [FEED]


# --- presence ------------------------------------------------------------------------------------


async def test_nobody_is_there_at_first(store: Store) -> None:
    assert await store.history.present(FEED) == []


async def test_devices_are_there_since_the_longest_of_their_connections(store: Store) -> None:
    await store.node("n1")
    before = store.now()
    await store.join("n1.1", "phone")
    between = await later(store)
    await store.join("n1.2", "laptop")
    await store.join("n1.3", "phone")
    laptop, phone = await store.history.present(FEED)
    assert (laptop.device, laptop.connections) == ("laptop", 1)
    assert (phone.device, phone.connections) == ("phone", 2)
    assert before <= phone.since < between <= laptop.since <= store.now()


async def test_who_was_held_by_a_dead_node_is_not_there(store: Store) -> None:
    await store.node("n1")
    await store.node("n2")
    await store.join("n1.1", "phone")
    await store.join("n2.1", "phone")
    await store.join("n2.2", "laptop")
    await store.leases.give_up("n2")
    await store.leases.renew("n1", take=False)
    (phone,) = await store.history.present(FEED)
    assert (phone.device, phone.connections) == ("phone", 1)


async def passed(store: Store, entry_id: int) -> None:
    """Wait until an entry's time to live of a millisecond has passed."""
    async with asyncio.timeout(5):
        while store.now() < ids.milliseconds(entry_id) + 2:
            await asyncio.sleep(0.001)


async def later(store: Store) -> int:
    """The next millisecond of Redis, once it has begun."""
    now = store.now()
    deadline = time.monotonic() + 5
    while store.now() == now:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)
    return store.now()
