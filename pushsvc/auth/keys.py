"""The keys that tokens are verified with: what can be read, and what each key may check.

A key can only ever check the algorithms of its own family and curve, whatever a token's header
says (RFC 8725, sections 3.1 and 3.2).
"""

import re
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, Literal

import jwt
import msgspec
import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from pushsvc.auth.tokens import HMAC_ALGORITHMS, Check

MAX_JWKS: Final = 1 << 20
"""Bytes of a key set document."""

MAX_JWKS_KEYS: Final = 100
"""Keys in such a document; the providers that have many have a dozen."""

MAX_FIXED: Final = 4
"""Keys of one source that are tried one after the other: each costs a signature check."""

MAX_PEM: Final = 64 * 1024
"""Bytes of public keys and certificates."""

MIN_RSA_BITS: Final = 2048
"""The least size of an RSA key (RFC 7518, section 3.3)."""

MAX_RSA_BITS: Final = 16384
"""The most: OpenSSL checks nothing with a larger one."""

_RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVE_ALGORITHMS = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}

ALGORITHMS: Final = (*HMAC_ALGORITHMS, *_RSA_ALGORITHMS, *_CURVE_ALGORITHMS.values(), "EdDSA")
"""Every algorithm that can be configured; "none" is not among them."""

_JWKS_DEFAULT = ("RS256", "ES256", "EdDSA")
_PUBLIC_ALGORITHMS = tuple(name for name in ALGORITHMS if name not in HMAC_ALGORITHMS)

# Which of PyJWT's algorithms reads a JWK of this type; "oct" is missing because a secret in a
# document that anyone can fetch is none.
_JWK_READERS = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}

_find_pems = re.compile(
    rb"-----BEGIN ([A-Z0-9 ]{1,40})-----[^-]*-----END \1-----",
).finditer

_log = structlog.get_logger(__name__)


class KeyConfigError(ValueError):
    """A source of keys that a node cannot start with.

    Args:
        part: what is wrong with it: the keys, or where they come from; or the algorithms. Who
            builds the source knows which setting that is.
        message: what is wrong, without key material.
    """

    def __init__(self, part: Literal["keys", "algorithms"], message: str) -> None:
        super().__init__(message)
        self.part = part
        self.message = message


class FixedKeys:
    """A few keys that are there from the start; the ``kid`` of a token does not matter.

    Args:
        checks: the check of each accepted algorithm.
        setting: see ``KeySource.setting``.
    """

    def __init__(self, checks: dict[str, Check], setting: str) -> None:
        self.setting = setting
        self.algorithms = tuple(checks)
        self._checks = checks

    def find(self, algorithm: str, kid: str | None) -> Check | None:  # noqa: ARG002
        """See ``KeySource.find``."""
        return self._checks[algorithm]

    async def fetch(self) -> None:
        """See ``KeySource.fetch``; there is nothing to fetch."""

    def start(self) -> None:
        """See ``KeySource.start``; there is nothing to fetch."""

    def missing(self) -> str | None:
        """See ``KeySource.missing``; nothing ever is."""
        return None

    async def aclose(self) -> None:
        """See ``KeySource.aclose``; there is nothing to stop."""


def secret_keys(
    secrets: Sequence[str], algorithms: Sequence[str], *, setting: str = "JWT_SECRET"
) -> FixedKeys:
    """The keys that shared secrets are.

    Args:
        secrets: one; or more, while one takes the place of another. Their UTF-8 bytes are the keys.
        algorithms: the accepted ones; empty for HS256.
        setting: see ``KeySource.setting``.

    Raises:
        KeyConfigError: a secret is none, or the algorithms do not fit.
    """
    _require_known(algorithms)
    _require_few(len(secrets), "secret")
    chosen = _require_fit(algorithms or ("HS256",), tuple(HMAC_ALGORITHMS), "a shared secret")
    keys = [(_read_secret(secret, chosen), chosen) for secret in secrets]
    return _fixed(keys, chosen, setting)


