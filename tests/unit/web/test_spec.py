"""What the node says of itself is what it does: OpenAPI, AsyncAPI and the page made of them."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any, get_type_hints

import hypothesis
import jsonschema_rs
import openapi_spec_validator
import pytest
import schemathesis
from hypothesis import given
from hypothesis import strategies as st

from pushsvc import errors
from pushsvc.codes import Close
from pushsvc.errors import InvalidRequest, PushError, RateLimited
from pushsvc.protocol import cloudevents, encoding, feeds, ids, messages, names, notifications
from pushsvc.protocol.cloudevents import Mode
from pushsvc.protocol.read_state import Change, Verb
from pushsvc.protocol.wire import parse_position, position
from pushsvc.web.api import DEVICES, USERS, Routes
from pushsvc.web.operation import Operation
from pushsvc.web.spec import asyncapi, openapi, page, schemas
from tests.support.documents import PROTOCOL, descendants, table

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


@given(st.text() | st.text(min_size=200) | st.from_regex(schemas.NAME["pattern"]))
def test_the_pattern_of_a_name_is_the_rule_for_names_but_for_counting_bytes(text: str) -> None:
    good = jsonschema_rs.Draft202012Validator(schemas.NAME).is_valid(text)
    assert names.is_name(text) == (good and len(text.encode()) <= names.MAX_NAME)


@given(st.text() | st.text(min_size=200) | st.from_regex(schemas.TOPIC["pattern"]))
@hypothesis.example("\u200d")
@hypothesis.example("\U0001d173")
@hypothesis.example("\U0001fae8")
@hypothesis.example("\ufffb")
def test_the_pattern_of_a_topic_is_the_rule_but_for_bytes_and_what_is_beyond_ffff(
    text: str,
) -> None:
    good = jsonschema_rs.Draft202012Validator(schemas.TOPIC).is_valid(text)
    beyond = any(ord(each) > 0xFFFF for each in re.findall(f"[{names.UNPRINTABLE}]", text))
    assert names.is_topic(text) == (good and not beyond and len(text.encode()) <= names.MAX_NAME)


def test_a_pattern_has_no_character_that_takes_two_units_where_the_flag_u_is_missing() -> None:
    for _, where, schema in ALL_SCHEMAS:
        assert all(ord(each) <= 0xFFFF for each in schema.get("pattern", "")), where


@given(st.text() | st.from_regex(schemas.LABEL["pattern"]))
def test_the_pattern_of_a_label_is_the_rule_for_labels(text: str) -> None:
    try:
        names.require_label(text, "event")
    except InvalidRequest:
        good = False
    else:
        good = True
    assert jsonschema_rs.Draft202012Validator(schemas.LABEL).is_valid(text) == good


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
    if jsonschema_rs.Draft202012Validator(schemas.POSITION).is_valid(text) and "%" not in text:
        parse_position(text)


@given(st.dictionaries(st.text().filter(names.is_topic).map(feeds.topic), st.integers(0, 2**40)))
def test_the_pattern_of_a_position_takes_every_position(positions: dict[str, int]) -> None:
    assert jsonschema_rs.Draft202012Validator(schemas.POSITION).is_valid(position(positions))


# --- OpenAPI -------------------------------------------------------------------------------------


def test_the_openapi_document_is_one() -> None:
    schemathesis.openapi.from_dict(OPENAPI).validate()
    openapi_spec_validator.validate(OPENAPI)


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
        notifications.appends_from(example["value"], 65536)
    batch = OPENAPI["paths"]["/v1/notifications/batch"]["post"]["requestBody"]["content"]
    for note in batch["application/json"]["examples"]["batch"]["value"]["notifications"]:
        notifications.appends_from(note, 65536)


@pytest.mark.parametrize("mode", [Mode.STRUCTURED, Mode.BATCH])
def test_the_examples_of_a_cloudevent_can_be_published(mode: Mode) -> None:
    bodies = OPENAPI["paths"]["/v1/notifications"]["post"]["requestBody"]["content"]
    for example in bodies[cloudevents.STRUCTURED]["examples"].values():
        sent = [example["value"]] if mode is Mode.BATCH else example["value"]
        (publish,) = cloudevents.read(mode, {}, encoding.encode(sent))
        notifications.appends_from(publish.notification, 65536)


@pytest.mark.parametrize(
    ("fields", "good"),
    [
        ({"pushuser": "u1"}, True),
        ({"pushtopic": "t", "data": 1}, True),
        ({"pushbroadcast": True, "data_base64": "AA=="}, True),
        ({}, False),
        ({"pushuser": "u1", "pushtopic": "t"}, False),
        ({"pushuser": "u1", "pushbroadcast": True}, False),
        ({"pushuser": "u1", "data": 1, "data_base64": "AA=="}, False),
    ],
)
def test_a_cloudevent_is_for_one_and_has_one_kind_of_data(
    fields: dict[str, Any], *, good: bool
) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", **fields}
    schema = {**OPENAPI["components"]["schemas"]["CloudEvent"], "components": {}}
    assert jsonschema_rs.Draft202012Validator(schema).is_valid(event) == good
    try:
        cloudevents.read(Mode.STRUCTURED, {}, encoding.encode(event))
    except InvalidRequest:
        assert not good
    else:
        assert good


def test_the_document_knows_every_extension_attribute_of_a_cloudevent() -> None:
    described = OPENAPI["components"]["schemas"]["CloudEvent"]["properties"]
    assert {name for name in described if name.startswith("push")} == set(cloudevents.EXTENSIONS)


def test_every_path_that_is_served_is_in_the_document_and_the_other_way_round() -> None:
    made: dict[str, Any] = {
        name: kind.__new__(kind) if isinstance(kind, type) and issubclass(kind, Operation) else {}
        for name, kind in get_type_hints(Routes).items()
    }
    routes = Routes(**made)
    operations = routes.operations()
    served: dict[str, Any] = {
        **{path: handler for path, handler, *_ in routes.rules()},
        **{re.escape(path): operation for path, operation in operations.whole.items()},
        **{USERS + "[^/]+" + end: operation for end, operation in operations.of_users.items()},
        **{
            USERS + "[^/]+" + DEVICES + "[^/]+" + end: operation
            for end, operation in operations.of_devices.items()
        },
    }
    undocumented = set(served) - {"/"}  # leads to the page, and is no part of the API
    for path, methods in OPENAPI["paths"].items():
        sample = re.sub(r"\{\w+\}", "x", path)
        (rule,) = [rule for rule in served if re.fullmatch(rule, sample)]
        undocumented.discard(rule)
        allowed = set(served[rule].allow.split(", ")) - {"OPTIONS", "HEAD"}
        assert allowed == {method.upper() for method in methods}, path
    assert not undocumented


# --- what generators of code need, and validators do not ask for ---------------------------------

Found = tuple[str, dict[str, Any]]


def schemas_in(document: dict[str, Any]) -> Iterator[Found]:
    """Every schema of a document that stands for a value, with where it is."""
    for name, schema in document["components"]["schemas"].items():
        yield from below(name, schema)
    for part in walk({key: document[key] for key in document if key != "components"}):
        if isinstance(part.get("schema"), dict):
            yield from below(str(part.get("name", "a body or a header")), part["schema"])
        for binding in ("query", "headers"):
            if part.get("bindingVersion") and binding in part:
                yield from below(binding, part[binding])


def below(where: str, schema: dict[str, Any]) -> Iterator[Found]:
    """A schema, and those of its parts."""
    yield where, schema
    for name, field in schema.get("properties", {}).items():
        yield from below(f"{where}.{name}", field)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from below(f"{where}.{key}", schema[key])
    for key in ("anyOf", "oneOf", "allOf"):
        for each in schema.get(key, ()):
            yield from below(f"{where}.{key}", each)


ALL_SCHEMAS = [(name, *each) for name in DOCUMENTS for each in schemas_in(DOCUMENTS[name])]
KINDS = {bool: "boolean", str: "string", int: "integer"}


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = OPENAPI["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def test_every_fixed_value_has_its_type() -> None:
    for _, where, schema in ALL_SCHEMAS:
        values = [schema["const"]] if "const" in schema else schema.get("enum", [])
        assert all(KINDS[type(value)] == schema.get("type") for value in values), where


def test_only_what_publishers_make_up_has_no_type() -> None:
    for _, where, schema in ALL_SCHEMAS:
        if not {"type", "$ref", "anyOf"} & set(schema):
            assert where.endswith(".data"), where


def test_whatever_has_fields_has_a_name() -> None:
    for document, where, schema in ALL_SCHEMAS:
        if "properties" in schema and document == "openapi":
            assert where in OPENAPI["components"]["schemas"]


def test_a_choice_between_shapes_has_a_name() -> None:
    for _, where, schema in ALL_SCHEMAS:
        assert not {"oneOf", "allOf", "nullable"} & set(schema), where
        options = schema.get("anyOf", [])
        if any("$ref" in each for each in options):
            assert where in OPENAPI["components"]["schemas"]
            assert all("$ref" in each for each in options)


def test_no_shape_has_a_list_of_its_own_name() -> None:
    """Or a generated function has an object and its list under one name."""
    for name, schema in OPENAPI["components"]["schemas"].items():
        for field, described in schema.get("properties", {}).items():
            assert described.get("type") != "array" or field.replace("_", "") != name.lower()


def test_no_operation_has_a_parameter_twice() -> None:
    for _, path, operation in operations():
        names_ = [(each["name"], each["in"]) for each in operation.get("parameters", [])]
        assert len(set(names_)) == len(names_), path
        for name, place in names_:
            # Generators make arguments of all, and leave these three headers out.
            assert [other for other, _ in names_].count(name) == 1, path
            assert place != "header" or name not in {"Accept", "Content-Type", "Authorization"}


def test_one_of_several_kinds_of_body_is_known_by_its_class() -> None:
    for _, path, operation in operations():
        contents = operation.get("requestBody", {"content": {}})["content"]
        for media_type, body in contents.items():
            assert media_type.endswith(("/json", "+json")), path
            assert len(contents) == 1 or resolved(body["schema"])["type"] == "object", path


def test_every_good_answer_says_what_it_holds() -> None:
    for _, path, operation in operations():
        for status, answer in operation["responses"].items():
            if status not in {"101", "204"}:
                assert all(body["schema"] for body in answer["content"].values()), path
                assert answer["content"], path


def test_the_names_of_operations_are_names_in_programs() -> None:
    for _, _, operation in operations():
        assert re.fullmatch(r"[a-z]+([A-Z][a-z]+)*", operation["operationId"])


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
            assert isinstance(messages.client_message(example), kinds[name])


def _body(**note: Any) -> bytes:
    return notifications.appends_from({"to": {"user": "u1"}, "data": 1, **note}, 65536)[0].body


SENT: dict[str, list[bytes]] = {
    "welcome": [
        messages.welcome(
            connection="n.1",
            user="u1",
            device="d",
            heartbeat=25.0,
            window=64,
            expires_at=1,
            unread=0,
        )
    ],
    "notification": [
        messages.notification(ID, _body(), 1),
        messages.notification(ID, _body(event="e"), 2),
        messages.notification(ID, _body(), 2, "read"),
        messages.notification(ID, _body(), 1, "archived"),
        messages.notification(ID, _body(inbox=False), 1),
        messages.notification(ID, _body(to={"broadcast": True}), 1),
        messages.notification(ID, _body(data="AA==", encoding="base64"), 1),
        messages.notification(ID, _body(to={"topic": "t"}, collapse_key="k"), 1),
        messages.notification(
            ID, notifications.append_from(messages.Publish("t", [1]), 65536, "u2").body, 1
        ),
    ],
    "ephemeral": [
        messages.ephemeral(1764000000.123, _body(to={"topic": "t"}, ephemeral=True)),
        messages.ephemeral(
            1764000000.123,
            notifications.append_from(messages.Publish("t", [1], ephemeral=True), 65536, "u2").body,
        ),
    ],
    "gap": [
        messages.gap(ID, "trimmed"),
        messages.gap(ID, "reset", topic="t"),
        messages.gap(ID, "trimmed", broadcast=True),
        messages.gap(ID, "reset", unread=2),
    ],
    "withdrawn": [messages.withdrawn(ID, "recalled"), messages.withdrawn(ID, "acked")],
    **{
        verb.value: [
            messages.read_state(Change(verb, [ID]), 1),
            messages.read_state(Change(verb, until=ID), 0),
        ]
        for verb in Verb
    },
    "presence": [messages.presence("t", ["u1"], []), messages.present("t", 1001)],
    "reply": [
        messages.reply(1, acked=ids.render(ID)),
        messages.reply("x", topic="t", last=ids.render(ID)),
        messages.reply(1, topic="t", users=["u1"], count=1),
        messages.reply(1, topic="t", users=["u1"], count=1001, sample=True),
        messages.reply(1, topics={"t": "0-0"}),
        messages.reply(1, id=ids.render(ID), durability="memory", connections=1),
        messages.reply(None, expires_at=1),
        messages.reply(1, unread=3),
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
