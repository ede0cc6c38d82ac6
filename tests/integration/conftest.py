"""What all tests against running nodes share."""

import uuid
from collections.abc import Iterator

import pytest

from tests.support.nodes import Node


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
