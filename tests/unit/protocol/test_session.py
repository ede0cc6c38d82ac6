"""The rules of one connection, with time passed in."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.codes import Close
from pushsvc.protocol import ids
from pushsvc.protocol.limits import Rate
from pushsvc.protocol.session import Acked, Beat, End, Policy, Redeliver, Renew, Send, Session

POLICY = Policy(
    heartbeat=25,
    window=64,
    ack_timeout=30,
    ack_attempts=3,
    messages=Rate(10, 20),
    bytes=Rate(1000, 2000),
    control=Rate(100, 200),
)


def session(now: float = 0.0, expires: float = 10_000.0) -> Session:
    return Session("u1", "phone", expires=expires, seen=now)


def say(who: Session, now: float = 0.0, **message: Any) -> list[Any]:
    return list(who.receive(json.dumps(message).encode(), POLICY, now))


def told(effect: Send) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(effect.payload)
    return message


def test_an_ack_of_what_was_sent_moves_the_position() -> None:
    who = session()
    who.cursor.take(ids.parse("5-0"), 0.0)
    assert say(who, type="ack", id="5-0") == [Acked(ids.parse("5-0"), None, True)]
    assert say(who, type="ack", id="5-0") == []


@pytest.mark.parametrize("entry_id", ["4-0", "6-0", "99999999999999-0"])
def test_an_ack_of_anything_else_changes_nothing(entry_id: str) -> None:
    who = session()
    who.cursor.take(ids.parse("5-0"), 0.0)
    assert say(who, type="ack", id=entry_id) == []
    assert who.cursor.acked == 0
    assert who.cursor.unacked == [ids.parse("5-0")]


def test_an_ack_with_a_ref_is_answered_with_the_position() -> None:
    assert say(session(), type="ack", id="5-0", ref="r") == [Acked(0, "r", False)]


def test_a_ping_is_answered() -> None:
    (answer,) = say(session(), type="ping", ref=6)
    assert told(answer) == {"type": "pong", "ref": 6}


def test_acks_and_pings_do_not_use_up_the_message_rate() -> None:
    who = session()
    for _ in range(100):
        say(who, type="ping")
    assert say(who, type="refresh", token="t", ref=1) == [Renew("t", 1)]


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
    (answer,) = who.renewed("u1", 200.0, 1_700_000_000, 5)
    assert isinstance(answer, Send)
    assert told(answer) == {"type": "reply", "ref": 5, "expires_at": 1_700_000_000}
    who.seen = 139.0
    assert who.due(POLICY, 139.0) == []
    assert who.renewed("u2", 300.0, 1_700_000_000, 6) == [End(Close.TOKEN_REFUSED)]


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
        assert who.due(POLICY, now) == [Redeliver()]
    who.seen = 90.0
    assert who.due(POLICY, 90.0) == [End(Close.ACKS_OVERDUE)]


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
