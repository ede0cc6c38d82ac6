"""Real servers for all tests."""

import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pushsvc.embedded import EmbeddedServer
from tests.support.nodes import Node

# Whatever is started with `nohup`, or in the background of a script, ignores these, and so would
# the programs that the tests start and send them to.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def valkey() -> Iterator[EmbeddedServer]:
    """One server for the session; tests keep apart by their key prefix."""
    with EmbeddedServer() as server:
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
