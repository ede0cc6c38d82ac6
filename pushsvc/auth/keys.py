"""The keys that tokens are verified with: a shared secret, a public key file or a JWKS address.

A key can only ever check the algorithms of its own family and curve, whatever a token's header
says (RFC 8725, sections 3.1 and 3.2).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextvars import Context
from typing import Any, Final
from urllib.parse import urlsplit

import jwt
import msgspec
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from pushsvc.auth.tokens import HMAC_ALGORITHMS, Check, Verifier
from pushsvc.errors import InvalidToken, Unavailable

REFRESH_AFTER: Final = 600.0
"""Seconds after which a use of the key set has it fetched again in the background."""

FETCH_INTERVAL: Final = 30.0
"""Seconds between the starts of two fetches, at least, whatever calls for them."""

FETCH_TIMEOUT: Final = 10.0
"""Seconds that a fetch may take."""

MAX_JWKS: Final = 1 << 20
"""Bytes of a key set document."""

MIN_RSA_BITS: Final = 2048
"""The least size of an RSA key (RFC 7518, section 3.3)."""

_RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVE_ALGORITHMS = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}

ALGORITHMS: Final = (*HMAC_ALGORITHMS, *_RSA_ALGORITHMS, *_CURVE_ALGORITHMS.values(), "EdDSA")
"""Every algorithm that can be configured; "none" is not among them."""

_JWKS_DEFAULT = ("RS256", "ES256", "EdDSA")
_PUBLIC_ALGORITHMS = tuple(name for name in ALGORITHMS if name not in HMAC_ALGORITHMS)

# Which of PyJWT's algorithms reads a JWK of this type; "oct" is missing because a secret in a
# document that anyone can fetch is none.
_JWK_READERS = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}

_ONE_SOURCE = (
    "set exactly one of JWT_SECRET (or JWT_SECRET_FILE), JWT_PUBLIC_KEY_FILE and JWT_JWKS_URL"
)

_log = structlog.get_logger(__name__)


class KeyConfigError(ValueError):
    """A setting about keys that a node cannot start with.

    Args:
        variable: the setting to change.
        message: what is wrong with it, without key material.
    """

    def __init__(self, variable: str, message: str) -> None:
        super().__init__(f"{variable}: {message}")
        self.variable = variable
        self.message = message


def verifier(
    *,
    algorithms: Sequence[str],
    secret: str | None,
    public_key_pem: bytes | None,
    jwks_url: str | None,
    issuer: str | None,
    audience: str,
    fetch: Callable[[str], Awaitable[bytes]] | None,
    clock: Callable[[], float] = time.time,
) -> Verifier:
    """Build the verifier that the settings describe.

    Args:
        algorithms: the accepted algorithms; empty for HS256 with a secret, the key's own with a
            public key (RS256 for RSA), and RS256, ES256 and EdDSA with a JWKS.
        secret: the shared secret; its UTF-8 bytes are the key.
        public_key_pem: the contents of a PEM file with one public key.
        jwks_url: the http or https address of a JWK Set (RFC 7517, section 5).
        issuer: what ``iss`` must be; None accepts any.
        audience: what ``aud`` must be or contain.
        fetch: returns the body of an address, or raises; needed with ``jwks_url`` only. Gets
            ``FETCH_TIMEOUT`` seconds, and should itself stop reading past ``MAX_JWKS`` bytes.
        clock: the time in Unix seconds.

    Raises:
        KeyConfigError: the settings do not name exactly one good key source, or the algorithms do
            not fit it.
    """
    sources = {
        "JWT_SECRET": secret,
        "JWT_PUBLIC_KEY_FILE": public_key_pem,
        "JWT_JWKS_URL": jwks_url,
    }
    given = [variable for variable, value in sources.items() if value is not None]
    if len(given) > 1:
        raise KeyConfigError(given[0], f"{_ONE_SOURCE}; {' and '.join(given)} are set")
    # An empty expectation would be met by an empty claim.
    if not audience:
        raise KeyConfigError("JWT_AUDIENCE", "is empty")
    if issuer is not None and not issuer:
        raise KeyConfigError("JWT_ISSUER", "is empty; leave it out to accept any issuer")
    _require_known(algorithms)

    keys: FixedKey | Jwks
    if secret is not None:
        chosen = _require_fit(algorithms or ("HS256",), tuple(HMAC_ALGORITHMS), "JWT_SECRET")
        keys = FixedKey(_checks(_read_secret(secret, chosen), chosen))
    elif public_key_pem is not None:
        key = _read_pem(public_key_pem)
        family = _family(key)
        chosen = _require_fit(algorithms or family[:1], family, "the key in JWT_PUBLIC_KEY_FILE")
        keys = FixedKey(_checks(key, chosen))
    elif jwks_url is not None:
        chosen = _require_fit(algorithms or _JWKS_DEFAULT, _PUBLIC_ALGORITHMS, "JWT_JWKS_URL")
        if fetch is None:
            raise ValueError("a JWKS address needs a callable to fetch it with")
        keys = Jwks(_require_address(jwks_url), fetch, algorithms=chosen, clock=clock)
    else:
        raise KeyConfigError("JWT_SECRET", f"{_ONE_SOURCE}; none is set")
    return Verifier(keys, algorithms=chosen, audience=audience, issuer=issuer, clock=clock)


class FixedKey:
    """One key that is there from the start; the ``kid`` of a token does not matter.

    Args:
        checks: the check of each accepted algorithm.
    """

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = dict(checks)

    def find(self, algorithm: str, kid: str | None) -> Check | None:  # noqa: ARG002
        """See ``KeySource.find``."""
        return self._checks[algorithm]

    async def fetch(self) -> None:
        """See ``KeySource.fetch``; there is nothing to fetch."""

    async def aclose(self) -> None:
        """See ``KeySource.aclose``; there is nothing to stop."""


class KeySet:
    """The usable keys of one JWK Set document.

    Left out are keys that are symmetric, private, not for signatures, too small, unreadable, or of
    a kind that no accepted algorithm uses: one bad key does not spoil the others (RFC 7517,
    section 5).

    Args:
        document: the JSON text.
        algorithms: the accepted algorithms.

    Raises:
        ValueError: the document is too large or not a JWK Set.
    """

    def __init__(self, document: bytes, algorithms: Collection[str]) -> None:
        if len(document) > MAX_JWKS:
            raise ValueError(f"the document is larger than {MAX_JWKS} bytes")
        try:
            value = msgspec.json.decode(document)
        except RecursionError:
            raise ValueError("the document is nested too deeply") from None
        if not isinstance(value, dict) or not isinstance(value.get("keys"), list):
            raise ValueError("the document is not a JSON object with a list of keys")  # noqa: TRY004
        jwks = [jwk for jwk in value["keys"] if isinstance(jwk, dict)]
        found = [(jwk.get("kid"), _read_jwk(jwk, algorithms)) for jwk in jwks]
        usable = [(kid, checks) for kid, checks in found if checks]
        self.kids = {kid for kid, _ in usable if kid is not None}
        self.checks: dict[tuple[str | None, str], Check] = {}
        for kid, checks in usable:
            for algorithm, check in checks.items():
                if kid is not None:
                    self.checks.setdefault((kid, algorithm), check)
                if len(usable) == 1:  # no doubt which key a token without a kid means
                    self.checks[None, algorithm] = check


class Jwks:
    """The keys at a JWKS address, fetched when first needed and kept up to date by use.

    Keys once fetched stay in use for as long as newer ones cannot be had. Fetches never overlap,
    and start at least ``FETCH_INTERVAL`` apart, however many tokens name unknown keys.

    Args:
        url: the address, handed to ``fetch``.
        fetch: returns the document, or raises.
        algorithms: the accepted algorithms.
        clock: the time in Unix seconds.
    """

    def __init__(
        self,
        url: str,
        fetch: Callable[[str], Awaitable[bytes]],
        *,
        algorithms: Sequence[str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._url = url
        self._fetch = fetch
        self._algorithms = algorithms
        self._clock = clock
        self._keys: KeySet | None = None
        self._fetched = float("-inf")
        self._tried = float("-inf")
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def find(self, algorithm: str, kid: str | None) -> Check | None:
        """See ``KeySource.find``; starts a refresh in the background when the keys are old."""
        now = self._clock()
        if self._keys is not None:
            # Also true after the clock was set back.
            if not 0 <= now - self._fetched < REFRESH_AFTER:
                self._start(now)
            check = self._keys.checks.get((kid, algorithm))
            if check is not None:
                return check
            if kid is None:
                raise InvalidToken("name the issuer's key in the token's header (kid)")
            if kid in self._keys.kids:
                raise InvalidToken("the key that the token's kid names is not for its algorithm")
        wait = self._wait(now)
        if self._task is not None or not wait:
            return None
        if self._keys is None:
            raise Unavailable("the issuer's keys could not be fetched: try again", retry_after=wait)
        raise InvalidToken("the token's kid names no key of the issuer", retry_after=wait)

    async def fetch(self) -> None:
        """See ``KeySource.fetch``; all who wait at the same time wait for the same fetch."""
        self._start(self._clock())
        if self._task is not None:
            # wait() leaves the task alone when the one who waits is cancelled, and does not pass on
            # the task's own cancellation by aclose().
            await asyncio.wait([self._task])

    async def aclose(self) -> None:
        """See ``KeySource.aclose``; keys already held can still be found."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _wait(self, now: float) -> float:
        """Seconds until the next fetch may start."""
        if self._closed:
            return FETCH_INTERVAL
        since = now - self._tried
        return FETCH_INTERVAL - since if 0 <= since < FETCH_INTERVAL else 0.0

    def _start(self, now: float) -> None:
        if self._task is None and not self._wait(now):
            # An empty context: what is logged belongs to no request.
            task = asyncio.get_running_loop().create_task(self._refresh(), context=Context())
            self._tried = now
            self._task = task
            task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        if self._task is task:
            self._task = None

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT):
                document = await self._fetch(self._url)
            keys = KeySet(document, self._algorithms)
        except Exception as error:  # noqa: BLE001 -- whatever it is, the old keys stay in use
            _log.warning("jwks fetch failed", error=type(error).__name__, reason=str(error))
        else:
            self._keys = keys
            self._fetched = self._clock()
            _log.info("jwks fetched", kids=len(keys.kids))


