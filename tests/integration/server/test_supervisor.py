"""The place of a worker that cannot run: it is filled again, less and less often."""

import asyncio
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from structlog.testing import capture_logs

from pushsvc import metrics
from pushsvc.metrics import Counted
from pushsvc.server.fork_server import ForkServer
from pushsvc.server.supervisor import (
    BAD_SETTINGS,
    REPORT_EVERY,
    RESTART_SECONDS,
    SILENT_SECONDS,
    _Slot,
    _tell,
    prepare,
    worker_process,
)
from pushsvc.settings import Settings
from tests.support.nodes import SECRET, wait_until

SETTINGS = Settings(jwt_secret=SecretStr(SECRET))


@pytest.fixture(scope="module")
def forks() -> Iterator[ForkServer]:
    with ForkServer(worker_process, partial(prepare, SETTINGS)) as server:
        first, pipe = server.fork()
        wait_until(lambda: first.pid is not None, "the fork server to have imported", 100)
        pipe.close()
        yield server


def slot_of(
    forks: ForkServer,
    settings: Settings = SETTINGS,
    keep: Callable[[Counted], None] = lambda _: None,
) -> _Slot:
    return _Slot(settings, None, forks, keep)


def without_certificate(tmp_path: Path) -> Settings:
    """Settings with which no worker becomes ready."""
    missing = tmp_path / "missing.pem"
    return SETTINGS.model_copy(update={"tls_cert_file": missing, "tls_key_file": missing})


async def until_ended(slot: _Slot) -> None:
    async with asyncio.timeout(30):
        while slot.process.exitcode is None:
            await asyncio.sleep(0.02)


async def test_a_worker_that_never_becomes_ready_is_replaced_after_growing_pauses(
    tmp_path: Path, forks: ForkServer
) -> None:
    kept: list[Counted] = []
    slot = slot_of(forks, without_certificate(tmp_path), kept.append)
    shortest, longest = RESTART_SECONDS
    expected = shortest
    for _ in range(5):
        ended = slot.process
        await until_ended(slot)
        assert ended.exitcode == BAD_SETTINGS
        now = time.monotonic()
        slot.keep_filled(now)
        slot.keep_filled(now + expected - 0.01)
        assert slot.process is ended
        slot.keep_filled(now + expected)
        assert slot.process is not ended
        assert "TLS_CERT_FILE" in slot.report["troubles"][0]  # who asks meanwhile learns why
        expected = min(2 * expected, longest)
    assert expected == longest
    await until_ended(slot)
    assert await asyncio.to_thread(slot._pipe.poll, 0)
    slot.receive()
    slot.close()
    # None of them served, so none says when a certificate expires, of which the earliest counts.
    assert kept == [{}] * 6


async def test_a_place_without_a_process_cannot_be_killed_again(
    forks: ForkServer,
) -> None:
    slot = slot_of(forks)
    slot.kill()
    slot.keep_filled(time.monotonic())
    slot.kill()
    assert slot.report["troubles"] == ["ended"]
    slot.close()


# --- who hangs -----------------------------------------------------------------------------------


async def test_a_worker_that_says_nothing_hangs_unless_its_parent_stood_still_meanwhile(
    forks: ForkServer,
) -> None:
    slot = slot_of(forks)
    async with asyncio.timeout(30):
        while slot.process.pid is None:
            await asyncio.sleep(0.02)
    os.kill(slot.process.pid, signal.SIGSTOP)
    now = time.monotonic()
    slot.keep_filled(now)
    now += 10 * SILENT_SECONDS  # a terminal's Ctrl-Z, a machine that is moved
    slot.keep_filled(now)
    assert slot.process.is_alive()
    deadline = now + SILENT_SECONDS
    while now < deadline:
        assert slot.process.is_alive()
        now += REPORT_EVERY
        slot.keep_filled(now)
    slot.keep_filled(now + REPORT_EVERY)
    assert slot.process.exitcode == -signal.SIGKILL
    slot.close()


