"""The console's JSON on the admin port: who may see what, what is seen, and what can be done."""

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import redis
import tornado.web
from prometheus_client import CollectorRegistry
from tornado.routing import PathMatches

from pushsvc.admin import port as admin
from pushsvc.server.console import console_api
from pushsvc.server.embedded import EmbeddedServer
from pushsvc.settings import Settings, load
from pushsvc.web import pages
from pushsvc.web.operation import Operation
from tests.support.backend import problem, publish, publish_all
from tests.support.nodes import SECRET, Node, nodes, token, wait_until
from tests.support.phone import Phone
from tests.support.topics import member

ADMIN = token("ada", "push.admin", "push.publish", ttl=86400)  # made when loaded, used much later
OBSERVER = token("otto", "push.observe", ttl=86400)


@pytest.fixture(scope="module")
def prefix() -> str:
    return "console"


@pytest.fixture(scope="module")
def node(
    valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory, prefix: str
) -> Iterator[Node]:
    with Node(
        valkey.url, tmp_path_factory.mktemp("one"), prefix=prefix, lease_seconds=2
    ) as running:
        yield running


@pytest.fixture(scope="module")
def team(
    valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory, prefix: str
) -> Iterator[Node]:
    """Two workers beside the node: their admin port is that of a process without connections."""
    directory = tmp_path_factory.mktemp("team")
    with Node(valkey.url, directory, prefix=prefix, workers=2, lease_seconds=2) as running:
        yield running
        running.check_log()


def call(
    node: Node, method: str, path: str, auth: str | None = ADMIN, **kwargs: Any
) -> httpx.Response:
    headers = {} if auth is None else {"Authorization": f"Bearer {auth}"}
    headers |= kwargs.pop("headers", {})
    url = f"{node.admin_url}/console/api{path}"
    return httpx.request(method, url, headers=headers, timeout=10, **kwargs)


def get(node: Node, path: str, auth: str = ADMIN) -> dict[str, Any]:
    answer = call(node, "GET", path, auth)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def overview(node: Node) -> dict[str, dict[str, Any]]:
    """The nodes of an overview, by their ids."""
    return {each["node"]: each for each in get(node, "/overview")["nodes"]}


def home(phone: Phone) -> str:
    connection: str = phone.welcome["connection"]
    return connection.partition(".")[0]


# --- who may see and do what ---------------------------------------------------------------------

