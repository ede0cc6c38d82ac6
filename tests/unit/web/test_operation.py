"""Operations: what lets a request in, and what its caller is told, whatever way it came in."""

from collections.abc import Callable, Mapping
from typing import ClassVar

import msgspec
import pytest
from tornado.httputil import HTTPHeaders

from pushsvc import errors
from pushsvc.web import operation
from pushsvc.web.cors import Origins
from pushsvc.web.operation import (
    CHUNKED,
    Admitted,
    Answer,
    Operation,
    Request,
    TokenOperation,
    json_answer,
    problem,
)
from tests.support.nodes import SECRET, token
from tests.support.verifiers import shared_verifier

PAGE = "https://app.example.com"
MOST = 1000
Headers = Callable[[Mapping[str, str]], Mapping[str, str]]


class Echo(TokenOperation):
    """Says who asked, and how many bytes came; some bodies are errors."""

    route: ClassVar[str] = "echo"
    allow: ClassVar[str] = "GET, POST, OPTIONS"

    async def answer(self, request: Request, admitted: Admitted, body: bytes) -> Answer:  # noqa: ARG002 - the interface
        if body == b"refuse":
            raise errors.RateLimited("slow down", retry_after=1.5)
        if body == b"break":
            raise KeyError("a secret")
        return json_answer(200, {"user": admitted.claims.user, "size": len(body)})


ECHO = Echo(shared_verifier(SECRET, audience="pushsvc"), max_body=MOST, origins=Origins([PAGE]))


@pytest.fixture(params=[dict, HTTPHeaders], ids=["lower", "tornado"])
def headers(request: pytest.FixtureRequest) -> Headers:
    """Headers as each way in has them: names are asked for in lower case."""
    kind: Headers = request.param
    return kind


def asked(headers: Headers, method: str = "POST", length: int = 2, /, **more: str) -> Request:
    given = {"authorization": f"Bearer {token('u1')}", "content-length": str(length)}
    given |= {name.replace("_", "-"): value for name, value in more.items()}
    return Request(method, "/v1/echo", "", headers(given), length)


async def refused(request: Request, serves: Operation = ECHO) -> tuple[int, str]:
    """The status and the code that a request is answered with before its body is read."""
    answer = await operation.admit(serves, request)
    assert isinstance(answer, Answer)
    assert dict(answer.headers)["Content-Type"] == "application/problem+json"
    found = msgspec.json.decode(answer.body)
    assert found["status"] == answer.status
    return answer.status, found["type"].rpartition(":")[2]


async def test_who_is_let_in_is_answered(headers: Headers) -> None:
    request = asked(headers)
    admitted = await operation.admit(ECHO, request)
    assert isinstance(admitted, Admitted)
    assert (admitted.claims.user, admitted.most) == ("u1", MOST)
    answer = await operation.carry_out(ECHO, request, admitted, b"{}")
    assert answer == Answer(200, b'{"user":"u1","size":2}\n')


@pytest.mark.parametrize(
    ("method", "length", "more", "status", "code"),
    [
        ("POST", 2, {"authorization": "Bearer x"}, 401, "invalid_token"),
        ("POST", 2, {"authorization": "Basic x"}, 401, "invalid_token"),
        ("PUT", 2, {}, 405, "method_not_allowed"),
        ("OST", 2, {}, 405, "method_not_allowed"),
        ("OPTION", 0, {}, 405, "method_not_allowed"),
        ("POST", 2, {"origin": "https://evil.example"}, 403, "origin_refused"),
        ("PUT", 2, {"origin": "https://evil.example"}, 403, "origin_refused"),
        ("OPTIONS", 0, {"origin": "https://evil.example"}, 403, "origin_refused"),
        ("OPTIONS", 1, {}, 400, "invalid"),
        ("OPTIONS", CHUNKED, {}, 400, "invalid"),
        ("POST", 2, {"content_encoding": "gzip"}, 415, "unsupported_media_type"),
        ("POST", MOST + 1, {}, 413, "too_large"),
    ],
)
async def test_what_the_headers_condemn_is_refused_before_the_body(
    headers: Headers, method: str, length: int, more: dict[str, str], status: int, code: str
) -> None:
    assert await refused(asked(headers, method, length, **more)) == (status, code)


async def test_a_body_is_announced_unless_the_method_has_none(headers: Headers) -> None:
    given = headers({"authorization": f"Bearer {token('u1')}"})
    request = Request("POST", "/v1/echo", "", given)
    assert await refused(request) == (411, "length_required")
    for let_in in (
        msgspec.structs.replace(request, method="GET"),
        msgspec.structs.replace(request, length=CHUNKED),
    ):
        assert isinstance(await operation.admit(ECHO, let_in), Admitted)


async def test_a_preflight_is_answered_without_a_token(headers: Headers) -> None:
    request = Request("OPTIONS", "/v1/echo", "", headers({"origin": PAGE}))
    answer = await operation.admit(ECHO, request)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body) == (204, b"")
    told = dict(operation.headers_of(ECHO, request, answer))
    assert told["Access-Control-Allow-Methods"] == told["Allow"] == Echo.allow
    assert told["Access-Control-Allow-Origin"] == PAGE


async def test_what_is_not_for_pages_answers_no_preflight(headers: Headers) -> None:
    class Plain(Echo):
        allow: ClassVar[str] = "POST"

    plain = Plain(shared_verifier(SECRET, audience="pushsvc"), max_body=MOST)
    request = asked(headers, "OPTIONS", 0, origin="https://evil.example")
    assert await refused(request, plain) == (405, "method_not_allowed")
    assert "Vary" not in dict(operation.headers_of(plain, request, Answer(200, b"")))


@pytest.mark.parametrize(
    ("body", "status", "code"), [(b"refuse", 429, "rate_limited"), (b"break", 500, "internal")]
)
async def test_an_error_is_a_problem_and_tells_nothing_of_what_nobody_foresaw(
    headers: Headers, body: bytes, status: int, code: str
) -> None:
    request = asked(headers)
    admitted = await operation.admit(ECHO, request)
    assert isinstance(admitted, Admitted)
    answer = await operation.carry_out(ECHO, request, admitted, body)
    assert answer.status == status
    assert code in msgspec.json.decode(answer.body)["type"]
    assert b"secret" not in answer.body


def test_a_page_that_may_call_may_read_the_answer_and_no_other(headers: Headers) -> None:
    answer = json_answer(200, {})
    pages = operation.headers_of(ECHO, asked(headers, origin=PAGE), answer)
    assert ("Access-Control-Allow-Origin", PAGE) in pages
    others = operation.headers_of(ECHO, asked(headers, origin="https://evil.example"), answer)
    assert not [name for name, _ in others if name.startswith("Access-Control")]
    assert ("Vary", "Origin") in others


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (errors.InvalidToken("x"), {"WWW-Authenticate": "Bearer"}),
        (errors.MethodNotAllowed("x"), {"Allow": "GET, PUT"}),
        (errors.RateLimited("x", retry_after=1.2), {"Retry-After": "2"}),
        (
            errors.UpgradeRequired("x"),
            {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"},
        ),
        (errors.NotFound("x"), {}),
    ],
)
def test_a_problem_has_the_headers_of_its_status(
    error: errors.PushError, told: dict[str, str]
) -> None:
    answer = problem(error, "GET, PUT")
    assert dict(answer.headers) == {"Content-Type": "application/problem+json"} | told
    assert msgspec.json.decode(answer.body) == error.problem()
