"""What was withdrawn a moment ago: an entry or an answer that still holds it may be under way."""

from collections import OrderedDict
from typing import Final

MOST: Final = 10_000
"""Most that are remembered; the oldest are forgotten first."""
SECONDS: Final = 60.0
"""How long they are: longer than anything is under way."""


class Tombstones:
    """Entries that are not to be delivered any more."""

    def __init__(self) -> None:
        self._until: OrderedDict[tuple[str, int], float] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._until)

    def add(self, feed: str, entry_id: int, now: float) -> None:
        """Remember an entry that was withdrawn."""
        self._until[feed, entry_id] = now + SECONDS
        if len(self._until) > MOST:
            self._until.popitem(last=False)

    def holds(self, feed: str, entry_id: int) -> bool:
        """Whether an entry was withdrawn."""
        return (feed, entry_id) in self._until

    def tick(self, now: float) -> None:
        """Forget what is over."""
        while self._until and next(iter(self._until.values())) <= now:
            self._until.popitem(last=False)
