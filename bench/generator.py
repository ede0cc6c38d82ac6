"""The load generator: a Go program in ``bench/load``, built when it is needed, driven by steps.

It outruns every server that it is turned on; ``load null`` is the server that shows by how much.
"""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import psutil

from bench.harness import pin, say

SOURCE: Final = Path(__file__).parent / "load"
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pushsvc-bench"
"""What benchmarks build, outside the tree."""


@cache
def built() -> Path:
    """The program, built if its source has changed since.

    Raises:
        RuntimeError: there is no Go to build it with.
    """
    digest = hashlib.sha256()
    for file in sorted([*SOURCE.glob("*.go"), SOURCE / "go.mod"]):
        digest.update(file.read_bytes())
    program = CACHE / f"load-{digest.hexdigest()[:16]}"
    if not program.exists():
        go = shutil.which("go")
        if go is None:
            raise RuntimeError("the load generator needs Go (Debian: apt-get install golang-go)")
        say("building the load generator")
        CACHE.mkdir(parents=True, exist_ok=True)
        fresh = program.with_name(f"{program.name}.{os.getpid()}")
        subprocess.run(
            [go, "build", "-trimpath", "-o", str(fresh), "."],
            cwd=SOURCE, env=os.environ | {"CGO_ENABLED": "0"}, check=True,
        )  # fmt: skip
        fresh.replace(program)
    return program


class Generator:
    """A running generator: the sockets that it holds, and what it is told to do.

    Args:
        process: of ``load``.
        common: fields of every step, such as ``protocol``, ``address``, ``secret``, ``users``.
    """

    def __init__(self, process: psutil.Popen, common: dict[str, Any]) -> None:
        self.process = process
        self._common = common

    def step(self, do: str, **fields: Any) -> dict[str, Any]:
        """Have a step done; what it answers is told by ``bench/load``.

        Raises:
            RuntimeError: it could not be done.
        """
        self.process.stdin.write(json.dumps(self._common | {"do": do} | fields).encode() + b"\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline() or b"{}")
        if not answer or "error" in answer:
            raise RuntimeError(f"the load generator: {do}: {answer.get('error', 'it ended')}")
        return answer

    def connect(self, count: int, **fields: Any) -> dict[str, Any]:
        """Open connections, and see that all of them are ready.

        Raises:
            RuntimeError: one was refused, or did not become ready.
        """
        answer = self.step("connect", count=count, **fields)
        if answer["failed"]:
            raise RuntimeError(f"of {count} connections {answer['failed']} failed: {answer}")
        return answer

    def cpu(self) -> float:
        """Seconds of CPU that it has used."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


@contextmanager
def generator(**common: Any) -> Iterator[Generator]:
    """A generator on the last core, until it is left."""
    process = psutil.Popen([built()], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        pin(process.pid, -1)
        yield Generator(process, common)
    finally:
        process.stdin.close()
        try:
            process.wait(60)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
