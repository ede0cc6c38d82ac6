"""What a client does with what it is sent, however often and in whatever order it is sent it."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.client.errors import Closed, OutcomeUnknown, QueueFull, Refused
from pushsvc.client.messages import Gap, Presence, Problem
from pushsvc.client.session import (
    MALFORMED,
    Answer,
    Effect,
    Give,
    Leave,
    Renew,
    Send,
    Session,
    Tell,
)

WELCOME = {"type": "welcome", "connection": "c", "user": "u1"}
FEEDS: dict[str, dict[str, Any]] = {
    "mailbox": {}, "broadcast": {"broadcast": True}, "a": {"topic": "a"}, "b": {"topic": "b"},
}  # fmt: skip


def note(number: int, feed: str = "mailbox", **fields: Any) -> dict[str, Any]:
    return {"type": "notification", "id": f"{number}-0", "data": number, **FEEDS[feed], **fields}


def connected(topics: dict[str, str | None] | None = None, bound: int = 10) -> Session:
    session = Session(topics or {}, bound)
    session.received(WELCOME)
    return session


def sent(effects: list[Effect]) -> list[dict[str, Any]]:
    return [effect.message for effect in effects if isinstance(effect, Send)]


def given_of(effects: list[Effect]) -> list[Any]:
    return [effect.message["data"] for effect in effects if isinstance(effect, Give)]


# --- each once, in order -------------------------------------------------------------------------

happenings = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.sampled_from(sorted(FEEDS))),
        st.tuples(st.just("send"), st.sampled_from(sorted(FEEDS))),
        st.tuples(st.just("again"), st.sampled_from(sorted(FEEDS)), st.integers(0, 20)),
        st.tuples(st.just("handle"), st.booleans()),
        st.tuples(st.just("trim"), st.sampled_from(sorted(FEEDS))),
        st.tuples(st.just("reconnect")),
    ),
    max_size=80,
)


def feed_of(effect: Give) -> str:
    message = effect.message
    return message.get("topic") or ("broadcast" if message.get("broadcast") else "mailbox")


class Service:
    """A service that keeps to the protocol, but repeats itself whenever it likes."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.kept: dict[str, list[int]] = {feed: [] for feed in FEEDS}
        self.sent: dict[str, int] = dict.fromkeys(FEEDS, 0)
        self.acked: dict[str, int] = dict.fromkeys(FEEDS, 0)
        self.gone: set[tuple[str, int]] = set()
        self.waiting: list[Give] = []
        self.given: dict[str, int] = dict.fromkeys(FEEDS, 0)
        self.taken: dict[str, list[int]] = {feed: [] for feed in FEEDS}
        self.number = 0

    def deliver(self, feed: str, number: int) -> None:
        self.perform(self.session.received(note(number, feed)))

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Give):
                self.waiting.append(effect)
                self.given[feed_of(effect)] = effect.message["data"]
            elif isinstance(effect, Send) and effect.message["type"] == "ack":
                feed = "broadcast" if effect.message.get("broadcast") else "mailbox"
                number = int(effect.message["id"].split("-")[0])
                if number <= self.sent[feed]:  # only what this connection was sent counts
                    self.acked[feed] = max(self.acked[feed], number)

    def publish(self, feed: str) -> None:
        self.number += 1
        self.kept[feed].append(self.number)

    def send(self, feed: str) -> None:
        """The next one that this connection was not sent."""
        for number in self.kept[feed]:
            if number > max(self.sent[feed], self.acked[feed]):
                self.sent[feed] = number
                self.deliver(feed, number)
                return

    def again(self, feed: str, back: int) -> None:
        """Some that this connection was sent and did not acknowledge, as after an ack time-out."""
        repeated = [n for n in self.kept[feed] if self.acked[feed] < n <= self.sent[feed]]
        for number in repeated[-1 - back :]:
            self.deliver(feed, number)

    def trim(self, feed: str) -> None:
        """The oldest that was sent on no connection yet has to go."""
        unsent = [n for n in self.kept[feed] if n > max(self.sent[feed], self.given[feed])]
        if unsent:
            self.kept[feed].remove(unsent[0])
            self.gone.add((feed, unsent[0]))
            gap = {"type": "gap", "after": "0-0", "reason": "trimmed", **FEEDS[feed]}
            self.perform(self.session.received(gap))

    def handle(self, at_once: bool) -> None:  # noqa: FBT001 - drawn by Hypothesis
        if self.waiting:
            effect = self.waiting.pop(0)
            assert effect.feed is not None
            self.taken[feed_of(effect)].append(effect.message["data"])
            identity = effect.message["id"]
            self.perform(self.session.handled(effect.feed, identity, 0.0, at_once=at_once))

    def reconnect(self) -> None:
        self.session.lost()
        for feed in ("mailbox", "broadcast"):
            self.sent[feed] = self.acked[feed]
        for message in sent(self.session.received(WELCOME)):
            assert message["type"] == "subscribe"
            for topic, since in message["topics"].items():
                self.sent[topic] = int((since or "0").split("-")[0])


