"""What a program is given: the fields of PROTOCOL.md by their names."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pushsvc.client.feed import Feed
from pushsvc.client.messages import Notification, Problem, Raw
from pushsvc.protocol import encoding, ids, messages
from pushsvc.protocol.notifications import appends_from


async def acknowledge(_note: Notification) -> None:
    """Nobody acknowledges here."""


def given_to(raw: Raw, feed: Feed | None = None) -> Notification:
    return Notification(raw, feed, acknowledge)


def sent(note: dict[str, Any], attempt: int = 1, sender: str = "") -> Raw:
    """A message as a node sends it."""
    append, *_ = appends_from({"to": {"user": "u1"}} | note, 65536, by=sender, client=bool(sender))
    raw: Raw = encoding.decode(
        messages.notification(ids.parse("1764000000123-4"), append.body, attempt)
    )
    return raw


def test_what_is_not_said_has_the_value_that_means_so() -> None:
    note = given_to(sent({"data": [1, None]}))
    assert note.data == [1, None]
    assert note.id == "1764000000123-4"
    assert note.time == datetime(2025, 11, 24, 16, 0, tzinfo=UTC) + timedelta(milliseconds=123)
    assert (note.event, note.topic, note.sender) == (None, None, None)
    assert (note.broadcast, note.ephemeral, note.attempt) == (False, False, 1)


def test_what_is_said_is_told() -> None:
    note = given_to(sent({"to": {"topic": "news"}, "data": 1, "event": "goal"}, 3, "ann"))
    assert (note.event, note.topic, note.sender) == ("goal", "news", "ann")
    assert note.attempt == 3
    assert given_to(sent({"to": {"broadcast": True}, "data": 1})).broadcast


@given(st.binary())
def test_bytes_arrive_as_bytes(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    assert given_to(sent({"data": text, "encoding": "base64"})).data == data
    assert given_to(sent({"data": text})).data == text


def test_only_what_comes_again_needs_an_ack() -> None:
    raw = sent({"data": 1})
    assert given_to(raw, Feed(acked=True)).needs_ack
    assert not given_to(raw, Feed(acked=False)).needs_ack
    assert not given_to(raw).needs_ack


def test_a_problem_with_a_topic_names_it_as_an_error_too() -> None:
    problem = Problem({}, "forbidden", "the token does not open it", "news")
    assert problem.as_error().detail == "news: the token does not open it"
    assert problem.as_error().code == "forbidden"
    assert Problem({}, "invalid", "no").as_error().detail == "no"
