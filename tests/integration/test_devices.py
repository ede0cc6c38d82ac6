"""Several connections of one user: what one settles, and what the others are told of it."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from pushsvc.server.embedded import EmbeddedServer
from tests.support.backend import problem, publish, publish_all
from tests.support.events import Stream
from tests.support.nodes import Node, nodes, publisher_token, token
from tests.support.phone import Phone

pytestmark = pytest.mark.promise

WINDOW = 3


@pytest.fixture(scope="module")
def pair(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    with nodes(
        2, valkey.url, tmp_path_factory.mktemp("devices"), prefix="devices", ack_window=WINDOW,
        ack_timeout_seconds=30,
    ) as both:  # fmt: skip
        yield both


async def by_request(
    node: Node, user: str, device: str, notification_id: str, **fields: Any
) -> str:
    """Acknowledge by request; the device's position."""
    body = {"device": device, "id": notification_id, **fields}
    headers = {"Authorization": f"Bearer {token(user)}"}
    answer = await asyncio.to_thread(node.post, "/v1/ack", body, headers=headers)
    assert answer.status_code == 200, answer.text
    position: str = answer.json()["acked"]
    return position


async def recall(node: Node, user: str, notification_id: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {publisher_token()}"}
    async with httpx.AsyncClient(headers=headers) as client:
        return await client.delete(f"{node.url}/v1/users/{user}/notifications/{notification_id}")


async def owed(node: Node, user: str, device: str) -> list[str]:
    """The ids that a device is sent when it connects, at most a window of them."""
    return [message["id"] for message in await told(node, user, device)]


async def told(
    node: Node, user: str, device: str, kind: str = "notification"
) -> list[dict[str, Any]]:
    """The messages of a kind that a device is sent when it connects."""
    async with Phone(node, user, device) as phone:
        await phone.send(type="ping")
        found = []
        while (message := await phone.receive())["type"] != "pong":
            assert message["type"] in ("notification", "withdrawn"), message
            found.append(message)
        return [message for message in found if message["type"] == kind]


# --- one device, several connections -------------------------------------------------------------


@pytest.mark.parametrize("other", [0, 1])
async def test_an_ack_on_one_socket_opens_the_window_of_another_of_the_device(
    pair: list[Node], user: str, other: int
) -> None:
    async with Phone(pair[0], user) as one, Phone(pair[other], user) as two:
        sent = await publish_all(pair[0], user, range(2 * WINDOW))
        for phone in (one, two):
            assert [n["id"] for n in await phone.notifications(WINDOW)] == sent[:WINDOW]
        started = time.monotonic()
        await one.ack(sent[WINDOW - 1])
        for phone in (one, two):
            assert [n["id"] for n in await phone.notifications(WINDOW)] == sent[WINDOW:]
        assert time.monotonic() - started < 5  # no need to wait for its own ack to be overdue
        assert await two.acked(sent[-1]) == sent[-1]
    assert await owed(pair[1], user, "phone") == []


async def test_an_ack_counts_on_sockets_streams_and_polls_alike(
    pair: list[Node], user: str
) -> None:
    headers = {"Authorization": f"Bearer {token(user)}"}
    async with (
        Phone(pair[0], user) as phone,
        Stream(pair[1], user) as stream,
        httpx.AsyncClient(base_url=pair[0].url, headers=headers, timeout=20) as client,
    ):

        async def polled(wait: float = 0) -> list[dict[str, Any]]:
            query = {"device": "phone", "wait": f"{wait:g}"}
            answer = await client.get("/v1/poll", params=query)
            messages: list[dict[str, Any]] = answer.json()["messages"]
            return messages

        sent = await publish_all(pair[1], user, range(3 * WINDOW))
        first = await phone.notifications(WINDOW)
        assert await stream.notifications(WINDOW) == first == await polled()
        # On the socket.
        await phone.ack(sent[WINDOW - 1])
        second = await phone.notifications(WINDOW)
        assert await stream.notifications(WINDOW) == second == await polled()
        # By request.
        held = sent[2 * WINDOW - 1]
        assert await by_request(pair[1], user, "phone", held) == held
        third = await phone.notifications(WINDOW)
        assert await stream.notifications(WINDOW) == third == await polled()
        assert [n["id"] for n in first + second + third] == sent
        # Another device has acknowledged nothing of it.
        assert await owed(pair[0], user, "tablet") == sent[2 * WINDOW :]


async def test_a_device_of_its_own_keeps_a_place_of_its_own(pair: list[Node], user: str) -> None:
    async with Phone(pair[0], user, "a") as a, Phone(pair[1], user, "b") as b:
        sent = await publish_all(pair[0], user, range(WINDOW + 1))
        await a.notifications(WINDOW)
        await b.notifications(WINDOW)
        await by_request(pair[1], user, "a", sent[WINDOW - 1])
        assert (await a.notification())["id"] == sent[WINDOW]
        await b.silent()
    assert await owed(pair[0], user, "b") == sent[:WINDOW]


async def test_an_ack_by_request_of_what_is_not_ones_own_changes_nothing(
    pair: list[Node], user: str
) -> None:
    async with Stream(pair[0], user) as stream:
        sent = await publish_all(pair[0], user, range(WINDOW + 1))
        theirs = await publish(pair[0], user + "-other", 1)
        await stream.notifications(WINDOW)
        ahead = f"{int(sent[-1].split('-')[0]) + 5000}-0"
        for never in (theirs, ahead, "1-0", "0-0"):
            assert await by_request(pair[1], user, "phone", never) == "0-0"
        assert await by_request(pair[1], user, "never-seen", sent[0]) == "0-0"
        await stream.quiet()
        wrong: Any
        for wrong in ({"id": "x"}, {}, {"id": sent[0], "device": "a\tb"}, {"id": 5}, []):
            headers = {"Authorization": f"Bearer {token(user)}"}
            answer = await asyncio.to_thread(pair[0].post, "/v1/ack", wrong, headers=headers)
            assert answer.status_code == 400
        answer = await asyncio.to_thread(httpx.post, pair[0].url + "/v1/ack", json={"id": sent[0]})
        problem(answer, 401, "invalid_token")


# --- any device ----------------------------------------------------------------------------------


async def test_what_any_device_may_settle_is_withdrawn_from_the_others(
    pair: list[Node], user: str
) -> None:
    async with (
        Phone(pair[0], user, "a") as a,
        Phone(pair[0], user, "b") as b,
        Phone(pair[1], user, "c") as c,
    ):
        sent = await publish(pair[1], user, "call", deliver="any-device")
        for phone in (a, b, c):
            assert (await phone.notification())["id"] == sent
        assert await a.acked(sent) == sent
        for phone in (b, c):
            assert await phone.receive() == {"type": "withdrawn", "id": sent, "reason": "acked"}
            await phone.silent()
        await a.silent()
    for device in "abc":
        assert await owed(pair[0], user, device) == []


async def test_a_device_that_was_away_is_not_sent_what_another_settled(
    pair: list[Node], user: str
) -> None:
    for device in "ab":
        assert await owed(pair[0], user, device) == []
    first = await publish(pair[0], user, 1)
    call = await publish(pair[0], user, "call", deliver="any-device")
    last = await publish(pair[0], user, 2)
    async with Phone(pair[1], user, "a") as phone:
        await phone.notifications(3)
        assert await phone.acked(call) == call
    assert await owed(pair[0], user, "b") == [first, last]
    assert await owed(pair[0], user, "a") == [last]


async def test_a_stream_that_was_cut_off_is_told_on_its_return_what_another_settled(
    pair: list[Node], user: str
) -> None:
    async with Stream(pair[0], user, "b") as stream:
        call = await publish(pair[0], user, "call", deliver="any-device")
        assert (await stream.notification())["id"] == call
        after = stream.last_id
    async with Phone(pair[1], user, "a") as phone:
        await phone.notification()
        assert await phone.acked(call) == call
    async with Stream(pair[1], user, "b", after=after) as stream:
        async with asyncio.timeout(10):
            message = await stream.message()
        assert message == {"type": "withdrawn", "id": call, "reason": "acked"}


async def test_an_ack_by_request_settles_for_all_devices_too(pair: list[Node], user: str) -> None:
    async with Phone(pair[0], user, "a") as a, Stream(pair[1], user, "b") as b:
        sent = await publish(pair[0], user, "call", deliver="any-device")
        await a.notification()
        await b.notification()
        assert await by_request(pair[0], user, "b", sent) == sent
        assert await a.receive() == {"type": "withdrawn", "id": sent, "reason": "acked"}
        assert await b.message() == {"type": "read", "ids": [], "unread": 0}
        await b.quiet()


async def test_what_is_withdrawn_makes_room_in_the_window(pair: list[Node], user: str) -> None:
    async with Phone(pair[0], user, "a") as a, Phone(pair[1], user, "b") as b:
        sent = await publish_all(pair[0], user, range(WINDOW), deliver="any-device")
        last = await publish(pair[0], user, "last")
        for phone in (a, b):
            await phone.notifications(WINDOW)
            await phone.silent()
        await a.ack(sent[-1])
        assert (await a.notification())["id"] == last
        messages = [await b.receive() for _ in range(WINDOW + 1)]
        withdrawn = [m["id"] for m in messages if m["type"] == "withdrawn"]
        assert withdrawn == sent
        assert [m["id"] for m in messages if m["type"] == "notification"] == [last]


# --- one device ----------------------------------------------------------------------------------


async def to_device(node: Node, user: str, device: str, data: Any, **fields: Any) -> dict[str, Any]:
    """Publish to one device; the answer."""
    body = {"to": {"user": user, "device": device}, "data": data, **fields}
    answer = await asyncio.to_thread(node.post, "/v1/notifications", body)
    assert answer.status_code == 202, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def test_what_is_for_one_device_comes_to_that_alone(pair: list[Node], user: str) -> None:
    async with (
        Phone(pair[0], user, "a") as a,
        Phone(pair[1], user, "b") as b,
        Stream(pair[0], user, "b") as stream,
    ):
        for fields in ({}, {"ttl": 0}, {"ephemeral": True}, {"collapse_key": "k"}):
            told = await to_device(pair[1], user, "a", 1, **fields)
            assert told["connections"] == 1
            assert (await a.notification()).get("id") == told.get("id")
        assert await a.acked(told["id"]) == told["id"]
        for phone in (a, b):
            await phone.silent()
        # They went on behind it: what is for all comes at once, and none is missing.
        everybodys = await publish(pair[0], user, "all")
        for listener in (a, b, stream):
            assert (await listener.notification())["id"] == everybodys
        assert await b.acked(everybodys) == everybodys
        last = (await to_device(pair[0], user, "b", 2))["id"]
        for listener in (b, stream):
            assert (await listener.notification())["id"] == last
        await a.silent()
    assert await owed(pair[1], user, "b") == [last]


async def test_more_than_a_window_for_others_holds_nobody_up(pair: list[Node], user: str) -> None:
    async with Phone(pair[0], user, "a") as a:
        held = await publish_all(pair[0], user, range(WINDOW))
        await a.notifications(WINDOW)
        for number in range(3 * WINDOW):
            await to_device(pair[0], user, "b", number)
        last = await publish(pair[0], user, "last")
        await a.silent()
        await a.ack(held[-1])
        assert (await a.notification())["id"] == last


async def test_a_device_that_never_came_is_owed_what_was_for_it(
    pair: list[Node], user: str
) -> None:
    async with Phone(pair[0], user, "a") as a:
        own = (await to_device(pair[0], user, "new", 1))["id"]
        everybodys = await publish(pair[0], user, 2)
        await a.notification()
        assert await a.acked(everybodys) == everybodys
        polled = f"{pair[1].url}/v1/poll?device=new&wait=0"
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token(user)}"}) as client:
            messages = (await client.get(polled)).json()["messages"]
        assert [each["id"] for each in messages] == [own, everybodys]
        assert await by_request(pair[1], user, "a", own) == everybodys
        assert await by_request(pair[1], user, "new", own) == own
    assert await owed(pair[1], user, "other") == []


