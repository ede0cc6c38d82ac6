"""The publish API: what it accepts, what it refuses and how, and what it promises."""

import asyncio
import gzip
import json
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from pushsvc.server.embedded import EmbeddedServer, find_server
from tests.support.backend import problem, publish, publish_all, told
from tests.support.failover import ask
from tests.support.nodes import Node, publisher_token, token, wait_until
from tests.support.phone import Phone
from tests.support.raw import Raw, request

pytestmark = pytest.mark.promise

ONE = "/v1/notifications"
BATCH = "/v1/notifications/batch"
MAX_BODY = 300_000


@pytest.fixture(scope="module")
def node(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node(
        valkey.url, tmp_path_factory.mktemp("publish"), prefix="publish", max_body_bytes=MAX_BODY
    ) as running:
        yield running


def to(user: str, data: Any = 1, **fields: Any) -> dict[str, Any]:
    return {"to": {"user": user}, "data": data, **fields}


def raw_body(node: Node, body: bytes, path: str = ONE, **headers: str) -> httpx.Response:
    kind = {"Content-Type": "application/json"}
    return node.post(path, content=body, headers=kind | headers)


# --- what is accepted ----------------------------------------------------------------------------


async def test_the_answer_names_the_id_the_durability_and_who_listens(
    node: Node, user: str
) -> None:
    async with Phone(node, user, "a") as a, Phone(node, user, "b"):
        answer = await asyncio.to_thread(node.post, ONE, to(user))
        assert answer.status_code == 202
        assert answer.headers["Content-Type"] == "application/json"
        assert set(answer.json()) == {"id", "durability", "connections"}
        assert answer.json()["durability"] == "memory"
        assert answer.json()["connections"] == 2
        note = await a.notification()
        assert note["id"] == answer.json()["id"]
        assert set(note) == {"type", "id", "time", "data"}
    answer = await asyncio.to_thread(node.post, ONE, to(user + "-nobody"))
    assert answer.json()["connections"] == 0


@pytest.mark.parametrize(
    "data",
    [
        None, True, 0, -1, 2**53, 2**63, 2**64, 1.5, 1e308, 5e-324, "", "a\0b\n\t\\/", '"',
        "é😀\u202e\u2028", [], {}, {"": ""}, [[[]]], {"a": {"b": [1, None, {"c": "d"}]}},
        "x" * 60_000,
        {"type": "welcome", "id": "1-0"},
    ],
    ids=lambda data: repr(data)[:30],
)  # fmt: skip
async def test_data_arrives_as_it_was_sent(node: Node, user: str, data: Any) -> None:
    async with Phone(node, user) as phone:
        await publish(node, user, data, event="a.b")
        note = await phone.notification()
        assert note["data"] == data
        assert type(note["data"]) is type(data)
        assert note["event"] == "a.b"


async def test_the_deepest_data_that_is_accepted_arrives(node: Node, user: str) -> None:
    deep: Any = 1
    for _ in range(64):
        deep = [deep]
    async with Phone(node, user) as phone:
        await publish(node, user, deep)
        assert (await phone.notification())["data"] == deep
    problem(await asyncio.to_thread(node.post, ONE, to(user, [deep])), 400, "invalid_json")


async def test_a_list_of_users_is_answered_one_by_one(node: Node, user: str) -> None:
    users = [f"{user}-{number}" for number in range(3)]
    async with Phone(node, users[1]) as phone:
        answer = await asyncio.to_thread(node.post, ONE, {"to": {"users": users}, "data": 1})
        assert answer.status_code == 202
        assert set(answer.json()) == {"results"}
        results = answer.json()["results"]
        assert [result["connections"] for result in results] == [0, 1, 0]
        assert (await phone.notification())["id"] == results[1]["id"]
    for number in (0, 2):
        async with Phone(node, users[number]) as phone:
            assert (await phone.notification())["id"] == results[number]["id"]


@pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson"])
async def test_a_batch_is_answered_item_by_item_in_order(node: Node, user: str, kind: str) -> None:
    items: list[Any] = [
        to(user, 0),
        to("not\ta name", 1),
        to(user, 2, event="x y"),
        to(user, 3, event="kept"),
        7,
        {"to": {}, "data": 5},
        to(user, "x" * 70_000),
        {"to": {"users": [user, user + "-b"]}, "data": 7},
        to(user, 8, unknown=1),
        to(user, 9, ttl=0),
    ]
    if kind == "application/json":
        body = json.dumps({"notifications": items}).encode()
    else:
        body = b"\n".join(json.dumps(item).encode() for item in items) + b"\n\n  \r\n"
    async with Phone(node, user) as phone:
        answer = await asyncio.to_thread(raw_body, node, body, BATCH, **{"Content-Type": kind})
        assert answer.status_code == 202, answer.text
        results = answer.json()["results"]
        assert len(results) == len(items)
        codes = {1: "invalid_name", 2: "invalid_name", 4: "invalid", 5: "invalid", 8: "invalid"}
        for number, code in codes.items():
            told(results[number], 400, code)
        told(results[6], 413, "too_large")
        good = [results[0], results[3], results[7]["results"][0], results[9]]
        notes = await phone.notifications(4)
        assert [note["id"] for note in notes] == [each["id"] for each in good]
        assert [note["data"] for note in notes] == [0, 3, 7, 9]
        assert results[9]["durability"] == "none"


async def test_lines_that_are_not_json_do_not_hold_up_the_others(node: Node, user: str) -> None:
    good = json.dumps(to(user)).encode()
    body = b"\n".join([b"{", good, b'{"a":1,"a":2}', b"\xff", b"[" * 9_000, good, b"null"])
    kind = {"Content-Type": "application/x-ndjson"}
    answer = await asyncio.to_thread(raw_body, node, body, BATCH, **kind)
    results = answer.json()["results"]
    assert ["id" in each for each in results] == [False, True, False, False, False, True, False]
    for number in (0, 2, 3, 4):
        told(results[number], 400, "invalid_json")
    told(results[6], 400, "invalid")


async def test_a_batch_of_a_thousand_arrives_in_order(node: Node, user: str) -> None:
    async with Phone(node, user) as phone:
        sent = await publish_all(node, user, range(1000))
        notes = await phone.notifications(1000, ack=True)
        assert [note["id"] for note in notes] == sent
        assert [note["data"] for note in notes] == list(range(1000))


@pytest.mark.parametrize(
    "body",
    [
        {}, {"notifications": {}}, {"notifications": []}, {"notifications": None}, [],
        {"notifications": [to("u1")], "more": 1}, {"notifications": [to("u1")] * 1001},
        {"notifications": [{"to": {"users": [f"u{n}" for n in range(600)]}, "data": 1}] * 2},
    ],
    ids=lambda body: json.dumps(body)[:40],
)  # fmt: skip
def test_what_is_no_batch_is_refused_as_a_whole(node: Node, body: Any) -> None:
    problem(node.post(BATCH, body), 400, "invalid")


def test_a_content_type_may_have_parameters_and_any_case(node: Node, user: str) -> None:
    body = json.dumps(to(user)).encode()
    answer = raw_body(node, body, **{"Content-Type": "Application/JSON; charset=utf-8"})
    assert answer.status_code == 202


def test_a_client_that_expects_100_continue_gets_it(node: Node, user: str) -> None:
    body = json.dumps(to(user)).encode()
    head = (
        f"POST {ONE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {publisher_token()}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Expect: 100-continue\r\n\r\n"
    )
    with Raw(node) as raw:
        raw.send(head.encode())
        assert raw.answer().status_code == 100
        raw.send(body)
        assert raw.answer().status_code == 202


# --- idempotency ---------------------------------------------------------------------------------


def with_key(node: Node, key: str, body: Any, *, publisher: str = "backend",
             path: str = ONE) -> httpx.Response:  # fmt: skip
    auth = publisher_token(publisher)
    headers = {"Idempotency-Key": key, "Authorization": f"Bearer {auth}"}
    return node.post(path, body, headers=headers)


def test_the_same_key_and_body_is_the_same_notification(node: Node, user: str) -> None:
    first = with_key(node, f'"{user}"', to(user))
    again = with_key(node, f'"{user}"', to(user))
    assert first.status_code == again.status_code == 202
    assert first.json() == again.json()
    assert with_key(node, f'"{user}-2"', to(user)).json()["id"] != first.json()["id"]


def test_the_same_key_with_another_body_is_refused_with_422(node: Node, user: str) -> None:
    first = with_key(node, f'"{user}"', to(user, 1))
    problem(with_key(node, f'"{user}"', to(user, 2)), 422, "idempotency_conflict")
    problem(with_key(node, f'"{user}"', to(user + "-2", 1)), 422, "idempotency_conflict")
    batch = {"notifications": [to(user, 1)]}
    problem(with_key(node, f'"{user}"', batch, path=BATCH), 422, "idempotency_conflict")
    assert with_key(node, f'"{user}"', to(user, 1)).json() == first.json()


def test_a_key_belongs_to_its_publisher(node: Node, user: str) -> None:
    mine = with_key(node, f'"{user}"', to(user, 1))
    theirs = with_key(node, f'"{user}"', to(user, 2), publisher="another")
    assert theirs.status_code == 202
    assert theirs.json()["id"] != mine.json()["id"]


def test_a_bare_key_is_the_same_as_a_quoted_one(node: Node, user: str) -> None:
    assert with_key(node, user, to(user)).json() == with_key(node, f'"{user}"', to(user)).json()


def test_a_key_covers_a_whole_batch(node: Node, user: str) -> None:
    batch = {"notifications": [to(user, 0), to("a\tb"), {"to": {"users": [user, "u2"]}, "data": 2}]}
    first = with_key(node, f'"{user}"', batch, path=BATCH)
    assert first.status_code == 202
    assert with_key(node, f'"{user}"', batch, path=BATCH).json() == first.json()


def test_a_key_used_by_many_at_once_is_one_notification(node: Node, user: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: with_key(node, f'"{user}"', to(user)), range(16)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1


@pytest.mark.parametrize(
    "key", ["", '""', '"unclosed', "two words", '"a\\x"', '"' + "x" * 256 + '"', '"é"', "'a b'"]
)
def test_a_bad_key_is_refused(node: Node, key: str) -> None:
    with Raw(node) as raw:
        head = f"POST {ONE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {publisher_token()}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: 2\r\nIdempotency-Key: {key}"
        raw.send(head.encode() + b"\r\n\r\n{}")
        problem(raw.answer(), 400, "invalid")


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "auth",
    ["", "Bearer", "Bearer x", "Basic dTpw", f"Bearer {token('u1', 'push.publish', ttl=-60)}"],
)
@pytest.mark.parametrize("path", [ONE, BATCH])
def test_a_publisher_without_a_good_token_is_refused(node: Node, path: str, auth: str) -> None:
    problem(node.post(path, to("u1"), headers={"Authorization": auth}), 401, "invalid_token")


@pytest.mark.parametrize("scopes", [(), ("push.receive",), ("push.publisher", "xpush.publish")])
@pytest.mark.parametrize("path", [ONE, BATCH])
def test_a_token_without_the_scope_is_refused(
    node: Node, path: str, scopes: tuple[str, ...]
) -> None:
    auth = {"Authorization": f"Bearer {token('u1', *scopes)}"}
    found = problem(node.post(path, to("u1"), headers=auth), 403, "forbidden")
    assert "push.publish" in found["detail"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "BREW"])
