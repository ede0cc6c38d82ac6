"""Which keys can be used, and what each may check."""

import base64
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.auth.claims import Reader, Rules
from pushsvc.auth.jwks import jwks_at
from pushsvc.auth.keys import (
    ALGORITHMS,
    MAX_FIXED,
    MAX_JWKS,
    MAX_JWKS_KEYS,
    MAX_PEM,
    FixedKeys,
    KeyConfigError,
    KeySet,
    public_keys,
    secret_keys,
)
from pushsvc.auth.tokens import KeySource, Verifier, mint
from pushsvc.errors import InvalidToken
from tests.support.keys import PrivateKey, document, jwk, pem

READER = Reader(Rules(audience=("push",)))
SECRET = "0123456789abcdef" * 4
URL = "https://issuer.example/jwks.json"
NOW = 1_800_000_000.0
PUBLIC = tuple(name for name in ALGORITHMS if not name.startswith("HS"))


def token(
    key: PrivateKey, algorithm: str, kid: str | None = None, *, at: float = NOW, **header: Any
) -> str:
    payload = {"sub": "ann", "aud": "push", "exp": at + 60}
    headers = header if kid is None else {"kid": kid, **header}
    return jwt.encode(payload, key, algorithm, headers=headers)


def build(
    *algorithms: str,
    secret: str | None = None,
    pem: bytes | None = None,
    jwks: str | None = None,
    clock: Callable[[], float] = lambda: NOW,
) -> Verifier:
    keys: KeySource
    if secret is not None:
        keys = secret_keys([secret], algorithms)
    elif pem is not None:
        keys = public_keys(pem, algorithms, clock=clock)
    else:
        assert jwks is not None
        keys = jwks_at(jwks, never, algorithms, clock=clock)
    return Verifier(keys, algorithms=keys.algorithms, reader=READER, clock=clock)


async def never(url: str) -> bytes:
    raise AssertionError(f"{url} is not to be fetched")


def config_error(*algorithms: str, **source: Any) -> KeyConfigError:
    with pytest.raises(KeyConfigError) as caught:
        build(*algorithms, **source)
    assert str(caught.value) == caught.value.message
    if source.get("secret"):
        assert source["secret"] not in str(caught.value)
    return caught.value


def refused(one: Verifier, text: str, because: str) -> InvalidToken:
    with pytest.raises(InvalidToken, match=because) as caught:
        one.verify_cached(text)
    return caught.value


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="module")
def weak_rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 1024)


P256, OTHER_P256 = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
P384 = ec.generate_private_key(ec.SECP384R1())
P521 = ec.generate_private_key(ec.SECP521R1())
K256 = ec.generate_private_key(ec.SECP256K1())
ED25519 = ed25519.Ed25519PrivateKey.generate()
ED448 = ed448.Ed448PrivateKey.generate()


# Settings


def test_a_key_config_error_is_a_value_error() -> None:
    assert issubclass(KeyConfigError, ValueError)


@pytest.mark.parametrize(
    ("algorithms", "length"),
    [((), 32), (("HS256",), 32), (("HS384",), 48), (("HS512",), 64), (("HS256", "HS512"), 64)],
)
def test_a_secret_must_be_as_long_as_the_digest(algorithms: tuple[str, ...], length: int) -> None:
    error = config_error(*algorithms, secret="s" * (length - 1))
    assert error.part == "keys"
    assert f"{length} bytes" in error.message
    assert build(*algorithms, secret="s" * length).algorithms == (algorithms or ("HS256",))


def test_the_length_of_a_secret_is_counted_in_bytes() -> None:
    assert build(secret="é" * 16)


def test_an_empty_secret_is_told_apart_from_a_short_one() -> None:
    assert config_error(secret="").message == "is empty"


@pytest.mark.parametrize("secret", ["", "\ud800" * 32, pem(P256).decode(), json.dumps(jwk(P256))])
def test_a_secret_that_is_none_is_an_error(secret: str) -> None:
    assert config_error(secret=secret).part == "keys"


