"""What a backend, or a user, asks about a mailbox, and acknowledging over HTTP."""

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from pushsvc.server.embedded import EmbeddedServer
from tests.support.backend import problem, publish, publish_all
from tests.support.nodes import Node, nodes, publisher_token, token
from tests.support.phone import PATIENCE, Phone

pytestmark = pytest.mark.promise

PAGE = "https://app.example.com"
ADMIN = token("operator", "push.admin", ttl=86400)  # made when loaded, used much later


@pytest.fixture(scope="module")
def node(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node(
        valkey.url, tmp_path_factory.mktemp("users"), prefix="users", allowed_origins=PAGE
    ) as running:
        yield running


async def ask(
    node: Node, path: str, auth: str | None = None, method: str = "GET", **kwargs: Any
) -> httpx.Response:
    """A request; with the backend's token where none is given, and without one where it is ''."""
    auth = publisher_token() if auth is None else auth
    headers = {"Authorization": f"Bearer {auth}"} if auth else {}
    async with httpx.AsyncClient(base_url=node.url, timeout=20) as client:
        return await client.request(
            method, path, headers=headers | kwargs.pop("headers", {}), **kwargs
        )


async def listed(node: Node, user: str, auth: str | None = None, **query: Any) -> dict[str, Any]:
    """A page of what a user's mailbox keeps."""
    answer = await ask(node, f"/v1/users/{user}/notifications", auth, params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    page: dict[str, Any] = answer.json()
    assert set(page) == {"notifications", "next", "unread"}
    return page


async def present(node: Node, user: str, auth: str | None = None) -> dict[str, Any]:
    answer = await ask(node, f"/v1/users/{user}/presence", auth)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def ack(node: Node, user: str, **body: Any) -> httpx.Response:
    return await ask(node, "/v1/ack", token(user), "POST", json=body)


def instant(text: str) -> datetime:
    assert text.endswith("Z")
    return datetime.fromisoformat(text)


# --- what is kept --------------------------------------------------------------------------------


async def test_the_list_says_what_was_sent_when_and_who_acknowledged_it(
    node: Node, user: str
) -> None:
    async with Phone(node, user, "phone") as phone, Phone(node, user, "laptop") as laptop:
        await publish(node, user, {"n": 1}, event="a.b", ttl=60)
        second = await publish(node, user, [None, "é", 1.5])
        notes = await phone.notifications(2)
        await laptop.notifications(2)
        await phone.acked(notes[0]["id"])
        page = await listed(node, user)
    newest, oldest = page["notifications"]
    assert page["next"] is None
    assert newest["id"] == second
    assert newest["data"] == [None, "é", 1.5]
    assert newest["acked"] == []
    assert set(newest) == {"id", "time", "data", "expires", "acked", "read", "archived"}
    for name in ("id", "time", "event", "data"):
        assert oldest[name] == notes[0][name]
    assert instant(oldest["expires"]) - instant(oldest["time"]) == timedelta(seconds=60)
    (acked,) = oldest["acked"]
    assert acked["device"] == "phone"
    assert timedelta(0) <= instant(acked["time"]) - instant(oldest["time"]) < timedelta(minutes=1)


async def test_pages_follow_one_another_and_do_not_move(node: Node, user: str) -> None:
    sent = await publish_all(node, user, range(45))
    found = []
    query: dict[str, Any] = {"limit": 10}
    while True:
        page = await listed(node, user, **query)
        found.append([note["id"] for note in page["notifications"]])
        if page["next"] is None:
            break
        query["before"] = page["next"]
        await publish(node, user, "meanwhile")
    assert [len(each) for each in found] == [10, 10, 10, 10, 5]
    assert [each for page in found for each in page] == sent[::-1]
    assert len((await listed(node, user))["notifications"]) == 20


async def test_a_user_without_a_mailbox_has_an_empty_one(node: Node, user: str) -> None:
    assert await listed(node, user) == {"notifications": [], "next": None, "unread": 0}
    assert await present(node, user) == {"user": user, "online": False, "devices": []}


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=101", "limit=-1", "limit=1.0", "limit=", "limit=%201", "limit=٣",
        "limit=1000000000000000000000", "limit=5&limit=5", "before=", "before=1", "before=x-0",
        "before=1-0%0a", "before=99999999999999999999-0", "before=1-0&before=1-0", "limit=%ff",
    ],
)  # fmt: skip
async def test_a_query_that_says_nothing_is_refused(node: Node, user: str, query: str) -> None:
    found = problem(await ask(node, f"/v1/users/{user}/notifications?{query}"), 400, "invalid")
    assert query.partition("=")[0] in found["detail"]


