"""The inbox of the Python client, against real nodes."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from pushsvc.client import (
    AsyncPublisher,
    Client,
    Closed,
    Inbox,
    Mark,
    Marked,
    Notification,
    Publisher,
    Refused,
    Snapshot,
    Timing,
    Unavailable,
    connect,
)
from pushsvc.server.embedded import EmbeddedServer
from tests.support.nodes import Node, nodes, publisher_token, token

SOON = Timing(first=0.05, longest=0.2, uptime=0.5)


@pytest.fixture(scope="module")
def pair(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    with nodes(2, valkey.url, tmp_path_factory.mktemp("inbox"), mailbox_max=200) as both:
        yield both


@pytest.fixture(scope="module")
def node(pair: list[Node]) -> Node:
    return pair[0]


@asynccontextmanager
async def opened(url: str, user: str, **options: Any) -> AsyncIterator[Client]:
    async with connect(url, token=token(user), timing=SOON, **options) as client:
        yield client


async def shows(inbox: Inbox, wanted: Callable[[Snapshot], bool], what: str) -> Snapshot:
    """What an inbox shows once that is as it should be."""
    last: Snapshot | None = None
    try:
        async with asyncio.timeout(15):
            async for last in inbox:
                if wanted(last):
                    return last
    except TimeoutError:
        pass
    raise AssertionError(f"waited for: {what}; it shows {last}")


async def ready(inbox: Inbox) -> Snapshot:
    return await shows(inbox, lambda now: now.state == "ready", "a list")


def data_of(snapshot: Snapshot) -> list[Any]:
    return [item.data for item in snapshot.items]


def read_of(snapshot: Snapshot) -> list[Any]:
    return [item.data for item in snapshot.items if item.read]


async def publish(node: Node, user: str, *data: Any, **fields: Any) -> list[str]:
    def each() -> list[str]:
        return [node.publish(user, value, **fields) for value in data]

    return await asyncio.to_thread(each)


async def test_what_is_changed_in_one_inbox_is_seen_in_the_other(
    pair: list[Node], user: str
) -> None:
    one, two, three = await publish(pair[0], user, 1, 2, 3)
    async with (
        opened(pair[0].url, user, device="phone") as phone,
        opened(pair[1].url, user, device="web") as web,
    ):
        here, there = phone.inbox(), web.inbox()
        for inbox in (here, there):
            now = await ready(inbox)
            assert (data_of(now), now.unread, now.more) == ([3, 2, 1], 3, False)
        await here.read(one)
        assert (here.snapshot().unread, read_of(here.snapshot())) == (2, [1])
        await shows(there, lambda now: (now.unread, read_of(now)) == (2, [1]), "what was read")
        await there.archive([two])
        assert (data_of(there.snapshot()), there.snapshot().unread) == ([3, 1], 1)
        await shows(here, lambda now: (now.unread, data_of(now)) == (1, [3, 1]), "the archived")
        await here.unarchive([two])
        for inbox in (here, there):
            await shows(inbox, lambda now: read_of(now) == [2, 1], "one that came back, as read")
        await there.unread([one])
        await shows(here, lambda now: (now.unread, read_of(now)) == (2, [2]), "an unread one")
        await here.read_all()
        await shows(there, lambda now: now.unread == 0, "all to be read")
        (four,) = await publish(pair[1], user, 4)
        for inbox in (here, there):
            now = await shows(inbox, lambda now: now.unread == 1, "a new one")
            assert data_of(now) == [4, 3, 2, 1]
        await there.read(until=three)
        assert there.snapshot().unread == 1
        await there.read(until=four)
        await shows(here, lambda now: now.unread == 0, "all to be read again")


async def test_what_is_recalled_settled_expired_or_for_another_device_is_not_missed(
    pair: list[Node], user: str
) -> None:
    async with (
        opened(pair[0].url, user, device="phone") as phone,
        AsyncPublisher(pair[1].url, token=publisher_token()) as backend,
    ):
        loop = asyncio.create_task(drain(phone))
        inbox = phone.inbox()
        await ready(inbox)
        (one,) = await publish(pair[1], user, 1)
        await shows(inbox, lambda now: data_of(now) == [1] and now.unread == 1, "one")
        await backend.recall(one, user=user)
        await shows(inbox, lambda now: data_of(now) == [] and now.unread == 0, "none")
        await publish(pair[1], user, 2, to={"user": user, "device": "web"})
        await shows(inbox, lambda now: data_of(now) == [2] and now.unread == 1, "another's")
        await publish(pair[1], user, 3, ttl=2)
        await shows(inbox, lambda now: data_of(now) == [3, 2], "a short one")
        await shows(inbox, lambda now: data_of(now) == [2] and now.unread == 1, "it is over")
        await publish(pair[1], user, 4, deliver="any-device")
        await shows(inbox, lambda now: data_of(now) == [2] and now.unread == 1, "settled")
        loop.cancel()


async def drain(client: Client) -> None:
    async for _ in client:
        pass


async def test_all_is_what_the_inbox_lists(node: Node, user: str) -> None:
    for event in ("a", "b") * 3:
        await publish(node, user, event, event=event)
    async with opened(node.url, user) as client:
        inbox, events = client.inbox(), client.inbox(event="a", page_size=1)
        await client.inbox(archived=True).read_all()
        await ready(events)
        assert (await ready(inbox)).unread == 6
        await events.read_all()
        assert read_of(inbox.snapshot()) == ["a"] * 3
        await client.inbox(page_size=3).read_all()
        await shows(inbox, lambda now: now.unread == 0, "all to be read")


async def test_as_many_are_shown_after_a_reconnect_and_many_are_marked_at_once(
    node: Node, user: str
) -> None:
    await publish(node, user, *range(130))
    async with opened(node.url, user) as client:
        inbox = client.inbox(page_size=100)
        await ready(inbox)
        await inbox.load_more()
        every = [item.id for item in inbox.snapshot().items]
        assert len(every) == 130
        await inbox.refresh()
        assert len(inbox.snapshot().items) == 130
        await inbox.read([*every[:100], *(f"{n}-1" for n in range(1, 1500)), *every[100:]])
        assert inbox.snapshot().unread == 0


async def test_a_loop_over_the_client_is_told_what_was_marked_elsewhere(
    node: Node, user: str
) -> None:
    (one,) = await publish(node, user, 1)
    async with (
        opened(node.url, user, ack="manual") as client,
        AsyncPublisher(node.url, token=publisher_token()) as backend,
    ):
        messages = aiter(client)
        first = await anext(messages)
        assert isinstance(first, Notification)
        assert (first.inbox, first.read) == (True, False)
        assert await backend.read(user, [one]) == 0
        told = await asyncio.wait_for(anext(messages), 15)
        assert isinstance(told, Marked)
        assert (told.mark, told.unread) == (Mark("read", (one,)), 0)
    async with opened(node.url, user) as client:
        again = await asyncio.wait_for(anext(aiter(client)), 15)
        assert isinstance(again, Notification)
        assert again.read, "it was read, and not acknowledged"


async def test_an_inbox_needs_no_other_loop_and_acknowledges_what_it_shows(
    node: Node, user: str
) -> None:
    async with opened(node.url, user, device="bell") as client:
        inbox = client.inbox(page_size=100)
        await ready(inbox)
        ids = await publish(node, user, *range(90))  # more than a window of them
        now = await shows(inbox, lambda now: now.unread == 90, "all of them")
        assert [item.id for item in now.items] == ids[::-1]
    async with AsyncPublisher(node.url, token=publisher_token()) as backend:
        (newest,) = [kept async for kept in backend.history(user, limit=1)]
    assert [each.device for each in newest.acked] == ["bell"]
    assert not newest.read


async def test_once_the_inbox_is_closed_nothing_is_acknowledged_that_nobody_took(
    node: Node, user: str
) -> None:
    await publish(node, user, 1)
    async with opened(node.url, user) as client:
        inbox = client.inbox()
        await ready(inbox)
        inbox.close()
        await publish(node, user, 2, 3)
        messages = aiter(client)
        taken = await asyncio.wait_for(anext(messages), 15)
        assert isinstance(taken, Notification)
        while taken.data != 3:  # the first one was, or was not, acknowledged in time
            taken = await asyncio.wait_for(anext(messages), 15)
            assert isinstance(taken, Notification)
    async with opened(node.url, user) as client:
        again = await asyncio.wait_for(anext(aiter(client)), 15)
        assert isinstance(again, Notification)
        assert again.data == 3


async def test_with_an_inbox_the_loop_of_a_program_is_given_all_the_same(
    node: Node, user: str
) -> None:
    seen: list[Any] = []

    async def handle(client: Client) -> None:
        async for message in client:
            if isinstance(message, Notification):
                seen.append(message.data)  # noqa: PERF401 - as it comes

    await publish(node, user, *range(5))
    async with opened(node.url, user) as client:
        handling = asyncio.create_task(handle(client))
        inbox = client.inbox()
        await publish(node, user, *range(5, 10))
        await shows(inbox, lambda now: now.unread == 10, "all of them")
        async with asyncio.timeout(15):
            while len(seen) < 10:
                await asyncio.sleep(0.01)
    await handling
    assert seen == list(range(10))


async def test_older_ones_come_page_by_page_and_all_who_ask_share_one_request(
    node: Node, user: str
) -> None:
    await publish(node, user, *range(7))
    async with opened(node.url, user) as client:
        inbox = client.inbox(page_size=3)
        assert client.inbox(page_size=3) is inbox
        now = await ready(inbox)
        assert (data_of(now), now.more, now.unread) == ([6, 5, 4], True, 7)
        await asyncio.gather(*(inbox.load_more() for _ in range(5)))
        assert data_of(inbox.snapshot()) == [6, 5, 4, 3, 2, 1]
        await inbox.refresh()
        assert data_of(inbox.snapshot()) == [6, 5, 4, 3, 2, 1]
        await inbox.load_more()
        assert data_of(inbox.snapshot()) == list(range(6, -1, -1))
        assert not inbox.snapshot().more
        await inbox.load_more()


async def test_an_inbox_of_one_event_and_one_of_what_is_archived(node: Node, user: str) -> None:
    one, two = await publish(node, user, 1, 2, event="a")
    await publish(node, user, 3, event="b")
    await publish(node, user, "signal", event="a", inbox=False)
    async with opened(node.url, user) as client:
        mine, archived = client.inbox(event="a"), client.inbox(archived=True)
        now = await ready(mine)
        assert (data_of(now), now.unread) == ([2, 1], 3)
        assert data_of(await ready(archived)) == []
        await mine.archive(two)
        assert data_of(mine.snapshot()) == [1]
        now = await shows(archived, lambda now: data_of(now) == [2], "the archived one")
        assert now.items[0].archived
        assert now.items[0].read
        await archived.unarchive(two)
        await shows(mine, lambda now: data_of(now) == [2, 1], "what came back")
        await mine.read([one, two])
        assert mine.snapshot().unread == archived.snapshot().unread == 1


async def test_what_expires_or_is_recalled_is_counted_no_more(node: Node, user: str) -> None:
    (recalled,) = await publish(node, user, "recalled")
    await publish(node, user, "short", ttl=3)
    await publish(node, user, "long")
    async with opened(node.url, user) as client:
        inbox = client.inbox()
        assert (await ready(inbox)).unread == 3
        async with AsyncPublisher(node.url, token=publisher_token()) as backend:
            await backend.recall(recalled, user=user)
        await shows(inbox, lambda now: now.unread == 1, "one that has expired")
        await shows(inbox, lambda now: data_of(now) == ["long"], "what is left")


async def test_what_is_collapsed_goes_from_the_list(node: Node, user: str) -> None:
    await publish(node, user, "other")
    async with opened(node.url, user) as client:
        inbox = client.inbox()
        await ready(inbox)
        for number in range(3):
            await publish(node, user, number, collapse_key="k")
        now = await shows(inbox, lambda now: data_of(now) == [2, "other"], "the newest alone")
        assert now.unread == 2


async def test_after_a_kill_it_shows_what_has_changed_meanwhile(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    with nodes(2, valkey.url, tmp_path, prefix=prefix, lease_seconds=2) as (mortal, other):
        ids = await publish(other, "u1", 1, 2, 3)
        async with opened(mortal.url, "u1") as client:
            inbox = client.inbox()
            await ready(inbox)
            await asyncio.to_thread(mortal.kill)
            await shows(inbox, lambda now: now.state == "offline", "the loss")
            marking = asyncio.create_task(inbox.read(ids[0]))  # waits for a connection
            await shows(inbox, lambda now: read_of(now) == [1], "what is asked for")
            async with AsyncPublisher(other.url, token=publisher_token()) as backend:
                assert await backend.archive("u1", [ids[1]]) == 2
                await backend.publish(user="u1", data=4)
            await asyncio.to_thread(mortal.start)
            await asyncio.wait_for(marking, 30)
            now = await shows(
                inbox, lambda now: data_of(now) == [4, 3, 1] and now.state == "ready", "the rest"
            )
            assert (read_of(now), now.unread) == ([1], 2)


async def test_what_is_refused_is_taken_back_and_told(node: Node, user: str) -> None:
    await publish(node, user, 1)
    async with opened(node.url, user) as client:
        inbox = client.inbox()
        await ready(inbox)
        with pytest.raises(ValueError, match="one of them"):
            await inbox.read("1-0", until="2-0")
        with pytest.raises(Refused) as refused:
            await inbox.read("99999999999999999999-1")
        assert refused.value.code == "invalid"
        assert (await ready(inbox)).unread == 1
        await inbox.read([])  # nothing


async def test_an_inbox_that_is_closed_ends_its_loops_and_another_one_can_be_had(
    node: Node, user: str
) -> None:
    async with opened(node.url, user) as client:
        inbox = client.inbox()
        await ready(inbox)
        looping = asyncio.create_task(shows(inbox, lambda _: False, "the end"))
        await asyncio.sleep(0)
        inbox.close()
        inbox.close()
        with pytest.raises(AssertionError, match="waited for: the end"):
            await looping
        for call in (inbox.read("1-0"), inbox.refresh(), inbox.load_more()):
            with pytest.raises(Closed):
                await call
        other = client.inbox()
        assert other is not inbox
        await ready(other)
    assert [now async for now in other] == []
    with pytest.raises(Closed):
        client.inbox()


async def test_the_end_of_the_client_is_told_to_who_looks_at_its_inbox() -> None:
    client = connect("http://127.0.0.1:1", token="t", timing=SOON, patience=0.2)
    async with client:
        inbox = client.inbox()
        await shows(inbox, lambda now: now.state == "offline", "no connection")
        with pytest.raises(Unavailable):
            await shows(inbox, lambda now: now.state == "ready", "what never comes")
        with pytest.raises(Unavailable):
            await inbox.refresh()


NOTE = {
    "id": "5-0",
    "time": "2026-01-31T09:00:00.000Z",
    "expires": "2100-01-31T09:00:00.000Z",
    "data": 1,
    "acked": [],
}


async def test_who_waits_for_older_ones_is_told_that_the_inbox_was_closed() -> None:
    asked = 0

    def lists(_: str) -> tuple[int, Any]:
        nonlocal asked
        asked += 1
        if asked > 1:
            return 503, {"detail": "not now"}
        return 200, {"notifications": [NOTE], "next": "5-0", "unread": 1}

    async with scripted(lists) as url, connect(url, token="t", timing=SOON) as client:
        inbox = client.inbox(page_size=1)
        await ready(inbox)
        calls = (inbox.load_more(), inbox.refresh(), inbox.load_more())
        waiting = [asyncio.create_task(each) for each in calls]
        async with asyncio.timeout(15):
            while asked < 2:
                await asyncio.sleep(0.01)
        inbox.close()
        for each in waiting:
            with pytest.raises(Closed):
                await asyncio.wait_for(each, 15)


@asynccontextmanager
async def scripted(lists: Callable[[str], tuple[int, Any]]) -> AsyncIterator[str]:
    """The address of a service that welcomes, and answers lists, by their token, as it likes."""

    async def welcome(socket: ServerConnection) -> None:
        await socket.send(json.dumps({"type": "welcome", "connection": "c", "user": "u1"}))
        await socket.wait_closed()

    def listed(socket: ServerConnection, request: Request) -> Response | None:
        if not request.path.startswith("/v1/user/notifications?user=u1&"):
            return None
        status, value = lists(request.headers["Authorization"].removeprefix("Bearer "))
        return socket.respond(HTTPStatus(status), json.dumps(value))

    async with serve(welcome, "127.0.0.1", 0, process_request=listed) as server:
        yield f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


async def test_a_node_that_keeps_no_read_state_is_told_as_an_error() -> None:
    async with (
        scripted(lambda _: (200, {"notifications": [], "next": None})) as url,
        connect(url, token="t", timing=SOON) as client,
    ):
        inbox = client.inbox()
        now = await shows(inbox, lambda now: now.state == "error", "the error")
        assert "upgrade it" in str(now.error)
        with pytest.raises(Refused):
            await inbox.refresh()


async def test_a_list_that_is_refused_for_its_token_is_asked_for_with_a_new_one() -> None:
    told: list[bool] = []

    def provide(refused: bool) -> str:  # noqa: FBT001 - as the client calls it
        told.append(refused)
        return f"t{len(told)}"

    def lists(auth: str) -> tuple[int, Any]:
        if auth == "t1":
            return 401, {"type": "urn:pushsvc:problem:invalid_token", "detail": "expired"}
        return 200, {"notifications": [], "next": None, "unread": 7}

    async with scripted(lists) as url, connect(url, token=provide, timing=SOON) as client:
        assert (await ready(client.inbox())).unread == 7
        await client.inbox().refresh()
    assert told == [False, True]


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
async def test_a_backend_marks_and_lists_what_it_asks_for(node: Node, user: str, kind: str) -> None:
    one, two, three = await publish(node, user, 1, 2, 3, event="a")
    (other,) = await publish(node, user, "other", event="b")
    if kind == "asyncio":
        async with AsyncPublisher(node.url, token=publisher_token()) as publisher:
            signal = await publisher.publish(user=user, data="signal", inbox=False)
            assert await publisher.read(user, [one]) == 3
            assert await publisher.archive(user, until=two) == 2
            assert await publisher.unarchive(user, [two]) == 2
            assert await publisher.unread(user, one) == 3
            assert await publisher.read(user) == 3
            page = await publisher.page(user, unread=True)
            found = [each.id async for each in publisher.history(user, event="a", inbox=True)]
            await publisher.archive(user, [three])
            gone = [each async for each in publisher.history(user, archived=True)]
            whole = [each.inbox async for each in publisher.history(user, archived="any")]
    else:

        def call() -> Any:
            with Publisher(node.url, token=publisher_token()) as publisher:
                signal = publisher.publish(user=user, data="signal", inbox=False)
                assert publisher.read(user, [one]) == 3
                assert publisher.archive(user, until=two) == 2
                assert publisher.unarchive(user, [two]) == 2
                assert publisher.unread(user, one) == 3
                assert publisher.read(user) == 3
                page = publisher.page(user, unread=True)
                found = [each.id for each in publisher.history(user, event="a", inbox=True)]
                publisher.archive(user, [three])
                gone = list(publisher.history(user, archived=True))
                whole = [each.inbox for each in publisher.history(user, archived="any")]
                return signal, page, found, gone, whole

        signal, page, found, gone, whole = await asyncio.to_thread(call)
    assert signal.id is not None
    assert page.unread == 3
    assert [each.id for each in page.notifications] == [other, three, one]
    assert found == [three, two, one]
    assert [(each.id, each.read, each.archived) for each in gone] == [(three, True, True)]
    assert whole == [False, True, True, True, True]