@given(happenings)
def test_each_notification_is_handled_once_and_in_the_order_of_its_feed(
    happened: list[tuple[Any, ...]],
) -> None:
    service = Service(connected({"a": "0-0", "b": "0-0"}))
    for name, *arguments in happened:
        getattr(service, name)(*arguments)
    service.reconnect()
    for feed in FEEDS:
        for _ in service.kept[feed]:
            service.send(feed)
    while service.waiting:
        service.handle(at_once=False)
    service.perform(service.session.flush(0.0))
    for feed in FEEDS:
        published = [n for n in service.kept[feed] if (feed, n) not in service.gone]
        assert service.taken[feed] == published
    for feed in ("mailbox", "broadcast"):
        assert service.acked[feed] == max(service.kept[feed], default=0)


def test_ids_are_compared_by_their_numbers() -> None:
    session = connected()
    assert given_of(session.received({**note(0), "id": "9-9", "data": 1})) == [1]
    assert given_of(session.received({**note(0), "id": "9-10", "data": 2})) == [2]
    assert given_of(session.received({**note(0), "id": "10-0", "data": 3})) == [3]
    assert given_of(session.received({**note(0), "id": "9-9", "data": 1})) == []


def test_what_is_done_and_comes_again_is_acked_again() -> None:
    session = connected()
    (give,) = session.received(note(1))
    assert isinstance(give, Give)
    assert give.feed is not None
    assert session.received(note(1, attempt=2)) == []  # the program is at it
    acks = sent(session.handled(give.feed, "1-0", 0.0, at_once=True))
    assert acks == [{"type": "ack", "id": "1-0"}]
    assert sent(session.received(note(1, attempt=3))) == acks


def test_one_ack_covers_what_was_done_shortly_before() -> None:
    session = connected()
    feeds = [give.feed for n in range(1, 4) for give in session.received(note(n, "broadcast"))]  # type: ignore[union-attr]
    feed = feeds[0]
    assert feed is not None
    assert sent(session.handled(feed, "1-0", 100.0, at_once=False)) != []
    assert sent(session.handled(feed, "2-0", 100.01, at_once=False)) == []
    assert sent(session.handled(feed, "3-0", 100.02, at_once=False)) == []
    assert sent(session.flush(100.03)) == [{"type": "ack", "id": "3-0", "broadcast": True}]
    assert session.flush(100.04) == []


def test_after_a_reset_ids_that_were_seen_are_new() -> None:
    session = connected({"a": None})
    for feed, where in FEEDS.items():
        assert given_of(session.received(note(5, feed))) == [5]
        gap = {"type": "gap", "after": "5-0", "reason": "reset", **where}
        (told,) = session.received(gap)
        assert isinstance(told, Tell)
        assert isinstance(told.message, Gap)
        assert given_of(session.received(note(3, feed))) == [3]


def test_an_ack_from_before_a_reset_is_not_sent() -> None:
    session = connected()
    (give,) = session.received(note(5))
    assert isinstance(give, Give)
    assert give.feed is not None
    session.received({"type": "gap", "after": "0-0", "reason": "reset"})
    assert session.handled(give.feed, "5-0", 0.0, at_once=True) == []


