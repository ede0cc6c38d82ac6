"""Publishes with a time: when they go out, to whom, and what takes them back."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

import httpx
import pytest

from tests.support.backend import problem, told
from tests.support.nodes import PLAIN, Node, publisher_token, token
from tests.support.phone import Phone
from tests.support.topics import Member, member, order, post

SOON: Final = 0.4
LATEST: Final = 3.0
"""Seconds from its time within which it is out: 1 is promised, a busy machine may take more."""
HOUR: Final = 3600.0


def ahead(seconds: float) -> str:
    """A time as callers write it: here and Redis have one clock."""
    return datetime.fromtimestamp(time.time() + seconds, UTC).isoformat()


def milliseconds(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def in_time(note: dict[str, Any], at: str) -> bool:
    """Whether a notification's id and time are those of when it was to go out."""
    out = order(note["id"])[0]
    assert milliseconds(note["time"]) == out
    return milliseconds(at) <= out < milliseconds(at) + LATEST * 1000


async def take_back(
    node: Node, scheduled: str, auth: str | None = None, **whom: str
) -> httpx.Response:
    """Recall something of a user or a topic, or what is for everyone."""
    ((kind, name),) = (whom or {"broadcast": ""}).items()
    path = f"{kind}s/{name}" if name else kind
    return await ask(node, "DELETE", f"/v1/{path}/notifications/{scheduled}", auth)


async def ask(
    node: Node, method: str, path: str, auth: str | None = None, **params: str
) -> httpx.Response:
    """A request, as a backend where no token is given."""
    headers = {"Authorization": f"Bearer {auth or publisher_token()}"}
    async with httpx.AsyncClient(verify=PLAIN, timeout=20) as client:
        return await client.request(method, node.url + path, headers=headers, params=params)


def send(node: Node, note: dict[str, Any], **headers: str) -> httpx.Response:
    return node.post("/v1/notifications", {"to": {"user": "u1"}, "data": 1} | note, headers=headers)


@pytest.mark.promise
async def test_each_kind_of_target_gets_it_at_its_time(node: Node, user: str) -> None:
    at = ahead(SOON)
    targets: tuple[dict[str, Any], ...] = (
        {"user": user}, {"users": [user, f"{user}-2"]}, {"topic": user}, {"broadcast": True},
    )  # fmt: skip
    async with Member(node, user) as phone, Phone(node, f"{user}-2") as other:
        await phone.subscribe(user)
        for number, to in enumerate(targets):
            answer = await post(node, to, number, at=at, event="reminder")
            for each in answer.get("results", [answer]):
                assert each.pop("id").startswith("s-")
                assert milliseconds(each.pop("at")) - milliseconds(at) in (0, 1)
                assert each == {"durability": "memory", "connections": 0}
        await phone.silent()
        notes = await phone.notifications(4)
        assert all(in_time(note, at) for note in notes), (at, notes)
        assert {note["data"]: note.get("topic", note.get("broadcast")) for note in notes} == {
            0: None, 1: None, 2: user, 3: True,
        }  # fmt: skip
        assert {note["event"] for note in notes} == {"reminder"}
        assert sorted([note["data"] for note in await other.notifications(2)]) == [1, 3]


async def test_a_time_has_any_offset_and_a_past_one_is_now(node: Node, user: str) -> None:
    async with Phone(node, user) as phone:
        for seconds in (0.2, 0, -60):
            when = datetime.now(timezone(timedelta(hours=-5))) + timedelta(seconds=seconds)
            assert send(node, {"to": {"user": user}, "at": when.isoformat()}).status_code == 202
            began = time.time()
            note = await phone.notification()
            assert order(note["id"])[0] / 1000 - began < LATEST + max(0, seconds)


async def test_its_time_to_live_and_its_receipt_count_from_then(node: Node, user: str) -> None:
    backend = publisher_token(f"backend-{user}")
    later = {"to": {"user": user}, "ttl": 60, "receipt": True, "at": ahead(SOON)}
    assert send(node, later, Authorization=f"Bearer {backend}").status_code == 202
    async with Phone(node, user) as phone:
        note = await phone.notification()
        page = (await ask(node, "GET", f"/v1/users/{user}/notifications")).json()
        (kept,) = page["notifications"]
        assert milliseconds(kept["expires"]) == order(note["id"])[0] + 60_000
        await phone.acked(note["id"])
    async with asyncio.timeout(10):
        while True:
            found = (await ask(node, "GET", "/v1/receipts", backend)).json()
            if found["receipts"]:
                break
            await asyncio.sleep(0.05)
    (receipt,) = found["receipts"]
    assert (receipt["notification"], receipt["status"]) == (note["id"], "acked")


