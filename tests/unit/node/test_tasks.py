"""Tasks that nobody awaits."""

import asyncio

import structlog

from pushsvc.node.tasks import Tasks


async def test_what_a_task_fails_with_is_logged_once() -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    tasks = Tasks("presence")
    with structlog.testing.capture_logs() as lines:
        tasks.spawn(broken())
        await tasks.finish()
    ((line,), left) = (lines, len(tasks))
    assert left == 0
    assert (line["log_level"], line["task"]) == ("error", "presence")
    assert isinstance(line["exc_info"], ZeroDivisionError)


async def test_those_that_are_cancelled_end_without_a_word() -> None:
    ended: list[int] = []

    async def waiting(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    tasks = Tasks("presence")
    with structlog.testing.capture_logs() as lines:
        for number in range(3):
            tasks.spawn(waiting(number))
        await asyncio.sleep(0)
        await tasks.cancel()
    assert (sorted(ended), lines, len(tasks)) == ([0, 1, 2], [], 0)


async def test_they_begin_in_the_order_in_which_they_are_spawned() -> None:
    begun: list[int] = []

    async def begin(number: int) -> None:
        begun.append(number)

    tasks = Tasks("requests")
    for number in range(20):
        tasks.spawn(begin(number))
    await tasks.finish()
    assert begun == list(range(20))
