"""Pages in browsers: what their browser is told."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import httpx
import pytest
import tornado.web
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

from pushsvc.errors import RateLimited
from pushsvc.web.base import CrossOriginHandler, NotFoundHandler, OperationHandler
from pushsvc.web.cors import Origins
from pushsvc.web.operation import Admitted, Answer, Request, TokenOperation, json_answer
from tests.support.backend import problem
from tests.support.nodes import SECRET, token
from tests.support.verifiers import shared_verifier

PAGE = "https://app.example.com"
FOREIGN = "https://evil.example"


class Plain(CrossOriginHandler):
    allow: ClassVar[str] = "GET, DELETE, OPTIONS"

    def get(self, what: str) -> None:
        if what == "late":
            raise RateLimited("too many of them: wait", retry_after=3)
        if what == "broken":
            raise tornado.web.HTTPError(400)
        self.write_json(200, {"what": what})


class Body(TokenOperation):
    allow: ClassVar[str] = "POST, OPTIONS"

    async def answer(self, request: Request, admitted: Admitted, body: bytes) -> Answer:  # noqa: ARG002 - the interface
        return json_answer(200, {"size": len(body), "user": admitted.claims.user})


@contextlib.asynccontextmanager
async def serving(*allowed: str) -> AsyncIterator[httpx.AsyncClient]:
    """The two kinds of handlers on a port of their own."""
    verify = shared_verifier(SECRET, audience="pushsvc")
    origins = Origins(allowed)
    body = {"serves": Body(verify, max_body=1000, origins=origins), "timeout": 5}
    server = HTTPServer(
        tornado.web.Application(
            [(r"/plain/(.*)", Plain), (r"/body", OperationHandler, body)],
            default_handler_class=NotFoundHandler,
            log_function=lambda _: None,
            origins=origins,
        )
    )
    listener, port = bind_unused_port()
    server.add_socket(listener)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            yield client
    finally:
        server.stop()
        await server.close_all_connections()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with serving(PAGE) as client:
        yield client


def check_readable(answer: httpx.Response, origin: str = PAGE) -> None:
    """Check that the browser hands an answer to a page."""
    assert answer.headers["Access-Control-Allow-Origin"] == origin
    assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]
    assert "Origin" in answer.headers["Vary"]


def check_hidden(answer: httpx.Response) -> None:
    """Check that it does not, and that no cache hands the answer to another page."""
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert "Origin" in answer.headers["Vary"]


async def test_a_page_may_read_the_answer_and_its_errors(client: httpx.AsyncClient) -> None:
    for what, status in (("it", 200), ("late", 429), ("broken", 400)):
        answer = await client.get(f"/plain/{what}", headers={"Origin": PAGE})
        assert answer.status_code == status
        check_readable(answer)
    problem(await client.get("/plain/late", headers={"Origin": PAGE}), 429, "rate_limited")
    answer = await client.put("/plain/it", headers={"Origin": PAGE})
    assert problem(answer, 405, "method_not_allowed")
    check_readable(answer)


async def test_a_page_may_send_a_body(client: httpx.AsyncClient) -> None:
    auth = {"Authorization": f"Bearer {token('u1')}", "Origin": PAGE}
    answer = await client.post("/body", content=b"12345", headers=auth)
    assert answer.json() == {"size": 5, "user": "u1"}
    check_readable(answer)
    answer = await client.post("/body", content=b"12345", headers={"Origin": PAGE})
    problem(answer, 401, "invalid_token")
    check_readable(answer)
    answer = await client.post("/body", content=b"x" * 1001, headers=auth)
    problem(answer, 413, "too_large")
    check_readable(answer)


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "PUT"])
async def test_a_foreign_page_is_refused_whatever_it_asks_for(
    client: httpx.AsyncClient, method: str
) -> None:
    for path in ("/plain/it", "/body"):
        answer = await client.request(method, path, headers={"Origin": FOREIGN})
        problem(answer, 403, "origin_refused")
        check_hidden(answer)


async def test_a_foreign_page_is_refused_with_a_good_token_too(client: httpx.AsyncClient) -> None:
    auth = {"Authorization": f"Bearer {token('u1')}", "Origin": FOREIGN}
    problem(await client.post("/body", content=b"1", headers=auth), 403, "origin_refused")


async def test_who_is_no_page_is_told_nothing_of_pages(client: httpx.AsyncClient) -> None:
    answer = await client.get("/plain/it")
    assert answer.status_code == 200
    check_hidden(answer)


@pytest.mark.parametrize(
    ("path", "methods"),
    [("/plain/it", {"GET", "DELETE", "OPTIONS"}), ("/body", {"POST", "OPTIONS"})],
)
async def test_a_preflight_needs_no_token_and_says_what_may_be_sent(
    client: httpx.AsyncClient, path: str, methods: set[str]
) -> None:
    asks = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    answer = await client.options(path, headers=asks)
    assert answer.status_code == 204
    assert answer.content == b""
    check_readable(answer)
    assert set(answer.headers["Access-Control-Allow-Methods"].split(", ")) == methods
    assert set(answer.headers["Access-Control-Allow-Headers"].lower().split(", ")) == {
        "authorization", "content-type", "idempotency-key", "last-event-id",
        "traceparent", "tracestate",
    }  # fmt: skip
    assert int(answer.headers["Access-Control-Max-Age"]) > 0


async def test_options_of_who_is_no_page_names_the_methods(client: httpx.AsyncClient) -> None:
    for path in ("/plain/it", "/body"):
        answer = await client.options(path)
        assert answer.status_code == 204
        assert "OPTIONS" in answer.headers["Allow"]
        check_hidden(answer)


async def test_a_preflight_has_no_body(client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x"

    for body in (b"x" * 100, chunks()):
        content: Any = body
        answer = await client.request("OPTIONS", "/body", content=content, headers={"Origin": PAGE})
        problem(answer, 400, "invalid")


@pytest.mark.parametrize("origin", ["https://any.example", "https://é.example", "what, ever"])
async def test_where_all_pages_may_call_each_is_named_as_it_named_itself(origin: str) -> None:
    async with serving("*") as client:
        answer = await client.get("/plain/it", headers={b"Origin": origin.encode("latin-1")})
        assert answer.status_code == 200
        check_readable(answer, origin)
        answer = await client.get("/plain/it", headers={"Origin": "null"})
        problem(answer, 403, "origin_refused")
