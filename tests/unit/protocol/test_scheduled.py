"""The ids of what is scheduled."""

from hypothesis import given
from hypothesis import strategies as st

from pushsvc.protocol import ids
from pushsvc.protocol.scheduled import ScheduledIds, is_scheduled_id

CHANCE = "0123456789"


@given(st.lists(st.floats(0, 4e9), min_size=1))
def test_ids_sort_in_the_order_in_which_they_were_made_whatever_the_clock_does(
    times: list[float],
) -> None:
    maker = ScheduledIds()
    made = [maker.make(now, CHANCE) for now in times]
    assert made == sorted(set(made))
    assert all(map(is_scheduled_id, made))


def test_no_id_of_a_notification_is_one() -> None:
    for text in (ids.render(ids.parse("1764000000123-0")), "", "s-", "s-" + "0" * 25, "x" * 26):
        assert not is_scheduled_id(text)
