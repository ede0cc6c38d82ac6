"""Parts of a node, in this process."""

from collections.abc import AsyncIterator

import pytest

from pushsvc.server.embedded import EmbeddedServer
from tests.support.dispatching import Held, Node


@pytest.fixture
async def node(valkey: EmbeddedServer, prefix: str) -> AsyncIterator[Node]:
    node = Node(valkey.url, prefix)
    yield node
    await node.aclose()


@pytest.fixture
def held(node: Node, monkeypatch: pytest.MonkeyPatch) -> Held:
    return Held(node, monkeypatch)


@pytest.fixture(autouse=True)
def clean_log() -> None:
    """No process runs here whose log could be read."""