def test_what_has_no_id_always_passes() -> None:
    session = connected()
    message = {"type": "notification", "ephemeral": True, "data": 1}
    assert given_of(session.received(message) + session.received(message)) == [1, 1]


def test_what_is_unknown_is_passed_over() -> None:
    assert connected().received({"type": "weather", "sunny": True}) == []


@pytest.mark.parametrize(
    "message",
    [
        {"type": "gap"},
        {"type": "presence"},
        {"type": "withdrawn"},
        {"type": "error"},
        {"type": "reconnect"},
        {"type": "reconnect", "retry_after": "soon"},
        {"type": "presence", "topic": "a", "joined": 7, "left": []},
        {"type": "notification", "id": 7},
        {"type": "notification", "id": "soon"},
        {"type": "notification", "id": "1"},
        {"type": "notification", "id": "1-0-0"},
        {"type": "notification", "id": "-1-0"},
        {"type": "notification", "id": f"{'9' * 5000}-0"},
        {"type": "notification", "id": "1-0", "topic": ["a"]},
    ],
)
def test_what_is_malformed_is_told_apart_and_hurts_nothing_else(message: dict[str, Any]) -> None:
    session = connected({"a": "0-0"})
    with pytest.raises(MALFORMED):
        session.received(message)
    for feed in FEEDS:
        assert given_of(session.received(note(1, feed))) == [1]


def test_an_answer_without_what_was_asked_for_is_a_refusal() -> None:
    session = connected()
    for question in ("subscribe", "presence"):
        ref, _ = session.ask({"type": question, "topic": "a"}, repeatable=True)
        (answer,) = session.received({"type": "reply", "ref": ref})
        assert isinstance(answer, Answer)
        assert isinstance(answer.outcome, Refused)


def test_a_position_is_an_id() -> None:
    with pytest.raises(ValueError, match="'soon' is no id"):
        Session({"a": "soon"}, 10)


# --- topics --------------------------------------------------------------------------------------


def test_topics_go_on_where_they_were() -> None:
    session = Session({"a": None, "b": "3-0"}, 10)
    (first,) = sent(session.received(WELCOME))
    assert first["topics"] == {"a": None, "b": "3-0"}
    last = {"a": "7-0", "b": "3-0"}
    (ping,) = sent(session.received({"type": "reply", "ref": first["ref"], "topics": last}))
    session.received({"type": "pong", "ref": ping["ref"]})
    session.received(note(9, "b"))
    session.lost()
    (again,) = sent(session.received(WELCOME))
    assert again["topics"] == {"a": "7-0", "b": "9-0"}


def test_who_subscribes_again_is_given_the_state_again() -> None:
    session = connected()
    ref, _ = session.ask({"type": "subscribe", "topic": "a"}, repeatable=True)
    session.received({"type": "reply", "ref": ref, "topic": "a", "last": "5-0"})
    assert given_of(session.received(note(5, "a"))) == [5]
    ref, _ = session.ask({"type": "unsubscribe", "topic": "a"}, repeatable=True)
    session.received({"type": "reply", "ref": ref, "topic": "a"})
    ref, _ = session.ask({"type": "subscribe", "topic": "a"}, repeatable=True)
    session.received({"type": "reply", "ref": ref, "topic": "a", "last": "5-0"})
    assert given_of(session.received(note(5, "a"))) == [5]


def test_a_topic_that_is_refused_is_found_told_and_dropped() -> None:
    session = Session(dict.fromkeys("abcdef", "1-0"), 10)
    asked = sent(session.received(WELCOME))
    questions, told = [], []
    while asked:
        (question,) = asked  # one at a time
        questions.append("".join(question["topics"]))
        answer: dict[str, Any] = {"type": "reply", "ref": question["ref"], "topics": {}}
        if not {"b", "f"}.isdisjoint(question["topics"]):
            answer |= {"type": "error", "code": "forbidden", "detail": "no", "temporary": False}
        effects = session.received(answer)
        asked = sent(effects)
        told += [effect.message for effect in effects if isinstance(effect, Tell)]
    assert questions == ["abcdef", "abc", "a", "bc", "b", "c", "def", "d", "ef", "e", "f"]
    assert all(isinstance(problem, Problem) for problem in told)
    assert [problem.topic for problem in told if isinstance(problem, Problem)] == ["b", "f"]
    session.lost()
    (again,) = sent(session.received(WELCOME))
    assert list(again["topics"]) == ["a", "c", "d", "e"]


