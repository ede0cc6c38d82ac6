"""What was withdrawn is remembered for as long as anything may be under way, and no longer."""

from hypothesis import given
from hypothesis import strategies as st

from pushsvc.node.tombstones import MOST, SECONDS, Tombstones

FEEDS = st.sampled_from(["u:ann", "u:bob", "t:news"])
STEPS = st.lists(st.tuples(st.floats(0, 40), FEEDS, st.integers(1, 5)), max_size=40)


@given(STEPS, st.floats(0, 200))
def test_an_entry_is_held_from_its_withdrawal_until_its_time_is_over(
    steps: list[tuple[float, str, int]], pause: float
) -> None:
    withdrawals, now, first = Tombstones(), 0.0, dict[tuple[str, int], float]()
    for seconds, feed, entry in steps:
        now += seconds
        withdrawals.tick(now)
        withdrawals.add(feed, entry, now)
        assert withdrawals.holds(feed, entry)
        first[feed, entry] = now
    withdrawals.tick(now + pause)
    for (feed, entry), at in first.items():
        if now + pause < at + SECONDS:
            assert withdrawals.holds(feed, entry), "forgotten too early"
    withdrawals.tick(now + SECONDS)
    assert not withdrawals
    assert not any(withdrawals.holds(*each) for each in first)


def test_the_same_id_of_another_feed_is_another_entry() -> None:
    withdrawals = Tombstones()
    withdrawals.add("u:ann", 7, 0.0)
    assert not withdrawals.holds("u:bob", 7)
    assert not withdrawals.holds("u:ann", 8)


def test_of_too_many_the_oldest_are_forgotten() -> None:
    withdrawals = Tombstones()
    for entry in range(MOST + 10):
        withdrawals.add("u:ann", entry, 0.0)
    held = [withdrawals.holds("u:ann", entry) for entry in range(MOST + 10)]
    assert held == [False] * 10 + [True] * MOST