@pytest.mark.parametrize("path", [ONE, BATCH])
def test_other_methods_are_refused_with_those_that_are_served(
    node: Node, path: str, method: str
) -> None:
    answer = httpx.request(method, node.url + path)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "POST, OPTIONS"
    if method != "HEAD":
        problem(answer, 405, "method_not_allowed")


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize(
    "path", ["/v1", "/v1/notifications/", "/v2/notifications", "/V1/WS", "/v1/ws/",
             "/metrics", "/readyz", "/console", "/v1/../metrics", "/%2e%2e/passwd", "/favicon.ico"]
)  # fmt: skip
def test_other_paths_are_not_found(node: Node, path: str, method: str) -> None:
    with Raw(node) as raw:
        raw.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
        problem(raw.answer(), 404, "not_found")


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx",
             "multipart/form-data; boundary=x", "application/x-ndjson"]
)  # fmt: skip
def test_another_media_type_is_refused(node: Node, kind: str) -> None:
    body = json.dumps(to("u1")).encode()
    found = problem(raw_body(node, body, **{"Content-Type": kind}), 415, "unsupported_media_type")
    assert "application/json" in found["detail"]


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_compressed_body_is_refused_unread(node: Node, coding: str) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    answer = raw_body(node, bomb, **{"Content-Encoding": coding})
    problem(answer, 415, "unsupported_media_type")


