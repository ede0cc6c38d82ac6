"""What users read, from outside: asked on sockets and by HTTP."""

from typing import Any

import httpx

from tests.support.nodes import Node, token
from tests.support.phone import Phone


async def change(
    node: Node, user: str, verb: str, body: Any, *, auth: str = "", status: int = 200
) -> dict[str, Any]:
    """Change the read state by HTTP; the answer."""
    headers = {"Authorization": f"Bearer {auth or token(user)}"}
    async with httpx.AsyncClient(timeout=30) as client:
        answer = await client.post(f"{node.url}/v1/users/{user}/{verb}", json=body, headers=headers)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def listed(node: Node, user: str, **query: str) -> dict[str, Any]:
    """A page of what the user's mailbox keeps."""
    headers = {"Authorization": f"Bearer {token(user, 'push.publish')}"}
    async with httpx.AsyncClient(timeout=30) as client:
        url = f"{node.url}/v1/users/{user}/notifications"
        answer = await client.get(url, params=query, headers=headers)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


def states(page: dict[str, Any]) -> dict[str, tuple[bool, bool]]:
    """Id to whether it is read, and archived."""
    return {note["id"]: (note["read"], note["archived"]) for note in page["notifications"]}


async def ask(phone: Phone, **message: Any) -> int:
    """Change the read state on a socket; how many are unread."""
    await phone.send(**message, ref="r")
    answer = await phone.receive()
    assert answer["type"] == "reply", answer
    assert set(answer) == {"type", "ref", "unread"}
    unread: int = answer["unread"]
    return unread


async def count(phone: Phone) -> int:
    """How many are unread."""
    return await ask(phone, type="read", ids=[])
