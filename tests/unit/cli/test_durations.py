"""How times are written on a command line."""

from datetime import UTC, datetime, timedelta

import click
import pytest

from pushsvc.cli.durations import Duration, Moment


@pytest.mark.parametrize(
    ("text", "seconds"), [("0s", 0), ("90s", 90), ("15m", 900), ("7d", 604800)]
)
def test_a_duration_is_a_number_and_its_unit(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "90", "soon", "-1s", "1.5h", "\u0661m", "9999999999s"])
def test_what_is_no_duration_is_told_how_one_is_written(text: str) -> None:
    with pytest.raises(click.BadParameter, match="90s, 15m, 1h or 7d"):
        Duration().convert(text, None, None)


def test_a_time_is_one_with_its_offset_or_one_from_now_on() -> None:
    moment = Moment()
    assert moment.convert("2026-01-31T09:00:00Z", None, None) == datetime(
        2026, 1, 31, 9, tzinfo=UTC
    )
    assert moment.convert("2026-01-31T10:00:00+01:00", None, None) == datetime(
        2026, 1, 31, 9, tzinfo=UTC
    )
    for text, ahead in (("now", 0), ("+10m", 600), ("-1d", -86400)):
        told = moment.convert(text, None, None)
        assert abs(told - datetime.now(UTC) - timedelta(seconds=ahead)) < timedelta(seconds=20)


@pytest.mark.parametrize("text", [
    "", "10m", "+", "+soon", "+999999999d", "2026-01-31T09:00:00", "2026-01-31", "tomorrow",
])  # fmt: skip
def test_what_is_no_time_is_told_how_one_is_written(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"\+10m, or with the offset from UTC"):
        Moment().convert(text, None, None)
