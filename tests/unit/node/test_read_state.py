"""What a connection is told of the read state while it joins."""

from types import SimpleNamespace
from typing import Any, cast

from pushsvc.feeds.nodes import ControlMessage
from pushsvc.feeds.read_state import CHANGED
from pushsvc.node.read_state import MOST_EARLY, ReadStateNews


class Counted:
    """Read states of which ever fewer are unread."""

    def __init__(self) -> None:
        self._unread = 100

    async def count(self, _feed: str) -> int:
        self._unread -= 1
        return self._unread


async def test_of_what_came_while_it_joined_it_is_told_the_newest() -> None:
    told: list[bytes] = []
    listener = SimpleNamespace(number=1, send=told.append)
    identity = SimpleNamespace(connection_id=lambda number: f"n.{number}")
    everyone = SimpleNamespace(of=lambda _feed: [listener])
    news = ReadStateNews(*cast("tuple[Any, ...]", (identity, Counted(), everyone)))
    news.joining(cast("Any", listener))
    for n in range(MOST_EARLY + 2):
        news.changed(ControlMessage(CHANGED, "u:a", ["", "1", "read", "", f"{n + 1}-0"]))
    await news.aclose()
    assert told == []
    news.joined(cast("Any", listener))
    assert len(told) == MOST_EARLY
    assert b'"unread":82' in told[-1]
    assert b'"unread":97' in told[0]
