"""The schedule on a real server: everything ends once, as out or as recalled, whatever dies."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Final

import msgspec
import pytest
import redis
from structlog.testing import capture_logs

from pushsvc.errors import (
    DurabilityNotReached,
    InvalidRequest,
    NotFound,
    Overloaded,
    PushError,
    StoreUnavailable,
    TooManyRequests,
    checked,
)
from pushsvc.feeds import departures as departures_module
from pushsvc.feeds import schedule as module
from pushsvc.feeds.departures import Departures
from pushsvc.feeds.event_log import EventLog
from pushsvc.feeds.feed import ONCE_SECONDS, Bounds, Feeds
from pushsvc.feeds.nodes import Leases, Outbox
from pushsvc.feeds.publisher import Published, Publisher
from pushsvc.feeds.quota import ClientQuota
from pushsvc.feeds.receipts import Receipts
from pushsvc.feeds.schedule import LOOK_COUNT, Kept, Schedule
from pushsvc.feeds.work_queue import WorkQueue
from pushsvc.protocol import ids
from pushsvc.protocol.feeds import broadcast, mailbox, topic
from pushsvc.protocol.notifications import Append
from pushsvc.protocol.scheduled import TOLERANCE, is_scheduled_id
from pushsvc.server.embedded import EmbeddedServer
from pushsvc.settings import Durability
from tests.support.redis import redis_at

FEED: Final = mailbox("u1")
BOUNDS: Final = Bounds(entries=50, retention=3600, connections=4)
HOLD: Final = 0.4
FAR: Final = 600_000


class Actor:
    """What one node does with schedules, and a look behind it."""

    def __init__(self, url: str, prefix: str, bounds: Bounds = BOUNDS) -> None:
        self.commands = commands = redis_at(url, prefix)
        self.publishing = redis_at(url, prefix)
        self.keys = commands.keys
        self.feeds = Feeds(bounds, publishing=self.publishing, sessions=commands)
        self.work = WorkQueue("scheduled", commands, hold=HOLD, keep=7200)
        self.leases = Leases(commands, 10)
        receipts = Receipts(
            self.feeds, commands, WorkQueue("receipts", commands, hold=30, keep=7200)
        )
        self.schedule = Schedule(
            self.publishing, commands, self.work, bounds, self.leases.redis_time
        )
        self.publisher = Publisher(
            self.feeds, Outbox(commands), self.leases, Durability.MEMORY, receipts, EventLog(0),
            ClientQuota(commands, 0, 1), self.schedule,
        )  # fmt: skip
        self.departures = Departures(self.schedule, self.publisher, self.work)
        self.redis: Any = redis.Redis.from_url(url)

    def now(self) -> int:
        """Redis time in milliseconds."""
        seconds, microseconds = self.redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def keep(self, ahead: int, feed: str = FEED, **fields: Any) -> str:
        """Schedule something so many milliseconds ahead; its id."""
        append = Append(feed, fields.pop("body", b'"data":1}'), at=self.now() + ahead, **fields)
        (kept,) = await self.schedule.keep([append], "backend")
        return checked(kept).id

    def log(self, feed: str = FEED) -> list[tuple[int, bytes]]:
        """The ids and bodies of a feed's entries."""
        entries = self.redis.xrange(self.keys.log(feed))
        return [(ids.parse(entry_id), fields[b"d"]) for entry_id, fields in entries]

    async def until_out(self, count: int, feed: str = FEED) -> list[tuple[int, bytes]]:
        """Publish what is due until a feed has so many entries."""
        async with asyncio.timeout(10):
            while len(self.log(feed)) < count:
                await self.departures.turn()
                await asyncio.sleep(0.01)
        return self.log(feed)

    async def until_gone(self, feed: str = FEED) -> None:
        """Publish what is due until nothing waits in a feed."""
        async with asyncio.timeout(10):
            while self.redis.zcard(self.keys.times(feed)):
                await self.departures.turn()
                await asyncio.sleep(0.01)

    def wait_for_replicas(self) -> None:
        """Have what must last wait for a replica; there is none."""
        self.publishing.queue._tail = ("WAIT", 1, 1)

    async def finish(self) -> None:
        """Wait until what is under way has ended."""
        await self.publishing.aclose()
        await self.commands.aclose()

    async def aclose(self) -> None:
        await self.finish()
        self.redis.close()


