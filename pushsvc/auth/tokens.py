"""JSON Web Tokens: who a caller is and what they may do (RFC 7519, with the advice of RFC 8725).

The signature primitives are PyJWT's; taking the token apart is done here. ``jwt.decode`` parses
the key again for every token, walks the base64 alphabet in Python and reads the wall clock itself:
five times the work of this module, and a clock that tests cannot set.
"""

import base64
import functools
import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

import jwt
import msgspec

from pushsvc.errors import InvalidToken, Unavailable
from pushsvc.protocol.grants import NOTHING, Grants, from_claim, grants
from pushsvc.protocol.names import NAME_RULE, is_name, require_name

SCOPE_RECEIVE: Final = "push.receive"
SCOPE_PUBLISH: Final = "push.publish"
SCOPE_ADMIN: Final = "push.admin"
SCOPE_OBSERVE: Final = "push.observe"
SCOPES: Final = frozenset({SCOPE_RECEIVE, SCOPE_PUBLISH, SCOPE_ADMIN, SCOPE_OBSERVE})
"""The scopes that mean something here; a token may carry others."""

MAX_TOKEN: Final = 8192
"""Bytes; anything longer is refused unread."""

MAX_KID: Final = 128
"""Characters of a key id."""

LEEWAY: Final = 10.0
"""Seconds by which the issuer's clock and this one may disagree."""

HMAC_ALGORITHMS: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
"""The shared-secret algorithms, with the least bytes of a secret (RFC 7518, section 3.2)."""

Check = Callable[[bytes, bytes], bool]
"""Whether the second argument is the right signature over the first."""

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_match_kid = re.compile(rf"[A-Za-z0-9._:@=+/-]{{1,{MAX_KID}}}").fullmatch

# "crit" asks for extensions, and none are implemented (RFC 7515, section 4.1.11). "b64" is one that
# JWTs must not use (RFC 7797, section 7). The rest let a token bring or point to its own key
# (RFC 8725, sections 3.5 and 3.10); refused rather than ignored, because a token that needs them
# was not made for this service.
_REFUSED_HEADERS = ("crit", "b64", "jku", "jwk", "x5u", "x5c")

# The end of the year 9999. Past it lie dates that no calendar can show, and times in milliseconds.
_LAST_SECOND = 253_402_300_799


class Claims(msgspec.Struct, frozen=True, gc=False):
    """What a verified token says.

    Args:
        user: the subject (``sub``), a valid name.
        expires: when the token ends (``exp``), in Unix seconds, without leeway.
        scopes: the granted scopes, known here or not (``scope``, RFC 8693, section 4.2).
        issued: when the token was made (``iat``), in Unix seconds.
        token_id: the token's own id (``jti``).
        grants: the topics that it opens on a socket (``topics``).
    """

    # gc=False: one of these lives as long as its connection and can never be part of a cycle.

    user: str
    expires: int
    scopes: frozenset[str] = frozenset()
    issued: int | None = None
    token_id: str | None = None
    grants: Grants = NOTHING


def shared(claims: Claims) -> Claims:
    """Equal claims that share what the claims of many connections have in common."""
    return Claims(
        claims.user,
        claims.expires,
        _split_scopes(" ".join(sorted(claims.scopes))),
        claims.issued,
        claims.token_id,
        grants(claims.grants.subscribe, claims.grants.publish),
    )


class TokenCheck(Protocol):
    """Who can tell what a token says: a ``Verifier``, or the gate before it."""

    async def verify(self, token: str) -> Claims:
        """Verify a token, with I/O if that may help.

        Raises:
            InvalidToken: the token is not good here; the detail says what to change.
            Unavailable: it cannot be told for now.
        """

    def verify_cached(self, token: str) -> Claims | None:
        """Verify a token without I/O.

        Returns:
            None when only ``verify`` can tell.

        Raises:
            InvalidToken: the token is not good here; the detail says what to change.
            Unavailable: it cannot be told for now.
        """

    async def aclose(self) -> None:
        """Stop what runs in the background."""


class KeySource(Protocol):
    """Where a verifier finds the keys that tokens are checked with."""

    def find(self, algorithm: str, kid: str | None) -> Check | None:
        """The check for a token of this algorithm and key id, without I/O.

        Returns:
            None when the key is not held but ``fetch`` may bring it.

        Raises:
            InvalidToken: there is no such key, and fetching is not going to change that now.
            Unavailable: no keys were ever fetched, and it is too early to try again.
        """

    async def fetch(self) -> None:
        """Bring the keys up to date, as far as possible; failing to is not an error."""

    async def aclose(self) -> None:
        """Stop what runs in the background."""


