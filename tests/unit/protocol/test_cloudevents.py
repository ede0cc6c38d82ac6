"""CloudEvents as a publish request, written by hand and by the official SDK."""

import base64
import json
from typing import Any
from urllib.parse import quote

import pytest
from cloudevents.core.bindings import http
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.errors import InvalidJSON, InvalidName, InvalidRequest, UnsupportedMediaType
from pushsvc.protocol import cloudevents, encoding
from pushsvc.protocol.cloudevents import Mode, Publish
from pushsvc.web.publish import idempotency_key

MINIMAL = {
    "specversion": "1.0",
    "id": "a-1",
    "source": "/orders",
    "type": "order.shipped",
    "pushuser": "u1",
}
HEADERS = {f"ce-{name}": value for name, value in MINIMAL.items()}


def read(headers: dict[str, str], body: bytes) -> list[Publish]:
    """Read a request as a handler does."""
    lower = {name.lower(): value for name, value in headers.items()}
    mode = cloudevents.kind(lower.get("content-type", ""), lower)
    assert mode is not None
    return cloudevents.read(mode, lower, body)


def binary(
    content_type: str | None = None,
    body: bytes = b"",
    attributes: dict[str, str] | None = None,
) -> Publish:
    headers = HEADERS | {f"ce-{name}": value for name, value in (attributes or {}).items()}
    if content_type is not None:
        headers["content-type"] = content_type
    (publish,) = read(headers, body)
    return publish


def structured(event: Any) -> Publish:
    (publish,) = read({"content-type": cloudevents.STRUCTURED}, json.dumps(event).encode())
    return publish


def batch(events: Any) -> list[Publish]:
    return read({"content-type": cloudevents.BATCHED}, json.dumps(events).encode())


# --- the modes -----------------------------------------------------------------------------------


def test_an_event_in_the_json_format_becomes_a_notification() -> None:
    publish = structured(MINIMAL | {"data": {"order": 17}})
    assert publish.notification == {
        "to": {"user": "u1"},
        "event": "order.shipped",
        "data": {"order": 17},
    }


def test_an_event_in_headers_becomes_the_same_notification() -> None:
    assert binary("application/json", b'{"order": 17}') == structured(
        MINIMAL | {"data": {"order": 17}}
    )


def test_a_batch_is_its_events_in_order() -> None:
    events = [MINIMAL | {"id": str(i), "data": i} for i in range(3)]
    assert batch(events) == [structured(event) for event in events]
    assert batch([]) == []


def test_a_request_without_events_is_none_of_this_modules() -> None:
    assert cloudevents.kind("application/json", {"content-type": "application/json"}) is None
    assert cloudevents.kind("", {}) is None


def test_a_request_with_any_attribute_of_an_event_is_an_event() -> None:
    assert cloudevents.kind("application/json", {"ce-id": "1"}) is Mode.BINARY


def test_a_media_type_is_recognized_whatever_its_case_and_parameters() -> None:
    assert cloudevents.kind("Application/CloudEvents+JSON; charset=UTF-8", {}) is Mode.STRUCTURED


@pytest.mark.parametrize("format_", ["+avro", "+protobuf", "+xml", "", "-batch+protobuf"])
def test_a_format_that_is_not_read_is_refused(format_: str) -> None:
    with pytest.raises(UnsupportedMediaType, match="send one of them"):
        cloudevents.kind("application/cloudevents" + format_, {})


def test_an_attribute_header_in_structured_mode_changes_nothing() -> None:
    headers = {"content-type": cloudevents.STRUCTURED, "ce-pushuser": "u2"}
    (publish,) = read(headers, json.dumps(MINIMAL).encode())
    assert publish == structured(MINIMAL)


# --- identity ------------------------------------------------------------------------------------


def test_an_event_keeps_its_key_whatever_else_is_said_about_it() -> None:
    again = structured(MINIMAL | {"time": "2026-01-01T00:00:00Z", "subject": "x", "data": 1})
    assert again.key == structured(MINIMAL).key


def test_events_of_other_sources_or_ids_have_other_keys() -> None:
    keys = {
        structured(MINIMAL | {"source": source, "id": id_}).key
        for source, id_ in [("/a", "b"), ("/ab", "b"), ("/a", "bb"), ("/", "ab")]
    }
    assert len(keys) == 4