async def test_a_recall_of_what_is_for_one_device_is_told_to_that_alone(
    pair: list[Node], user: str
) -> None:
    async with Phone(pair[0], user, "a") as a, Phone(pair[1], user, "b") as b:
        own = (await to_device(pair[1], user, "a", 1))["id"]
        everybodys = await publish(pair[1], user, 2)
        await a.notifications(2)
        await b.notification()
        assert await b.acked(everybodys) == everybodys
        for _ in range(2):
            answer = await recall(pair[0], user, own)
            assert answer.json() == {"id": own, "acked": []}
        assert await a.receive() == {"type": "withdrawn", "id": own, "reason": "recalled"}
        for phone in (a, b):
            await phone.silent()
    assert await told(pair[0], user, "b", "withdrawn") == []


async def test_what_is_scheduled_for_one_device_goes_out_to_that_alone(
    pair: list[Node], user: str
) -> None:
    at = datetime.fromtimestamp(time.time() + 0.3, UTC).isoformat()
    async with Phone(pair[0], user, "a") as a, Phone(pair[1], user, "b") as b:
        await to_device(pair[0], user, "a", "later", at=at)
        assert (await a.notification())["data"] == "later"
        await b.silent()
    headers = {"Authorization": f"Bearer {token(user)}"}
    async with httpx.AsyncClient(headers=headers) as client:
        (kept,) = (await client.get(f"{pair[0].url}/v1/user/notifications")).json()["notifications"]
    assert kept["device"] == "a"


