"""The ids of what is scheduled, which are not those of the notifications that it becomes."""

import re
from typing import Final

TOLERANCE: Final = 300.0
"""Seconds that a time may be past, for what took a while on its way; it goes out at once."""

is_scheduled_id = re.compile(r"s-[0-9a-f]{24}").fullmatch
"""Whether a text is such an id."""


class ScheduledIds:
    """Makes ids; those of one maker sort in the order in which they were made."""

    def __init__(self) -> None:
        self._last = 0

    def make(self, now: float, chance: str) -> str:
        """A new id.

        Args:
            now: seconds since the epoch.
            chance: ten random hexadecimal digits.
        """
        self._last = max(self._last + 1, int(now * 1_000_000))
        return f"s-{self._last:014x}{chance}"
