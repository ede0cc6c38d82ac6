"""Revoking: ``/v1/revocations`` and ``POST /v1/users/{user}/disconnect``."""

import time
from typing import Any, ClassVar, Final

from pushsvc.auth.gate import Gate
from pushsvc.auth.tokens import SCOPE_ADMIN
from pushsvc.errors import Forbidden, InvalidRequest
from pushsvc.protocol import encoding
from pushsvc.protocol.names import require_name
from pushsvc.protocol.revocation import revocation_from
from pushsvc.web.base import BodyHandler

JSON: Final = "application/json"


class _AdminHandler(BodyHandler):
    """Base of what only an administrator may do."""

    readers: ClassVar[frozenset[str]] = frozenset({SCOPE_ADMIN})
    """With any of these scopes a token may look; all else needs ``push.admin``."""

    def initialize(  # type: ignore[override]  # Tornado passes what the application names
        self, *, gate: Gate, max_body: int, timeout: float
    ) -> None:
        """Take what the application passes."""
        super().initialize(gate, max_body, timeout)
        self._gate = gate

    async def admit(self) -> None:
        """Refuse, by raising an error, what the headers alone condemn."""
        await super().admit()
        looking = self.request.method == "GET"
        if not self.claims.scopes & (self.readers if looking else frozenset({SCOPE_ADMIN})):
            raise Forbidden(f"this needs a token with the scope {SCOPE_ADMIN}")

    async def revoke(self, value: Any) -> None:
        """Revoke what a parsed body asks for, and tell what is held."""
        held = await self._gate.revoke(revocation_from(value, time.time()))
        self.write_json(201, held.told())


class RevocationsHandler(_AdminHandler):
    """Revokes tokens, and lists what is revoked."""

    route: ClassVar[str] = "revocations"
    allow: ClassVar[str] = "GET, POST"

    async def get(self) -> None:
        """List the newest."""
        self.body()
        newest = await self._gate.newest()
        self.write_json(200, {"revocations": [entry.told() for entry in newest]})

    async def post(self) -> None:
        """Revoke."""
        body = self.body()
        self.media_type(JSON)
        await self.revoke(encoding.decode(body))


class DisconnectHandler(_AdminHandler):
    """Revokes the tokens that a user has, which closes its sockets."""

    route: ClassVar[str] = "disconnect"
    allow: ClassVar[str] = "POST"
    bodiless: ClassVar[bool] = True

    async def post(self, user: str) -> None:
        """Revoke."""
        body = self.body()
        value: Any = {}
        if body:
            self.media_type(JSON)
            value = encoding.decode(body)
        if not isinstance(value, dict) or not value.keys() <= {"ttl"}:
            raise InvalidRequest('send no body, or {"ttl": seconds}: the user is in the path')
        await self.revoke({**value, "user": require_name(user, "user")})
