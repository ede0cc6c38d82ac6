"""JSON Web Tokens: who a caller is and what they may do (RFC 7519, with the advice of RFC 8725).

The signature primitives are PyJWT's; taking the token apart is done here. ``jwt.decode`` parses
the key again for every token, walks the base64 alphabet in Python and reads the wall clock itself:
five times the work of this module, and a clock that tests cannot set.
"""

import base64
import functools
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol

import jwt
import msgspec
from jwt.algorithms import get_default_algorithms

from pushsvc.codes import Close
from pushsvc.errors import InvalidToken, Unavailable
from pushsvc.protocol.grants import NOTHING, Grants, from_claim, grants
from pushsvc.protocol.names import caller, require_name

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

MOST_PROVEN: Final = 64
"""Tokens of one issuer whose signature is not checked again by the same key."""

LEEWAY: Final = 10.0
"""Seconds by which the issuer's clock and this one may disagree."""

HMAC_ALGORITHMS: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
"""The shared-secret algorithms, with the least bytes of a secret (RFC 7518, section 3.2)."""

_TOO_LONG = f"send a token of at most {MAX_TOKEN} bytes"
_NOT_COMPACT = "send a compact JWT: three unpadded base64url parts joined by dots, nothing else"

Check = Callable[[bytes, bytes], bool]
"""Whether the second argument is the right signature over the first."""

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
# "none" among them; what else a token says there is not repeated.
_NAMES = frozenset(get_default_algorithms())
_match_kid = re.compile(rf"[A-Za-z0-9._:@=+/-]{{1,{MAX_KID}}}").fullmatch

# "crit" asks for extensions, and none are implemented (RFC 7515, section 4.1.11). "b64" is one that
# JWTs must not use (RFC 7797, section 7). The rest let a token bring or point to its own key
# (RFC 8725, sections 3.5 and 3.10); refused rather than ignored, because a token that needs them
# was not made for this service.
_REFUSED_HEADERS = ("crit", "b64", "jku", "jwk", "x5u", "x5c")