BAD_JSON: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"hello",
    "cut off": b'{"to":{"user":"u1"},"data":',
    "two values": b"{}{}",
    "not UTF-8": b'{"to":{"user":"u1"},"data":"\xff"}',
    "UTF-16": '{"to":{"user":"u1"},"data":1}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"to":{"user":"u1"},"data":1}',
    "NaN": b'{"to":{"user":"u1"},"data":NaN}',
    "Infinity": b'{"to":{"user":"u1"},"data":[Infinity]}',
    "a number beyond a double": b'{"to":{"user":"u1"},"data":1e400}',
    "an integer beyond a double": b'{"to":{"user":"u1"},"data":1' + b"0" * 400 + b"}",
    "an integer of 5,000 digits": b'{"to":{"user":"u1"},"data":-' + b"9" * 5000 + b"}",
    "the same name twice": b'{"to":{"user":"u1"},"data":1,"data":2}',
    "the same name twice in data": b'{"to":{"user":"u1"},"data":{"a":1,"a":1}}',
    "half of a pair": b'{"to":{"user":"u1"},"data":"\\ud83d"}',
    "half of a pair in a name": b'{"to":{"user":"u1"},"data":{"\\udE00":1}}',
    "half of a pair in an unknown field": b'{"to":{"user":"u1"},"data":1,"\\ud800":1}',
    "a raw line feed in a string": b'{"to":{"user":"u1"},"data":"\n"}',
    "100 levels": b'{"to":{"user":"u1"},"data":' + b"[" * 100 + b"]" * 100 + b"}",
    "10,000 levels": b'{"to":{"user":"u1"},"data":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "100,000 objects": b'{"a":' * 40_000,
}