OPEN = {
    "/livez", "/readyz", "/metrics", "/console/?", "/console/assets/(.+)", pages.CLIENT, "/",
}  # fmt: skip
"""What the admin port tells everyone."""
BODIES: dict[str, Any] = {
    "/console/api/notifications": {"to": {"user": "nobody"}, "data": 1},
    "/console/api/revocations": {"user": "nobody"},
    "/console/api/push": {"provider": "web", "action": "stop"},
}
QUERIES = {"/console/api/trace": {"id": "1764000000123-0"}}
SOMEONE = {"user": "someone"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
ALLOWED: dict[str, dict[str, tuple[int, ...]]] = {
    # what is answered to who may only look, to who may act, and to who may send
    "POST /console/api/notifications": {"observe": (403,), "admin": (403,), "publish": (202,)},
    "POST /console/api/revocations": {"observe": (403,), "admin": (201,), "publish": (403,)},
    # there is no provider to stop
    "POST /console/api/push": {"observe": (403,), "admin": (400,), "publish": (403,)},
    "POST /console/api/users/someone/disconnect": {
        "observe": (403,),
        "admin": (201,),
        "publish": (403,),
    },
    "DELETE /console/api/users/someone/notifications/1764000000123-0": {
        "observe": (403,),
        "admin": (404,),
        "publish": (403,),
    },
}
ALLOWED |= {each.replace("/users/someone", "/user"): codes for each, codes in ALLOWED.items()}
SCOPES = {
    "observe": ("push.observe",),
    "admin": ("push.admin",),
    "publish": ("push.observe", "push.publish"),
}


def settings_of(url: str) -> Settings:
    return load({"PUSHSVC_REDIS_URL": url, "PUSHSVC_JWT_SECRET": SECRET}, {})


async def served(url: str) -> list[tuple[str, str]]:
    """Each method and path that the admin port serves to who has a token."""
    async with console_api(settings_of(url)) as console:
        application = admin.application(dict, CollectorRegistry(), console)
        rules = [
            (cast(PathMatches, rule.matcher).regex.pattern.removesuffix("$"), rule)
            for rule in application.wildcard_router.rules
        ]
    found = []
    for pattern, rule in rules:
        handler = rule.target
        if pattern in OPEN or issubclass(handler, tornado.web.RedirectHandler):
            continue
        path = pattern.replace("(?P<notification>[^/]+)", "1764000000123-0")
        path = path.replace("(?P<user>[^/]+)", "someone")
        missing = tornado.web.RequestHandler._unimplemented_method
        serves = rule.target_kwargs.get("serves")
        found += [
            (method, path)
            for method in METHODS
            if (
                method in serves.methods
                if isinstance(serves, Operation)
                else getattr(handler, method.lower()) is not missing
            )
        ]
    return found


async def test_every_path_but_the_page_is_below_the_api(valkey: EmbeddedServer) -> None:
    routes = await served(valkey.url)
    assert all(path.startswith("/console/api/") for _, path in routes)
    assert ALLOWED.keys() <= {f"{method} {path}" for method, path in routes}
    assert {path for _, path in routes} >= {"/console/api/me", "/console/api/overview"}


@pytest.mark.parametrize(
    ("auth", "status", "code"),
    [
        (None, 401, "invalid_token"),
        ("nonsense", 401, "invalid_token"),
        (token("u1", "push.admin", ttl=-60), 401, "invalid_token"),
        (token("u1", ttl=86400), 403, "forbidden"),
        (token("u1", "push.receive", "push.publish", ttl=86400), 403, "forbidden"),
        (member("u1", ttl=86400), 403, "forbidden"),
    ],
    ids=["none", "nonsense", "expired", "no scope", "publisher", "client"],
)
async def test_every_route_refuses_who_may_not_see_the_console(
    node: Node, valkey: EmbeddedServer, auth: str | None, status: int, code: str
) -> None:
    for method, path in await served(valkey.url):
        answer = await asyncio.to_thread(
            httpx.request, method, node.admin_url + path, json=BODIES.get(path, {}),
            params=QUERIES.get(path, SOMEONE),
            headers={} if auth is None else {"Authorization": f"Bearer {auth}"},
        )  # fmt: skip
        assert answer.status_code == status, (method, path, answer.text)
        problem(answer, status, code)


@pytest.mark.parametrize("who", SCOPES)
async def test_every_route_lets_look_and_act_as_the_scopes_say(
    node: Node, valkey: EmbeddedServer, who: str
) -> None:
    auth = token(f"op-{who}", *SCOPES[who])
    for method, path in await served(valkey.url):
        kwargs = {} if method in ("GET", "DELETE") else {"json": BODIES.get(path, {})}
        answer = await asyncio.to_thread(
            httpx.request, method, node.admin_url + path, params=QUERIES.get(path, SOMEONE),
            headers={"Authorization": f"Bearer {auth}"}, timeout=10, **kwargs,
        )  # fmt: skip
        wanted = ALLOWED.get(f"{method} {path}", dict.fromkeys(SCOPES, (200,)))[who]
        assert answer.status_code in wanted, (method, path, answer.text)


@pytest.mark.parametrize(
    ("scopes", "may"),
    [
        (("push.observe",), ["overview"]),
        (("push.admin",), ["disconnect", "overview", "recall", "revoke"]),
        (("push.observe", "push.publish"), ["overview", "publish"]),
        (
            ("push.admin", "push.publish"),
            ["disconnect", "overview", "publish", "recall", "revoke"],
        ),
    ],
)
def test_me_says_what_the_token_may_do(node: Node, scopes: tuple[str, ...], may: list[str]) -> None:
    before = time.time()
    me = get(node, "/me", token("ada", *scopes, ttl=600))
    assert me["user"] == "ada"
    assert me["scopes"] == sorted(scopes)
    assert sorted(name for name, yes in me["may"].items() if yes) == may
    assert set(me["may"]) == {"overview", "publish", "disconnect", "revoke", "recall"}
    assert (me["namespace"], me["operator"]) == ("", False)
    assert 595 < me["expires_at"] - before < 605


def test_topics_that_a_token_opens_on_a_socket_let_nobody_send_here(node: Node) -> None:
    auth = token("otto", "push.observe", topics={"publish": ["**"]})
    body = {"to": {"topic": "chat.r1"}, "data": 1}
    answer = call(node, "POST", "/notifications", auth, json=body)
    detail = problem(answer, 403, "forbidden")["detail"]
    assert "scope push.publish" in detail
    assert "topics" not in detail


def test_a_token_in_the_address_is_not_looked_at(node: Node) -> None:
    for name in ("token", "ticket", "access_token"):
        answer = httpx.get(f"{node.admin_url}/console/api/me?{name}={ADMIN}")
        problem(answer, 401, "invalid_token")
    cookie = httpx.get(f"{node.admin_url}/console/api/me", headers={"Cookie": f"token={ADMIN}"})
    problem(cookie, 401, "invalid_token")


def test_an_operator_whose_token_is_revoked_is_refused_at_once(node: Node, team: Node) -> None:
    gone = token("gone", "push.admin")
    get(team, "/me", gone)
    assert call(node, "POST", "/revocations", json={"user": "gone"}).status_code == 201
    problem(call(team, "GET", "/me", gone), 401, "invalid_token")
    assert get(team, "/revocations", OBSERVER)["revocations"][0]["user"] == "gone"


def test_pages_of_other_origins_are_told_nothing(node: Node) -> None:
    for path in ("/me", "/overview", "/users/u1", "/revocations"):
        answer = call(node, "GET", path, headers={"Origin": "https://evil.example"})
        assert "Access-Control-Allow-Origin" not in answer.headers
        preflight = call(node, "OPTIONS", path, None, headers={"Origin": "https://evil.example"})
        assert preflight.status_code in (403, 405)
        assert "Access-Control-Allow-Origin" not in preflight.headers
    for method, path in (("POST", "/notifications"), ("GET", "/users/u1/notifications")):
        answer = call(node, method, path, headers={"Origin": "https://evil.example"}, json={})
        problem(answer, 403, "origin_refused")
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_answers_are_not_kept_and_are_no_pages(node: Node) -> None:
    for answer in (call(node, "GET", "/me"), call(node, "GET", "/me", None)):
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


# --- the overview --------------------------------------------------------------------------------


def test_every_worker_of_every_node_is_listed_whichever_is_asked(node: Node, team: Node) -> None:
    def complete() -> bool:
        found = [overview(each) for each in (node, team)]
        return all(len(f) == 3 and all(n["ready"] for n in f.values()) for f in found)

    wait_until(complete, "three nodes that are ready")
    told = get(team, "/overview", OBSERVER)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told["time"])
    ids = {each["node"] for each in told["nodes"]}
    reports = [httpx.get(f"{each.admin_url}/readyz").json() for each in (node, team)]
    assert ids == {reports[0]["node"], *(each["node"] for each in reports[1]["workers"])}
    assert len({each["pid"] for each in told["nodes"]}) == 3
    for each in told["nodes"]:
        assert each["version"] == told["version"]
        assert each["troubles"] == []
        for histogram in (*each["latency"].values(), each["loop_lag"]):
            assert len(histogram["counts"]) == len(histogram["bounds"]) + 1
            assert histogram["counts"] == sorted(histogram["counts"])
            assert histogram["bounds"] == sorted(histogram["bounds"])