def public_keys(
    pem: bytes,
    algorithms: Sequence[str],
    *,
    setting: str = "JWT_PUBLIC_KEY_FILE",
    clock: Callable[[], float] = time.time,
) -> FixedKeys:
    """The keys of a PEM file.

    A certificate stands for its key. That it has expired, or that nobody known has signed it, says
    nothing of who holds the key: it was named here. A certificate that only leads from the one
    before it to the authority is left out, since that authority signs no tokens.

    Args:
        pem: public keys and certificates: one; or more, while one takes the place of another.
        algorithms: the accepted ones; empty for the keys' own (RS256 for RSA).
        setting: see ``KeySource.setting``.
        clock: the time in Unix seconds.

    Raises:
        KeyConfigError: there is no key, or one that cannot be used, or the algorithms do not fit.
    """
    _require_known(algorithms)
    found = _read_pem(pem, clock())
    _require_few(len(found), "public key")
    families = [_family(key) for key in found]
    every = [name for family in families for name in family]
    chosen = _require_fit(
        algorithms or [family[0] for family in families], tuple(dict.fromkeys(every)), "the key"
    )
    for family in families:
        if not set(family) & set(chosen):
            raise KeyConfigError(
                "algorithms", f"leaves a key without any; add one of {', '.join(family)}"
            )
    return _fixed(list(zip(found, families, strict=True)), chosen, setting)


def jwks_algorithms(algorithms: Sequence[str]) -> tuple[str, ...]:
    """The accepted algorithms of keys from a JWK Set.

    Args:
        algorithms: the wanted ones; empty for RS256, ES256 and EdDSA.

    Raises:
        KeyConfigError: one of them is not known, or is for shared secrets.
    """
    _require_known(algorithms)
    return _require_fit(algorithms or _JWKS_DEFAULT, _PUBLIC_ALGORITHMS, "a key set (JWKS)")


