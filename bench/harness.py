"""What the benchmarks share: figures, and servers whose CPU time and memory are read from outside.

The server under test has the first core for itself. Valkey and the clients share the last one.
"""

import json
import math
import os
import pstats
import re
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Final, Self

import psutil

from pushsvc.auth.tokens import mint
from pushsvc.server.embedded import EmbeddedServer

SECRET: Final = "a-secret-for-benchmarks-only-of-48-bytes-01234567"
START_SECONDS: Final = 180.0
"""A node of many workers takes its time, on a machine that does other things as well."""
IDLE: Final = 0.0015
"""Seconds of CPU that a worker may take in a tenth of a second and have nothing to do."""
TOP: Final = 30
"""Functions that a profile shows."""

_CORES: Final = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number, and the bar that it is held to, if there is one."""

    name: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def passed(self) -> bool | None:
        """Whether the bar is met; None without a bar."""
        if self.at_most is not None:
            return self.value <= self.at_most
        if self.at_least is not None:
            return self.value >= self.at_least
        return None

    @property
    def bar(self) -> str:
        """The bar, for people."""
        if self.at_most is not None:
            return f"<= {self.at_most:,g}"
        return f">= {self.at_least:,g}" if self.at_least is not None else ""

    def as_json(self) -> dict[str, Any]:
        """The figure as a JSON object."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "bar": self.bar or None,
            "passed": self.passed,
        }


def say(text: str) -> None:
    """Tell how far it is; standard output is for the figures."""
    print(text, file=sys.stderr, flush=True)


def pin(pid: int, core: int) -> None:
    """Keep a process on one core, where the system can do that; -1 is the last core."""
    if _CORES:
        os.sched_setaffinity(pid, {_CORES[core]})


def unpin(pid: int) -> None:
    """Let a process, with every thread that it has, run on all cores."""
    for thread in psutil.Process(pid).threads() if _CORES else []:
        os.sched_setaffinity(thread.id, _CORES)


@contextmanager
def _on_first_core() -> Iterator[None]:
    """What is started meanwhile stays on the first core, with every thread that it makes."""
    mine = os.sched_getaffinity(0) if _CORES else set()
    pin(0, 0)
    try:
        yield
    finally:
        if _CORES:
            os.sched_setaffinity(0, mine)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: it did not come true.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for: {what}")
        time.sleep(0.05)


def tokens(users: list[str], *scopes: str) -> list[str]:
    """A token for each user, good for an hour."""
    return [
        mint(secret=SECRET, user=user, audience="pushsvc", scopes=scopes, ttl=3600)
        for user in users
    ]


class Process:
    """A server process on the first core, with those that it has started when it serves.

    Args:
        command: what is run.
        settings: further environment variables.
        code: the checkout that it runs; this one by default.
    """

    def __init__(
        self,
        command: Sequence[str],
        settings: dict[str, str] | None = None,
        code: Path | None = None,
    ) -> None:
        self._command = command
        self._code = code
        self._settings = settings or {}
        self.port = 0

    def __enter__(self) -> Self:
        self._directory = TemporaryDirectory(prefix="pushsvc-bench-")
        log = Path(self._directory.name) / "log"
        environ = {k: v for k, v in os.environ.items() if not k.startswith("PUSHSVC_")}
        with log.open("wb") as output, _on_first_core():
            self.process = psutil.Popen(
                self._command, env=environ | self._settings, stdout=output, stderr=output,
                cwd=self._code,
            )  # fmt: skip
        try:
            wait_until(lambda: self._serves(log), "the server to serve", START_SECONDS)
        except BaseException:
            self._stop()
            raise
        self.find()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(60)
        except psutil.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._directory.cleanup()

    def _serves(self, log: Path) -> bool:
        text = log.read_text()
        if self.process.poll() is not None:
            raise RuntimeError(f"the server ended:\n{text}")
        return self._serving(text)

    def _serving(self, log: str) -> bool:
        """Whether it serves already, which its log may say."""
        raise NotImplementedError

    def find(self) -> None:
        """Find its processes: those that it has started by now."""
        self.members = [self.process, *self.process.children(recursive=True)]

    def cpu(self) -> float:
        """Seconds of CPU, user and system, that it and its children have used."""
        times = [member.cpu_times() for member in self.members]
        return float(sum(each.user + each.system for each in times))

    def resident(self) -> int:
        """Bytes of resident memory now, its children's as well."""
        return int(sum(member.memory_info().rss for member in self.members))

    def memory(self, seconds: float = math.inf) -> int:
        """Bytes of resident memory, once they stay the same for a while; at the latest then."""
        deadline = time.monotonic() + seconds
        steady, last = 0, -1
        while steady < 6 and time.monotonic() < deadline:
            time.sleep(0.5)
            now = self.resident()
            steady = steady + 1 if now == last else 0
            last = now
        return last

    def rest(self) -> None:
        """Wait until the process has nothing to do but what it does all the time."""
        little = max(0.015, IDLE * len(self.members))
        idle, last = 0, self.cpu()
        while idle < 5:
            time.sleep(0.1)
            now = self.cpu()
            idle = idle + 1 if now - last < little else 0
            last = now


