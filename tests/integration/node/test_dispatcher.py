"""A hub between real feeds and listeners that are no sockets."""

import asyncio
from typing import Any

import pytest

from pushsvc.errors import StoreUnavailable, Unavailable
from pushsvc.feeds.feed import Acknowledgement, Appended
from pushsvc.feeds.nodes import ControlMessage, Entry
from pushsvc.node.registrations import BATCH
from pushsvc.protocol import ids
from pushsvc.protocol.feeds import BROADCAST
from pushsvc.protocol.notifications import Append
from pushsvc.protocol.session import Acked
from tests.support.dispatching import POLICY, Listener, Node, rejoin, until
from tests.support.hubs import session_of


async def test_who_leaves_while_a_node_registers_anew_is_not_registered(node: Node) -> None:
    listeners = await node.join(2 * BATCH + 10)
    rejoining = asyncio.create_task(rejoin(node, "b"))
    await asyncio.sleep(0)
    leaving = [listeners[BATCH + 1], listeners[-1]]
    for listener in leaving:
        listener.open = False
        node.dispatcher.left(listener)
    await rejoining
    await node.commands.one("PING")
    stay = [each for each in listeners if each not in leaving]
    assert node.registered() == {node.dispatcher.connection_id(each) for each in stay}


async def test_everyone_is_registered_under_the_new_id_and_under_no_other(node: Node) -> None:
    listeners = await node.join(5)
    assert node.registered() == {f"a.{n:x}" for n in range(5)}
    await rejoin(node, "b")
    assert node.registered() == {node.dispatcher.connection_id(each) for each in listeners}
    assert node.registered() == {f"b.{n:x}" for n in range(5)}


