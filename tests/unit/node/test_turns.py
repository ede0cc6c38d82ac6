"""Work for many in parts, and what has its turn in between."""

import asyncio
import itertools

import pytest

from pushsvc.node import turns as turns_module
from pushsvc.node.turns import AT_ONCE, MOST_WAITING, PART, Turns, Work, parts


class Sends:
    """Works, and what they did, in order."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.done: list[tuple[str, int]] = []

    def run(self, name: str, label: str, listeners: int) -> None:
        self.turns.run(name, self._work(label, listeners), listeners)

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
    assert not sends.turns.full("a")
    for _ in range(MOST_WAITING + 1):
        assert not sends.turns.full("a")
        sends.run("a", "a", 1_000)
    assert sends.turns.full("a")
    assert not sends.turns.full("b"), "each name has its own"
    monkeypatch.setattr(turns_module, "MOST_BYTES", 1_000)
    sends.run("b", "b", 1_000)
    assert sends.turns.full("b")
    assert not sends.turns.full("c"), "nothing of it waits"
    await turns_of(sends, "a")
    await turns_of(sends, "b")
    sends.run("a", "a", 1_000)
    assert not sends.turns.full("a")


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
    sends.turns.close()
    for _ in range(5):
        await asyncio.sleep(0)
    assert sends.sent("a") == AT_ONCE
    assert not sends.turns.busy("a")