class Verifier:
    """Verifies tokens against one key source and one set of expectations.

    Args:
        keys: where keys come from; closed by ``aclose``.
        algorithms: the accepted algorithms; the token's header only ever picks one of them
            (RFC 8725, section 3.1).
        audience: the value that ``aud`` must be or contain, compared exactly.
        issuer: the value that ``iss`` must be, compared exactly; None leaves ``iss`` unread.
        clock: the time in Unix seconds.
        leeway: seconds of clock skew granted to ``exp``, ``nbf`` and ``iat``.
    """

    def __init__(
        self,
        keys: KeySource,
        *,
        algorithms: Iterable[str],
        audience: str,
        issuer: str | None = None,
        clock: Callable[[], float] = time.time,
        leeway: float = LEEWAY,
    ) -> None:
        self.algorithms = tuple(algorithms)
        self.audience = audience
        self.issuer = issuer
        self._keys = keys
        self._accepted = frozenset(self.algorithms)
        self._clock = clock
        self._leeway = leeway

    async def verify(self, token: str) -> Claims:
        """Verify a token, fetching keys if that may help.

        Raises:
            InvalidToken: the token is not good here; the detail says what to change.
            Unavailable: the keys were never fetched and cannot be for now.
        """
        claims = self.verify_cached(token)
        if claims is None:
            await self._keys.fetch()
            claims = self.verify_cached(token)
            if claims is None:
                raise Unavailable("the issuer's keys are not at hand: try again")
        return claims

    def verify_cached(self, token: str) -> Claims | None:
        """Verify a token without I/O: always possible, save with a JWKS that lacks the key.

        A JWKS that grew old is refreshed behind the caller's back, so with one this must be called
        from the event loop.

        Returns:
            None when only ``verify`` can tell, because keys have to be fetched first.

        Raises:
            InvalidToken: the token is not good here; the detail says what to change.
            Unavailable: the keys were never fetched and cannot be for now.
        """
        if len(token) > MAX_TOKEN:
            raise InvalidToken(f"send a token of at most {MAX_TOKEN} bytes")
        # Base64 decoders skip what they do not know; this check does not, and runs at C speed.
        if not token.isascii() or (data := token.encode()).translate(None, _ALPHABET) != b"..":
            raise InvalidToken(
                "send a compact JWT: three unpadded base64url parts joined by dots, nothing else"
            )
        signed, _, signature_part = data.rpartition(b".")
        header_part, _, payload_part = signed.partition(b".")

        algorithm, kid = _read_header(header_part)
        if algorithm not in self._accepted:
            raise InvalidToken(f"sign the token with one of: {', '.join(self.algorithms)}")
        check = self._keys.find(algorithm, kid)
        if check is None:
            return None
        signature = _decode(signature_part, "signature")
        # The last character of base64 may have bits that decode to nothing. Header and payload are
        # signed as text; only the signature itself could be respelled into a "different" token.
        if base64.urlsafe_b64encode(signature).rstrip(b"=") != signature_part:
            raise InvalidToken("encode the token's signature as canonical base64url")
        if not check(signed, signature):
            raise InvalidToken("the signature does not match: sign with the key configured here")
        return self._read_claims(_decode_object(payload_part, "payload"))

    async def aclose(self) -> None:
        """Close the key source; tokens of keys already held can still be verified."""
        await self._keys.aclose()

    def _read_claims(self, payload: dict[str, Any]) -> Claims:
        now = self._clock()
        expires = _numeric_date(payload, "exp")
        if expires is None:
            raise InvalidToken("the exp claim is required")
        if now >= expires + self._leeway:
            raise InvalidToken("the token has expired: get a new one")
        not_before = _numeric_date(payload, "nbf")
        if not_before is not None and now < not_before - self._leeway:
            raise InvalidToken("the token is not valid yet (nbf): check the issuer's clock")
        issued = _numeric_date(payload, "iat")
        if issued is not None and now < issued - self._leeway:
            raise InvalidToken("the token was issued in the future (iat): check the issuer's clock")

        audience = payload.get("aud")
        if audience != self.audience and not (
            isinstance(audience, list)
            and all(isinstance(one, str) for one in audience)
            and self.audience in audience
        ):
            raise InvalidToken(f"the aud claim must be or contain exactly {self.audience!r}")
        if self.issuer is not None and payload.get("iss") != self.issuer:
            raise InvalidToken(f"the iss claim must be exactly {self.issuer!r}")

        user = payload.get("sub")
        if not isinstance(user, str) or not is_name(user):
            raise InvalidToken(f"the sub claim must be a string of {NAME_RULE}")
        scope = payload.get("scope", "")
        if not isinstance(scope, str):
            raise InvalidToken("the scope claim must be one string of space-separated scopes")
        token_id = payload.get("jti")
        if token_id is not None and not isinstance(token_id, str):
            raise InvalidToken("the jti claim must be a string")
        return Claims(
            user,
            int(expires),
            _split_scopes(scope),
            None if issued is None else int(issued),
            token_id,
            from_claim(payload["topics"]) if "topics" in payload else NOTHING,
        )


