"""Revoking: ``/v1/revocations`` and ``POST /v1/users/{user}/disconnect``."""

from typing import Any, ClassVar, Final

from pushsvc.auth.authenticator import Authenticator
from pushsvc.auth.tokens import SCOPE_ADMIN
from pushsvc.errors import InvalidRequest
from pushsvc.protocol import encoding
from pushsvc.protocol.names import require_name
from pushsvc.protocol.revocation import order_from
from pushsvc.web.base import BodyHandler, lacking

JSON: Final = "application/json"


class _AdminHandler(BodyHandler):
    """Base of what only an administrator may do."""

    readers: ClassVar[frozenset[str]] = frozenset({SCOPE_ADMIN})
    """With any of these scopes a token may look; all else needs ``push.admin``."""

    def initialize(  # type: ignore[override]  # Tornado passes what the application names
        self, *, authenticator: Authenticator, max_body: int, timeout: float
    ) -> None:
        super().initialize(authenticator, max_body, timeout)
        self._authenticator = authenticator

    async def admit(self) -> None:
        await super().admit()
        looking = self.request.method == "GET"
        if not self.claims.scopes & (self.readers if looking else frozenset({SCOPE_ADMIN})):
            needed = f"this needs a token with the scope {SCOPE_ADMIN}"
            raise lacking(needed, self.request, self._verifier)

    async def revoke(self, value: Any) -> None:
        """Revoke what a parsed body asks for, and tell what is held."""
        held = await self._authenticator.revoke(order_from(value), self.claims.namespace)
        self.write_json(201, held.to_json())


class RevocationsHandler(_AdminHandler):
    """Revokes tokens, and lists what is revoked."""

    route: ClassVar[str] = "revocations"
    allow: ClassVar[str] = "GET, POST"

    async def get(self) -> None:
        self.body()
        newest = await self._authenticator.newest(self.claims.namespace)
        self.write_json(200, {"revocations": [entry.to_json() for entry in newest]})

    async def post(self) -> None:
        body = self.body()
        self.media_type(JSON)
        await self.revoke(encoding.decode(body))


class DisconnectHandler(_AdminHandler):
    """Revokes the tokens that a user has, which closes its sockets."""

    route: ClassVar[str] = "disconnect"
    allow: ClassVar[str] = "POST"
    bodiless: ClassVar[bool] = True

    async def post(self, user: str | None = None) -> None:
        body = self.body()
        user = self.subject(user, "user")
        value: Any = {}
        if body:
            self.media_type(JSON)
            value = encoding.decode(body)
        if not isinstance(value, dict) or not value.keys() <= {"ttl"}:
            raise InvalidRequest('send no body, or {"ttl": seconds}: the address names the user')
        await self.revoke({**value, "user": require_name(user, "user")})
