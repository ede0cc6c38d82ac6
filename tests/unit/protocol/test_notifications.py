"""What publishers send: its shapes, what excludes what, and what of it is stored."""

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.errors import Forbidden, InvalidName, InvalidRequest, PayloadTooLarge
from pushsvc.protocol import encoding, ids, messages, notifications
from pushsvc.protocol.feeds import (
    BROADCAST,
    MAILBOX,
    mailbox,
    namespace_of,
    plain,
    receipts,
    topic,
)
from pushsvc.protocol.messages import Publish
from pushsvc.protocol.notifications import (
    MAX_TTL,
    MAX_USERS,
    Append,
    append_from,
    appends_from,
)

WHEN = "2026-01-31T10:00:00+01:00"

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(
        st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)  # fmt: skip


@given(values)
def test_any_json_is_delivered_as_it_was_published(value: Any) -> None:
    text = json.dumps({"to": {"user": "u1"}, "data": value}).encode()
    (append,) = notifications.appends_from(encoding.decode(text), 1 << 20)
    assert append == Append(mailbox("u1"), append.body)
    told = json.loads(messages.notification(ids.parse("1764000000123-4"), append.body, 1))
    assert told == {
        "type": "notification",
        "id": "1764000000123-4",
        "time": "2025-11-24T16:00:00.123Z",
        "data": value,
    }


def test_one_device_of_a_user_may_be_named() -> None:
    value = {"to": {"user": "u1", "device": "a phone"}, "data": 1}
    (append,) = notifications.appends_from(value, 1 << 20)
    assert append == Append(mailbox("u1"), append.body, device="a phone")
    assert append.body == b'"data":1}'  # who else hears nothing of it need not be told


@pytest.mark.parametrize(
    ("note", "body"),
    [
        ({"to": {"user": "u"}}, b'"data":1}'),
        ({"to": {"user": "u"}, "ttl": None}, b'"data":1}'),
        ({"to": {"user": "u"}, "ttl": 5}, b'"ttl":5,"data":1}'),
        (
            {"to": {"users": ["u", "v"]}, "ttl": 0.5, "event": "e"},
            b'"event":"e","ttl":0.5,"data":1}',
        ),
        ({"to": {"user": "u"}, "ttl": 0}, b'"inbox":false,"data":1}'),
        ({"to": {"topic": "t"}, "ttl": 5}, b'"topic":"t","data":1}'),
        ({"to": {"topic": "t"}, "ttl": 0}, b'"topic":"t","data":1}'),
        ({"to": {"broadcast": True}, "ttl": 5}, b'"broadcast":true,"data":1}'),
    ],
)
def test_what_is_for_users_says_when_it_leaves_their_inbox(
    note: dict[str, Any], body: bytes
) -> None:
    for append in notifications.appends_from({"data": 1, **note}, 1 << 20):
        assert append.body == body
        assert not append.signal


