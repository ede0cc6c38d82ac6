"""A node with a Valkey of its own, for as long as a block."""

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import urllib3

from pushsvc.client import Publisher, mint
from pushsvc.server.embedded import EmbeddedServer, watch

START_SECONDS: Final = 60.0
"""What a node has to be ready."""
STOP_SECONDS: Final = 10.0
"""What it has to stop."""
EVERYTHING: Final[Mapping[str, Iterable[str]]] = {"subscribe": ["**"], "publish": ["**"]}
"""Of a token's topics."""
BACKEND: Final = ("push.publish", "push.admin")
"""The scopes of a publisher."""


class Node:
    """A node that runs.

    Args:
        url: of its public port, for ``Publisher``, ``connect`` and pages.
        secret: that its tokens are signed with.
    """

    def __init__(self, url: str, secret: str) -> None:
        self.url = url
        self.secret = secret

    def token(
        self,
        user: str,
        *,
        scopes: Iterable[str] = (),
        topics: Mapping[str, Iterable[str]] | None = EVERYTHING,
        ttl: float = 3600,
        **claims: Any,
    ) -> str:
        """A token that this node takes: a user's, which opens all topics unless they are given."""
        return mint(self.secret, user=user, scopes=scopes, topics=topics, ttl=ttl, **claims)

    @property
    def publisher_token(self) -> str:
        """A token that may publish, ask about everyone, and revoke."""
        return self.token("backend", scopes=BACKEND)

    def publisher(self, **options: Any) -> Publisher:
        """A publisher, with the options of ``Publisher``; close it, or use it in ``with``."""
        return Publisher(self.url, token=self.publisher_token, **options)


@contextmanager
def node(**settings: object) -> Iterator[Node]:
    """A node with a Valkey of its own, both on free ports of 127.0.0.1, until the block ends.

    Args:
        settings: of the node, by their names in docs/settings.md in lower case:
            ``retention_seconds=60``.

    Raises:
        RuntimeError: it does not start; the message has its log.
        EmbeddedServerError: there is no Valkey.
    """
    secret = secrets.token_hex(32)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PUSHSVC_")}
    given = {
        "jwt_secret": secret, "host": "127.0.0.1", "port": 0, "admin_host": "127.0.0.1",
        "admin_port": 0, "drain_seconds": 0, "log_format": "json", **settings,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="pushsvc-") as directory, EmbeddedServer() as valkey:
        environ["PUSHSVC_REDIS_URL"] = valkey.url
        environ |= {f"PUSHSVC_{name.upper()}": str(value) for name, value in given.items()}
        log = Path(directory) / "node.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                # -P: what lies about in the folder of the tests is no module of the node.
                [sys.executable, "-P", "-m", "pushsvc", "serve"],
                env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        watcher = watch(process.pid, directory)
        try:
            yield Node(_ready(process, log), str(given["jwt_secret"]))
        finally:
            watcher.communicate(b"\n")
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _ready(process: subprocess.Popen[bytes], log: Path) -> str:
    """The address of the public port, once the node takes requests."""
    deadline = time.monotonic() + START_SECONDS
    ports: dict[str, Any] | None = None
    while process.poll() is None and time.monotonic() < deadline:
        ports = ports or _ports(log)
        if ports and _answers(f"http://127.0.0.1:{ports['admin_port']}/readyz"):
            return f"http://127.0.0.1:{ports['port']}"
        time.sleep(0.02)
    raise RuntimeError(f"the node did not start:\n{log.read_text(errors='replace')}")


def _ports(log: Path) -> dict[str, Any] | None:
    for line in log.read_bytes().splitlines():
        if b'"serving"' in line:
            said: dict[str, Any] = json.loads(line)
            return said
    return None


def _answers(url: str) -> bool:
    try:
        return urllib3.request("GET", url, retries=False, timeout=5).status == 200
    except urllib3.exceptions.HTTPError:
        return False
