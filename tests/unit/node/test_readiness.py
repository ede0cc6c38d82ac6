"""The readiness set on real sockets: who holds a socket is told of it, and nobody else."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from pushsvc.node import turns
from pushsvc.node.poller import READABLE
from pushsvc.node.readiness import LOST_AT_ONCE, PAUSED, ReadinessSet


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Holder:
    """Writes down what it is told."""

    def __init__(self, world: "World") -> None:
        self.fd = -1
        self.wake = 0
        self.broken = self.stubborn = False
        self.told: list[str] = []
        self._world = world

    def ready(self, events: int) -> None:
        if self.broken:
            raise ZeroDivisionError
        assert events == READABLE
        self.told.append(os.read(self.fd, 100).decode())

    def due(self) -> None:
        if self.broken:
            raise ZeroDivisionError
        self.told.append("due")

    def resumed(self, seconds: float) -> None:
        self.told.append(f"resumed {seconds:g}")

    def drop(self) -> None:
        self.told.append("dropped")
        if self.stubborn:
            raise ZeroDivisionError
        self._world.set.remove(self)


class World:
    def __init__(self) -> None:
        self.clock = Clock()
        self.set = ReadinessSet(self.clock)
        self.peers: list[socket.socket] = []

    def holder(self) -> tuple[Holder, socket.socket]:
        here, there = socket.socketpair()
        here.setblocking(False)
        self.peers.append(there)
        holder = Holder(self)
        self.set.add(holder, here.detach())
        return holder, there


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    made.set.close()
    for peer in made.peers:
        peer.close()


async def told(holder: Holder, count: int) -> list[str]:
    async with asyncio.timeout(5):
        while len(holder.told) < count:
            await asyncio.sleep(0)
    return holder.told


async def test_a_holder_that_takes_anothers_place_gets_what_comes_from_then_on(
    world: World,
) -> None:
    first, peer = world.holder()
    peer.send(b"one")
    assert await told(first, 1) == ["one"]
    second = Holder(world)
    world.set.look(first, world.clock.now + 5)
    world.set.replace(second, first.fd)
    peer.send(b"two")
    assert await told(second, 1) == ["two"]
    world.clock.now += 10
    world.set.tick()
    assert first.told == ["one"], "what it waited for is forgotten"
    assert second.told[-1] != "due"
    assert list(world.set) == [second]


async def test_an_error_that_nobody_foresaw_ends_one_connection_and_is_logged(
    world: World,
) -> None:
    broken, peer = world.holder()
    late, _ = world.holder()
    other, other_peer = world.holder()
    world.set.look(late, world.clock.now + 2)
    broken.broken = late.broken = True
    with capture_logs() as log:
        peer.send(b"x")
        other_peer.send(b"y")
        assert await told(broken, 1) == ["dropped"]
        assert await told(other, 1) == ["y"]
        world.clock.now += 4
        world.set.tick()
    assert late.told == ["dropped"]
    assert [each["log_level"] for each in log] == ["error"] * 2
    assert list(world.set) == [other]
    with pytest.raises(ConnectionResetError):  # what it sent was not read
        peer.recv(1)


async def test_an_error_that_nobody_foresaw_in_giving_up_does_not_hold_up_the_others(
    world: World,
) -> None:
    stubborn, _ = world.holder()
    other, _ = world.holder()
    world.set.look(stubborn, world.clock.now + 2)
    world.set.look(other, world.clock.now + 2)
    stubborn.broken = stubborn.stubborn = True
    world.clock.now += 4
    with capture_logs() as log:
        world.set.tick()
    assert (stubborn.told, other.told) == (["dropped"], ["due"])
    assert [each["log_level"] for each in log] == ["error"] * 2
    assert list(world.set) == [other]


async def test_what_is_postponed_is_called_late_and_what_is_brought_forward_early(
    world: World,
) -> None:
    holder, _ = world.holder()
    world.set.look(holder, world.clock.now + 4)
    world.set.look(holder, world.clock.now + 2)
    for _ in range(2):
        world.clock.now += 1
        world.set.tick()
    assert holder.told == ["due"]


async def test_a_process_that_stood_still_tells_every_holder_for_how_long(world: World) -> None:
    holder, _ = world.holder()
    world.clock.now += 1
    world.set.tick()
    assert holder.told == []
    world.clock.now += PAUSED + 1
    world.set.tick()
    assert holder.told == [f"resumed {PAUSED + 1:g}"]


# --- those whose peer has gone -------------------------------------------------------------------


async def test_many_that_are_lost_together_are_dropped_in_parts_and_others_have_their_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "TURN", 0)
    count = 200
    lost = [world.holder()[0] for _ in range(count)]
    other, peer = world.holder()
    for holder in lost:
        world.set.lose(holder)
    left = world.set.lost
    assert left >= count - turns.AT_ONCE // (turns.PART // LOST_AT_ONCE)
    peer.send(b"here")
    await told(other, 1)
    assert world.set.lost > left / 2, "it waited for all of them"
    while left := world.set.lost:
        await asyncio.sleep(0)
        assert left - world.set.lost <= LOST_AT_ONCE
    assert [holder.told for holder in lost] == [["dropped"]] * count
    assert list(world.set) == [other]


async def test_one_that_is_lost_is_dropped_at_once(world: World) -> None:
    holder, _ = world.holder()
    world.set.lose(holder)
    assert holder.told == ["dropped"]


async def test_one_that_is_lost_is_told_nothing_until_it_is_dropped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.set.turns, "run", lambda *_: None)
    holder, peer = world.holder()
    same, other = world.holder()[0], world.holder()[0]
    for each in (holder, same):
        world.set.lose(each)
    peer.send(b"x")
    world.set.want(holder, READABLE)
    await asyncio.sleep(0.05)
    assert holder.told == []
    world.set.drop_lost([same, other, "no holder"])
    assert (same.told, other.told, holder.told) == (["dropped"], [], [])
    more = [world.holder()[0] for _ in range(2 * LOST_AT_ONCE)]
    for each in more:
        world.set.lose(each)
    world.set.drop_lost()
    assert holder.told == ["dropped"]
    assert world.set.lost == LOST_AT_ONCE + 1, "no step drops all of them"


async def test_an_error_while_one_is_dropped_ends_only_that_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "AT_ONCE", 0)
    lost = [world.holder()[0] for _ in range(3)]
    lost[1].stubborn = True
    for holder in lost:
        world.set.lose(holder)
    with capture_logs() as log:
        while world.set.lost:
            await asyncio.sleep(0)
    assert [holder.fd for holder in lost] == [-1] * 3
    assert [each["log_level"] for each in log] == ["error"]
