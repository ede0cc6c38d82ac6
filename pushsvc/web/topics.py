"""What can be asked about a topic: who listens to it."""

import time
from typing import ClassVar, Final

from pushsvc.auth.tokens import TokenCheck
from pushsvc.errors import Forbidden
from pushsvc.node.presence import Presence
from pushsvc.protocol import encoding, feeds
from pushsvc.protocol.names import require_topic
from pushsvc.protocol.session import ANSWER_BYTES
from pushsvc.web.base import CrossOriginHandler
from pushsvc.web.rates import RequestRates
from pushsvc.web.users import BACKEND

NAMED: Final = (r"/v1/topics/(?P<topic>[^/]+)", r"/v1/topic")
"""A topic in the path or in the query, as users are."""
PRESENCE: Final = r"/presence"


class TopicPresenceHandler(CrossOriginHandler):
    """Says who listens to a topic.

    Args:
        presence: who is here.
        verifier: of tokens.
        rates: how fast each user may ask.
    """

    route: ClassVar[str] = "topic_presence"
    allow: ClassVar[str] = "GET, OPTIONS"

    def initialize(self, *, presence: Presence, verifier: TokenCheck, rates: RequestRates) -> None:
        self._presence = presence
        self._verifier = verifier
        self._rates = rates

    async def get(self, topic: str | None = None) -> None:
        claims = await self.authorized()
        name = require_topic(self.subject(topic, "topic"))
        is_user = not claims.scopes & BACKEND
        if is_user:
            self._rates.spend(claims.caller, time.monotonic())
            if not claims.grants.may_subscribe(name):
                raise Forbidden(
                    "the token's topics.subscribe does not cover this topic: "
                    f"{claims.grants.why_not('subscribe')}"
                )
        seen = await self._presence.who(feeds.topic(name, claims.namespace))
        answer = encoding.encode({"topic": name, **seen.to_json()})
        if is_user:
            self._rates.owe(claims.caller, time.monotonic(), len(answer) // ANSWER_BYTES)
        self.set_header("Content-Type", "application/json")
        self.finish(answer + b"\n")
