"""A user's mailbox as a scenario has it: lists, and the count of what is unread."""

from typing import Any, Final

from conformance.http import Request

_MARKS: Final = frozenset({"read", "unread", "archive", "unarchive"})
_DEFAULTS: Final[dict[str, Any]] = {
    "time": "2026-01-01T00:00:00.000Z",
    "expires": "2100-01-01T00:00:00.000Z",
    "data": None,
    "read": False,
    "archived": False,
    "acked": [],
}


class Mailbox:
    """What is kept at a moment; nothing that a client asks for changes it.

    Args:
        items: notifications, newest first, with the members that matter to the scenario.
    """

    def __init__(self, items: list[dict[str, Any]]) -> None:
        self._items = [{**_DEFAULTS, **item} for item in items]

    @property
    def unread(self) -> int:
        """How many are unread."""
        return sum(not item["read"] for item in self._items)

    def answer(self, request: Request) -> dict[str, Any] | None:
        """The answer to a list, or to a request that only asks for the count; None for others."""
        if request.kind == "GET /v1/user/notifications":
            return self._list({name: values[-1] for name, values in request.query.items()})
        mark = request.kind.removeprefix("POST /v1/user/")
        try:
            asked = {"type": mark, **(request.json() or {})}
        except (TypeError, ValueError):
            return None
        return {"unread": self.unread} if asks_for_the_count(asked) else None

    def _list(self, query: dict[str, str]) -> dict[str, Any]:
        limit, before, event = int(query.get("limit", 20)), query.get("before"), query.get("event")
        found = [
            item
            for item in self._items
            if item["archived"] == (query.get("archived") == "true")
            and event in {None, item.get("event")}
            and not (item["read"] and query.get("unread") == "true")
        ]
        ids = [item["id"] for item in found]
        start = ids.index(before) + 1 if before in ids else 0
        page = found[start : start + limit]
        more = len(found) > start + limit
        return {
            "notifications": page,
            "unread": self.unread,
            "next": page[-1]["id"] if more else None,
        }


def asks_for_the_count(message: dict[str, Any]) -> bool:
    """Whether a client only asks how many are unread: it marks nothing."""
    return message.get("type") in _MARKS and message.get("ids") == []
