"""Revoking: ``/v1/revocations`` and ``POST /v1/users/{user}/disconnect``."""

from typing import Any, ClassVar

from pushsvc.auth.authenticator import Authenticator
from pushsvc.auth.tokens import SCOPE_ADMIN, Claims
from pushsvc.errors import InvalidRequest
from pushsvc.feeds.push_registrations import PushRegistrations
from pushsvc.protocol import encoding
from pushsvc.protocol.names import require_name
from pushsvc.protocol.revocation import order_from
from pushsvc.web.operation import (
    JSON,
    Admitted,
    Answer,
    Request,
    TokenOperation,
    json_answer,
    media_type,
    subject,
)


class _AdminOperation(TokenOperation):
    """Base of what only an administrator may do."""

    readers: ClassVar[frozenset[str]] = frozenset({SCOPE_ADMIN})
    """With any of these scopes a token may look; all else needs ``push.admin``."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        push_registrations: PushRegistrations,
        max_body: int,
    ) -> None:
        super().__init__(authenticator, max_body=max_body)
        self._authenticator = authenticator
        self._push_registrations = push_registrations

    def permit(self, request: Request, claims: Claims) -> None:
        """Check the scope.

        Raises:
            Forbidden: the token has it not.
        """
        looking = request.method == "GET"
        if not claims.scopes & (self.readers if looking else frozenset({SCOPE_ADMIN})):
            raise self.lacking(f"this needs a token with the scope {SCOPE_ADMIN}", request)

    async def revoke(self, value: Any, claims: Claims) -> Answer:
        """Revoke what a parsed body asks for, and tell what is held.

        Devices that registered for pushes with such a token are registered no more: a device that
        may not connect is not reached while it is away either.
        """
        held = await self._authenticator.revoke(order_from(value), claims.namespace)
        await self._push_registrations.revoked(claims.namespace, held)
        return json_answer(201, held.to_json())


class RevocationsOperation(_AdminOperation):
    """Revokes tokens, and lists what is revoked."""

    route: ClassVar[str] = "revocations"
    allow: ClassVar[str] = "GET, POST"

    async def answer(self, request: Request, admitted: Admitted, body: bytes) -> Answer:
        """Answer with the newest, or with the one that was asked for."""
        if request.method == "GET":
            newest = await self._authenticator.newest(admitted.claims.namespace)
            return json_answer(200, {"revocations": [entry.to_json() for entry in newest]})
        media_type(request.headers, JSON)
        return await self.revoke(encoding.decode(body), admitted.claims)


class DisconnectOperation(_AdminOperation):
    """Revokes the tokens that a user has, which closes its sockets."""

    route: ClassVar[str] = "disconnect"
    allow: ClassVar[str] = "POST"
    bodiless: ClassVar[bool] = True

    async def answer(self, request: Request, admitted: Admitted, body: bytes) -> Answer:
        """Revoke them, and tell what is held."""
        user = subject(request.part, request.query, "user")
        value: Any = {}
        if body:
            media_type(request.headers, JSON)
            value = encoding.decode(body)
        if not isinstance(value, dict) or not value.keys() <= {"ttl"}:
            raise InvalidRequest('send no body, or {"ttl": seconds}: the address names the user')
        return await self.revoke({**value, "user": require_name(user, "user")}, admitted.claims)
