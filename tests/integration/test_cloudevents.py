"""CloudEvents on the publish API, sent by the official SDK."""

import asyncio
import base64
from typing import Any

import httpx
from cloudevents.core.bindings import http
from cloudevents.core.bindings.http import HTTPMessage
from cloudevents.core.v1.event import CloudEvent

from pushsvc.protocol import cloudevents
from tests.support.backend import problem
from tests.support.nodes import Node, publisher_token, token
from tests.support.phone import Phone


def event(user: str, data: Any = None, id_: str = "1", **attributes: Any) -> CloudEvent:
    return CloudEvent(
        {"id": id_, "source": f"/{user}", "type": "order.shipped", "pushuser": user, **attributes},
        data,
    )


def send(node: Node, message: HTTPMessage, path: str = "/v1/notifications") -> httpx.Response:
    headers = {"Authorization": f"Bearer {publisher_token()}", **message.headers}
    url = node.url + path
    return httpx.post(url, content=message.body, headers=headers, timeout=20)


def batch(*events: CloudEvent) -> HTTPMessage:
    bodies = [http.to_structured_event(each).body for each in events]
    return HTTPMessage({"Content-Type": cloudevents.BATCHED}, b"[" + b",".join(bodies) + b"]")


async def test_an_event_is_one_notification_however_often_and_in_whichever_mode_it_comes(
    node: Node, user: str
) -> None:
    sent = event(user, {"order": 17})
    messages = [http.to_binary_event(sent), http.to_structured_event(sent)]
    async with Phone(node, user) as phone:
        answers = [await asyncio.to_thread(send, node, message) for message in messages]
        assert [answer.status_code for answer in answers] == [202, 202]
        ids = {answer.json()["id"] for answer in answers}
        other = event(user, id_="2")
        answer = await asyncio.to_thread(send, node, batch(other, sent))
        assert answer.status_code == 202
        second, again = (result["id"] for result in answer.json()["results"])
        assert ids == {again}
        first_note, second_note = await phone.notifications(2)
    assert (first_note["id"], first_note["event"]) == (again, "order.shipped")
    assert first_note["data"] == {"order": 17}
    assert (second_note["id"], second_note["data"]) == (second, None)
    assert set(first_note) == {"type", "id", "time", "event", "data"}


async def test_text_and_bytes_come_as_a_string_and_as_base64(node: Node, user: str) -> None:
    kinds = {"text/plain": "grüß", "application/octet-stream": b"\xff\x00"}
    async with Phone(node, user) as phone:
        for media_type, data in kinds.items():
            sent = event(user, data, media_type, datacontenttype=media_type)
            answer = await asyncio.to_thread(send, node, http.to_binary_event(sent))
            assert answer.status_code == 202, answer.text
        text, encoded = await phone.notifications(2)
    assert text["data"] == "grüß"
    assert encoded["encoding"] == "base64"
    assert base64.b64decode(encoded["data"]) == b"\xff\x00"


async def test_an_event_reaches_a_topic(node: Node, user: str) -> None:
    auth = token(user, topics={"subscribe": ["**"]})
    async with Phone(node, user, auth=auth) as phone:
        await phone.send(type="subscribe", topic=user, ref=1)
        assert (await phone.receive())["ref"] == 1
        sent = CloudEvent({"id": "1", "source": f"/{user}", "type": "t", "pushtopic": user}, {})
        answer = await asyncio.to_thread(send, node, http.to_structured_event(sent))
        assert answer.status_code == 202, answer.text
        note = await phone.notification()
    assert (note["topic"], note["event"], note["data"]) == (user, "t", {})


def test_an_event_that_says_nothing_of_whom_it_is_for_is_refused(node: Node) -> None:
    sent = CloudEvent({"id": "1", "source": "/x", "type": "t"}, {})
    for message in (http.to_binary_event(sent), http.to_structured_event(sent), batch(sent)):
        assert "pushuser" in problem(send(node, message), 400, "invalid")["detail"]


def test_an_event_whose_type_is_no_name_is_refused(node: Node, user: str) -> None:
    message = http.to_structured_event(event(user, type="order shipped"))
    problem(send(node, message), 400, "invalid_name")


def test_a_format_that_is_not_read_is_refused(node: Node) -> None:
    message = HTTPMessage({"Content-Type": "application/cloudevents+avro"}, b"x")
    problem(send(node, message), 415, "unsupported_media_type")


def test_an_idempotency_key_beside_an_event_is_refused(node: Node, user: str) -> None:
    message = http.to_structured_event(event(user))
    message.headers["Idempotency-Key"] = '"x"'
    assert "Idempotency-Key" in problem(send(node, message), 400, "invalid")["detail"]


def test_a_batch_without_events_publishes_nothing(node: Node) -> None:
    answer = send(node, batch())
    assert answer.status_code == 202
    assert answer.json() == {"results": []}


def test_a_batch_with_a_malformed_event_is_refused_as_a_whole(node: Node, user: str) -> None:
    answer = send(node, batch(event(user), event(user, type="no name", id_="2")))
    assert problem(answer, 400, "invalid_name")["detail"].startswith("event 1 of the batch: ")
    listed = httpx.get(
        f"{node.url}/v1/users/{user}/notifications",
        headers={"Authorization": f"Bearer {publisher_token()}"},
        timeout=20,
    )
    assert listed.json()["notifications"] == []


def test_the_batch_address_takes_events_too_and_says_which_is_wrong(node: Node, user: str) -> None:
    path = "/v1/notifications/batch"
    assert send(node, batch(event(user, 1, "b1"), event(user, 2, "b2")), path).status_code == 202
    assert send(node, http.to_structured_event(event(user, 3, "b3")), path).status_code == 202
    wrong = event(user, 2, "b5", pushttl=-5)
    told = problem(send(node, batch(event(user, 1, "b4"), wrong), path), 400, "invalid")
    assert told["detail"].startswith("event 1 of the batch")
