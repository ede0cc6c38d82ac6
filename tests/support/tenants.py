"""Several namespaces on the same nodes, in which everything has the same name."""

import asyncio
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import jwt

from tests.support.nodes import PLAIN, Node, nodes
from tests.support.topics import EVERYTHING, Member

BACKEND: Final = "acme/pub"
"""A publisher of each; its name looks as if it had a namespace."""


class Tenant:
    """Who has tokens of one issuer.

    Args:
        name: of the issuer.
        namespace: of its tokens; empty for the default one.
        operator: whether its tokens see several.
    """

    def __init__(self, name: str, namespace: str, *, operator: bool = False) -> None:
        self.name = name
        self.namespace = namespace
        self.operator = operator
        self.issuer = f"https://{name}.example/"
        self.secret = f"the-secret-of-{name}-for-tests-only-0123456789abcdef"

    def configured(self) -> str:
        """Its part of the file of issuers."""
        lines = [
            f"[issuers.{self.name}]",
            f'issuer = "{self.issuer}"',
            f'secret = "{self.secret}"',
            'audience = "pushsvc"',
        ]
        if self.namespace:
            lines.append(f'namespace = "{self.namespace}"')
        if self.operator:
            lines.append("operator = true")
        return "\n".join([*lines, ""])

    def token(self, user: str, *scopes: str, **claims: Any) -> str:
        """A token that opens every topic; ``claims`` add to it."""
        now = int(time.time())
        payload = {
            "iss": self.issuer, "aud": "pushsvc", "sub": user, "iat": now, "exp": now + 600,
            "jti": uuid.uuid4().hex, "scope": " ".join(scopes), "topics": EVERYTHING,
        }  # fmt: skip
        return jwt.encode(payload | claims, self.secret, "HS256")

    def backend(self, *scopes: str) -> str:
        """A backend's token."""
        return self.token(BACKEND, *(scopes or ("push.publish",)))

    def admin(self) -> str:
        """An administrator's token; a second old, so that its own revocations leave it good."""
        scopes = ("push.admin", "push.observe", "push.publish")
        return self.token("root", *scopes, iat=int(time.time()) + 5)

    def phone(self, node: Node, user: str, device: str = "phone") -> Member:
        """A user's device, on a socket."""
        return Member(node, user, device, auth=self.token(user))

    # --- requests ------------------------------------------------------------------------------

    async def call(
        self, node: Node, method: str, path: str, auth: str | None = None, **kwargs: Any
    ) -> httpx.Response:
        """A request to the public port, as a backend where no token is given."""
        return await self._send(node.url + path, method, auth or self.backend(), kwargs)

    async def console(
        self, node: Node, method: str, path: str, auth: str | None = None, **kwargs: Any
    ) -> httpx.Response:
        """A request to the console, as an administrator where no token is given."""
        url = f"{node.admin_url}/console/api{path}"
        return await self._send(url, method, auth or self.admin(), kwargs)

    async def _send(
        self, url: str, method: str, auth: str, kwargs: dict[str, Any]
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {auth}"} | kwargs.pop("headers", {})
        return await asyncio.to_thread(
            httpx.request, method, url, headers=headers, timeout=40, verify=PLAIN, **kwargs
        )

    async def publish(
        self, node: Node, to: dict[str, Any], data: Any = None, **fields: Any
    ) -> dict[str, Any]:
        """Publish; the answer. The data names the tenant where none is given."""
        body = {"to": to, "data": self.name if data is None else data, **fields}
        answer = await self.call(node, "POST", "/v1/notifications", json=body)
        assert answer.status_code == 202, answer.text
        accepted: dict[str, Any] = answer.json()
        return accepted

    def __repr__(self) -> str:
        return self.name


MAIN: Final = Tenant("main", "")
ACME: Final = Tenant("acme-idp", "acme")
OTHER: Final = Tenant("other-idp", "other")
OPS: Final = Tenant("ops", "ops", operator=True)
TENANTS: Final = (MAIN, ACME, OTHER)


@contextmanager
def tenancy(redis_url: str, directory: Path, **settings: Any) -> Iterator[list[Node]]:
    """Two nodes that know all tenants."""
    file = directory / "issuers.toml"
    file.write_text("\n".join(each.configured() for each in (*TENANTS, OPS)))
    settings = {"jwt_secret": None, **settings}
    with nodes(2, redis_url, directory, auth_file=file, **settings) as both:
        yield both