@pytest.mark.parametrize("body", BAD_JSON.values(), ids=BAD_JSON)
def test_what_is_not_i_json_is_refused(node: Node, body: bytes) -> None:
    problem(raw_body(node, body), 400, "invalid_json")


BAD_SHAPE: dict[str, Any] = {
    "an array": [],
    "a string": "hello",
    "no target": {"data": 1},
    "an empty target": {"to": {}, "data": 1},
    "two targets": {"to": {"user": "u1", "users": ["u2"]}, "data": 1},
    "a target that is a string": {"to": "u1", "data": 1},
    "a user that is a number": {"to": {"user": 7}, "data": 1},
    "users that are a string": {"to": {"users": "u1"}, "data": 1},
    "no users": {"to": {"users": []}, "data": 1},
    "a user named twice": {"to": {"users": ["u1", "u2", "u1"]}, "data": 1},
    "a user that is null": {"to": {"users": ["u1", None]}, "data": 1},
    "1,001 users": {"to": {"users": [f"u{n}" for n in range(1001)]}, "data": 1},
    "another kind of target": {"to": {"everyone": True}, "data": 1},
    "no data": {"to": {"user": "u1"}},
    "an unknown field": to("u1", dta=1),
    "a negative ttl": to("u1", ttl=-1),
    "a ttl of a thousand years": to("u1", ttl=10**11),
    "a ttl that is a string": to("u1", ttl="60"),
    "a ttl that is true": to("u1", ttl=True),
    "an event that is a list": to("u1", event=["a"]),
}


