"""What users have read: changed on sockets and by HTTP, and told to all others of the user."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from pushsvc.server.embedded import EmbeddedServer
from tests.support.backend import problem, publish, publish_all
from tests.support.events import Stream
from tests.support.nodes import Node, nodes, publisher_token, token
from tests.support.phone import Phone
from tests.support.reading import ask, change, count, listed, states
from tests.support.topics import Member, post, tell, tell_everyone

pytestmark = pytest.mark.promise

FRESH, SEEN, GONE = (False, False), (True, False), (True, True)


@pytest.fixture(scope="module")
def pair(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    with nodes(
        2, valkey.url, tmp_path_factory.mktemp("reading"), prefix="reading", mailbox_max=10,
        ack_timeout_seconds=2, rate_messages_per_second=1000, rate_burst=2000,
    ) as both:  # fmt: skip
        yield both


@pytest.fixture(scope="module")
def node(pair: list[Node]) -> Node:
    return pair[0]


async def recall(node: Node, user: str, notification_id: str) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.delete(
            f"{node.url}/v1/users/{user}/notifications/{notification_id}",
            headers={"Authorization": f"Bearer {publisher_token()}"},
        )
    assert answer.status_code == 200, answer.text


# --- the four verbs ------------------------------------------------------------------------------


async def test_what_is_published_is_unread_until_it_is_read(node: Node, user: str) -> None:
    async with Phone(node, user) as phone:
        assert phone.welcome["unread"] == 0
        sent = await publish_all(node, user, range(3))
        await phone.notifications(3)
        assert await count(phone) == 3
        assert await ask(phone, type="read", ids=[sent[0]]) == 2
        assert await ask(phone, type="read", ids=[sent[0]]) == 2
    async with Phone(node, user) as phone:
        assert phone.welcome["unread"] == 2
    page = await listed(node, user)
    assert page["unread"] == 2
    assert states(page) == {sent[0]: SEEN, sent[1]: FRESH, sent[2]: FRESH}


async def test_each_verb_does_what_it_says_on_a_socket(node: Node, user: str) -> None:
    one, two, three = await publish_all(node, user, range(3))
    async with Phone(node, user) as phone:
        await phone.notifications(3)
        assert await ask(phone, type="archive", ids=[one, two]) == 1
        assert states(await listed(node, user, archived="any")) == {
            one: GONE, two: GONE, three: FRESH,
        }  # fmt: skip
        assert await ask(phone, type="read", ids=[one]) == 1, "archived it stays"
        assert await ask(phone, type="unarchive", ids=[one, three]) == 1
        assert await ask(phone, type="unread", ids=[two]) == 2
        assert states(await listed(node, user)) == {one: SEEN, two: FRESH, three: FRESH}


async def test_each_verb_does_what_it_says_by_http(node: Node, user: str) -> None:
    one, two, three = await publish_all(node, user, range(3))
    assert await change(node, user, "read", {"until": two}) == {"unread": 1}
    assert states(await listed(node, user)) == {one: SEEN, two: SEEN, three: FRESH}
    assert await change(node, user, "unread", {"ids": [two]}) == {"unread": 2}
    assert await change(node, user, "archive", {"until": two}) == {"unread": 1}
    assert states(await listed(node, user, archived="true")) == {one: GONE, two: GONE}
    assert await change(node, user, "unarchive", {"until": one}) == {"unread": 1}
    assert await change(node, user, "unread", {"until": three}) == {"unread": 3}
    assert states(await listed(node, user)) == {one: FRESH, two: FRESH, three: FRESH}
    assert await change(node, user, "read", {"ids": []}) == {"unread": 3}


async def test_what_comes_after_until_stays_unread(node: Node, user: str) -> None:
    async with Phone(node, user) as phone:
        sent = await publish_all(node, user, range(4))
        await phone.notifications(4)
        assert await ask(phone, type="read", until=sent[1]) == 2
        later = await publish(node, user, "later")
        await phone.notification()
        assert await ask(phone, type="read", until=sent[3]) == 1
    assert states(await listed(node, user))[later] == FRESH


async def test_reading_acknowledges_nothing_and_what_comes_again_says_that_it_was_read(
    node: Node, user: str
) -> None:
    one, two, three = await publish_all(node, user, range(3))
    await change(node, user, "read", {"ids": [one]})
    await change(node, user, "archive", {"ids": [two]})
    async with Phone(node, user) as phone:
        first, second, third = await phone.notifications(3)
        assert (first["id"], first["read"]) == (one, True)
        assert (second["id"], second["read"], second["archived"]) == (two, True, True)
        assert third["id"] == three
        assert not {"read", "archived"} & third.keys()
        await change(node, user, "read", {"ids": [three]})
        assert (await phone.receive())["type"] == "read"
        again = [await phone.notification() for _ in range(3)]
        assert [(each["id"], each["attempt"], each["read"]) for each in again] == [
            (one, 2, True), (two, 2, True), (three, 2, True),
        ]  # fmt: skip


async def test_acknowledging_reads_nothing(node: Node, user: str) -> None:
    async with Phone(node, user) as phone:
        sent = await publish(node, user, 1)
        await phone.notification()
        assert await phone.acked(sent) == sent
        assert await count(phone) == 1


async def test_what_is_not_in_the_mailbox_is_passed_over(node: Node, user: str) -> None:
    async with Phone(node, user) as phone:
        sent = await publish(node, user, 1)
        await phone.notification()
        assert await ask(phone, type="unread", ids=["0-0", "5-5"]) == 1
        assert await ask(phone, type="archive", ids=["0-0"]) == 1
        assert await ask(phone, type="archive", ids=["5-5", sent, sent]) == 0
        assert await ask(phone, type="read", until="0-0") == 0
        assert await ask(phone, type="unread", ids=[sent]) == 1


# --- what has no read state ----------------------------------------------------------------------


async def test_a_signal_is_delivered_and_is_neither_read_nor_unread(node: Node, user: str) -> None:
    async with Phone(node, user) as phone:
        signal = (await post(node, {"user": user}, 1, inbox=False))["id"]
        note = await phone.notification()
        assert (note["id"], note["inbox"]) == (signal, False)
        assert await count(phone) == 0
        assert await ask(phone, type="unread", ids=[signal]) == 0
        kept = await publish(node, user, 2, inbox=True)
        assert "inbox" not in await phone.notification()
    (newest, oldest) = (await listed(node, user))["notifications"]
    assert (newest["id"], oldest["id"], oldest["inbox"]) == (kept, signal, False)
    assert (oldest["read"], oldest["archived"]) == FRESH
    for query in ({"inbox": "true"}, {"unread": "true"}, {"inbox": "true", "archived": "any"}):
        assert list(states(await listed(node, user, **query))) == [kept]
    assert states(await listed(node, user, archived="true")) == {}


async def test_topics_and_the_broadcast_are_not_counted(node: Node, user: str) -> None:
    async with Member(node, user) as phone:
        await phone.subscribe(f"room.{user}")
        told = (await tell(node, f"room.{user}", 1))["id"]
        assert (await phone.notification())["id"] == told
        everyone = await tell_everyone(node, {"n": 1})
        while (await phone.notification())["id"] != everyone:
            pass
        await post(node, {"user": user}, 1, ttl=0)
        await post(node, {"user": user}, 1, ephemeral=True)
        await phone.notifications(2)
        assert await ask(phone, type="unread", ids=[told, everyone]) == 0


@pytest.mark.parametrize("to", [{"topic": "t"}, {"broadcast": True}])
async def test_only_what_is_for_users_may_be_a_signal(node: Node, to: dict[str, Any]) -> None:
    answer = await asyncio.to_thread(
        node.post, "/v1/notifications", {"to": to, "data": 1, "inbox": False}
    )
    assert '"inbox" is for "user"' in problem(answer, 400, "invalid")["detail"]


# --- what leaves the mailbox ---------------------------------------------------------------------


async def test_what_leaves_the_mailbox_is_not_counted(node: Node, user: str) -> None:
    async with Phone(node, user) as phone:
        for data in range(3):
            await publish(node, user, data, collapse_key="k")
        await phone.notifications(3)
        assert await count(phone) == 1
        recalled = await publish(node, user, "recalled")
        await phone.notification()
        assert await count(phone) == 2
        await recall(node, user, recalled)
        assert (await phone.receive())["type"] == "withdrawn"
        assert await count(phone) == 1
        settled = await publish(node, user, "any", deliver="any-device")
        await phone.notification()
        assert await count(phone) == 2
        await phone.acked(settled)
        assert await phone.receive() == {"type": "read", "ids": [], "unread": 1}
        await publish(node, user, "short", ttl=0.5)
        await phone.notification()
        async with asyncio.timeout(10):
            while await count(phone) != 1:
                await asyncio.sleep(0.05)
        sent = await publish_all(node, user, range(12))
        await phone.notifications(12)
        assert await count(phone) == 10
        assert await ask(phone, type="read", until=sent[5]) == 6
        await publish_all(node, user, range(3))
        await phone.notifications(3)
        assert await count(phone) == 9


# --- the list ------------------------------------------------------------------------------------


async def test_the_list_has_what_is_asked_for_newest_first_and_in_pages(
    node: Node, user: str
) -> None:
    sent = [await publish(node, user, n, event=("order.shipped", "order")[n % 2]) for n in range(8)]
    await change(node, user, "read", {"ids": sent[:4]})
    await change(node, user, "archive", {"ids": [sent[0], sent[7]]})

    async def ids(**query: str) -> list[str]:
        found: list[str] = []
        before: dict[str, str] = {}
        while True:
            page = await listed(node, user, limit="2", **before, **query)
            assert page["unread"] == 3
            found += [note["id"] for note in page["notifications"]]
            if page["next"] is None:
                return found
            before = {"before": page["next"]}

    newest = sent[::-1]
    assert await ids() == newest[1:7]
    assert await ids(unread="true") == newest[1:4]
    assert await ids(archived="true") == [sent[7], sent[0]]
    assert await ids(archived="any") == newest
    assert await ids(archived="false", inbox="true") == newest[1:7]
    assert await ids(event="order", archived="any") == newest[::2]
    assert await ids(event="order.shipped", unread="true") == [sent[6], sent[4]]
    assert await ids(event="orde") == []
    assert await ids(unread="true", archived="true") == []


async def test_an_event_is_found_behind_a_trace(node: Node, user: str) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    body = {"to": {"user": user}, "data": {"event": "no"}, "event": "yes"}
    answer = await asyncio.to_thread(
        node.post, "/v1/notifications", body, headers={"traceparent": parent}
    )
    sent = answer.json()["id"]
    assert list(states(await listed(node, user, event="yes"))) == [sent]
    assert states(await listed(node, user, event="no")) == {}


# --- who is told ---------------------------------------------------------------------------------


async def test_every_other_connection_is_told_whatever_it_came_by(
    pair: list[Node], user: str
) -> None:
    one, other = pair
    sent = await publish_all(one, user, range(2))
    async with (
        Phone(one, user, "a") as asking,
        Phone(one, user, "a") as same,
        Phone(other, user, "b") as there,
        Stream(other, user, "c") as stream,
        httpx.AsyncClient(timeout=30) as client,
    ):
        for phone in (asking, same, there):
            await phone.notifications(2)
        await stream.notifications(2)
        auth = {"Authorization": f"Bearer {token(user)}"}
        at = f"u={sent[1]}"
        poll = asyncio.create_task(
            client.get(f"{other.url}/v1/poll", params={"device": "d", "after": at}, headers=auth)
        )
        async with asyncio.timeout(10):
            while True:
                page = await client.get(f"{one.url}/v1/users/{user}/presence", headers=auth)
                if len(page.json()["devices"]) == 4:
                    break
                await asyncio.sleep(0.02)
        assert await ask(asking, type="read", ids=[sent[0]]) == 1
        told = {"type": "read", "ids": [sent[0]], "unread": 1}
        assert await same.receive() == told
        assert await there.receive() == told
        assert await stream.message() == told
        answer = (await poll).json()
        assert answer["messages"] == [told]
        assert answer["unread"] == 1
        assert await change(other, user, "archive", {"until": sent[1]}) == {"unread": 0}
        told = {"type": "archive", "until": sent[1], "unread": 0}
        for phone in (asking, same, there):
            assert await phone.receive() == told
        assert await stream.message() == told
        await asking.silent()


async def test_nobody_is_told_of_what_changes_nothing(pair: list[Node], user: str) -> None:
    one, other = pair
    sent = await publish(one, user, 1)
    async with Phone(one, user) as phone, Phone(other, user, "b") as there:
        await phone.notification()
        await there.notification()
        nothing: list[dict[str, Any]] = [{"ids": []}, {"ids": ["5-5"]}, {"until": "5-5"}]
        for message in nothing:
            assert await ask(phone, type="read", **message) == 1
        assert await ask(phone, type="read", ids=[sent]) == 0
        assert (await there.receive())["unread"] == 0


async def told_the_count(phone: Phone | Stream, unread: int) -> None:
    """The next message tells it, and nothing else; those before may tell another one."""
    read = phone.message if isinstance(phone, Stream) else phone.receive
    async with asyncio.timeout(15):
        while (told := await read())["unread"] != unread:
            assert (told["type"], told["ids"]) == ("read", [])
    assert told == {"type": "read", "ids": [], "unread": unread}


async def test_a_recall_tells_the_count_to_those_who_have_acknowledged(
    pair: list[Node], user: str
) -> None:
    one, other = pair
    async with (
        Phone(one, user, "a") as here,
        Phone(other, user, "b") as there,
        Phone(one, user, "c") as lacks,
        Stream(other, user, "a") as stream,
        httpx.AsyncClient(timeout=30) as client,
    ):
        first, sent = await publish_all(one, user, range(2))
        for phone in (here, there):
            await phone.notifications(2)
            await phone.acked(sent)
        await lacks.notifications(2)
        await stream.notifications(2)
        poll = asyncio.create_task(
            client.get(
                f"{other.url}/v1/poll", params={"device": "a"},
                headers={"Authorization": f"Bearer {token(user)}"},
            )
        )  # fmt: skip
        await joined(one, user, 5)
        await recall(one, user, sent)
        assert await lacks.receive() == {"type": "withdrawn", "id": sent, "reason": "recalled"}
        for each in (here, there, stream):
            await told_the_count(each, 1)
        answer = (await poll).json()
        assert (answer["messages"], answer["unread"]) == (
            [{"type": "read", "ids": [], "unread": 1}], 1,
        )  # fmt: skip
        assert await count(here) == 1, first


async def test_who_settles_something_for_all_devices_is_told_the_count(
    pair: list[Node], user: str
) -> None:
    one, other = pair
    async with (
        Phone(one, user, "a") as here,
        Phone(other, user, "a") as same,
        Phone(other, user, "b") as there,
    ):
        sent = await publish(one, user, 1, deliver="any-device")
        for phone in (here, same, there):
            await phone.notification()
        await here.send(type="ack", id=sent)
        assert await there.receive() == {"type": "withdrawn", "id": sent, "reason": "acked"}
        await told_the_count(here, 0)
        await told_the_count(same, 0)


async def test_other_devices_are_told_the_count_of_what_is_for_one_and_not_one_by_one(
    pair: list[Node], user: str
) -> None:
    one, other = pair
    async with Phone(one, user, "a") as mine, Phone(other, user, "b") as there:
        for data in range(9):
            await post(one, {"user": user, "device": "a"}, data)
        await mine.notifications(9)
        told = 0
        async with asyncio.timeout(15):
            while (message := await there.receive())["unread"] != 9:
                assert (message["type"], message["ids"]) == ("read", [])
                told += 1
        assert told < 8
        await mine.silent()


async def joined(node: Node, user: str, connections: int) -> None:
    """Wait until a user has so many."""
    headers = {"Authorization": f"Bearer {token(user)}"}
    async with asyncio.timeout(10), httpx.AsyncClient(timeout=30) as client:
        while True:
            answer = await client.get(f"{node.url}/v1/users/{user}/presence", headers=headers)
            if sum(each["connections"] for each in answer.json()["devices"]) == connections:
                return
            await asyncio.sleep(0.02)


async def test_a_poll_says_how_many_are_unread(node: Node, user: str) -> None:
    await publish(node, user, 1)
    async with httpx.AsyncClient() as client:
        answer = await client.get(
            f"{node.url}/v1/poll",
            params={"wait": "0"},
            headers={"Authorization": f"Bearer {token(user)}"},
        )
    assert answer.json()["unread"] == 1


async def test_a_poll_that_knows_another_count_is_answered_at_once(node: Node, user: str) -> None:
    await publish(node, user, 1)
    auth = {"Authorization": f"Bearer {token(user)}"}
    async with httpx.AsyncClient(timeout=30) as client:

        async def poll(**arguments: str) -> dict[str, Any]:
            answer = await client.get(f"{node.url}/v1/poll", params=arguments, headers=auth)
            told: dict[str, Any] = answer.json()
            return told

        first = await poll(wait="0")
        at = {"after": first["position"]}
        waiting = asyncio.create_task(poll(wait="20", unread="1", **at))
        await asyncio.wait([waiting], timeout=0.5)
        assert not waiting.done()
        await change(node, user, "read", {"until": first["messages"][0]["id"]})
        assert [each["type"] for each in (await waiting)["messages"]] == ["read"]
        second = await asyncio.wait_for(poll(wait="60", unread="1", **at), 20)
        assert (second["messages"], second["unread"]) == ([], 0)


# --- who may, and what is refused ----------------------------------------------------------------


async def test_a_user_changes_what_is_its_own_and_a_backend_whatever_it_names(
    node: Node, user: str
) -> None:
    sent = await publish(node, user, 1)
    other = await change(node, user, "read", {"ids": [sent]}, auth=token("other"), status=403)
    assert "own token" in other["detail"]
    backends = publisher_token()
    read = await change(node, user, "read", {"ids": [sent]}, auth=backends)
    assert read == {"unread": 0}
    async with httpx.AsyncClient() as client:
        url, own = f"{node.url}/v1/user/unread", {"Authorization": f"Bearer {token(user)}"}
        answer = await client.post(url, json={"ids": [sent]}, headers=own)
        assert answer.json() == {"unread": 1}
        answer = await client.post(
            f"{node.url}/v1/user/archive", params={"user": user}, json={"ids": [sent]}, headers=own
        )
        assert answer.json() == {"unread": 0}
        backend = {"Authorization": f"Bearer {backends}"}
        answer = await client.post(url, json={"ids": [sent]}, headers=backend)
        problem(answer, 400, "invalid")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({}, 'exactly one of "ids" and "until"'),
        ({"ids": [], "until": "1-0"}, 'exactly one of "ids" and "until"'),
        ({"ids": ["1-0"] * 1001}, "at most 1000"),
        ({"ids": ["x"]}, "an id looks like"),
        ({"id": "1-0"}, "unknown field"),
    ],
)
async def test_what_is_no_change_is_refused_alike_on_sockets_and_by_http(
    node: Node, user: str, body: dict[str, Any], why: str
) -> None:
    assert why in (await change(node, user, "read", body, status=400))["detail"]
    async with Phone(node, user) as phone:
        await phone.send(type="read", ref=1, **body)
        error = await phone.receive()
        assert (error["type"], error["ref"]) == ("error", 1)
        assert why in error["detail"]


@pytest.mark.parametrize(
    "query", [{"unread": "yes"}, {"archived": "1"}, {"inbox": ""}, {"event": "a b"}]
)
async def test_a_list_refuses_what_it_does_not_know(
    node: Node, user: str, query: dict[str, str]
) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.get(
            f"{node.url}/v1/users/{user}/notifications",
            params=query,
            headers={"Authorization": f"Bearer {token(user)}"},
        )
    assert answer.status_code == 400
    assert next(iter(query)) in answer.json()["detail"]
