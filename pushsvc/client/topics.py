"""The topics of a client over all its connections: which, from where on, and what to ask for.

A rule without a socket. The service answers a ``subscribe`` of a topic with its newest id, and
sends the topic's state after that. So the answer is no proof that the state has come; an answer to
something that was asked later is.
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

EMPTY = "0-0"
"""The newest id of a topic in which nothing is, and the place from which all of it is sent."""


@dataclass(slots=True)
class Place:
    """Where a client is in a topic."""

    since: str | None
    """The id after which the program wants it; None for its state, and what is published then."""
    came: str | None = None
    """The newest id that came."""
    last: str | None = None
    """The topic's newest id when it was first subscribed to."""
    begun: bool = False
    """Whether the state has come, if there is any: all that comes from now on is after ``last``."""

    def resume(self) -> str | None:
        """After which id to go on, on the next connection; None for the state.

        What came is the place, also amid the state: what is left of that stands after it. Where
        nothing came it is ``last``, so that nothing is missing which was published meanwhile, but
        only once the state, whose ids are up to ``last``, cannot be missing.
        """
        if self.came is not None:
            return self.came
        if self.since is not None:
            return self.since
        return self.last if self.begun else None

    def answered(self, last: str) -> None:
        """It is subscribed to; later answers name what has yet to come as well."""
        if self.last is None:
            self.last = last
            self.begun = last == EMPTY  # where nothing is, there is no state

    @property
    def awaits_state(self) -> bool:
        """Whether it is not known yet whether there is a state."""
        return self.resume() is None


class Topics:
    """The topics that a client listens to.

    They are asked for together. If the service refuses that, some of them are at fault: each half
    is asked for, and so on until those are found. One question at a time keeps it within the rates
    of the service, and a connection that ends amid it has not found them in vain.

    Args:
        wanted: each from the id after which to begin, or None for its state.
    """

    def __init__(self, wanted: Mapping[str, str | None]) -> None:
        self._places = {name: Place(since) for name, since in wanted.items()}
        self._to_ask: deque[list[str]] = deque()
        self._asked: list[str] = []

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def connected(self) -> None:
        """There is a new connection, on which everything is to be asked for."""
        self._to_ask = deque([list(self._places)])
        for place in self._places.values():
            if not place.begun:
                place.last = None  # the state is asked for again

    def question(self, without: Collection[str]) -> dict[str, str | None]:
        """What to ask for now, if anything, and from where on.

        Args:
            without: topics that are being left.
        """
        while self._to_ask:
            names = self._to_ask.popleft()
            self._asked = [each for each in names if each in self._places and each not in without]
            if self._asked:
                return {name: self._places[name].resume() for name in self._asked}
        return {}

    def refused(self) -> str | None:
        """The last question was refused; the topic that was the reason, and is dropped, if sure."""
        if len(self._asked) == 1:
            (name,) = self._asked
            self.drop(name)
            return name
        middle = len(self._asked) // 2
        self._to_ask.extendleft((self._asked[middle:], self._asked[:middle]))
        return None

    def answered(self, last: Mapping[str, str]) -> bool:
        """Topics are subscribed to; whether it is to be found out if their state has come.

        Args:
            last: the newest id of each.
        """
        for name in last:
            if name in self._places:
                self._places[name].answered(last[name])
        return self._awaited(last)

    def add(self, name: str, since: str | None, last: str) -> bool:
        """The program has subscribed to a topic; returns what ``answered`` does."""
        self._places.setdefault(name, Place(since))
        return self.answered({name: last})

    def _awaited(self, names: Iterable[str]) -> bool:
        return any(name in self._places and self._places[name].awaits_state for name in names)

    def begun(self) -> None:
        """Something was answered that was asked after all answers so far."""
        for place in self._places.values():
            place.begun = place.last is not None

    def came(self, name: str, text: str) -> None:
        """A notification of a topic came; ids grow."""
        if name in self._places:
            self._places[name].came = text

    def reset(self, name: str) -> None:
        """The ids of a topic begin anew."""
        if name in self._places:
            self._places[name] = Place(EMPTY)

    def drop(self, name: str) -> None:
        """Listen to a topic no more."""
        self._places.pop(name, None)
