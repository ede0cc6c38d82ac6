"""What can be asked about a topic: who listens to it."""

import time
from typing import ClassVar, Final

from pushsvc.auth.tokens import TokenCheck
from pushsvc.errors import Forbidden
from pushsvc.node.presence import MOST_NAMED, Presence
from pushsvc.protocol.feeds import topic
from pushsvc.protocol.names import require_name
from pushsvc.web.base import authorize
from pushsvc.web.cors import CrossOriginHandler
from pushsvc.web.rates import RequestRates
from pushsvc.web.users import BACKEND

PRESENCE: Final = r"/v1/topics/([^/]+)/presence"


class TopicPresenceHandler(CrossOriginHandler):
    """Says who listens to a topic."""

    route: ClassVar[str] = "topic_presence"
    allow: ClassVar[str] = "GET, OPTIONS"

    def initialize(self, *, presence: Presence, verifier: TokenCheck, rates: RequestRates) -> None:
        """Take what the application passes.

        Args:
            presence: who is here.
            verifier: of tokens.
            rates: how fast each user may ask.
        """
        self._presence = presence
        self._verifier = verifier
        self._rates = rates

    async def get(self, name: str) -> None:
        """Answer with the users."""
        claims = await authorize(self.request, self._verifier)
        require_name(name, "topic")
        if not claims.scopes & BACKEND:
            self._rates.spend(claims.user, time.monotonic())
            if not claims.grants.may_subscribe(name):
                raise Forbidden("the token's topics.subscribe does not cover this topic")
        users = await self._presence.who(topic(name))
        named = sorted(users)[:MOST_NAMED]
        self.write_json(200, {"topic": name, "users": named, "count": len(users)})
