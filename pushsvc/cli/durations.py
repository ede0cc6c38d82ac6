"""How a command takes a length of time, and a point in time."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_match_duration = re.compile(r"([0-9]{1,9})([smhd])").fullmatch


def _seconds(text: str) -> int | None:
    match = _match_duration(text)
    return None if match is None else int(match[1]) * _UNITS[match[2]]


class Duration(click.ParamType[float]):
    """A time such as 90s, 15m, 1h or 7d, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Parse."""
        seconds = _seconds(str(value))
        if seconds is None:
            self.fail(f"{value!r} is no duration: write 90s, 15m, 1h or 7d", param, ctx)
        return seconds


class Moment(click.ParamType[datetime]):
    """A point in time: as in RFC 3339, or from now on, such as +10m."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> datetime:
        """Parse."""
        text = str(value)
        seconds = _seconds(text[1:])
        try:
            if text == "now":
                return datetime.now(UTC)
            if seconds is not None and text[0] in "+-":
                ahead = seconds if text[0] == "+" else -seconds
                return datetime.now(UTC) + timedelta(seconds=ahead)
            moment = datetime.fromisoformat(text)
        except (ValueError, OverflowError):
            moment = None
        if moment is None or moment.tzinfo is None:
            self.fail(
                f"{value!r} is no time: write +10m, or with the offset from UTC"
                " 2026-01-31T09:00:00Z",
                param, ctx,
            )  # fmt: skip
        return moment
