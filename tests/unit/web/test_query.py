"""The arguments of a query: their types, their bounds, and what is said of those out of them."""

from collections.abc import Callable

import pytest

from pushsvc.errors import InvalidRequest
from pushsvc.web.query import MAX_ARGUMENTS, Query


def test_an_argument_that_is_there_several_times_is_a_list_or_refused() -> None:
    query = Query("topic=a&topic=b")
    assert query.all("topic") == ["a", "b"]
    with pytest.raises(InvalidRequest, match='"topic" is there 2 times: send it once'):
        query.one("topic")


def test_an_argument_that_is_missing_is_none_and_an_empty_one_is_empty() -> None:
    query = Query("ticket=")
    assert query.one("ticket") == ""
    assert query.one("device") is None
    assert query.position("after", "it") is None
    assert query.all("topic") == []
    assert query.number("limit", 1, 100, 20) == 20
    assert query.seconds("wait", 60.0, 25.0) == 25.0


def test_arguments_are_percent_encoded_utf_8() -> None:
    assert Query("a=%C3%A9+1").one("a") == "é 1"
    wrong = Query("a=%ff")
    reads = wrong.one, wrong.all, lambda name: wrong.only({name}, "send it once")
    for read in reads:
        with pytest.raises(InvalidRequest, match='"a" is not UTF-8: percent-encode'):
            read("a")


@pytest.mark.parametrize("text", ["a=%", "a=%2", "a=%zz", "%=1", "a=%25%", "b=100%&a=1"])
def test_a_percent_sign_that_encodes_nothing_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="not percent-encoded: send % as %25"):
        Query(text)


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (lambda query: query.number("x", 1, 1000, 1), '"x" is a number from 1 to 1000'),
        (lambda query: query.seconds("x", 60.0, 1), '"x" is a number of seconds from 0 to 60'),
        (lambda query: query.position("x", "an earlier page"), '"x" is the "next" of an earlier'),
    ],
)
@pytest.mark.parametrize("value", ["", "x", "-1", "1001", " 1", "1e1", "\u0663", "61.0001", "1-x"])
def test_a_value_out_of_range_is_refused(
    read: Callable[[Query], object], text: str, value: str
) -> None:
    with pytest.raises(InvalidRequest, match=text):
        read(Query("x=" + "".join(f"%{byte:02x}" for byte in value.encode())))


def test_seconds_are_there_once() -> None:
    with pytest.raises(InvalidRequest, match='"wait" is there 2 times: send it once'):
        Query("wait=1&wait=2").seconds("wait", 60.0, 25.0)


def test_what_is_in_range_is_read() -> None:
    query = Query("limit=1000&wait=0.125&after=1764000000123-1")
    assert query.number("limit", 1, 1000, 1) == 1000
    assert query.seconds("wait", 60.0, 1) == 0.125
    assert query.position("after", "it") == (1764000000123 << 64) + 1


@pytest.mark.parametrize("text", ["a=1&c=1", "a=1&a=1"])
def test_an_argument_that_is_not_known_or_comes_twice_is_refused_where_each_counts(
    text: str,
) -> None:
    assert Query("a=1&b=2").only({"a", "b"}, "send a and b") == {"a": "1", "b": "2"}
    with pytest.raises(InvalidRequest, match="send a and b"):
        Query(text).only({"a", "b"}, "send a and b")


def test_arguments_are_bounded() -> None:
    assert len(Query("&".join(["x=1"] * MAX_ARGUMENTS)).all("x")) == MAX_ARGUMENTS
    with pytest.raises(InvalidRequest, match="at most 100 arguments"):
        Query("&".join(["x=1"] * (MAX_ARGUMENTS + 1)))