def test_a_topic_that_is_being_left_is_not_asked_for_again() -> None:
    session = Session({"a": "1-0", "b": "1-0"}, 10)
    session.received(WELCOME)
    session.ask({"type": "unsubscribe", "topic": "a"}, repeatable=True)
    error = {"type": "error", "ref": "topics", "code": "forbidden", "detail": "no"}
    (question,) = sent(session.received(error))
    assert question["topics"] == {"b": "1-0"}


def test_topics_that_cannot_be_had_now_are_asked_for_on_the_next_connection() -> None:
    session = Session({"a": None}, 10)
    (wanted,) = sent(session.received(WELCOME))
    error = {"type": "error", "ref": wanted["ref"], "code": "store_unavailable", "detail": "no"}
    (leave,) = session.received(error | {"temporary": True, "retry_after": 2})
    assert leave == Leave(2.0)
    session.lost()
    (again,) = sent(session.received(WELCOME))
    assert again == wanted


# --- questions -----------------------------------------------------------------------------------


def test_questions_wait_for_a_connection_within_a_bound() -> None:
    session = Session({}, 1)
    ref, effects = session.ask({"type": "presence", "topic": "a"}, repeatable=True)
    assert effects == []
    with pytest.raises(QueueFull):
        session.ask({"type": "presence", "topic": "b"}, repeatable=True)
    (asked,) = sent(session.received(WELCOME))
    assert asked == {"type": "presence", "topic": "a", "ref": ref}
    (answer,) = session.received({"type": "reply", "ref": ref, "users": [], "count": 0})
    assert isinstance(answer, Answer)


def test_a_publish_without_an_answer_is_of_unknown_outcome_and_others_are_asked_again() -> None:
    session = connected()
    publish, _ = session.ask({"type": "publish", "topic": "a", "data": 1}, repeatable=False)
    presence, _ = session.ask({"type": "presence", "topic": "a"}, repeatable=True)
    (answer,) = session.lost()
    assert answer.ref == publish
    assert isinstance(answer.outcome, OutcomeUnknown)
    (again,) = sent(session.received(WELCOME))
    assert again["ref"] == presence


def test_a_publish_that_was_not_sent_waits_for_the_next_connection() -> None:
    session = connected()
    session.lost()
    ref, _ = session.ask({"type": "publish", "topic": "a", "data": 1}, repeatable=False)
    assert session.lost() == []
    (message,) = sent(session.received(WELCOME))
    assert message["ref"] == ref


def test_what_nobody_waits_for_is_not_sent() -> None:
    session = Session({}, 10)
    ref, _ = session.ask({"type": "publish", "topic": "a", "data": 1}, repeatable=False)
    session.forget(ref)
    assert session.received(WELCOME) == []


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("data", [math.nan, "\ud800", {1}, object()])
def test_what_is_no_json_fails_where_it_is_asked_and_is_not_kept(
    online: bool,  # noqa: FBT001 - a parameter of the test
    data: Any,
) -> None:
    session = connected() if online else Session({}, 10)
    with pytest.raises((TypeError, ValueError)):
        session.ask({"type": "publish", "topic": "a", "data": data}, repeatable=True)
    session.lost()
    assert session.received(WELCOME) == []
    with pytest.raises(ValueError, match="surrogates"):
        Session({"\ud800": None}, 10)


def test_what_was_sent_and_nobody_waits_for_is_not_sent_again() -> None:
    session = connected()
    ref, _ = session.ask({"type": "presence", "topic": "a"}, repeatable=True)
    session.forget(ref)
    assert session.lost() == []
    assert session.received(WELCOME) == []