def _require_known(algorithms: Sequence[str]) -> None:
    for name in algorithms:
        if name not in ALGORITHMS:
            raise KeyConfigError(
                "JWT_ALGORITHMS", f"{name!r} is not supported; choose from {', '.join(ALGORITHMS)}"
            )
    if len({name in HMAC_ALGORITHMS for name in algorithms}) > 1:
        raise KeyConfigError("JWT_ALGORITHMS", "mixes shared-secret and public-key algorithms")


def _require_fit(names: Sequence[str], family: Sequence[str], source: str) -> tuple[str, ...]:
    for name in names:
        if name not in family:
            raise KeyConfigError(
                "JWT_ALGORITHMS", f"{name} does not fit {source}; choose from {', '.join(family)}"
            )
    return tuple(dict.fromkeys(names))


def _require_address(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise KeyConfigError("JWT_JWKS_URL", "is not an http or https address")
    return url


def _read_secret(secret: str, algorithms: Sequence[str]) -> bytes:
    try:
        key = secret.encode()
        if not key:
            raise KeyConfigError("JWT_SECRET", "is empty")
        jwt.get_algorithm_by_name(algorithms[0]).prepare_key(key)
    except UnicodeEncodeError:
        raise KeyConfigError("JWT_SECRET", "is not valid UTF-8") from None
    except jwt.InvalidKeyError:
        raise KeyConfigError(
            "JWT_SECRET", "looks like a public key or a JWK; that would belong in another setting"
        ) from None
    for name in algorithms:
        if len(key) < HMAC_ALGORITHMS[name]:
            raise KeyConfigError(
                "JWT_SECRET", f"is too short; {name} needs at least {HMAC_ALGORITHMS[name]} bytes"
            )
    return key


def _read_pem(pem: bytes) -> object:
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise KeyConfigError(
            "JWT_PUBLIC_KEY_FILE", "is not a PEM public key; make one with: openssl pkey -pubout"
        ) from None
    if not _family(key):
        raise KeyConfigError(
            "JWT_PUBLIC_KEY_FILE",
            f"is not an RSA key of {MIN_RSA_BITS} bits or more, "
            "nor an EC key on P-256, P-384 or P-521, nor an Ed25519 or Ed448 key",
        )
    return key


def _read_jwk(jwk: dict[str, Any], algorithms: Collection[str]) -> dict[str, Check]:
    """The checks that a JWK is good for; none if it is not usable at all."""
    if not isinstance(jwk.get("kid"), str | None) or jwk.get("use", "sig") != "sig":
        return {}
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return {}
    try:
        key = jwt.get_algorithm_by_name(_JWK_READERS[jwk["kty"]]).from_jwk(jwk)
        pinned = (jwk["alg"],) if "alg" in jwk else algorithms
        return _checks(
            key, [name for name in _family(key) if name in algorithms and name in pinned]
        )
    except (jwt.PyJWTError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return {}
    except UnsupportedAlgorithm:
        return {}


def _family(key: object) -> tuple[str, ...]:
    """The algorithms that a key is good for; none for a private, weak or unsupported key."""
    match key:
        case RSAPublicKey() if key.key_size >= MIN_RSA_BITS:
            return _RSA_ALGORITHMS
        case EllipticCurvePublicKey() if key.curve.name in _CURVE_ALGORITHMS:
            return (_CURVE_ALGORITHMS[key.curve.name],)
        case Ed25519PublicKey() | Ed448PublicKey():
            return ("EdDSA",)
        case _:
            return ()


def _checks(key: object, algorithms: Sequence[str]) -> dict[str, Check]:
    return {name: _check(name, key) for name in algorithms}


def _check(name: str, key: object) -> Check:
    algorithm = jwt.get_algorithm_by_name(name)
    # Once, here: with a shared secret this is four times the work of the check itself.
    prepared = algorithm.prepare_key(key)

    def check(signed: bytes, signature: bytes) -> bool:
        return algorithm.verify(signed, prepared, signature)

    return check