@pytest.mark.parametrize("name", ["a%09b", "x" * 257, "é" * 129, "a%00"])
async def test_a_name_that_is_none_is_refused(node: Node, name: str) -> None:
    for what in ("notifications", "presence"):
        problem(await ask(node, f"/v1/users/{name}/{what}"), 400, "invalid_name")


async def test_what_is_no_utf_8_is_refused_with_what_to_change(node: Node) -> None:
    for path in ("/v1/users/%FF/presence", "/v1/user/presence?user=%FF", "/v1/topics/%FF/presence"):
        found = problem(await ask(node, path), 400, "invalid")
        assert "not UTF-8: percent-encode" in found["detail"]


async def test_a_query_that_names_no_user_or_two_is_refused(node: Node) -> None:
    found = problem(await ask(node, "/v1/user/presence"), 400, "invalid")
    assert found["detail"] == '"user" is missing: add ?user= to the path'
    found = problem(await ask(node, "/v1/topic/presence"), 400, "invalid")
    assert found["detail"] == '"topic" is missing: add ?topic= to the path'
    problem(await ask(node, "/v1/user/presence?user=a&user=b"), 400, "invalid")


@pytest.mark.parametrize("name", ["notifications", "presence", "disconnect", "user", "users"])
async def test_a_user_may_be_called_as_a_part_of_a_path(node: Node, name: str) -> None:
    sent = await publish(node, name, 1)
    for path in (f"/v1/users/{name}/notifications", f"/v1/user/notifications?user={name}"):
        page = (await ask(node, path)).json()
        assert page["notifications"][0]["id"] == sent
    for path in (f"/v1/users/{name}/presence", f"/v1/user/presence?user={name}"):
        assert (await ask(node, path)).json()["user"] == name
    recalled = await ask(node, f"/v1/user/notifications/{sent}?user={name}", method="DELETE")
    assert recalled.json() == {"id": sent, "acked": []}
    answer = await ask(node, f"/v1/user/disconnect?user={name}", ADMIN, "POST")
    assert (answer.status_code, answer.json()["user"]) == (201, name)


async def test_a_name_may_be_written_with_escapes(node: Node, user: str) -> None:
    sent = await publish(node, f"{user}@x:=", 1)
    page = await listed(node, f"{user}%40x%3A%3D")
    assert [note["id"] for note in page["notifications"]] == [sent]


@pytest.mark.parametrize("what", ["notifications", "presence"])
async def test_a_user_is_told_of_itself_a_backend_of_everyone(
    node: Node, user: str, what: str
) -> None:
    path = f"/v1/users/{user}/{what}"
    for allowed in (publisher_token(), ADMIN, token(user)):
        assert (await ask(node, path, allowed)).status_code == 200
    problem(await ask(node, path, token(user + "x")), 403, "forbidden")
    problem(await ask(node, path, ""), 401, "invalid_token")
    problem(await ask(node, path, "e30.e30.x"), 401, "invalid_token")


async def test_a_user_need_not_say_who_it_is_and_a_backend_has_to_say_whom_it_means(
    node: Node, user: str
) -> None:
    sent = await publish(node, user, 1)
    page = (await ask(node, "/v1/user/notifications?limit=1", token(user))).json()
    assert [note["id"] for note in page["notifications"]] == [sent]
    assert (await ask(node, "/v1/user/presence", token(user))).json()["user"] == user
    found = problem(await ask(node, "/v1/user/notifications"), 400, "invalid")
    assert found["detail"] == '"user" is missing: add ?user= to the path'
    problem(await ask(node, "/v1/user/notifications?user=", token(user)), 403, "forbidden")


