"""Tokens for the asking: in development, on the same machine, and for no web page."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from pushsvc.embedded import EmbeddedServer
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


@pytest.mark.parametrize("origin", ["https://example.com", "http://127.0.0.1:1", "null", ""])
def test_a_page_of_another_origin_gets_no_token(local: Dev, origin: str) -> None:
    problem(ask(local, ASKED, headers={"Origin": origin}), 403, "origin_refused")


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


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_what_a_page_could_send_without_asking_first_is_refused(local: Dev, kind: str) -> None:
    answer = ask(local, content=b'{"user":"u1"}', headers={"Content-Type": kind})
    problem(answer, 415, "unsupported_media_type")


def test_nothing_allows_a_page_to_read_the_answer(local: Dev) -> None:
    preflight = httpx.options(
        f"{local.admin_url}/dev/token",
        headers={"Origin": local.admin_url, "Access-Control-Request-Method": "POST"},
    )
    problem(preflight, 405, "method_not_allowed")
    for answer in (preflight, ask(local, ASKED)):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "user"),
        ({"user": "a b"}, "user"),
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
    assert answer.headers["Allow"] == "POST"


def test_serve_makes_no_tokens(valkey: EmbeddedServer, tmp_path: Path, prefix: str) -> None:
    with Node(valkey.url, tmp_path, prefix=prefix) as serving:
        answer = httpx.post(f"{serving.admin_url}/dev/token", json=ASKED)
        problem(answer, 404, "not_found")


def test_dev_makes_no_tokens_where_other_machines_could_ask(tmp_path: Path) -> None:
    with dev(tmp_path, "--admin-host", "0.0.0.0") as running:
        problem(ask(running, ASKED), 404, "not_found")
