"""A channel and its subscribers, without a server."""

from typing import Any, cast

from pushsvc.node.catch_up import CatchUp
from pushsvc.node.channel import Channel
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


def send(channel: Channel, entry_id: int) -> tuple[tuple[int, int], list[Any]]:
    catch_up = NoReads()
    told = channel.dispatch(
        entry_id, entry_id - 1, b"%d" % entry_id, fan_out, cast(CatchUp, catch_up)
    )
    return told, catch_up.behind


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