@pytest.mark.parametrize(
    ("note", "why"),
    [
        ({"data": 1}, "to"),
        ({"to": {"user": "u"}}, "data"),
        ({"to": {}, "data": 1}, "exactly one"),
        ({"to": {"user": "u", "users": ["u"]}, "data": 1}, "exactly one"),
        ({"to": {"users": []}, "data": 1}, "1 to 1000"),
        ({"to": {"users": ["u"] * 1001}, "data": 1}, "1 to 1000"),
        ({"to": {"user": "a\u0085"}, "data": 1}, "user id"),
        ({"to": {"topic": "a b"}, "data": 1}, "topic"),
        ({"to": {"topic": "a.*"}, "data": 1}, "topic"),
        ({"to": {"user": "u\r\n"}, "data": 1}, "user id"),
        ({"to": {"user": "u" * 257}, "data": 1}, "user id"),
        ({"to": {"user": "é" * 129}, "data": 1}, "user id"),
        ({"to": {"device": "d"}, "data": 1}, "exactly one|name both"),
        ({"to": {"topic": "t", "device": "d"}, "data": 1}, "name both"),
        ({"to": {"users": ["u"], "device": "d"}, "data": 1}, "name both"),
        ({"to": {"user": "u", "device": ""}, "data": 1}, "device"),
        ({"to": {"user": "u", "device": "d\n"}, "data": 1}, "device"),
        ({"to": {"user": "u", "device": "d"}, "data": 1, "deliver": "any-device"}, "deliver"),
        ({"to": {"user": "u"}, "data": 1, "event": "*"}, "event"),
        ({"to": {"user": "u"}, "data": 1, "ttl": -1}, "ttl"),
        ({"to": {"user": "u"}, "data": 1, "ttl": "5"}, "ttl"),
        ({"to": {"user": "u"}, "data": 1, "ttl": True}, "ttl"),
        ({"to": {"user": "u"}, "data": 1, "at": "tomorrow"}, "RFC 3339"),
        ({"to": {"user": "u"}, "data": 1, "at": "2026-01-31T09:00:00"}, "offset from UTC"),
        ({"to": {"user": "u"}, "data": 1, "at": 1764000000}, "at"),
        ({"to": {"user": "u"}, "data": 1, "at": WHEN, "ephemeral": True}, "ephemeral"),
        ({"to": {"user": "u"}, "data": 1, "datta": 1}, "datta"),
        ({"to": {"user": "u"}, "data": "\ud800"}, "surrogate"),
        ({"to": {"user": "u"}, "data": json.loads("[" * 65 + "]" * 65)}, "deeper"),
        (7, "object"),
    ],
)
def test_a_notification_of_another_shape_is_refused_with_what_to_change(
    note: Any, why: str
) -> None:
    with pytest.raises(InvalidRequest, match=why):
        notifications.appends_from(note, 65536)


def test_a_notification_that_no_client_could_be_sent_is_refused() -> None:
    limit = 1000
    for size in range(limit - notifications.ENVELOPE - 40, limit):
        note = {"to": {"user": "u"}, "data": "x" * size}
        try:
            (append,) = notifications.appends_from(note, limit)
        except PayloadTooLarge:
            continue
        longest = messages.notification(ids.parse(f"{10**14}-{10**18}"), append.body, 1000)
        assert len(longest) <= limit


def stored(note: dict[str, Any], sender: str = "", traceparent: str = "") -> dict[str, Any]:
    """The fields that clients are sent of it."""
    append, *_ = appends_from(
        {"data": 1} | note, 65536, by=sender, client=bool(sender), traceparent=traceparent
    )
    fields: dict[str, Any] = json.loads(b"{" + append.body)
    return fields


OPTIONS = {
    "event": st.none() | st.just("goal"),
    "ttl": st.none() | st.integers(-1, 3) | st.floats(0, MAX_TTL * 2),
    "collapse_key": st.none() | st.just("score"),
    "ephemeral": st.booleans(),
    "deliver": st.sampled_from(["all", "any-device"]),
    "receipt": st.booleans(),
}
TARGETS = st.sampled_from(
    [{"user": "ann"}, {"users": ["ann", "bob"]}, {"topic": "news"}, {"broadcast": True}]
)


@given(TARGETS, st.fixed_dictionaries(OPTIONS))
def test_what_is_accepted_makes_sense(to: dict[str, Any], options: dict[str, Any]) -> None:
    try:
        appends = appends_from({"to": to, "data": 1} | options, 65536, by="backend")
    except InvalidRequest as error:
        assert error.detail  # noqa: PT017
        return
    for append in appends:
        assert append.ttl is None or 0 <= append.ttl <= MAX_TTL
        live_only = append.ephemeral or append.ttl == 0
        assert not (live_only and append.collapse_key), "what is not kept replaces nothing"
        settled = append.receipt or append.any_device
        assert not (live_only and settled), "what is not kept is acknowledged by nobody"
        assert not settled or append.feed.startswith(MAILBOX), "a mailbox alone is acknowledged"
        assert not (append.ephemeral and append.ttl is not None)


def test_a_list_names_each_user_once() -> None:
    users = [f"u{number}" for number in range(MAX_USERS)]
    appends = appends_from({"to": {"users": users}, "data": 1}, 65536)
    assert [append.feed for append in appends] == [mailbox(user) for user in users]
    with pytest.raises(InvalidRequest, match="twice"):
        appends_from({"to": {"users": ["ann", "bob", "ann"]}, "data": 1}, 65536)