class Claims(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What a verified token says.

    Args:
        user: the subject (``sub``), a valid name.
        expires: when the token ends (``exp``), in Unix seconds, without leeway.
        scopes: the granted scopes, known here or not (``scope``, RFC 8693, section 4.2).
        issued: when the token was made (``iat``), in Unix seconds.
        token_id: the token's own id (``jti``).
        grants: the topics that it opens on a socket (``topics``).
        namespace: whose users and topics it is about; empty for the default namespace.
        operator: whether it may look into every namespace.
        issuer: the configured ``iss`` that it is from; empty where there is no file of issuers.
    """

    # gc=False: one of these lives as long as its connection and can never be part of a cycle.

    user: str
    expires: int
    scopes: frozenset[str] = frozenset()
    issued: int | None = None
    token_id: str | None = None
    grants: Grants = NOTHING
    namespace: str = ""
    operator: bool = False
    issuer: str = ""

    @property
    def caller(self) -> str:
        """The user among those of all namespaces."""
        return caller(self.user, self.namespace)


def shared(claims: Claims) -> Claims:
    """Equal claims that share what the claims of many connections have in common."""
    return Claims(
        claims.user,
        claims.expires,
        shared_scopes(claims.scopes),
        claims.issued,
        claims.token_id,
        grants(
            claims.grants.subscribe,
            claims.grants.publish,
            claims.grants.source,
            claims.grants.limit,
        ),
        sys.intern(claims.namespace),
        claims.operator,
        sys.intern(claims.issuer),
    )


class TokenCheck(Protocol):
    """Verifies tokens: a ``Verifier``, or the authenticator in front of it."""

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

    @property
    def namespaces(self) -> Mapping[str, str]:
        """The issuers whose tokens are good now, by ``Claims.issuer``, with their namespaces."""

    def looked_at(self, token: str) -> str:
        """Where a verified token's scopes were looked for, and what was there, for people."""

    async def aclose(self) -> None:
        """Stop what runs in the background."""


class ClaimReader(Protocol):
    """Reads what a token says, once its signature was verified."""

    def read(self, payload: dict[str, Any], now: float) -> Claims:
        """What the claims say, at a time in Unix seconds.

        Raises:
            InvalidToken: the token is not good here; the detail says what to change.
        """

    def setting(self, key: str) -> str:
        """What to change: a variable without its prefix, or a key in the file of issuers."""

    def looked_at(self, payload: dict[str, Any]) -> str:
        """Where scopes were looked for, what was there, and which setting says so."""


class KeySource(Protocol):
    """Where a verifier finds the keys that tokens are checked with."""

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The algorithms that its tokens may use."""

    @property
    def setting(self) -> str:
        """Which setting names it, for people."""

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

    def start(self) -> None:
        """Begin to bring keys without a token having to come; the event loop runs by now."""

    def missing(self) -> str | None:
        """Why there are no keys yet; None once there were some."""

    async def aclose(self) -> None:
        """Stop what runs in the background."""


def key_troubles(sources: Iterable[KeySource]) -> list[str]:
    """Why no token can be verified: what each source misses; empty once one of them has keys."""
    missing = [source.missing() for source in sources]
    return [] if None in missing else [trouble for trouble in missing if trouble is not None]


class _Proven(msgspec.Struct, eq=False):
    """A token whose signature was right, and what it says."""

    algorithm: str
    kid: str | None
    check: Check
    """What told so; where that is another by now, it has to tell again."""
    payload: dict[str, Any]
    claims: Claims
    since: float
    """When the claims were read: from then until they expire they say the same."""


class Verifier:
    """Verifies tokens against one key source and one set of expectations.

    Args:
        keys: where keys come from; closed by ``aclose``.
        algorithms: the accepted algorithms; the token's header only ever picks one of them
            (RFC 8725, section 3.1).
        reader: of the claims.
        clock: the time in Unix seconds.
    """

    namespaces: Mapping[str, str] = MappingProxyType({"": ""})
    """See ``TokenCheck.namespaces``: there is one issuer, and no file of them."""

    def __init__(
        self,
        keys: KeySource,
        *,
        algorithms: Iterable[str],
        reader: ClaimReader,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.algorithms = tuple(algorithms)
        self.on_gone: Callable[[Mapping[str, Close]], None] = lambda _: None
        """See ``Issuers``; the one issuer is never gone."""
        self._keys = keys
        self._accepted = frozenset(self.algorithms)
        self._reader = reader
        self._clock = clock
        self._proven: dict[str, _Proven] = {}
        """Tokens whose signature was right a moment ago: a backend sends the same again and again.
        Whether they are good at the time, and by a key of this time, is judged each time."""

    def start(self) -> None:
        """Begin to bring keys without a token having to come; the event loop runs by now."""
        self._keys.start()

    async def follow(self) -> None:
        """Take over what changes until cancelled; nothing does, where there is no file."""

    def sources(self) -> list[KeySource]:
        """Where keys come from."""
        return [self._keys]

    def troubles(self) -> list[str]:
        """Why no token can be verified; empty once there were keys."""
        return key_troubles(self.sources())

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
        proven = self._proven.get(token)
        if proven is None or self._keys.find(proven.algorithm, proven.kid) is not proven.check:
            proven = self._prove(token)
            if proven is None:
                return None
        now = self._clock()
        if not proven.since <= now < proven.claims.expires:
            proven.claims = self._reader.read(proven.payload, now)
            proven.since = now
        return proven.claims

    def _prove(self, token: str) -> "_Proven | None":
        """A token whose signature is right; None where its key has to be fetched first.

        Raises:
            InvalidToken: it is not, or not good at this time.
            Unavailable: the keys were never fetched and cannot be for now.
        """
        if len(token) > MAX_TOKEN:
            raise InvalidToken(_TOO_LONG)
        # Base64 decoders skip what they do not know; this check does not, and runs at C speed.
        if not token.isascii() or (data := token.encode()).translate(None, _ALPHABET) != b"..":
            raise InvalidToken(_NOT_COMPACT)
        signed, _, signature_part = data.rpartition(b".")
        header_part, _, payload_part = signed.partition(b".")

        algorithm, kid = _read_header(header_part)
        if algorithm not in self._accepted:
            held = algorithm if algorithm in _NAMES else "none of these"
            raise InvalidToken(
                f"sign the token with one of: {', '.join(self.algorithms)} "
                f"({self._reader.setting('algorithms')}): its alg is {held}"
            )
        check = self._keys.find(algorithm, kid)
        if check is None:
            return None
        payload = self._payload(check, signed, signature_part, payload_part)
        now = self._clock()
        claims = self._reader.read(payload, now)
        if len(self._proven) >= MOST_PROVEN:
            del self._proven[next(iter(self._proven))]
        proven = self._proven[token] = _Proven(algorithm, kid, check, payload, claims, now)
        return proven

    def _payload(
        self, check: Check, signed: bytes, signature_part: bytes, payload_part: bytes
    ) -> dict[str, Any]:
        """The payload of a token whose signature is right.

        Raises:
            InvalidToken: it is not, or the payload cannot be read.
        """
        signature = _decode(signature_part, "signature")
        # The last character of base64 may have bits that decode to nothing. Header and payload are
        # signed as text; only the signature itself could be respelled into a "different" token.
        if base64.urlsafe_b64encode(signature).rstrip(b"=") != signature_part:
            raise InvalidToken("encode the token's signature as canonical base64url")
        if not check(signed, signature):
            raise InvalidToken(
                "the signature does not match: sign with the key configured here "
                f"({self._keys.setting})"
            )
        return _decode_object(payload_part, "payload")

    def looked_at(self, token: str) -> str:
        """See ``TokenCheck.looked_at``."""
        return self._reader.looked_at(payload_of(token))

    async def aclose(self) -> None:
        """Close the key source; tokens of keys already held can still be verified."""
        await self._keys.aclose()


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
    user_claim: str = "sub",
    audience_claim: str | None = "aud",
    scope_claim: str = "scope",
    topics_claim: str = "topics",
    further: Mapping[str, str | bool] = MappingProxyType({}),
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
        user_claim: where the node looks for the user.
        audience_claim: where it looks for the audience; None for no claim.
        scope_claim: where it looks for scopes.
        topics_claim: where it looks for patterns of topics.
        further: claims that it requires.

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
        **further,
        user_claim: require_name(user, "user"),
        "exp": int(issued + ttl),
        "iat": int(issued),
        "jti": uuid.uuid4().hex,
        scope_claim: " ".join(scopes),
    }
    if audience_claim is not None:
        payload[audience_claim] = audience
    if issuer is not None:
        payload["iss"] = issuer
    if topics is not None:
        payload[topics_claim] = {name: list(patterns) for name, patterns in topics.items()}
        from_claim(payload[topics_claim])
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
def shared_scopes(scopes: frozenset[str]) -> frozenset[str]:
    """The same scopes; the same object, while many have them."""
    return scopes


@functools.lru_cache(maxsize=64)
def split_scopes(scope: str) -> frozenset[str]:
    """The scopes of a space-separated string (RFC 8693, section 4.2)."""
    return shared_scopes(frozenset(scope.split(" ")) - {""})


def payload_of(token: str) -> dict[str, Any]:
    """The claims of a token that was not verified: good for finding its issuer, and no more.

    Raises:
        InvalidToken: there are none to be read.
    """
    if len(token) > MAX_TOKEN:
        raise InvalidToken(_TOO_LONG)
    parts = token.encode(errors="replace").split(b".")
    if len(parts) != 3:
        raise InvalidToken(_NOT_COMPACT)
    return _decode_object(parts[1], "payload")


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
