"""What is read and archived, as it is asked for and told."""

from typing import Any

import pytest

from pushsvc.client.marks import KINDS, Mark


def test_a_mark_names_some_once_or_all_up_to_one() -> None:
    (some,) = Mark.of("read", ["2-0", "1-0", "2-0"], None)
    assert some.which() == {"ids": ["2-0", "1-0"]}
    assert some.among(["1-0", "3-0", "2-0"]) == {"1-0", "2-0"}
    (one,) = Mark.of("archive", "2-0", None)
    assert one == Mark("archive", ("2-0",))
    (all_up_to,) = Mark.of("read", (), "10-0")
    assert all_up_to.which() == {"until": "10-0"}
    assert all_up_to.among(["9-5", "10-0", "10-1", "2-0"]) == {"9-5", "10-0", "2-0"}


def test_nothing_is_no_mark() -> None:
    assert Mark.of("read", [], None) == []
    assert Mark.of("read", iter(()), None) == []


def test_many_are_marked_in_parts() -> None:
    every = [f"{number}-0" for number in range(2001)]
    parts = Mark.of("read", every, None)
    assert [len(each.ids) for each in parts] == [1000, 1000, 1]
    assert [each for part in parts for each in part.ids] == every


def test_a_count_without_any_mark_is_told_as_one_that_marks_nothing() -> None:
    told = Mark.told({"type": "read", "ids": [], "unread": 2})
    assert told.nothing
    assert told.among(["1-0"]) == set()
    assert not Mark("read", until="1-0").nothing


@pytest.mark.parametrize(
    ("ids", "until"),
    [
        (["1-0"], "2-0"),
        (["one"], None),
        ([""], None),
        ((), "latest"),
        ((), ""),
    ],
)
def test_what_the_service_would_refuse_is_refused_here(ids: Any, until: str | None) -> None:
    with pytest.raises(ValueError, match=r"ids|until|no id"):
        Mark.of("read", ids, until)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_what_is_told_is_what_was_asked_for(kind: Any) -> None:
    for mark in (Mark(kind, ("1-0", "2-0")), Mark(kind, until="3-0")):
        assert Mark.told({"type": kind, **mark.which(), "unread": 3}) == mark


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"ids": None},
        {"ids": [1]},
        {"ids": "1-0"},
        {"until": 1},
        {"ids": ["1-0"], "until": "2-0"},
    ],
)
def test_what_is_told_and_malformed_is_an_error(message: dict[str, Any]) -> None:
    with pytest.raises((LookupError, TypeError, ValueError)):
        Mark.told({"type": "read", **message})
