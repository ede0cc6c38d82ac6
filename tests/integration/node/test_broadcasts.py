"""The broadcasts of a node, one for each namespace, on a real server."""

import asyncio
from typing import Any

import pytest

from pushsvc.errors import StoreUnavailable, checked
from pushsvc.feeds.nodes import Entry
from pushsvc.node import broadcasts as module
from pushsvc.protocol.feeds import broadcast
from pushsvc.protocol.notifications import Append
from tests.support.dispatching import Listener, Node, rejoin, until

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
