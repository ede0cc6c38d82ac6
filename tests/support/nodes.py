"""Real nodes in processes of their own."""

import json
import os
import re
import signal
import ssl
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil

from pushsvc.auth.tokens import mint
from tests.support import acl
from tests.support.ports import free_port
from tests.support.programs import need_libfaketime
from tests.support.versions import HERE, Version

SECRET = "a-secret-for-tests-only-of-48-bytes-0123456789ab"
START_SECONDS = 45.0
"""How long a node may take to start where others use the machine as well."""

PLAIN = False
"""Of a request's ``verify``, over plain HTTP: reading the machine's certificates takes 25 ms."""


def token(user: str, *scopes: str, ttl: float = 600, **claims: Any) -> str:
    return mint(secret=SECRET, user=user, audience="pushsvc", scopes=scopes, ttl=ttl, **claims)


def publisher_token(user: str = "backend") -> str:
    return token(user, "push.publish")


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    """Wait for a condition; what it returned, or an error that says what did not happen."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for: {what}")
        time.sleep(0.02)


class Node:
    """A ``pushsvc serve`` process.

    Args:
        redis_url: its Redis.
        directory: for its log.
        prefix: of its keys; nodes of one test share it.
        tls: how clients connect where the settings name a certificate.
        version: the code that it runs, from its next start on.
        skew: seconds by which its clock is ahead, for ``set_clock``; None leaves it as it is.
        settings: further settings, without the prefix of the variables, in lower case; None for
            one that is not to be there.
    """

    def __init__(
        self,
        redis_url: str,
        directory: Path,
        *,
        prefix: str = "push",
        tls: Any = None,
        version: Any = HERE,
        skew: Any = None,
        **settings: Any,
    ) -> None:
        self.tls: ssl.SSLContext | None = tls
        self.version: Version = version
        self._environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith("PUSHSVC_")},
            "PUSHSVC_REDIS_URL": acl.url_of_node(redis_url),
            "PUSHSVC_REDIS_PREFIX": prefix,
            "PUSHSVC_JWT_SECRET": SECRET,
            "PUSHSVC_HOST": "127.0.0.1",
            "PUSHSVC_ADMIN_HOST": "127.0.0.1",
            "PUSHSVC_PORT": "0",
            "PUSHSVC_ADMIN_PORT": "0",
            "PUSHSVC_DRAIN_SECONDS": "0.5",
            "PUSHSVC_LOG_FORMAT": "json",
        }
        for name, value in settings.items():
            self._environ.pop(f"PUSHSVC_{name.upper()}", None)
            if value is not None:
                self._environ[f"PUSHSVC_{name.upper()}"] = str(value)
        if skew is not None:
            self._clock = directory / f"clock-{uuid.uuid4().hex[:8]}"
            self.set_clock(skew)
            self._environ |= {
                "LD_PRELOAD": need_libfaketime(),
                "FAKETIME_TIMESTAMP_FILE": str(self._clock),
                "FAKETIME_CACHE_DURATION": "1",
                "DONT_FAKE_MONOTONIC": "1",
            }
        self._log_path = directory / f"node-{uuid.uuid4().hex[:8]}.log"
        self._begin = 0
        self.process: subprocess.Popen[bytes]
        self.port = 0
        self.admin_port = 0

    @property
    def url(self) -> str:
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}"

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    def start(self, *, ready: bool = True) -> Self:
        """Start it, on the ports that it had before if it was started before."""
        self.launch()
        return self.await_start(ready=ready)

    def launch(self) -> None:
        """Start its process, and do not wait for it."""
        if self._environ["PUSHSVC_HOST"] == "127.0.0.1":
            for name in ("PUSHSVC_PORT", "PUSHSVC_ADMIN_PORT"):
                if self._environ[name] == "0":
                    self._environ[name] = str(free_port())
        if self.port:
            self._environ |= {
                "PUSHSVC_PORT": str(self.port),
                "PUSHSVC_ADMIN_PORT": str(self.admin_port),
            }
        with self._log_path.open("ab") as log:
            self._begin = log.tell()
            self.process = subprocess.Popen(
                [self.version.python, "-m", "pushsvc", "serve"],
                cwd=self.version.directory, env=self._environ, stderr=log, stdout=log,
            )  # fmt: skip

    def await_start(self, *, ready: bool = True) -> Self:
        """Wait until a process that was launched serves; it does not outlive a failure to."""
        try:
            line = wait_until(self._serving, "the node's first log line", START_SECONDS)
            self.port, self.admin_port = line["port"], line["admin_port"]
            if ready:
                wait_until(self.is_ready, "the node to be ready", START_SECONDS)
        except BaseException:
            self.stop()
            raise
        return self

    def _serving(self) -> dict[str, Any] | None:
        if self.process.poll() is not None:
            raise RuntimeError(f"the node ended: {self.log()}")
        for line in self.log_lines(self._begin):
            if line.get("event") == "serving":
                return line
        return None

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.admin_url}/readyz", timeout=5, verify=PLAIN).status_code == 200
        except httpx.TransportError:
            return False

    def set_clock(self, skew: float) -> None:
        """Have its clock be ahead by so many seconds, within a second."""
        written = self._clock.with_suffix(".new")
        written.write_text(f"{skew:+f}s\n")
        written.rename(self._clock)

    def log(self) -> str:
        return self._log_path.read_text()

    def log_lines(self, begin: int = 0) -> list[dict[str, Any]]:
        lines = []
        for line in self._log_path.read_bytes()[begin:].splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                lines.append({"event": line.decode(errors="replace")})
        return lines

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        total = 0.0
        answer = httpx.get(f"{self.admin_url}/metrics", timeout=5, verify=PLAIN)
        for line in answer.text.splitlines():
            match = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if match and all(f'{k}="{v}"' in (match[1] or "") for k, v in labels.items()):
                total += float(match[2])
        return total

    def kill(self) -> None:
        """``kill -9``."""
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode

    def check_log(self, begin: int = 0) -> None:
        """No node may have met an error that nobody foresaw, or told a secret."""
        log = self.log()[begin:]
        assert "Traceback" not in log, log
        assert "unexpected error" not in log, log
        assert "never retrieved" not in log, log
        assert "eyJ" not in log, "a token is in the log"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        if error is None:
            self.check_log()

    # --- publishing ------------------------------------------------------------------------------

    def post(self, path: str, body: Any = None, **kwargs: Any) -> httpx.Response:
        """POST JSON as a publisher; ``headers`` are added to the usual ones."""
        headers = {"Authorization": f"Bearer {publisher_token()}"} | kwargs.pop("headers", {})
        if body is not None:
            kwargs["json"] = body
        verify = self.tls or PLAIN
        return httpx.post(self.url + path, headers=headers, timeout=20, verify=verify, **kwargs)

    def publish(self, user: str, data: Any, **fields: Any) -> str:
        """Publish to a user; the id."""
        answer = self.post("/v1/notifications", {"to": {"user": user}, "data": data, **fields})
        assert answer.status_code == 202, answer.text
        notification_id: str = answer.json()["id"]
        return notification_id


def workers(node: Node) -> list[int]:
    """The process ids of the workers, by what they listen to."""
    found = []
    for child in psutil.Process(node.process.pid).children(recursive=True):
        try:
            if any(
                c.laddr.port == node.port and c.status == psutil.CONN_LISTEN
                for c in child.net_connections("tcp")
            ):
                found.append(child.pid)
        except psutil.NoSuchProcess:
            continue
    return found


@contextmanager
def nodes(count: int, redis_url: str, directory: Path, **settings: Any) -> Iterator[list[Node]]:
    """Several nodes that share one Redis, started side by side."""
    prefix = settings.pop("prefix", f"t{uuid.uuid4().hex[:8]}")
    started = [Node(redis_url, directory, prefix=prefix, **settings) for _ in range(count)]
    try:
        for node in started:
            node.launch()
        for node in started:
            node.await_start()
        yield started
        for node in started:
            node.stop()
            node.check_log()
    finally:
        for node in started:
            if hasattr(node, "process"):
                node.stop()
