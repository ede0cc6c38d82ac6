"""The ports that tests take."""

import os
import subprocess
import sys

from tests.support import ports


def taken_by(worker: str) -> set[int]:
    """All ports that a process of pytest-xdist takes in one round."""
    program = (
        "from tests.support import ports\n"
        "import itertools\n"
        "print(*itertools.islice(ports._ports, len(ports._mine())))"
    )
    environ = os.environ | {"PYTEST_XDIST_WORKER": worker}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, check=True
    )
    return {int(port) for port in done.stdout.split()}


def test_no_port_that_browsers_refuse_is_taken_and_none_by_two_processes() -> None:
    shares = [taken_by(f"gw{number}") for number in range(ports._WORKERS)]
    every = set[int]().union(*shares)
    assert len(every) == sum(map(len, shares))
    assert every == set(range(10_000, 20_000)) - {10080}
