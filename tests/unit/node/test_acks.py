"""Acknowledgements on their way to Redis."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, cast

import pytest

from pushsvc.errors import StoreUnavailable
from pushsvc.feeds.feed import AckKind, Acknowledged, Acknowledgement, Feeds
from pushsvc.feeds.nodes import Outbox
from pushsvc.node import acks as module
from pushsvc.node.acks import MOST_SHARED, SLICE, Acks
from pushsvc.protocol import ids


class SlowFeeds:
    """Writes when it is told to; the real one is tested against a server."""

    def __init__(self) -> None:
        self.written: list[dict[tuple[str, str], int]] = []
        self.answers: list[asyncio.Future[list[Any]]] = []

    def ack(self, acks: Iterable[Acknowledgement]) -> asyncio.Future[list[Any]]:
        self.written.append({(ack.feed, ack.device): ack.id for ack in acks})
        self.answers.append(asyncio.get_running_loop().create_future())
        return self.answers[-1]

    def done(self) -> None:
        written = self.written[-1]
        self.answers[-1].set_result([Acknowledged(entry) for entry in written.values()])


class Client:
    """Acknowledges on one connection, and hears what was written down."""

    def __init__(self) -> None:
        self.heard: list[int] = []

    def ack(self, acks: Acks, feed: str, device: str, entry_id: int, *, asks: bool = False) -> None:
        acks.add(feed, device, entry_id, AckKind.SENT, "n1.1", self.heard.append if asks else None)


def new_acks(feeds: SlowFeeds, gather: float = 0.0) -> Acks:
    """Acks of users that have no other connection, and owe no receipt."""
    return Acks(cast(Feeds, feeds), cast(Outbox, None), cast(Callable[[str], None], None), gather)


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_acks_that_come_while_one_is_written_are_written_as_one() -> None:
    feeds, client = SlowFeeds(), Client()
    acks = new_acks(feeds)
    client.ack(acks, "u:1", "phone", 10)
    await turn()
    for entry in (20, 30, 25):
        client.ack(acks, "u:1", "phone", entry)
    client.ack(acks, "u:1", "laptop", 5)
    feeds.done()
    await turn()
    assert feeds.written == [
        {("u:1", "phone"): 10},
        {("u:1", "phone"): 30, ("u:1", "laptop"): 5},
    ]
    feeds.done()
    await acks.aclose()


async def test_an_ack_is_answered_when_it_is_written_and_not_before() -> None:
    feeds, client = SlowFeeds(), Client()
    acks = new_acks(feeds)
    client.ack(acks, "u:1", "phone", ids.parse("7-0"), asks=True)
    await turn()
    assert client.heard == []
    feeds.done()
    await acks.aclose()
    assert client.heard == [ids.parse("7-0")]


async def test_an_ack_that_could_not_be_written_is_kept_and_written_later() -> None:
    feeds, client = SlowFeeds(), Client()
    acks = new_acks(feeds)
    client.ack(acks, "u:1", "phone", 10, asks=True)
    await turn()
    feeds.answers[-1].set_exception(StoreUnavailable("gone"))
    await turn()
    assert client.heard == []
    acks.flush()
    await turn()
    assert feeds.written[-1] == {("u:1", "phone"): 10}
    feeds.done()
    await acks.aclose()
    assert client.heard == [10]


async def test_refused_acks_wait_for_the_next_tick_and_do_not_hold_up_the_end() -> None:
    feeds, client = SlowFeeds(), Client()
    acks = new_acks(feeds)
    client.ack(acks, "u:1", "phone", 10, asks=True)
    await turn()
    feeds.answers[-1].set_result([StoreUnavailable("out of memory")])
    await turn()
    client.ack(acks, "u:1", "phone", 20)
    await turn()
    assert len(feeds.written) == 1
    acks.flush()
    await turn()
    assert len(feeds.written) == 2
    feeds.answers[-1].set_result([StoreUnavailable("out of memory")])
    closing = asyncio.create_task(acks.aclose())
    await turn()
    feeds.answers[-1].set_result([StoreUnavailable("out of memory")])
    await closing
    assert client.heard == []


async def test_many_positions_are_written_in_slices() -> None:
    feeds, client = SlowFeeds(), Client()
    acks = new_acks(feeds)
    for number in range(2 * SLICE + 1):
        client.ack(acks, f"u:{number}", "phone", 10)
    for size in (SLICE, SLICE, 1):
        await turn()
        assert len(feeds.written[-1]) == size
        feeds.done()
    await acks.aclose()


async def test_what_comes_for_a_refused_device_meanwhile_is_answered_with_its_own_write() -> None:
    feeds, client = SlowFeeds(), Client()
    acks = new_acks(feeds)
    client.ack(acks, "u:1", "phone", 10)
    await turn()
    client.ack(acks, "u:1", "phone", 20, asks=True)
    feeds.answers[-1].set_result([StoreUnavailable("out of memory")])
    await turn()
    assert feeds.written[-1] == {("u:1", "phone"): 20}
    client.ack(acks, "u:1", "phone", 30, asks=True)
    feeds.done()
    await turn()
    assert client.heard == [20]
    acks.flush()
    await turn()
    feeds.done()
    await acks.aclose()
    assert feeds.written[-1] == {("u:1", "phone"): 30}
    assert client.heard == [20, 30]


FOREVER = 3600.0
"""To gather for; a test does not see the end of it."""


async def test_acks_gather_and_the_last_of_each_device_is_written() -> None:
    feeds, client = SlowFeeds(), Client()
    acks = new_acks(feeds, gather=0.005)
    for entry in (10, 30, 20):
        client.ack(acks, "u:1", "phone", entry)
    client.ack(acks, "u:2", "phone", 5)
    await turn()
    assert feeds.written == []
    async with asyncio.timeout(10):
        while not feeds.written:
            await asyncio.sleep(0.001)
    # What comes while they are written gathers again.
    client.ack(acks, "u:1", "phone", 40)
    feeds.done()
    await turn()
    assert feeds.written == [{("u:1", "phone"): 30, ("u:2", "phone"): 5}]
    async with asyncio.timeout(10):
        while len(feeds.written) == 1:
            await asyncio.sleep(0.001)
    assert feeds.written[-1] == {("u:1", "phone"): 40}
    feeds.done()
    await acks.aclose()


async def test_what_asks_for_an_answer_does_not_wait_and_takes_the_others_along() -> None:
    feeds, client = SlowFeeds(), Client()
    acks = new_acks(feeds, FOREVER)
    client.ack(acks, "u:1", "phone", 10)
    client.ack(acks, "u:2", "phone", 20, asks=True)
    await turn()
    assert feeds.written == [{("u:1", "phone"): 10, ("u:2", "phone"): 20}]
    client.ack(acks, "u:1", "phone", 11)
    client.ack(acks, "u:3", "phone", 30, asks=True)  # while that is written
    feeds.done()
    await turn()
    assert feeds.written[1:] == [{("u:1", "phone"): 11, ("u:3", "phone"): 30}]
    feeds.done()
    await acks.aclose()
    assert client.heard == [20, 30]


async def test_what_one_device_settles_for_all_does_not_wait() -> None:
    feeds, client = SlowFeeds(), Client()
    acks = new_acks(feeds, FOREVER)
    acks.share("u:1", 20)
    client.ack(acks, "u:1", "phone", 10)  # there may be another one before it
    await turn()
    assert feeds.written == [{("u:1", "phone"): 10}]
    feeds.done()
    client.ack(acks, "u:1", "phone", 20)
    await turn()
    assert feeds.written[-1] == {("u:1", "phone"): 20}
    feeds.done()
    client.ack(acks, "u:1", "phone", 30)
    await turn()
    assert len(feeds.written) == 2
    acks.hurry()
    await turn()
    feeds.done()
    await acks.aclose()


async def test_no_more_than_a_slice_gathers() -> None:
    feeds, client = SlowFeeds(), Client()
    acks = new_acks(feeds, FOREVER)
    for number in range(SLICE):
        assert feeds.written == []
        client.ack(acks, f"u:{number}", "phone", 10)
    await turn()
    assert len(feeds.written[-1]) == SLICE
    feeds.done()
    await acks.aclose()


async def test_the_end_writes_what_gathers() -> None:
    feeds, client = SlowFeeds(), Client()
    acks = new_acks(feeds, FOREVER)
    client.ack(acks, "u:1", "phone", 10)
    closing = asyncio.create_task(acks.aclose())
    await turn()
    assert feeds.written == [{("u:1", "phone"): 10}]
    feeds.done()
    await closing


async def test_what_is_known_of_shared_entries_is_bounded() -> None:
    feeds, client = SlowFeeds(), Client()
    acks = new_acks(feeds, FOREVER)
    for number in range(MOST_SHARED + 1):
        acks.share(f"u:{number}", 10)
    client.ack(acks, "u:0", "phone", 10)
    await turn()
    assert feeds.written == []
    closing = asyncio.create_task(acks.aclose())
    await turn()
    feeds.done()
    await closing


async def test_an_ack_of_the_broadcast_is_none_of_what_one_device_settles() -> None:
    feeds, client = SlowFeeds(), Client()
    acks = new_acks(feeds, FOREVER)
    acks.share("u:1", 20)
    acks.add("u:1", "phone", 30, AckKind.BROADCAST, "n1.1", None)
    await turn()
    assert feeds.written == []
    client.ack(acks, "u:1", "tablet", 20)
    await turn()
    assert feeds.written == [{("u:1", "phone"): 30, ("u:1", "tablet"): 20}]
    feeds.done()
    await acks.aclose()


async def test_what_is_told_again_does_not_hide_a_newer_shared_entry() -> None:
    feeds, client = SlowFeeds(), Client()
    acks = new_acks(feeds, FOREVER)
    for entry in (20, 10):  # the publish of the first one is repeated
        acks.share("u:1", entry)
    for entry in (10, 20):
        client.ack(acks, "u:1", "phone", entry)
        await turn()
        assert feeds.written[-1] == {("u:1", "phone"): entry}
        feeds.done()
        await turn()
    await acks.aclose()


async def test_while_redis_is_away_only_the_tick_and_the_end_try() -> None:
    """Each connection that closes hurries, and thousands may close then."""
    feeds, client = SlowFeeds(), Client()
    acks = new_acks(feeds, FOREVER)
    for number in range(3 * SLICE):
        client.ack(acks, f"u:{number}", "phone", 10)
    await turn()
    feeds.answers[-1].set_exception(StoreUnavailable("gone"))
    await turn()
    for number in range(100):
        client.ack(acks, f"u:{number}", "laptop", 10, asks=True)
        acks.hurry()
        await turn()
    assert len(feeds.written) == 1
    for tries in (2, 3):
        acks.flush()
        await turn()
        assert len(feeds.written) == tries
        feeds.answers[-1].set_exception(StoreUnavailable("gone"))
        await turn()
    closing = asyncio.create_task(acks.aclose())
    for slices in (4, 5, 6, 7):
        await turn()
        assert len(feeds.written) == slices
        feeds.done()
    await closing
    assert len(client.heard) == 100


# --- what waits until they are written -----------------------------------------------------------


async def test_what_gathers_is_written_for_who_waits_for_it() -> None:
    feeds, client = SlowFeeds(), Client()
    acks = new_acks(feeds, FOREVER)
    client.ack(acks, "u:1", "phone", 10)
    assert acks.written("u:1", "tablet") is None
    assert acks.written("u:2", "phone") is None
    written = acks.written("u:1", "phone")
    assert written is not None
    assert acks.written("u:1", "phone") is written
    await turn()
    assert feeds.written == [{("u:1", "phone"): 10}]
    assert not written.done()
    feeds.done()
    await written
    assert acks.written("u:1", "phone") is None
    await acks.aclose()


async def test_who_waits_sees_the_end_of_what_came_while_others_were_written() -> None:
    feeds, client = SlowFeeds(), Client()
    acks = new_acks(feeds, FOREVER)
    client.ack(acks, "u:1", "phone", 10)
    acks.hurry()
    await turn()
    client.ack(acks, "u:1", "phone", 20)
    acks.add("u:2", "phone", 5, AckKind.BROADCAST, "n1.2", None)
    waiting = acks.written("u:1", "phone"), acks.written("u:2", "phone")
    feeds.done()
    await turn()
    assert feeds.written[1:] == [{("u:1", "phone"): 20, ("u:2", "phone"): 5}]
    assert [each is not None and each.done() for each in waiting] == [False, False]
    feeds.done()
    await turn()
    assert [each is not None and each.done() for each in waiting] == [True, True]
    await acks.aclose()


async def test_nobody_waits_for_what_redis_does_not_write() -> None:
    feeds, client = SlowFeeds(), Client()
    acks = new_acks(feeds)
    for refused in (True, False):
        client.ack(acks, "u:1", "phone", 10)
        await turn()
        written = acks.written("u:1", "phone")
        assert written is not None
        if refused:
            feeds.answers[-1].set_result([StoreUnavailable("out of memory")])
        else:
            feeds.answers[-1].set_exception(StoreUnavailable("gone"))
        await written
        assert acks.written("u:1", "phone") is None
        acks.flush()
    await turn()
    feeds.done()
    await acks.aclose()


async def test_nobody_waits_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST", 0.01)
    feeds, client = SlowFeeds(), Client()
    acks = new_acks(feeds)
    client.ack(acks, "u:1", "phone", 10)
    await turn()
    written = acks.written("u:1", "phone")
    assert written is not None
    await written
    assert not acks._awaited
    feeds.done()
    await acks.aclose()
