"""A node that is asked where a notification is."""

from collections.abc import AsyncIterator

import pytest

from pushsvc.embedded import EmbeddedServer
from pushsvc.feeds.feed import Bounds
from pushsvc.feeds.journal import Answer
from pushsvc.feeds.nodes import Leases, Notice, Outbox
from pushsvc.feeds.tracer import PLACES, QUESTION
from pushsvc.node.witness import Witness
from pushsvc.protocol import ids
from pushsvc.protocol.limits import Rate
from pushsvc.protocol.session import Policy
from tests.support.hubs import Parts, parts
from tests.support.store import FEED, Store

MUCH = Rate(1e6, 1e6)
POLICY = Policy(
    heartbeat=25, window=64, ack_timeout=30, ack_attempts=3,
    messages=MUCH, bytes=MUCH, control=MUCH,
)  # fmt: skip
SENT = 1_764_000_000_000 << 64


class Asked:
    """A node without connections, and what it answered."""

    def __init__(self, hub: Parts) -> None:
        self.answers: list[tuple[str, str, Answer]] = []
        hub.journal.add((1.0, "accepted", FEED, SENT, "backend", "memory", 0, ()))
        self.witness = Witness(
            hub.hub, hub.journal, 64, lambda *answer: self.answers.append(answer)
        )


@pytest.fixture
async def asked(valkey: EmbeddedServer, prefix: str) -> AsyncIterator[Asked]:
    store = Store(valkey.url, prefix, Bounds(100, 3600, 8))
    leases = Leases(store.lane, store.keys, store.scripts, 10)
    outbox = Outbox(store.lane, store.keys)
    hub = parts("n1", store.feeds, leases, outbox, POLICY, sweep_seconds=60, clock=lambda: 0.0)
    yield Asked(hub)
    await hub.aclose()
    await outbox.aclose()
    await store.aclose()


async def test_it_answers_under_its_name_what_its_journal_remembers(asked: Asked) -> None:
    for feed in (FEED, ""):
        asked.witness.notice(Notice(QUESTION, feed, ["q1", ids.render(SENT)]))
    for question, node, answer in asked.answers:
        assert (question, node) == ("q1", "n1")
        assert [(seen.what, seen.by) for seen in answer.seen] == [("accepted", "backend")]
    assert len(asked.answers) == 2


async def test_a_question_of_a_newer_version_may_say_more(asked: Asked) -> None:
    asked.witness.notice(Notice(QUESTION, FEED, ["q1", ids.render(SENT), "and more"]))
    assert len(asked.answers) == 1


async def test_who_asks_for_places_alone_is_not_told_again_what_is_remembered(asked: Asked) -> None:
    asked.witness.notice(Notice(QUESTION, FEED, ["q1", ids.render(SENT), PLACES]))
    ((question, _, answer),) = asked.answers
    assert question == "q1"
    assert answer.seen == []


async def test_a_kind_of_notice_that_it_does_not_know_is_ignored(asked: Asked) -> None:
    # What an older node does with a question, too: its hub gets every notice.
    asked.witness.notice(Notice("invented later", FEED, ["x"]))
    asked.witness.notice(Notice("invented later", "", []))
    assert asked.answers == []