@pytest.fixture
async def actor(valkey: EmbeddedServer, prefix: str) -> AsyncIterator[Actor]:
    one = Actor(valkey.url, prefix)
    await one.leases.renew("n1", take=True)
    yield one
    await one.aclose()


async def test_what_is_scheduled_goes_out_in_the_order_of_its_times_and_none_early(
    actor: Actor,
) -> None:
    at = actor.now() + 150
    bodies = {b'"data":"late"}': at + 150, b'"data":"soon"}': at, b'"data":"soon too"}': at}
    appends = [Append(FEED, body, at=time) for body, time in bodies.items()]
    kept = [checked(each) for each in await actor.schedule.keep(appends, "backend")]
    assert [each.at for each in kept] == list(bodies.values())
    assert len({each.id for each in kept}) == 3
    assert all(is_scheduled_id(each.id) for each in kept)
    entries = await actor.until_out(3)
    assert [body for _, body in entries] == sorted(bodies, key=lambda each: bodies[each])
    for entry_id, body in entries:
        assert bodies[body] <= ids.milliseconds(entry_id) < bodies[body] + 3000
    left = {str(each) for each in actor.redis.keys(f"{actor.keys.prefix}:*{FEED}*")}
    assert not [each for each in left if "times" in each or "scheduled" in each], left


async def test_it_goes_out_as_it_was_published(actor: Actor) -> None:
    fields: dict[str, Any] = {
        "body": b'"topic":"x","data":[1]}', "ttl": 60.0, "collapse_key": "k", "any_device": True,
        "receipt": "backend",
    }  # fmt: skip
    scheduled = await actor.keep(0, **fields)
    (due,) = [checked(each) for each in await actor.schedule.due([FEED])]
    ((_, append),) = due.publishes
    assert append == Append(FEED, **fields, scheduled=scheduled, by="backend")
    ((entry_id, body),) = await actor.until_out(1)
    assert body == fields["body"]
    marks = actor.redis.hgetall(actor.keys.marks(FEED))
    assert {key.partition(b":")[0] for key in marks} == {b"a", b"r"}
    assert actor.redis.hget(actor.keys.latest(FEED), "k") == ids.render(entry_id).encode()


@pytest.mark.parametrize("feed", [FEED, topic("t"), broadcast()])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ttl": 60.0},
        {"ttl": 0.0},
        {"collapse_key": "k"},
        {"collapse_key": "k", "ttl": 60.0},
        {"collapse_key": "k", "any_device": True, "receipt": "backend", "ttl": 60.0},
    ],
    ids=lambda options: "+".join(options) or "plain",
)
async def test_it_goes_out_with_any_option_and_takes_the_place_of_an_older_one(
    actor: Actor, feed: str, options: dict[str, Any]
) -> None:
    if feed != FEED:
        options = {name: options[name] for name in options if name in {"ttl", "collapse_key"}}
    older = Append(feed, b'"data":"old"}', collapse_key=options.get("collapse_key", ""))
    (before,) = await actor.publisher.publish([older])
    assert isinstance(before, Published)
    scheduled = await actor.keep(0, feed, **options)
    await actor.until_gone(feed)
    became = await actor.schedule.recall(feed, scheduled)
    assert became is not None
    assert became > before.id
    kept = [] if "collapse_key" in options else [before.id]
    assert [entry_id for entry_id, _ in actor.log(feed)] == (
        kept if options.get("ttl") == 0 else [*kept, became]
    )
    if "collapse_key" in options:
        latest = actor.redis.hget(actor.keys.latest(feed), "k")
        assert latest.split(b" ")[0] == ids.render(became).encode()


