"""The node against its own OpenAPI document: what schemathesis makes of it is answered as it says.

Bounded, and the same requests in every run. A stream and a poll would last: of a stream only the
head is read, and a poll is made not to wait.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema_rs
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from pushsvc.server.embedded import EmbeddedServer
from pushsvc.web.spec import asyncapi, openapi
from tests.support.backend import problem
from tests.support.nodes import Node, token
from tests.support.phone import Phone

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
DOCUMENT = openapi.document()
ASYNCAPI = asyncapi.document()
OPERATIONS = [
    (method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods
]
PROTECTED = [
    (method, path)
    for method, path in OPERATIONS
    if DOCUMENT["paths"][path][method.lower()]["security"]
]
# What has no parameters and needs no token cannot be asked for in a wrong way.
CASES = [(method, path, GenerationMode.POSITIVE) for method, path in OPERATIONS]
CASES += [(method, path, GenerationMode.NEGATIVE) for method, path in PROTECTED]
CANNOT_SUCCEED = {
    ("GET", "/v1/ws"),  # as no WebSocket
    ("DELETE", "/v1/users/{user}/notifications/{id}"),  # of an id that was made up
    ("DELETE", "/v1/user/notifications/{id}"),
    ("DELETE", "/v1/topics/{topic}/notifications/{id}"),
    ("DELETE", "/v1/topic/notifications/{id}"),
    ("DELETE", "/v1/broadcast/notifications/{id}"),
    # of a node without a provider
    *(
        (method, path)
        for method in ("GET", "PUT")
        for path in ("/v1/users/{user}/devices/{device}/push", "/v1/user/devices/push")
    ),
    ("GET", "/v1/push/notification"),  # with a token
    ("POST", "/v1/push/read"),
}
SCOPES = ("push.publish", "push.admin")
TOPICS = {"subscribe": ["**"], "publish": ["**"]}


@pytest.fixture(scope="module")
def shared(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node for all operations; that it met no unforeseen error is seen when it ends."""
    with Node(valkey.url, tmp_path_factory.mktemp("openapi"), prefix="openapi") as running:
        yield running


@pytest.fixture(scope="module")
def schema(shared: Node) -> Any:
    return schemathesis.openapi.from_url(f"{shared.url}/openapi.json")


def headers(*scopes: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token('fuzz', *scopes, topics=TOPICS)}"}


def fill(path: str) -> str:
    """A path of the document with something in the place of its parameters."""
    named = {"id": "1764000000123-0", "user": "u1", "topic": "t", "device": "phone"}
    return path.format(**named)


def answer_to(case: Case[Any], node: Node, session: requests.Session) -> requests.Response:
    """Send a request; of an answer without end only the head is read."""
    if case.path == "/v1/poll":
        case.query = {**(case.query or {}), "wait": 0}
    kwargs = case.as_transport_kwargs(base_url=node.url, headers=headers(*SCOPES))
    answer = session.request(**kwargs, stream=True, timeout=20)
    if answer.headers.get("Content-Type", "").startswith("text/event-stream"):
        answer.close()
        answer._content = b""  # there is no public way to leave a body unread
    return answer


