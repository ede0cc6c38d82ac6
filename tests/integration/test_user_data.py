"""All that is kept of a user: told in parts, and erased to the last name."""

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import httpx
import pytest
import redis

from pushsvc.protocol.feeds import mailbox
from pushsvc.protocol.names import stored
from pushsvc.server.embedded import EmbeddedServer
from pushsvc.store.schema import Keys
from tests.support import acl
from tests.support.backend import problem
from tests.support.nodes import Node, nodes, token
from tests.support.phone import Phone

NAME: Final = "Zdeněk-erased|née"
PATIENCE: Final = 90.0
"""Seconds until a node has looked at what waited for it."""


@pytest.fixture(scope="module")
def pair(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    directory = tmp_path_factory.mktemp("user-data")
    url = acl.another(valkey, "eraser", "[erasing a user](data-requests.md)")
    with nodes(2, url, directory, prefix="userdata") as both:
        yield both


async def asked(
    node: Node, method: str, path: str, scope: str = "push.admin", **kwargs: Any
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token('admin', scope)}"} | kwargs.pop("headers", {})
    async with httpx.AsyncClient(timeout=30) as client:
        return await client.request(method, node.url + path, headers=headers, **kwargs)


async def publish(node: Node, to: dict[str, Any], data: Any, key: str = "", **fields: Any) -> str:
    headers = {"Idempotency-Key": f'"{key}"'} if key else {}
    body = {"to": to, "data": data, **fields}
    answer = await asyncio.to_thread(node.post, "/v1/notifications", body, headers=headers)
    assert answer.status_code == 202, answer.text
    sent: str = answer.json()["id"]
    return sent


async def export(node: Node, user: str) -> list[dict[str, Any]]:
    """All parts."""
    parts: list[dict[str, Any]] = []
    query: dict[str, str] = {"user": user}
    while True:
        answer = await asked(node, "GET", "/v1/user/export", params=query)
        assert answer.status_code == 200, answer.text
        parts.append(answer.json())
        if parts[-1]["next"] is None:
            return parts
        query["next"] = parts[-1]["next"]


def everything(raw: Any) -> Iterator[tuple[bytes, bytes]]:
    """Every key of these nodes, with what it holds."""
    reads: dict[bytes, Callable[[bytes], Any]] = {
        b"string": raw.get, b"hash": raw.hgetall, b"stream": raw.xrange,
        b"zset": lambda key: raw.zrange(key, 0, -1), b"set": raw.smembers,
    }  # fmt: skip
    for key in raw.scan_iter("userdata:*"):
        kind = raw.type(key)
        if kind in reads:
            yield key, repr(reads[kind](key)).encode()


def found(valkey: EmbeddedServer, user: str) -> list[bytes]:
    """The keys in which a user is named, but for the receipts that another publisher was given."""
    names = [form.encode() for form in (stored(user), user, repr(user.encode())[2:-1])]
    with redis.Redis.from_url(valkey.url) as raw:
        return [
            key
            for key, held in everything(raw)
            if not key.startswith(b"userdata:{r:backend}:")
            if any(name in key or name in held for name in names)
        ]


async def test_nothing_names_who_was_erased(pair: list[Node], valkey: EmbeddedServer) -> None:
    at = datetime.fromtimestamp(time.time() + 600, UTC).isoformat()
    soon = datetime.fromtimestamp(time.time() + 0.2, UTC).isoformat()
    to = {"user": NAME}
    async with Phone(pair[0], NAME, "phone") as phone, Phone(pair[1], NAME, "tab") as tab:
        sent = await publish(pair[1], to, 1, key="k-1", receipt=True)
        await publish(pair[0], to, 2, collapse_key="c", deliver="any-device")
        await publish(pair[0], {**to, "device": "watch"}, 3)
        await publish(pair[0], to, 4, key="k-2", at=soon)
        waiting = await publish(pair[0], to, 5, at=at, key="k-3")
        await publish(pair[0], to, 6, at=at)
        for device in (phone, tab):
            seen = 0
            while seen < 3:  # and the count, which what is for the watch has changed
                seen += (await device.receive())["type"] == "notification"
        auth = {"Authorization": f"Bearer {token(NAME)}"}
        await asked(pair[0], "POST", "/v1/user/archive", json={"ids": [sent]}, headers=auth)
        for device in (phone, tab):
            assert (await device.receive())["type"] == "archive"
        parts = await export(pair[0], NAME)
        (first, *_) = parts
        assert {each["device"] for each in first["devices"]} == {"phone", "tab", "watch"}
        assert {each["device"] for each in first["connections"]} == {"phone", "tab"}
        kept = [note for part in parts for note in part["notifications"]]
        assert [(note["data"], note["archived"]) for note in kept] == [
            (4, False), (3, False), (2, False), (1, True),
        ]  # fmt: skip
        scheduled = [each for part in parts for each in part["scheduled"]]
        assert [each["data"] for each in scheduled] == [5, 6]
        assert scheduled[0]["id"] == waiting
        assert found(valkey, NAME)

        answer = await asked(pair[1], "DELETE", f"/v1/users/{quote(NAME, safe='')}")
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert (told["user"], told["left"]) == (NAME, False)
        assert told["erased"] >= 8
        for device in (phone, tab):
            assert await device.closed() == 4001

    async with asyncio.timeout(PATIENCE):
        while found(valkey, NAME):
            await asyncio.sleep(0.2)
    for node in pair:
        observer = {"Authorization": f"Bearer {token('op', 'push.observe')}"}
        async with httpx.AsyncClient(headers=observer, timeout=30) as client:
            trace = (await client.get(f"{node.admin_url}/console/api/trace?id={sent}")).json()
        assert trace["status"] == "unknown"
        assert NAME not in node.log()
    left = (await export(pair[0], NAME))[0]
    assert (left["devices"], left["notifications"]) == ([], [])
    again = (await asked(pair[0], "DELETE", "/v1/user", params={"user": NAME})).json()
    assert again == {"user": NAME, "erased": 0, "left": False}


async def test_a_device_that_comes_back_begins_anew_without_a_gap(
    pair: list[Node], user: str
) -> None:
    auth = {"Authorization": f"Bearer {token(user)}"}

    async def poll(after: str = "") -> dict[str, Any]:
        params = {"device": "web", "wait": "0"} | ({"after": after} if after else {})
        async with httpx.AsyncClient(headers=auth) as client:
            answer = await client.get(f"{pair[0].url}/v1/poll", params=params)
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    await publish(pair[0], {"user": user}, 1)
    held = (await poll())["position"]
    assert (await asked(pair[1], "DELETE", f"/v1/users/{user}")).status_code == 200
    nothing = await poll(held)
    assert nothing["messages"] == []
    sent = await publish(pair[0], {"user": user}, 2)
    for position in (held, nothing["position"]):
        assert [each.get("id") for each in (await poll(position))["messages"]] == [sent]
    async with Phone(pair[1], user, "web") as phone:
        assert (await phone.notification())["id"] == sent
        assert await phone.acked(sent) == sent


async def test_what_is_published_meanwhile_is_erased_or_kept_whole(
    pair: list[Node], user: str
) -> None:
    async def some(node: Node, name: str) -> list[str]:
        return [await publish(node, {"user": user}, n, key=f"{name}-{n}") for n in range(20)]

    publishing = asyncio.gather(some(pair[0], "a"), some(pair[1], "b"))
    for _ in range(3):
        assert (await asked(pair[1], "DELETE", f"/v1/users/{user}")).status_code == 200
    sent = {each: n for ids in await publishing for n, each in enumerate(ids)}
    kept = [note["id"] for part in await export(pair[0], user) for note in part["notifications"]]
    assert set(kept) <= set(sent)
    # A retry of what is kept finds it, and what was erased can be published again.
    for name, node in (("a", pair[0]), ("b", pair[1])):
        for n in range(20):
            again = await publish(node, {"user": user}, n, key=f"{name}-{n}")
            assert (again in sent) == (again in kept)


async def test_what_an_erasure_left_that_failed_on_its_way_is_erased_by_the_next(
    pair: list[Node], user: str, valkey: EmbeddedServer
) -> None:
    at = datetime.fromtimestamp(time.time() + 600, UTC).isoformat()
    await publish(pair[0], {"user": user}, 1, key=f"{user}-1")
    await publish(pair[0], {"user": user}, 2, key=f"{user}-2", at=at)
    with redis.Redis.from_url(valkey.url) as raw:
        raw.delete(*Keys("userdata").all_of(mailbox(user)))
    told = (await asked(pair[1], "DELETE", f"/v1/users/{user}")).json()
    assert told["left"] is False
    names = [each for each in found(valkey, user) if b":once:" in each or b":became:" in each]
    assert names == []


async def test_all_that_is_scheduled_is_told_whatever_goes_out_meanwhile(
    pair: list[Node], user: str, valkey: EmbeddedServer
) -> None:
    soon = datetime.fromtimestamp(time.time() + 600, UTC).isoformat()
    later = datetime.fromtimestamp(time.time() + 900, UTC).isoformat()
    sent = [
        await publish(pair[0], {"user": user}, n, at=soon if n < 20 else later) for n in range(40)
    ]
    keys = Keys("userdata")
    with redis.Redis.from_url(valkey.url) as raw:
        # One that only newer nodes can read.
        raw.hset(keys.scheduled(mailbox(user)), sent[3], b"?")
    first = (await asked(pair[0], "GET", "/v1/user/export", params={"user": user})).json()
    gone = first["scheduled"][0]["id"]
    with redis.Redis.from_url(valkey.url) as raw:
        raw.zadd(keys.times(mailbox(user)), {gone: 0})
    read, following = [each["id"] for each in first["scheduled"]], first["next"]
    notifications = []
    while following:
        params = {"user": user, "next": following}
        part = (await asked(pair[0], "GET", "/v1/user/export", params=params)).json()
        read += [each["id"] for each in part["scheduled"]]
        notifications += part["notifications"]
        following = part["next"]
    assert sorted(set(read)) == sorted({*sent} - {sent[3]})
    for wrong in ("s:", "s:1", "s:x:1", "n:", "q:1-1"):
        params = {"user": user, "next": wrong}
        answer = await asked(pair[0], "GET", "/v1/user/export", params=params)
        assert answer.status_code == 400


async def test_names_that_may_not_be_looked_for_are_left_and_that_is_told(
    node: Node, user: str
) -> None:
    await publish(node, {"user": user}, 1, key="k")
    told = (await asked(node, "DELETE", f"/v1/users/{user}")).json()
    assert told == {"user": user, "erased": 2, "left": True}
    assert (await export(node, user))[0]["notifications"] == []


async def test_a_large_mailbox_is_told_in_parts(pair: list[Node], user: str) -> None:
    size = 40_000
    for start in range(0, 60, 20):
        notes = [{"to": {"user": user}, "data": "x" * size} for _ in range(start, start + 20)]
        answer = await asyncio.to_thread(
            pair[0].post, "/v1/notifications/batch", {"notifications": notes}
        )
        assert answer.status_code == 202
    parts = await export(pair[0], user)
    told = [len(part["notifications"]) for part in parts]
    assert sum(told) == 60
    assert max(told) * size < 700_000


async def test_only_an_administrator_may(pair: list[Node], user: str) -> None:
    for method, path in (("DELETE", ""), ("GET", "/export")):
        for scope in ("push.publish", "push.observe", ""):
            answer = await asked(pair[0], method, f"/v1/users/{user}{path}", scope)
            problem(answer, 403, "forbidden")
        answer = await asked(pair[0], method, f"/v1/user{path}")
        problem(answer, 400, "invalid")
    for place in ("x", "n:", "n:1", "s:-1", "s:1e3", "s:" + "9" * 30):
        answer = await asked(pair[0], "GET", f"/v1/users/{user}/export", params={"next": place})
        problem(answer, 400, "invalid")
