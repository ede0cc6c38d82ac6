"""Where the commands of a pipeline go in a Cluster, and what its servers' answers say of that."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from pushsvc.store import cluster as module
from pushsvc.store import shard
from pushsvc.store.calls import Run, Script
from pushsvc.store.cluster import KEEP_SECONDS, ClusterConnection, batches, slot_of
from pushsvc.store.schema import Keys
from pushsvc.store.scripts import Scripts
from pushsvc.store.server_connection import Command, Result
from pushsvc.store.slots import (
    FAILED_MAP_SECONDS,
    MAP_PAUSE,
    MAP_SECONDS,
    Address,
    Owners,
    Slots,
    owners_of,
    target,
)

A, B, C = ("10.0.0.1", 6379), ("10.0.0.2", 6379), ("10.0.0.3", 6379)
SLOTS = 16384
KEYS = Keys("push")


# --- rules ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("GET", "k"), "k"),
        (("SET", b"k", 1), "k"),
        (("EVALSHA", "digest", 2, "k", "{k}2", "x"), "k"),
        (Run((Script("digest"), ("k", "{k}2"), ("x",))), "k"),
        (("XREAD", "COUNT", 100, "BLOCK", 2000, "STREAMS", "k", b"0-0"), "k"),
        (("XINFO", "STREAM", "k"), "k"),
        (("HDEL", KEYS.listeners("u:1"), "n"), KEYS.log("u:1")),
    ],
)
def test_a_command_goes_where_its_key_is(command: Command, key: str) -> None:
    assert slot_of(command) == key_slot(key.encode())


@pytest.mark.parametrize("command", [("PING",), ("SCRIPT", "LOAD", "return 1"), ("WAIT", 1, 10)])
def test_a_command_without_a_key_goes_to_anyone(command: Command) -> None:
    assert slot_of(command) is None
    assert batches([command], [B] * SLOTS, C) == {C: [0]}


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 9))))
def test_every_command_goes_to_one_server_and_those_of_a_key_stay_in_order(
    given_: list[tuple[str, int]],
) -> None:
    owners: Owners = [(A, B, None)[slot % 3] for slot in range(SLOTS)]
    commands: list[Command] = [("SET", key, value) for key, value in given_]
    sent = batches(commands, owners, A)
    assert sorted(place for places in sent.values() for place in places) == [*range(len(commands))]
    for to, places in sent.items():
        assert places == sorted(places)
        assert all((owners[slot_of(commands[place]) or 0] or A) == to for place in places)


def test_a_server_that_does_not_know_its_own_name_is_reached_where_it_was_asked() -> None:
    answer = [
        [0, 99, [b"10.0.0.2", 6379, b"id", []], [b"10.0.0.9", 6379, b"replica"]],
        [100, 199, [None, 7000, b"id"]],
        [200, 299, [b"", 7001, b"id"]],
        [300, 399, [b"?", 7002, b"id"]],
    ]
    owners = owners_of(answer, ("redis.example", 6379))
    assert [owners[slot] for slot in (0, 99, 100, 200, 399, 400)] == [
        B, B, ("redis.example", 7000), ("redis.example", 7001), ("redis.example", 7002), None,
    ]  # fmt: skip


def test_a_redirection_without_a_host_means_another_port_of_the_same_one() -> None:
    assert target(MovedError("7 10.0.0.2:6379"), A) == B
    assert target(AskError("7 :7000"), A) == ("10.0.0.1", 7000)


# --- a Cluster of stand-ins ----------------------------------------------------------------------


class Server:
    """A server that records what it is sent, and answers as a test says."""

    def __init__(self, fleet: "Fleet", address: Address) -> None:
        self.fleet = fleet
        self.address = address
        self.changes = 0

    def greet(self, greeting: object) -> None:
        self.fleet.greeted.append((self.address, greeting))

    async def execute(self, commands: Any, tail: Command | None = None) -> list[Result]:
        await asyncio.sleep(0)
        fleet, address = self.fleet, self.address
        if commands[0] == ("CLUSTER", "SLOTS"):
            fleet.asked.append(address)
        if address in fleet.dead:
            fleet.tried += [(address, command[0]) for command in commands]
            raise RedisConnectionError(f"{address} is dead")
        if fleet.stranger:
            raise AuthenticationError("WRONGPASS")
        if commands[0] == ("CLUSTER", "SLOTS"):
            return [
                [[first, last, [host.encode(), port]] for first, last, (host, port) in fleet.map]
            ]
        sent = fleet.sent.setdefault(address, [])
        answers: list[Result] = []
        asking = False
        for command in commands:
            sent.append(command)
            asks = command == ("ASKING",)
            if asks and fleet.not_asking:
                answers.append(NoPermissionError("this user may not run 'asking'"))
                continue
            answers.append(b"OK" if asks else fleet.answer(self, command, asking))
            asking = asks
        return answers if tail is None else answers + [address] * len(answers)

    async def aclose(self) -> None:
        self.fleet.closed.append(self.address)


class Fleet:
    """The stand-ins, and the truth about the slots."""

    def __init__(self) -> None:
        self.map = [(0, 8191, A), (8192, SLOTS - 1, B)]
        self.confused = False
        """Every server says that another one serves whatever it is asked for."""
        self.asks: dict[int, Address] = {}
        self.dead: set[Address] = set()
        self.tried: list[tuple[Address, str]] = []
        """What dead servers were sent."""
        self.stranger = False
        """Nobody is let in."""
        self.cut_off: set[Address] = set()
        """Primaries that no replica follows."""
        self.not_asking = False
        """Nobody may send ASKING."""
        self.greeted: list[tuple[Address, object]] = []
        """Who was told how to begin."""
        self.sent: dict[Address, list[Command]] = {}
        self.closed: list[Address] = []
        self.asked: list[Address] = []
        """Who was asked for the map."""
        self.now = 1000.0
        self.slots = Slots([A, B], lambda address, _: Server(self, address), lambda: self.now)  # type: ignore[arg-type,return-value]
        self.connection = ClusterConnection(self.slots, 1.0, lambda: self.now)

    def answer(self, server: Server, command: Command, asking: bool) -> Result:  # noqa: FBT001 - a fact
        slot = slot_of(command)
        if slot is None:
            return b"OK"
        if server.address in self.cut_off:
            return ResponseError("NOREPLICAS Not enough good replicas to write.")
        owner = next((at for first, last, at in self.map if first <= slot <= last), None)
        if owner is None:
            return ClusterDownError("Hash slot not served")
        if self.confused:
            owner = A if server.address == B else B
        host, port = owner
        if asking and self.asks.get(slot) == server.address:
            return command[-1]
        if owner != server.address:
            return MovedError(f"{slot} {host}:{port}")
        if slot in self.asks:
            host, port = self.asks[slot]
            return AskError(f"{slot} {host}:{port}")
        return command[-1]


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


def key_in(low: int, high: int) -> str:
    return next(k for k in (f"k{n}" for n in range(10_000)) if low <= key_slot(k.encode()) < high)


LOW, HIGH = key_in(0, 8192), key_in(8192, SLOTS)
MIXED: list[Command] = [("SET", LOW, 1), ("SET", HIGH, 2), ("SET", LOW, 3), ("SET", HIGH, 4)]


async def test_results_come_in_order_with_what_the_tail_of_each_server_said(fleet: Fleet) -> None:
    assert await fleet.connection.execute(MIXED, ("WAIT",)) == [1, 2, 3, 4, A, B, A, B]
    assert await fleet.connection.execute(MIXED) == [1, 2, 3, 4]
    assert len(fleet.asked) == 1


async def test_what_has_moved_is_sent_on_in_order_and_the_map_is_read_again(fleet: Fleet) -> None:
    await fleet.connection.execute(MIXED)
    fleet.sent.clear()
    fleet.map = [(0, SLOTS - 1, B)]
    assert await fleet.connection.execute(MIXED, ("WAIT",)) == [1, 2, 3, 4, B, B, B, B]
    assert [value for _, _, value in fleet.sent[B]] == [2, 4, 1, 3]
    fleet.now += 1
    fleet.sent.clear()
    assert await fleet.connection.execute(MIXED) == [1, 2, 3, 4]
    assert [value for _, _, value in fleet.sent[B]] == [1, 2, 3, 4]
    assert A not in fleet.sent
    assert len(fleet.asked) == 2
    assert fleet.connection.changes == 0, "nobody was promoted"


async def test_while_a_slot_moves_its_new_server_is_asked_for_what_the_old_one_lacks(
    fleet: Fleet,
) -> None:
    fleet.asks[key_slot(LOW.encode())] = B
    assert await fleet.connection.execute(MIXED, ("WAIT",)) == [1, 2, 3, 4, B, B, B, B]
    assert fleet.sent[B][-4:] == [("ASKING",), MIXED[0], ("ASKING",), MIXED[2]]
    fleet.asks.clear()
    assert await fleet.connection.execute(MIXED, ("WAIT",)) == [1, 2, 3, 4, A, B, A, B]


async def test_servers_that_point_at_each_other_end_in_an_error(fleet: Fleet) -> None:
    await fleet.connection.execute([])
    fleet.confused = True
    (answer,) = await fleet.connection.execute([MIXED[0]])
    assert isinstance(answer, MovedError)
    assert len(fleet.sent[A]) + len(fleet.sent[B]) == 1 + module.REDIRECTIONS


async def test_a_dead_server_fails_its_own_commands_and_for_a_moment_is_not_tried_again(
    fleet: Fleet,
) -> None:
    await fleet.connection.execute(MIXED)
    fleet.dead.add(A)
    for _ in range(2):
        answers = await fleet.connection.execute(MIXED, ("WAIT",))
        assert [isinstance(each, RedisConnectionError) for each in answers] == [True, False] * 4
    assert "a moment ago" in str(answers[0])
    fleet.dead.clear()
    await answered(fleet)
    await fleet.connection.aclose()


async def test_whether_a_dead_server_answers_again_is_not_found_out_by_commands(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(shard, "LONGEST_PAUSE", 0.001)
    await fleet.connection.execute(MIXED)
    fleet.dead.add(A)
    await fleet.connection.execute(MIXED)
    fleet.tried.clear()
    async with asyncio.timeout(5):
        while fleet.tried.count((A, "PING")) < 3:
            assert (await fleet.connection.execute(MIXED))[1::2] == [2, 4]
    fleet.dead.clear()
    fleet.sent.clear()
    await answered(fleet)
    assert (A, "SET") not in fleet.tried
    assert fleet.sent[A][0] == ("PING",)
    await fleet.connection.aclose()


async def answered(fleet: Fleet) -> None:
    """Wait until all servers execute what they are sent."""
    async with asyncio.timeout(5):
        while await fleet.connection.execute(MIXED) != [1, 2, 3, 4]:
            await asyncio.sleep(0.001)


async def test_who_fails_is_not_asked_for_the_map_before_who_answers(fleet: Fleet) -> None:
    """Not even though each answer says that something is wrong, and each map is a good one."""
    await fleet.connection.execute(MIXED)
    fleet.dead.add(A)
    fleet.map = [(0, 8191, A), (SLOTS - 1, SLOTS - 1, B)]
    await fleet.connection.execute(MIXED)
    fleet.asked.clear()
    for _ in range(3):
        fleet.now += MAP_PAUSE
        answers = await fleet.connection.execute(MIXED)
        assert isinstance(answers[1], ClusterDownError)
    assert fleet.asked == [B, B, B]
    await fleet.connection.aclose()


async def test_while_a_server_fails_the_map_is_read_more_often(fleet: Fleet) -> None:
    """The one that is promoted in its place may be found before anybody asks the failed one."""
    await fleet.connection.execute(MIXED)
    fleet.dead.add(A)
    await fleet.connection.execute(MIXED)
    fleet.now += MAP_PAUSE
    await fleet.connection.execute(MIXED)
    fleet.asked.clear()
    fleet.now += FAILED_MAP_SECONDS
    await fleet.connection.execute(MIXED)
    await fleet.connection.aclose()
    assert fleet.asked == [B]


async def test_every_server_is_greeted_even_one_to_which_the_first_slot_is_moving(
    fleet: Fleet,
) -> None:
    greeting = Scripts().load
    fleet.connection.greet(greeting)
    fleet.asks[key_slot(LOW.encode())] = C
    for _ in range(2):
        assert await fleet.connection.execute(MIXED) == [1, 2, 3, 4]
    assert sorted(fleet.greeted) == [(A, greeting), (B, greeting), (C, greeting)]
    assert C not in fleet.closed


async def test_whoever_may_not_ask_a_server_for_a_slot_that_moves_hears_why(fleet: Fleet) -> None:
    fleet.asks[key_slot(LOW.encode())] = B
    fleet.not_asking = True
    answers = await fleet.connection.execute(MIXED)
    assert isinstance(answers[0], NoPermissionError)
    assert answers[1] == 2


async def test_a_primary_that_is_cut_off_is_left_for_the_one_that_was_promoted(
    fleet: Fleet,
) -> None:
    await fleet.connection.execute(MIXED)
    fleet.cut_off.add(A)
    fleet.map = [(0, 8191, C), (8192, SLOTS - 1, B)]
    fleet.asked.clear()
    await fleet.connection.execute(MIXED)
    fleet.now += MAP_PAUSE
    assert await fleet.connection.execute(MIXED) == [1, 2, 3, 4]
    assert fleet.asked == [B]


async def test_a_server_that_lets_nobody_in_says_so_though_another_is_dead(fleet: Fleet) -> None:
    fleet.dead.add(B)
    fleet.stranger = True
    with pytest.raises(AuthenticationError, match="WRONGPASS"):
        await fleet.connection.execute(MIXED)


async def test_a_promoted_server_is_found_and_its_predecessor_left(fleet: Fleet) -> None:
    await fleet.connection.execute(MIXED)
    fleet.dead.add(A)
    await fleet.connection.execute(MIXED)
    assert fleet.connection.changes == 0
    fleet.map = [(0, 8191, C), (8192, SLOTS - 1, B)]
    fleet.now += 1
    assert await fleet.connection.execute(MIXED, ("WAIT",)) == [1, 2, 3, 4, C, B, C, B]
    assert fleet.connection.changes == 1
    fleet.now += 2 * KEEP_SECONDS
    await fleet.connection.execute(MIXED)
    assert A in fleet.closed
    assert fleet.connection.changes == 1


async def test_a_predecessor_is_left_by_a_lane_that_needs_few_of_the_servers_too(
    fleet: Fleet,
) -> None:
    await fleet.connection.execute([("GET", LOW)])
    fleet.dead.add(A)
    await fleet.connection.execute([("GET", LOW)])
    fleet.map = [(0, 8191, C), (8192, SLOTS - 1, B)]
    for wait in (1, 2 * KEEP_SECONDS):
        fleet.now += wait
        assert await fleet.connection.execute([("GET", LOW)]) == [LOW]
    assert A in fleet.closed


async def test_the_map_is_read_now_and_then_though_nothing_contradicts_it(fleet: Fleet) -> None:
    await fleet.connection.execute(MIXED)
    fleet.map = [(0, 8191, A), (8192, SLOTS - 1, C)]
    fleet.now += MAP_SECONDS
    await fleet.connection.execute([("GET", LOW)])
    await fleet.connection.aclose()
    assert fleet.connection.changes == 1


async def test_a_slot_that_nobody_serves_is_an_error_until_somebody_does(fleet: Fleet) -> None:
    fleet.map = [(0, 8191, A)]
    answers = await fleet.connection.execute(MIXED)
    assert [isinstance(each, ClusterDownError) for each in answers] == [False, True, False, True]
    fleet.map = [(0, 8191, A), (8192, SLOTS - 1, B)]
    assert await fleet.connection.execute(MIXED) == [1, 2, 3, 4]


async def test_while_no_server_answers_callers_hear_why(fleet: Fleet) -> None:
    fleet.dead |= {A, B}
    with pytest.raises(RedisConnectionError, match=r"Cluster cannot be reached: .* is dead"):
        await fleet.connection.execute(MIXED)
    fleet.dead.clear()
    fleet.now += 1
    assert await fleet.connection.execute(MIXED) == [1, 2, 3, 4]


async def test_a_caller_that_gives_up_takes_no_others_map_along(fleet: Fleet) -> None:
    impatient = asyncio.ensure_future(fleet.connection.execute(MIXED))
    other = ClusterConnection(fleet.slots, 1.0)
    patient = asyncio.ensure_future(other.execute(MIXED))
    await asyncio.sleep(0)
    impatient.cancel()
    assert await patient == [1, 2, 3, 4]
