"""Topics from outside: tokens that open them, and what a backend publishes to them."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final

from tests.support.nodes import Node, token
from tests.support.phone import Phone

EVERYTHING: Final = {"subscribe": ["**"], "publish": ["**"]}


def member(user: str, **claims: Any) -> str:
    """A token that opens every topic."""
    return token(user, **{"topics": EVERYTHING, **claims})


class Member(Phone):
    """A device whose token opens every topic."""

    def __init__(
        self, node: Node, user: str = "u1", device: str = "phone", *,
        auth: str | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(node, user, device, auth=auth or member(user), **kwargs)

    async def ask(self, **message: Any) -> dict[str, Any]:
        """Send a message, and take the next one for the answer."""
        await self.send(**message, ref="q")
        answer = await self.receive()
        assert answer.pop("ref", None) == "q", answer
        return answer

    async def subscribe(self, topic: str, **fields: Any) -> str:
        """Subscribe; the newest id of the topic."""
        answer = await self.ask(type="subscribe", topic=topic, **fields)
        assert answer["type"] == "reply", answer
        assert answer["topic"] == topic
        last: str = answer["last"]
        return last

    async def unsubscribe(self, topic: str) -> None:
        """Unsubscribe; whatever comes before the answer is dropped."""
        await self.send(type="unsubscribe", topic=topic, ref="u")
        while (message := await self.receive()).get("ref") != "u":
            assert message["type"] == "notification", message
        assert message == {"type": "reply", "ref": "u", "topic": topic}


async def tell(node: Node, topic: str, data: Any, **fields: Any) -> dict[str, Any]:
    """Publish to a topic; the answer."""
    return await post(node, {"topic": topic}, data, **fields)


async def tell_everyone(node: Node, data: Any, **fields: Any) -> str:
    """Broadcast; the id."""
    answer = await post(node, {"broadcast": True}, data, **fields)
    notification_id: str = answer["id"]
    return notification_id


async def post(node: Node, to: dict[str, Any], data: Any, **fields: Any) -> dict[str, Any]:
    """Publish; the answer."""
    body = {"to": to, "data": data, **fields}
    answer = await asyncio.to_thread(node.post, "/v1/notifications", body)
    assert answer.status_code == 202, answer.text
    accepted: dict[str, Any] = answer.json()
    return accepted


async def tell_all(node: Node, topic: str, values: Iterable[Any], **fields: Any) -> list[str]:
    """Publish many to one topic, in order and in one request; the ids."""
    return await post_all(node, [{"to": {"topic": topic}, "data": v, **fields} for v in values])


async def post_all(node: Node, notes: Sequence[dict[str, Any]]) -> list[str]:
    """Publish a batch; the ids."""
    answer = await asyncio.to_thread(node.post, "/v1/notifications/batch", {"notifications": notes})
    assert answer.status_code == 202, answer.text
    return [result["id"] for result in answer.json()["results"]]


def order(notification_id: str) -> tuple[int, int]:
    """What ids are ordered by."""
    milliseconds, _, sequence = notification_id.partition("-")
    return int(milliseconds), int(sequence)


def resident(node: Node) -> int:
    """Bytes of memory that a node's process and its children hold."""
    total = 0
    for pid in (node.process.pid, *_children(node.process.pid)):
        with open(f"/proc/{pid}/statm", encoding="ascii") as statm:  # noqa: PTH123 - no real file
            total += int(statm.read().split()[1]) * 4096
    return total


def _children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:  # noqa: PTH123
            return [int(child) for child in children.read().split()]
    except OSError:
        return []


def wide(user: str) -> list[str]:
    """Topics of one user whose names are of 40 Chinese characters, more than a stream can take."""
    return [f"{user}.{n:02}" + "\u4e2d" * 40 for n in range(17)]