async def test_what_is_live_only_reaches_who_is_there_then(node: Node, user: str) -> None:
    assert send(node, {"to": {"user": user}, "ttl": 0, "at": ahead(SOON)}).status_code == 202
    async with Phone(node, user) as phone:
        await phone.notification()
    async with Phone(node, user) as phone:
        await phone.silent()


@pytest.mark.promise
async def test_what_waits_is_taken_back_and_what_is_out_is_recalled(node: Node, user: str) -> None:
    async with Phone(node, user) as phone:
        never = (await post(node, {"user": user}, "never", at=ahead(SOON)))["id"]
        out = (await post(node, {"user": user}, "out", at=ahead(SOON)))["id"]
        gone = {"id": never, "acked": [], "cancelled": True}
        for _ in range(2):
            answer = await take_back(node, never, user=user)
            assert (answer.status_code, answer.json()) == (200, gone)
        note = await phone.notification()
        assert note["data"] == "out"
        await phone.acked(note["id"])
        answer = await take_back(node, out, user=user)
        assert answer.json() == {"id": out, "notification": note["id"], "acked": ["phone"]}
        assert (await take_back(node, never, user=user)).json() == gone
        await phone.silent()


@pytest.mark.parametrize("kind", ["topic", "broadcast"])
async def test_of_a_topic_and_the_broadcast_what_waits_is_taken_back(
    node: Node, user: str, kind: str
) -> None:
    to: dict[str, Any] = {"topic": user} if kind == "topic" else {"broadcast": True}
    whom = {"topic": user} if kind == "topic" else {}
    async with Member(node, user) as phone:
        await phone.subscribe(user)
        never, out = [(await post(node, to, each, at=ahead(SOON)))["id"] for each in (1, 2)]
        answer = await take_back(node, never, **whom)
        assert answer.json() == {"id": never, "acked": [], "cancelled": True}
        note = await phone.notification()
        assert note["data"] == 2
        told_late = problem(await take_back(node, out, **whom), 404, "not_found")
        assert note["id"] in told_late["detail"]
        problem(await take_back(node, note["id"], **whom), 400, "invalid")
    by_query = await ask(node, "DELETE", f"/v1/topic/notifications/{never}", topic=user)
    assert by_query.status_code == (200 if kind == "topic" else 404)


async def test_only_a_backend_takes_back_and_only_where_it_was_scheduled(
    node: Node, user: str
) -> None:
    scheduled = (await post(node, {"user": user}, 1, at=ahead(HOUR)))["id"]
    for whom in ({"user": user}, {"topic": user}, {}):
        problem(await take_back(node, scheduled, member(user), **whom), 403, "forbidden")
    for elsewhere in ({"user": f"{user}-2"}, {"topic": user}, {}):
        problem(await take_back(node, scheduled, **elsewhere), 404, "not_found")
    admin = token("operator", "push.admin")
    assert (await take_back(node, scheduled, admin, user=user)).json()["cancelled"] is True


async def test_a_batch_has_some_for_now_and_some_for_later(node: Node, user: str) -> None:
    late, to = ahead(HOUR), {"user": user}
    notes: list[dict[str, Any]] = [
        {"to": to, "data": 0}, {"to": to, "data": 1, "at": late}, {"to": to, "data": 2},
        {"to": to, "data": 3, "at": ahead(10 * 365 * 86400)}, {"to": to, "data": 4, "at": "soon"},
        {"to": {"topic": user}, "data": 5, "ephemeral": True},
    ]  # fmt: skip
    lines = "\n".join(json.dumps(note) for note in notes)
    ndjson = {"Content-Type": "application/x-ndjson"}
    for body in ({"json": {"notifications": notes}}, {"content": lines, "headers": ndjson}):
        answer = node.post("/v1/notifications/batch", **body)
        assert answer.status_code == 202, answer.text
        first, later, second, far, wrong, ephemeral = answer.json()["results"]
        assert order(first["id"]) < order(second["id"])
        assert later["id"].startswith("s-")
        told(far, 400, "invalid")
        assert "retention (604800 s)" in far["detail"]
        told(wrong, 400, "invalid")
        assert set(ephemeral) == {"durability", "connections"}
        assert (await take_back(node, later["id"], user=user)).status_code == 200


