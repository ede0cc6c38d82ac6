"""The broadcasts of a node, one for each namespace, on a real server."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from pushsvc.errors import StoreUnavailable, checked
from pushsvc.feeds.nodes import Entry
from pushsvc.node import broadcasts as module
from pushsvc.node import turns as turns_module
from pushsvc.node.turns import PART
from pushsvc.protocol.feeds import broadcast
from pushsvc.protocol.notifications import Append
from pushsvc.server.embedded import EmbeddedServer
from tests.support.dispatching import Held, Listener, Node, rejoin, until

SPACES = ("", "acme", "other")


async def tell(node: Node, namespace: str, data: str) -> Entry:
    """Publish to all of a namespace; what goes to the inboxes."""
    feed = broadcast(namespace)
    body = b'"broadcast":true,"data":"%b"}' % data.encode()
    (result,), _ = await node.feeds.append([Append(feed, body)])
    appended: Any = checked(result)
    return Entry.of(feed, appended.id, appended.previous, body)


def has(listener: Listener, *data: str) -> bool:
    return [text in listener.written for text in (f'"{each}"'.encode() for each in data)] == [
        True
    ] * len(data)


def registered(node: Node, namespace: str) -> dict[str, str]:
    found: dict[str, str] = node.redis.hgetall(node.keys.listeners(broadcast(namespace)))  # type: ignore[assignment]
    return found


async def test_what_is_told_to_all_of_a_namespace_reaches_no_other(node: Node) -> None:
    here = {namespace: await node.join(2, namespace) for namespace in SPACES}
    for namespace in SPACES:
        node.dispatcher.deliver([await tell(node, namespace, f"to {namespace}")])
        assert registered(node, namespace)
    for namespace, listeners in here.items():
        for each in listeners:
            assert [has(each, f"to {other}") for other in SPACES] == [
                other == namespace for other in SPACES
            ]
    node.dispatcher.deliver([Entry.of(broadcast("acme"), 0, 0, b'"data":"now"}')])
    assert [has(here[namespace][0], "now") for namespace in SPACES] == [False, True, False]


async def test_an_entry_that_was_lost_on_the_way_is_found_in_its_namespace(node: Node) -> None:
    (ours,), (theirs,) = await node.join(1, "acme"), await node.join(1, "other")
    await tell(node, "acme", "lost")
    node.dispatcher.deliver([await tell(node, "acme", "seen")])
    await until(lambda: has(ours, "lost", "seen"))
    await tell(node, "acme", "swept")
    node.dispatcher.sweep_soon()

    def swept() -> bool:
        node.dispatcher.tick()
        return has(ours, "swept")

    await until(swept)
    assert not theirs.written


async def test_after_a_lapse_each_broadcast_is_registered_under_the_new_id(node: Node) -> None:
    for namespace in SPACES:
        await node.join(1, namespace)
    await rejoin(node, "b")
    for namespace in SPACES:
        await until(lambda: list(registered(node, namespace)) == ["b"])  # noqa: B023 - at once


async def test_a_broadcast_goes_some_time_after_the_last_of_its_namespace_and_comes_again(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    (default,), listeners = await node.join(1), await node.join(2, "acme")
    for each in (default, *listeners):
        each.open = False
        node.dispatcher.left(each)
    node.dispatcher.tick()
    node.dispatcher.tick()
    assert node.parts.broadcasts.feeds() == [broadcast(), broadcast("acme")]
    monkeypatch.setattr(module, "LINGER", 0.0)
    node.dispatcher.tick()
    assert node.parts.broadcasts.feeds() == [broadcast()]
    await until(lambda: not registered(node, "acme"))
    assert registered(node, "")
    missed = await tell(node, "acme", "missed")
    node.dispatcher.deliver([missed])  # a publisher may not know yet that nobody is here
    (again,) = await node.join(1, "acme")
    await until(lambda: has(again, "missed"))  # the device was here before
    node.dispatcher.tick()
    await until(lambda: registered(node, "acme") == {"a": "1"})


async def test_a_broadcast_stays_while_someone_waits_to_be_registered(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINGER", 0.0)
    joining = [asyncio.create_task(node.join(1, "acme")) for _ in range(3)]
    while not all(each.done() for each in joining):
        node.dispatcher.tick()
        await asyncio.sleep(0)
    ((one,), *_) = [each.result() for each in joining]
    node.dispatcher.tick()
    node.dispatcher.deliver([await tell(node, "acme", "here")])
    assert has(one, "here")


async def test_one_namespace_that_cannot_be_registered_keeps_no_other_out(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscribe = node.feeds.subscribe

    def refuse(wanted: Any) -> Any:
        wanted = list(wanted)
        if any(feed == broadcast("acme") for feed, *_ in wanted):
            raise StoreUnavailable("cut", retry_after=1.0)
        return subscribe(wanted)

    monkeypatch.setattr(node.feeds, "subscribe", refuse)
    with pytest.raises(StoreUnavailable):
        await node.join(1, "acme")
    assert await node.join(1, "other")
    monkeypatch.undo()
    assert await node.join(1, "acme")


# --- amid what goes to many ----------------------------------------------------------------------


async def test_one_that_joins_amid_a_broadcast_is_not_owed_it_and_gets_all_that_follows(
    node: Node, held: Held
) -> None:
    listeners = await node.join(3 * PART)
    held.hold()
    # One is under way, one waits.
    node.dispatcher.deliver([await tell(node, "", "a"), await tell(node, "", "b")])
    held.step()
    assert sum(has(each, "a") for each in listeners) == PART
    late = Listener(1000)
    node.dispatcher.start(late, await node.dispatcher.join(late), b"")
    held.let_go()
    node.dispatcher.deliver([await tell(node, "", "c")])
    await until(lambda: all(has(each, "a", "b", "c") for each in listeners) and has(late, "c"))
    assert b'"a"' not in late.written
    assert b'"b"' not in late.written
    for each in listeners:
        assert each.written.count(b'"data":') == 3


async def test_a_device_that_returns_amid_a_broadcast_gets_it_once(node: Node, held: Held) -> None:
    listeners = await node.join(3 * PART)
    node.dispatcher.deliver([await tell(node, "", "before")])
    await until(lambda: all(has(each, "before") for each in listeners))
    held.hold()
    node.dispatcher.deliver([await tell(node, "", "a"), await tell(node, "", "b")])
    held.step()
    gone = listeners[-1]
    gone.open = False
    node.dispatcher.left(gone)
    back = Listener(gone.number)
    node.dispatcher.start(back, await node.dispatcher.join(back), b"")
    held.let_go()
    await until(lambda: has(back, "before", "a", "b"))
    await until(lambda: all(has(each, "a", "b") for each in listeners[:-1]))
    assert back.written.count(b'"data":') == 3
    assert not has(gone, "a")


async def test_what_comes_while_what_was_read_waits_is_not_taken_for_lost(
    node: Node, held: Held
) -> None:
    (listener,) = await node.join(1)
    await tell(node, "", "lost on the way")
    held.hold()
    node.dispatcher.deliver([await tell(node, "", "a")])
    held.step()  # the node finds out that it lacks one, and reads
    await until(lambda: node.parts.turns.busy(broadcast("")))
    node.dispatcher.deliver([await tell(node, "", "b")])
    held.let_go()
    await until(lambda: has(listener, "lost on the way", "a", "b"))
    assert b"reset" not in listener.written
    assert listener.written.count(b'"data":') == 3


async def test_a_broadcast_that_was_too_much_is_read_once_there_is_room(
    node: Node, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    listeners = await node.join(3)
    held.hold()
    monkeypatch.setattr(turns_module, "MOST_BYTES", 0)
    node.dispatcher.deliver([await tell(node, "", "a")])
    held.step()
    await node.commands.one("PING")
    assert not any(has(each, "a") for each in listeners)
    monkeypatch.setattr(turns_module, "MOST_BYTES", 1)
    held.let_go()
    await until(lambda: all(has(each, "a") for each in listeners))


async def test_a_node_that_stops_amid_a_fan_out_sends_no_more_of_it(
    valkey: EmbeddedServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(valkey.url, prefix)
    held = Held(node, monkeypatch)
    listeners = await node.join(3 * PART)
    held.hold()
    node.dispatcher.deliver([await tell(node, "", "a"), await tell(node, "", "b")])
    held.step()
    node.dispatcher.sweep_soon()
    node.dispatcher.tick()
    held.let_go()
    written = [each.written for each in listeners]
    assert sum(map(bool, written)) == PART
    with capture_logs() as logged:
        await node.aclose()
        for _ in range(10):
            await asyncio.sleep(0)
    assert [each.written for each in listeners] == written
    assert not node.parts.turns.busy(broadcast(""))
    assert logged == []
