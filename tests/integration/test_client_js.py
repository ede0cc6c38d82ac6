"""``/client.js``: the JavaScript client, as a node serves it."""

import hashlib
from pathlib import Path

import httpx
import pytest

from tests.support import js
from tests.support.nodes import Node

ASSETS = Path(__file__).parents[2] / "pushsvc" / "web" / "assets"
MODULES = [
    "client.js", "client-fallback.js", "client-inbox.js", "client-push.js", "client-tabs.js",
    "inbox.js", "push-sw.js",
]  # fmt: skip


def get(
    node: Node, method: str = "GET", *, module: str = "client.js", **headers: str
) -> httpx.Response:
    return httpx.request(method, f"{node.url}/{module}", headers=headers, timeout=10)


@pytest.mark.parametrize("module", MODULES)
def test_the_client_is_served_as_modules_for_pages_of_any_origin(node: Node, module: str) -> None:
    answer = get(node, module=module, Origin="https://elsewhere.example")
    assert answer.status_code == 200
    assert answer.content == (ASSETS / module).read_bytes()
    assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_both_ports_serve_each_part_and_a_query_changes_nothing(node: Node) -> None:
    for module in MODULES:
        for base in (node.url, node.admin_url):
            answer = httpx.get(f"{base}/{module}?2", timeout=10)
            assert answer.content == (ASSETS / module).read_bytes()
    assert get(node, module="client-other.js").status_code == 404


@pytest.mark.parametrize("module", MODULES)
def test_who_has_the_client_is_not_sent_it_again(node: Node, module: str) -> None:
    first = get(node, module=module)
    assert hashlib.sha256(first.content).hexdigest()[:32] in first.headers["Etag"]
    assert first.headers["Cache-Control"] == "no-cache"
    again = get(node, module=module, **{"If-None-Match": first.headers["Etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["Etag"] == first.headers["Etag"]
    assert again.headers["Access-Control-Allow-Origin"] == "*"
    other = get(node, module=module, **{"If-None-Match": '"another"'})
    assert other.status_code == 200


@pytest.mark.parametrize("module", MODULES)
def test_a_head_request_tells_the_same_without_the_module(node: Node, module: str) -> None:
    head, whole = get(node, "HEAD", module=module), get(node, module=module)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("Content-Type", "Content-Length", "Etag", "Access-Control-Allow-Origin"):
        assert head.headers[name] == whole.headers[name]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_the_client_is_only_read(node: Node, method: str) -> None:
    answer = get(node, method)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_the_served_client_is_what_the_sources_make_and_small() -> None:
    done = js.npm("run", "check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_client_and_its_package_pass_their_own_tests() -> None:
    js.built()
    done = js.npm("test")
    assert done.returncode == 0, done.stdout + done.stderr