def private_pem() -> bytes:
    return P256.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"garbage",
        b"\xff\x00",
        private_pem(),
        pem(P256)[:60],
        pem(K256),
        pem(dsa.generate_private_key(1024)),
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    ],
)
def test_a_file_without_a_usable_public_key_is_an_error(text: bytes) -> None:
    assert config_error(pem=text).part == "keys"


def test_an_rsa_key_under_2048_bits_is_an_error(weak_rsa_key: rsa.RSAPrivateKey) -> None:
    error = config_error(pem=pem(weak_rsa_key))
    assert error.part == "keys"
    assert "2048" in error.message


@pytest.mark.parametrize("name", ["none", "None", "hs256", "RS1", "ES256K", "", "HS256 "])
@pytest.mark.parametrize("source", [{"secret": SECRET}, {"pem": pem(P256)}, {"jwks": URL}])
def test_an_unknown_algorithm_is_an_error(name: str, source: dict[str, Any]) -> None:
    error = config_error(name, **source)
    assert error.part == "algorithms"
    assert "not supported" in error.message


@pytest.mark.parametrize("source", [{"secret": SECRET}, {"pem": pem(P256)}, {"jwks": URL}])
def test_shared_secret_and_public_key_algorithms_do_not_mix(source: dict[str, Any]) -> None:
    error = config_error("HS256", "ES256", **source)
    assert error.part == "algorithms"
    assert "mixes" in error.message


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_algorithm_must_fit_the_source(name: str, rsa_key: rsa.RSAPrivateKey) -> None:
    shared = name.startswith("HS")
    fits = {
        "secret": shared,
        "jwks": not shared,
        "rsa": name[:2] in {"RS", "PS"},
        "p256": name == "ES256",
        "p384": name == "ES384",
        "p521": name == "ES512",
        "ed25519": name == "EdDSA",
        "ed448": name == "EdDSA",
    }
    sources: dict[str, dict[str, Any]] = {
        "secret": {"secret": SECRET},
        "jwks": {"jwks": URL},
        "rsa": {"pem": pem(rsa_key)},
        "p256": {"pem": pem(P256)},
        "p384": {"pem": pem(P384)},
        "p521": {"pem": pem(P521)},
        "ed25519": {"pem": pem(ED25519)},
        "ed448": {"pem": pem(ED448)},
    }
    for source, settings in sources.items():
        if fits[source]:
            assert build(name, name, **settings).algorithms == (name,)
        else:
            assert config_error(name, **settings).part == "algorithms"


def test_the_default_algorithms_follow_the_source(rsa_key: rsa.RSAPrivateKey) -> None:
    assert build(secret=SECRET).algorithms == ("HS256",)
    assert build(pem=pem(rsa_key)).algorithms == ("RS256",)
    assert build(pem=pem(P256)).algorithms == ("ES256",)
    assert build(pem=pem(P384)).algorithms == ("ES384",)
    assert build(pem=pem(P521)).algorithms == ("ES512",)
    assert build(pem=pem(ED25519)).algorithms == ("EdDSA",)
    assert build(pem=pem(ED448)).algorithms == ("EdDSA",)
    jwks = build(jwks=URL)
    assert jwks.algorithms == ("RS256", "ES256", "EdDSA")


@pytest.mark.parametrize(
    "url", ["", "issuer.example", "file:///etc/passwd", "https://", "http://["]
)
def test_a_jwks_address_must_be_http_or_https(url: str) -> None:
    assert config_error(jwks=url).part == "keys"


def test_a_minted_token_is_good_for_a_verifier_of_the_same_secret() -> None:
    text = mint(secret=SECRET, user="ann", audience="push", ttl=60, now=NOW)
    claims = build(secret=SECRET).verify_cached(text)
    assert claims is not None
    assert claims.user == "ann"


# A public key file


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_key_checks_tokens_of_its_own_algorithms(
    name: str, rsa_key: rsa.RSAPrivateKey
) -> None:
    own: dict[str, list[Any]] = {
        "ES256": [P256],
        "ES384": [P384],
        "ES512": [P521],
        "EdDSA": [ED25519, ED448],
    }
    for key in own.get(name, [rsa_key]):
        one = build(name, pem=pem(key))
        assert one.verify_cached(token(key, name)) is not None
        assert one.verify_cached(token(key, name, kid="any")) is not None