async def test_connections_and_totals_follow_what_happens(
    node: Node, team: Node, user: str
) -> None:
    async with Phone(node, user) as phone, Phone(team, user, "tab") as tab:
        held = {home(phone), home(tab)}
        before = await asyncio.to_thread(overview, team)
        for number in range(5):
            sent = await publish(node, user, number)
            for each in (phone, tab):
                assert (await each.notification())["id"] == sent
                await each.acked(sent)

        def told() -> bool:
            now = overview(team)
            return all(
                now[name]["connections"] == 1
                and now[name]["totals"]["delivered"] >= before[name]["totals"]["delivered"] + 5
                and now[name]["totals"]["acked"] >= before[name]["totals"]["acked"] + 5
                for name in held
            )

        await asyncio.to_thread(wait_until, told, "the summaries to follow", 6)
        now = (await asyncio.to_thread(overview, node))[home(phone)]
        assert now["totals"]["published"] >= 5
        assert now["totals"]["handshakes"] >= 1
        assert now["latency"]["deliver"]["counts"][-1] >= 5
        assert now["latency"]["ack"]["counts"][-1] >= 5
        assert now["loop_lag"]["counts"][-1] > 0
    await asyncio.to_thread(
        wait_until,
        lambda: all(each["connections"] == 0 for each in overview(node).values()),
        "the connections to be gone",
        6,
    )


async def test_a_killed_node_and_its_connections_go_with_its_lease(
    valkey: EmbeddedServer, tmp_path: Path, user: str
) -> None:
    with nodes(2, valkey.url, tmp_path, lease_seconds=1) as (a, b):
        async with Phone(b, user):
            await asyncio.to_thread(wait_until, lambda: len(overview(a)) == 2, "both nodes")
            assert get(a, f"/users/{user}")["online"]
            b.kill()
            await asyncio.to_thread(
                wait_until, lambda: len(overview(a)) == 1, "the node to be gone", 6
            )
            told = get(a, f"/users/{user}")
            assert not told["online"]
            assert [each["connections"] for each in told["devices"]] == [[]]


