"""Asking the nodes, on a real server: who answers, who does not, and what stays behind."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import cast

import pytest

from pushsvc.admin.trace import MOST_ALSO, PLACES, QUESTION, TraceQuery, within_namespace
from pushsvc.feeds.event_log import Answer, EventLog, Seen
from pushsvc.feeds.feed import Bounds
from pushsvc.feeds.nodes import ControlMessage, Inbox, Kind, Leases, Outbox, unpack_control
from pushsvc.feeds.summaries import SILENT, Summaries, Summary
from pushsvc.feeds.trace_answers import TraceAnswers
from pushsvc.protocol import ids
from pushsvc.server.embedded import EmbeddedServer
from pushsvc.store.blocking import BlockingConnection
from pushsvc.store.topology import connector
from tests.support.nodes import wait_until
from tests.support.store import FEED, Store

PATIENCE = 0.3

Answers = Callable[[int, str | None], Answer]


class World:
    """A feed, and nodes that are nothing but an inbox and something that answers."""

    def __init__(self, url: str, prefix: str) -> None:
        self.url = url
        self.store = Store(url, prefix, Bounds(100, 3600, 100))
        commands = self.store.commands
        self.answers = TraceAnswers(commands)
        self.leases = Leases(commands, 10)
        self.outbox = Outbox(commands)
        self.own = EventLog(10)
        self.summaries = Summaries(commands, 10)
        self.traces = TraceQuery(
            self.answers, self.leases, self.summaries, self.outbox, self.own, PATIENCE
        )
        self.asked: list[tuple[str, list[str]]] = []
        """Who was asked, with what besides the id."""
        self.tasks: list[asyncio.Task[None]] = []

    async def node(self, name: str, answer: Answers | None) -> None:
        """A live node; without an answer it is silent."""
        reading = BlockingConnection(connector(self.url)(10))
        inbox = Inbox(reading, self.store.commands, name, 10)
        await inbox.open()
        await self.leases.renew(name, take=True)
        if answer is None:
            await inbox.aclose()
        else:
            self.tasks.append(asyncio.create_task(self._answer(name, inbox, answer)))

    async def _answer(self, name: str, inbox: Inbox, answer: Answers) -> None:
        while True:
            for kind, packet in await inbox.read():
                if kind is Kind.CONTROL:
                    notice = unpack_control(packet)
                    assert notice.kind == QUESTION
                    question, entry_id, *more = notice.values
                    self.asked.append((name, more))
                    found = answer(ids.parse(entry_id), notice.feed or None)
                    self.answers.put(question, name, found)

    async def heard_of(self, name: str, seconds_ago: float) -> None:
        """A node said something of itself, this long ago."""
        await self.leases.fetch_live()
        at = round(1000 * (self.leases.redis_time() - seconds_ago))
        self.summaries.tell(Summary(name, time=at))
        await self.store.commands.one("PING")

    def left(self) -> list[str]:
        """The answers that nobody took."""
        return list(self.store.redis.scan_iter(self.store.keys.answer("*", "*"), count=10_000))

    def keys(self) -> set[str]:
        """All keys of this test."""
        return set(self.store.redis.scan_iter(f"{self.store.keys.prefix}:*", count=10_000))

    async def aclose(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.outbox.aclose()
        await self.store.aclose()


@pytest.fixture
async def world(valkey: EmbeddedServer, prefix: str) -> AsyncIterator[World]:
    made = World(valkey.url, prefix)
    yield made
    await made.aclose()


def nothing(_entry_id: int, _feed: str | None) -> Answer:
    return Answer([], [], None)


def knows(node: str, *feeds: str) -> Answers:
    """A node that was the one to accept whatever is asked for, in these feeds."""

    def answer(_entry_id: int, feed: str | None) -> Answer:
        return Answer(
            [Seen(1.0, "accepted", each, node) for each in feeds if feed in (None, each)], [], None
        )

    return answer


async def test_all_live_nodes_are_asked_and_the_silent_ones_named(world: World) -> None:
    sent = await world.store.publish('"data":1}')
    await world.node("n1", knows("n1", FEED))
    await world.node("n2", nothing)
    await world.node("n3", None)
    found = await world.traces.trace(sent, FEED)
    assert {node: answer is not None for node, answer in found.answers.items()} == {
        "n1": True,
        "n2": True,
        "n3": False,
    }
    assert found.entry is not None
    assert found.entry.body == b'"data":1}'
    assert found.steps[0].node == "n1"


async def test_several_feeds_with_one_id_are_told_the_first_mailbox_in_full(world: World) -> None:
    sent = await world.store.publish()
    await world.node("n1", knows("n1", "t:news", "u:zoe", FEED))
    found = await world.traces.trace(sent, None)
    assert found.feed == FEED
    assert list(found.also) == ["u:zoe", "t:news"]


async def test_what_has_that_id_in_another_namespace_is_not_told(world: World) -> None:
    feeds = ["u:acme/u1", "t:acme/t", "b:other/", "t:t", "b"]
    await world.node("n1", knows("n1", *feeds))
    for namespace, expected in (
        ("acme", ["u:acme/u1", "t:acme/t"]),
        ("other", ["b:other/"]),
        ("", ["b", "t:t"]),
        ("none", [None]),
    ):
        found = await world.traces.trace(1 << 64, None, namespace)
        assert [found.feed, *found.also] == expected
        # Nodes are told which, so that they tell of nothing else; those of before pass over it.
        name, more = world.asked[-1 if found.feed is None else -2]
        assert (name, more) == ("n1", [within_namespace(namespace)])


async def test_the_other_feeds_with_that_id_are_bounded(world: World) -> None:
    sent = await world.store.publish()
    await world.node("n1", knows("n1", *(f"u:user-{n:03d}" for n in range(3 * MOST_ALSO))))
    found = await world.traces.trace(sent, None)
    assert len(found.also) == MOST_ALSO


async def test_who_asks_need_be_no_node_and_tells_what_it_accepted_itself(world: World) -> None:
    sent = await world.store.publish()
    at = ids.milliseconds(sent) / 1000
    world.own.add((at, "accepted", FEED, sent, "op", "memory", 0, (), ""))
    found = await world.traces.trace(sent, None)
    assert found.feed == FEED
    assert found.steps[0].by == "op"


async def test_the_acks_and_what_is_before_it_are_read_from_the_feed(world: World) -> None:
    store = world.store
    await store.join("n9.1", "tv")
    await store.join("n9.2", "phone")
    await store.publish()
    await store.publish()
    sent = await store.publish()
    await store.publish()
    await store.ack("phone", sent)
    found = await world.traces.trace(sent, FEED)
    offline, acked = sorted(found.devices, key=lambda each: each.status, reverse=True)
    assert (acked.device, acked.status) == ("phone", "acked")
    assert acked.time is not None
    assert acked.time >= ids.milliseconds(sent)
    assert (offline.device, offline.status) == ("tv", "offline")
    assert offline.why.endswith("after 2 others")


async def test_what_a_receipt_will_tell_is_told_here_too(world: World) -> None:
    sent = await world.store.publish(collapse_key="score", receipt="shop")
    await world.store.publish(collapse_key="score")
    found = await world.traces.trace(sent, FEED)
    assert found.status == "gone"
    assert found.steps[-1].what == "replaced"
    assert "a newer one with its collapse key took its place" in found.note


async def test_an_answer_of_another_version_is_as_good_as_none(world: World) -> None:
    sent = await world.store.publish()
    store, keys = world.store.redis, world.store.keys

    def unreadable(_entry_id: int, _feed: str | None) -> Answer:
        return cast(Answer, {"seen": "something else"})

    await world.node("n1", unreadable)
    await world.node("n2", knows("n2", FEED))
    found = await world.traces.trace(sent, FEED)
    assert found.answers["n1"] is None
    assert found.answers["n2"] is not None
    assert "n1" in found.note
    assert store.keys(keys.answer("*", "*")) == []


async def test_a_mailbox_that_never_was_is_said_to_be_that(world: World) -> None:
    found = await world.traces.trace(await world.store.publish(), "u:nobody")
    assert found.status == "unknown"
    assert "Nothing was published there" in found.note


async def test_a_thousand_questions_leave_no_key_behind(world: World) -> None:
    await world.node("n1", nothing)
    before = world.keys()
    for first in range(0, 1000, 100):
        asked = (world.traces.trace(1 + first + n, FEED) for n in range(100))
        for found in await asyncio.gather(*asked):
            assert found.status == "unknown"
    # An answer that came too late, as on a busy machine, ends by itself.
    await asyncio.to_thread(wait_until, lambda: world.keys() == before, "all answers to be gone")


async def test_an_answer_that_comes_too_late_is_gone_in_seconds(world: World) -> None:
    world.answers.put("q", "n1", Answer([], [], None))
    await world.store.commands.one("PING")
    (key,) = world.left()
    assert 0 < world.store.redis.pttl(key) <= 10_000


async def test_a_node_that_does_not_answer_costs_the_wait_for_one_answer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = await world.store.publish()
    await world.node("n1", knows("n1", FEED))
    await world.node("n2", None)
    asked: list[str] = []
    notify = world.outbox.notify

    def note(node: str, message: ControlMessage) -> None:
        asked.append(node)
        notify(node, message)

    monkeypatch.setattr(world.outbox, "notify", note)
    began = time.monotonic()
    found = await world.traces.trace(sent, None)
    assert time.monotonic() - began >= PATIENCE
    assert asked == ["n1", "n2", "n1"]
    assert (found.feed, found.unasked) == (FEED, [])
    assert "Did not answer in time, so what they did is missing here: n2." in found.note


@pytest.mark.parametrize("feed", [FEED, None])
async def test_a_node_that_seems_to_be_dead_is_not_waited_for(
    world: World, feed: str | None
) -> None:
    sent = await world.store.publish()
    await world.node("n1", knows("n1", FEED))
    await world.node("n2", None)
    await world.heard_of("n1", 1)
    await world.heard_of("n2", SILENT + 1)
    world.traces._patience = 1000.0  # who waits for it does not come to an end
    async with asyncio.timeout(60):
        found = await world.traces.trace(sent, feed)
    assert found.feed == FEED
    assert found.unasked == ["n2"]
    assert found.answers["n2"] is None
    assert "seem to be dead: n2." in found.note
    assert "Did not answer" not in found.note


async def test_an_id_that_nobody_knows_names_the_node_that_was_not_asked(world: World) -> None:
    await world.node("n1", None)
    await world.heard_of("n1", SILENT + 1)
    found = await world.traces.trace(1, None)
    assert (found.status, found.unasked) == ("unknown", ["n1"])
    assert "seem to be dead: n1." in found.note


async def test_a_journal_is_searched_once_for_a_trace(world: World) -> None:
    sent = await world.store.publish()

    def once(_entry_id: int, feed: str | None) -> Answer:
        seen = [Seen(1.0, "accepted", each, "n1") for each in (FEED, "t:news")]
        return Answer(seen if feed is None else [], [], None)

    await world.node("n1", once)
    found = await world.traces.trace(sent, None)
    assert world.asked == [("n1", [within_namespace("")]), ("n1", [PLACES])]
    assert (found.steps[0].what, found.steps[0].node) == ("accepted", "n1")
    answer = found.answers["n1"]
    assert answer is not None
    assert [each.feed for each in answer.seen] == [FEED]
