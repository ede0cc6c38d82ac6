"""What a publish may say of a push, and what is kept of it."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.errors import InvalidRequest
from pushsvc.protocol import encoding
from pushsvc.protocol.notifications import Append, appends_from
from pushsvc.protocol.push import PushText
from pushsvc.protocol.push_asking import MAX_AFTER, MAX_BADGE, MAX_TEXT, MIN_AFTER

TO_USER = {"user": "u1"}


def published(push: Any, default: float | None = None, **fields: Any) -> Append:
    note = {"to": TO_USER, "data": 1, "push": push, **fields}
    parsed = encoding.decode(msgspec.json.encode(note))
    return appends_from(parsed, 65536, push_after=default)[0]


def text_of(append: Append) -> PushText:
    return msgspec.json.decode(append.push, type=PushText)


def test_what_is_shown_is_kept_beside_the_body() -> None:
    push = {
        "after": 10,
        "title": "Your order",
        "body": "It is\non its way",
        "url": "/orders/7",
        "icon": "https://example.com/i.png",
        "badge": "unread",
        "urgency": "high",
    }
    append = published(push, event="order")
    del push["after"]
    assert msgspec.to_builtins(text_of(append)) == push
    assert (append.push_after, append.push_event) == (10, "order")
    assert b"on its way" not in append.body


def test_nothing_is_kept_where_no_push_is_asked_for() -> None:
    append = published(None, event="order")
    assert (append.push, append.push_after, append.push_event) == (b"", 0.0, "")


def test_every_user_of_a_list_has_the_push() -> None:
    note = {"to": {"users": ["a", "b"]}, "data": 1, "push": {"after": 1}}
    assert [each.push_after for each in appends_from(note, 65536)] == [1, 1]


@pytest.mark.parametrize(
    ("given", "default", "expected"),
    [(0, None, MIN_AFTER), (0.2, 9.0, MIN_AFTER), (MAX_AFTER, None, MAX_AFTER), (None, 30.0, 30.0)],
)
def test_after_how_long(given: float | None, default: float | None, expected: float) -> None:
    push = {} if given is None else {"after": given}
    assert published(push, default).push_after == expected


@pytest.mark.parametrize(
    ("push", "says"),
    [
        ({}, "PUSH_AFTER_SECONDS"),
        ({"after": -1}, "after"),
        ({"after": MAX_AFTER + 1}, "after"),
        ({"after": True}, "after"),
        ({"after": "1"}, "after"),
        ({"after": 1, "title": "x" * 257}, "title"),
        ({"after": 1, "title": "é" * 129}, "title"),
        ({"after": 1, "title": "a\nb"}, "title"),
        ({"after": 1, "body": "x" * 2001}, "body"),
        ({"after": 1, "body": "a\tb"}, "body"),
        ({"after": 1, "body": "\x85"}, "body"),
        ({"after": 1, "url": "//evil.example"}, "url"),
        ({"after": 1, "url": "/\\evil.example"}, "url"),
        ({"after": 1, "url": "javascript:alert(1)"}, "url"),
        ({"after": 1, "url": "https:///x"}, "url"),
        ({"after": 1, "icon": "i.png"}, "icon"),
        ({"after": 1, "url": "/" + "x" * 1024}, "url"),
        ({"after": 1, "badge": -1}, "badge"),
        ({"after": 1, "badge": MAX_BADGE + 1}, "badge"),
        ({"after": 1, "badge": "all"}, "badge"),
        ({"after": 1, "urgency": "urgent"}, "urgency"),
        ({"after": 1, "sound": "x"}, "sound"),
        ({"after": 1, "body": "x" * 2000, "url": "/" + "x" * 700}, "2600"),
        ("now", "push"),
    ],
)
def test_what_is_refused_says_why(push: Any, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        published(push)


@pytest.mark.parametrize(
    "fields",
    [
        {"to": {"topic": "t"}},
        {"to": {"broadcast": True}},
        {"ephemeral": True},
        {"ttl": 0},
    ],
)
def test_what_is_not_kept_for_a_user_has_no_push(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="push"):
        published({"after": 1}, **fields)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@given(
    after=st.none() | st.integers(-1, MAX_AFTER + 1) | st.floats(0, 100),
    title=texts,
    body=texts | st.just("x" * 2000),
    url=texts | texts.map("/{}".format),
    badge=st.none() | st.just("unread") | st.integers(),
)
def test_what_is_accepted_fits_and_is_kept_as_it_was(
    after: float | None, title: str, body: str, url: str, badge: Any
) -> None:
    push = {"after": after, "title": title, "body": body, "url": url, "badge": badge}
    try:
        append = published(push, 5.0)
    except InvalidRequest:
        return
    assert len(append.push) <= MAX_TEXT
    assert MIN_AFTER <= append.push_after <= MAX_AFTER
    kept = text_of(append)
    assert (kept.title, kept.body, kept.url) == (title, body, url)
    assert kept.badge == ("" if badge is None else badge)
    assert not any(ord(each) < 32 for each in title + url)


def test_a_scheduled_publish_keeps_its_push_and_nodes_of_before_pass_it_over() -> None:
    class Before(msgspec.Struct, omit_defaults=True):
        """What a node of before knows of an append."""

        feed: str
        body: bytes

    append = published({"after": 7})
    kept = msgspec.msgpack.encode(append)
    assert msgspec.msgpack.decode(kept, type=Append) == append
    assert msgspec.msgpack.decode(kept, type=Before) == Before(append.feed, append.body)
    plain = msgspec.msgpack.encode(published(None))
    assert b"push" not in plain
