"""What a backend does and checks: publishing, and reading problems."""

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx

from tests.support.nodes import Node


async def publish(node: Node, user: str, data: Any, **fields: Any) -> str:
    """Publish to a user; the id."""
    return await asyncio.to_thread(node.publish, user, data, **fields)


async def publish_all(node: Node, user: str, values: Sequence[Any], **fields: Any) -> list[str]:
    """Publish many to one user, in order and in one request; the ids."""
    notes = [{"to": {"user": user}, "data": value, **fields} for value in values]
    answer = await asyncio.to_thread(node.post, "/v1/notifications/batch", {"notifications": notes})
    assert answer.status_code == 202, answer.text
    return [result["id"] for result in answer.json()["results"]]


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is this problem (RFC 9457); the problem."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    assert answer.headers["Content-Type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    told(found, status, code)
    assert ("Retry-After" in answer.headers) == ("retry_after" in found)
    if status in (429, 503):
        assert int(answer.headers["Retry-After"]) >= 1
    if status == 401:
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    if status == 405:
        assert answer.headers["Allow"]
    return found


def told(found: dict[str, Any], status: int, code: str) -> None:
    """Check that an object is this problem."""
    assert set(found) - {"retry_after"} == {"type", "title", "status", "detail"}
    assert found["type"] == f"urn:pushsvc:problem:{code}", found
    assert found["status"] == status
    assert found["title"]
    assert len(found["detail"]) > 10
    assert "retry_after" not in found or found["retry_after"] > 0