def mint(
    *,
    secret: str,
    user: str,
    audience: str,
    scopes: Iterable[str] = (),
    topics: Mapping[str, Iterable[str]] | None = None,
    ttl: float,
    issuer: str | None = None,
    algorithm: str = "HS256",
    now: float | None = None,
) -> str:
    """Make a token for development, with ``iat`` and a random ``jti``.

    Args:
        secret: the shared secret, long enough for the algorithm (RFC 7518, section 3.2).
        user: the subject, a valid name.
        audience: what the node's configured audience is.
        scopes: scopes to grant.
        topics: patterns of topics to grant, under ``subscribe`` and ``publish``; None for no claim.
        ttl: seconds from now until the token expires.
        issuer: what the node's configured issuer is, if it has one.
        algorithm: HS256, HS384 or HS512.
        now: Unix seconds to count from instead of the wall clock.

    Raises:
        InvalidName: the user is not a valid name.
        InvalidToken: a pattern is not one, or there are too many.
        ValueError: the algorithm is not a shared-secret one, or the secret is too short for it or
            looks like a public key.
    """
    if algorithm not in HMAC_ALGORITHMS:
        raise ValueError(f"tokens are minted with one of: {', '.join(HMAC_ALGORITHMS)}")
    if len(secret.encode()) < HMAC_ALGORITHMS[algorithm]:
        raise ValueError(f"{algorithm} needs a secret of {HMAC_ALGORITHMS[algorithm]} bytes")
    issued = time.time() if now is None else now
    payload: dict[str, Any] = {
        "sub": require_name(user, "user"),
        "aud": audience,
        "exp": int(issued + ttl),
        "iat": int(issued),
        "jti": uuid.uuid4().hex,
        "scope": " ".join(scopes),
    }
    if issuer is not None:
        payload["iss"] = issuer
    if topics is not None:
        payload["topics"] = {name: list(patterns) for name, patterns in topics.items()}
        from_claim(payload["topics"])
    try:
        return jwt.encode(payload, secret, algorithm)
    except jwt.InvalidKeyError:
        raise ValueError("the secret looks like a public key or a JWK") from None


# All tokens of one key share one header text. Refusals raise and so are never cached: a flood of
# bad headers cannot push out the good one. A flood of good ones can, and costs a parse each.
@functools.lru_cache(maxsize=64)
def _read_header(part: bytes) -> tuple[str, str | None]:
    header = _decode_object(part, "header")
    for name in _REFUSED_HEADERS:
        if name in header:
            raise InvalidToken(f"remove {name!r} from the token's header: it is not accepted here")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str):
        raise InvalidToken("the token's header must name its algorithm as a string (alg)")
    if "kid" not in header:
        return algorithm, None
    kid = header["kid"]
    if not isinstance(kid, str) or _match_kid(kid) is None:
        raise InvalidToken(
            f"the token's kid must be 1 to {MAX_KID} characters of A-Z a-z 0-9 . _ : @ = + / -"
        )
    return algorithm, kid


# Few combinations of scopes are ever granted: connections share the sets.
@functools.lru_cache(maxsize=64)
def _split_scopes(scope: str) -> frozenset[str]:
    return frozenset(scope.split(" ")) - {""}


def _decode(part: bytes, what: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except ValueError:
        raise InvalidToken(f"the token's {what} is not base64url") from None


def _decode_object(part: bytes, what: str) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(_decode(part, what))
    except (ValueError, RecursionError):  # NaN, bad UTF-8 and thousands of brackets end here too
        raise InvalidToken(f"the token's {what} is not JSON") from None
    if not isinstance(value, dict):
        raise InvalidToken(f"the token's {what} must be a JSON object")
    return value


def _numeric_date(payload: dict[str, Any], claim: str) -> float | None:
    """A claim in Unix seconds, whole or not (RFC 7519, section 2); None when it is not there."""
    if claim not in payload:
        return None
    value = payload[claim]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidToken(f"the {claim} claim must be a number of seconds since 1970")
    if not 0 <= value <= _LAST_SECOND:
        raise InvalidToken(f"the {claim} claim must be seconds, not milliseconds, since 1970")
    return value