def test_a_node_that_was_killed_is_not_ready_before_its_lease_ends(
    valkey: EmbeddedServer, tmp_path: Path
) -> None:
    with nodes(2, valkey.url, tmp_path, lease_seconds=15) as (a, b):
        wait_until(
            lambda: [each["ready"] for each in overview(a).values()] == [True, True],
            "two nodes that are ready",
        )
        dead = httpx.get(f"{b.admin_url}/readyz").json()["node"]
        told = overview(a)[dead]
        assert not told["silent"]
        assert abs(datetime.fromisoformat(told["time"]).timestamp() - time.time()) < 4
        b.kill()
        found = wait_until(
            lambda: (now := overview(a)[dead]) and not now["ready"] and now, "it to be missed", 10
        )
        assert found["silent"]
        assert re.fullmatch(r"has said nothing for \d+ s", found["troubles"][0])
        assert [each["ready"] for name, each in overview(a).items() if name != dead] == [True]


async def test_a_node_that_drains_says_so(valkey: EmbeddedServer, tmp_path: Path) -> None:
    with nodes(2, valkey.url, tmp_path, lease_seconds=5, drain_seconds=3) as (a, b):
        async with AsyncExitStack() as stack:
            for number in range(10):  # the drain is spread over them
                await stack.enter_async_context(Phone(b, f"u{number}"))
            b.process.terminate()

            def drains() -> bool:
                return any(each["troubles"] == ["draining"] for each in overview(a).values())

            await asyncio.to_thread(wait_until, drains, "the node to be shown as draining", 3)


def test_a_node_that_said_nothing_yet_is_listed_as_such(
    node: Node, valkey: EmbeddedServer, prefix: str
) -> None:
    with redis.Redis.from_url(valkey.url) as store:
        store.zadd(f"{prefix}:nodes", {"ffffffffffff": (time.time() + 30) * 1000})
        found = overview(node)["ffffffffffff"]
        assert (found["host"], found["pid"], found["started"]) == (None, None, None)
        assert not found["ready"]
        assert found["troubles"]
        assert set(found["totals"].values()) == {0}
        store.set(f"{prefix}:node:ffffffffffff:summary", b"from another version", px=30_000)
        assert overview(node)["ffffffffffff"]["troubles"] != found["troubles"]
        store.zrem(f"{prefix}:nodes", "ffffffffffff")
        store.delete(f"{prefix}:node:ffffffffffff:summary")


def test_summaries_do_not_stay_behind(node: Node, valkey: EmbeddedServer, prefix: str) -> None:
    wait_until(lambda: all(each["pid"] for each in overview(node).values()), "the summaries")
    with redis.Redis.from_url(valkey.url) as store:
        summaries = list(store.scan_iter(f"{prefix}:node:*:summary"))
        assert summaries
        assert all(0 < store.pttl(key) <= 10_000 for key in summaries)
        assert all(store.strlen(key) < 2000 for key in summaries)


# --- a user --------------------------------------------------------------------------------------


def test_a_user_that_never_was_is_an_empty_page(node: Node, user: str) -> None:
    assert get(node, f"/users/{user}", OBSERVER) == {
        "user": user,
        "online": False,
        "devices": [],
        "mailbox": {"length": 0, "oldest": None, "newest": None},
    }
    problem(call(node, "GET", "/users/no%09name"), 400, "invalid_name")


async def test_a_user_page_says_where_devices_are_and_what_waits_for_them(
    node: Node, team: Node, user: str
) -> None:
    async with Phone(node, user, "phone") as phone, Phone(team, user, "tab") as tab:
        sent = await publish_all(node, user, list(range(5)))
        await phone.notifications(5)
        await tab.notifications(5)
        await phone.acked(sent[2])
        for asked in (node, team):
            told = get(asked, f"/users/{user}", OBSERVER)
            assert told["online"]
            assert told["mailbox"] == {"length": 5, "oldest": sent[0], "newest": sent[-1]}
            first, second = told["devices"]
            assert (first["device"], first["acked"], first["waiting"]) == ("phone", sent[2], 2)
            assert (second["device"], second["acked"], second["waiting"]) == ("tab", None, 5)
            assert not first["more"]
            for device, each in zip(told["devices"], (phone, tab), strict=True):
                (held,) = device["connections"]
                assert held["connection"] == each.welcome["connection"]
                assert held["node"] == home(each)
    told = await asyncio.to_thread(
        wait_until,
        lambda: (now := get(team, f"/users/{user}")) and not now["online"] and now,
        "the devices to be gone",
    )
    assert [each["waiting"] for each in told["devices"]] == [2, 5]
    listed = get(team, f"/users/{user}/notifications?limit=2", OBSERVER)
    assert [each["id"] for each in listed["notifications"]] == sent[:2:-1]
    assert listed["next"]


