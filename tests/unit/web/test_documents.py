"""What the node says of itself is what it does: OpenAPI, AsyncAPI and the page made of them."""

import base64
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import given
from hypothesis import strategies as st

from pushsvc import errors
from pushsvc.codes import Close
from pushsvc.errors import InvalidRequest, PushError, RateLimited
from pushsvc.protocol import cloudevents, encoding, ids, messages, names, notifications
from pushsvc.protocol.cloudevents import Mode
from pushsvc.protocol.wire import parse_position
from pushsvc.web.api import Routes
from pushsvc.web.spec import asyncapi, openapi, page, schemas
from tests.unit.test_docs import PROTOCOL, descendants, table

OPENAPI = openapi.document()
ASYNCAPI = asyncapi.document()
DOCUMENTS = {"openapi": OPENAPI, "asyncapi": ASYNCAPI}
PAGE = page.page(OPENAPI, ASYNCAPI).decode()

ID = ids.parse("1764000000123-4")


def check(schema: dict[str, Any], value: Any, document: dict[str, Any] = OPENAPI) -> None:
    """Hold a value to a schema of a document."""
    whole = {**schema, "components": document["components"]}
    jsonschema_rs.Draft202012Validator(whole).validate(value)


def walk(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a document."""
    if isinstance(value, dict):
        yield value
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from walk(item)


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in OPENAPI["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


# --- both ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_reference_leads_somewhere(name: str) -> None:
    for part in walk(DOCUMENTS[name]):
        if isinstance(part.get("$ref"), str):
            found = DOCUMENTS[name]
            for step in part["$ref"].removeprefix("#/").split("/"):
                found = found[step]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_is_json(name: str) -> None:
    assert json.loads(encoding.encode(DOCUMENTS[name])) == DOCUMENTS[name]


def test_every_field_says_what_it_means() -> None:
    shapes = [*schemas.client_messages().values(), notifications.Notification]
    for name, schema in schemas.of_shapes(shapes).items():
        assert schema["description"], name
        for field, described in schema["properties"].items():
            assert field == "type" or "description" in described or "$ref" in described, (
                f"say in schemas.FIELDS what {name}.{field} means"
            )


def test_every_field_that_is_said_to_mean_something_is_a_field() -> None:
    shapes = schemas.of_shapes([*schemas.client_messages().values(), notifications.Notification])
    known = {f"{name}.{field}" for name, schema in shapes.items() for field in schema["properties"]}
    known |= {name.partition(".")[2] for name in known} | {"device"}
    assert set(schemas.FIELDS) <= known


@given(st.text() | st.from_regex(schemas.NAME["pattern"]))
def test_the_pattern_of_a_name_is_the_rule_for_names(text: str) -> None:
    pattern = re.compile(schemas.NAME["pattern"])
    assert bool(pattern.search(text.replace("\n", " "))) == names.is_name(text.replace("\n", " "))


@given(st.text() | st.from_regex(ids._FORM, fullmatch=True))
def test_the_pattern_of_an_id_is_the_form_of_ids(text: str) -> None:
    try:
        ids.parse_untrusted(text)
    except InvalidRequest:
        good = False
    else:
        good = True
    validator = jsonschema_rs.Draft202012Validator(schemas.ID)
    assert validator.is_valid(text) == good


@given(st.text() | st.from_regex(schemas.POSITION["pattern"]))
def test_the_pattern_of_a_position_is_the_form_of_positions(text: str) -> None:
    if jsonschema_rs.Draft202012Validator(schemas.POSITION).is_valid(text):
        parse_position(text)


# --- OpenAPI -------------------------------------------------------------------------------------


def test_the_openapi_document_is_one() -> None:
    schemathesis.openapi.from_dict(OPENAPI).validate()


def test_operations_have_names_of_their_own() -> None:
    ids_ = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(ids_)) == len(ids_)


def test_every_example_has_the_shape_that_it_is_an_example_of() -> None:
    for _, _, operation in operations():
        contents = [operation.get("requestBody", {"content": {}})["content"]]
        contents += [answer.get("content", {}) for answer in operation["responses"].values()]
        for content in contents:
            for body in content.values():
                examples = [each["value"] for each in body.get("examples", {}).values()]
                for example in [*examples, *([body["example"]] if "example" in body else [])]:
                    check(body["schema"], example)
        for parameter in operation.get("parameters", []):
            if "example" in parameter:
                check(parameter["schema"], parameter["example"])


def test_every_path_parameter_is_declared() -> None:
    for _, path, operation in operations():
        declared = {
            each["name"] for each in operation.get("parameters", []) if each["in"] == "path"
        }
        assert declared == set(re.findall(r"\{(\w+)\}", path))


def test_every_operation_may_answer_with_an_internal_error_and_tells_errors_as_problems() -> None:
    for _, path, operation in operations():
        assert "500" in operation["responses"], path
        for status, answer in operation["responses"].items():
            if int(status) >= 400:
                assert list(answer["content"]) == ["application/problem+json"]
                for example in answer["content"]["application/problem+json"]["examples"].values():
                    assert example["value"]["status"] == int(status)
            if status in ("429", "503"):
                assert answer["headers"]["Retry-After"]["required"]
            if status == "401":
                assert answer["headers"]["WWW-Authenticate"]["required"]


def test_every_operation_with_a_token_may_refuse_it() -> None:
    for _, path, operation in operations():
        assert ("401" in operation["responses"]) == bool(operation["security"]), path


def test_every_problem_has_its_type_in_the_document() -> None:
    kinds: set[type[PushError]] = {PushError, *descendants(PushError)}
    assert set(schemas.error_kinds()) == kinds
    for kind in kinds:
        check({"$ref": "#/components/schemas/Problem"}, kind("change something").problem())
        check(
            {"$ref": "#/components/schemas/Problem"},
            errors.Overloaded("wait", retry_after=1.5).problem(),
        )


def test_the_examples_of_a_notification_can_be_published() -> None:
    bodies = OPENAPI["paths"]["/v1/notifications"]["post"]["requestBody"]["content"]
    for example in bodies["application/json"]["examples"].values():
        notifications.notification_from(example["value"], 65536)
    batch = OPENAPI["paths"]["/v1/notifications/batch"]["post"]["requestBody"]["content"]
    for note in batch["application/json"]["examples"]["batch"]["value"]["notifications"]:
        notifications.notification_from(note, 65536)
    for line in batch["application/x-ndjson"]["examples"]["lines"]["value"].splitlines():
        notifications.notification_from(encoding.decode(line.encode()), 65536)


@pytest.mark.parametrize("mode", [Mode.STRUCTURED, Mode.BATCH])
def test_the_examples_of_a_cloudevent_can_be_published(mode: Mode) -> None:
    media_type = cloudevents.STRUCTURED if mode is Mode.STRUCTURED else cloudevents.BATCHED
    bodies = OPENAPI["paths"]["/v1/notifications"]["post"]["requestBody"]["content"]
    for example in bodies[media_type]["examples"].values():
        for publish in cloudevents.read(mode, {}, encoding.encode(example["value"])):
            notifications.notification_from(publish.notification, 65536)


def test_the_document_knows_every_extension_attribute_of_a_cloudevent() -> None:
    described = OPENAPI["components"]["schemas"]["CloudEvent"]["properties"]
    assert {name for name in described if name.startswith("push")} == set(cloudevents.EXTENSIONS)


def test_every_path_that_is_served_is_in_the_document_and_the_other_way_round() -> None:
    routes = Routes(**{each.name: {} for each in dataclasses.fields(Routes)})
    served = {rule[0]: rule[1] for rule in routes.rules()}
    undocumented = set(served) - {"/"}  # leads to the page, and is no part of the API
    for path, methods in OPENAPI["paths"].items():
        sample = re.sub(r"\{\w+\}", "x", path)
        (rule,) = [rule for rule in served if re.fullmatch(rule, sample)]
        undocumented.discard(rule)
        allowed = set(served[rule].allow.split(", ")) - {"OPTIONS", "HEAD"}
        assert allowed == {method.upper() for method in methods}, path
    assert not undocumented


# --- AsyncAPI ------------------------------------------------------------------------------------


def test_every_example_of_a_message_has_its_shape() -> None:
    for message in ASYNCAPI["components"]["messages"].values():
        assert message["examples"], message["name"]
        for example in message["examples"]:
            check(message["payload"], example["payload"], ASYNCAPI)


def test_every_example_of_a_client_is_a_message() -> None:
    kinds = schemas.client_messages()
    assert set(asyncapi.CLIENT_EXAMPLES) == set(kinds)
    for name, examples in asyncapi.CLIENT_EXAMPLES.items():
        for example in examples:
            assert isinstance(messages.client_message(encoding.encode(example)), kinds[name])


def _body(**note: Any) -> bytes:
    return notifications.notification_from({"to": {"user": "u1"}, "data": 1, **note}, 65536)[1]


SENT: dict[str, list[bytes]] = {
    "welcome": [
        messages.welcome(
            connection="n.1", user="u1", device="d", heartbeat=25.0, window=64, expires_at=1
        )
    ],
    "notification": [
        messages.notification(ID, _body(), 1),
        messages.notification(ID, _body(event="e"), 2),
        messages.notification(ID, _body(to={"broadcast": True}), 1),
        messages.notification(ID, _body(data="AA==", encoding="base64"), 1),
        messages.notification(ID, _body(to={"topic": "t"}, collapse_key="k"), 1),
        messages.notification(
            ID, notifications.publish_from(messages.Publish("t", [1]), 65536, "u2"), 1
        ),
    ],
    "ephemeral": [
        messages.ephemeral(1764000000.123, _body(to={"topic": "t"}, ephemeral=True)),
        messages.ephemeral(
            1764000000.123,
            notifications.publish_from(messages.Publish("t", [1], ephemeral=True), 65536, "u2"),
        ),
    ],
    "gap": [
        messages.gap(ID, "trimmed"),
        messages.gap(ID, "reset", topic="t"),
        messages.gap(ID, "trimmed", broadcast=True),
    ],
    "withdrawn": [messages.withdrawn(ID, "recalled"), messages.withdrawn(ID, "acked")],
    "presence": [messages.presence("t", ["u1"], [])],
    "reply": [
        messages.reply(1, acked=ids.render(ID)),
        messages.reply("x", topic="t", last=ids.render(ID)),
        messages.reply(1, topic="t", users=["u1"], count=1),
        messages.reply(1, topics={"t": "0-0"}),
        messages.reply(1, id=ids.render(ID), durability="memory", connections=1),
        messages.reply(None, expires_at=1),
    ],
    "error": [
        messages.error(RateLimited("slow down", retry_after=0.1), 1),
        messages.error(InvalidRequest("no")),
    ],
    "reconnect": [messages.reconnect(0.4)],
    "pong": [messages.pong(None), messages.pong("x")],
}


@pytest.mark.parametrize("name", schemas.SERVER_MESSAGES)
def test_what_a_node_sends_has_the_documented_shape(name: str) -> None:
    for sent in SENT[name]:
        check({"$ref": f"#/components/schemas/server.{name}"}, json.loads(sent), ASYNCAPI)


def test_the_end_of_a_stream_has_the_documented_shape() -> None:
    sent = messages.closed(Close.DRAINING, Close.DRAINING.reason)
    check({"$ref": "#/components/schemas/server.closed"}, json.loads(sent), ASYNCAPI)


def test_what_to_do_after_a_close_is_what_the_protocol_says() -> None:
    told = {int(code): act for code, _, act in table(PROTOCOL, "## Close codes")}
    for each in asyncapi.close_codes():
        assert told[each["code"]].startswith(each["then"])
    assert {each["code"] for each in asyncapi.close_codes()} == set(Close)


def test_every_error_is_in_the_asyncapi_document() -> None:
    assert {each["code"] for each in asyncapi.errors()} == {
        kind.code for kind in schemas.error_kinds()
    } | {"token_expiring"}


# --- the page ------------------------------------------------------------------------------------

VOID = {"meta", "br", "wbr"}


class _Reader(HTMLParser):
    """Reads a page: its ids, its links, and whether every tag is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name == "id":
                self.ids.append(value or "")
            if name == "href":
                self.links.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def read() -> _Reader:
    reader = _Reader()
    reader.feed(PAGE)
    assert not reader.open
    return reader


def test_the_page_needs_nothing_from_anywhere(read: _Reader) -> None:
    assert not read.tags & {"script", "img", "link", "iframe", "form", "object"}
    assert not {name for name in read.attributes if name.startswith("on") or name == "style"}
    assert "url(" not in PAGE
    assert "@import" not in PAGE


def test_every_link_of_the_page_leads_somewhere(read: _Reader) -> None:
    assert len(set(read.ids)) == len(read.ids)
    for link in read.links:
        assert link in {"/openapi.json", "/asyncapi.json"} or link.removeprefix("#") in read.ids


def test_the_page_shows_every_operation_message_and_schema(read: _Reader) -> None:
    shown = {operation["operationId"] for _, _, operation in operations()}
    shown |= set(ASYNCAPI["components"]["messages"])
    shown |= {f"schema-{name}" for name in OPENAPI["components"]["schemas"]}
    assert shown <= set(read.ids)


def test_the_policy_of_the_page_allows_its_style_and_nothing_else() -> None:
    style = PAGE.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in page.POLICY
    assert "default-src 'none'" in page.POLICY
    assert "unsafe" not in page.POLICY


def test_what_a_document_says_is_text_on_the_page() -> None:
    told = {**OPENAPI, "info": {**OPENAPI["info"], "description": "<script>alert(1)</script>"}}
    assert "<script>" not in page.page(told, ASYNCAPI).decode()
