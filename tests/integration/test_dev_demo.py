"""The demo: pages on the admin port of ``pushsvc dev``, for browsers on the same machine."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pushsvc.server.embedded import EmbeddedServer
from tests.support.backend import problem
from tests.support.dev import Dev, dev
from tests.support.nodes import Node

PAGES = ["", "/chat", "/document", "/game", "/ticker", "/scores", "/inbox"]
EXAMPLES = [page.strip("/") for page in PAGES if page]
TWINS = {"inbox": "inbox/server.py"}
"""What is more than a file."""
FOLDER = Path(__file__).parents[2] / "pushsvc" / "admin" / "demo"
MOST_LINES = 120


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    with dev(tmp_path_factory.mktemp("dev"), "--allowed-origins", "http://app.test") as running:
        yield running


@pytest.mark.parametrize("page", PAGES)
def test_a_page_and_all_that_it_is_made_of_is_served(local: Dev, page: str) -> None:
    answer = httpx.get(f"{local.admin_url}/demo{page}")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    links = set(re.findall(r'(?:src|href)="(/[^"#]*)', answer.text))
    assert f"/demo{page or '/demo'}.js" in links
    for link in links:
        found = httpx.get(local.admin_url + link, follow_redirects=True)
        assert found.status_code == 200, link


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_nothing_inline_and_gets_nothing_from_elsewhere(local: Dev, page: str) -> None:
    answer = httpx.get(f"{local.admin_url}/demo{page}")
    policy = dict(
        part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["img-src"] == "'self'"
    assert policy["connect-src"].split() == ["'self'", local.url, local.url.replace("http", "ws")]
    assert not re.search(r"<style|<script(?! type=\"module\" src=)| style=| on[a-z]+=", answer.text)
    assert "http" not in answer.text.replace("http://www.w3.org", "")


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_program_of_an_example_is_short_and_has_a_python_twin(name: str) -> None:
    assert len((FOLDER / f"{name}.js").read_text().splitlines()) <= MOST_LINES
    twin = TWINS.get(name, f"{name}.py")
    assert f"python examples/{twin}" in (FOLDER / f"{name}.html").read_text()
    assert (FOLDER.parents[2] / "examples" / twin).exists()


@pytest.mark.parametrize("name", ["nowhere", "..%2fdev.py", "demo.py", "chat.js/x", "shared.map"])
def test_nothing_else_is_served(local: Dev, name: str) -> None:
    problem(httpx.get(f"{local.admin_url}/demo/{name}"), 404, "not_found")


@pytest.mark.parametrize("path", ["", "/chat", "/chat.js", "/demo.css"])
def test_who_has_a_file_is_not_sent_it_again(local: Dev, path: str) -> None:
    first = httpx.get(f"{local.admin_url}/demo{path}")
    assert first.headers["X-Content-Type-Options"] == "nosniff"
    assert first.headers["Cache-Control"] == "no-cache"
    again = httpx.get(
        f"{local.admin_url}/demo{path}", headers={"If-None-Match": first.headers["ETag"]}
    )
    assert (again.status_code, again.content) == (304, b"")
    assert httpx.head(f"{local.admin_url}/demo{path}").status_code == 200


@pytest.mark.parametrize("page", PAGES)
def test_the_public_port_leads_to_the_demo(local: Dev, page: str) -> None:
    answer = httpx.get(f"{local.url}/demo{page}")
    assert answer.status_code == 302
    assert answer.headers["Location"] == f"{local.admin_url}/demo{page}"


def test_the_demo_comes_first_in_what_is_printed(local: Dev) -> None:
    links = re.findall(r"http://\S+", local.output.read_text())
    assert links[0] == f"{local.admin_url}/demo"
    assert links[1] == f"{local.admin_url}/dev/console"
    assert links[2] == f"{local.url}/docs"
    for link in links[:3]:
        assert httpx.get(link, follow_redirects=True).status_code == 200


def test_pages_of_the_admin_port_may_connect_besides_those_that_the_user_allows(local: Dev) -> None:
    def allowed(origin: str) -> bool:
        answer = httpx.options(f"{local.url}/v1/notifications", headers={"Origin": origin})
        told: str | None = answer.headers.get("Access-Control-Allow-Origin")
        return told == origin

    port = local.admin_url.rpartition(":")[2]
    for name in ("127.0.0.1", "localhost", "[::1]"):
        assert allowed(f"http://{name}:{port}")
    assert allowed("http://app.test")
    assert not allowed("http://other.test")
    assert not allowed("http://127.0.0.1:1")


def test_serve_has_no_demo(valkey: EmbeddedServer, tmp_path: Path, prefix: str) -> None:
    for workers in (1, 2):
        with Node(valkey.url, tmp_path, prefix=prefix, workers=workers) as serving:
            for path in ("/demo", "/demo/demo.js", "/dev/node"):
                problem(httpx.get(serving.admin_url + path), 404, "not_found")
            problem(httpx.post(f"{serving.admin_url}/dev/kill", json={}), 404, "not_found")
            problem(httpx.get(f"{serving.url}/demo"), 404, "not_found")


def test_dev_has_no_demo_where_other_machines_could_ask(tmp_path: Path) -> None:
    with dev(tmp_path, "--admin-host", "0.0.0.0") as running:
        problem(httpx.get(f"{running.admin_url}/demo"), 404, "not_found")
        problem(httpx.post(f"{running.admin_url}/dev/kill", json={}), 404, "not_found")
        problem(httpx.get(f"{running.url}/demo"), 404, "not_found")
        assert "/demo" not in running.output.read_text()
