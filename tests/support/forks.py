"""A process that is forked from this one, in the middle of what its threads are doing."""

import json
import os
import select
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

SECONDS = 40
"""How long a child lives."""
PATIENCE = 90
"""Seconds that all of a scenario may take."""


def run_apart(scenario: Callable[..., None], *given: str) -> None:
    """Run a function of a module in a process of its own, where it forks.

    A fork of a process that runs tests would take along whatever that one is in the middle of.

    Args:
        scenario: asserts what is to be so.
        given: what it is called with.
    """
    module, name = scenario.__module__, scenario.__qualname__
    program = f"import sys; from {module} import {name}; {name}(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *given],
        check=False, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-5000:]


class Child:
    """Does something, tells what became of it, and ends.

    Args:
        work: what it does; its result, JSON, is told, or what it raised.
    """

    def __init__(self, work: Callable[[], Any]) -> None:
        self._reading, writing = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that there are threads is meant
            self._pid = os.fork()
        if not self._pid:
            _tell(work, writing)
        os.close(writing)

    def result(self, seconds: float = SECONDS) -> Any:
        """What ``work`` returned, or ``{"raised": "..."}``.

        Raises:
            TimeoutError: it is not done.
        """
        told = b""
        try:
            while select.select([self._reading], [], [], seconds)[0]:
                part = os.read(self._reading, 1 << 16)
                if not part:
                    assert told, "the child hung"
                    return json.loads(told)
                told += part
            raise TimeoutError("the child does not end")
        finally:
            os.close(self._reading)
            os.kill(self._pid, signal.SIGKILL)  # not yet waited for, so that it is still this one
            os.waitpid(self._pid, 0)


def _tell(work: Callable[[], Any], to: int) -> None:
    """Never returns: the rest of this program is the parent's."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(SECONDS)  # whatever it hangs in
    try:
        try:
            value = work()
        except BaseException as error:  # noqa: BLE001 - the parent is told
            value = {"raised": repr(error)}
        with os.fdopen(to, "w") as pipe:
            json.dump(value, pipe)
    finally:
        os._exit(0)
