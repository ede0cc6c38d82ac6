"""Tokens for the asking: in development, on the same machine, and for no web page."""

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from pushsvc.server.embedded import EmbeddedServer
from tests.support.backend import problem
from tests.support.dev import Dev, dev
from tests.support.nodes import Node

ASKED = {"user": "u1"}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    with dev(tmp_path_factory.mktemp("dev")) as running:
        yield running


def ask(local: Dev, body: Any = None, **kwargs: Any) -> httpx.Response:
    if body is not None:
        kwargs["json"] = body
    return httpx.post(f"{local.admin_url}/dev/token", timeout=10, **kwargs)


def publish(local: Dev, to: dict[str, Any], token: str) -> int:
    auth = {"Authorization": f"Bearer {token}"}
    body = {"to": to, "data": 1}
    return httpx.post(f"{local.url}/v1/notifications", json=body, headers=auth).status_code


def test_a_token_has_the_scopes_and_the_topics_that_were_asked_for(local: Dev) -> None:
    backend = ask(local, ASKED | {"scopes": ["push.publish"], "ttl": 60}).json()["token"]
    assert publish(local, {"user": "u2"}, backend) == 202
    topics = {"subscribe": [], "publish": ["chat.*"]}
    client = ask(local, ASKED | {"topics": topics}).json()["token"]
    assert publish(local, {"topic": "chat.r1"}, client) == 202
    assert publish(local, {"topic": "news.r1"}, client) == 403
    assert publish(local, {"user": "u2"}, ask(local, ASKED).json()["token"]) == 403


OTHERS = [
    "https://example.com", "http://example.com:5173", "http://localhost.example.com",
    "http://localhost@example.com", "http://127.0.0.1.example.com:1", "http://192.168.1.5:5173",
    "https://localhost:5173", "null", "", "http://", "http://[", "localhost:5173",
]  # fmt: skip
"""Origins of pages that get no token."""
FRONT_ENDS = ["http://localhost:5173", "http://127.0.0.1:3000", "http://[::1]:5173"]
"""Those of pages of this machine."""


@pytest.mark.parametrize("origin", OTHERS)
def test_a_page_of_another_origin_gets_no_token_and_may_read_nothing(
    local: Dev, origin: str
) -> None:
    answer = ask(local, ASKED, headers={"Origin": origin})
    problem(answer, 403, "origin_refused")
    assert "--allowed-origins" in answer.json()["detail"]
    asked = preflight(local, origin)
    problem(asked, 403, "origin_refused")
    for each in (answer, asked):
        assert not [name for name in each.headers if name.startswith("access-control-")]


def preflight(local: Dev, origin: str, **headers: str) -> httpx.Response:
    """What a browser asks before it lets a page of this origin ask."""
    return httpx.options(
        f"{local.admin_url}/dev/token",
        headers={"Origin": origin, "Access-Control-Request-Method": "POST"} | headers,
    )


@pytest.mark.parametrize("origin", FRONT_ENDS)
def test_a_front_end_of_this_machine_gets_one_itself_or_through_its_proxy(
    local: Dev, origin: str
) -> None:
    asked = preflight(local, origin)
    assert asked.status_code == 204
    assert asked.headers["Access-Control-Allow-Methods"] == "POST"
    assert asked.headers["Access-Control-Allow-Headers"] == "Content-Type"
    host = origin.partition("://")[2]
    # A proxy leaves the origin as it is, and the name of the host, or not.
    for headers in ({"Origin": origin}, {"Origin": origin, "Host": host}):
        answer = ask(local, ASKED, headers=headers)
        assert answer.status_code == 200
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        assert answer.headers["Vary"] == "Origin"
    mistaken = ask(local, {}, headers={"Origin": origin})  # which the page is to be told too
    assert (mistaken.status_code, mistaken.headers["Access-Control-Allow-Origin"]) == (400, origin)
    kill = httpx.post(f"{local.admin_url}/dev/kill", json={}, headers={"Origin": origin})
    problem(kill, 403, "origin_refused")


def test_the_developer_names_the_front_ends_that_get_tokens(tmp_path: Path) -> None:
    named = "https://localhost:5173,http://localhost:3000,https://app.test"
    with dev(tmp_path, "--allowed-origins", named) as running:

        def status(origin: str) -> int:
            return ask(running, ASKED, headers={"Origin": origin}).status_code

        assert status("https://localhost:5173") == status("http://localhost:3000") == 200
        # Another port is another's, and what is on another machine never gets one.
        assert status("http://localhost:5173") == status("https://app.test") == 403
        assert status(running.admin_url) == 200


def test_the_consoles_own_origin_gets_one(local: Dev) -> None:
    assert ask(local, ASKED, headers={"Origin": local.admin_url}).status_code == 200
    port = local.admin_url.rpartition(":")[2]
    headers = {"Host": f"LocalHost:{port}", "Origin": f"http://localhost:{port}"}
    assert ask(local, ASKED, headers=headers).status_code == 200