async def test_what_redis_fails_to_append_waits_on_and_goes_out_later(actor: Actor) -> None:
    scheduled = await actor.keep(0, collapse_key="k")
    latest = actor.keys.latest(FEED)
    actor.redis.set(latest, "no hash, so the script fails in the middle")
    await actor.departures.turn()
    assert actor.log() == []
    assert actor.redis.zscore(actor.keys.times(FEED), scheduled) is not None
    actor.redis.delete(latest)
    await actor.until_out(1)


@pytest.mark.parametrize("feed", [FEED, topic("t"), broadcast(), mailbox("u1", "acme")])
async def test_what_is_recalled_before_its_time_never_goes_out(actor: Actor, feed: str) -> None:
    first, second = await actor.keep(0, feed), await actor.keep(0, feed)
    assert await actor.schedule.recall(feed, first) is None
    assert await actor.schedule.recall(feed, first) is None, "as often as one likes"
    ((entry_id, _),) = await actor.until_out(1, feed)
    assert await actor.schedule.recall(feed, second) == entry_id
    assert await actor.schedule.recall(feed, second) == entry_id
    assert len(actor.log(feed)) == 1


async def test_nothing_is_recalled_in_another_feed_or_under_another_id(actor: Actor) -> None:
    scheduled = await actor.keep(FAR)
    for feed, other in ((mailbox("u2"), scheduled), (FEED, "s-" + 24 * "0")):
        with pytest.raises(NotFound):
            await actor.schedule.recall(feed, other)
    assert await actor.schedule.recall(FEED, scheduled) is None


async def test_what_was_found_due_and_is_recalled_then_does_not_go_out(actor: Actor) -> None:
    scheduled = await actor.keep(0)
    (due,) = [checked(each) for each in await actor.schedule.due([FEED])]
    assert await actor.schedule.recall(FEED, scheduled) is None
    (outcome,) = await actor.publisher.publish([append for _, append in due.publishes])
    assert isinstance(outcome, NotFound)
    assert actor.log() == []


async def test_two_that_found_the_same_publish_it_once(actor: Actor) -> None:
    await actor.keep(0)
    (due,) = [checked(each) for each in await actor.schedule.due([FEED])]
    appends = [append for _, append in due.publishes] * 2
    outcomes = await actor.publisher.publish(appends)
    assert [type(each) for each in outcomes] == [Published, NotFound]
    assert len(actor.log()) == 1


async def test_a_repeated_request_is_scheduled_once_whenever_it_comes(actor: Actor) -> None:
    at = actor.now() + 50
    append = Append(FEED, b'"data":1}', at=at, once="a" * 32)

    async def kept() -> str:
        (result,) = await actor.schedule.keep([append], "backend")
        return checked(result).id

    first = await kept()
    assert await kept() == first
    await actor.until_out(1)
    assert await kept() == first, "after it is out"
    await actor.departures.turn()
    assert len(actor.log()) == 1


async def test_a_repeated_request_is_known_long_after_its_time(actor: Actor) -> None:
    append = Append(FEED, b'"data":1}', at=actor.now() - 3_600_000, once="a" * 32)
    actor.redis.set(actor.keys.once(FEED, "at." + "a" * 32), "s-" + "0" * 24)
    (result,) = await actor.schedule.keep([append], "backend")
    assert checked(result).id == "s-" + "0" * 24


