"""A maximum age of connections: who has reached it is asked to go elsewhere.

After a scale-up the connections that are open would stay where they are for days, and the new nodes
empty. With an age they spread by themselves.
"""

from array import array
from collections.abc import Callable
from typing import Final

SPREAD: Final = 0.2
"""The part of the age over which those spread that came together: nobody is older than the age, and
nobody is asked to go before the rest of it."""


def lifetime(age: float, chance: float) -> float:
    """How long a connection may live, in seconds.

    Args:
        age: the most.
        chance: from 0 to 1, at random.
    """
    return age * (1 - SPREAD * chance)


class Ages:
    """When each connection has to go: eight bytes for a descriptor, and nothing else.

    Args:
        age: most seconds of a connection.
        chance: a random number from 0 to 1.
    """

    def __init__(self, age: float, chance: Callable[[], float]) -> None:
        self._age = age
        self._chance = chance
        self._ends = array("d")

    def begin(self, fd: int, now: float) -> float:
        """A connection begins: when it has to go.

        Args:
            fd: its descriptor.
            now: seconds on a monotonic clock.
        """
        if fd >= len(self._ends):
            self._ends.extend([0.0] * (fd + 1 - len(self._ends)))
        ends = now + lifetime(self._age, self._chance())
        self._ends[fd] = ends
        return ends

    def end(self, fd: int) -> float:
        """When the connection on this descriptor has to go, seconds on the same clock."""
        return self._ends[fd]