async def test_a_registration_that_could_not_be_removed_holds_up_no_other(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await node.join(2)

    def refuse(_leaves: object) -> None:
        raise StoreUnavailable("cut", retry_after=1.0)

    with monkeypatch.context() as patch:
        patch.setattr(node.feeds, "leave", refuse)
        node.dispatcher.left(first)
        await asyncio.sleep(0)
    node.dispatcher.left(second)
    await asyncio.sleep(0)
    await node.commands.one("PING")
    assert node.registered() == {node.dispatcher.connection_id(first)}
    node.dispatcher.tick()
    await node.commands.one("PING")
    assert node.registered() == set()


class Cut:
    """Reads of the feeds that fail, at once or after a while."""

    def __init__(self, node: Node, monkeypatch: pytest.MonkeyPatch, *, later: bool) -> None:
        self.count = 0
        self._later = later
        self._patch = monkeypatch
        self._patch.setattr(node.feeds, "read", self._read)

    def _read(self, *_: object) -> asyncio.Future[list[Any]]:
        self.count += 1
        if not self._later:
            raise StoreUnavailable("cut", retry_after=1.0)
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        future.set_exception(StoreUnavailable("lost on the way", retry_after=1.0))
        return future

    def mend(self) -> None:
        self._patch.undo()


@pytest.mark.parametrize("later", [False, True])
async def test_a_read_that_fails_is_tried_again_with_each_tick(
    node: Node, monkeypatch: pytest.MonkeyPatch, *, later: bool
) -> None:
    (listener,) = await node.join(1)
    feed = listener.session.cursor.feed
    await node.feeds.append([Append(feed, b'"data":"first"}')])
    (result,), _ = await node.feeds.append([Append(feed, b'"data":"second"}')])
    assert isinstance(result, Appended)
    cut = Cut(node, monkeypatch, later=later)
    # The copy of the first was lost, so the second is read from the feed.
    node.dispatcher.deliver([Entry.of(feed, result.id, result.previous, b'"data":"second"}')])
    await until(lambda: cut.count == 1)
    await asyncio.sleep(0)
    node.dispatcher.tick()
    await until(lambda: cut.count == 2)
    await asyncio.sleep(0)
    cut.mend()
    assert listener.written == b""
    node.dispatcher.tick()
    await until(lambda: b"second" in listener.written)
    assert b"first" in listener.written


async def test_what_another_connection_acknowledged_makes_room_in_the_window(node: Node) -> None:
    (listener,) = await node.join(1)
    cursor = listener.session.cursor
    appended = []
    for number in range(POLICY.window + 1):
        (result,), _ = await node.feeds.append([Append(cursor.feed, b'"data":%d}' % number)])
        assert isinstance(result, Appended)
        appended.append(result)
        body = b'"data":%d}' % number
        node.dispatcher.deliver([Entry.of(cursor.feed, result.id, result.previous, body)])
    last = b'"data":%d}' % POLICY.window
    assert last not in listener.written
    await node.feeds.ack([Acknowledgement(cursor.feed, "phone", appended[4].id)])
    values = ["phone", ids.render(appended[4].id), ""]
    node.dispatcher.control(ControlMessage("acked", cursor.feed, ["laptop", *values[1:]]))
    assert cursor.acked == ids.START
    node.dispatcher.control(ControlMessage("acked", cursor.feed, values))
    assert cursor.acked == appended[4].id
    await until(lambda: last in listener.written)


async def test_a_withdrawal_is_told_to_who_was_sent_the_entry_and_once(node: Node) -> None:
    told, behind = await node.join(2)
    cursor = told.session.cursor
    entry = 5 << 64
    node.dispatcher.deliver([Entry.of(cursor.feed, entry, ids.START, b'"data":1}')])
    for listener in (told, behind):
        feed = listener.session.cursor.feed
        node.dispatcher.control(ControlMessage("withdrawn", feed, ["5-0", "recalled"]))
    assert told.sent == [{"type": "withdrawn", "id": "5-0", "reason": "recalled"}]
    assert cursor.unacked is None
    assert behind.sent == []


async def test_a_withdrawal_makes_room_in_the_window(node: Node) -> None:
    (listener,) = await node.join(1)
    feed = listener.session.cursor.feed
    sent = []
    for number in range(POLICY.window + 1):
        body = b'"data":%d}' % number
        (result,), _ = await node.feeds.append([Append(feed, body)])
        assert isinstance(result, Appended)
        sent.append(result.id)
        node.dispatcher.deliver([Entry.of(feed, result.id, result.previous, body)])
    last = b'"data":%d}' % POLICY.window
    assert last not in listener.written
    node.dispatcher.control(ControlMessage("withdrawn", feed, [ids.render(sent[0]), "recalled"]))
    await until(lambda: last in listener.written)


async def test_a_device_that_comes_back_is_not_sent_what_it_acknowledged_a_moment_before(
    node: Node,
) -> None:
    (listener,) = await node.join(1)
    cursor = listener.session.cursor
    sent = []
    for number in range(2):
        body = b'"data":%d}' % number
        (result,), _ = await node.feeds.append([Append(cursor.feed, body)])
        assert isinstance(result, Appended)
        node.dispatcher.deliver([Entry.of(cursor.feed, result.id, result.previous, body)])
        sent.append(result.id)
    for entry_id in sent:
        assert cursor.ack(entry_id, 0.0)
        node.dispatcher.acked(listener, Acked(cursor, entry_id, None, moved=True))
        await asyncio.sleep(0)  # the first is on its way to Redis, and the second waits for that
    node.dispatcher.left(listener)
    again = Listener(1)
    again.session = session_of("u0", "phone")
    backlog = await node.dispatcher.join(again)
    assert (again.session.cursor.feed, backlog.entries) == (cursor.feed, [])


# --- the broadcast -------------------------------------------------------------------------------


async def broadcast(node: Node, data: int) -> Entry:
    """Append to the broadcast; the copy for the node."""
    body = b'"broadcast":true,"data":%d}' % data
    (result,), _ = await node.feeds.append([Append(BROADCAST, body)])
    assert isinstance(result, Appended)
    return Entry.of(BROADCAST, result.id, result.previous, body)


def listening(node: Node) -> dict[str, str]:
    return {str(k): str(v) for k, v in node.redis.hgetall(node.keys.listeners(BROADCAST)).items()}


async def test_the_node_listens_to_the_broadcast_for_everyone(node: Node) -> None:
    await node.join(3)
    node.dispatcher.tick()
    await until(lambda: listening(node) == {"a": "3"})


async def test_everyone_is_sent_what_is_broadcast_and_who_missed_something_reads_it(
    node: Node,
) -> None:
    listeners = await node.join(3)
    node.dispatcher.deliver([await broadcast(node, 1)])
    assert all(b'"data":1' in each.written for each in listeners)
    await broadcast(node, 2)  # its copy is lost
    node.dispatcher.deliver([await broadcast(node, 3)])
    await until(lambda: all(b'"data":3' in each.written for each in listeners))
    for each in listeners:
        assert each.written.count(b'"data":') == 3
        assert b'"data":2' in each.written


async def test_a_broadcast_whose_only_copy_was_lost_is_found_by_the_sweep(node: Node) -> None:
    listeners = await node.join(2)
    await broadcast(node, 1)
    node.dispatcher.sweep_soon()
    node.dispatcher.tick()
    await until(lambda: all(b'"data":1' in each.written for each in listeners))


async def test_a_registration_for_the_broadcast_that_was_lost_is_made_again(node: Node) -> None:
    (listener,) = await node.join(1)
    node.dispatcher.deliver([await broadcast(node, 1)])
    node.redis.delete(node.keys.listeners(BROADCAST))
    await broadcast(node, 2)
    node.dispatcher.sweep_soon()
    node.dispatcher.tick()
    await until(lambda: b'"data":2' in listener.written)
    assert set(listening(node)) == {"a"}


async def test_a_node_renamed_while_it_registers_is_registered_under_its_new_id(
    node: Node,
) -> None:
    joining = asyncio.create_task(node.join(1))
    await asyncio.sleep(0)
    await rejoin(node, "b")
    (listener,) = await joining
    assert "b" in listening(node)
    assert node.registered() == {node.dispatcher.connection_id(listener)}


async def test_who_was_never_here_is_not_owed_what_was_broadcast_before(node: Node) -> None:
    await node.join(1)
    node.dispatcher.deliver([await broadcast(node, 1)])
    late = Listener(7)
    node.dispatcher.start(late, await node.dispatcher.join(late), b"")
    assert late.written == b""
    node.dispatcher.deliver([await broadcast(node, 2)])
    assert late.written.count(b'"data":') == 1


async def test_a_device_that_returns_is_sent_what_was_broadcast_meanwhile(node: Node) -> None:
    (listener,) = await node.join(1)
    listener.open = False
    node.dispatcher.left(listener)
    node.dispatcher.deliver([await broadcast(node, 1)])
    (again,) = await node.join(1)
    await until(lambda: b'"data":1' in again.written)
    assert b'"broadcast":true' in again.written


async def test_a_copy_that_was_overtaken_by_its_withdrawal_is_not_delivered(node: Node) -> None:
    (listener,) = await node.join(1)
    feed = listener.session.cursor.feed
    node.dispatcher.control(ControlMessage("withdrawn", feed, ["5-0", "acked"]))
    node.dispatcher.deliver([Entry.of(feed, 5 << 64, 0, b'"data":1}')])
    assert listener.written == b""
    node.dispatcher.deliver([Entry.of(feed, 6 << 64, 5 << 64, b'"data":2}')])
    assert b'"id":"6-0"' in listener.written
    assert listener.session.cursor.unacked == [6 << 64]


async def test_an_answer_that_is_older_than_a_withdrawal_does_not_bring_it_back(
    node: Node,
) -> None:
    (listener,) = await node.join(1)
    feed = listener.session.cursor.feed
    appended, _ = await node.feeds.append([Append(feed, b'"data":1}')])
    assert isinstance(appended[0], Appended)
    entry_id = appended[0].id
    node.dispatcher.deliver([Entry.of(feed, entry_id, 7, b"")])  # out of step: it is read
    node.dispatcher.control(ControlMessage("withdrawn", feed, [ids.render(entry_id), "recalled"]))
    await until(lambda: listener.session.cursor.sent == entry_id)
    assert listener.written == b""


async def test_what_any_device_settles_is_known_where_the_user_is(node: Node) -> None:
    (listener,) = await node.join(1)
    shared = node.dispatcher._acks._shared
    node.dispatcher.control(ControlMessage("shared", "u:elsewhere", ["5-0"]))
    assert not shared
    feed = listener.session.cursor.feed
    node.dispatcher.control(ControlMessage("shared", feed, ["5-0"]))
    assert shared == {feed: 5 << 64}


async def test_a_control_message_of_a_kind_that_is_not_known_is_passed_over(node: Node) -> None:
    # What an older node does with what a newer one sends.
    node.dispatcher.control(ControlMessage("invented later", "u:u0", ["x"]))
    node.dispatcher.control(ControlMessage("invented later", "", []))


async def test_a_node_whose_registrations_are_all_refused_is_not_done(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A server that fails over takes the commands and refuses each.
    (listener,) = await node.join(1)
    subscribe = node.feeds.subscribe

    def refused(subscriptions: Any) -> asyncio.Future[list[Any]]:
        future = asyncio.get_running_loop().create_future()
        future.set_result([StoreUnavailable("failing over")] * len(list(subscriptions)))
        return future

    monkeypatch.setattr(node.feeds, "subscribe", refused)
    with pytest.raises(Unavailable):
        await rejoin(node, "b")
    assert list(node.parts.identity.former) == ["a"], "they are still to be removed"
    monkeypatch.setattr(node.feeds, "subscribe", subscribe)
    await node.dispatcher.register_again()
    assert node.registered() == {node.dispatcher.connection_id(listener)}
    assert not node.parts.identity.former