async def test_a_key_is_remembered_for_a_day_after_the_time_that_it_is_for(actor: Actor) -> None:
    append = Append(FEED, b'"data":1}', at=actor.now() + FAR, once="a" * 32)
    keys = actor.keys.once(FEED, "at." + "a" * 32), actor.keys.request("digest")
    for _ in range(2):
        checked((await actor.schedule.keep([append], "backend"))[0])
        await actor.publisher.claim("digest", "fingerprint", [append])
        for key in keys:
            lasts = actor.redis.pttl(key) - ONCE_SECONDS * 1000
            assert FAR - 60_000 < lasts <= FAR + 1000, key
    await actor.publisher.claim("now", "fingerprint", [Append(FEED, b"1}", once="b" * 32)])
    assert actor.redis.ttl(actor.keys.request("now")) <= ONCE_SECONDS
    sooner = msgspec.structs.replace(append, at=actor.now())
    checked((await actor.schedule.keep([sooner], "backend"))[0])
    assert actor.redis.pttl(keys[0]) > ONCE_SECONDS * 1000 + FAR - 60_000, "none is shortened"
    far = Append(FEED, b"1}", at=10**15, once="c" * 32)
    await actor.publisher.claim("far", "fingerprint", [far])
    assert actor.redis.ttl(actor.keys.request("far")) <= ONCE_SECONDS + BOUNDS.retention


@pytest.mark.parametrize("feed", [FEED, topic("t"), broadcast()])
async def test_what_was_recalled_is_scheduled_anew_by_the_same_request(
    actor: Actor, feed: str
) -> None:
    append = Append(feed, b'"data":1}', at=actor.now() + 300, once="a" * 32)

    async def kept() -> str:
        (result,) = await actor.schedule.keep([append], "backend")
        return checked(result).id

    first = await kept()
    await actor.schedule.recall(feed, first)
    second = await kept()
    assert second != first
    assert await kept() == second, "from then on that is its answer"
    ((entry_id, _),) = await actor.until_out(1, feed)
    assert await actor.schedule.recall(feed, first) is None
    assert await actor.schedule.recall(feed, second) == entry_id
    assert await kept() == second, "what is out is recalled there, and not published again"
    await actor.until_gone(feed)
    assert len(actor.log(feed)) == 1


async def test_what_cannot_be_scheduled_calls_for_no_look(actor: Actor) -> None:
    for at in (1, actor.now() - 3_600_000, 10**15, actor.now() + 2 * 3_600_000):
        (result,) = await actor.schedule.keep([Append(FEED, b"1}", at=at)], "")
        assert isinstance(result, InvalidRequest)
    assert actor.redis.exists(actor.keys.work_queue("scheduled", "due")) == 0
    good = Append(mailbox("u2"), b"1}", at=actor.now() + FAR)
    results = await actor.schedule.keep([Append(FEED, b"1}", at=1), good], "")
    assert [type(each) for each in results] == [InvalidRequest, Kept]
    queue = actor.redis.zrange(actor.keys.work_queue("scheduled", "due"), 0, -1)
    assert queue == [good.feed.encode()]


async def test_a_node_whose_clock_is_wrong_forgets_nothing_that_redis_keeps(actor: Actor) -> None:
    schedule = Schedule(actor.publishing, actor.commands, actor.work, BOUNDS, lambda: 1.0)
    (result,) = await schedule.keep([Append(FEED, b"1}", at=actor.now())], "")
    checked(result)
    await actor.until_out(1)


@pytest.mark.parametrize("error", [Overloaded("too much"), StoreUnavailable("away")])
async def test_of_a_batch_what_is_for_now_and_what_is_for_later_fail_apart(
    actor: Actor, monkeypatch: pytest.MonkeyPatch, error: PushError
) -> None:
    now, later = Append(FEED, b"1}"), Append(FEED, b"2}", at=actor.now() + FAR)
    passing = Append(FEED, b"3}", ephemeral=True)

    async def refused(*_: Any) -> Any:
        raise error

    for owner, name, failing in ((actor.feeds, "append", now), (actor.schedule, "keep", later)):
        with monkeypatch.context() as broken:
            broken.setattr(owner, name, refused)
            outcomes = await actor.publisher.publish([now, later, passing], "backend")
            for append, outcome in zip((now, later, passing), outcomes, strict=True):
                assert isinstance(outcome, type(error) if append is failing else Published)
            with pytest.raises(type(error)):
                await actor.publisher.publish([failing], "backend")