def test_a_key_is_one_that_the_publish_api_takes() -> None:
    key = structured(MINIMAL).key
    assert idempotency_key(key) == key


def test_a_second_idempotency_key_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="leave the Idempotency-Key out"):
        read(HEADERS | {"Idempotency-Key": '"x"'}, b"")


# --- data ----------------------------------------------------------------------------------------

ENCODED = {"data": "/wA=", "encoding": "base64"}


@pytest.mark.parametrize(
    ("content_type", "body", "fields"),
    [
        (None, b"[1]", {"data": [1]}),
        (None, b"", {"data": None}),
        ("application/json", b"", {"data": None}),
        ("application/json; charset=utf-8", b'"x"', {"data": "x"}),
        ("application/vnd.order+json", b'{"a":1}', {"data": {"a": 1}}),
        ("text/json", b"1", {"data": 1}),
        ("text/plain", "grüß".encode(), {"data": "grüß"}),
        ("text/xml; charset=utf-8", b"<a/>", {"data": "<a/>"}),
        ("application/octet-stream", b"\xff\x00", ENCODED),
        ("image/png", b"\xff\x00", ENCODED),
        ("application/xml", b"<a/>", {"data": "PGEvPg==", "encoding": "base64"}),
    ],
)
def test_data_becomes_json_a_string_or_base64_by_its_media_type(
    content_type: str | None, body: bytes, fields: dict[str, Any]
) -> None:
    value = binary(content_type, body).notification
    assert {name: value[name] for name in value if name in {"data", "encoding"}} == fields


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        ({}, {"data": None}),
        ({"data": None}, {"data": None}),
        ({"data_base64": None}, {"data": None}),
        ({"data": "x"}, {"data": "x"}),
        ({"data_base64": "/wA="}, ENCODED),
        ({"data_base64": "WzFd", "datacontenttype": "application/json"}, {"data": [1]}),
        ({"data_base64": "aGk=", "datacontenttype": "text/plain"}, {"data": "hi"}),
        ({"data_base64": "/wA=", "datacontenttype": "image/png"}, ENCODED),
        ({"data": "hi", "datacontenttype": "text/plain"}, {"data": "hi"}),
        (
            {"data": "<a/>", "datacontenttype": "application/xml"},
            {"data": "PGEvPg==", "encoding": "base64"},
        ),
    ],
)
def test_data_in_the_json_format_becomes_the_same(
    event: dict[str, Any], fields: dict[str, Any]
) -> None:
    value = structured(MINIMAL | event).notification
    assert {name: value[name] for name in value if name in {"data", "encoding"}} == fields


@pytest.mark.parametrize(
    ("event", "why"),
    [
        ({"data": 1, "data_base64": "AA=="}, "not both"),
        ({"data_base64": "AA"}, "padded base64"),
        ({"data_base64": "A A="}, "padded base64"),
        ({"data_base64": 1}, "padded base64"),
        ({"data": {}, "datacontenttype": "text/plain"}, "is a string"),
        ({"data_base64": "/w==", "datacontenttype": "text/plain"}, "not UTF-8"),
        ({"data_base64": "/w==", "datacontenttype": "application/json"}, "send its media type"),
        ({"datacontenttype": 1}, "a media type"),
    ],
)
def test_data_that_is_not_what_it_says_is_refused(event: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        structured(MINIMAL | event)


def test_data_without_a_media_type_is_json_or_refused() -> None:
    with pytest.raises(InvalidJSON, match="if it is not meant to be JSON, send its media type"):
        binary(None, b"\xff")
    with pytest.raises(InvalidJSON, match="twice"):
        binary("application/json", b'{"a":1,"a":2}')


@pytest.mark.parametrize("content_type", ["text/plain", "application/json"])
def test_text_in_another_encoding_is_refused(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType, match="encode it as UTF-8"):
        binary(f"{content_type}; charset=iso-8859-1", b"gr\xfc\xdf")


# --- attributes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["specversion", "id", "source", "type"])
def test_a_required_attribute_that_is_missing_is_named(name: str) -> None:
    with pytest.raises(InvalidRequest, match=f'needs the attribute "{name}"'):
        structured({key: value for key, value in MINIMAL.items() if key != name})
    with pytest.raises(InvalidRequest, match=f"the header ce-{name}"):
        read({key: value for key, value in HEADERS.items() if key != f"ce-{name}"}, b"")
    with pytest.raises(InvalidRequest, match=f'needs the attribute "{name}"'):
        structured(MINIMAL | {name: None})
    with pytest.raises(InvalidRequest, match=f'needs the attribute "{name}"'):
        structured(MINIMAL | {name: 1})
    with pytest.raises(InvalidRequest, match="is empty"):
        structured(MINIMAL | {name: ""})


@pytest.mark.parametrize("version", ["0.3", "1.1", "1", "1.0 "])
def test_another_version_is_refused(version: str) -> None:
    with pytest.raises(InvalidRequest, match=r"only CloudEvents 1\.0"):
        structured(MINIMAL | {"specversion": version})


@pytest.mark.parametrize("name", ["Subject", "trace_id", "trace-id", "", "ü", "x" * 99 + "!"])
def test_what_is_no_attribute_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="is no attribute name") as caught:
        structured(MINIMAL | {name: "x"})
    assert len(caught.value.detail) < 200


