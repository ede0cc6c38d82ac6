"""Topics, presence and the broadcast between real feeds and listeners that are no sockets."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from pushsvc import metrics
from pushsvc.errors import StoreUnavailable
from pushsvc.feeds.feed import AckKind, Acknowledgement, Appended
from pushsvc.feeds.nodes import Entry
from pushsvc.node import presence as presence_module
from pushsvc.node import turns as turns_module
from pushsvc.node.channel import Channel
from pushsvc.node.readings import Seen
from pushsvc.node.turns import PART, WORK_BYTES
from pushsvc.protocol import ids
from pushsvc.protocol.feeds import BROADCAST, topic
from pushsvc.protocol.notifications import Append
from pushsvc.protocol.session import Subscribe
from tests.support.dispatching import Held, Listener, Node, until

FEED = topic("t")


class Narrow(Listener):
    """One that takes so many bytes, and no more until it is emptied."""

    def __init__(self, number: int, room: int) -> None:
        super().__init__(number)
        self.room = room
        self.left = room

    def writable(self) -> bool:
        return self.open and self.left > 0

    def write(self, data: bytes) -> None:
        super().write(data)
        self.left -= len(data)

    def heard(self) -> list[Any]:
        return [json.loads(b'{"data":' + part) for part in _bodies(self.written)]


def _bodies(written: bytes) -> list[bytes]:
    return [part[: part.index(b"}") + 1] for part in written.split(b'"data":')[1:]]


async def append(node: Node, feed: str, body: bytes, **fields: Any) -> Appended:
    (result,), _ = await node.feeds.append([Append(feed, body, **fields)])
    assert isinstance(result, Appended)
    return result


async def narrow(node: Node, room: int) -> Narrow:
    listener = Narrow(900, room)
    node.dispatcher.start(listener, await node.dispatcher.join(listener), b"")
    return listener


def subscribe(node: Node, listener: Listener, name: str = "t") -> None:
    node.parts.topics.subscribe(listener, Subscribe({name: None}, many=False, ref=None))


def in_step(node: Node, listener: Listener, feed: str = FEED) -> Callable[[], bool]:
    def holds() -> bool:
        return any(
            listener in members
            for channel in node.parts.topics.members(feed)
            for members in channel.in_step.values()
        )

    return holds


class Answers:
    """Counts the bytes of the answers to ``subscribe``."""

    def __init__(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self._subscribe = node.feeds.subscribe
        monkeypatch.setattr(node.feeds, "subscribe", self._counting)

    def _counting(self, subscriptions: Any) -> asyncio.Future[list[Any]]:
        future = self._subscribe(subscriptions)
        future.add_done_callback(self._count)
        return future

    def _count(self, future: asyncio.Future[list[Any]]) -> None:
        for answer in future.result():
            self.sizes.append(sum(len(each) for each in answer if isinstance(each, bytes)))


# --- the state of a topic ------------------------------------------------------------------------


async def test_a_large_state_is_read_in_parts_and_each_value_once(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = "x" * 5000
    for number in range(100):
        await append(node, FEED, b'"data":["%s",%d]}' % (block.encode(), number),
                     collapse_key=f"k{number}")  # fmt: skip
    answers = Answers(node, monkeypatch)
    slow = await narrow(node, 20_000)
    subscribe(node, slow)
    async with asyncio.timeout(10):
        while slow.written.count(b'"data"') < 100 or not in_step(node, slow)():
            await asyncio.sleep(0.001)
            if slow.left <= 0:
                slow.left = slow.room
                node.dispatcher.drained(slow)
    assert [each["data"][1] for each in slow.heard()] == list(range(100))
    assert max(answers.sizes) < 300_000


async def test_what_is_published_while_a_newcomer_waits_for_the_state_follows_it(
    node: Node,
) -> None:
    for number in range(3):
        await append(node, FEED, b'"data":%d}' % number, collapse_key=f"k{number}")
    slow = await narrow(node, 1)
    subscribe(node, slow)
    await until(lambda: slow.left <= 0)
    for number, key in ((10, ""), (11, "k1"), (12, "")):
        result = await append(node, FEED, b'"data":%d}' % number, collapse_key=key)
        node.dispatcher.deliver(
            [Entry.of(FEED, result.id, result.previous, b'"data":%d}' % number)]
        )
    slow.left = 1_000_000
    node.dispatcher.drained(slow)
    await until(in_step(node, slow))
    # What was replaced while it waited is sent as what it is now.
    assert [each["data"] for each in slow.heard()] == [0, 1, 2, 10, 11, 12]


async def test_a_state_that_a_node_of_before_wrote_to_is_sent_as_it_is(node: Node) -> None:
    for number in range(3):
        await append(node, FEED, b'"data":%d}' % number, collapse_key=f"k{number}")
    replaced = await append(node, FEED, b'"data":10}')  # without its place in the order
    value = f'{ids.render(replaced.id)} 9999999999999 "data":10}}'
    node.redis.hset(node.keys.latest(FEED), "k0", value)
    node.redis.hdel(node.keys.cursors(FEED), "~ordered")  # which they do not write
    listener = await narrow(node, 1_000_000)
    subscribe(node, listener)
    await until(in_step(node, listener))
    assert [each["data"] for each in listener.heard()] == [1, 2, 10]


async def test_a_state_that_redis_lost_meanwhile_begins_anew(node: Node) -> None:
    for number in range(3):
        body = b'"data":["%s",%d]}' % (b"x" * 20_000, number)
        await append(node, FEED, body, collapse_key=f"k{number}")
    slow = await narrow(node, 1)
    subscribe(node, slow)
    await until(lambda: slow.left <= 0)
    assert slow.written.count(b'"data"') == 1
    keys = node.keys
    for key in (keys.log, keys.cursors, keys.latest, keys.order, keys.listeners):
        node.redis.delete(key(FEED))
    await append(node, FEED, b'"data":"anew"}', collapse_key="k0")
    slow.written, slow.left = b"", 1_000_000
    node.dispatcher.drained(slow)
    await until(lambda: b"anew" in slow.written)
    assert slow.written.count(b'"reset"') == 1
    assert slow.written.count(b'"data"') == 1


@pytest.mark.parametrize("kept", [0, 3])
async def test_a_state_that_is_being_read_as_the_node_stops_leaves_no_error(
    node: Node, monkeypatch: pytest.MonkeyPatch, *, kept: int
) -> None:
    for number in range(kept):
        body = b'"data":["%s",%d]}' % (b"x" * 20_000, number)
        await append(node, FEED, body, collapse_key=f"k{number}")
    slow = await narrow(node, 1)
    if kept:
        subscribe(node, slow)
        await until(lambda: slow.left <= 0)
    errors: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    stopped: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
    monkeypatch.setattr(node.feeds, "subscribe", lambda _: stopped)
    if kept:
        slow.left = 1_000_000
        node.dispatcher.drained(slow)
    else:
        subscribe(node, slow)
    stopped.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert not errors


# --- how many listen -----------------------------------------------------------------------------


class Shut:
    """A queue that takes nothing, or whose commands fail, until it is mended."""

    def __init__(self, node: Node, monkeypatch: pytest.MonkeyPatch, *, later: bool) -> None:
        self.refused = 0
        self._later = later
        self._patch = monkeypatch
        self._patch.setattr(node.feeds, "recount", self._recount)

    def _recount(self, *_: object) -> asyncio.Future[list[Any]]:
        self.refused += 1
        if not self._later:
            raise StoreUnavailable("cut", retry_after=1.0)
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        future.set_exception(StoreUnavailable("lost on the way", retry_after=1.0))
        return future

    def mend(self) -> None:
        self._patch.undo()


@pytest.mark.parametrize("later", [False, True])
async def test_a_count_that_was_not_written_is_written_with_a_later_tick(
    node: Node, monkeypatch: pytest.MonkeyPatch, *, later: bool
) -> None:
    listeners = await node.join(3)
    for each in listeners:
        subscribe(node, each)
    await until(in_step(node, listeners[-1]))
    shut = Shut(node, monkeypatch, later=later)
    node.parts.topics.unsubscribe(listeners[0], "t", None)
    node.dispatcher.tick()
    await asyncio.sleep(0)
    assert shut.refused == 2  # the topic's and the broadcast's
    shut.mend()
    node.dispatcher.tick()
    await until(lambda: node.redis.hgetall(node.keys.listeners(FEED)) == {"a": "2"})
    await until(lambda: node.redis.hgetall(node.keys.listeners(BROADCAST)) == {"a": "3"})


async def test_a_topic_that_is_left_while_the_counts_are_told_does_not_come_back(
    node: Node, held: Held
) -> None:
    (stays, goes), topics = await node.join(2), node.parts.topics
    names = [f"t{number}" for number in range(2 * PART)]
    for listener, some in ((stays, names[:PART]), (goes, names[PART:])):
        topics.subscribe(listener, Subscribe(dict.fromkeys(some), many=True, ref=None))
    await until(lambda: all(each.registered for name in names for each in members(node, name)))
    for name in names:
        topics._counts.forget(topic(name))  # it is to be told
    topics.tick()
    held.step()  # of those that stay
    goes.open = False
    node.dispatcher.left(goes)
    held.steps()
    await node.commands.one("PING")
    await until(lambda: not any(node.redis.exists(listeners_of(node, n)) for n in names[PART:]))
    assert all(node.redis.pttl(listeners_of(node, name)) > 0 for name in names[:PART])
    assert set(topics._counts._told) <= set(topics.feeds())


def members(node: Node, name: str) -> Sequence[Channel]:
    return node.parts.topics.members(topic(name))


def listeners_of(node: Node, name: str) -> str:
    return node.keys.listeners(topic(name))


# --- what waits ----------------------------------------------------------------------------------


async def to_topic(node: Node, data: int, name: str = "t") -> Entry:
    body = b'"topic":"%b","data":%d}' % (name.encode(), data)
    result = await append(node, topic(name), body)
    return Entry.of(topic(name), result.id, result.previous, body)


@pytest.mark.parametrize("before", ["nothing", "an entry", "what is ephemeral"])
async def test_an_entry_that_was_too_much_is_read_once_there_is_room(
    node: Node, held: Held, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    listeners = await node.join(3)
    for each in listeners:
        subscribe(node, each)
    subscribe(node, listeners[0], "other")
    await until(lambda: all(in_step(node, each)() for each in listeners))
    await until(in_step(node, listeners[0], topic("other")))
    held.hold()
    node.dispatcher.deliver([await to_topic(node, 0, "other")])
    expected = [1]
    if before == "an entry":
        node.dispatcher.deliver([await to_topic(node, 0)])
        expected = [0, 1]
    elif before == "what is ephemeral":
        node.dispatcher.deliver([Entry.of(FEED, 0, 0, b'"data":7}')])
        expected = [7, 1]
    monkeypatch.setattr(turns_module, "MOST_BYTES", 1)
    node.dispatcher.deliver([await to_topic(node, 1)])
    await node.commands.one("PING")
    assert all(heard(each) == [] for each in listeners[1:])
    held.let_go()
    await until(lambda: all(heard(each) == expected for each in listeners[1:]))


async def test_who_subscribes_again_is_told_no_id_that_it_was_not_sent(
    node: Node, held: Held
) -> None:
    listeners = await node.join(2 * PART)
    for each in listeners:
        subscribe(node, each)
    await until(lambda: all(in_step(node, each)() for each in listeners))
    first = await to_topic(node, 1)
    held.hold()
    node.dispatcher.deliver([first])
    held.step()  # to half of them
    assert sum(heard(each) == [1] for each in listeners) == PART
    again = Subscribe({"t": None}, many=False, ref=1)
    (waiting, *_) = [each for each in listeners if not heard(each)]
    node.parts.topics.subscribe(waiting, again)
    await until(lambda: waiting.sent)
    assert waiting.sent[-1]["last"] == ids.render(first.previous)
    held.let_go()
    await until(lambda: heard(waiting) == [1])
    node.parts.topics.subscribe(waiting, again)
    await until(lambda: len(waiting.sent) > 1)
    assert waiting.sent[-1]["last"] == ids.render(first.id)


async def test_one_that_joins_amid_a_fan_out_gets_it_once(node: Node, held: Held) -> None:
    listeners = await node.join(3 * PART)
    for each in listeners:
        subscribe(node, each)
    await until(lambda: all(in_step(node, each)() for each in listeners))
    held.hold()
    late: list[Listener] = []
    for data in range(3):
        node.dispatcher.deliver([await to_topic(node, data)])
        held.step()
        for _ in range(2):
            late.append(Listener(1000 + len(late)))
            node.dispatcher.start(late[-1], await node.dispatcher.join(late[-1]), b"")
            asked = Subscribe({"t": ids.START}, many=False, ref=None)
            node.parts.topics.subscribe(late[-1], asked)
        await node.commands.one("PING")
    held.let_go()
    await until(lambda: all(heard(each) == [0, 1, 2] for each in [*listeners, *late]))
    node.dispatcher.deliver([await to_topic(node, 3)])
    await until(lambda: all(heard(each) == [0, 1, 2, 3] for each in [*listeners, *late]))


# --- the broadcast -------------------------------------------------------------------------------


def reads() -> float:
    return sum(series.value for _, series in metrics.feed_reads.series())


async def broadcast(node: Node, data: int) -> Entry:
    body = b'"broadcast":true,"data":%d}' % data
    result = await append(node, BROADCAST, body)
    return Entry.of(BROADCAST, result.id, result.previous, body)


def heard(listener: Listener) -> list[Any]:
    return [json.loads(b'{"data":' + part)["data"] for part in _bodies(listener.written)]


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 1, 0), (2, 0, 1), (1,), (2,), (0, 2)])
async def test_copies_of_the_broadcast_that_are_lost_or_swapped_cost_no_read_each(
    node: Node, order: tuple[int, ...]
) -> None:
    listeners = await node.join(50)
    copies = [await broadcast(node, number) for number in range(3)]
    before = reads()
    for place in order:
        node.dispatcher.deliver([copies[place]])
    last = max(order)
    await until(lambda: all(len(heard(each)) > last for each in listeners))
    assert all(heard(each)[: last + 1] == list(range(last + 1)) for each in listeners)
    assert reads() - before <= 2  # one, and another where a copy came while it was under way
    node.dispatcher.deliver([await broadcast(node, 3)])
    await until(lambda: all(heard(each) == [0, 1, 2, 3] for each in listeners))


async def test_the_broadcast_is_read_again_where_the_read_failed(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    listeners = await node.join(3)
    await broadcast(node, 0)
    copy = await broadcast(node, 1)

    def fail(_: object) -> asyncio.Future[list[Any]]:
        raise StoreUnavailable("cut", retry_after=1.0)

    monkeypatch.setattr(node.feeds, "subscribe", fail)
    node.dispatcher.deliver([copy])
    await asyncio.sleep(0)
    assert all(heard(each) == [] for each in listeners)
    monkeypatch.undo()
    node.dispatcher.tick()
    await until(lambda: all(heard(each) == [0, 1] for each in listeners))


async def test_a_copy_that_redis_lost_since_is_not_read_for_again_and_again(node: Node) -> None:
    listeners = await node.join(3)
    first = await broadcast(node, 0)
    node.dispatcher.deliver([first])
    # Those that came in between were lost by a failover before they were read.
    before = reads()
    node.dispatcher.deliver([Entry.of(BROADCAST, first.id + 5, first.id + 4, b'"data":9}')])
    await node.commands.one("PING")
    for _ in range(3):
        node.dispatcher.tick()
        await node.commands.one("PING")
    assert reads() - before <= 1
    node.dispatcher.deliver([await broadcast(node, 1)])
    assert all(heard(each) == [0, 1] for each in listeners)


async def test_who_is_behind_the_node_reads_the_broadcast_for_itself(node: Node) -> None:
    slow = await narrow(node, 1)
    (quick,) = await node.join(1)
    for number in range(3):
        node.dispatcher.deliver([await broadcast(node, number)])
    assert (heard(slow), heard(quick)) == ([0], [0, 1, 2])
    slow.left = 1_000_000
    node.dispatcher.drained(slow)
    await until(lambda: heard(slow) == [0, 1, 2])


async def redelivered(node: Node, acked: int) -> Listener:
    """A listener, after a redelivery, whose other connection acknowledged some of three."""
    (listener,) = await node.join(1)
    copies = [await broadcast(node, number) for number in range(3)]
    node.dispatcher.deliver(copies)
    session = listener.session
    for copy in copies[:acked]:
        await node.feeds.ack(
            [Acknowledgement(session.cursor.feed, "phone", copy.id, AckKind.BROADCAST, "x.9")]
        )
    listener.written = b""
    session.broadcast.rewind(time.monotonic())
    node.dispatcher._broadcasts.redeliver(listener)  # as the dispatcher does
    await until(lambda: not session.broadcast.reading)
    return listener


async def test_what_another_connection_acknowledged_of_the_broadcast_does_not_come_again(
    node: Node,
) -> None:
    listener = await redelivered(node, 3)
    assert listener.written == b""
    assert listener.session.broadcast.unacked is None
    assert listener.session.broadcast.attempt == 1


async def test_what_nobody_acknowledged_of_the_broadcast_comes_again(node: Node) -> None:
    listener = await redelivered(node, 1)
    await until(lambda: heard(listener) == [1, 2])
    assert listener.written.count(b'"attempt":2') <= 2


async def test_a_redelivery_of_the_broadcast_waits_for_redis(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    (listener,) = await node.join(1)
    node.dispatcher.deliver([await broadcast(node, 0)])
    listener.session.broadcast.rewind(time.monotonic())
    listener.written = b""

    async def fail(*_: object) -> int:
        raise StoreUnavailable("cut", retry_after=1.0)

    monkeypatch.setattr(node.feeds, "broadcast_position", fail)
    node.dispatcher._broadcasts.redeliver(listener)  # as the dispatcher does
    await asyncio.sleep(0.01)
    assert listener.session.broadcast.reading
    monkeypatch.undo()
    node.dispatcher.tick()
    await until(lambda: heard(listener) == [0])
    assert listener.session.broadcast.acked == ids.START


# --- presence ------------------------------------------------------------------------------------


async def test_who_came_since_a_reading_does_not_leave_by_it(node: Node) -> None:
    (listener,), presence = await node.join(1), node.parts.presence
    subscribe(node, listener)
    presence.ask(listener, "t", 1, follows=True)
    await until(lambda: FEED in presence._followers and not presence._hinted)
    await until(lambda: not presence._tasks)
    me, told = listener.session.user, len(listener.sent)
    read = Seen(presence._known[FEED].turn + 1, 2, frozenset({me, "a"}))
    presence._learn(FEED, read.also("b"))
    # One that has waited for the reading is answered with what it saw.
    assert presence._learn(FEED, read).named == ["a", "b", me]
    presence._learn(FEED, read.also("b"))
    (change,) = listener.sent[told:]
    assert (change["joined"], change["left"]) == (["a", "b"], [])


async def test_of_what_waits_to_be_told_only_the_difference_is_kept(node: Node, held: Held) -> None:
    (listener,), presence = await node.join(1), node.parts.presence
    subscribe(node, listener)
    presence.ask(listener, "t", 1, follows=True)
    await until(lambda: FEED in presence._followers and not presence._hinted)
    await until(lambda: not presence._tasks)
    me, told = listener.session.user, len(listener.sent)
    known = presence._known[FEED]
    held.hold()
    for number in range(1, 500):
        here = frozenset({me, f"u{number}"})
        # Who asks meanwhile begins where those are that follow.
        assert presence._learn(FEED, Seen(known.turn + number, 2, here)) is known
    assert node.parts.turns._bytes <= WORK_BYTES
    # One that was overtaken.
    presence._learn(FEED, Seen(known.turn + 1, 1, frozenset({me})))
    held.let_go()
    await until(lambda: len(listener.sent) > told)
    (change,) = listener.sent[told:]
    assert (change["joined"], change["left"]) == (["u499"], [])


async def test_what_waits_to_be_told_is_forgotten_with_the_last_that_follows(
    node: Node, held: Held
) -> None:
    (listener,), presence = await node.join(1), node.parts.presence
    subscribe(node, listener)
    presence.ask(listener, "t", 1, follows=True)
    await until(lambda: FEED in presence._followers and not presence._hinted)
    await until(lambda: not presence._tasks)
    told, turn = len(listener.sent), presence._known[FEED].turn
    held.hold()
    presence._learn(FEED, Seen(turn + 1, 1, frozenset({"a"})))
    node.parts.topics.unsubscribe(listener, "t", None)
    held.let_go()
    await until(lambda: not node.parts.turns.busy(f"presence {FEED}"))
    assert len(listener.sent) == told
    assert not presence._news
    assert not presence._known


def present(node: Node, feed: str = FEED) -> set[str]:
    return {str(field) for field in node.redis.hkeys(node.keys.present(feed))}


async def test_the_people_of_many_topics_are_written_down_again_in_small_batches(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    submit = node.commands.submit

    def measured(commands: Any, decode: Any = None) -> asyncio.Future[list[Any]]:
        sizes.append(len(commands))
        return submit(commands, decode)

    monkeypatch.setattr(presence_module, "BATCH", 10)
    monkeypatch.setattr(node.commands, "submit", measured)
    presence = node.parts.presence
    names = [topic(f"t{number}") for number in range(95)]
    for name in names:
        presence.came(name, "u")
    await until(lambda: all(present(node, name) for name in names))
    for name in names:
        node.redis.delete(node.keys.present(name))
    presence.reassert()
    presence.left(names[-1], "u")  # before its turn comes
    presence._leaving.clear()  # its time has passed
    await until(lambda: all(present(node, name) for name in names[:-1]))
    await until(lambda: not presence._tasks)
    assert not present(node, names[-1])
    assert max(sizes) <= 10


async def test_the_people_of_dead_nodes_are_removed_though_nobody_asks(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = node.parts.presence._leases
    await leases.renew("a", take=True)
    await leases.renew("a", take=False)
    monkeypatch.setattr(presence_module, "REASSERT", 0.0)
    (listener,) = await node.join(1)
    subscribe(node, listener)
    await node.feeds.present([(FEED, "dead", ["u1", "u2"], [])])
    assert {"dead u1", "dead u2"} <= present(node)

    def clean() -> bool:
        node.parts.presence._reassert_at = 0.0
        node.dispatcher.tick()
        return present(node) == {"a u0"}

    await until(clean)
