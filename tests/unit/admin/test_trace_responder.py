"""A node's answer to who asks where a notification is."""

import pytest

from pushsvc.admin.trace import PLACES, QUESTION, within_namespace
from pushsvc.admin.trace_responder import TraceResponder
from pushsvc.feeds.event_log import Answer, EventLog
from pushsvc.feeds.nodes import ControlMessage
from pushsvc.node.identity import NodeIdentity
from pushsvc.node.listener import Everyone
from pushsvc.protocol import ids
from pushsvc.protocol.feeds import mailbox

FEED = mailbox("u1")
SENT = 1_764_000_000_000 << 64


class Asked:
    """A node without connections, and what it answered."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, str, Answer]] = []
        event_log = EventLog(1000)
        event_log.add((1.0, "accepted", FEED, SENT, "backend", "memory", 0, (), ""))
        self.responder = TraceResponder(
            NodeIdentity("n1"),
            Everyone(),
            event_log,
            64,
            lambda *answer: self.answers.append(answer),
        )


@pytest.fixture
def asked() -> Asked:
    return Asked()


def test_it_answers_under_its_name_what_its_event_log_remembers(asked: Asked) -> None:
    for feed in (FEED, ""):
        asked.responder.answer(ControlMessage(QUESTION, feed, ["q1", ids.render(SENT)]))
    for question, node, answer in asked.answers:
        assert (question, node) == ("q1", "n1")
        assert [(seen.what, seen.by) for seen in answer.seen] == [("accepted", "backend")]
    assert len(asked.answers) == 2


def test_a_question_of_a_newer_version_may_say_more(asked: Asked) -> None:
    asked.responder.answer(ControlMessage(QUESTION, FEED, ["q1", ids.render(SENT), "and more"]))
    assert len(asked.answers) == 1


def test_of_a_namespace_that_a_question_names_nothing_else_is_told(asked: Asked) -> None:
    for more, expected in (([within_namespace("")], 1), ([within_namespace("places")], 0), ([], 1)):
        asked.answers.clear()
        asked.responder.answer(ControlMessage(QUESTION, "", ["q1", ids.render(SENT), *more]))
        ((_, _, answer),) = asked.answers
        assert len(answer.seen) == expected


def test_a_question_for_positions_alone_is_not_answered_with_what_is_remembered(
    asked: Asked,
) -> None:
    asked.responder.answer(ControlMessage(QUESTION, FEED, ["q1", ids.render(SENT), PLACES]))
    ((question, _, answer),) = asked.answers
    assert question == "q1"
    assert answer.seen == []