# --- recall --------------------------------------------------------------------------------------


async def test_a_recalled_notification_is_withdrawn_from_who_holds_it(
    pair: list[Node], user: str
) -> None:
    async with (
        Phone(pair[0], user, "a") as a,
        Phone(pair[1], user, "b") as b,
        Stream(pair[1], user, "c") as c,
    ):
        sent = await publish_all(pair[0], user, range(2))
        for phone in (a, b):
            await phone.notifications(2)
        await c.notifications(2)
        assert await a.acked(sent[0]) == sent[0]
        assert (await recall(pair[1], user, sent[0])).status_code == 200
        told = {"type": "withdrawn", "id": sent[0], "reason": "recalled"}
        assert await b.receive() == told
        assert await c.message() == told
        await a.silent()  # it is done with it
        assert (await recall(pair[0], user, sent[1])).status_code == 200
        told = {"type": "withdrawn", "id": sent[1], "reason": "recalled"}
        assert await a.receive() == await b.receive() == await c.message() == told
        assert (await recall(pair[0], user, sent[1])).status_code == 200  # the same again
        never = f"{int(sent[1].split('-')[0]) + 5000}-0"
        problem(await recall(pair[0], user, never), 404, "not_found")
    for device in "abc":
        assert await owed(pair[0], user, device) == []


async def test_a_device_that_was_away_never_sees_what_was_recalled(
    pair: list[Node], user: str
) -> None:
    assert await owed(pair[0], user, "a") == []
    sent = await publish_all(pair[0], user, range(3))
    await recall(pair[1], user, sent[1])
    assert await owed(pair[0], user, "a") == [sent[0], sent[2]]
    # It may have been sent it before it was cut off, so it is told.
    (message,) = await told(pair[1], user, "a", "withdrawn")
    assert message == {"type": "withdrawn", "id": sent[1], "reason": "recalled"}


async def test_a_recall_makes_room_in_the_window(pair: list[Node], user: str) -> None:
    async with Phone(pair[0], user, "a") as phone:
        sent = await publish_all(pair[0], user, range(WINDOW + 1))
        await phone.notifications(WINDOW)
        await recall(pair[1], user, sent[0])
        messages = [await phone.receive() for _ in range(2)]
        assert {m["type"]: m["id"] for m in messages} == {
            "withdrawn": sent[0], "notification": sent[-1],
        }  # fmt: skip
        assert await phone.acked(sent[-1]) == sent[-1]
