"""Real servers for all tests."""

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pushsvc import embedded
from pushsvc.embedded import EmbeddedServer
from tests.support import acl
from tests.support.nodes import Node

# Whatever is started with `nohup`, or in the background of a script, ignores these, and so would
# the programs that the tests start and send them to.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

if other := os.environ.get("PUSHSVC_TEST_REDIS"):
    # The whole suite on another server, such as /usr/bin/redis-server.
    SERVER = Path(other)
    embedded.find_server = lambda: SERVER


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