async def test_a_user_that_asks_all_the_time_is_told_to_wait(node: Node, user: str) -> None:
    for _ in range(2000):
        answer = await ask(node, f"/v1/users/{user}/presence", token(user))
        if answer.status_code != 200:
            break
    problem(answer, 429, "rate_limited")
    assert (await ask(node, f"/v1/users/{user}/presence")).status_code == 200


# --- recall --------------------------------------------------------------------------------------


async def recall(
    node: Node, user: str, notification: str, auth: str | None = None
) -> httpx.Response:
    return await ask(node, f"/v1/users/{user}/notifications/{notification}", auth, "DELETE")


async def test_who_comes_after_a_recall_never_sees_the_notification(node: Node, user: str) -> None:
    sent = await publish_all(node, user, range(3))
    answer = await recall(node, user, sent[1])
    assert answer.status_code == 200
    assert answer.json() == {"id": sent[1], "acked": []}
    page = await listed(node, user)
    assert [note["id"] for note in page["notifications"]] == [sent[2], sent[0]]
    async with Phone(node, user) as phone:
        seen = [await phone.receive()]
        while seen[-1].get("data") != 2:
            seen.append(await phone.receive())
        assert [each["data"] for each in seen if each["type"] == "notification"] == [0, 2]
        await phone.silent()


async def test_who_holds_a_notification_is_told_that_it_is_recalled(
    valkey: EmbeddedServer, tmp_path: Path, user: str
) -> None:
    with nodes(2, valkey.url, tmp_path) as (here, there):
        async with Phone(here, user, "phone") as phone, Phone(there, user, "laptop") as laptop:
            sent = await publish(there, user, 1)
            await phone.notification()
            await laptop.notification()
            await laptop.acked(sent)
            assert (await recall(here, user, sent, ADMIN)).json()["acked"] == ["laptop"]
            told = {"type": "withdrawn", "id": sent, "reason": "recalled"}
            assert await phone.receive() == told


async def test_only_what_is_kept_can_be_recalled_and_only_by_a_backend(
    node: Node, user: str
) -> None:
    sent = await publish(node, user, 1)
    problem(await recall(node, user, sent, token(user)), 403, "forbidden")
    problem(await recall(node, user, sent, ""), 401, "invalid_token")
    problem(await recall(node, user + "x", sent), 404, "not_found")
    problem(await recall(node, user, "1-0"), 404, "not_found")
    problem(await recall(node, user, "latest"), 400, "invalid")
    problem(await recall(node, "a%09b", sent), 400, "invalid_name")
    assert len((await listed(node, user))["notifications"]) == 1


# --- presence ------------------------------------------------------------------------------------


async def test_a_user_is_there_while_a_device_is(node: Node, user: str) -> None:
    async with (
        Phone(node, user, "phone") as phone,
        Phone(node, user, "laptop"),
        Phone(node, user, "phone"),
    ):
        found = await present(node, user, token(user))
        assert (found["user"], found["online"]) == (user, True)
        laptop, there = found["devices"]
        assert (laptop["device"], laptop["connections"]) == ("laptop", 1)
        assert (there["device"], there["connections"]) == ("phone", 2)
        assert instant(there["since"]) <= instant(laptop["since"])
        await phone.drop()
        await until_present(node, user, {"laptop": 1, "phone": 1})
    await until_present(node, user, {})
    assert (await present(node, user))["online"] is False


async def test_a_dead_node_takes_its_devices_along(
    valkey: EmbeddedServer, tmp_path: Path, user: str
) -> None:
    with nodes(2, valkey.url, tmp_path, lease_seconds=1) as (dies, lives):
        async with Phone(lives, user, "phone"):
            laptop = Phone(dies, user, "laptop")
            await laptop.__aenter__()
            await until_present(lives, user, {"laptop": 1, "phone": 1})
            dies.kill()
            await until_present(lives, user, {"phone": 1})
            await laptop.drop()
        dies.start()


