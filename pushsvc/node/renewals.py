"""A new token for a live connection."""

import time
from collections.abc import Callable

import structlog

from pushsvc.auth.tokens import Claims, TokenCheck
from pushsvc.errors import PushError, internal
from pushsvc.logs import SampledLog
from pushsvc.node.connections import Connection
from pushsvc.node.tasks import Tasks
from pushsvc.protocol.messages import Ref
from pushsvc.protocol.revocation import token_key
from pushsvc.protocol.session import Policy

log = structlog.get_logger("pushsvc.renewals")
sampled = SampledLog(log)


class Renewals:
    """Verifies the tokens of ``refresh`` messages.

    Args:
        verifier: of tokens.
        policy: the rules of every session.
        clock: seconds on a monotonic clock, the sessions' one.
    """

    def __init__(
        self, verifier: TokenCheck, policy: Policy, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._verifier = verifier
        self._policy = policy
        self._clock = clock
        self._tasks = Tasks("renewals")

    def renew(self, connection: Connection, token: str, ref: Ref) -> None:
        """Verify a token and give its expiry to the connection's session."""
        try:
            claims = self._verifier.verify_cached(token)
        except PushError as error:
            self._refuse(connection, error, ref)
            return
        if claims is not None:
            self._accept(connection, claims, ref)
            return
        self._tasks.spawn(self._fetch(connection, token, ref))

    async def _fetch(self, connection: Connection, token: str, ref: Ref) -> None:
        """Verify a token whose key has to be fetched first."""
        try:
            self._accept(connection, await self._verifier.verify(token), ref)
        except PushError as error:
            self._refuse(connection, error, ref)
        except Exception:
            log.exception("unexpected error", message="refresh")
            self._tell(connection, internal(), ref)

    def _accept(self, connection: Connection, claims: Claims, ref: Ref) -> None:
        expires = deadline(claims.expires, self._clock())
        session = connection.session
        whose = claims.user, claims.namespace
        if session.belongs_to(*whose):
            session.issued = claims.issued or 0
            session.token_key = token_key(claims.token_id)
            session.issuer = claims.issuer
        connection.perform(session.renewed(whose, expires, claims.expires, claims.grants, ref))
        connection.renewed()

    def _refuse(self, connection: Connection, error: PushError, ref: Ref) -> None:
        sampled.warning("refresh refused", code=error.code, detail=error.detail)
        self._tell(connection, error, ref)

    def _tell(self, connection: Connection, error: PushError, ref: Ref) -> None:
        connection.perform(connection.session.fail(error, ref, self._policy, self._clock()))

    async def aclose(self) -> None:
        """Drop what is under way."""
        await self._tasks.cancel()


def deadline(expires_at: int, now: float) -> float:
    """When a token expires on the sessions' clock.

    Args:
        expires_at: seconds since the epoch.
        now: seconds on the sessions' clock.
    """
    return now + expires_at - time.time()
