"""The recall of what is scheduled for a topic, or for everyone; ``users`` has a mailbox's."""

from typing import ClassVar, Final

from pushsvc.auth.tokens import Claims, TokenCheck
from pushsvc.errors import InvalidRequest, NotFound
from pushsvc.feeds.schedule import Schedule
from pushsvc.protocol import feeds, ids
from pushsvc.protocol.names import require_topic
from pushsvc.protocol.scheduled import is_scheduled_id
from pushsvc.web.base import CrossOriginHandler
from pushsvc.web.operation import lacking
from pushsvc.web.users import BACKEND

BROADCAST: Final = r"/v1/broadcast/notifications/(?P<notification>[^/]+)"


class CancelHandler(CrossOriginHandler):
    """Recalls what is scheduled for everyone.

    Args:
        schedule: what is scheduled.
        verifier: of tokens.
    """

    route: ClassVar[str] = "cancel"
    allow: ClassVar[str] = "DELETE, OPTIONS"

    def initialize(self, *, schedule: Schedule, verifier: TokenCheck) -> None:
        self._schedule = schedule
        self._verifier = verifier

    async def delete(self, notification: str) -> None:
        claims = await self._backend()
        await self._cancel(feeds.broadcast(claims.namespace), notification)

    async def _backend(self) -> Claims:
        claims = await self.authorized()
        if not claims.scopes & BACKEND:
            needed = f"use a token with the scope {' or '.join(sorted(BACKEND))}"
            raise lacking(needed, self.request.headers, self._verifier)
        return claims

    async def _cancel(self, feed: str, scheduled_id: str) -> None:
        if not is_scheduled_id(scheduled_id):
            raise InvalidRequest(
                "only what is scheduled can be recalled here: use the id of the answer to the "
                "publish, which begins with s-"
            )
        became = await self._schedule.recall(feed, scheduled_id)
        if became is not None:
            raise NotFound(
                f"it is out, as {ids.render(became)}: what went to a topic or to everyone cannot "
                "be recalled"
            )
        self.write_json(200, {"id": scheduled_id, "acked": [], "cancelled": True})


class TopicCancelHandler(CancelHandler):
    """Recalls what is scheduled for a topic."""

    async def delete(self, notification: str, topic: str | None = None) -> None:
        claims = await self._backend()
        name = require_topic(self.subject(topic, "topic"))
        await self._cancel(feeds.topic(name, claims.namespace), notification)
