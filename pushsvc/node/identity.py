"""Who a node is: the id under which it is registered, and those that it had before."""

import secrets
from collections.abc import Sequence

from pushsvc.feeds.nodes import connection_id


def new_node_id() -> str:
    """An id that no node has had."""
    return secrets.token_hex(6)


class NodeIdentity:
    """The id of a node, shared by all of its parts.

    A lease that lapsed takes its id along, with every registration under it, so a node goes on
    under a new one. What was registered under the former ids remains to be removed.

    Args:
        node: the first id; a new one where there is none.
    """

    def __init__(self, node: str | None = None) -> None:
        self.id = node or new_node_id()
        self._former: list[str] = []

    @property
    def former(self) -> Sequence[str]:
        """Ids from before, oldest first, under which something may still be registered."""
        return tuple(self._former)

    def become(self, node: str) -> None:
        """Go on under another id."""
        self._former.append(self.id)
        self.id = node

    def cleaned(self, nodes: Sequence[str]) -> None:
        """Nothing is registered any more under these former ids."""
        self._former = [each for each in self._former if each not in nodes]

    def connection_id(self, number: int, node: str | None = None) -> str:
        """The id under which a connection is registered, now or while the node had another id."""
        return connection_id(node or self.id, number)
