"""Times as they are written."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.protocol.timestamps import from_rfc3339, rfc3339


def test_times_have_milliseconds() -> None:
    assert rfc3339(5) == "1970-01-01T00:00:00.005Z"


@given(st.integers(0, 253_402_300_799_999))
def test_a_time_is_read_as_it_was_written(milliseconds: int) -> None:
    read = datetime.strptime(rfc3339(milliseconds), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    assert round(read.timestamp() * 1000) == milliseconds
    assert from_rfc3339(rfc3339(milliseconds)) == milliseconds


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T01:00:00.5+01:00", 500),
        ("1969-12-31T19:00:00-05:00", 0),
        ("1970-01-01T00:00:00.000001Z", 1),
        ("1970-01-01T00:00:00.001000Z", 1),
        ("1969-12-31T23:59:59.9995Z", 0),
        ("9999-12-31T23:59:59-23:59", 253402387139000),
        ("0001-01-01T00:00:00+23:59", -62135683140000),
    ],
)
def test_a_time_of_a_caller_is_the_first_millisecond_that_is_not_before_it(
    text: str, milliseconds: int
) -> None:
    assert from_rfc3339(text) == milliseconds


@pytest.mark.parametrize(
    "text",
    [
        "", "now", "1764000000", "2026-01-31", "2026-01-31T09:00:00", "2026-02-30T09:00:00Z",
        "2026-01-31T09:00:60Z", "2026-01-31T09:00:00Z ", "20260131T090000Z",
        "2026-01-31T09:00:00,5Z",
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"RFC3339|timezone"):
        from_rfc3339(text)