@pytest.mark.parametrize(
    "key", [P256, P384, P521, ED25519, ED448], ids=["P256", "P384", "P521", "Ed25519", "Ed448"]
)
def test_a_token_signed_with_the_bytes_of_the_public_key_as_secret_is_refused(
    key: PrivateKey, rsa_key: rsa.RSAPrivateKey
) -> None:
    for public in (key, rsa_key):
        text = pem(public)
        for secret in (text, text.strip(), text.replace(b"\n", b"\r\n")):
            header = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"k1"}').rstrip(b"=")
            claims = json.dumps({"sub": "ann", "aud": "push", "exp": NOW + 60}).encode()
            signed = header + b"." + base64.urlsafe_b64encode(claims).rstrip(b"=")
            mac = base64.urlsafe_b64encode(hmac.digest(secret, signed, "sha256")).rstrip(b"=")
            refused(build(pem=text), (signed + b"." + mac).decode(), "sign the token")


def test_a_token_of_another_key_of_the_same_kind_is_refused() -> None:
    one = build(pem=pem(P256))
    refused(one, token(OTHER_P256, "ES256"), "does not match")
    text = token(P256, "ES256")
    refused(one, text.rpartition(".")[0] + ".", "does not match")
    refused(one, text.rpartition(".")[0] + "." + "A" * 86, "does not match")


def test_an_rsa_algorithm_that_is_not_allowed_is_refused(rsa_key: rsa.RSAPrivateKey) -> None:
    one = build("RS256", pem=pem(rsa_key))
    for name in ("RS384", "RS512", "PS256"):
        refused(one, token(rsa_key, name), "sign the token with one of: RS256")


@pytest.mark.parametrize("key", [P256, ED25519, ED448])
@pytest.mark.parametrize("length", [0, 1, 10, 63, 64, 65, 114, 500])
def test_a_signature_of_any_length_is_refused_and_nothing_else(
    key: PrivateKey, length: int
) -> None:
    one = build(pem=pem(key))
    signed = token(key, one.algorithms[0]).rpartition(".")[0]
    signature = base64.urlsafe_b64encode(bytes(length)).rstrip(b"=").decode()
    refused(one, f"{signed}.{signature}", "does not match")


# Certificates, and more than one key