async def test_a_key_names_the_same_whenever_it_is_repeated(node: Node, user: str) -> None:
    note = {"to": {"user": user}, "at": ahead(SOON)}
    key = {"Idempotency-Key": f'"{user}"'}
    async with Phone(node, user) as phone:
        first = send(node, note, **key).json()
        assert send(node, note, **key).json() == first
        await phone.notification()
        assert send(node, note, **key).json() == first
        problem(send(node, note | {"at": ahead(HOUR)}, **key), 422, "idempotency_conflict")
        await phone.silent()


async def test_a_key_is_for_one_body_and_schedules_anew_what_was_recalled(
    node: Node, user: str
) -> None:
    note = {"to": {"user": user}, "at": ahead(HOUR)}
    key = {"Idempotency-Key": f'"{user}"'}
    first = send(node, note, **key).json()["id"]
    assert (await take_back(node, first, user=user)).json()["cancelled"] is True
    second = send(node, note, **key).json()["id"]
    assert second != first
    problem(send(node, note | {"data": 2}, **key), 422, "idempotency_conflict")
    assert (await take_back(node, second, user=user)).json()["cancelled"] is True


async def test_an_event_says_when(node: Node, user: str) -> None:
    at = ahead(SOON)
    headers = {
        "ce-specversion": "1.0", "ce-id": "1", "ce-source": f"/{user}", "ce-type": "reminder",
        "ce-pushuser": user, "ce-pushat": at, "Content-Type": "application/json",
    }  # fmt: skip
    async with Phone(node, user) as phone:
        answers = [node.post("/v1/notifications", 1, headers=headers).json() for _ in range(2)]
        assert answers[0] == answers[1]
        note = await phone.notification()
        assert in_time(note, at)
        await phone.silent()


@pytest.mark.parametrize(
    ("note", "why"),
    [
        ({"at": "2020-01-01T00:00:00Z"}, "is past: it is 20"),
        ({"at": "2999-01-01T00:00:00Z"}, "retention (604800 s) ahead, and it is 20"),
        ({"at": "2999-01-01T00:00:00"}, "offset from UTC"),
        ({"at": 1764000000}, "at"),
        ({"at": "2999-01-01T00:00:00Z", "ephemeral": True}, "never stored"),
    ],
)
def test_what_cannot_be_scheduled_is_told_what_to_change(
    node: Node, note: dict[str, Any], why: str
) -> None:
    assert why in problem(send(node, note), 400, "invalid")["detail"]


async def test_a_client_schedules_nothing_by_either_way(node: Node, user: str) -> None:
    auth = {"Authorization": f"Bearer {member(user)}"}
    note = {"to": {"topic": user}, "at": ahead(HOUR)}
    refused = problem(send(node, note, **auth), 403, "forbidden")
    assert "push.publish" in refused["detail"]
    async with Member(node, user) as phone:
        answer = await phone.ask(type="publish", topic=user, data=1, at=ahead(HOUR))
        assert (answer["type"], answer["code"]) == ("error", "invalid")
        assert "`at`" in answer["detail"]


async def test_a_mailbox_that_is_full_of_it_says_until_when(node: Node, user: str) -> None:
    at = ahead(HOUR)
    notes = [{"to": {"user": user}, "data": n, "at": at} for n in range(1000)]
    answer = node.post("/v1/notifications/batch", {"notifications": notes})
    scheduled = [each["id"] for each in answer.json()["results"]]
    full = problem(send(node, {"to": {"user": user}, "at": at}), 429, "too_many_requests")
    assert "1000 publishes" in full["detail"]
    assert HOUR - 60 < full["retry_after"] <= HOUR
    await take_back(node, scheduled[0], user=user)
    assert send(node, {"to": {"user": user}, "at": at}).status_code == 202


def test_how_late_they_go_out_is_measured(node: Node) -> None:
    out = node.metric("pushsvc_scheduled_late_seconds_count")
    assert out > 0
    assert node.metric("pushsvc_published_total", outcome="scheduled") >= out
    assert node.metric("pushsvc_scheduled_late_seconds_bucket", le="5.0") == out
    late = node.metric("pushsvc_scheduled_late_seconds_sum") / out
    print(f"{out:.0f} went out, {late * 1000:.0f} ms late")  # noqa: T201
