"""The listeners of a node, by their mailboxes."""

from dataclasses import dataclass, field
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from pushsvc.node.listener import Everyone, Listener, Listeners
from pushsvc.protocol.feeds import mailbox
from pushsvc.protocol.session import Session
from tests.support.hubs import session_of


@dataclass(eq=False)
class One:
    """Somebody who listens; nothing is sent here."""

    number: int
    session: Session = field(init=False)

    def __post_init__(self) -> None:
        self.session = session_of(f"u{self.number % 3}", f"d{self.number}")

    @property
    def feed(self) -> str:
        return self.session.cursor.feed


@given(st.lists(st.integers(0, 7)))
def test_whoever_comes_and_goes_those_who_are_here_are_found(steps: list[int]) -> None:
    listeners, people = Listeners(), [One(number) for number in range(8)]
    here: list[One] = []
    for step in steps:
        one = people[step]
        if one in here:
            here.remove(one)
            listeners.remove(cast(Listener, one))
        else:
            here.append(one)
            listeners.add(cast(Listener, one))
        assert len(listeners) == len(here)
        assert {each.number for each in listeners} == {each.number for each in here}
        assert set(listeners.feeds()) == {each.feed for each in here}
        for feed in {each.feed for each in people}:
            numbers = [each.number for each in here if each.feed == feed]
            assert [each.number for each in listeners.of(feed)] == numbers


def test_one_may_leave_while_the_others_are_walked() -> None:
    listeners, people = Listeners(), [One(number) for number in (0, 3, 6)]
    for one in people:
        listeners.add(cast(Listener, one))
    for listener in listeners.of(people[0].feed):
        listeners.remove(listener)
    assert not len(listeners)
    assert listeners.feeds() == []


SPACES = ("", "acme", "other")


def people(count: int) -> list[Listener]:
    """Users of the same names in several namespaces, each with several devices."""
    found = []
    for number in range(count):
        one = One(number)
        namespace = SPACES[number % len(SPACES)]
        one.session = session_of(f"u{number % 2}", f"d{number}", namespace=namespace)
        found.append(cast(Listener, one))
    return found


@given(st.lists(st.integers(0, 11)))
def test_those_of_a_namespace_are_apart_whoever_comes_and_goes(steps: list[int]) -> None:
    everyone, known = Everyone(), people(12)
    here: list[Listener] = []
    for step in steps:
        one = known[step]
        if one in here:
            here.remove(one)
            everyone.remove(one)
        else:
            here.append(one)
            everyone.add(one)
        assert set(everyone.feeds()) == {each.session.cursor.feed for each in here}
        for namespace in SPACES:
            mine = [each for each in here if each.session.namespace == namespace]
            assert set(everyone.within(namespace)) == set(mine)
            assert len(everyone.within(namespace)) == len(mine)
            for user in ("u0", "u1"):
                listening = [each for each in mine if each.session.user == user]
                assert list(everyone.of(mailbox(user, namespace))) == listening