async def test_what_a_worker_said_is_heard_before_it_is_judged(
    tmp_path: Path, forks: ForkServer
) -> None:
    slot = slot_of(forks, without_certificate(tmp_path))
    asyncio.get_running_loop().remove_reader(slot._pipe.fileno())
    wait_until(slot._pipe.poll, "the worker to say something")
    now = time.monotonic()
    slot.reported_at = now - SILENT_SECONDS - 1
    with capture_logs() as log:
        slot.keep_filled(now)
    assert "a worker hangs and is killed" not in [line["event"] for line in log]
    await until_ended(slot)
    slot.close()


# --- a process that cannot be started ------------------------------------------------------------


def descriptors() -> set[int]:
    listed = list(Path("/proc/self/fd").iterdir())  # with the one that this takes
    return {int(each.name) for each in listed if each.is_symlink()}


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = descriptors()
    free = [number for number in range(max(used) + count + 2) if number not in used]
    limit = free[count - 1] + 1 if count else 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_worker_that_cannot_be_started_is_tried_again_after_growing_pauses(
    forks: ForkServer,
) -> None:
    slot = slot_of(forks)
    slot.kill()
    ended = slot.process
    now = time.monotonic()
    slot.keep_filled(now)
    pause, longest = RESTART_SECONDS
    now += pause
    before = descriptors()
    with capture_logs() as log:
        for left in range(2):  # a pipe to it
            pause = min(2 * pause, longest)
            with descriptors_left(left):
                slot.keep_filled(now)
            assert slot.report["troubles"] == ["a worker cannot be started: Too many open files"]
            assert descriptors() == before
            slot.keep_filled(now + pause - 0.01)
            assert slot.process is ended
            now += pause
    assert [line["event"] for line in log] == ["a worker cannot be started and is tried again"]
    slot.keep_filled(now)
    assert slot.process is not ended
    assert slot.process.is_alive()
    assert slot.report["troubles"] == ["starting"]
    slot.kill()
    slot.close()


# --- what workers count --------------------------------------------------------------------------


class Team:
    """A slot, and what its parent tells of it."""

    def __init__(self, forks: ForkServer) -> None:
        self.total = metrics.Sum(lambda: [self.slot.counted])
        self.slot = slot_of(forks, keep=self.total.keep)

    def value(self, name: str, **labels: str) -> float | None:
        registry = CollectorRegistry()
        registry.register(self.total)
        return registry.get_sample_value(name, labels)

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not done():
                await asyncio.sleep(0.02)


async def test_what_a_killed_worker_held_is_no_longer_told_but_what_it_counted_is(
    forks: ForkServer,
) -> None:
    team = Team(forks)
    await team.until(lambda: bool(team.slot.counted))
    room = "pushsvc_max_connections"
    lag = "pushsvc_loop_lag_seconds_count"
    await team.until(lambda: (team.value(lag) or 0) > 0)
    assert team.value(room)
    team.slot.kill()
    before = team.value(lag)
    with descriptors_left(0):
        team.slot.keep_filled(time.monotonic())
    assert team.value(room) is None
    assert team.value(lag) == before
    team.slot.keep_filled(time.monotonic() + RESTART_SECONDS[0])
    assert team.value(lag) == before
    team.slot.kill()
    team.slot.close()


async def test_a_parent_that_reads_nothing_holds_up_no_worker() -> None:
    theirs, ours = multiprocessing.Pipe()
    with theirs, ours:
        for number in range(1000):
            _tell(theirs, {"number": number})
        last = -1
        while ours.poll():
            report, counted = ours.recv()
            assert counted == metrics.counted()
            assert report["number"] == last + 1
            last = report["number"]
        assert 0 < last < 999
        _tell(theirs, {"number": 1000})
        assert ours.recv()[0] == {"number": 1000}
