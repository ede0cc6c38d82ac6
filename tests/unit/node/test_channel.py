"""A channel and its subscribers, without a server."""

from collections.abc import Generator, Iterable
from typing import Any, cast

import pytest

from pushsvc.node.catch_up import CatchUp
from pushsvc.node.channel import Channel
from pushsvc.node.turns import PART
from pushsvc.protocol.delivery import Cursor, StateCursor
from pushsvc.protocol.feeds import topic
from pushsvc.protocol.wire import TEXT
from tests.support.hubs import fan_out, session_of

FEED = topic("t")


class Subscriber:
    """One who is written to."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.session = session_of(f"u{number}", "d")
        self.wire = TEXT
        self.open = self.room = True
        self.frames: list[bytes] = []

    def writable(self) -> bool:
        return self.room

    def write(self, data: bytes) -> None:
        self.frames.append(data)

    def send(self, payload: bytes) -> None:
        self.frames.append(payload)

    def watch(self) -> None:
        pass


class NoReads(CatchUp):
    """Notes who is to read on."""

    def __init__(self) -> None:
        self.behind: list[Any] = []

    def read_on(self, listener: Any, cursor: Cursor, cause: str) -> None:
        assert cause == "gap"
        if cursor.wants(1):
            self.behind.append(listener)


def channel_at(position: int) -> Channel:
    channel = Channel(FEED)
    channel.registered = True
    channel.cursor.release()
    channel.cursor.jump(position)
    return channel


def joined(channel: Channel, number: int, cursor: Cursor) -> Subscriber:
    subscriber = Subscriber(number)
    channel.add(subscriber, cursor)
    return subscriber


def to_the_end(work: Generator[None, None, tuple[int, int]]) -> tuple[int, int]:
    """Take all steps; what it answers."""
    while True:
        try:
            next(work)
        except StopIteration as ended:
            told: tuple[int, int] = ended.value
            return told


def send(channel: Channel, entry_id: int) -> tuple[tuple[int, int], list[Any]]:
    catch_up = NoReads()
    work = channel.dispatch(
        entry_id, entry_id - 1, b"%d" % entry_id, fan_out, cast(CatchUp, catch_up)
    )
    return to_the_end(work), catch_up.behind


def at(position: int) -> Cursor:
    cursor = Cursor(FEED, acks=False)
    cursor.jump(position)
    return cursor


def test_one_that_has_caught_up_shares_the_cursor_from_then_on() -> None:
    channel = channel_at(9)
    late = joined(channel, 1, at(9))
    assert send(channel, 10) == ((1, 0), [])
    assert channel.behind == {}
    assert late.session.topics == {"t": None}
    assert send(channel, 11) == ((1, 0), [])
    assert len(late.frames) == 2


def test_one_whose_socket_is_full_falls_behind_and_misses_nothing() -> None:
    channel = channel_at(9)
    quick, slow = joined(channel, 1, at(9)), joined(channel, 2, at(9))
    send(channel, 10)
    slow.room = False
    assert send(channel, 11) == ((1, 1), [])
    own = channel.behind[slow]
    assert (own.sent, own.head) == (10, 11)
    assert send(channel, 12)[0] == (1, 1)
    assert own.head == 12, "it reads them once there is room"
    assert len(quick.frames) == 3


def test_one_that_has_not_had_all_of_the_state_is_not_put_in_step() -> None:
    channel = channel_at(54)
    state = StateCursor(FEED, acks=False)
    state.ends_at(60)
    state.jump(55)
    newcomer = joined(channel, 1, state)
    assert send(channel, 55)[0] == (0, 0)
    assert channel.behind == {newcomer: state}
    assert newcomer.frames == []


# --- in parts ------------------------------------------------------------------------------------


class Under:
    """A dispatch to many, of which a part at a time is done."""

    def __init__(self, channel: Channel, entry_id: int) -> None:
        self._work = channel.dispatch(
            entry_id, entry_id - 1, b"%d" % entry_id, fan_out, cast(CatchUp, NoReads())
        )

    def step(self) -> None:
        next(self._work)

    def finish(self) -> tuple[int, int]:
        return to_the_end(self._work)


@pytest.fixture
def crowd() -> tuple[Channel, list[Subscriber]]:
    channel = channel_at(9)
    subscribers = [joined(channel, number, at(9)) for number in range(3 * PART)]
    for each in subscribers:
        channel.caught_up(each, at(9))
    return channel, subscribers


Crowd = tuple[Channel, list[Subscriber]]


def heard(subscriber: Subscriber) -> list[int]:
    return [int(frame[2:]) for frame in subscriber.frames]


def test_many_are_sent_to_in_parts(crowd: Crowd) -> None:
    channel, subscribers = crowd
    under = Under(channel, 10)
    under.step()
    assert [heard(each) for each in subscribers] == [[10]] * PART + [[]] * (2 * PART)
    assert under.finish() == (3 * PART, 0)
    assert all(heard(each) == [10] for each in subscribers)


def test_one_that_leaves_in_between_gets_nothing_more(crowd: Crowd) -> None:
    channel, subscribers = crowd
    under = Under(channel, 10)
    under.step()
    channel.remove(subscribers[-1])
    assert under.finish() == (3 * PART - 1, 0)
    assert heard(subscribers[-1]) == []


def test_one_that_leaves_and_is_in_step_again_is_not_sent_it_twice(crowd: Crowd) -> None:
    channel, subscribers = crowd
    under = Under(channel, 10)
    under.step()
    back = subscribers[-1]
    channel.remove(back)
    own = at(10)  # it has read on up to there
    channel.add(back, own)
    assert channel.caught_up(back, own)
    under.finish()
    assert heard(back) == []
    send(channel, 11)
    assert heard(back) == [11]


def test_one_that_comes_in_step_in_between_is_sent_the_next(crowd: Crowd) -> None:
    channel, _ = crowd
    under = Under(channel, 10)
    under.step()
    own = at(10)
    late = joined(channel, 999, own)
    assert channel.caught_up(late, own)
    under.finish()
    send(channel, 11)
    assert heard(late) == [11]


def test_one_that_was_behind_and_catches_up_in_between_is_not_sent_it_twice(
    crowd: Crowd,
) -> None:
    channel, _ = crowd
    own = at(8)
    late = joined(channel, 999, own)
    under = Under(channel, 10)
    under.step()
    own.jump(10)  # it has read both
    assert channel.caught_up(late, own)
    under.finish()
    assert heard(late) == []
    send(channel, 11)
    assert heard(late) == [11]


def test_one_whose_socket_is_full_when_its_turn_comes_falls_behind(crowd: Crowd) -> None:
    channel, subscribers = crowd
    under = Under(channel, 10)
    under.step()
    subscribers[0].room = subscribers[-1].room = False
    assert under.finish() == (3 * PART - 1, 1)
    assert heard(subscribers[0]) == [10]
    assert set(channel.behind) == {subscribers[-1]}
    own = channel.behind[subscribers[-1]]
    assert (own.sent, own.head) == (9, 10)


def test_those_that_left_are_not_kept_once_it_is_done(crowd: Crowd) -> None:
    channel, subscribers = crowd
    under = Under(channel, 10)
    under.step()
    channel.remove(subscribers[-1])
    under.finish()
    channel.remove(subscribers[-2])
    assert channel._gone is None


def test_after_an_error_nobody_has_missed_it(crowd: Crowd) -> None:
    channel, subscribers = crowd

    def fails(part: Iterable[Any], frame: bytes) -> list[Any]:
        if subscribers[-1] in list(part):
            raise ValueError
        return fan_out(part, frame)

    work = channel.dispatch(10, 9, b"10", fails, cast(CatchUp, NoReads()))
    with pytest.raises(ValueError):  # noqa: PT011
        list(work)
    assert set(channel.behind) == set(subscribers)
    assert all(own.sent == 9 and own.wants(1) for own in channel.behind.values())


def test_what_stands_for_an_entry_is_told_to_those_in_step_and_to_no_other(crowd: Crowd) -> None:
    channel, subscribers = crowd
    told: list[Any] = []
    work = channel.tell(9, b"7", 9, told.append)
    next(work)
    own = at(9)
    late = joined(channel, 999, own)
    assert not channel.caught_up(late, own), "it would not be told"
    channel.remove(subscribers[-1])
    subscribers[-2].room = False
    list(work)
    assert told == subscribers[:-2]
    assert set(channel.behind) == {late, subscribers[-2]}
    assert channel.caught_up(late, own)


def test_what_is_ephemeral_goes_to_those_in_step_in_parts(crowd: Crowd) -> None:
    channel, subscribers = crowd
    work = channel.pass_on(b"5")
    next(work)
    channel.remove(subscribers[-1])
    subscribers[-2].room = False
    assert to_the_end(work) == (3 * PART - 2, 1)