async def test_the_times_are_bounded_by_the_time_of_redis(actor: Actor) -> None:
    now = actor.now()
    retention = round(BOUNDS.retention * 1000)
    times = {
        1: "past", now - round(TOLERANCE * 1000) - 1000: "past", now - 1000: "", now: "",
        now + retention - 1000: "", now + retention + 5000: "retention (3600 s)",
        10**15: "retention (3600 s)",
    }  # fmt: skip
    appends = [Append(FEED, b"1}", at=at) for at in times]
    for result, why in zip(await actor.schedule.keep(appends, ""), times.values(), strict=True):
        if why:
            assert isinstance(result, InvalidRequest)
            assert why in result.detail
            assert "Z now" in result.detail
        else:
            assert not isinstance(result, PushError), result


async def test_a_feed_takes_no_more_than_its_bounds_and_then_again(
    actor: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [await actor.keep(FAR) for _ in range(BOUNDS.entries)]
    with pytest.raises(TooManyRequests) as full:
        await actor.keep(FAR)
    assert full.value.retry_after is not None
    assert FAR / 1000 - 60 < full.value.retry_after <= FAR / 1000
    await actor.keep(FAR, mailbox("u2"))
    await actor.schedule.recall(FEED, kept[0])
    await actor.keep(FAR)
    monkeypatch.setattr(module, "MOST_BYTES", 2000)
    await actor.keep(FAR, mailbox("u3"), body=b"x" * 1400)
    with pytest.raises(TooManyRequests):
        await actor.keep(FAR, mailbox("u3"), body=b"x" * 400)


async def test_every_key_outlives_what_waits(actor: Actor) -> None:
    await actor.keep(round(BOUNDS.retention * 1000) - 1000, once="b" * 32)
    actor.redis.delete(actor.keys.nodes)
    keys = actor.redis.keys(f"{actor.keys.prefix}:*")
    lives = {key: actor.redis.pttl(key) for key in keys}
    assert len(lives) == 5
    assert min(lives.values()) > BOUNDS.retention * 1000, lives


async def test_a_burst_goes_out_whole_and_costs_one_look_after_the_other(actor: Actor) -> None:
    at = actor.now()
    count = 2 * LOOK_COUNT + 5
    appends = [Append(FEED, b'"data":%d}' % n, at=at) for n in range(count)]
    await actor.schedule.keep(appends, "backend")
    (due,) = [checked(each) for each in await actor.schedule.due([FEED])]
    assert (due.wait, len(due.publishes)) == (0.0, LOOK_COUNT)
    entries = await actor.until_out(count)
    assert [body for _, body in entries] == [each.body for each in appends]


async def test_the_next_look_is_when_the_next_is_due(actor: Actor) -> None:
    await actor.keep(0)
    await actor.keep(50_000)
    (due,) = [checked(each) for each in await actor.schedule.due([FEED])]
    assert due.wait is not None
    assert 45 < due.wait <= 50
    (nothing,) = [checked(each) for each in await actor.schedule.due([mailbox("nobody")])]
    assert nothing == (None, [])


async def test_what_cannot_be_read_waits_for_a_node_that_can_and_holds_up_nothing(
    actor: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNREADABLE", 0.5)
    count = LOOK_COUNT + 1
    broken, (lost, recalled) = [await actor.keep(0) for _ in range(count)], [
        await actor.keep(0), await actor.keep(0),
    ]  # fmt: skip
    key = actor.keys.scheduled(FEED)
    item = actor.redis.hget(key, broken[0])
    for each in (*broken, recalled):
        actor.redis.hset(key, each, b"\xc1")
    actor.redis.hdel(key, lost)
    await actor.keep(0)
    with capture_logs() as lines:
        await actor.until_out(1)
        times = actor.keys.times(FEED)
        while actor.redis.zscore(times, recalled) < actor.now():
            await actor.departures.turn()
        await actor.schedule.due([FEED])
    assert await actor.schedule.recall(FEED, lost) is None, "it was dropped"
    assert await actor.schedule.recall(FEED, recalled) is None
    told = [line["id"] for line in lines if "cannot be read" in line["event"]]
    assert sorted(told) == sorted({*told}), "each once"
    assert actor.redis.zcard(times) == count
    for each in broken:
        actor.redis.hset(key, each, item)  # the newer node
    assert len(await actor.until_out(1 + count)) == 1 + count


async def test_a_field_of_a_newer_version_does_no_harm(actor: Actor) -> None:
    scheduled = await actor.keep(0)
    key = actor.keys.scheduled(FEED)
    item = actor.redis.hget(key, scheduled)
    assert isinstance(item, bytes)
    more = msgspec.msgpack.encode(msgspec.msgpack.decode(item) | {"new": [1, 2, 3]})
    actor.redis.hset(key, scheduled, more)
    ((_, body),) = await actor.until_out(1)
    assert body == b'"data":1}'


async def test_nothing_is_scheduled_where_nothing_is_confirmed(actor: Actor) -> None:
    actor.wait_for_replicas()
    with pytest.raises(DurabilityNotReached):
        await actor.schedule.keep([Append(FEED, b"1}", at=actor.now())], "")
    assert actor.redis.exists(actor.keys.times(FEED)) == 0


async def test_what_is_out_and_not_confirmed_is_looked_for_after_a_failover(actor: Actor) -> None:
    await actor.keep(0)
    # Long ago, so that nothing else calls for a look.
    actor.redis.hset(actor.keys.work_queue("scheduled", "owed"), FEED, 1)
    actor.wait_for_replicas()
    ((entry_id, _),) = await actor.until_out(1)
    due = actor.redis.zscore(actor.keys.work_queue("scheduled", "due"), FEED)
    assert due > ids.milliseconds(entry_id) + 40_000, "a primary that lost it has it due again"


async def test_what_a_failover_brings_back_goes_out_again_whatever_the_durability(
    actor: Actor,
) -> None:
    scheduled = await actor.keep(0)
    names = [actor.keys.times(FEED), actor.keys.scheduled(FEED)]
    before = {name: actor.redis.dump(name) for name in names}
    due, owed = (actor.keys.work_queue("scheduled", part) for part in ("due", "owed"))
    # Long ago, so that nothing else calls for a look.
    actor.redis.hset(owed, FEED, 1)
    ((entry_id, _),) = await actor.until_out(1)
    look = actor.redis.zscore(due, FEED)
    assert ids.milliseconds(entry_id) + 40_000 < look <= actor.now() + 45_000
    # The feed's shard fails over and has lost the append; another one has the work queue.
    actor.redis.delete(*actor.redis.keys(f"{actor.keys.prefix}:*{FEED}*"))
    for name in names:
        actor.redis.restore(name, 60_000, before[name])
    actor.redis.zadd(due, {FEED: actor.now()})  # as if that time had passed
    assert len(await actor.until_out(1)) == 1
    assert await actor.schedule.recall(FEED, scheduled) is not None
    for _ in range(2):
        actor.redis.zadd(due, {FEED: actor.now()}, xx=True)
        actor.redis.hset(owed, FEED, 1)
        await actor.departures.turn()
    assert actor.redis.zscore(due, FEED) is None, "a look that finds nothing is the last one"


async def test_a_feed_where_something_later_waits_is_looked_at_soon_after_what_went_out(
    actor: Actor,
) -> None:
    await actor.keep(0)
    await actor.keep(FAR)
    # Long ago, so that nothing else calls for a look.
    actor.redis.hset(actor.keys.work_queue("scheduled", "owed"), FEED, 1)
    await actor.until_out(1)
    due = actor.keys.work_queue("scheduled", "due")
    assert actor.redis.zscore(due, FEED) <= actor.now() + 45_000


@pytest.mark.parametrize("error", [Overloaded("too much"), StoreUnavailable("away")])
async def test_feeds_that_could_not_be_worked_on_are_looked_at_again_before_the_lease_ends(
    actor: Actor, monkeypatch: pytest.MonkeyPatch, error: PushError
) -> None:
    work = WorkQueue("scheduled", actor.commands, hold=60, keep=7200)
    departures = Departures(actor.schedule, actor.publisher, work)
    feeds = [mailbox(f"u{number}") for number in range(5)]
    for feed in feeds:
        await actor.keep(0, feed, receipt="backend")
    receipts = actor.keys.work_queue("receipts", "due")
    with monkeypatch.context() as broken:

        async def refused(*_: Any) -> Any:
            raise error

        broken.setattr(actor.feeds, "append", refused)
        with pytest.raises(type(error)):
            await departures.turn()
    assert actor.redis.zcard(receipts) == 5
    due = actor.redis.zrange(actor.keys.work_queue("scheduled", "due"), 0, -1, withscores=True)
    assert {feed.decode() for feed, _ in due} == set(feeds)
    assert all(at <= actor.now() + 1000 for _, at in due), due
    async with asyncio.timeout(5):
        while not all(actor.log(feed) for feed in feeds):
            await departures.turn()
            await asyncio.sleep(0.02)


async def test_what_cannot_be_published_is_told_to_the_log(actor: Actor) -> None:
    scheduled = await actor.keep(-5000, collapse_key="k")
    actor.redis.set(actor.keys.latest(FEED), "no hash")
    with capture_logs() as lines:
        await actor.departures.turn()
    (line,) = lines
    assert line["log_level"] == "warning"
    assert (line["feed"], line["id"]) == (FEED, scheduled)
    assert line["error"]
    assert line["late_seconds"] >= 0


async def test_what_cannot_be_looked_at_is_told_to_the_log(actor: Actor) -> None:
    await actor.keep(0)
    times = actor.keys.times(FEED)
    actor.redis.rename(times, f"{times}:aside")
    actor.redis.set(times, "no sorted set")
    with capture_logs() as lines:
        await actor.departures.turn()
    (line,) = lines
    assert (line["log_level"], line["feed"]) == ("warning", FEED)
    assert line["error"]
    actor.redis.rename(f"{times}:aside", times)
    await actor.until_out(1)


async def test_that_it_is_well_again_is_told_to_the_log_once(
    actor: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = iter([Overloaded("too much"), Overloaded("too much"), False, False, None])
    over = asyncio.Event()

    async def turn() -> bool:
        each = next(turns, None)
        if isinstance(each, PushError):
            raise each
        if each is None:
            over.set()
        return False

    monkeypatch.setattr(actor.departures, "turn", turn)
    monkeypatch.setattr(departures_module, "POLL", 0.01)
    with capture_logs() as lines:
        async with asyncio.TaskGroup() as tasks:
            actor.departures.start(tasks)
            await over.wait()
            await actor.departures.aclose()
    assert [line["event"] for line in lines] == [
        "what is scheduled cannot be published", "what is scheduled is published again",
    ]  # fmt: skip


async def test_a_recall_that_is_not_confirmed_says_so_as_often_as_it_is_repeated(
    actor: Actor,
) -> None:
    scheduled = await actor.keep(FAR)
    actor.wait_for_replicas()
    for _ in range(2):
        with pytest.raises(DurabilityNotReached):
            await actor.schedule.recall(FEED, scheduled)
    actor.publishing.queue._tail = None
    assert await actor.schedule.recall(FEED, scheduled) is None


# --- whatever dies -------------------------------------------------------------------------------


class Story:
    """Nodes that schedule, recall, publish and die; what callers were told, and what came of it."""

    def __init__(self, url: str, prefix: str, seed: int) -> None:
        bounds = replace(BOUNDS, entries=1000)
        self.actors = [Actor(url, prefix, bounds) for _ in range(3)]
        self.random = random.Random(seed)
        self.feeds = [mailbox("a"), mailbox("b"), topic("t"), broadcast()]
        # By body: where it is, its id and its time, and what the recalls of it said.
        self.kept: dict[bytes, tuple[str, str, int]] = {}
        self.unknown: set[bytes] = set()
        self.recalled: dict[bytes, set[int | None]] = {}
        self.deaths = 0
        self.over = False

    async def backend(self, name: str) -> None:
        """Schedule one thing after the other, and take some back, at any time."""
        for number in range(25):
            actor = self.random.choice(self.actors)
            feed = self.random.choice(self.feeds)
            body = b'"data":"%s%d"}' % (name.encode(), number)
            at = actor.now() + self.random.choice((-100, 0, 20, 200, 400, 700))
            keeping = asyncio.ensure_future(
                actor.schedule.keep([Append(feed, body, at=at)], "backend")
            )
            if self.random.random() < 0.1:
                await self._dies(keeping)
            try:
                (result,) = await keeping
            except asyncio.CancelledError:
                self.unknown.add(body)
                continue
            kept = checked(result)
            self.kept[body] = (feed, kept.id, at)
            if self.random.random() < 0.4:
                await asyncio.sleep(max(0.0, (at - actor.now()) / 1000 + self.random.gauss(0, 0.1)))
                told = self.recalled.setdefault(body, set())
                for other in self.random.sample(self.actors, 2):
                    told.add(await other.schedule.recall(feed, kept.id))

    async def node(self, actor: Actor) -> None:
        """Publish what is due; now and then die in the middle of it, and begin anew."""
        while not self.over:
            turn = asyncio.ensure_future(actor.departures.turn())
            if self.random.random() < 0.3:
                await self._dies(turn)
            with contextlib.suppress(asyncio.CancelledError):
                await turn
            await asyncio.sleep(0.02)

    async def _dies(self, task: asyncio.Future[Any]) -> None:
        for _ in range(self.random.randrange(30)):
            await asyncio.sleep(0)
        if task.cancel():
            self.deaths += 1

    def logs(self) -> dict[bytes, list[tuple[str, int]]]:
        """Where each body is."""
        found: dict[bytes, list[tuple[str, int]]] = {}
        for feed in self.feeds:
            for entry_id, body in self.actors[0].log(feed):
                found.setdefault(body, []).append((feed, entry_id))
        return found

    def waiting(self) -> int:
        actor = self.actors[0]
        return sum(actor.redis.zcard(actor.keys.times(feed)) for feed in self.feeds)

    async def run(self) -> None:
        nodes = [asyncio.ensure_future(self.node(actor)) for actor in self.actors]
        await asyncio.gather(*map(self.backend, ("x", "y", "z")))
        async with asyncio.timeout(20):
            while self.waiting():
                await asyncio.sleep(0.02)
        self.over = True
        await asyncio.gather(*nodes)
        for actor in self.actors:
            await actor.finish()


@pytest.mark.parametrize("seed", [1, 2])
async def test_everything_is_out_once_or_recalled_however_many_try_and_die(
    valkey: EmbeddedServer, prefix: str, seed: int
) -> None:
    story = Story(valkey.url, prefix, seed)
    await story.run()
    logs = story.logs()
    late = []
    assert story.deaths > 5
    assert {None} in story.recalled.values(), "some were in time"
    assert any(None not in told for told in story.recalled.values()), "and some were not"
    for body, (feed, _, at) in story.kept.items():
        told = story.recalled.get(body, set())
        if None in told:
            assert told == {None}, "it was both"
            assert body not in logs
            continue
        ((where, entry_id),) = logs[body]
        assert where == feed
        assert told <= {entry_id}, "the recall named another one"
        assert ids.milliseconds(entry_id) >= at, "it was early"
        late.append(ids.milliseconds(entry_id) - at)
    for body in story.unknown:
        assert len(logs.get(body, [])) <= 1
    print(f"late by {sorted(late)[len(late) // 2]} ms, at most {max(late)}")  # noqa: T201
    assert max(late) < 10_000
    for actor in story.actors:
        actor.redis.close()