@pytest.mark.parametrize("body", BAD_SHAPE.values(), ids=BAD_SHAPE)
def test_what_is_no_notification_is_refused(node: Node, body: Any) -> None:
    problem(node.post(ONE, body), 400, "invalid")


BAD_NAMES = [
    "", "a\r\nb", "a\n", "\na", "a\0", "a\x7f", "a\x9bb", "x" * 257, "é" * 129,
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
def test_a_bad_name_is_refused_and_not_repeated(node: Node, name: str) -> None:
    for body in (
        to(name), {"to": {"users": ["u1", name]}, "data": 1}, to("u1", event=name)
    ):  # fmt: skip
        found = problem(node.post(ONE, body), 400, "invalid_name")
        assert len(name) < 2 or name not in found["detail"]


@pytest.mark.parametrize("event", [" ", "a b", "*", "{u1}", "a/b", "é", "x" * 129], ids=repr)
def test_events_and_collapse_keys_are_of_the_plain_alphabet(node: Node, event: str) -> None:
    for field in ("event", "collapse_key"):
        found = problem(node.post(ONE, to("u1", **{field: event})), 400, "invalid_name")
        assert found["detail"] == (
            f"{field} must be a string of 1 to 128 characters of A-Z a-z 0-9 . _ - : @ ="
        )


async def test_a_notification_over_the_message_limit_is_refused_and_one_below_arrives(
    node: Node, user: str
) -> None:
    found = problem(
        await asyncio.to_thread(node.post, ONE, to(user, "x" * 65_536)), 413, "too_large"
    )
    assert "65536" in found["detail"]
    async with Phone(node, user) as phone:
        sent = await publish(node, user, "x" * 65_300)
        assert (await phone.notification())["id"] == sent


def test_a_body_over_the_limit_is_refused(node: Node) -> None:
    body = b" " * (MAX_BODY + 1)
    found = problem(raw_body(node, body), 413, "too_large")
    assert str(MAX_BODY) in found["detail"]
    problem(raw_body(node, body, BATCH), 413, "too_large")


def test_a_refusal_does_not_close_a_pooled_connection(node: Node, user: str) -> None:
    with httpx.Client(headers={"Authorization": "Bearer x"}) as client:
        for _ in range(50):
            problem(client.post(node.url + ONE, json=to(user)), 401, "invalid_token")
        good = {"Authorization": f"Bearer {publisher_token()}"}
        answer = client.post(node.url + ONE, json=to(user), headers=good)
        assert answer.status_code == 202


# --- the rate ------------------------------------------------------------------------------------


def test_a_publisher_over_its_rate_is_refused_with_429_and_others_are_not(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    with (
        Node(valkey.url, tmp_path, prefix=prefix, publish_rate_per_second=2) as node,
        httpx.Client() as client,
    ):

        def attempt(publisher: str) -> httpx.Response:
            auth = {"Authorization": f"Bearer {publisher_token(publisher)}"}
            return client.post(node.url + ONE, json=to("u1"), headers=auth)

        answers = [attempt("fast") for _ in range(20)]
        accepted = [answer for answer in answers if answer.status_code == 202]
        assert 4 <= len(accepted) <= 6
        for answer in answers:
            if answer.status_code != 202:
                problem(answer, 429, "rate_limited")
        assert attempt("slow").status_code == 202
        wait_until(lambda: attempt("fast").status_code == 202, "the rate to allow another")


def test_a_rate_below_one_allows_a_request_now_and_then(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    with Node(valkey.url, tmp_path, prefix=prefix, publish_rate_per_second=0.2) as node:
        assert node.post(ONE, to("u1")).status_code == 202
        found = problem(node.post(ONE, to("u1")), 429, "rate_limited")
        assert 1 < found["retry_after"] <= 5


# --- durability ----------------------------------------------------------------------------------


def test_without_redis_publish_and_handshake_are_503_and_recover_by_themselves(
    tmp_path: Path,
) -> None:
    with EmbeddedServer() as server, Node(server.url, tmp_path, lease_seconds=1) as node:
        assert node.post(ONE, to("u1")).status_code == 202
        server.kill()
        for _ in range(3):
            found = problem(node.post(ONE, to("u1")), 503, "store_unavailable")
            assert "retry" in found["detail"]
            with Raw(node) as raw:
                raw.send(request())
                problem(raw.answer(), 503, "store_unavailable")
        server.start()
        wait_until(lambda: node.post(ONE, to("u1")).status_code == 202, "publishing", 5)

        def connects() -> bool:
            with Raw(node) as raw:
                raw.send(request())
                return raw.answer().status_code == 101

        wait_until(connects, "a handshake", 5)
        wait_until(node.is_ready, "the node to be ready", 5)


async def test_with_fsync_nothing_accepted_is_lost_when_redis_is_killed(tmp_path: Path) -> None:
    with (
        EmbeddedServer(appendonly=True, extra=("--appendfsync", "always")) as server,
        Node(server.url, tmp_path, lease_seconds=2, durability="fsync") as node,
    ):
        refused = 0
        halfway = asyncio.Event()
        loop = asyncio.get_running_loop()

        def publish_many() -> list[str]:
            nonlocal refused
            ids = []
            for number in range(150):
                if number == 50:
                    loop.call_soon_threadsafe(halfway.set)

                def accepted(number: int = number) -> str | None:
                    nonlocal refused
                    key = {"Idempotency-Key": f"n-{number}"}
                    answer = client.post(node.url + ONE, json=to("u1", number), headers=key)
                    if answer.status_code == 202:
                        assert answer.json()["durability"] == "fsync"
                        found: str = answer.json()["id"]
                        return found
                    problem(answer, 503, answer.json()["type"].rpartition(":")[2])
                    refused += 1
                    return None

                ids.append(wait_until(accepted, f"notification {number} to be accepted"))
            return ids

        auth = {"Authorization": f"Bearer {publisher_token()}"}
        with httpx.Client(headers=auth, timeout=20) as client:
            async with Phone(node, "u1") as phone:
                publishing = asyncio.create_task(asyncio.to_thread(publish_many))
                await halfway.wait()
                server.kill()
                await asyncio.to_thread(wait_until, lambda: refused > 0, "a refusal")
                await asyncio.to_thread(server.start)
                notes = await phone.notifications(150, ack=True)
                ids = await publishing
                assert [note["id"] for note in notes] == ids
                assert [note["data"] for note in notes] == list(range(150))
                assert await phone.acked(ids[-1]) == ids[-1]
                await phone.silent()


def ended(redis_url: str, directory: Path, **settings: Any) -> str:
    """What a node that refuses to start says."""
    node = Node(redis_url, directory, **settings)
    with pytest.raises(RuntimeError, match="the node ended"):
        node.start()
    assert node.process.wait(10) not in (0, None)
    (line,) = (line for line in node.log().splitlines() if not line.startswith("{"))
    return line


def test_fsync_without_an_append_only_file_stops_the_start(
    valkey: EmbeddedServer, tmp_path: Path
) -> None:
    assert "PUSHSVC_DURABILITY" in ended(valkey.url, tmp_path, durability="fsync")


def test_with_fsync_a_node_starts_while_redis_loads_and_is_ready_afterwards(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "redis"
    with EmbeddedServer(directory, appendonly=True) as server:
        ask(server.port, "MSET", *(word for n in range(8000) for word in (n, "x" * 100)))
        ask(server.port, "BGREWRITEAOF")
        wait_until(partial(_rewritten, server.port), "a file that is loaded key by key")
        server.kill()
        # Each key takes 2 ms, and every 1,024 bytes the server looks at who asks.
        words = ["--port", str(server.port), "--dir", str(directory), "--appendonly", "yes"]
        words += ["--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024"]
        loading = subprocess.Popen([find_server(), *words], stdout=subprocess.DEVNULL)
        try:
            wait_until(lambda: b"LOADING" in _said(server.port, b"PING"), "the server to load")
            node = Node(server.url, tmp_path, durability="fsync").start(ready=False)
            try:
                assert not node.is_ready()
                assert b"LOADING" in _said(server.port, b"PING")
                _said(server.port, b"CONFIG SET key-load-delay 0")
                wait_until(node.is_ready, "the node to be ready")
                assert node.publish("ada", 1)
            finally:
                node.stop()
        finally:
            loading.kill()
            loading.wait()


def _rewritten(port: int) -> bool:
    found = ask(port, "INFO", "persistence")
    return not (found["aof_rewrite_in_progress"] or found["aof_rewrite_scheduled"])


def _said(port: int, command: bytes) -> bytes:
    """The answer of a server as it is; clients wait until it has loaded its data."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.sendall(command + b"\r\n")
            return connection.recv(1000)
    except OSError:
        return b""


async def test_replica_without_a_replica_is_refused_and_its_retry_is_no_second_notification(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    with Node(
        valkey.url, tmp_path, prefix=prefix, durability="replica", durability_timeout_seconds=0.2
    ) as node:
        async with Phone(node, "u1") as phone:
            for _ in range(3):
                answer = await asyncio.to_thread(with_key, node, "k", to("u1"))
                found = problem(answer, 503, "durability_not_reached")
                assert "Idempotency-Key" in found["detail"]
            sent = await phone.notification()
            await phone.silent()
            await phone.acked(sent["id"])
            answer = await asyncio.to_thread(node.post, ONE, to("u1", ttl=0))
            assert answer.json()["durability"] == "none"
            assert (await phone.notification())["id"] == answer.json()["id"]


def test_replica_with_a_replica_is_reached(tmp_path: Path) -> None:
    with EmbeddedServer(extra=("--repl-diskless-sync-delay", "0")) as primary:
        follow = ("--replicaof", "127.0.0.1", str(primary.port))
        with (
            EmbeddedServer(extra=follow),
            Redis.from_url(primary.url) as redis,
            Node(primary.url, tmp_path, durability="replica") as node,
        ):
            wait_until(lambda: redis.wait(1, 100) == 1, "the replica")
            answer = node.post(ONE, to("u1"))
            assert answer.status_code == 202
            assert answer.json()["durability"] == "replica"


async def test_a_redis_out_of_memory_refuses_with_503_and_trims_nothing(tmp_path: Path) -> None:
    with (
        EmbeddedServer() as server,
        Redis.from_url(server.url) as redis,
        Node(server.url, tmp_path, lease_seconds=2) as node,
    ):
        async with Phone(node, "u1") as phone:
            sent = await publish_all(node, "u1", range(5))
            redis.config_set("maxmemory", "1mb")
            answer = await asyncio.to_thread(node.post, ONE, to("u1", "too much"))
            found = problem(answer, 503, "store_unavailable")
            assert "memory" in found["detail"]
            assert node.metric("pushsvc_redis_errors_total", lane="publish") >= 1
            redis.config_set("maxmemory", "0")
            await asyncio.to_thread(
                wait_until,
                lambda: node.post(ONE, to("u1", "again")).status_code == 202,
                "publishing",
            )
            notes = await phone.notifications(6)
            assert [note["id"] for note in notes[:5]] == sent
            assert notes[5]["data"] == "again"
            assert await phone.acked(notes[5]["id"]) == notes[5]["id"]
        await asyncio.to_thread(wait_until, node.is_ready, "the node to be ready")
