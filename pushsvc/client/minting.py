"""Tokens signed with the secret that nodes have: for users, and for the tests of a backend.

HS256 is fixed by RFC 7515 and RFC 7518 down to the byte, and the standard library has its parts,
so that it needs no package. Keys of other kinds are for a library, as docs/guides/tokens.md shows.
"""

import hmac
import json
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from typing import Any, Final

LEAST_SECRET: Final = 32
"""Bytes of a secret (RFC 7518, section 3.2), without which no node starts."""


def mint(
    secret: str | bytes,
    *,
    user: str,
    ttl: float = 900,
    scopes: Iterable[str] = (),
    topics: Mapping[str, Iterable[str]] | None = None,
    audience: str = "pushsvc",
    **claims: Any,
) -> str:
    """Mint a token.

    ::

        mint(secret, user="u1", topics={"subscribe": ["scores.*"]})
        mint(secret, user="orders", scopes=["push.publish"])

    Args:
        secret: ``PUSHSVC_JWT_SECRET`` of the nodes, as it stands there.
        user: whose token it is, or the name of a service that publishes.
        ttl: seconds until it expires.
        scopes: such as ``push.publish``; receiving needs none.
        topics: patterns that it may ``subscribe`` and ``publish`` to; ``**`` is all.
        audience: what the nodes expect.
        claims: more of them, such as ``iss``; they win.

    Raises:
        ValueError: the secret is too short for any node.
    """
    key = secret.encode() if isinstance(secret, str) else secret
    if len(key) < LEAST_SECRET:
        raise ValueError(
            f"the secret has {len(key)} bytes: it is that of the nodes (PUSHSVC_JWT_SECRET), of"
            f" {LEAST_SECRET} or more"
        )
    now = int(time.time())
    said: dict[str, Any] = {
        "sub": user,
        "aud": audience,
        "iat": now,
        "exp": int(now + ttl),
        "jti": uuid.uuid4().hex,
    }
    if scope := " ".join(scopes):
        said["scope"] = scope
    if topics is not None:
        said["topics"] = {kind: list(patterns) for kind, patterns in topics.items()}
    signed = b".".join(map(_part, ({"alg": "HS256", "typ": "JWT"}, said | claims)))
    return b".".join((signed, _base64(hmac.digest(key, signed, "sha256")))).decode()


def _part(value: Mapping[str, Any]) -> bytes:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _base64(value: bytes) -> bytes:
    return urlsafe_b64encode(value).rstrip(b"=")
