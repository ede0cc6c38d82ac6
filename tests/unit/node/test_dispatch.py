"""Handing a new entry to those who are in step, without a server."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pushsvc.feeds.nodes import Entry
from pushsvc.node.dispatch import dispatch, pass_on
from pushsvc.protocol.feeds import BROADCAST, mailbox
from pushsvc.protocol.wire import TEXT, Lines, Wire
from tests.support.hubs import session_of

FEED = mailbox("u1")
WINDOW = 4


class Device:
    """One of a user's devices; how it is written to is counted."""

    def __init__(self, number: int, wire: Wire = TEXT) -> None:
        self.number = number
        self.session = session_of("u1", f"d{number}")
        self.wire = wire
        self.open = self.room = True
        self.frames: list[bytes] = []
        self.watched = 0

    def writable(self) -> bool:
        return self.room

    def write(self, data: bytes) -> None:
        self.frames.append(data)

    def send(self, payload: bytes) -> None:
        self.frames.append(payload)

    def watch(self) -> None:
        self.watched += 1


def entry(number: int, feed: str = FEED) -> Entry:
    return Entry.of(feed, number, number - 1, b'"data":%d}' % number)


@given(st.lists(st.sampled_from(["in step", "behind", "reading", "full", "no room"]), max_size=8))
def test_an_entry_goes_to_those_in_step_and_is_known_to_all(states: list[str]) -> None:
    devices = [Device(number) for number in range(len(states))]
    for device, state in zip(devices, states, strict=True):
        cursor = device.session.cursor
        cursor.jump(3 if state == "behind" else 9)
        if state == "reading":
            cursor.begin_read()
        for earlier in range(6, 10) if state == "full" else ():
            cursor.take(earlier, 0.0)
        device.room = state != "no room"
    sent, missed = dispatch(entry(10), devices, WINDOW, 0.0)
    assert sent == [d for d, state in zip(devices, states, strict=True) if state == "in step"]
    assert missed == [d for d in devices if d not in sent]
    for device in devices:
        cursor = device.session.cursor
        assert cursor.head == 10, "who was not sent it reads it later"
        assert (cursor.sent == 10) is (device in sent)
        assert len(device.frames) == device.watched == int(device in sent)


def test_it_is_encoded_once_for_all_who_are_written_to_alike() -> None:
    alike, own = [Device(number) for number in range(3)], [Device(9, Lines()), Device(8, Lines())]
    for device in (*alike, *own):
        device.session.cursor.jump(9)
    dispatch(entry(10), [*alike, *own], WINDOW, 0.0)
    assert len({id(device.frames[0]) for device in alike}) == 1
    for device in own:
        told: dict[str, Any] = json.loads(device.frames[0])
        assert told["data"] == 10


def test_the_broadcast_moves_a_cursor_of_its_own() -> None:
    device = Device(1)
    device.session.broadcast.jump(9)
    dispatch(entry(10, BROADCAST), [device], WINDOW, 0.0, broadcast=True)
    assert (device.session.broadcast.sent, device.session.cursor.sent) == (10, 0)


def test_what_is_ephemeral_waits_for_nobody() -> None:
    devices = [Device(number) for number in range(4)]
    devices[2].room = False
    assert pass_on(b"{}", devices) == (3, 1)
    assert devices[2].frames == []