@pytest.mark.parametrize(("method", "path", "mode"), CASES)
def test_every_answer_is_documented(
    shared: Node, schema: Any, method: str, path: str, mode: GenerationMode
) -> None:
    cases: st.SearchStrategy[Case[Any]] = schema[path][method].as_strategy(generation_mode=mode)
    statuses: set[int] = set()

    @settings(
        max_examples=20,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def attempt(case: Case[Any]) -> None:
        answer = answer_to(case, shared, session)
        statuses.add(answer.status_code)
        case.validate_response(answer, checks=CHECKS)

    with requests.Session() as session:
        attempt()
    if mode.is_positive and (method, path) not in CANNOT_SUCCEED:
        assert min(statuses) < 300, "no request that the document allows was accepted"


def asked(node: Node, method: str, path: str, **kwargs: Any) -> httpx.Response:
    return httpx.request(method, node.url + fill(path), timeout=20, **kwargs)


@pytest.mark.parametrize(("method", "path"), sorted(set(PROTECTED) - {("GET", "/v1/ws")}))
def test_without_a_token_every_operation_is_refused_as_documented(
    shared: Node, schema: Any, method: str, path: str
) -> None:
    for sent in ({}, {"Authorization": "Bearer nonsense"}):
        answer = asked(shared, method, path, headers=sent)
        assert answer.status_code == 401
        schema[path][method].validate_response(answer)


@pytest.mark.parametrize("path", DOCUMENT["paths"])
def test_every_other_method_is_refused_with_those_that_are_served(shared: Node, path: str) -> None:
    documented = {method.upper() for method in DOCUMENT["paths"][path]}
    for method in ({"GET", "POST", "PUT", "PATCH", "DELETE"} - documented) | {"PROPFIND"}:
        answer = asked(shared, method, path, headers=headers(*SCOPES))
        problem(answer, 405, "method_not_allowed")
        assert set(answer.headers["Allow"].split(", ")) - {"OPTIONS", "HEAD"} == documented


@pytest.mark.parametrize("name", ["openapi", "asyncapi"])
def test_the_documents_are_served_to_everyone(shared: Node, name: str) -> None:
    answer = asked(shared, "GET", f"/{name}.json")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == {"openapi": openapi, "asyncapi": asyncapi}[name].document()


def test_the_page_is_served_and_may_load_nothing(shared: Node) -> None:
    answer = asked(shared, "GET", "/docs")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; ")
    assert answer.text.startswith("<!doctype html>")


def test_a_recall_that_succeeds_is_documented(shared: Node, schema: Any) -> None:
    path = "/v1/users/{user}/notifications/{id}"
    found = shared.publish("recalled", 1)
    url = shared.url + path.format(user="recalled", id=found)
    answer = httpx.delete(url, headers=headers(*SCOPES), timeout=20)
    assert answer.status_code == 200
    schema[path]["DELETE"].validate_response(answer)


async def test_answers_that_hold_something_are_documented(
    shared: Node, schema: Any, user: str
) -> None:
    backend = token(f"{user}.backend", *SCOPES)  # whose receipts are of this test alone
    auth = {"Authorization": f"Bearer {backend}"}

    async def get(path: str, **query: Any) -> Any:
        url = shared.url + path.format(user=user, topic=user)
        answer = await asyncio.to_thread(httpx.get, url, headers=auth, params=query, timeout=20)
        schema[path]["GET"].validate_response(answer)
        return answer.json()

    async with Phone(shared, user, auth=token(user, topics=TOPICS)) as phone:
        await phone.send(type="subscribe", topic=user, ref=1)
        await until(phone, ref=1)
        event = f"{user}.e"
        body: dict[str, Any] = {"to": {"user": user}}
        body |= {"data": "AA==", "encoding": "base64", "receipt": True}
        body["event"] = event
        traced = auth | {"traceparent": f"00-{'0af7651916cd43dd' * 2}-b7ad6b7169203331-01"}
        await asyncio.to_thread(shared.post, "/v1/notifications", body, headers=traced)
        note = await until(phone, event=event)
        await phone.send(type="ack", id=note["id"], ref=2)
        assert (await until(phone, ref=2))["acked"] == note["id"]
        (kept,) = (await get("/v1/users/{user}/notifications", limit=1))["notifications"]
        assert [each["device"] for each in kept["acked"]] == ["phone"]
        assert (await get("/v1/users/{user}/presence"))["online"]
        assert (await get("/v1/topics/{topic}/presence"))["users"] == [user]
    deadline = time.monotonic() + 20
    while not (receipts := (await get("/v1/receipts"))["receipts"]):
        assert time.monotonic() < deadline, "no receipt came"
        await asyncio.sleep(0.05)
    assert receipts[0]["status"] == "acked"
    await asyncio.to_thread(shared.post, "/v1/revocations", {"user": f"{user}-x"}, headers=auth)
    assert (await get("/v1/revocations"))["revocations"]


def test_the_messages_of_a_stream_and_a_poll_are_documented(shared: Node, user: str) -> None:
    auth = {"Authorization": f"Bearer {token(user, topics=TOPICS)}"}
    shared.publish(user, {"n": 1})
    polled = httpx.get(
        f"{shared.url}/v1/poll?device=poll&topic={user}&wait=0", headers=auth, timeout=20
    ).json()["messages"]
    kinds = [documented(message) for message in polled]
    assert {"n": 1} in [message.get("data") for message in polled]
    with httpx.stream("GET", f"{shared.url}/v1/stream", headers=auth, timeout=20) as stream:
        streamed: list[Any] = []
        for line in stream.iter_lines():
            if line.startswith("data:"):
                streamed.append(json.loads(line.removeprefix("data:")))
                kinds.append(documented(streamed[-1]))
            if streamed and streamed[-1].get("data") == {"n": 1}:
                break
    assert {"welcome", "notification"} <= set(kinds)


async def until(phone: Phone, **fields: Any) -> dict[str, Any]:
    """The next message with these fields; others, of the tests before, are passed over."""
    while True:
        message = await phone.receive()
        documented(message)
        if fields.items() <= message.items():
            return message


async def test_the_messages_on_a_socket_are_documented(shared: Node, user: str) -> None:
    """A conversation with each message of a client and most of the server's."""
    auth = token(user, topics=TOPICS)
    sent: list[dict[str, Any]] = [
        {"type": "subscribe", "topic": user, "ref": 1},
        {"type": "subscribe", "topics": {f"{user}.a": None, f"{user}.b": "0-0"}, "ref": 2},
        {"type": "publish", "topic": user, "data": [1], "event": "e", "ref": 3},
        {"type": "publish", "topic": user, "data": "AA==", "encoding": "base64", "ref": 4},
        {"type": "publish", "topic": user, "data": None, "ephemeral": True, "ref": 5},
        {"type": "presence", "topic": user, "ref": 6},
        {"type": "unsubscribe", "topic": f"{user}.a", "ref": 7},
        {"type": "refresh", "token": auth, "ref": 8},
        {"type": "ping", "ref": 9},
        {"type": "nonsense", "ref": 10},
    ]
    answered: set[int] = set()
    kinds: set[str] = set()
    async with Phone(shared, user, auth=auth) as phone:
        documented(phone.welcome)
        await asyncio.to_thread(shared.publish, user, {"n": 1}, event="e")
        for message in sent:
            await phone.send(**message)
        while len(answered) < len(sent) or not kinds >= {"notification", "ephemeral"}:
            message = await phone.receive()
            kinds.add(documented(message))
            if "ref" in message:
                answered.add(message["ref"])
        await phone.send(type="ack", id=message.get("id", "0-0"), ref=11)
        while (message := await phone.receive()).get("ref") != 11:
            documented(message)
        assert documented(message) == "reply"
    assert kinds >= {"notification", "ephemeral", "reply", "error", "pong"}


def documented(message: dict[str, Any]) -> str:
    """Hold a message to its schema; the schema's name."""
    name = "ephemeral" if message.get("ephemeral") else message["type"]
    components = ASYNCAPI["components"]
    jsonschema_rs.Draft202012Validator(
        {"$ref": f"#/components/schemas/server.{name}", "components": components}
    ).validate(message)
    return name
