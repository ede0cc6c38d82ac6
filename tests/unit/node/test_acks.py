"""Acknowledgements on their way to Redis."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any, cast

from pushsvc.errors import StoreUnavailable
from pushsvc.feeds.feed import Feeds
from pushsvc.node.acks import SLICE, Acks
from pushsvc.protocol import ids


class SlowFeeds:
    """Writes when it is told to; the real one is tested against a server."""

    def __init__(self) -> None:
        self.written: list[dict[tuple[str, str], int]] = []
        self.answers: list[asyncio.Future[list[Any]]] = []

    def ack(self, acks: Iterable[tuple[str, str, int]]) -> asyncio.Future[list[Any]]:
        self.written.append({(feed, device): entry for feed, device, entry in acks})
        self.answers.append(asyncio.get_running_loop().create_future())
        return self.answers[-1]

    def done(self) -> None:
        written = self.written[-1]
        self.answers[-1].set_result([ids.render(entry).encode() for entry in written.values()])


class Client:
    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []

    def send(self, payload: bytes) -> None:
        self.heard.append(json.loads(payload))


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_acks_that_come_while_one_is_written_are_written_as_one() -> None:
    feeds, client = SlowFeeds(), Client()
    acks = Acks(cast(Feeds, feeds))
    acks.add("u:1", "phone", 10, client, None)
    await turn()
    for entry in (20, 30, 25):
        acks.add("u:1", "phone", entry, client, None)
    acks.add("u:1", "laptop", 5, client, None)
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
    acks = Acks(cast(Feeds, feeds))
    acks.add("u:1", "phone", ids.parse("7-0"), client, "r")
    await turn()
    assert client.heard == []
    feeds.done()
    await acks.aclose()
    assert client.heard == [{"type": "reply", "ref": "r", "acked": "7-0"}]


async def test_an_ack_that_could_not_be_written_is_kept_and_written_later() -> None:
    feeds, client = SlowFeeds(), Client()
    acks = Acks(cast(Feeds, feeds))
    acks.add("u:1", "phone", 10, client, 1)
    await turn()
    feeds.answers[-1].set_exception(StoreUnavailable("gone"))
    await turn()
    assert client.heard == []
    acks.flush()
    await turn()
    assert feeds.written[-1] == {("u:1", "phone"): 10}
    feeds.done()
    await acks.aclose()
    assert [message["ref"] for message in client.heard] == [1]


async def test_refused_acks_wait_for_the_next_tick_and_do_not_hold_up_the_end() -> None:
    feeds, client = SlowFeeds(), Client()
    acks = Acks(cast(Feeds, feeds))
    acks.add("u:1", "phone", 10, client, 1)
    await turn()
    feeds.answers[-1].set_result([StoreUnavailable("out of memory")])
    await turn()
    acks.add("u:1", "phone", 20, client, None)
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
    acks = Acks(cast(Feeds, feeds))
    for number in range(2 * SLICE + 1):
        acks.add(f"u:{number}", "phone", 10, client, None)
    for size in (SLICE, SLICE, 1):
        await turn()
        assert len(feeds.written[-1]) == size
        feeds.done()
    await acks.aclose()
