"""The fork server: what is forked shares its memory, and who is killed takes nobody along."""

import os
import resource
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import psutil
import pytest

from pushsvc.server.fork_server import UNKNOWN, ForkedProcess, ForkServer
from tests.support.forked import BALLAST, load, obey
from tests.support.nodes import wait_until


def ask(pipe: Connection, *words: Any) -> Any:
    pipe.send(words)
    assert pipe.poll(30)
    return pipe.recv()


def running(forks: ForkServer) -> tuple[ForkedProcess, Connection, int]:
    """A process that runs, the pipe to it and its id."""
    process, pipe = forks.fork()
    pid = ask(pipe, "pid")
    wait_until(lambda: process.pid == pid, "the fork server to say so")
    return process, pipe, pid


def fork_server(forks: ForkServer) -> int:
    assert forks.pid is not None
    return forks.pid


def ended(process: ForkedProcess) -> int:
    wait_until(lambda: process.exitcode is not None, "the process to end")
    assert process.exitcode is not None
    return process.exitcode


@pytest.fixture
def forks() -> Iterator[ForkServer]:
    with ForkServer(obey, load) as server:
        yield server


def test_what_is_forked_shares_what_was_there_before_and_has_its_own_chance(
    forks: ForkServer,
) -> None:
    pipes = [forks.fork()[1] for _ in range(3)]
    assert [ask(pipe, "ballast") for pipe in pipes] == [BALLAST] * 3
    assert all(ask(pipe, "private") < BALLAST // 2 for pipe in pipes)
    assert len({each for pipe in pipes for each in ask(pipe, "random")}) == 9


def test_what_is_forked_holds_nothing_of_the_others(forks: ForkServer) -> None:
    pipes = [forks.fork()[1] for _ in range(4)]
    first, *others = [ask(pipe, "descriptors") for pipe in pipes]
    assert set(others) == {first}


def test_exit_codes_are_those_of_the_process(forks: ForkServer) -> None:
    processes = [forks.fork() for _ in range(5)]
    (_, a), (_, b), (c_process, c), (d_process, d), (_, e) = processes
    a.send(("exit", 7))
    b.send(("raise", "an error that the test expects"))
    ask(c, "pid")
    assert c_process.is_alive()
    c_process.kill()
    c_process.join()
    ask(d, "pid")
    d_process.terminate()
    e.close()
    processes.pop()
    codes = [ended(process) for process, _ in processes]
    assert codes == [7, 1, -signal.SIGKILL, -signal.SIGTERM]
    assert forks.pid is not None
    wait_until(lambda: not [
        each for each in psutil.Process(forks.pid).children()
        if each.status() != psutil.STATUS_ZOMBIE
    ], "the one whose pipe was closed to end by itself")  # fmt: skip


def test_a_signal_that_comes_before_the_process_is_there_waits_for_it(forks: ForkServer) -> None:
    process, _ = forks.fork()
    process.terminate()
    assert ended(process) == -signal.SIGTERM


def test_what_a_terminal_and_a_service_manager_send_to_all_ends_only_what_is_forked(
    forks: ForkServer,
) -> None:
    process, pipe, its = running(forks)
    blocked = ask(pipe, "blocked")
    assert {signal.SIGINT, signal.SIGHUP} <= blocked
    assert signal.SIGTERM not in blocked
    for pid in (fork_server(forks), its):
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            os.kill(pid, number)
    assert ended(process) == -signal.SIGTERM
    running(forks)


def test_a_fork_that_fails_hurts_nobody(forks: ForkServer) -> None:
    other, *_ = running(forks)
    # A process that may have no more descriptors is not given that of the pipe.
    before = resource.prlimit(fork_server(forks), resource.RLIMIT_NOFILE)
    resource.prlimit(fork_server(forks), resource.RLIMIT_NOFILE, (3, before[1]))
    failed, _ = forks.fork()
    assert ended(failed) == UNKNOWN
    assert failed.pid is None
    assert failed.error == "Too many open files"
    resource.prlimit(fork_server(forks), resource.RLIMIT_NOFILE, before)
    running(forks)
    assert other.is_alive()


@pytest.mark.promise
def test_a_fork_server_that_is_killed_leaves_what_it_forked_and_is_replaced(
    forks: ForkServer,
) -> None:
    process, pipe, pid = running(forks)
    first = fork_server(forks)
    os.kill(first, signal.SIGKILL)
    dying = psutil.Process(first)
    wait_until(lambda: dying.status() == psutil.STATUS_ZOMBIE, "the fork server to end")
    another, its_pipe, _ = running(forks)
    assert ask(its_pipe, "ballast") == BALLAST
    assert fork_server(forks) != first
    assert process.is_alive()
    assert ask(pipe, "pid") == pid
    for each in (process, another):
        each.kill()
        each.join()
    assert (process.exitcode, another.exitcode) == (UNKNOWN, -signal.SIGKILL)


def test_what_a_fork_server_that_hangs_does_not_fork_is_given_up(forks: ForkServer) -> None:
    other, *_ = running(forks)
    os.kill(fork_server(forks), signal.SIGSTOP)
    process, _ = forks.fork()
    process.kill()
    process.join()
    assert process.exitcode == UNKNOWN
    assert other.is_alive()
    running(forks)


def test_an_exit_code_that_a_fork_server_does_not_say_is_given_up(forks: ForkServer) -> None:
    process, *_ = running(forks)
    os.kill(fork_server(forks), signal.SIGSTOP)
    process.kill()
    process.join()
    assert process.exitcode == UNKNOWN
    running(forks)


def test_it_ends_with_who_wanted_it_and_what_it_forked_runs_on() -> None:
    with ForkServer(obey) as forks:
        process, pipe, pid = running(forks)
        of_server = psutil.Process(fork_server(forks))
    assert not of_server.is_running()
    assert ask(pipe, "pid") == pid
    process.terminate()
    process.join()
