"""Work for many in parts, and what has its turn in between."""

import asyncio
import itertools

import pytest

from pushsvc.node import turns as turns_module
from pushsvc.node.turns import (
    AT_ONCE,
    MOST_BYTES,
    MOST_WAITING,
    PART,
    WORK_BYTES,
    Turns,
    Work,
    parts,
)


class Sends:
    """Works, and what they did, in order."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.done: list[tuple[str, int]] = []

    def run(self, name: str, label: str, listeners: int, size: int = 0) -> None:
        self.turns.run(name, self._work(label, listeners), listeners, size)

    def check(self, name: str, label: str, listeners: int) -> None:
        self.turns.check(name, self._work(label, listeners))

    def _work(self, label: str, listeners: int) -> Work:
        for place, part in enumerate(parts(range(listeners))):
            if place:
                yield
            self.done.append((label, len(part)))

    def sent(self, label: str) -> int:
        return sum(size for each, size in self.done if each == label)


async def turns_of(sends: Sends, name: str) -> int:
    """How many turns of the loop it takes until nothing of a name is left."""
    count = 0
    while sends.turns.busy(name):
        await asyncio.sleep(0)
        count += 1
    return count


@pytest.fixture
async def sends() -> Sends:
    return Sends()


@pytest.fixture(autouse=True)
def one_step_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "TURN", 0)


async def test_a_small_one_is_done_at_once(sends: Sends) -> None:
    sends.run("a", "a", AT_ONCE)
    assert sends.sent("a") == AT_ONCE
    assert not sends.turns.busy("a")


async def test_a_large_one_lets_others_have_their_turn(sends: Sends) -> None:
    sends.run("a", "a", 10_000)
    assert sends.sent("a") == AT_ONCE
    seen = []

    def other() -> None:
        seen.append(sends.sent("a"))
        if sends.turns.busy("a"):
            asyncio.get_running_loop().call_soon(other)

    asyncio.get_running_loop().call_soon(other)
    await turns_of(sends, "a")
    assert sends.sent("a") == 10_000
    assert len(seen) >= (10_000 - AT_ONCE) // PART
    assert max(later - sooner for sooner, later in itertools.pairwise(seen)) <= PART


async def test_many_small_ones_in_one_turn_are_not_all_done_at_once(sends: Sends) -> None:
    for number in range(100):
        sends.run(f"n{number}", "all", 50)
    assert AT_ONCE <= sends.sent("all") <= AT_ONCE + PART
    await turns_of(sends, "n99")
    assert sends.sent("all") == 5_000
    sends.run("n0", "later", 50)
    assert sends.sent("later") == 50, "it is another turn"


async def test_what_has_one_name_is_done_one_after_the_other(sends: Sends) -> None:
    sends.run("a", "first", 1_000)
    sends.run("a", "second", 1)
    sends.run("a", "third", 500)
    assert sends.sent("second") == 0
    await turns_of(sends, "a")
    labels = [label for label, _ in sends.done]
    assert labels == sorted(labels, key=("first", "second", "third").index)


async def test_two_names_take_turns(sends: Sends) -> None:
    sends.run("a", "a", 10_000)
    sends.run("b", "b", 10_000)
    while sends.turns.busy("a") and sends.turns.busy("b"):
        await asyncio.sleep(0)
        assert abs(sends.sent("a") - sends.sent("b")) <= AT_ONCE + PART


async def test_a_small_one_does_not_wait_for_a_large_one_of_another_name(sends: Sends) -> None:
    sends.run("a", "a", 10_000)
    await asyncio.sleep(0)
    sends.run("b", "b", 3)
    assert sends.sent("b") == 3


async def test_what_waits_is_bounded_by_number_and_by_bytes(
    sends: Sends, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not sends.turns.full("a", 1_000)
    for _ in range(MOST_WAITING + 1):
        assert not sends.turns.full("a", 1_000)
        sends.run("a", "a", 1_000)
    assert sends.turns.full("a", 1_000)
    assert not sends.turns.full("b", 1_000), "each name has its own"
    monkeypatch.setattr(turns_module, "MOST_BYTES", 1_000)
    sends.run("b", "b", 1_000)
    assert sends.turns.full("b", 1_000)
    assert sends.turns.full("c", 1_000), "the bytes are those of all names"
    await turns_of(sends, "a")
    await turns_of(sends, "b")
    sends.run("a", "a", 1_000)
    assert not sends.turns.full("a", 1_000)


async def test_the_bytes_that_wait_are_bounded_however_many_names_there_are(sends: Sends) -> None:
    size, taken = 64 * 1024, 0
    for number in range(1_000):
        if not sends.turns.full(f"n{number}", 1_280):
            sends.run(f"n{number}", "all", 1_280, size)
            taken += 1
    assert taken * size <= MOST_BYTES + size


async def test_a_small_one_is_not_kept_out_by_the_bytes_of_others(
    sends: Sends, monkeypatch: pytest.MonkeyPatch
) -> None:
    sends.run("a", "a", 1_000)
    await asyncio.sleep(0)
    monkeypatch.setattr(turns_module, "MOST_BYTES", 1)
    assert sends.turns.full("b", AT_ONCE + 1)
    assert not sends.turns.full("b", AT_ONCE), "it does not wait"
    sends.run("b", "b", AT_ONCE)
    assert not sends.turns.busy("b")
    assert sends.turns.full("c", AT_ONCE), "it would"


# --- what is put off -----------------------------------------------------------------------------


async def test_what_is_put_off_begins_once_there_is_room_and_nothing_of_its_name_is_left(
    sends: Sends, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    sends.run("large", "large", 2_000)
    sends.run("small", "small", 1_000)
    sends.turns.put_off("idle", lambda: begun.append("idle"))
    sends.turns.put_off("large", lambda: begun.append("large"))
    monkeypatch.setattr(turns_module, "MOST_BYTES", WORK_BYTES + 1)
    while sends.turns.busy("small"):
        assert begun == []
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert begun == ["idle"]
    await turns_of(sends, "large")
    for _ in range(3):
        await asyncio.sleep(0)
    assert begun == ["idle", "large"]


async def test_what_is_put_off_begins_one_a_turn_and_once_however_often_it_is_put_off(
    sends: Sends,
) -> None:
    begun: list[int] = []
    for number in range(10):
        for _ in range(3):
            sends.turns.put_off(f"n{number}", lambda number=number: begun.append(number))  # type: ignore[misc]
    for turn in range(12):
        assert len(begun) == min(turn, 10)
        await asyncio.sleep(0)
    assert begun == list(range(10))


async def test_an_error_of_what_is_put_off_holds_nothing_up(sends: Sends) -> None:
    begun: list[str] = []
    sends.turns.put_off("a", lambda: begun.remove("nothing"))
    sends.turns.put_off("b", lambda: begun.append("b"))
    sends.run("c", "c", 1_000)
    await turns_of(sends, "c")
    assert begun == ["b"]


# --- checks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("busy", [1, 50])
async def test_a_check_takes_as_many_turns_however_much_is_sent(sends: Sends, busy: int) -> None:
    for number in range(busy):
        sends.run(f"n{number}", "sent", 100_000)
    await asyncio.sleep(0)
    before = sends.sent("sent")
    sends.check("revoked", "revoked", 10_000)
    turns = await turns_of(sends, "revoked")
    assert sends.sent("revoked") == 10_000
    assert turns <= 10_000 / PART + 2
    assert sends.sent("sent") - before >= (turns - 2) * PART, "nor is anything held up by it"


async def test_checks_take_turns(sends: Sends) -> None:
    sends.check("revoked", "revoked", 10_000)
    sends.check("due", "due", 10_000)
    while sends.turns.busy("revoked") and sends.turns.busy("due"):
        await asyncio.sleep(0)
        assert abs(sends.sent("revoked") - sends.sent("due")) <= AT_ONCE + PART


async def test_a_check_that_has_not_begun_does_for_those_that_come_after_it(sends: Sends) -> None:
    sends.check("a", "first", 10_000)
    for number in range(100):
        sends.check("a", f"{number}", 1_000)
    sends.check("b", "another", 1_000)
    await turns_of(sends, "a")
    await turns_of(sends, "b")
    assert {label for label, _ in sends.done} == {"first", "0", "another"}
    sends.check("a", "later", 1_000)
    assert sends.sent("later")


# --- errors, and the end -------------------------------------------------------------------------


async def test_an_error_at_once_is_none_of_who_asked_for_it(sends: Sends) -> None:
    def fails() -> Work:
        yield from ()
        raise ValueError

    sends.turns.run("a", fails(), 1)
    sends.turns.check("a", fails())
    assert not sends.turns.busy("a")


async def test_an_error_ends_one_work_and_no_other(sends: Sends) -> None:
    def fails() -> Work:
        yield
        raise ValueError

    sends.run("a", "first", 1_000)
    sends.turns.run("a", fails(), 1_000)
    sends.run("a", "last", 1_000)
    await turns_of(sends, "a")
    assert (sends.sent("first"), sends.sent("last")) == (1_000, 1_000)


async def test_nothing_is_done_once_it_is_closed(sends: Sends) -> None:
    sends.run("a", "a", 10_000)
    sends.turns.put_off("b", lambda: sends.run("b", "a", 1))
    sends.turns.close()
    for _ in range(5):
        await asyncio.sleep(0)
    assert sends.sent("a") == AT_ONCE
    assert not sends.turns.busy("a")
