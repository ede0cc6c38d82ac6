"""Long polling: the same messages for who can do nothing but ask."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from pushsvc.server.embedded import EmbeddedServer
from tests.support.backend import problem, publish, publish_all
from tests.support.nodes import Node, nodes, token
from tests.support.raw import Raw
from tests.support.topics import Member, member, tell, tell_all, tell_everyone, wide

pytestmark = pytest.mark.promise

WINDOW = 10


@pytest.fixture(scope="module")
def pair(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    with nodes(
        2, valkey.url, tmp_path_factory.mktemp("poll"), prefix="poll", ack_window=WINDOW,
        max_connections_per_user=3, rate_messages_per_second=1000, rate_burst=2000,
    ) as both:  # fmt: skip
        yield both


@pytest.fixture(scope="module")
def node(pair: list[Node]) -> Node:
    return pair[0]


@pytest.fixture
def topic(user: str) -> str:
    """A topic that no other test uses."""
    return f"room.{user}"


class Poller:
    """A device that asks.

    Args:
        user: the user id.
        device: the device.
        auth: its token.
    """

    def __init__(self, user: str, device: str = "phone", auth: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {auth or member(user)}"}
        self.client = httpx.AsyncClient(headers=headers, timeout=30)
        self.device = device
        self.position = ""

    async def ask(
        self, node: Node, *topics: str, wait: float = 5, **query: str
    ) -> list[dict[str, Any]]:
        """One request; the messages."""
        answer = await self.get(node, *topics, wait=wait, **query)
        assert answer.status_code == 200, answer.text
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["Cache-Control"] == "no-store"
        body = answer.json()
        assert set(body) == {"messages", "position", "unread"}
        self.position = body["position"]
        messages: list[dict[str, Any]] = body["messages"]
        return messages

    async def get(self, node: Node, *topics: str, wait: float, **query: str) -> httpx.Response:
        arguments: dict[str, Any] = {"device": self.device, "wait": f"{wait:g}", **query}
        if self.position:
            arguments["after"] = self.position
        if topics:
            arguments["topic"] = list(topics)
        return await self.client.get(f"{node.url}/v1/poll", params=arguments)

    async def ack(self, node: Node, notification_id: str, **fields: Any) -> str:
        body = {"device": self.device, "id": notification_id, **fields}
        answer = await self.client.post(f"{node.url}/v1/ack", json=body)
        assert answer.status_code == 200, answer.text
        position: str = answer.json()["acked"]
        return position


@pytest.fixture
async def poller(user: str) -> AsyncIterator[Poller]:
    poller = Poller(user)
    yield poller
    await poller.client.aclose()


def data(messages: list[dict[str, Any]]) -> list[Any]:
    assert all(message["type"] == "notification" for message in messages), messages
    return [message["data"] for message in messages]


# --- when it is answered -------------------------------------------------------------------------


async def test_what_waits_is_answered_at_once(node: Node, user: str, poller: Poller) -> None:
    sent = await publish_all(node, user, range(3))
    started = time.monotonic()
    messages = await poller.ask(node, wait=20)
    assert time.monotonic() - started < 5
    assert [message["id"] for message in messages] == sent
    assert poller.position.startswith(f"u={sent[-1]},b=")


async def test_a_poll_waits_for_what_comes(pair: list[Node], user: str, poller: Poller) -> None:
    asking = asyncio.create_task(poller.ask(pair[0], wait=20))
    await asyncio.sleep(0.5)
    assert not asking.done()
    sent = await publish(pair[1], user, 1)
    async with asyncio.timeout(15):  # it would wait for longer
        (note,) = await asking
    assert note["id"] == sent


async def test_a_poll_that_waits_in_vain_is_answered_with_its_place(
    node: Node, user: str, poller: Poller
) -> None:
    started = time.monotonic()
    assert await poller.ask(node, user, wait=0.5) == []
    assert 0.4 < time.monotonic() - started < 3
    place = poller.position
    assert {part.split("=")[0] for part in place.split(",")} == {"u", "b", f"t:{user}"}
    assert await poller.ask(node, user, wait=0.5) == []
    assert poller.position == place


async def test_a_poll_that_does_not_wait_is_told_all_there_is(
    pair: list[Node], user: str, topic: str, poller: Poller
) -> None:
    async def all_there_is() -> list[Any]:
        found: list[Any] = []
        while messages := await poller.ask(pair[0], topic, wait=0):
            found += data(messages)
        return found

    await tell(pair[1], topic, "state", collapse_key="k")
    assert await all_there_is() == ["state"]
    assert await all_there_is() == []
    await publish(pair[1], user, "mail")
    await tell(pair[1], topic, "topic")
    await tell_everyone(pair[1], "all")
    assert sorted(await all_there_is()) == ["all", "mail", "topic"]
    assert await all_there_is() == []


async def test_a_draining_node_answers_who_waits(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str, user: str, poller: Poller
) -> None:
    with nodes(2, valkey.url, tmp_path, prefix=prefix, drain_seconds=1) as pair:
        asking = asyncio.create_task(poller.ask(pair[0], wait=30))
        await connected(pair[1], user)
        started = time.monotonic()
        stopping = asyncio.create_task(asyncio.to_thread(pair[0].stop))
        assert await asking == []
        assert time.monotonic() - started < 20  # it would wait for longer
        await stopping
        sent = await publish(pair[1], user, 1)
        (note,) = await poller.ask(pair[1])
        assert note["id"] == sent


async def connected(node: Node, user: str, *, online: bool = True) -> None:
    """Wait until a user is connected, or is not."""
    headers = {"Authorization": f"Bearer {token(user)}"}
    async with httpx.AsyncClient() as client, asyncio.timeout(5):
        while True:
            answer = await client.get(f"{node.url}/v1/users/{user}/presence", headers=headers)
            if answer.json()["online"] is online:
                return
            await asyncio.sleep(0.01)


async def test_a_client_that_goes_is_forgotten_at_once(node: Node, user: str) -> None:
    head = (
        f"GET /v1/poll?wait=30&topic={user} HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {member(user)}\r\n\r\n"
    )
    for _ in range(4):  # more than the user may hold at once
        with Raw(node) as peer:
            peer.send(head.encode())
            await connected(node, user)
        await connected(node, user, online=False)
    for _ in range(5):  # gone before it was let in
        with Raw(node) as peer:
            peer.send(head.encode())
    await connected(node, user, online=False)


# --- going on ------------------------------------------------------------------------------------


async def test_polls_one_after_another_lose_nothing_and_repeat_nothing(
    pair: list[Node], user: str, topic: str, poller: Poller
) -> None:
    topics = [topic + ".a", topic + ".b"]
    kinds = [*topics, "mail", "all"]
    counts = dict.fromkeys(kinds, 0)
    stop = asyncio.Event()

    async def publisher(kind: str) -> None:
        node = pair[kinds.index(kind) % 2]
        while not stop.is_set():
            body = [kind, counts[kind], user]
            if kind == "mail":
                await publish(node, user, body)
            elif kind == "all":
                await tell_everyone(node, body)
            else:
                await tell(node, kind, body)
            counts[kind] += 1

    assert await poller.ask(pair[0], *topics, wait=0) == []
    publishers = [asyncio.create_task(publisher(kind)) for kind in kinds]
    seen: dict[str, list[int]] = {kind: [] for kind in kinds}
    until = time.monotonic() + 3
    asked = 0
    messages: list[dict[str, Any]] = []
    while not stop.is_set() or messages:
        if time.monotonic() > until:
            stop.set()
            await asyncio.gather(*publishers)
        messages = await poller.ask(pair[asked % 2], *topics, wait=0.5)
        for kind, n, mark in data(messages):
            if mark == user:
                seen[kind].append(n)
        asked += 1
    assert seen == {kind: list(range(counts[kind])) for kind in kinds}
    assert asked > 10


async def test_without_a_position_what_is_not_acked_comes_again(
    node: Node, user: str, poller: Poller
) -> None:
    sent = await publish_all(node, user, range(3))
    first = await poller.ask(node)
    poller.position = ""
    assert await poller.ask(node) == first
    assert await poller.ack(node, sent[1]) == sent[1]
    poller.position = ""
    assert await poller.ask(node) == first[2:]
    assert await poller.ack(node, sent[2]) == sent[2]
    poller.position = ""
    assert await poller.ask(node, wait=0.2) == []


async def test_one_answer_holds_a_window(node: Node, user: str, poller: Poller) -> None:
    sent = await publish_all(node, user, range(25))
    got = []
    for size in (WINDOW, WINDOW, 5):
        messages = await poller.ask(node)
        assert len(messages) == size
        got += [message["id"] for message in messages]
    assert got == sent


async def test_a_topic_that_is_left_out_once_is_begun_anew(
    node: Node, topic: str, poller: Poller
) -> None:
    await poller.ask(node, topic, wait=0)
    await tell(node, topic, 1)
    await poller.ask(node, wait=0)
    assert topic not in poller.position
    assert await poller.ask(node, topic, wait=0) == []  # now on, as for a newcomer


async def test_an_answer_is_of_bounded_size_and_the_rest_is_in_the_next(
    node: Node, topic: str, poller: Poller
) -> None:
    await poller.ask(node, topic, wait=0)
    for part in range(3):
        await tell_all(node, topic, [[part * 10 + n, "x" * 50_000] for n in range(10)])
    got: list[int] = []
    asked = 0
    while len(got) < 30:
        messages = await poller.ask(node, topic)
        assert len(messages) <= 8
        got += [n for n, _ in data(messages)]
        asked += 1
    assert got == list(range(30))
    assert asked >= 4


async def test_what_was_trimmed_is_told_once(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str, poller: Poller
) -> None:
    with nodes(1, valkey.url, tmp_path, prefix=prefix, mailbox_max=5) as (node,):
        await poller.ask(node, "t", wait=0)
        sent = await tell_all(node, "t", range(20))
        poller.position += f",t:t={sent[0]}"
        gap, *notes = await poller.ask(node, "t")
        assert gap == {"type": "gap", "topic": "t", "after": sent[0], "reason": "trimmed"}
        assert data(notes) == list(range(15, 20))
        assert await poller.ask(node, "t", wait=0.2) == []


async def test_what_is_ephemeral_reaches_who_waits(node: Node, topic: str, poller: Poller) -> None:
    await poller.ask(node, topic, wait=0)
    asking = asyncio.create_task(poller.ask(node, topic, wait=10))
    while (await tell(node, topic, "now", ephemeral=True))["connections"] == 0:
        await asyncio.sleep(0.05)
    (note,) = await asking
    assert note["ephemeral"] is True
    assert await poller.ask(node, topic, wait=0.1) == []


async def test_who_polls_a_topic_is_at_it(pair: list[Node], topic: str, poller: Poller) -> None:
    async with Member(pair[1], "other") as phone:
        await phone.subscribe(topic)
        await phone.ask(type="presence", topic=topic)
        for visit in range(3):
            await poller.ask(pair[0], topic, wait=0.7)
            if not visit:
                message = await phone.receive()
                assert (message["type"], message["left"]) == ("presence", [])
                assert len(message["joined"]) == 1
        await phone.silent()  # who comes again within moments was never away


# --- who may -------------------------------------------------------------------------------------


async def test_a_poll_needs_a_token(node: Node, user: str) -> None:
    address = f"{node.url}/v1/poll"
    async with httpx.AsyncClient() as client:
        problem(await client.get(address), 401, "invalid_token")
        headers = {"Authorization": f"Bearer {token(user)}"}
        answer = await client.get(address, params={"topic": "a"}, headers=headers)
        problem(answer, 403, "forbidden")
        headers["Origin"] = "https://evil.example"
        problem(await client.get(address, headers=headers), 403, "origin_refused")


async def test_a_ticket_is_good_for_one_poll(node: Node, poller: Poller) -> None:
    answer = await poller.client.post(f"{node.url}/v1/tickets")
    query = {"ticket": answer.json()["ticket"], "wait": "0"}
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{node.url}/v1/poll", params=query)).status_code == 200
        problem(await client.get(f"{node.url}/v1/poll", params=query), 401, "invalid_token")


async def test_polls_count_as_connections_of_their_user(
    pair: list[Node], user: str, poller: Poller
) -> None:
    async with Member(pair[0], user, "a"), Member(pair[1], user, "b"):
        asking = asyncio.create_task(poller.ask(pair[0], wait=10))
        await devices(pair[1], user, 3)
        problem(await poller.get(pair[1], wait=0), 429, "too_many_connections")
        await publish(pair[0], user, 1)
        assert data(await asking) == [1]
        await devices(pair[1], user, 2)  # the answer may be here before Redis knows of its end
        assert await poller.ask(pair[1], wait=0) == []


async def devices(node: Node, user: str, count: int) -> None:
    """Wait until a user is connected with so many devices."""
    headers = {"Authorization": f"Bearer {token(user)}"}
    async with httpx.AsyncClient() as client, asyncio.timeout(5):
        while True:
            answer = await client.get(f"{node.url}/v1/users/{user}/presence", headers=headers)
            if len(answer.json()["devices"]) == count:
                return
            await asyncio.sleep(0.01)


async def test_who_was_revoked_while_waiting_is_told_nothing(
    node: Node, user: str, poller: Poller
) -> None:
    asking = asyncio.create_task(poller.get(node, wait=3))
    await connected(node, user)
    headers = {"Authorization": f"Bearer {token('admin', 'push.admin')}"}
    await asyncio.to_thread(node.post, f"/v1/users/{user}/disconnect", headers=headers)
    await publish(node, user, "secret")
    answer = await asking
    problem(answer, 401, "invalid_token")
    assert "secret" not in answer.text


async def test_a_poll_ends_with_its_token(node: Node, user: str) -> None:
    poller = Poller(user, auth=member(user, ttl=1.5))
    started = time.monotonic()
    assert await poller.ask(node, wait=30) == []
    assert time.monotonic() - started < 10
    await poller.client.aclose()


@pytest.mark.parametrize("wait", ["-1", "61", "x", "", "1e1", "nan", "inf", "99999", "1.2345"])
def test_a_wait_out_of_range_is_refused(node: Node, user: str, wait: str) -> None:
    headers = {"Authorization": f"Bearer {token(user)}"}
    answer = httpx.get(f"{node.url}/v1/poll", params={"wait": wait}, headers=headers)
    assert "wait" in problem(answer, 400, "invalid")["detail"]


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "DELETE"])
def test_a_poll_is_got_and_nothing_else(node: Node, user: str, method: str) -> None:
    answer = httpx.request(
        method, f"{node.url}/v1/poll", headers={"Authorization": f"Bearer {token(user)}"}
    )
    assert answer.status_code == 405
    assert "GET" in answer.headers["Allow"]


async def refused(node: Node, *pollers: Poller) -> list[httpx.Response]:
    """The answers to too many polls that come within a moment, however slow the machine is."""
    asked = [each.get(node, "busy", wait=0) for each in pollers for _ in range(20)]
    return [each for each in await asyncio.gather(*asked) if "rate_limited" in each.text]


async def test_who_polls_without_a_pause_is_told_to_wait(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str, poller: Poller
) -> None:
    with nodes(
        1, valkey.url, tmp_path, prefix=prefix, rate_messages_per_second=0.1, rate_burst=3,
        max_connections_per_user=1,
    ) as (node,):  # fmt: skip
        answers = [await poller.get(node, wait=0) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 200]
        last = (await refused(node, poller))[-1]
        told = problem(last, 429, "rate_limited")
        assert 0 < told["retry_after"] <= 1
        assert last.headers["Retry-After"] == "1"


async def test_two_devices_of_a_user_poll_ten_times_as_fast_as_it_may_send_messages(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str, user: str
) -> None:
    with nodes(
        1, valkey.url, tmp_path, prefix=prefix, rate_messages_per_second=0.1, rate_burst=3,
        max_connections_per_user=2,
    ) as (node,):  # fmt: skip
        pollers = [Poller(user, f"d{number}") for number in range(2)]
        async with pollers[0].client, pollers[1].client:
            for each in 2 * pollers:
                answer = await each.get(node, "busy", wait=0)
                assert answer.status_code == 200, answer.text
            for last in await refused(node, *pollers):
                assert 0 < problem(last, 429, "rate_limited")["retry_after"] <= 1


async def test_a_poll_of_many_topics_counts_as_several(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str, user: str
) -> None:
    with nodes(
        1, valkey.url, tmp_path, prefix=prefix, rate_messages_per_second=0.1, rate_burst=3,
        max_connections_per_user=1,
    ) as (node,):  # fmt: skip
        poller = Poller(user, auth=member(user))
        async with poller.client:
            topics = [f"room.{number}" for number in range(32)]
            began = time.monotonic()
            assert (await poller.get(node, *topics, wait=0)).status_code == 200
            told = problem(await poller.get(node, wait=0), 429, "rate_limited")
            assert 7 - (time.monotonic() - began) <= told["retry_after"] <= 7


async def test_who_polls_with_a_new_device_each_time_is_told_to_wait(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str, user: str
) -> None:
    with nodes(
        1, valkey.url, tmp_path, prefix=prefix, rate_messages_per_second=1, rate_burst=3,
        max_connections_per_user=2,
    ) as (node,):  # fmt: skip
        poller = Poller(user)
        async with poller.client:
            began = time.monotonic()
            codes = []
            for number in range(60):
                poller.device = f"d{number}"
                codes.append((await poller.get(node, wait=0)).status_code)
            seconds = time.monotonic() - began
        assert set(codes) == {200, 429}
        assert codes.count(200) <= 4 + 10 * seconds + 1
        other = Poller(f"{user}-2")
        async with other.client:
            assert (await other.get(node, wait=0)).status_code == 200


async def test_five_devices_of_a_user_poll_at_once(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str, user: str
) -> None:
    pollers = [Poller(user, f"d{number}") for number in range(5)]
    async with AsyncExitStack() as stack:
        (node,) = stack.enter_context(nodes(1, valkey.url, tmp_path, prefix=prefix))
        for each in pollers:
            await stack.enter_async_context(each.client)
        for _ in range(8):
            answers = await asyncio.gather(*(each.get(node, wait=0) for each in pollers))
            assert [answer.status_code for answer in answers] == [200] * 5


async def test_a_poll_with_the_widest_topics_that_are_taken_goes_on_from_its_position(
    node: Node, user: str, poller: Poller
) -> None:
    topics = wide(user)
    refused = await poller.get(node, *topics, wait=0)
    assert refused.status_code == 400
    assert "fewer or shorter topics, or use a socket" in refused.json()["detail"]
    while (await poller.get(node, *topics, wait=0)).status_code == 400:
        topics.pop()
    await poller.ask(node, *topics, wait=0)
    for number, name in enumerate(topics):
        await tell(node, name, number)
    told: list[Any] = []
    while len(told) < len(topics):
        told += data(await poller.ask(node, *topics))
    assert sorted(told) == list(range(len(topics)))
