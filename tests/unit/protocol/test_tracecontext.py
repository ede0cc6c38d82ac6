import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.protocol import tracecontext
from pushsvc.protocol.encoding import encode

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize("flags", ["00", "01", "02", "03"])
def test_a_good_one_is_taken_as_it_is(flags: str) -> None:
    value = f"00-{TRACE}-{PARENT}-{flags}"
    assert tracecontext.read(value) == value
    assert tracecontext.is_sampled(value) == (flags in {"01", "03"})


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (f"  {SAMPLED}\t", SAMPLED),
        (f"00-{TRACE}-{PARENT}-ff", f"00-{TRACE}-{PARENT}-03"),
        (f"01-{TRACE}-{PARENT}-01", SAMPLED),
        (f"cc-{TRACE}-{PARENT}-01-what-the-future-brings", SAMPLED),
    ],
)
def test_versions_and_flags_that_are_not_known_are_brought_back_to_what_is(
    value: str, read: str
) -> None:
    assert tracecontext.read(value) == read


@pytest.mark.parametrize(
    "value",
    [
        None,
        17,
        "",
        SAMPLED.upper(),
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}-01-",
        f"cc-{TRACE}-{PARENT}-01.more",
        f"00-{TRACE}-{PARENT}-1",
        f"00-{TRACE[1:]}-{PARENT}-01",
        f"00{TRACE}{PARENT}01",
        f"{SAMPLED},{SAMPLED}",
        f"{SAMPLED}\n",
        SAMPLED.replace("0", "\N{ARABIC-INDIC DIGIT ZERO}"),
    ],
)
def test_what_is_malformed_is_ignored(value: object) -> None:
    assert tracecontext.read(value) == ""


@given(st.text())
def test_whatever_is_read_is_a_context_or_nothing(text: str) -> None:
    read = tracecontext.read(text)
    assert read in {"", tracecontext.read(read)}


def test_a_body_tells_the_context_that_it_begins_with() -> None:
    body = encode({"traceparent": SAMPLED, "data": 1})[1:]
    assert tracecontext.recorded(body) == SAMPLED


@pytest.mark.parametrize(
    "fields",
    [
        {"data": 1},
        {"data": {"traceparent": SAMPLED}},
        {"traceparent": SAMPLED[:-1] + "0", "data": 1},
        {"traceparent": "of a newer version", "data": 1},
        {"traceparent": "", "data": 1},
    ],
)
def test_a_body_without_a_recorded_context_at_its_begin_tells_none(fields: object) -> None:
    assert tracecontext.recorded(encode(fields)[1:]) == ""
    assert tracecontext.recorded(b"") == ""
