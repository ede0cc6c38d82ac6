"""The rules of one connection, with time passed in."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.codes import Close
from pushsvc.protocol import encoding, ids
from pushsvc.protocol.delivery import Cursor
from pushsvc.protocol.feeds import BROADCAST
from pushsvc.protocol.grants import NOTHING, Grants
from pushsvc.protocol.limits import Rate
from pushsvc.protocol.messages import MAX_SUBSCRIPTIONS
from pushsvc.protocol.session import (
    ANSWER_BYTES,
    Acked,
    Beat,
    End,
    Policy,
    Present,
    Publish,
    Redeliver,
    Renew,
    Send,
    Session,
    Subscribe,
    Unsubscribe,
)

POLICY = Policy(
    heartbeat=25,
    window=64,
    ack_timeout=30,
    ack_attempts=3,
    messages=Rate(10, 20),
    bytes=Rate(1000, 2000),
    control=Rate(100, 200),
)


def session(now: float = 0.0, expires: float = 10_000.0, grants: Grants = NOTHING) -> Session:
    mailbox, broadcast = Cursor("u:u1", "phone"), Cursor(BROADCAST)
    return Session("u1", "phone", expires, now, mailbox, broadcast, grants)


def say(who: Session, now: float = 0.0, **message: Any) -> list[Any]:
    return list(who.receive(json.dumps(message).encode(), POLICY, now))


def told(effect: Send) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(effect.payload)
    return message


def test_an_ack_of_what_was_sent_moves_the_position() -> None:
    who = session()
    who.cursor.take(ids.parse("5-0"), 0.0)
    assert say(who, type="ack", id="5-0") == [Acked(who.cursor, ids.parse("5-0"), None, True)]
    assert say(who, type="ack", id="5-0") == []


@pytest.mark.parametrize("entry_id", ["4-0", "6-0", "99999999999999-0"])
def test_an_ack_of_anything_else_changes_nothing(entry_id: str) -> None:
    who = session()
    who.cursor.take(ids.parse("5-0"), 0.0)
    assert say(who, type="ack", id=entry_id) == []
    assert who.cursor.acked == 0
    assert who.cursor.unacked == [ids.parse("5-0")]


def test_an_ack_with_a_ref_is_answered_with_the_position() -> None:
    who = session()
    assert say(who, type="ack", id="5-0", ref="r") == [Acked(who.cursor, 0, "r", False)]


def test_a_ping_is_answered() -> None:
    (answer,) = say(session(), type="ping", ref=6)
    assert told(answer) == {"type": "pong", "ref": 6}


def test_acks_and_pings_do_not_use_up_the_message_rate() -> None:
    who = session()
    for _ in range(100):
        say(who, type="ping")
    assert say(who, type="refresh", token="t", ref=1) == [Renew("t", 1)]


def test_a_long_answer_counts_as_several_messages() -> None:
    who = session()
    who.answered(ANSWER_BYTES - 1, POLICY, 0.0)
    assert say(who, type="refresh", token="t", ref=1) == [Renew("t", 1)]
    who.answered(30 * ANSWER_BYTES, POLICY, 0.0)
    (refused,) = say(who, type="refresh", token="t", ref=2)
    assert told(refused)["code"] == "rate_limited"
    assert told(refused)["retry_after"] > 1


def test_over_the_rate_is_told_and_persisting_is_closed_with_4008() -> None:
    who = session()
    for _ in range(20):
        assert say(who, type="refresh", token="t") == [Renew("t", None)]
    (refused,) = say(who, type="refresh", token="t", ref=9)
    assert told(refused) | {"retry_after": 0, "detail": ""} == {
        "type": "error", "ref": 9, "code": "rate_limited",
        "detail": "", "retry_after": 0, "temporary": True,
    }  # fmt: skip
    assert 0 < told(refused)["retry_after"] <= 0.1
    effects: list[Any] = []
    for _ in range(20):
        effects = say(who, type="refresh", token="t")
    assert effects[-1] == End(Close.RATE_LIMITED)


def test_invalid_messages_are_told_until_the_budget_is_spent() -> None:
    who = session()
    for _ in range(20):
        (effect,) = who.receive(b"nonsense", POLICY, 0.0)
        assert isinstance(effect, Send)
        assert told(effect)["code"] == "invalid_json"
    assert who.receive(b"nonsense", POLICY, 0.0)[-1] == End(Close.PROTOCOL_VIOLATION)


def test_the_error_carries_the_ref_of_the_message() -> None:
    (effect,) = say(session(), type="nope", ref="r1")
    assert told(effect)["ref"] == "r1"


@pytest.mark.parametrize("payload", [b'{"type":"nope"}', b"[1]", b"nonsense"])
def test_a_message_that_cannot_be_used_is_parsed_once(payload: bytes) -> None:
    parsed = []

    def read(data: bytes) -> Any:
        parsed.append(data)
        return encoding.decode(data)

    session().receive(payload, POLICY, 0.0, read)
    assert parsed == [payload]


def test_too_many_bytes_are_too_many_whatever_they_say() -> None:
    who = session()
    assert who.received(2000, POLICY, 0.0) is None
    assert who.received(1, POLICY, 0.0) == End(Close.RATE_LIMITED)


def test_an_expiring_token_is_told_a_minute_before_and_closed_at_its_time() -> None:
    who = session(expires=100.0)
    who.seen = 40.0
    assert who.next_due(POLICY) == 40.0
    (notice,) = who.due(POLICY, 40.0)
    assert isinstance(notice, Send)
    assert told(notice)["code"] == "token_expiring"
    who.seen = 99.0
    assert who.due(POLICY, 99.0) == []
    assert who.next_due(POLICY) == 100.0
    assert who.due(POLICY, 100.0) == [End(Close.TOKEN_EXPIRED)]


def test_a_refresh_postpones_the_end_and_another_user_ends_it() -> None:
    who = session(expires=100.0)
    (answer,) = who.renewed(("u1", ""), 200.0, 1_700_000_000, NOTHING, 5)
    assert isinstance(answer, Send)
    assert told(answer) == {"type": "reply", "ref": 5, "expires_at": 1_700_000_000}
    who.seen = 139.0
    assert who.due(POLICY, 139.0) == []
    for other in (("u2", ""), ("u1", "acme"), ("acme/u1", "")):
        effects = who.renewed(other, 300.0, 1_700_000_000, NOTHING, 6)
        assert effects == [End(Close.TOKEN_REFUSED)]


def test_a_silent_peer_is_asked_for_a_sign_of_life_and_then_let_go() -> None:
    who = session()
    assert who.due(POLICY, 24.0) == []
    assert who.due(POLICY, 25.0) == [Beat()]
    assert who.next_due(POLICY) == 50.0
    assert who.due(POLICY, 49.0) == []
    assert who.due(POLICY, 50.0) == [End(Close.NO_HEARTBEAT)]
    who.received(2, POLICY, 49.0)
    assert who.due(POLICY, 50.0) == []
    assert who.due(POLICY, 74.0) == [Beat()]


def test_nobody_is_called_silent_who_was_not_asked() -> None:
    who = session()
    assert who.due(POLICY, 1000.0) == [Beat()]
    assert who.due(POLICY, 1024.0) == []
    assert who.due(POLICY, 1025.0) == [End(Close.NO_HEARTBEAT)]


def test_overdue_acks_are_redelivered_and_then_end_the_connection() -> None:
    who = session()
    who.cursor.take(10, 0.0)
    now = 0.0
    for _ in range(2):
        now += 30.0
        who.seen = now
        assert who.due(POLICY, now) == [Redeliver(who.cursor)]
    who.seen = 90.0
    assert who.due(POLICY, 90.0) == [End(Close.ACKS_OVERDUE)]


# --- the broadcast -------------------------------------------------------------------------------


def with_broadcast() -> Session:
    """A session that was sent 5-0 of both feeds, 6-0 of the mailbox and 7-0 of the broadcast."""
    who = session()
    for cursor, own in ((who.cursor, "6-0"), (who.broadcast, "7-0")):
        for entry_id in ("5-0", own):
            cursor.take(ids.parse(entry_id), 0.0)
    return who


def test_an_ack_moves_the_position_in_the_broadcast_where_only_that_holds_the_id() -> None:
    who = with_broadcast()
    assert say(who, type="ack", id="7-0", ref=1) == [
        Acked(who.broadcast, ids.parse("7-0"), 1, moved=True)
    ]
    assert who.cursor.acked == ids.START


def test_an_id_of_both_feeds_is_taken_for_one_of_the_mailbox_first() -> None:
    who = with_broadcast()
    at = ids.parse("5-0")
    assert say(who, type="ack", id="5-0") == [Acked(who.cursor, at, None, moved=True)]
    assert say(who, type="ack", id="5-0") == [Acked(who.broadcast, at, None, moved=True)]
    assert say(who, type="ack", id="5-0") == []


def test_an_ack_that_names_the_broadcast_leaves_the_mailbox_alone() -> None:
    who = with_broadcast()
    at = ids.parse("5-0")
    assert say(who, type="ack", id="5-0", broadcast=True) == [
        Acked(who.broadcast, at, None, moved=True)
    ]
    assert who.cursor.acked == ids.START
    assert say(who, type="ack", id="6-0", broadcast=True, ref=2) == [
        Acked(who.broadcast, at, 2, moved=False)
    ]


def test_overdue_acks_of_the_broadcast_are_redelivered_and_then_end_the_connection() -> None:
    who = session()
    who.broadcast.take(10, 0.0)
    assert who.next_due(POLICY) == 25.0
    for now in (30.0, 60.0):
        who.seen = now
        assert who.due(POLICY, now) == [Redeliver(who.broadcast)]
    who.seen = 90.0
    assert who.due(POLICY, 90.0) == [End(Close.ACKS_OVERDUE)]


def test_a_feed_that_is_being_read_is_not_overdue() -> None:
    who = session()
    who.cursor.take(10, 0.0)
    who.cursor.reading = True
    who.seen = 30.0
    assert who.due(POLICY, 30.0) == []


# --- topics --------------------------------------------------------------------------------------

GRANTS = Grants(subscribe=("chat.*", "scores.**"), publish=("chat.r1",))


def test_a_subscription_asks_for_one_topic_or_for_several() -> None:
    who = session(grants=GRANTS)
    assert say(who, type="subscribe", topic="chat.r1", ref=1) == [
        Subscribe({"chat.r1": None}, many=False, ref=1)
    ]
    assert say(who, type="subscribe", topic="chat.r1", since="7-0") == [
        Subscribe({"chat.r1": ids.parse("7-0")}, many=False, ref=None)
    ]
    topics = {"chat.r1": None, "scores.nba.1": "7-1"}
    assert say(who, type="subscribe", topics=topics, ref="r") == [
        Subscribe({"chat.r1": None, "scores.nba.1": ids.parse("7-1")}, many=True, ref="r")
    ]


@pytest.mark.parametrize(
    "message",
    [
        {"type": "subscribe"},
        {"type": "subscribe", "topic": "chat.r1", "topics": {"chat.r1": None}},
        {"type": "subscribe", "topics": {}},
        {"type": "subscribe", "topics": {"chat.r1": None}, "since": "7-0"},
        {"type": "subscribe", "topics": {f"chat.r{n}": None for n in range(257)}},
        {"type": "subscribe", "topic": "chat.r1", "since": "nonsense"},
        {"type": "subscribe", "topics": {"chat.r1": "nonsense"}},
        {"type": "subscribe", "topics": ["chat.r1"]},
        {"type": "subscribe", "topic": "not a name"},
        {"type": "unsubscribe", "topic": "not a name"},
        {"type": "unsubscribe"},
        {"type": "publish", "topic": "not a name", "data": 1},
        {"type": "publish", "topic": "chat.r1"},
        {"type": "presence", "topic": "not a name"},
        {"type": "ack", "id": "nonsense"},
    ],
)
def test_what_has_not_the_documented_shape_is_told_and_not_done(message: dict[str, Any]) -> None:
    who = session(grants=Grants(subscribe=("**",), publish=("**",)))
    (answer,) = say(who, **message, ref="r")
    assert isinstance(answer, Send)
    assert told(answer)["ref"] == "r"
    assert told(answer)["code"] in ("invalid", "invalid_name")


@pytest.mark.parametrize(
    "message",
    [
        {"type": "subscribe", "topic": "news"},
        {"type": "subscribe", "topics": {"chat.r1": None, "news": None}},
        {"type": "publish", "topic": "chat.r2", "data": 1},
        {"type": "presence", "topic": "news"},
    ],
)
def test_what_the_token_does_not_cover_is_refused(message: dict[str, Any]) -> None:
    (answer,) = say(session(grants=GRANTS), **message, ref=3)
    assert isinstance(answer, Send)
    assert (told(answer)["code"], told(answer)["ref"]) == ("forbidden", 3)
    assert "the token" in told(answer)["detail"]


def test_a_token_without_grants_opens_no_topic() -> None:
    who = session()
    for message in (
        {"type": "subscribe", "topic": "a"},
        {"type": "publish", "topic": "a", "data": 1},
        {"type": "presence", "topic": "a"},
    ):
        (answer,) = say(who, **message)
        assert told(answer)["code"] == "forbidden"


def test_whoever_may_not_subscribe_any_more_may_still_unsubscribe() -> None:
    assert say(session(), type="unsubscribe", topic="chat.r1", ref=4) == [Unsubscribe("chat.r1", 4)]


def test_what_a_client_publishes_and_asks_is_handed_on() -> None:
    who = session(grants=GRANTS)
    (effect,) = say(who, type="publish", topic="chat.r1", data={"a": 1}, event="e", ref=7)
    assert isinstance(effect, Publish)
    assert effect.ref == 7
    assert (effect.message.topic, effect.message.data, effect.message.event) == (
        "chat.r1", {"a": 1}, "e",
    )  # fmt: skip
    assert say(who, type="presence", topic="chat.r2", ref=8) == [Present("chat.r2", 8)]


def test_topics_and_publishing_count_towards_the_message_rate() -> None:
    who = session(grants=GRANTS)
    for message in (
        {"type": "subscribe", "topic": "chat.r1"},
        {"type": "publish", "topic": "chat.r1", "data": 1},
        {"type": "presence", "topic": "chat.r1"},
        {"type": "unsubscribe", "topic": "chat.r1"},
    ) * 5:
        (effect,) = say(who, **message)
        assert not isinstance(effect, Send)
    (refused,) = say(who, type="publish", topic="chat.r1", data=1)
    assert told(refused)["code"] == "rate_limited"


def test_a_subscription_to_many_topics_counts_as_more_messages_that_the_next_waits_for() -> None:
    who = session(grants=GRANTS)
    every: dict[str, Any] = dict.fromkeys((f"chat.r{n}" for n in range(MAX_SUBSCRIPTIONS)), None)
    for _ in range(19):
        say(who, type="subscribe", topic="chat.r1")
    (effect,) = say(who, type="subscribe", topics=every)
    assert isinstance(effect, Subscribe)
    assert effect.more == 16
    (refused,) = say(who, type="publish", topic="chat.r1", data=1)
    assert 1.6 < told(refused)["retry_after"] <= 1.8
    who.topics = every
    (again,) = say(who, now=100.0, type="subscribe", topics=every)
    assert isinstance(again, Subscribe)
    assert again.more == 0


def test_a_connection_listens_to_so_many_topics_and_those_it_has_are_counted_once() -> None:
    who = session(grants=GRANTS)
    who.topics = {f"chat.r{n}": None for n in range(MAX_SUBSCRIPTIONS - 1)}
    two_new = {"chat.new": None, "chat.newer": None}
    (refused,) = say(who, type="subscribe", topics=two_new, ref=1)
    assert isinstance(refused, Send)
    assert "unsubscribe" in told(refused)["detail"]
    (allowed,) = say(who, type="subscribe", topics={"chat.r1": None, "chat.new": None})
    assert isinstance(allowed, Subscribe)


def test_a_new_token_that_opens_less_ends_what_it_does_not_cover() -> None:
    who = session(grants=GRANTS)
    who.topics = {"chat.r1": None, "scores.nba": None}
    narrower = Grants(subscribe=("chat.*",))
    first, second, last = who.renewed(("u1", ""), 200.0, 1_700_000_000, narrower, 5)
    assert first == Unsubscribe("scores.nba", None)
    assert isinstance(second, Send)
    assert second.error == "forbidden"
    assert "scores.nba" in told(second)["detail"]
    assert isinstance(last, Send)
    assert told(last) == {"type": "reply", "ref": 5, "expires_at": 1_700_000_000}
    (refused,) = say(who, type="publish", topic="chat.r1", data=1)
    assert told(refused)["code"] == "forbidden"


def test_a_new_token_that_opens_more_opens_it() -> None:
    who = session()
    assert who.renewed(("u1", ""), 200.0, 1_700_000_000, GRANTS, None) == []
    (effect,) = say(who, type="publish", topic="chat.r1", data=1)
    assert isinstance(effect, Publish)


def test_who_cannot_answer_is_sent_signs_of_life_for_ever() -> None:
    who = session()
    who.answers = False
    for now in (25.0, 50.0, 75.0):
        assert who.due(POLICY, now) == [Beat()]


def test_a_token_is_not_in_the_repr_of_an_effect() -> None:
    assert "secret" not in repr(Renew("secret", 1))


@given(st.lists(st.binary(max_size=40), max_size=60), st.floats(0, 100))
def test_whatever_comes_is_answered_and_ends_only_by_a_close(
    payloads: list[bytes], now: float
) -> None:
    who = session()
    for payload in payloads:
        for effect in who.receive(payload, POLICY, now):
            assert isinstance(effect, Send | End)
