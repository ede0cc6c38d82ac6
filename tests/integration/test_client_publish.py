"""Clients that publish: on their socket, and by request with their own token."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from pushsvc.server.embedded import EmbeddedServer
from tests.support.backend import problem
from tests.support.nodes import Node, nodes, publisher_token, token
from tests.support.topics import Member, member, order, tell

MOST = 4096


@pytest.fixture(scope="module")
def pair(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    with nodes(
        2, valkey.url, tmp_path_factory.mktemp("publish"), prefix="clientpub",
        rate_messages_per_second=1000, rate_burst=2000, max_message_bytes=MOST,
    ) as both:  # fmt: skip
        yield both


@pytest.fixture(scope="module")
def node(pair: list[Node]) -> Node:
    return pair[0]


@pytest.fixture
def topic(user: str) -> str:
    """A topic that no other test uses."""
    return f"room.{user}"


async def test_what_a_client_publishes_says_whom_it_is_from(
    pair: list[Node], user: str, topic: str
) -> None:
    async with Member(pair[0], user) as phone, Member(pair[1], "other") as other:
        await other.subscribe(topic)
        answer = await phone.ask(type="publish", topic=topic, data={"n": 1}, event="said")
        assert answer == {
            "type": "reply", "id": answer["id"], "durability": "memory", "connections": 1,
        }  # fmt: skip
        note = await other.notification()
        assert note == {
            "type": "notification", "id": answer["id"], "time": note["time"], "topic": topic,
            "event": "said", "from": user, "data": {"n": 1},
        }  # fmt: skip
        # What a backend publishes is from nobody.
        await tell(pair[0], topic, 2)
        assert "from" not in await other.notification()


async def test_nobody_publishes_in_anothers_name(node: Node, user: str, topic: str) -> None:
    async with Member(node, user) as phone:
        await phone.subscribe(topic)
        answer = await phone.ask(type="publish", topic=topic, data=1, **{"from": "admin"})
        assert (answer["type"], answer["code"]) == ("error", "invalid")
        await phone.send(type="publish", topic=topic, data={"from": "admin"})
        assert (await phone.notification())["from"] == user


async def test_who_publishes_hears_itself_where_it_listens(
    node: Node, user: str, topic: str
) -> None:
    async with Member(node, user) as phone:
        await phone.subscribe(topic)
        await phone.send(type="publish", topic=topic, data=1)  # without a ref: no answer
        assert (await phone.notification())["data"] == 1
        await phone.silent()


async def test_the_order_of_one_connection_is_kept(pair: list[Node], user: str, topic: str) -> None:
    async with Member(pair[0], user) as phone, Member(pair[1], "other") as other:
        await other.subscribe(topic)
        for n in range(200):
            await phone.send(type="publish", topic=topic, data=n, ref=n)
        notes = await other.notifications(200)
        assert [note["data"] for note in notes] == list(range(200))
        replies = {reply["ref"]: reply["id"] for reply in [await phone.receive() for _ in notes]}
        ids = [replies[n] for n in range(200)]
        assert ids == [note["id"] for note in notes]
        assert ids == sorted(ids, key=order)


async def test_a_client_publishes_where_its_token_says(node: Node, user: str, topic: str) -> None:
    auth = token(user, topics={"subscribe": ["**"], "publish": [topic, "chat.*"]})
    async with Member(node, user, auth=auth) as phone:
        await phone.subscribe("chat.a.b")
        for name in (topic, "chat.a"):
            assert (await phone.ask(type="publish", topic=name, data=1))["type"] == "reply"
        for name in ("chat.a.b", "chat", topic + ".x"):
            answer = await phone.ask(type="publish", topic=name, data=1)
            assert (answer["type"], answer["code"]) == ("error", "forbidden")
        await phone.silent()
    auth = token(user, topics={"subscribe": ["**"]})
    async with Member(node, user, auth=auth) as phone:
        answer = await phone.ask(type="publish", topic=topic, data=1)
        assert answer["code"] == "forbidden"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "invalid"),
        ({"data": 1, "ttl": -1}, "invalid"),
        ({"data": 1, "ttl": "5"}, "invalid"),
        ({"data": 1, "ephemeral": True, "ttl": 5}, "invalid"),
        ({"data": 1, "ephemeral": True, "collapse_key": "k"}, "invalid"),
        ({"data": 1, "collapse_key": "k", "ttl": 0}, "invalid"),
        ({"data": 1, "collapse_key": ""}, "invalid_name"),
        ({"data": 1, "event": "a b"}, "invalid_name"),
        ({"data": "no base64", "encoding": "base64"}, "invalid"),
        ({"data": 5, "encoding": "base64"}, "invalid"),
        ({"data": 1, "encoding": "hex"}, "invalid"),
        ({"data": 1, "to": {"user": "u1"}}, "invalid"),
        ({"data": 1, "receipt": True}, "invalid"),
        ({"data": 1, "deliver": "any-device"}, "invalid"),
    ],
)
async def test_a_publish_that_makes_no_sense_is_refused(
    node: Node, user: str, topic: str, fields: dict[str, Any], code: str
) -> None:
    async with Member(node, user) as phone:
        await phone.subscribe(topic)
        answer = await phone.ask(type="publish", topic=topic, **fields)
        assert (answer["type"], answer["code"]) == ("error", code), answer
        await phone.silent()


async def test_what_would_be_too_large_for_the_subscribers_is_refused(
    node: Node, user: str, topic: str
) -> None:
    async with Member(node, user) as phone:
        await phone.subscribe(topic)
        answer = await phone.ask(type="publish", topic=topic, data="x" * (MOST - 170))
        assert (answer["type"], answer["code"]) == ("error", "too_large"), answer
        assert (await phone.ask(type="publish", topic=topic + ".b", data="x" * 3000))["id"]
        # A message over the limit is a frame that nobody reads.
        await phone.send(type="publish", topic=topic, data="x" * MOST)
        assert await phone.closed() == 1009


async def test_what_is_ephemeral_is_answered_without_an_id(
    pair: list[Node], user: str, topic: str
) -> None:
    async with Member(pair[0], user) as phone, Member(pair[1], "other") as other:
        await other.subscribe(topic)
        answer = await phone.ask(type="publish", topic=topic, data="typing", ephemeral=True)
        assert answer == {"type": "reply", "durability": "none", "connections": 1}
        note = await other.notification()
        assert (note["ephemeral"], note["from"]) == (True, user)
        assert "id" not in note
        assert await other.subscribe(topic) == "0-0"


async def test_state_is_published_from_sockets_too(pair: list[Node], user: str, topic: str) -> None:
    async with Member(pair[0], user) as phone:
        for value, key in [(1, "a"), (2, "b"), (3, "a")]:
            await phone.ask(type="publish", topic=topic, data=value, collapse_key=key)
        async with Member(pair[1], "other") as other:
            await other.subscribe(topic)
            assert [note["data"] for note in await other.notifications(2)] == [2, 3]


async def test_who_publishes_too_fast_is_told_when_to_go_on(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str, user: str
) -> None:
    with nodes(
        1, valkey.url, tmp_path, prefix=prefix, rate_messages_per_second=5, rate_burst=10
    ) as (node,):
        async with Member(node, user) as phone, Member(node, "other") as other:
            await other.subscribe("t")
            for n in range(15):
                await phone.send(type="publish", topic="t", data=n, ref=n)
            answers = {a["ref"]: a for a in [await phone.receive() for _ in range(15)]}
            good = [n for n in range(15) if answers[n]["type"] == "reply"]
            assert good[:10] == list(range(10))
            assert len(good) < 15
            over = answers[next(n for n in range(15) if n not in good)]
            assert (over["code"], over["temporary"]) == ("rate_limited", True)
            assert 0 < over["retry_after"] <= 1
            notes = await other.notifications(len(good))
            assert [note["data"] for note in notes] == good
            # Who has waited as told goes on, and others were never held up.
            await asyncio.sleep(over["retry_after"] + 0.3)
            assert (await phone.ask(type="publish", topic="t", data="on"))["type"] == "reply"
            assert (await other.notification())["data"] == "on"
            assert (await other.ask(type="publish", topic="x", data=1))["type"] == "reply"


async def test_a_publish_on_a_socket_that_goes_is_carried_out(
    node: Node, user: str, topic: str
) -> None:
    async with Member(node, "other") as other:
        await other.subscribe(topic)
        async with Member(node, user) as phone:
            await phone.send(type="publish", topic=topic, data="last words")
        assert (await other.notification())["data"] == "last words"


# --- by request ----------------------------------------------------------------------------------


async def request(node: Node, auth: str, to: dict[str, Any], **fields: Any) -> httpx.Response:
    return await asyncio.to_thread(
        node.post, "/v1/notifications", {"to": to, "data": 1, **fields},
        headers={"Authorization": f"Bearer {auth}"},
    )  # fmt: skip


async def test_a_client_without_a_socket_publishes_with_its_own_token(
    pair: list[Node], user: str, topic: str
) -> None:
    auth = token(user, topics={"publish": [topic]})
    async with Member(pair[1], "other") as other:
        await other.subscribe(topic)
        answer = await request(pair[0], auth, {"topic": topic})
        assert answer.status_code == 202
        note = await other.notification()
        assert (note["id"], note["from"]) == (answer.json()["id"], user)
    for to in ({"topic": topic + "x"}, {"user": user}, {"users": [user]}, {"broadcast": True}):
        problem(await request(pair[0], auth, to), 403, "forbidden")
    problem(await request(pair[0], token(user), {"topic": topic}), 403, "forbidden")


async def test_a_batch_of_a_client_succeeds_where_its_token_says(
    node: Node, user: str, topic: str
) -> None:
    notes = [{"to": {"topic": name}, "data": 1} for name in (topic, "other", topic)]
    auth = token(user, topics={"publish": [topic]})
    answer = await asyncio.to_thread(
        node.post, "/v1/notifications/batch", {"notifications": notes},
        headers={"Authorization": f"Bearer {auth}"},
    )  # fmt: skip
    first, second, third = answer.json()["results"]
    assert second["type"].endswith(":forbidden")
    assert order(first["id"]) < order(third["id"])


async def test_a_backend_may_name_every_target_but_one_at_a_time(node: Node, topic: str) -> None:
    auth = publisher_token()
    for to in (
        {}, {"topic": topic, "user": "u1"}, {"topic": topic, "broadcast": True},
        {"broadcast": False}, {"topic": [topic]}, {"topic": None},
    ):  # fmt: skip
        problem(await request(node, auth, to), 400, "invalid")
    for fields in ({"deliver": "any-device"}, {"receipt": True}):
        problem(await request(node, auth, {"topic": topic}, **fields), 400, "invalid")
        problem(await request(node, auth, {"broadcast": True}, **fields), 400, "invalid")


@pytest.mark.parametrize(
    ("path", "media"),
    [
        ("/v1/notifications", "application/json"),
        ("/v1/notifications/batch", "application/json"),
        ("/v1/notifications/batch", "application/x-ndjson"),
    ],
)
async def test_a_clients_text_may_be_escaped(
    node: Node, user: str, topic: str, path: str, media: str
) -> None:
    text = "ж" * (MOST // 5)
    note: dict[str, Any] = {"to": {"topic": topic}, "data": text}
    if media == "application/json" and path.endswith("batch"):
        note = {"notifications": [note]}
    headers = {"Authorization": f"Bearer {member(user)}", "Content-Type": media}
    body = json.dumps(note)
    assert len(body) > MOST > len(text.encode())
    async with Member(node, "other") as other, httpx.AsyncClient(headers=headers) as client:
        await other.subscribe(topic)
        answer = await client.post(node.url + path, content=body)
        assert answer.status_code == 202, answer.text
        assert (await other.notification())["data"] == text
    # The message itself is bounded as ever.
    told = await request(node, member(user), {"topic": topic}, data="x" * MOST)
    assert str(MOST) in problem(told, 413, "too_large")["detail"]


async def test_a_repeated_request_is_one_message(pair: list[Node], user: str, topic: str) -> None:
    headers = {
        "Authorization": f"Bearer {member(user)}", "Idempotency-Key": '"k1"',
        "Content-Type": "application/json",
    }  # fmt: skip
    body = json.dumps({"to": {"topic": topic}, "data": 1})
    async with Member(pair[0], "other") as other, httpx.AsyncClient(headers=headers) as client:
        await other.subscribe(topic)
        answers = [
            await client.post(f"{node.url}/v1/notifications", content=body) for node in pair * 2
        ]
        ids = {answer.json()["id"] for answer in answers}
        assert len(ids) == 1
        assert {(await other.notification())["id"]} == ids
        await other.silent()


def test_a_batch_counts_as_many_messages_as_it_has(
    valkey: EmbeddedServer, tmp_path: Path, user: str, topic: str
) -> None:
    with Node(valkey.url, tmp_path, rate_messages_per_second=10, rate_burst=20) as slow:
        auth = {"Authorization": f"Bearer {token(user, topics={'publish': ['**']})}"}
        notes = [{"to": {"topic": topic}, "data": n} for n in range(15)]
        body = {"notifications": notes}
        assert slow.post("/v1/notifications/batch", body, headers=auth).status_code == 202
        told = slow.post("/v1/notifications/batch", body, headers=auth)
        problem(told, 429, "rate_limited")
        assert slow.post("/v1/notifications/batch", body).status_code == 202  # a backend


# --- how much a client may store -----------------------------------------------------------------

BUDGET = 200_000
WINDOW = 4


@pytest.fixture(scope="module")
def thrifty(
    valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Node]]:
    """Two nodes with small budgets."""
    with nodes(
        2, valkey.url, tmp_path_factory.mktemp("quota"), prefix="quota",
        rate_messages_per_second=1000, rate_burst=2000, rate_bytes_per_second=100_000_000,
        client_bytes_per_user=BUDGET, client_bytes_seconds=WINDOW,
        client_bytes_per_topic=10 * BUDGET, max_message_bytes=BUDGET,
    ) as both:  # fmt: skip
        yield both


BLOCK = "x" * 20_000


async def test_who_stores_too_much_is_told_when_to_go_on_on_every_node_and_loses_nothing(
    thrifty: list[Node], user: str, topic: str
) -> None:
    auth = member(user)
    async with (
        Member(thrifty[0], user) as phone,
        Member(thrifty[1], user) as laptop,
        Member(thrifty[1], "other") as other,
    ):
        await other.subscribe(topic)
        accepted: list[str] = []
        refused: dict[str, Any] = {}
        while not refused:
            for device in (phone, laptop):
                answer = await device.ask(type="publish", topic=topic, data=BLOCK)
                if answer["type"] == "error":
                    refused = answer
                else:
                    accepted.append(answer["id"])
        assert len(accepted) * len(BLOCK) < 2 * BUDGET
        assert (refused["code"], refused["temporary"]) == ("quota_exceeded", True)
        assert 0 < refused["retry_after"] <= WINDOW
        answers = [
            await request(node, auth, {"topic": topic}, data=BLOCK, collapse_key="k" * n)
            for n, node in enumerate(thrifty, 1)
        ]
        for told in answers:
            problem(told, 429, "quota_exceeded")
            assert 0 < int(told.headers["Retry-After"]) <= WINDOW
        # What is not stored is free, and others have budgets of their own.
        live = await phone.ask(type="publish", topic="elsewhere", data=BLOCK, ephemeral=True)
        assert live["durability"] == "none"
        assert (await other.notifications(len(accepted)))[-1]["id"] == accepted[-1]
        assert (await other.ask(type="publish", topic="x", data=BLOCK))["type"] == "reply"
        await asyncio.sleep(refused["retry_after"])
        async with asyncio.timeout(2 * WINDOW):
            while (await phone.ask(type="publish", topic=topic, data=BLOCK))["type"] == "error":
                await asyncio.sleep(0.1)


async def test_a_batch_that_stores_too_much_stores_nothing_and_its_key_can_be_used_again(
    thrifty: list[Node], user: str, topic: str
) -> None:
    headers = {"Authorization": f"Bearer {member(user)}", "Idempotency-Key": '"batch"'}
    batch = {"notifications": [{"to": {"topic": topic}, "data": BLOCK} for _ in range(5)]}

    async def post(node: Node) -> httpx.Response:
        return await asyncio.to_thread(node.post, "/v1/notifications/batch", batch, headers=headers)

    async with Member(thrifty[1], "other") as other:
        await other.subscribe(topic)
        for _ in range(3):
            await request(thrifty[0], member(user), {"topic": "x"}, data=BLOCK * 3)
        told = await post(thrifty[1])
        problem(told, 429, "quota_exceeded")
        async with asyncio.timeout(2 * WINDOW):
            while (answer := await post(thrifty[0])).status_code == 429:
                await asyncio.sleep(int(answer.headers["Retry-After"]))
        results = [result["id"] for result in answer.json()["results"]]
        assert [note["id"] for note in await other.notifications(5)] == results
        await other.silent()


async def test_what_stores_nothing_leaves_no_idempotency_key_behind(
    thrifty: list[Node], valkey: EmbeddedServer, user: str, topic: str
) -> None:
    kept = redis.Redis.from_url(valkey.url)

    def keys() -> int:
        return len(list(kept.scan_iter("quota:once:*")))

    before = keys()
    headers = {"Authorization": f"Bearer {member(user)}", "Idempotency-Key": '"nothing"'}
    note = {"to": {"topic": topic}, "data": 1, "ephemeral": True}
    for path, body in (
        ("/v1/notifications", note),
        ("/v1/notifications/batch", {"notifications": [note, {"to": {"user": user}, "data": 1}]}),
    ):
        answer = await asyncio.to_thread(thrifty[0].post, path, body, headers=headers)
        assert answer.status_code == 202
    assert keys() == before
    note = {"to": {"topic": topic}, "data": 1}
    answer = await asyncio.to_thread(thrifty[0].post, "/v1/notifications", note, headers=headers)
    assert answer.status_code == 202
    assert keys() == before + 1
    kept.close()


async def test_a_conflict_of_idempotency_keys_costs_nothing(
    thrifty: list[Node], user: str, topic: str
) -> None:
    headers = {"Authorization": f"Bearer {member(user)}", "Idempotency-Key": '"conflict"'}

    async def post(data: str) -> httpx.Response:
        note = {"to": {"topic": topic}, "data": data}
        return await asyncio.to_thread(thrifty[0].post, "/v1/notifications", note, headers=headers)

    assert (await post("first")).status_code == 202
    for n in range(3 * BUDGET // len(BLOCK)):
        problem(await post(f"{n} {BLOCK}"), 422, "idempotency_conflict")


async def test_a_backend_has_no_budget(thrifty: list[Node], topic: str) -> None:
    for _ in range(3 * BUDGET // len(BLOCK)):
        await tell(thrifty[0], topic, BLOCK)


async def test_a_full_topic_takes_nothing_of_any_client_and_what_backends_send(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    with nodes(
        2, valkey.url, tmp_path, prefix=prefix,
        client_bytes_per_user=BUDGET // 2, client_bytes_per_topic=BUDGET,
        rate_messages_per_second=1000, rate_burst=2000, rate_bytes_per_second=100_000_000,
    ) as (a, b):  # fmt: skip
        async with Member(a, "u1") as one, Member(b, "u2") as two, Member(b, "u3") as three:
            answer: dict[str, Any] = {"type": "reply"}
            accepted = 0
            while answer["type"] == "reply":
                device = (one, two, three)[accepted % 3]
                answer = await device.ask(type="publish", topic="t", data=BLOCK)
                accepted += answer["type"] == "reply"
            assert accepted * len(BLOCK) <= BUDGET
            for device in (one, two):
                answer = await device.ask(type="publish", topic="t", data=1)
                assert (answer["code"], answer["temporary"]) == ("topic_full", False)
                assert (await device.ask(type="publish", topic="t2", data=1))["type"] == "reply"
            told = await request(a, member("u1"), {"topic": "t"})
            assert "the topic is full" in problem(told, 413, "topic_full")["detail"]
            await tell(b, "t", BLOCK)
            assert a.metric("pushsvc_published_total", outcome="topic_full") >= 2
            assert a.metric("pushsvc_client_bytes_total") > accepted // 2 * len(BLOCK)