@pytest.mark.parametrize("name", ["trace-id", "data", "data_base64", ""])
def test_a_header_that_names_no_attribute_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="is no attribute name"):
        binary(attributes={name: "x"})


def test_the_media_type_has_a_header_of_its_own() -> None:
    with pytest.raises(InvalidRequest, match="leave ce-datacontenttype out"):
        binary(attributes={"datacontenttype": "text/plain"})


@pytest.mark.parametrize("value", [1.5, 2**31, -(2**31) - 1, [], {}])
def test_an_attribute_of_no_type_of_cloudevents_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequest, match="put what has structure into the data"):
        structured(MINIMAL | {"extra": value})


@pytest.mark.parametrize("text", ["a\nb", "\x7f", "\x85", "\ufffe", "\U0001ffff", "\ufdd0"])
def test_a_string_of_what_is_no_character_is_refused(text: str) -> None:
    for change in ({"subject": text}, {"id": text}):
        with pytest.raises(InvalidRequest, match="no character"):
            structured(MINIMAL | change)
        with pytest.raises(InvalidRequest, match="no character"):
            binary(attributes={name: quote(value) for name, value in change.items()})


@pytest.mark.parametrize("change", [{"time": None}, {"subject": "x", "n": 1, "flag": True}])
def test_attributes_that_nothing_is_done_with_are_left_behind(change: dict[str, Any]) -> None:
    assert structured(MINIMAL | change) == structured(MINIMAL)


# --- header values -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "id_"),
    [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("%41%20b", "A b"),
        ('"quoted \\"so\\" \\\\ %25"', 'quoted "so" \\ %'),
        ("a b", "a b"),
        ('half"quoted', 'half"quoted'),
    ],
)
def test_a_header_value_is_unquoted_and_percent_decoded_once(header: str, id_: str) -> None:
    assert binary(attributes={"id": header}).key == structured(MINIMAL | {"id": id_}).key


@pytest.mark.parametrize("header", ["100%", "%4", "%zz", "%C0%A0", "%ED%A0%80", "caf\xe9"])
def test_a_header_value_that_is_not_percent_encoded_utf_8_is_refused(header: str) -> None:
    with pytest.raises(InvalidRequest, match=r"percent-encoded"):
        binary(attributes={"id": header})


# --- what is published ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "to"),
    [
        ({"pushuser": "u2"}, {"user": "u2"}),
        ({"pushuser": None, "pushtopic": "scores.nba"}, {"topic": "scores.nba"}),
        ({"pushuser": None, "pushbroadcast": "true"}, {"broadcast": True}),
        ({"pushuser": None, "pushbroadcast": True}, {"broadcast": True}),
        ({"pushbroadcast": False}, {"user": "u1"}),
    ],
)
def test_an_event_says_whom_it_is_for(attributes: dict[str, Any], to: dict[str, Any]) -> None:
    assert structured(MINIMAL | attributes).notification["to"] == to


@pytest.mark.parametrize(
    "attributes",
    [
        {"pushuser": None},
        {"pushtopic": "t"},
        {"pushbroadcast": "true"},
        {"pushuser": None, "pushbroadcast": "false"},
    ],
)
def test_an_event_for_nobody_or_for_two_is_refused(attributes: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="exactly one of"):
        structured(MINIMAL | attributes)


