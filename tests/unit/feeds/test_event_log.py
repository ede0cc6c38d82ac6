"""What a node remembers of what it did."""

import sys

import pytest

from pushsvc.feeds.event_log import MOST_SEEN, Event, EventLog, Seen
from pushsvc.protocol import ids

FEED = "u:ann"
NODE = "n1"


def event_log(*events: Event, size: int = 100) -> EventLog:
    made = EventLog(size)
    for event in events:
        made.add(event)
    return made


def whats(seen: list[Seen]) -> list[str]:
    return [each.what for each in seen]


def test_an_entry_is_followed_from_accepted_to_sent() -> None:
    seen = event_log(
        (1.0, "accepted", FEED, 7, "shop", "memory", 1, ("n1",), ""),
        (1.1, "sent", FEED, 7, "phone", 31, 1),
    ).about(7, FEED, NODE)
    assert seen == [
        Seen(1.0, "accepted", FEED, NODE, by="shop", durability="memory", count=1, nodes=("n1",)),
        Seen(1.1, "sent", FEED, NODE, "phone", "n1.1f", attempt=1),
    ]


def test_without_a_feed_every_feed_with_the_id_is_found() -> None:
    made = event_log(
        (1.0, "sent", FEED, 7, "phone", 1, 1),
        (1.0, "spread", "t:news", 7, 40, 2),
        (1.0, "sent", FEED, 8, "phone", 1, 1),
    )
    assert whats(made.about(7, None, NODE)) == ["sent", "spread"]
    assert [each.feed for each in made.about(7, "t:news", NODE)] == ["t:news"]
    assert made.about(5, None, NODE) == []


def test_what_has_the_id_in_other_namespaces_crowds_nothing_out() -> None:
    made = event_log(
        (1.0, "sent", "u:acme/ann", 7, "phone", 1, 1),
        (1.0, "sent", FEED, 7, "phone", 2, 1),
        *((1.0, "sent", f"u:other/u{n}", 7, "phone", 3, 1) for n in range(2 * MOST_SEEN)),
        (1.2, "closed", "u:acme/ann", 7, "phone", 1, 7),
        size=1000,
    )
    assert [each.feed for each in made.about(7, None, NODE, "")] == [FEED]
    assert whats(made.about(7, None, NODE, "acme")) == ["sent", "closed"]
    assert {each.feed[:8] for each in made.about(7, None, NODE)} == {"u:other/", "u:acme/a"}


def test_a_connection_that_closes_is_told_only_where_it_owed_the_ack() -> None:
    made = event_log(
        (1.0, "sent", FEED, 7, "phone", 1, 1),
        (1.0, "sent", FEED, 7, "laptop", 2, 1),
        (1.2, "closed", FEED, 9, "phone", 1, 6),
        (1.2, "closed", FEED, 9, "laptop", 2, 8),
        (1.2, "closed", FEED, 9, "tablet", 3, 6),
    )
    assert [e.device for e in made.about(7, FEED, NODE) if e.what == "closed"] == ["phone"]


def test_a_withdrawal_says_why() -> None:
    (seen,) = event_log((1.0, "withdrawn", FEED, 7, "recalled")).about(7, FEED, NODE)
    assert (seen.what, seen.reason) == ("withdrawn", "recalled")


def test_the_ring_forgets_the_oldest_and_says_how_far_back_it_goes() -> None:
    made = EventLog(3)
    assert made.since() is None
    for n in range(10):
        made.add((float(n), "sent", FEED, n, "phone", 1, 1))
    assert len(made) == 3
    assert made.since() == 7.0


def test_a_ring_of_no_size_remembers_nothing() -> None:
    made = event_log((1.0, "sent", FEED, 7, "phone", 1, 1), size=0)
    assert len(made) == 0
    assert made.about(7, FEED, NODE) == []
    assert made.since() is None


def test_a_busy_node_remembers_some_notifications_with_all_of_their_steps() -> None:
    made = EventLog(300)
    published = [ms << 64 for ms in range(5000)]
    taken = []
    for entry_id in published:
        if made.takes(entry_id):
            taken.append(entry_id)
            made.add((1.0, "accepted", FEED, entry_id, "shop", "memory", 1, ("n1",), ""))
    assert taken[:10] == published[:10]
    assert 10 < len(taken) < 100  # a second is to take no more than a fraction of the ring
    # Who takes few takes none that a less busy node does not.
    assert all(ids.milliseconds(each) % 2 == 0 for each in taken[11:])


def test_it_remembers_everything_again_once_there_is_less_to_do() -> None:
    made = EventLog(300)
    for n in range(30):
        made.add((1.0, "sent", FEED, n << 64, "phone", 1, 1))
    assert not made.takes(1 << 64)
    for _ in range(5):
        made.tick()
    assert all(made.takes(n << 64) for n in range(10))


def test_a_ring_of_no_size_takes_nothing() -> None:
    assert not any(EventLog(0).takes(n << 64) for n in range(1, 100))


def test_an_answer_is_bounded() -> None:
    events: list[Event] = [(float(n), "sent", FEED, 7, "phone", n, 2) for n in range(1000)]
    seen = event_log(*events, size=1000).about(7, FEED, NODE)
    assert len(seen) == MOST_SEEN
    assert seen[-1].time == 999


@pytest.mark.parametrize(
    "event",
    [
        (1.0, "accepted", FEED, 7 << 64, "shop", "memory", 1, ("n1",)),
        (1.0, "sent", FEED, 7 << 64, "phone", 1, 1),
    ],
)
def test_an_event_is_as_small_as_the_setting_says(event: Event) -> None:
    # The strings live elsewhere, and a batch shares its time.
    assert sys.getsizeof(event) + sys.getsizeof(event[3]) + sys.getsizeof(event[0]) < 250