class Server(Process):
    """A Python module that is a server, and whose log says which port it serves.

    Args:
        module: what Python runs, with its arguments.
        settings: further environment variables.
        code: the checkout that it runs; this one by default.
    """

    def __init__(
        self, *module: str, settings: dict[str, str] | None = None, code: Path | None = None
    ) -> None:
        super().__init__([sys.executable, "-m", *module], settings, code)
        self.admin_port = 0
        self.redis_url = ""

    def _serving(self, log: str) -> bool:
        for line in log.splitlines():
            if '"serving"' in line:
                said = json.loads(line)
                self.port, self.admin_port = said["port"], said.get("admin_port", 0)
                return True
        return False

    def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics") as answer:
            text = answer.read().decode()
        samples = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, samples))

    def ready(self) -> bool:
        """Whether a node wants traffic."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/readyz"):
                return True
        except urllib.error.URLError:
            return False


@contextmanager
def node(
    *,
    profile: bool = False,
    module: tuple[str, ...] = ("pushsvc", "serve"),
    code: Path | None = None,
    **settings: object,
) -> Iterator[Server]:
    """A ``pushsvc serve`` process with a Valkey of its own; settings as keywords in lower case.

    Args:
        profile: run it under cProfile, and show where its time went when it ends.
        module: what is run, with its arguments, where it is not profiled.
        code: the checkout that it runs; this one by default.
        settings: of the node.
    """
    with TemporaryDirectory(prefix="pushsvc-bench-") as directory, EmbeddedServer() as valkey:
        pin(valkey.pid, -1)
        variables = {
            "REDIS_URL": valkey.url,
            "JWT_SECRET": SECRET,
            "HOST": "127.0.0.1",
            "ADMIN_HOST": "127.0.0.1",
            "PORT": "0",
            "ADMIN_PORT": "0",
            "DRAIN_SECONDS": "0",
            "LOG_FORMAT": "json",
            # so long that no heartbeat falls into a measurement
            "HEARTBEAT_SECONDS": "300",
            **{name.upper(): str(value) for name, value in settings.items()},
        }
        stats = Path(directory) / "stats"
        command = ("bench.profiled_node", str(stats)) if profile else module
        named = {f"PUSHSVC_{k}": v for k, v in variables.items()}
        server = Server(*command, settings=named, code=code)
        with server:
            server.redis_url = valkey.url
            wait_until(server.ready, "the node to be ready", START_SECONDS)
            yield server
        if profile:
            table = pstats.Stats(str(stats), stream=sys.stderr)
            table.strip_dirs().sort_stats("tottime").print_stats(TOP)


@contextmanager
def another(first: Server, **settings: object) -> Iterator[Server]:
    """Another node on the same Redis, on the first core as well; settings as of ``node``."""
    variables = {
        "REDIS_URL": first.redis_url, "JWT_SECRET": SECRET, "HOST": "127.0.0.1", "PORT": "0",
        "ADMIN_HOST": "127.0.0.1", "ADMIN_PORT": "0", "DRAIN_SECONDS": "0", "LOG_FORMAT": "json",
        **{name.upper(): str(value) for name, value in settings.items()},
    }  # fmt: skip
    named = {f"PUSHSVC_{k}": v for k, v in variables.items()}
    with Server("pushsvc", "serve", settings=named) as server:
        server.redis_url = first.redis_url
        wait_until(server.ready, "the other node to be ready", START_SECONDS)
        yield server


def measure(server: Server, profile: bool = False) -> None:  # noqa: FBT001, FBT002
    """Have a profiled node begin to count: what came before was its start."""
    if profile:
        server.process.send_signal(signal.SIGUSR1)
        time.sleep(0.2)