# --- acting --------------------------------------------------------------------------------------


async def test_what_is_sent_from_the_console_arrives_whoever_it_is_for(
    node: Node, team: Node, user: str
) -> None:
    async with (
        Phone(node, user) as phone,
        Phone(team, f"{user}-b", auth=member(f"{user}-b")) as other,
    ):
        await other.send(type="subscribe", topic=f"room.{user}", ref=1)
        assert (await other.receive())["type"] == "reply"
        for asked in (node, team):
            for to, reached in (
                ({"user": user}, [phone]),
                ({"users": [user, f"{user}-b"]}, [phone, other]),
                ({"topic": f"room.{user}"}, [other]),
                ({"broadcast": True}, [phone, other]),
            ):
                answer = call(asked, "POST", "/notifications", json={"to": to, "data": "hi"})
                assert answer.status_code == 202, answer.text
                for each in reached:
                    assert (await each.notification())["data"] == "hi"


async def test_a_repeated_send_with_one_key_is_one_notification(team: Node, user: str) -> None:
    body = {"to": {"user": user}, "data": 1}
    headers = {"Idempotency-Key": f'"{user}"'}
    answers = [call(team, "POST", "/notifications", json=body, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert get(team, f"/users/{user}")["mailbox"]["length"] == 1


def test_what_is_sent_here_is_small(node: Node, user: str) -> None:
    answer = call(node, "POST", "/notifications", json={"to": {"user": user}, "data": "x" * 70_000})
    problem(answer, 413, "too_large")


async def test_who_is_disconnected_is_closed_with_4501(node: Node, team: Node, user: str) -> None:
    async with Phone(node, user) as phone, Phone(team, user, "tab") as tab:
        assert call(team, "POST", f"/users/{user}/disconnect").status_code == 201
        assert await phone.closed() == 4501
        assert await tab.closed() == 4501


async def test_what_is_recalled_is_withdrawn(node: Node, team: Node, user: str) -> None:
    async with Phone(node, user) as phone:
        sent = await publish(node, user, 1)
        await phone.notification()
        answer = call(team, "DELETE", f"/users/{user}/notifications/{sent}")
        assert answer.json() == {"id": sent, "acked": []}
        assert (await phone.receive())["type"] == "withdrawn"


# --- without Redis -------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_without_redis_the_console_says_503_and_the_rest_goes_on(
    tmp_path: Path, workers: int
) -> None:
    with (
        EmbeddedServer() as server,
        Node(server.url, tmp_path, lease_seconds=1, workers=workers) as node,
    ):
        get(node, "/overview")
        server.kill()
        for path in ("/me", "/overview", "/users/u1", "/users/u1/notifications", "/revocations"):
            problem(call(node, "GET", path), 503, "store_unavailable")
        assert httpx.get(f"{node.admin_url}/console").status_code == 200
        assert httpx.get(f"{node.admin_url}/livez").status_code == 200
        assert httpx.get(f"{node.admin_url}/metrics").status_code == 200
        wait_until(lambda: not node.is_ready(), "the node to be unready")
        server.start()
        wait_until(node.is_ready, "the node to be ready")
        wait_until(lambda: call(node, "GET", "/overview").status_code == 200, "the overview")


# --- the page ------------------------------------------------------------------------------------


def test_the_page_and_all_that_it_names_are_served_by_the_node(node: Node) -> None:
    page = httpx.get(f"{node.admin_url}/console")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    named = re.findall(r'(?:src|href)="(/[^"#]+)"', page.text)
    assert named
    for path in named:
        answer = httpx.get(node.admin_url + path)
        assert answer.status_code == 200, path
        etag = answer.headers.get("ETag")
        if etag is not None:
            again = httpx.get(node.admin_url + path, headers={"If-None-Match": etag})
            assert (again.status_code, again.content) == (304, b"")


def test_the_page_may_do_nothing_that_comes_from_elsewhere(node: Node) -> None:
    policy = httpx.get(f"{node.admin_url}/console").headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    "path",
    ["../desk.py", "..%2fdesk.py", "%2e%2e/%2e%2e/cli.py", "/etc/passwd", "views", "", "x%00"],
)
def test_nothing_but_the_files_of_the_page_can_be_had(node: Node, path: str) -> None:
    answer = httpx.get(f"{node.admin_url}/console/assets/{path}")
    problem(answer, 404, "not_found")