class KeySet:
    """The usable keys of one JWK Set document.

    Left out are keys that are symmetric, private, not for signatures, too small, unreadable, or of
    a kind that no accepted algorithm uses: one bad key does not spoil the others (RFC 7517,
    section 5).

    Args:
        document: the JSON text.
        algorithms: the accepted algorithms.

    Raises:
        ValueError: the document is too large, not a JWK Set, or has no usable key.
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
        if len(value["keys"]) > MAX_JWKS_KEYS:
            raise ValueError(f"the document has more than {MAX_JWKS_KEYS} keys")
        jwks = [jwk for jwk in value["keys"] if isinstance(jwk, dict)]
        found = [(jwk.get("kid"), _read_jwk(jwk, algorithms)) for jwk in jwks]
        usable = [(kid, checks) for kid, checks in found if checks]
        if not usable:
            # Taken for a mishap: an issuer that withdraws a key has another one by then.
            raise ValueError(f"none of the document's {len(value['keys'])} keys can be used")
        self.usable = len(usable)
        self.kids = {kid for kid, _ in usable if kid is not None}
        self.checks: dict[tuple[str | None, str], Check] = {}
        for kid, checks in usable:
            for algorithm, check in checks.items():
                if kid is not None:
                    self.checks.setdefault((kid, algorithm), check)
                if len(usable) == 1:  # no doubt which key a token without a kid means
                    self.checks[None, algorithm] = check


def _fixed(
    keys: Sequence[tuple[object, Sequence[str]]], algorithms: Sequence[str], setting: str
) -> FixedKeys:
    """Keys, each with what it is good for, and the algorithms that are accepted."""
    return FixedKeys(
        {
            name: _any([_check(name, key) for key, family in keys if name in family])
            for name in algorithms
        },
        setting,
    )


def _any(checks: list[Check]) -> Check:
    if len(checks) == 1:
        return checks[0]

    def check(signed: bytes, signature: bytes) -> bool:
        return any(one(signed, signature) for one in checks)

    return check


def _require_known(algorithms: Sequence[str]) -> None:
    for name in algorithms:
        if name not in ALGORITHMS:
            raise KeyConfigError(
                "algorithms", f"{name!r} is not supported; choose from {', '.join(ALGORITHMS)}"
            )
    if len({name in HMAC_ALGORITHMS for name in algorithms}) > 1:
        raise KeyConfigError("algorithms", "mixes shared-secret and public-key algorithms")


def _require_fit(names: Sequence[str], family: Sequence[str], source: str) -> tuple[str, ...]:
    for name in names:
        if name not in family:
            raise KeyConfigError(
                "algorithms", f"{name} does not fit {source}; choose from {', '.join(family)}"
            )
    return tuple(dict.fromkeys(names))


def _require_few(count: int, what: str) -> None:
    if not 1 <= count <= MAX_FIXED:
        raise KeyConfigError("keys", f"has {count} {what}s: 1 to {MAX_FIXED} can be used")


def _read_secret(secret: str, algorithms: Sequence[str]) -> bytes:
    try:
        key = secret.encode()
        if not key:
            raise KeyConfigError("keys", "is empty")
        jwt.get_algorithm_by_name(algorithms[0]).prepare_key(key)
    except UnicodeEncodeError:
        raise KeyConfigError("keys", "is not valid UTF-8") from None
    except jwt.InvalidKeyError:
        raise KeyConfigError(
            "keys", "looks like a public key or a JWK; that would belong in another setting"
        ) from None
    for name in algorithms:
        if len(key) < HMAC_ALGORITHMS[name]:
            raise KeyConfigError(
                "keys", f"is too short; {name} needs at least {HMAC_ALGORITHMS[name]} bytes"
            )
    return key


def _read_pem(pem: bytes, now: float) -> list[object]:
    """The keys of a PEM file, in its order."""
    if len(pem) > MAX_PEM:
        raise KeyConfigError("keys", f"is larger than {MAX_PEM} bytes")
    found: list[object] = []
    above = None
    for block in _find_pems(pem):
        key: object
        try:
            if block[1] == b"CERTIFICATE":
                certificate = x509.load_pem_x509_certificate(block[0])
                if certificate.subject == above:  # leads from the one before to the authority
                    above = _issuer_above(certificate)
                    continue
                above = _issuer_above(certificate)
                key = certificate.public_key()
                _tell_dates(certificate, now)
            else:
                key = load_pem_public_key(block[0])
        except (ValueError, TypeError, UnsupportedAlgorithm):
            if b"PRIVATE KEY" in block[1]:
                message = (
                    "holds a private key; put the public one there: openssl pkey -in … -pubout"
                )
            else:
                message = f"has a {block[1].decode()} that cannot be read"
            raise KeyConfigError("keys", message) from None
        if not _family(key):
            raise KeyConfigError(
                "keys",
                f"has a key that is no RSA key of {MIN_RSA_BITS} to {MAX_RSA_BITS} bits, "
                "no EC key on P-256, P-384 or P-521, and no Ed25519 or Ed448 key",
            )
        found.append(key)
    if not found:
        raise KeyConfigError(
            "keys", "has no PEM public key (BEGIN PUBLIC KEY) and no certificate in it"
        )
    return found


def _issuer_above(certificate: x509.Certificate) -> x509.Name | None:
    """Who signed a certificate; None if that is itself."""
    return None if certificate.issuer == certificate.subject else certificate.issuer


def _tell_dates(certificate: x509.Certificate, now: float) -> None:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begins.timestamp() <= now < ends.timestamp():
        _log.warning(
            "a certificate that tokens are verified with is out of date; its key is used all the"
            " same",
            begins=begins.isoformat(),
            ends=ends.isoformat(),
        )


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
        case RSAPublicKey() if MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
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
