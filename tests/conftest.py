"""Real servers for all tests."""

import functools
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from httpx._transports import default as httpx_transports
from hypothesis import HealthCheck, settings

from pushsvc.server import embedded
from pushsvc.server.embedded import EmbeddedServer
from tests.support import acl
from tests.support.nodes import Node

# Whatever is started with `nohup`, or in the background of a script, ignores these, and so would
# the programs that the tests start and send them to.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Without this each request reads all authorities of the system anew, which takes twenty times as
# long as the request itself.
httpx_transports.create_ssl_context = functools.cache(httpx.create_ssl_context)  # type: ignore[attr-defined]

if other := os.environ.get("PUSHSVC_TEST_REDIS"):
    # The whole suite on another server, such as /usr/bin/redis-server.
    SERVER = Path(other)
    embedded.find_server = lambda: SERVER


# A busy machine is slow, not wrong, and so is one that makes Hypothesis' tables for the first time.
settings.register_profile("pushsvc", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pushsvc")

pytest_plugins = ("tests.gate",)


@pytest.fixture(scope="session")
def valkey() -> Iterator[EmbeddedServer]:
    """One server for the session; tests keep apart by their key prefix.

    Nodes are the user there that the documentation describes, so a command that it forgets fails.
    """
    with EmbeddedServer() as server:
        acl.restrict(server)
        yield server


@pytest.fixture
def prefix() -> str:
    """A key prefix that no other test uses."""
    return f"t{uuid.uuid4().hex[:10]}"


@pytest.fixture
def node(valkey: EmbeddedServer, tmp_path: Path, prefix: str) -> Iterator[Node]:
    """A node with default settings."""
    with Node(valkey.url, tmp_path, prefix=prefix) as running:
        yield running