async def until_present(node: Node, user: str, devices: dict[str, int]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            found = (await present(node, user))["devices"]
            if {each["device"]: each["connections"] for each in found} == devices:
                return
            await asyncio.sleep(0.02)


# --- acknowledging -------------------------------------------------------------------------------


async def test_an_ack_over_http_counts_for_the_device(node: Node, user: str) -> None:
    async with Phone(node, user, "phone"), Phone(node, user, "default"):
        sent = await publish_all(node, user, range(3))
    answer = await ack(node, user, device="phone", id=sent[1])
    assert answer.status_code == 200
    assert answer.json() == {"acked": sent[1]}
    # Cumulative: one of an earlier id moves nothing, and says so.
    assert (await ack(node, user, device="phone", id=sent[0])).json() == {"acked": sent[1]}
    assert (await ack(node, user, id=sent[0])).json() == {"acked": sent[0]}
    async with Phone(node, user, "phone") as phone:
        assert [note["id"] for note in await phone.notifications(1)] == [sent[2]]
        await phone.silent()
    async with Phone(node, user, "default") as other:
        assert [note["id"] for note in await other.notifications(2)] == sent[1:]
    (_, _, oldest) = (await listed(node, user))["notifications"]
    assert {each["device"] for each in oldest["acked"]} == {"phone", "default"}
    assert all(each["time"] for each in oldest["acked"])


async def test_an_ack_is_of_the_tokens_user_only(node: Node, user: str) -> None:
    async with Phone(node, user, "phone"):
        sent = await publish(node, user, 1)
    assert (await ack(node, user + "x", device="phone", id=sent)).json()["acked"] != sent
    (note,) = (await listed(node, user))["notifications"]
    assert note["acked"] == []


async def test_a_device_that_never_listened_has_nothing_to_acknowledge(
    node: Node, user: str
) -> None:
    sent = await publish(node, user, 1)
    answer = await ack(node, user, device="nobody", id=sent)
    assert answer.json() == {"acked": "0-0"}
    (note,) = (await listed(node, user))["notifications"]
    assert note["acked"] == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid"),
        ({"id": 1}, "invalid"),
        ({"id": "x"}, "invalid"),
        ({"id": "1-0", "ref": 1}, "invalid"),
        ({"id": "1-0", "broadcast": 1}, "invalid"),
        ({"id": "1-0", "device": None}, "invalid"),
        ({"id": "1-0", "device": ""}, "invalid_name"),
        ({"id": "1-0", "device": "\nhead"}, "invalid_name"),
        ([], "invalid"),
    ],
)
async def test_an_ack_that_is_none_is_refused(node: Node, user: str, body: Any, code: str) -> None:
    problem(await ask(node, "/v1/ack", token(user), "POST", json=body), 400, code)


async def test_an_ack_is_json_with_a_token(node: Node, user: str) -> None:
    path = "/v1/ack"
    problem(await ask(node, path, "", "POST", json={"id": "1-0"}), 401, "invalid_token")
    content = {"content": b"{", "headers": {"Content-Type": "application/json"}}
    problem(await ask(node, path, token(user), "POST", **content), 400, "invalid_json")
    content = {"content": b"{}", "headers": {"Content-Type": "text/plain"}}
    problem(await ask(node, path, token(user), "POST", **content), 415, "unsupported_media_type")
    problem(await ask(node, path, token(user)), 405, "method_not_allowed")


# --- pages in browsers ---------------------------------------------------------------------------


async def test_a_page_may_ask_if_its_origin_is_listed(node: Node, user: str) -> None:
    paths = [f"/v1/users/{user}/notifications", f"/v1/users/{user}/presence", "/v1/ack"]
    for path in [*paths, f"/v1/users/{user}/notifications/1-0"]:
        answer = await ask(node, path, "", "OPTIONS", headers={"Origin": PAGE})
        assert answer.status_code == 204
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        foreign = {"Origin": "https://evil.example"}
        problem(await ask(node, path, "", "OPTIONS", headers=foreign), 403, "origin_refused")
    answer = await ask(node, paths[0], token(user), headers={"Origin": PAGE})
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
