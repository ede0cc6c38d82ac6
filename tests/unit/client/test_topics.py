"""Where a client goes on with its topics: nothing of a state is missing, and nothing after it."""

from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.client.session import Effect, Give, Send, Session
from pushsvc.client.topics import Place, Topics


@pytest.mark.parametrize(
    ("place", "resumed"),
    [
        (Place(None), None),
        (Place("3-0"), "3-0"),
        (Place("3-0", last="7-0", begun=True), "3-0"),
        (Place(None, last="7-0"), None),
        (Place(None, last="7-0", begun=True), "7-0"),
        (Place(None, last="7-0", came="4-0"), "4-0"),
        (Place("3-0", last="7-0", came="8-0", begun=True), "8-0"),
    ],
)
def test_a_topic_goes_on_behind_what_came_or_where_it_was_once_its_state_has_come(
    place: Place, resumed: str | None
) -> None:
    assert place.resume() == resumed


class Service:
    """A service of one topic, and the wire to the client, which may be cut anywhere."""

    def __init__(self) -> None:
        self.session = Session({"t": None}, 10)
        self.kept: list[tuple[int, str | None]] = []
        self.wire: deque[dict[str, Any]] = deque()
        self.subscribed = False
        self.asked: str | None = None
        self.promised = 0
        """From after which one on everything is owed."""
        self.taken: list[int] = []

    def publish(self, key: str | None) -> None:
        number = len(self.kept) + 1
        self.kept.append((number, key))
        if self.subscribed:
            self.send([number])

    def send(self, numbers: list[int]) -> None:
        fields = {"type": "notification", "topic": "t"}
        self.wire += [{**fields, "id": f"{number}-0", "data": number} for number in numbers]

    def connect(self) -> None:
        self.session.lost()
        self.wire.clear()
        self.subscribed = False
        self.perform(self.session.received({"type": "welcome"}))

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Give):
                self.taken.append(effect.message["data"])
                continue
            assert isinstance(effect, Send)
            message = effect.message
            if message["type"] == "ping":
                self.wire.append({"type": "pong", "ref": message["ref"]})
                continue
            assert message["type"] == "subscribe"
            self.asked = message["topics"]["t"]
            self.subscribed = True
            last = {"t": f"{len(self.kept)}-0"}
            self.wire.append({"type": "reply", "ref": message["ref"], "topics": last})
            if self.asked is None:
                self.send(self.state())
            else:
                after = int(self.asked.split("-")[0])
                self.send([number for number, _ in self.kept if number > after])

    def state(self) -> list[int]:
        return sorted({key: number for number, key in self.kept if key is not None}.values())

    def receive(self) -> None:
        if self.wire:
            message = self.wire.popleft()
            if message["type"] == "reply" and self.asked is None:
                self.promised = int(message["topics"]["t"].split("-")[0])
            self.perform(self.session.received(message))


keys = st.sampled_from([None, "k1", "k2"])
connections = st.lists(
    st.tuples(
        st.lists(keys, max_size=4), st.lists(st.one_of(st.just("receive"), keys), max_size=8)
    ),
    max_size=4,
)
"""What is published before each, and then published or received until it ends."""


@given(connections)
def test_wherever_a_connection_ends_neither_state_nor_what_follows_is_missed(
    happened: list[tuple[list[str | None], list[str | None]]],
) -> None:
    service = Service()
    for before, steps in happened:
        for key in before:
            service.publish(key)
        service.connect()
        for step in steps:
            if step == "receive":
                service.receive()
            else:
                service.publish(step)
    service.connect()
    while service.wire:
        service.receive()
    assert service.taken == sorted(set(service.taken))
    owed = {number for number, _ in service.kept if number > service.promised}
    assert owed.union(service.state()) <= set(service.taken)


def test_what_was_answered_on_an_earlier_connection_says_nothing_about_a_state_on_this_one() -> (
    None
):
    topics = Topics({"a": None, "b": None})
    topics.connected()
    topics.question(())
    assert topics.answered({"a": "7-0", "b": "7-0"})
    topics.connected()
    topics.question(())
    assert topics.refused() is None
    assert topics.question(()) == {"a": None}
    assert topics.answered({"a": "8-0"})
    topics.begun()
    assert topics.question(()) == {"b": None}


def test_an_empty_topic_has_no_state_to_ask_for() -> None:
    service = Service()
    service.connect()
    service.receive()
    assert not service.wire
    service.publish(None)
    service.connect()
    assert service.asked == "0-0"


def test_the_newest_id_of_a_later_answer_is_no_place() -> None:
    service = Service()
    service.connect()
    service.receive()
    service.publish(None)
    service.connect()
    service.receive()  # the answer, which names the one that does not arrive
    service.connect()
    assert service.asked == "0-0"


def test_a_quiet_topic_costs_one_ping_and_is_not_asked_for_its_state_again() -> None:
    service = Service()
    service.publish(None)
    service.connect()
    service.receive()
    assert [message["type"] for message in service.wire] == ["pong"]
    service.receive()
    service.publish(None)
    service.connect()
    assert service.asked == "1-0"
    service.receive()
    service.receive()
    assert service.taken == [2]
    assert not service.wire
