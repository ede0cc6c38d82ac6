"""What all tests against running nodes share."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pushsvc.server.embedded import EmbeddedServer
from tests.support.nodes import Node


@pytest.fixture(scope="module")
def node(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with default settings, which the tests of a module share."""
    directory = tmp_path_factory.mktemp("node")
    with Node(valkey.url, directory, prefix=f"t{uuid.uuid4().hex[:10]}") as running:
        yield running


@pytest.fixture
def mortal(valkey: EmbeddedServer, tmp_path: Path, prefix: str) -> Iterator[Node]:
    """A node of the test's own, which it may kill."""
    with Node(valkey.url, tmp_path, prefix=prefix) as running:
        yield running


@pytest.fixture
def user() -> str:
    """A user that no other test uses: the tests of a module share a node."""
    return f"u-{uuid.uuid4().hex[:10]}"


@pytest.fixture(autouse=True)
def clean_log(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test may make its node log an error that nobody foresaw."""
    if "node" not in request.fixturenames:
        yield
        return
    node: Node = request.getfixturevalue("node")
    begin = len(node.log())
    yield
    node.check_log(begin)
