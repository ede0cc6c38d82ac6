"""Whose turn it is in a sweep: everyone's within a time, and sooner when there is a reason."""

import math
from collections.abc import Callable, Sequence


class SweepSchedule:
    """Hands out names a few at a time; to be asked once a second.

    Args:
        seconds: how long a round takes, and how often one begins.
        soon: how long a hurried one takes.
        now: seconds on a monotonic clock.
    """

    def __init__(self, seconds: float, soon: float, now: float) -> None:
        self._seconds = seconds
        self._soon = soon
        self._next_round = now + seconds
        self._left: list[str] = []
        self._pace = 0
        self._hurried = False

    def hurry(self) -> None:
        """Finish the round quickly, and let another quick one follow, which misses nobody."""
        self._hurried = True
        self._pace = max(self._pace, math.ceil(len(self._left) / self._soon))

    def turn(self, everyone: Callable[[], Sequence[str]], now: float) -> list[str]:
        """The names whose turn it is.

        Args:
            everyone: all names, asked for at the begin of a round.
            now: seconds on a monotonic clock.
        """
        if not self._left and (self._hurried or now >= self._next_round):
            self._left = list(everyone())
            seconds = self._soon if self._hurried else self._seconds
            self._pace = math.ceil(len(self._left) / seconds)
            self._next_round = now + self._seconds
            self._hurried = False
        due, self._left = self._left[: self._pace], self._left[self._pace :]
        return due

    def put_back(self, names: Sequence[str]) -> None:
        """These could not be looked at: they are next."""
        self._left = list(dict.fromkeys([*names, *self._left]))
        self._pace = max(self._pace, 1)