def test_what_is_for_a_topic_or_for_everyone_is_one_message() -> None:
    for to, feed in (({"topic": "news"}, topic("news")), ({"broadcast": True}, BROADCAST)):
        (append,) = appends_from({"to": to, "data": 1}, 65536)
        assert append.feed == feed


@pytest.mark.parametrize("to", [{"user": "a/b"}, {"topic": "a/b"}, {"broadcast": True}])
def test_what_is_published_in_a_namespace_stays_there_and_looks_alike(to: dict[str, Any]) -> None:
    note = {"to": to, "data": 1}
    (here,) = appends_from(note, 65536, by="pub", namespace="acme")
    (there,) = appends_from(note, 65536, by="pub")
    assert (namespace_of(here.feed), namespace_of(there.feed)) == ("acme", "")
    assert plain(here.feed) == there.feed or "broadcast" in to
    assert here.body == there.body


@pytest.mark.parametrize("namespace", ["", "acme"])
def test_a_mark_names_the_feed_of_the_receipts_as_nodes_without_namespaces_read_it(
    namespace: str,
) -> None:
    note = {"to": {"user": "ann"}, "data": 1, "receipt": True}
    (append,) = appends_from(note, 65536, by="acme/pub", namespace=namespace)
    # Older nodes put "r:" before it; it ends at a blank.
    assert "r:" + append.receipt == receipts("acme/pub", namespace)
    assert " " not in append.receipt


def test_clients_are_sent_what_concerns_them_and_no_more() -> None:
    options = {"ttl": 60, "collapse_key": "score", "deliver": "any-device", "receipt": True}
    assert stored({"to": {"user": "ann"}} | options) == {"ttl": 60, "data": 1}
    assert stored({"to": {"topic": "news"}, "event": "goal"}, sender="bob") == {
        "topic": "news", "event": "goal", "from": "bob", "data": 1,
    }  # fmt: skip
    assert stored({"to": {"broadcast": True}}) == {"broadcast": True, "data": 1}


def test_the_trace_is_the_first_field_where_nodes_look_for_it() -> None:
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    fields = stored({"to": {"topic": "news"}, "event": "goal"}, "bob", trace)
    assert next(iter(fields.items())) == ("traceparent", trace)


@given(st.binary())
def test_bytes_are_base64_or_are_refused(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    note = {"to": {"user": "ann"}, "encoding": "base64"}
    assert stored(note | {"data": text}) == {"encoding": "base64", "data": text}
    for wrong in (text + "!", "é", 7, None, [text]):
        with pytest.raises(InvalidRequest, match="base64"):
            appends_from(note | {"data": wrong}, 65536)


def test_what_a_client_publishes_is_held_to_the_same_rules() -> None:
    assert json.loads(
        b"{" + append_from(Publish(topic="news", data=[1]), 65536, "ann").body
    ) == {
        "topic": "news", "from": "ann", "data": [1],
    }  # fmt: skip
    with pytest.raises(InvalidName, match="topic"):
        append_from(Publish(topic="ne ws", data=1), 65536, "ann")
    with pytest.raises(InvalidRequest, match="replaces nothing"):
        append_from(Publish(topic="news", data=1, ttl=0, collapse_key="k"), 65536, "ann")
    with pytest.raises(PayloadTooLarge, match="send less data"):
        append_from(Publish(topic="news", data="x" * 1000), 1000, "ann")


def test_what_is_for_later_is_the_same_message_with_its_time() -> None:
    note: dict[str, Any] = {"to": {"users": ["ann", "bob"]}, "data": 1, "ttl": 0}
    at = 1769850000000
    later = appends_from(note | {"at": WHEN}, 65536)
    assert later == [msgspec.structs.replace(each, at=at) for each in appends_from(note, 65536)]
    long_ago = appends_from(note | {"at": "1960-01-01T00:00:00Z"}, 65536)
    assert {each.at for each in long_ago} == {1}, "a time, if one that is long past"


def test_a_client_schedules_nothing() -> None:
    with pytest.raises(Forbidden, match=r"push\.publish"):
        appends_from({"to": {"topic": "t"}, "data": 1, "at": WHEN}, 65536, by="ann", client=True)