def certificate(
    key: PrivateKey,
    name: str = "signer",
    by: PrivateKey | None = None,
    issuer: str | None = None,
    ends: float = NOW + 1000,
) -> bytes:
    """A certificate, signed by itself or by another key."""

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    signer = by or key
    end = datetime.fromtimestamp(ends, UTC)
    edwards = isinstance(signer, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    return (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer or name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - timedelta(days=30))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(signer, None if edwards else hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )


@pytest.mark.parametrize("key", [P256, P384, ED25519])
def test_a_certificate_stands_for_its_key(key: PrivateKey) -> None:
    text = b"Bag Attributes\n    friendlyName: signer\n" + certificate(key)
    one = build(pem=text)
    assert one.verify_cached(token(key, one.algorithms[0])) is not None
    refused(one, token(P521, "ES512"), "sign the token with one of")


@pytest.mark.parametrize("ends", [NOW - 1, NOW + 40 * 86_400], ids=["expired", "not yet good"])
def test_the_key_of_a_certificate_out_of_date_is_used_and_said(ends: float) -> None:
    with structlog.testing.capture_logs() as log:
        one = build(pem=certificate(P256, ends=ends))
    assert one.verify_cached(token(P256, "ES256")) is not None
    (line,) = log
    assert line["log_level"] == "warning"
    assert "out of date" in line["event"]
    assert line["ends"] == datetime.fromtimestamp(ends, UTC).isoformat()


def test_what_certified_a_certificate_signs_no_tokens() -> None:
    middle, root = P384, ED25519
    chain = (
        certificate(P256, "leaf", middle, "middle")
        + certificate(middle, "middle", root, "root")
        + certificate(root, "root")
    )
    one = build(pem=chain)
    assert one.algorithms == ("ES256",)
    assert one.verify_cached(token(P256, "ES256")) is not None


def test_two_keys_are_good_while_one_takes_the_place_of_the_other(
    rsa_key: rsa.RSAPrivateKey,
) -> None:
    one = build(pem=pem(P256) + b"# the next one\n" + pem(OTHER_P256))
    for key in (P256, OTHER_P256):
        assert one.verify_cached(token(key, "ES256", "any")) is not None
    refused(one, token(ec.generate_private_key(ec.SECP256R1()), "ES256"), "does not match")
    # of two kinds, and two certificates of one name, each signed by itself
    one = build(pem=certificate(rsa_key) + certificate(P256) + pem(ED25519))
    assert one.algorithms == ("RS256", "ES256", "EdDSA")
    kinds: dict[str, PrivateKey] = {"RS256": rsa_key, "ES256": P256, "EdDSA": ED25519}
    for name, kind in kinds.items():
        assert one.verify_cached(token(kind, name)) is not None
        refused(one, token(OTHER_P256, "ES256"), "does not match")


def test_two_secrets_are_good_while_one_takes_the_place_of_the_other() -> None:
    old, new = SECRET, SECRET[::-1]
    keys = secret_keys([old, new], ())
    one = Verifier(
        keys,
        algorithms=keys.algorithms,
        reader=READER,
        clock=lambda: NOW,
    )
    for secret in (old, new):
        text = mint(secret=secret, user="ann", audience="push", ttl=60, now=NOW)
        assert one.verify_cached(text) is not None
    other = mint(secret="x" * 32, user="ann", audience="push", ttl=60, now=NOW)
    refused(one, other, "does not match")


def test_few_keys_can_be_tried() -> None:
    assert build(pem=pem(P256) * MAX_FIXED)
    assert f"1 to {MAX_FIXED}" in config_error(pem=pem(P256) * (MAX_FIXED + 1)).message
    for secrets in ([], [SECRET] * (MAX_FIXED + 1)):
        with pytest.raises(KeyConfigError, match=f"1 to {MAX_FIXED}"):
            secret_keys(secrets, ())
    with pytest.raises(KeyConfigError, match="too short"):
        secret_keys([SECRET, "short"], ())
    assert "larger than" in config_error(pem=pem(P256) + b" " * MAX_PEM).message


def test_a_key_that_no_accepted_algorithm_uses_is_an_error() -> None:
    error = config_error("ES256", pem=pem(P256) + pem(P384))
    assert error.part == "algorithms"
    assert "ES384" in error.message


def test_a_private_key_is_told_from_a_public_one() -> None:
    assert "private key" in config_error(pem=private_pem()).message
    assert "private key" in config_error(pem=pem(P256) + private_pem()).message


async def test_keys_that_are_there_from_the_start_are_never_missing() -> None:
    keys = public_keys(pem(P256), ())
    assert isinstance(keys, FixedKeys)
    keys.start()
    assert keys.missing() is None
    await keys.aclose()


# The keys of a JWK Set


def kids(*jwks: Any, algorithms: tuple[str, ...] = PUBLIC) -> set[tuple[str | None, str]]:
    return set(KeySet(document(*jwks), algorithms).checks)


def unusable(*jwks: Any, algorithms: tuple[str, ...] = PUBLIC) -> bool:
    with pytest.raises(ValueError, match=f"none of the document's {len(jwks)} keys"):
        KeySet(document(*jwks), algorithms)
    return True


def test_a_jwk_checks_the_algorithms_of_its_type_and_curve(rsa_key: rsa.RSAPrivateKey) -> None:
    rsa_names = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
    assert kids(jwk(rsa_key, "r"), {}) == {(kid, a) for a in rsa_names for kid in ("r", None)}
    assert kids(jwk(P256, "a"), jwk(P384, "b"), jwk(P521, "c"), jwk(ED25519, "d")) == {
        ("a", "ES256"),
        ("b", "ES384"),
        ("c", "ES512"),
        ("d", "EdDSA"),
    }
    assert kids(jwk(ED448, "e")) == {("e", "EdDSA"), (None, "EdDSA")}
    assert kids(jwk(P384, "b"), jwk(P256, "a"), algorithms=("ES256",)) == {
        ("a", "ES256"),
        (None, "ES256"),
    }


def test_a_jwk_that_pins_its_algorithm_checks_no_other(rsa_key: rsa.RSAPrivateKey) -> None:
    assert kids(jwk(rsa_key, "r", alg="PS256"), jwk(P256, "a")) == {("r", "PS256"), ("a", "ES256")}
    assert unusable(jwk(P256, "a", alg="ES384"), jwk(P256, "b", alg="HS256"))
    assert unusable(jwk(P256, "a", alg=None), jwk(P256, "b", alg=["ES256"]))


def test_keys_that_are_not_for_checking_signatures_are_left_out() -> None:
    assert kids(jwk(P256, "a", use="sig"), jwk(P384, "b", key_ops=["verify"])) == {
        ("a", "ES256"),
        ("b", "ES384"),
    }
    assert unusable(
        jwk(P256, "a", use="enc"),
        jwk(P256, "b", use=None),
        jwk(P256, "c", key_ops=["encrypt"]),
        jwk(P256, "d", key_ops="verify"),
    )


def test_symmetric_private_and_weak_keys_are_left_out(weak_rsa_key: rsa.RSAPrivateKey) -> None:
    secret = base64.urlsafe_b64encode(SECRET.encode()).decode()
    assert unusable(
        {"kty": "oct", "k": secret, "kid": "o"},
        {"kty": "oct", "k": secret, "kid": "o", "alg": "HS256"},
        jwt.algorithms.ECAlgorithm.to_jwk(P256, as_dict=True) | {"kid": "p"},
        jwt.algorithms.OKPAlgorithm.to_jwk(ED25519, as_dict=True) | {"kid": "e"},
        jwk(weak_rsa_key, "w"),
        jwk(K256, "k"),
        algorithms=ALGORITHMS,
    )


def test_keys_that_cannot_be_read_do_not_spoil_the_others() -> None:
    broken: list[Any] = [
        None,
        1,
        "x",
        [],
        {},
        {"kty": "EC"},
        {"kty": "nope"},
        {"kty": ["EC"]},
        {"kty": "RSA", "n": 5, "e": []},
        {"kty": "RSA", "n": "!", "e": "!"},
        {"kty": "RSA", "n": "AQAB", "e": ""},
        {"kty": "OKP", "crv": "Ed25519", "x": "AA"},
        jwk(P256, "off-curve") | {"x": jwk(OTHER_P256)["x"]},
        jwk(P256) | {"kid": 7},
        jwk(P256) | {"kid": ["a"]},
        jwk(P256) | {"crv": "P-384"},
    ]
    assert kids(*broken, jwk(P256, "good")) == {("good", "ES256"), (None, "ES256")}


def test_the_first_of_two_keys_with_one_kid_and_algorithm_counts() -> None:
    check = KeySet(document(jwk(P256, "a"), jwk(OTHER_P256, "a")), PUBLIC).checks["a", "ES256"]
    signed, _, signature = token(P256, "ES256").encode().rpartition(b".")
    assert check(signed, base64.urlsafe_b64decode(signature + b"=="))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b'{"keys":{}}',
        b'{"keys":null}',
        b"<html>",
        b"\xff",
        b"[" * 100_000,
        b'{"keys":[]}',
        b'{"keys":[]}' + b" " * MAX_JWKS,
        document(*[jwk(P256, str(number)) for number in range(MAX_JWKS_KEYS + 1)]),
    ],
)
def test_a_document_without_keys_or_with_too_much_is_an_error(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- the messages differ
        KeySet(text, PUBLIC)


@given(
    st.dictionaries(
        st.sampled_from(["kty", "crv", "x", "y", "n", "e", "d", "k", "alg", "use", "kid"]),
        st.none()
        | st.integers()
        | st.text()
        | st.lists(st.text(), max_size=2)
        | st.sampled_from(["RSA", "EC", "OKP", "oct", "P-256", "Ed25519", "Ed448", "AQAB", "sig"]),
    )
)
def test_an_arbitrary_jwk_never_makes_a_document_unusable(value: dict[str, Any]) -> None:
    assert ("good", "ES256") in kids(value, jwk(P256, "good"))