def test_all_that_a_notification_may_say_can_be_said() -> None:
    attributes = {
        "pushttl": 60,
        "pushcollapsekey": "score",
        "pushdeliver": "any-device",
        "pushephemeral": False,
        "pushreceipt": True,
        "pushat": "2026-01-31t09:00:00z",
    }
    publish = structured(MINIMAL | attributes)
    assert publish.notification == {
        "to": {"user": "u1"},
        "event": "order.shipped",
        "data": None,
        "ttl": 60,
        "collapse_key": "score",
        "deliver": "any-device",
        "ephemeral": False,
        "receipt": True,
        "at": "2026-01-31t09:00:00z",
    }
    texts = {name: str(value).lower() for name, value in attributes.items()}
    assert binary(attributes=texts) == publish
    assert binary(attributes={"pushdevice": "a%20phone"}).notification["to"] == {
        "user": "u1",
        "device": "a phone",
    }


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({"pushttl": "soon"}, "is an integer"),
        ({"pushttl": "1.5"}, "is an integer"),
        ({"pushttl": "٣"}, "is an integer"),
        ({"pushttl": True}, "is an integer"),
        ({"pushephemeral": "yes"}, "is true or false"),
        ({"pushephemeral": 1}, "is true or false"),
        ({"pushcollapsekey": 1}, "is a string"),
        ({"pushuser": 1}, "is a string"),
        ({"pushusr": "u1"}, "is not known"),
    ],
)
def test_an_extension_attribute_of_ours_that_cannot_be_meant_is_refused(
    attributes: dict[str, Any], why: str
) -> None:
    with pytest.raises(InvalidRequest, match=why):
        structured(MINIMAL | attributes)


def test_a_type_that_is_no_name_is_refused() -> None:
    with pytest.raises(InvalidName, match='the type of a CloudEvent, which becomes the "event"'):
        structured(MINIMAL | {"type": "order shipped"})


# --- batches -------------------------------------------------------------------------------------


def test_a_batch_with_a_bad_event_is_refused_and_the_event_is_named() -> None:
    with pytest.raises(InvalidRequest, match=r'event 1 of the batch: .*"id"'):
        batch([MINIMAL, MINIMAL | {"id": ""}])
    with pytest.raises(InvalidRequest, match=r"event 0 of the batch: .* is an object"):
        batch([1])


@pytest.mark.parametrize("value", [{}, MINIMAL, None, "x"])
def test_a_batch_that_is_no_array_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequest, match="is a JSON array"):
        batch(value)


def test_an_event_that_is_no_object_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="is an object"):
        structured([MINIMAL])


# --- the official SDK as a producer --------------------------------------------------------------

printable = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Cn", "Co"]), min_size=1, max_size=20
)
payloads = (
    st.tuples(st.just("application/json"), st.dictionaries(printable, printable | st.integers()))
    | st.tuples(st.just("text/plain"), printable)
    | st.tuples(st.just("application/octet-stream"), st.binary(min_size=1))
)


@given(id_=printable, source=printable, payload=payloads)
def test_what_the_official_sdk_sends_is_the_same_notification_in_every_mode(
    id_: str, source: str, payload: tuple[str, Any]
) -> None:
    content_type, data = payload
    event = CloudEvent(
        MINIMAL | {"id": id_, "source": source, "datacontenttype": content_type}, data
    )
    sent = [http.to_binary_event(event), http.to_structured_event(event)]
    (first,), (second,) = [read(message.headers, message.body) for message in sent]
    assert first == second
    batched = b"[" + sent[1].body + b"," + sent[1].body + b"]"
    assert read({"Content-Type": cloudevents.BATCHED}, batched) == [first, first]
    value = first.notification
    if isinstance(data, bytes):
        assert base64.b64decode(value["data"]) == data
        assert value["encoding"] == "base64"
    else:
        assert value["data"] == data


@given(st.binary() | st.recursive(st.none() | st.text(), st.lists).map(encoding.encode))
def test_any_body_is_events_or_is_refused(body: bytes) -> None:
    for content_type in (cloudevents.STRUCTURED, cloudevents.BATCHED, "application/json"):
        try:
            read(HEADERS | {"content-type": content_type}, body)
        except InvalidRequest as error:
            assert error.detail  # noqa: PT017