def test_the_largest_question_is_refused_when_the_service_closes_for_its_size() -> None:
    session = connected()
    small, _ = session.ask({"type": "presence", "topic": "a"}, repeatable=True)
    large, _ = session.ask({"type": "subscribe", "topic": "a" * 1000}, repeatable=True)
    publish, _ = session.ask({"type": "publish", "topic": "a", "data": 1}, repeatable=False)
    refused, unknown = session.lost(1009)
    assert isinstance(refused.outcome, Refused)
    assert (refused.ref, refused.outcome.code) == (large, "too_large")
    assert unknown.ref == publish
    assert isinstance(unknown.outcome, OutcomeUnknown)
    assert [message["ref"] for message in sent(session.received(WELCOME))] == [small]


def test_it_is_behind_while_something_done_is_not_acknowledged() -> None:
    session = connected()
    first, second = [effect for n in (1, 2) for effect in session.received(note(n))]
    assert isinstance(first, Give)
    assert isinstance(second, Give)
    assert first.feed is not None
    assert second.feed is not None
    behind = []
    session.handled(first.feed, "1-0", 10.0, at_once=False)
    behind.append(session.behind)
    assert session.handled(second.feed, "2-0", 10.01, at_once=False) == []
    behind.append(session.behind)
    assert sent(session.flush(10.02)) == [{"type": "ack", "id": "2-0"}]
    behind.append(session.behind)
    assert behind == [False, True, False]


def test_the_end_answers_everything() -> None:
    session = connected()
    session.ask({"type": "presence", "topic": "a"}, repeatable=True)
    (answer,) = session.ended(None)
    assert isinstance(answer.outcome, Closed)


def test_errors_are_answers_notices_or_problems() -> None:
    session = connected()
    ref, _ = session.ask({"type": "presence", "topic": "a"}, repeatable=True)
    error = {"type": "error", "code": "forbidden", "detail": "no", "temporary": False}
    (answer,) = session.received(error | {"ref": ref})
    assert isinstance(answer, Answer)
    assert isinstance(answer.outcome, Refused)
    assert answer.outcome.code == "forbidden"
    (told,) = session.received(error)
    assert isinstance(told, Tell)
    assert isinstance(told.message, Problem)
    assert session.received(error | {"code": "token_expiring"}) == [Renew()]
    assert sent(session.renewed("t"))[0]["token"] == "t"


def test_who_asked_for_presence_is_told_what_changed_while_it_was_away() -> None:
    session = connected({"a": "0-0"})
    ref, _ = session.ask({"type": "presence", "topic": "a"}, repeatable=True)
    reply = {"type": "reply", "topic": "a"}
    session.received(reply | {"ref": ref, "users": ["u1", "u2"], "count": 2})
    session.received({"type": "presence", "topic": "a", "joined": ["u3"], "left": ["u2"]})
    session.lost()
    again = sent(session.received(WELCOME))[-1]
    assert (again["type"], again["topic"]) == ("presence", "a")
    (told,) = session.received(reply | {"ref": again["ref"], "users": ["u1", "u4"], "count": 2})
    assert isinstance(told, Tell)
    assert isinstance(told.message, Presence)
    assert (told.message.joined, told.message.left) == (("u4",), ("u3",))
    same = reply | {"ref": again["ref"], "users": ["u1"], "count": 700}
    assert session.received(same) == []  # not all are named


def test_of_a_large_topic_the_number_is_told_and_nobody_is_said_to_have_come() -> None:
    session = connected({"a": "0-0"})
    ref, _ = session.ask({"type": "presence", "topic": "a"}, repeatable=True)
    reply = {"type": "reply", "topic": "a", "users": ["u1", "u2"], "count": 2000, "sample": True}
    session.received(reply | {"ref": ref})
    counted = {"type": "presence", "topic": "a", "joined": [], "left": [], "count": 2001}
    (told,) = session.received(counted)
    assert told == Tell(Presence(counted, "a", (), (), 2001))
    session.lost()
    again = sent(session.received(WELCOME))[-1]
    answer = reply | {"ref": again["ref"], "users": ["u8", "u9"], "count": 1999}
    assert session.received(answer) == [Tell(Presence(answer, "a", (), (), 1999))]