@pytest.mark.parametrize("host", ["example.com", "127.0.0.1.example.com:9090", "127.0.0.2", "["])
def test_a_page_whose_name_was_pointed_at_this_machine_gets_no_token(local: Dev, host: str) -> None:
    headers = {"Host": host, "Origin": f"http://{host}"}
    problem(ask(local, ASKED, headers=headers), 403, "origin_refused")
    problem(ask(local, ASKED, headers={"Host": host}), 403, "origin_refused")
    answer = ask(local, ASKED, headers={"Host": host, "Origin": FRONT_ENDS[0]})
    problem(answer, 403, "origin_refused")
    assert "Access-Control-Allow-Origin" not in answer.headers
    problem(preflight(local, FRONT_ENDS[0], Host=host), 403, "origin_refused")
    problem(console(local, Host=host), 403, "origin_refused")


def console(local: Dev, **headers: str) -> httpx.Response:
    return httpx.get(f"{local.admin_url}/dev/console", headers=headers)


@pytest.mark.parametrize("site", [None, "none", "same-origin"])
def test_who_enters_the_consoles_address_is_signed_in(local: Dev, site: str | None) -> None:
    answer = console(local, **({"Sec-Fetch-Site": site} if site else {}))
    assert answer.status_code == 302
    path, _, operator = answer.headers["Location"].partition("#token=")
    assert path == "/console"
    assert answer.headers["Cache-Control"] == "no-store"
    me = f"{local.admin_url}/console/api/me"
    told = httpx.get(me, headers={"Authorization": f"Bearer {operator}"}).json()
    assert told["user"] == "admin"
    assert told["expires_at"] - time.time() <= 3600


def test_a_page_is_known_by_its_address_where_a_browser_tells_no_site(local: Dev) -> None:
    own = f"{local.admin_url}/demo"
    assert console(local, Referer=own).status_code == 302
    for page in ("https://example.com/x", FRONT_ENDS[0], f"{local.admin_url}0/", "null", ""):
        problem(console(local, Referer=page), 403, "origin_refused")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_that_leads_to_the_consoles_address_gets_nowhere(local: Dev, site: str) -> None:
    answer = console(local, **{"Sec-Fetch-Site": site})
    problem(answer, 403, "origin_refused")
    assert "enter the address" in answer.json()["detail"]
    for origin in ("https://example.com", FRONT_ENDS[0]):
        problem(console(local, Origin=origin), 403, "origin_refused")


def test_a_new_tab_of_the_demo_is_signed_in_where_the_browser_calls_it_cross_site(
    local: Dev,
) -> None:
    led = {"Sec-Fetch-Site": "cross-site"}
    assert console(local, **led, Referer=f"{local.admin_url}/demo").status_code == 302
    for another in (f"{local.admin_url}.example.com/", f"{FRONT_ENDS[0]}/demo", local.url, "["):
        problem(console(local, **led, Referer=another), 403, "origin_refused")
    demo = httpx.get(f"{local.admin_url}/demo")
    assert demo.headers["Referrer-Policy"] == "same-origin"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_what_a_page_could_send_without_asking_first_is_refused(local: Dev, kind: str) -> None:
    answer = ask(local, content=b'{"user":"u1"}', headers={"Content-Type": kind})
    problem(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "user"),
        ({"user": "a\tb"}, "user"),
        (ASKED | {"scopes": ["push.everything"]}, "push.everything"),
        (ASKED | {"topics": {"subscribe": ["a b"]}}, "subscribe"),
        (ASKED | {"topics": {"read": []}}, "read"),
        (ASKED | {"ttl": 0}, "ttl"),
        (ASKED | {"ttl": 10**9}, "ttl"),
        (ASKED | {"admin": True}, "admin"),
    ],
)
def test_a_wish_that_cannot_be_met_is_told_what_to_change(
    local: Dev, body: dict[str, Any], said: str
) -> None:
    answer = ask(local, body)
    assert answer.status_code == 400
    assert said in answer.json()["detail"]


def test_a_body_is_json_and_small(local: Dev) -> None:
    headers = {"Content-Type": "application/json"}
    problem(ask(local, content=b"{", headers=headers), 400, "invalid_json")
    with suppress(httpx.TransportError):  # closed, before it was sent whole
        assert ask(local, {"user": "u" * 20_000}).status_code == 400
    assert ask(local, ASKED).status_code == 200


def test_get_is_not_served(local: Dev) -> None:
    answer = httpx.get(f"{local.admin_url}/dev/token")
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "POST, OPTIONS"


def test_serve_makes_no_tokens(valkey: EmbeddedServer, tmp_path: Path, prefix: str) -> None:
    with Node(valkey.url, tmp_path, prefix=prefix) as serving:
        answer = httpx.post(f"{serving.admin_url}/dev/token", json=ASKED)
        problem(answer, 404, "not_found")


def test_dev_makes_no_tokens_where_other_machines_could_ask(tmp_path: Path) -> None:
    with dev(tmp_path, "--admin-host", "0.0.0.0") as running:
        problem(ask(running, ASKED), 404, "not_found")
