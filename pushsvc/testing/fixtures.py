"""The node as a pytest fixture: ``pytest_plugins = ["pushsvc.testing.fixtures"]`` in conftest.py.

It is no plugin that installs itself: whoever has pushsvc installed for other reasons, as the
client is, is not given fixtures.
"""

from collections.abc import Iterator

import pytest

from pushsvc.testing.local_node import Node, node


@pytest.fixture(scope="session")
def pushsvc_node() -> Iterator[Node]:
    """A node that all tests share: give each test users and topics of its own."""
    with node() as running:
        yield running
