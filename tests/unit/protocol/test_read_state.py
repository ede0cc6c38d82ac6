"""The read state: what a client may ask for, and how it is told."""

import pytest

from pushsvc.errors import InvalidRequest
from pushsvc.protocol import ids
from pushsvc.protocol.read_state import MAX_IDS, Change, Verb, change_from


def test_a_change_is_of_some_or_of_all_up_to_one() -> None:
    some = change_from(Verb.READ, ["5-1", "7-0"], None)
    assert some == Change(Verb.READ, [ids.parse("5-1"), ids.parse("7-0")])
    upto = change_from(Verb.ARCHIVE, None, "7-0")
    assert upto == Change(Verb.ARCHIVE, until=ids.parse("7-0"))


def test_no_ids_are_a_change_of_none() -> None:
    assert change_from(Verb.READ, [], None) == Change(Verb.READ, [])


@pytest.mark.parametrize(
    ("some", "until", "why"),
    [
        (None, None, 'exactly one of "ids" and "until"'),
        (["1-0"], "1-0", 'exactly one of "ids" and "until"'),
        (["1-0"] * (MAX_IDS + 1), None, f"at most {MAX_IDS}"),
        (["x"], None, "an id looks like"),
        (None, "1", "an id looks like"),
        (None, "", "an id looks like"),
    ],
)
def test_anything_else_is_refused_and_says_what_to_change(
    some: list[str] | None, until: str | None, why: str
) -> None:
    with pytest.raises(InvalidRequest, match=why):
        change_from(Verb.UNREAD, some, until)


def test_it_is_told_as_it_is_asked_for() -> None:
    for change in (Change(Verb.UNREAD, [ids.parse("5-1")]), Change(Verb.READ, until=1)):
        told = change.to_json()
        verb = Verb(told.pop("type"))
        assert change_from(verb, told.get("ids"), told.get("until")) == change
