"""The broadcast: for everyone who is here, and for every device that comes back."""

import asyncio
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from pushsvc.server.embedded import EmbeddedServer
from tests.support.backend import publish, publish_all
from tests.support.events import Stream
from tests.support.nodes import Node, nodes, token
from tests.support.phone import Phone
from tests.support.topics import order, post, tell_everyone

pytestmark = pytest.mark.promise

WINDOW = 4


SETTINGS = {
    "ack_window": WINDOW, "ack_timeout_seconds": 1, "ack_attempts": 10, "heartbeat_seconds": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def pair(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    """Two nodes; to users that are new, nothing was broadcast before."""
    directory = tmp_path_factory.mktemp("broadcast")
    with nodes(2, valkey.url, directory, **SETTINGS) as both:
        yield both


@pytest.fixture
def own_pair(valkey: EmbeddedServer, tmp_path: Path, prefix: str) -> Iterator[list[Node]]:
    """Two nodes of the test's own, whose keys it may change."""
    with nodes(2, valkey.url, tmp_path, prefix=prefix, **SETTINGS) as both:
        yield both


async def owed(node: Node, user: str, device: str = "phone") -> list[Any]:
    """The data of what a device is sent when it connects."""
    async with Phone(node, user, device) as phone:
        await asyncio.sleep(0.1)  # the broadcast is read after the mailbox
        await phone.send(type="ping")
        found = []
        while (message := await phone.receive())["type"] != "pong":
            assert message["type"] == "notification", message
            found.append(message["data"])
        return found


async def acked(phone: Phone, notification_id: str, **fields: Any) -> str:
    await phone.send(type="ack", id=notification_id, ref="a", **fields)
    reply = await phone.receive()
    assert (reply["type"], reply["ref"]) == ("reply", "a"), reply
    position: str = reply["acked"]
    return position


async def test_everyone_on_every_node_is_told(pair: list[Node], user: str) -> None:
    phones = [Phone(pair[n % 2], f"{user}-{n // 2}", f"d{n}") for n in range(8)]
    for phone in phones:
        await phone.__aenter__()
    await asyncio.sleep(1.2)  # the nodes say once a second how many there are
    answer = await post(pair[0], {"broadcast": True}, {"n": 1}, event="news")
    assert answer["connections"] == 8
    for phone in phones:
        note = await phone.notification()
        assert note == {
            "type": "notification", "id": answer["id"], "time": note["time"], "broadcast": True,
            "event": "news", "data": {"n": 1},
        }  # fmt: skip
        assert await acked(phone, note["id"]) == note["id"]
        await phone.silent()
        await phone.__aexit__(None, None, None)


async def test_a_device_that_was_away_is_told_on_its_return_and_a_new_one_is_not(
    pair: list[Node],
    user: str,
) -> None:
    assert await owed(pair[0], user, "old") == []
    for n in range(3):
        await tell_everyone(pair[n % 2], n)
    assert await owed(pair[1], user, "old") == [0, 1, 2]
    for node in pair:
        assert await owed(node, user, "new") == []
        assert await owed(node, f"{user}-2", "new") == []
    await tell_everyone(pair[0], 3)
    assert await owed(pair[0], user, "new") == [3]


async def test_an_ack_settles_the_broadcast_for_the_device(pair: list[Node], user: str) -> None:
    for device in ("a", "b"):
        await owed(pair[0], user, device)
    sent = [await tell_everyone(pair[0], n) for n in range(3)]
    async with Phone(pair[1], user, "a") as phone:
        assert [note["id"] for note in await phone.notifications(3)] == sent
        assert await acked(phone, sent[1]) == sent[1]
        assert await acked(phone, sent[0]) in (sent[1], "0-0")  # and none goes back
    assert await owed(pair[0], user, "a") == [2]
    assert await owed(pair[1], user, "b") == [0, 1, 2]


async def test_what_is_not_acked_comes_again_as_it_was(pair: list[Node], user: str) -> None:
    async with Phone(pair[0], user) as phone:
        sent = await tell_everyone(pair[1], 1)
        first = await phone.notification()
        again = await phone.notification()
        assert again == {**first, "attempt": 2}
        assert first["id"] == sent
        await phone.drop()
    async with Phone(pair[1], user) as phone:
        assert await phone.notification() == first
        assert await acked(phone, sent) == sent
        await asyncio.sleep(1.5)
        await phone.silent()
    assert await owed(pair[0], user) == []


async def test_the_broadcast_has_a_window_of_its_own(pair: list[Node], user: str) -> None:
    async with Phone(pair[0], user) as phone:
        mail = await publish_all(pair[0], user, range(WINDOW))
        assert [note["id"] for note in await phone.notifications(WINDOW)] == mail
        news = [await tell_everyone(pair[1], n) for n in range(WINDOW + 2)]
        got = [note["id"] for note in await phone.notifications(WINDOW)]
        assert got == news[:WINDOW]
        await phone.send(type="ack", id=got[-1])
        got += [note["id"] for note in await phone.notifications(2)]
        assert got == news


async def test_an_ack_moves_the_position_that_holds_the_id_the_mailboxs_first(
    own_pair: list[Node], valkey: EmbeddedServer, prefix: str
) -> None:
    async with Phone(own_pair[0], "u1") as phone:
        for publishing in (publish(own_pair[0], "u1", 0), tell_everyone(own_pair[0], 0)):
            first = await publishing
            await phone.notification()
            await acked(phone, first)
        ahead = int(time.time() * 1000) + 3_600_000
        with Redis.from_url(valkey.url) as redis:
            for key in redis.scan_iter(f"{prefix}:*cursors"):
                redis.hset(key, "~head", f"{ahead}-0")
        # The next id of both is the same.
        mail = await publish(own_pair[0], "u1", "mail")
        news = await tell_everyone(own_pair[0], "news")
        assert mail == news == f"{ahead}-1"
        found = await phone.notifications(2)
        assert {note["data"] for note in found} == {"mail", "news"}
        assert await acked(phone, mail) == mail
        await phone.drop()
    async with Phone(own_pair[0], "u1") as phone:
        assert (await phone.notification())["data"] == "news"
        await phone.silent()
        assert await acked(phone, news, broadcast=True) == news
    assert await owed(own_pair[0], "u1") == []


async def test_an_ack_that_names_the_broadcast_moves_no_mailbox(
    pair: list[Node], user: str
) -> None:
    async with Phone(pair[0], user) as phone:
        mail = await publish(pair[0], user, "mail")
        await phone.notification()
        await acked(phone, mail, broadcast=True)
        await phone.drop()
    assert await owed(pair[0], user) == ["mail"]


async def test_an_ack_by_request_settles_the_broadcast(pair: list[Node], user: str) -> None:
    async with Stream(pair[0], user) as stream:
        sent = [await tell_everyone(pair[1], n) for n in range(WINDOW + 1)]
        got = [note["id"] for note in await stream.notifications(WINDOW)]
        headers = {"Authorization": f"Bearer {token(user)}"}
        body = {"device": "phone", "id": got[-1], "broadcast": True}
        answer = await asyncio.to_thread(pair[1].post, "/v1/ack", body, headers=headers)
        assert answer.json() == {"acked": got[-1]}
        got.append((await stream.notification())["id"])
        assert got == sent
    assert await owed(pair[0], user) == [WINDOW]


async def test_what_was_broadcast_while_both_nodes_publish_comes_once_and_in_order(
    pair: list[Node],
    user: str,
) -> None:
    async with Phone(pair[0], user, "a") as one, Phone(pair[1], user, "b") as two:

        async def publisher(node: Node) -> list[str]:
            return [await tell_everyone(node, n) for n in range(25)]

        sent = asyncio.gather(*map(publisher, pair))
        # At once: who waits for the other acknowledges late, and is sent them again.
        both = await asyncio.gather(*(each.notifications(50, ack=True) for each in (one, two)))
        seen = [[n["id"] for n in notes] for notes in both]
        ids = sorted((i for part in await sent for i in part), key=order)
        assert seen == [ids, ids]
        await one.silent()
        await two.silent()


async def test_a_broadcast_that_is_not_stored_reaches_who_is_here(
    pair: list[Node], user: str
) -> None:
    await owed(pair[0], user, "away")
    async with Phone(pair[0], user) as phone, Phone(pair[1], f"{user}-2") as other:
        answer = await post(pair[0], {"broadcast": True}, "now", ephemeral=True)
        assert "id" not in answer
        for each in (phone, other):
            note = await each.notification()
            assert (note["ephemeral"], note["broadcast"], note["data"]) == (True, True, "now")
        await post(pair[0], {"broadcast": True}, "live", ttl=0)
        for each in (phone, other):
            note = await each.notification()
            assert note["data"] == "live"
            assert await acked(each, note["id"]) == note["id"]
    assert await owed(pair[1], user, "away") == []


async def test_only_the_newest_of_a_key_is_told_on_return(pair: list[Node], user: str) -> None:
    await owed(pair[0], user)
    for n in range(3):
        await tell_everyone(pair[0], n, collapse_key="score")
    assert await owed(pair[1], user) == [2]


async def test_the_broadcast_goes_on_after_redis_was_emptied(
    own_pair: list[Node], valkey: EmbeddedServer, prefix: str
) -> None:
    async with Phone(own_pair[0], "u1") as phone:
        sent = await tell_everyone(own_pair[0], "before")
        await phone.notification()
        assert await acked(phone, sent) == sent
        with Redis.from_url(valkey.url) as redis:
            for key in redis.scan_iter(f"{prefix}:*"):
                redis.delete(key)
        marker = uuid.uuid4().hex
        async with asyncio.timeout(30):
            await asyncio.to_thread(_until_accepted, own_pair[1], marker)
            while (message := await phone.receive()).get("data") != marker:
                assert message["type"] in ("gap", "notification"), message


def _until_accepted(node: Node, data: str) -> None:
    while True:
        answer = node.post("/v1/notifications", {"to": {"broadcast": True}, "data": data})
        if answer.status_code == 202:
            return
        time.sleep(0.1)
