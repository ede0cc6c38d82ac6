"""One feed as a client sees it: nothing twice, and one ack for many."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.client.feed import ACK_PAUSE, Feed, parse
from pushsvc.protocol import ids

IDS = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))


def text(entry: tuple[int, int]) -> str:
    return f"{entry[0]}-{entry[1]}"


@given(IDS, IDS)
def test_ids_are_ordered_as_the_service_orders_them(
    one: tuple[int, int], other: tuple[int, int]
) -> None:
    assert parse(text(one)) == one
    theirs = ids.parse(text(one)) < ids.parse(text(other))
    assert (parse(text(one)) < parse(text(other))) == theirs


@pytest.mark.parametrize(
    "wrong", ["", "1", "-1", "1-", "1-2-3", " 1-2", "1-2\n", "\u0661-\u0662", "1" * 21 + "-0"]
)
def test_what_is_no_id_is_none(wrong: str) -> None:
    with pytest.raises(ValueError, match="is no id"):
        parse(wrong)


@given(st.lists(IDS))
def test_each_is_taken_once_and_in_order(entries: list[tuple[int, int]]) -> None:
    feed, taken = Feed(acked=True), [(0, 0)]
    for entry in entries:
        new = entry > taken[-1]
        assert feed.take(text(entry)) == new
        if new:
            taken.append(entry)
    assert feed.received == taken[-1]


@given(st.lists(st.tuples(IDS, st.booleans(), st.floats(0, 2 * ACK_PAUSE)), min_size=1))
def test_what_is_handled_is_told_at_once_or_with_a_later_one(
    steps: list[tuple[tuple[int, int], bool, float]],
) -> None:
    feed, now = Feed(acked=True), 1000.0
    for entry, at_once, pause in steps:
        now += pause
        if feed.handle(text(entry), now, at_once=at_once):
            assert feed.handled > feed.told, "an ack that says nothing new"
            assert at_once or now - feed.told_at >= ACK_PAUSE
            feed.told, feed.told_at = feed.handled, now
        else:
            assert feed.handled == feed.told or not at_once
        assert feed.handled >= entry
        assert feed.repeats(text(entry))


def test_what_comes_of_a_topic_is_never_acked() -> None:
    feed = Feed(acked=False)
    assert feed.take("5-0")
    assert not feed.handle("5-0", 1000.0, at_once=True)
    assert not feed.repeats("5-0")
