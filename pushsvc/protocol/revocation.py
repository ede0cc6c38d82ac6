"""Which tokens are good no longer: one user's, a single one, or all up to a time."""

import hashlib
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from pushsvc.errors import InvalidRequest
from pushsvc.protocol import encoding
from pushsvc.protocol.names import require_name

DEFAULT_TTL: Final = 30 * 86400
"""Seconds that a revocation is kept unless the caller says otherwise."""
MAX_TTL: Final = 365 * 86400
MAX_TOKEN_ID: Final = 256
"""Characters of a ``jti`` that can be revoked."""
TOLERANCE: Final = 10
"""Seconds by which the clocks of issuers, nodes and Redis may differ: what tokens are granted."""

_NEVER: Final = 10**11
"""A second that is to come, by any clock."""

_FORMS: Final = (
    'send exactly one of {"user": "..."}, {"jti": "..."} and {"issued_before": seconds}; '
    '"user" takes "issued_before" as well, and each takes "ttl"'
)


class Revocation(msgspec.Struct, frozen=True, gc=False):
    """Tokens that are refused from now on: a user's, the one of an id, or, with neither, all.

    Args:
        until: the time to which it is kept, in Unix seconds.
        user: whose tokens.
        token_id: which token (``jti``).
        issued_before: tokens issued (``iat``) up to then, in Unix seconds; not with ``token_id``. A
            token that does not say when it was issued counts as issued at 0.
    """

    until: int
    user: str | None = None
    token_id: str | None = None
    issued_before: int = 0

    def to_json(self) -> dict[str, Any]:
        """As the API writes it."""
        if self.token_id is not None:
            return {"jti": self.token_id, "expires_at": self.until}
        whose = {} if self.user is None else {"user": self.user}
        return {**whose, "issued_before": self.issued_before, "expires_at": self.until}


class Order(msgspec.Struct, frozen=True, gc=False):
    """What is to be revoked. When that is, and so what a ``Revocation`` says, Redis tells.

    Args:
        ttl: seconds to keep it, beyond what clocks may differ.
        user: whose tokens.
        token_id: which token (``jti``).
        issued_before: tokens issued up to then, in Unix seconds; None for all that may have been
            issued by now.
    """

    ttl: float
    user: str | None = None
    token_id: str | None = None
    issued_before: int | None = None


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    # null is not the same as missing: {"user": null, "issued_before": 1} must not mean everyone.
    user: str | UnsetType = UNSET
    jti: str | UnsetType = UNSET
    issued_before: int | UnsetType = UNSET
    ttl: float | UnsetType = UNSET


def token_key(token_id: str | None) -> int:
    """What stands for a token's id: eight bytes, however long the id is, the same on every node.

    Returns:
        0 for a token without an id.
    """
    if not token_id:
        return 0
    digest = hashlib.blake2b(token_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest)


def order_from(value: Any) -> Order:
    """What a request asks to revoke.

    Args:
        value: the parsed body.

    Raises:
        InvalidRequest: it does not have one of the documented shapes.
    """
    request = encoding.shape(value, _Request)
    ttl = DEFAULT_TTL if request.ttl is UNSET else request.ttl
    if not 1 <= ttl <= MAX_TTL:
        raise InvalidRequest(
            f"ttl must be 1 to {MAX_TTL} seconds, and longer than the revoked tokens live"
        )
    if request.jti is not UNSET:
        if request.user is not UNSET or request.issued_before is not UNSET:
            raise InvalidRequest(_FORMS)
        if not 1 <= len(request.jti) <= MAX_TOKEN_ID:
            raise InvalidRequest(
                f"jti must have 1 to {MAX_TOKEN_ID} characters: revoke other tokens by their user"
            )
        return Order(ttl, token_id=request.jti)
    if request.user is UNSET and request.issued_before is UNSET:
        raise InvalidRequest(_FORMS)
    issued = None if request.issued_before is UNSET else request.issued_before
    if issued is not None and not 0 <= issued < _NEVER:
        raise not_a_time()
    user = None if request.user is UNSET else require_name(request.user, "user")
    return Order(ttl, user, issued_before=issued)


def not_a_time() -> InvalidRequest:
    """What is wrong with an ``issued_before`` before 1970, or ahead of Redis time."""
    return InvalidRequest("issued_before must be seconds since 1970, and not in the future")
