"""Where keys come from, what each may check, and how a JWKS is kept up to date."""

import asyncio
import base64
import hmac
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.auth import keys as keys_module
from pushsvc.auth.keys import (
    ALGORITHMS,
    FETCH_INTERVAL,
    MAX_JWKS,
    REFRESH_AFTER,
    KeyConfigError,
    KeySet,
    verifier,
)
from pushsvc.auth.tokens import Verifier, mint
from pushsvc.errors import InvalidToken, Unavailable

SECRET = "0123456789abcdef" * 4
URL = "https://issuer.example/jwks.json"
NOW = 1_800_000_000.0
PUBLIC = tuple(name for name in ALGORITHMS if not name.startswith("HS"))

PrivateKey = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Issuer:
    """A JWKS address: counts fetches, and fails or waits on demand."""

    def __init__(self, *jwks: Any) -> None:
        self.document = document(*jwks)
        self.fetches = 0
        self.failing: BaseException | None = None
        self.gate: asyncio.Event | None = None

    async def fetch(self, url: str) -> bytes:
        assert url == URL
        self.fetches += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.failing is not None:
            raise self.failing
        return self.document


def document(*jwks: Any) -> bytes:
    return json.dumps({"keys": jwks}).encode()


def pem(key: PrivateKey | dsa.DSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def jwk(key: PrivateKey, kid: str | None = None, **members: Any) -> dict[str, Any]:
    """The public key as a JWK, without the members that PyJWT adds of its own accord."""
    match key:
        case rsa.RSAPrivateKey():
            value = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
        case ec.EllipticCurvePrivateKey():
            value = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
        case _:
            value = jwt.algorithms.OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    value.pop("key_ops", None)
    return value | ({} if kid is None else {"kid": kid}) | members


def token(
    key: PrivateKey, algorithm: str, kid: str | None = None, *, at: float = NOW, **header: Any
) -> str:
    payload = {"sub": "ann", "aud": "push", "exp": at + 60}
    headers = header if kid is None else {"kid": kid, **header}
    return jwt.encode(payload, key, algorithm, headers=headers)


def build(
    *algorithms: str,
    secret: str | None = None,
    public_key_pem: bytes | None = None,
    jwks_url: str | None = None,
    issuer: str | None = None,
    audience: str = "push",
    fetch: Any = None,
    clock: Callable[[], float] = lambda: NOW,
) -> Verifier:
    return verifier(
        algorithms=algorithms,
        secret=secret,
        public_key_pem=public_key_pem,
        jwks_url=jwks_url,
        issuer=issuer,
        audience=audience,
        fetch=fetch,
        clock=clock,
    )


def config_error(*algorithms: str, **settings: Any) -> KeyConfigError:
    with pytest.raises(KeyConfigError) as caught:
        build(*algorithms, **settings)
    assert str(caught.value) == f"{caught.value.variable}: {caught.value.message}"
    if settings.get("secret"):
        assert settings["secret"] not in str(caught.value)
    return caught.value


def refused(one: Verifier, text: str, because: str = "") -> InvalidToken:
    with pytest.raises(InvalidToken, match=because) as caught:
        one.verify_cached(text)
    return caught.value


async def settle() -> None:
    """Let background tasks run until all of them wait for something."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="module")
def weak_rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 1024)


@pytest.fixture
def clock() -> Clock:
    return Clock()


P256, OTHER_P256 = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
P384 = ec.generate_private_key(ec.SECP384R1())
P521 = ec.generate_private_key(ec.SECP521R1())
K256 = ec.generate_private_key(ec.SECP256K1())
ED25519 = ed25519.Ed25519PrivateKey.generate()
ED448 = ed448.Ed448PrivateKey.generate()


# Settings


def test_one_source_of_keys_must_be_set() -> None:
    error = config_error()
    assert error.variable == "JWT_SECRET"
    assert "none is set" in error.message


@pytest.mark.parametrize(
    "settings",
    [
        {"secret": SECRET, "public_key_pem": pem(P256)},
        {"secret": SECRET, "jwks_url": URL},
        {"public_key_pem": pem(P256), "jwks_url": URL},
        {"secret": SECRET, "public_key_pem": pem(P256), "jwks_url": URL},
    ],
)
def test_more_than_one_source_of_keys_is_an_error(settings: dict[str, Any]) -> None:
    error = config_error(**settings)
    assert error.variable in {"JWT_SECRET", "JWT_PUBLIC_KEY_FILE"}
    assert "exactly one" in error.message


def test_a_key_config_error_is_a_value_error() -> None:
    assert issubclass(KeyConfigError, ValueError)


@pytest.mark.parametrize(
    ("algorithms", "length"),
    [((), 32), (("HS256",), 32), (("HS384",), 48), (("HS512",), 64), (("HS256", "HS512"), 64)],
)
def test_a_secret_must_be_as_long_as_the_digest(algorithms: tuple[str, ...], length: int) -> None:
    error = config_error(*algorithms, secret="s" * (length - 1))
    assert error.variable == "JWT_SECRET"
    assert f"{length} bytes" in error.message
    assert build(*algorithms, secret="s" * length).algorithms == (algorithms or ("HS256",))


def test_the_length_of_a_secret_is_counted_in_bytes() -> None:
    assert build(secret="é" * 16)


def test_an_empty_secret_is_told_apart_from_a_short_one() -> None:
    assert config_error(secret="").message == "is empty"


@pytest.mark.parametrize("secret", ["", "\ud800" * 32, pem(P256).decode(), json.dumps(jwk(P256))])
def test_a_secret_that_is_none_is_an_error(secret: str) -> None:
    assert config_error(secret=secret).variable == "JWT_SECRET"


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
    assert config_error(public_key_pem=text).variable == "JWT_PUBLIC_KEY_FILE"


def test_an_rsa_key_under_2048_bits_is_an_error(weak_rsa_key: rsa.RSAPrivateKey) -> None:
    error = config_error(public_key_pem=pem(weak_rsa_key))
    assert error.variable == "JWT_PUBLIC_KEY_FILE"
    assert "2048" in error.message


@pytest.mark.parametrize("name", ["none", "None", "hs256", "RS1", "ES256K", "", "HS256 "])
@pytest.mark.parametrize(
    "source", [{"secret": SECRET}, {"public_key_pem": pem(P256)}, {"jwks_url": URL}]
)
def test_an_unknown_algorithm_is_an_error(name: str, source: dict[str, Any]) -> None:
    error = config_error(name, **source)
    assert error.variable == "JWT_ALGORITHMS"
    assert "not supported" in error.message


@pytest.mark.parametrize(
    "source", [{"secret": SECRET}, {"public_key_pem": pem(P256)}, {"jwks_url": URL}]
)
def test_shared_secret_and_public_key_algorithms_do_not_mix(source: dict[str, Any]) -> None:
    error = config_error("HS256", "ES256", **source)
    assert error.variable == "JWT_ALGORITHMS"
    assert "mixes" in error.message


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_algorithm_must_fit_the_source(name: str, rsa_key: rsa.RSAPrivateKey) -> None:
    shared = name.startswith("HS")
    fits = {
        "secret": shared,
        "jwks_url": not shared,
        "rsa": name[:2] in {"RS", "PS"},
        "p256": name == "ES256",
        "p384": name == "ES384",
        "p521": name == "ES512",
        "ed25519": name == "EdDSA",
        "ed448": name == "EdDSA",
    }
    sources: dict[str, dict[str, Any]] = {
        "secret": {"secret": SECRET},
        "jwks_url": {"jwks_url": URL, "fetch": Issuer().fetch},
        "rsa": {"public_key_pem": pem(rsa_key)},
        "p256": {"public_key_pem": pem(P256)},
        "p384": {"public_key_pem": pem(P384)},
        "p521": {"public_key_pem": pem(P521)},
        "ed25519": {"public_key_pem": pem(ED25519)},
        "ed448": {"public_key_pem": pem(ED448)},
    }
    for source, settings in sources.items():
        if fits[source]:
            assert build(name, name, **settings).algorithms == (name,)
        else:
            assert config_error(name, **settings).variable == "JWT_ALGORITHMS"


def test_the_default_algorithms_follow_the_source(rsa_key: rsa.RSAPrivateKey) -> None:
    assert build(secret=SECRET).algorithms == ("HS256",)
    assert build(public_key_pem=pem(rsa_key)).algorithms == ("RS256",)
    assert build(public_key_pem=pem(P256)).algorithms == ("ES256",)
    assert build(public_key_pem=pem(P384)).algorithms == ("ES384",)
    assert build(public_key_pem=pem(P521)).algorithms == ("ES512",)
    assert build(public_key_pem=pem(ED25519)).algorithms == ("EdDSA",)
    assert build(public_key_pem=pem(ED448)).algorithms == ("EdDSA",)
    jwks = build(jwks_url=URL, fetch=Issuer().fetch)
    assert jwks.algorithms == ("RS256", "ES256", "EdDSA")


@pytest.mark.parametrize(
    "url", ["", "issuer.example", "file:///etc/passwd", "https://", "http://["]
)
def test_a_jwks_address_must_be_http_or_https(url: str) -> None:
    assert config_error(jwks_url=url, fetch=Issuer().fetch).variable == "JWT_JWKS_URL"


def test_a_jwks_address_without_a_way_to_fetch_it_is_an_error() -> None:
    with pytest.raises(ValueError, match="fetch"):
        build(jwks_url=URL)


def test_an_empty_audience_or_issuer_is_an_error() -> None:
    assert config_error(secret=SECRET, audience="").variable == "JWT_AUDIENCE"
    assert config_error(secret=SECRET, issuer="").variable == "JWT_ISSUER"


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
        one = build(name, public_key_pem=pem(key))
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
            refused(build(public_key_pem=text), (signed + b"." + mac).decode(), "sign the token")


def test_a_token_of_another_key_of_the_same_kind_is_refused() -> None:
    one = build(public_key_pem=pem(P256))
    refused(one, token(OTHER_P256, "ES256"), "does not match")
    text = token(P256, "ES256")
    refused(one, text.rpartition(".")[0] + ".", "does not match")
    refused(one, text.rpartition(".")[0] + "." + "A" * 86, "does not match")


def test_an_rsa_algorithm_that_is_not_allowed_is_refused(rsa_key: rsa.RSAPrivateKey) -> None:
    one = build("RS256", public_key_pem=pem(rsa_key))
    for name in ("RS384", "RS512", "PS256"):
        refused(one, token(rsa_key, name), "sign the token with one of: RS256")


@pytest.mark.parametrize("key", [P256, ED25519, ED448])
@pytest.mark.parametrize("length", [0, 1, 10, 63, 64, 65, 114, 500])
def test_a_signature_of_any_length_is_refused_and_nothing_else(
    key: PrivateKey, length: int
) -> None:
    one = build(public_key_pem=pem(key))
    signed = token(key, one.algorithms[0]).rpartition(".")[0]
    signature = base64.urlsafe_b64encode(bytes(length)).rstrip(b"=").decode()
    refused(one, f"{signed}.{signature}", "does not match")


# The keys of a JWK Set


def kids(*jwks: Any, algorithms: tuple[str, ...] = PUBLIC) -> set[tuple[str | None, str]]:
    return set(KeySet(document(*jwks), algorithms).checks)


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
    assert not kids(jwk(P256, "a", alg="ES384"), jwk(P256, "b", alg="HS256"))
    assert not kids(jwk(P256, "a", alg=None), jwk(P256, "b", alg=["ES256"]))


def test_keys_that_are_not_for_checking_signatures_are_left_out() -> None:
    assert kids(jwk(P256, "a", use="sig"), jwk(P384, "b", key_ops=["verify"])) == {
        ("a", "ES256"),
        ("b", "ES384"),
    }
    assert not kids(
        jwk(P256, "a", use="enc"),
        jwk(P256, "b", use=None),
        jwk(P256, "c", key_ops=["encrypt"]),
        jwk(P256, "d", key_ops="verify"),
    )


def test_symmetric_private_and_weak_keys_are_left_out(weak_rsa_key: rsa.RSAPrivateKey) -> None:
    secret = base64.urlsafe_b64encode(SECRET.encode()).decode()
    assert not kids(
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
        b'{"keys":[]}' + b" " * MAX_JWKS,
    ],
)
def test_a_document_that_is_no_jwk_set_or_over_1_mib_is_an_error(text: bytes) -> None:
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


# A JWKS address


@pytest.fixture
def issuer() -> Issuer:
    return Issuer(jwk(P256, "k1"))


@pytest.fixture
async def jwks(issuer: Issuer, clock: Clock) -> AsyncIterator[Verifier]:
    one = build(jwks_url=URL, fetch=issuer.fetch, clock=clock)
    yield one
    await one.aclose()


async def test_keys_are_fetched_with_the_first_token_and_then_kept(
    jwks: Verifier, issuer: Issuer
) -> None:
    text = token(P256, "ES256", "k1")
    assert jwks.verify_cached(text) is None
    assert issuer.fetches == 0
    claims = await jwks.verify(text)
    assert claims.user == "ann"
    assert jwks.verify_cached(text) == claims
    assert await jwks.verify(text) == claims
    assert issuer.fetches == 1


async def test_concurrent_tokens_share_one_fetch(jwks: Verifier, issuer: Issuer) -> None:
    issuer.gate = asyncio.Event()
    waiting = [asyncio.create_task(jwks.verify(token(P256, "ES256", "k1"))) for _ in range(50)]
    await settle()
    issuer.gate.set()
    assert len({(await one).user for one in waiting}) == 1
    assert issuer.fetches == 1


async def test_one_who_stops_waiting_does_not_stop_the_fetch_for_others(
    jwks: Verifier, issuer: Issuer
) -> None:
    issuer.gate = asyncio.Event()
    first, second = (asyncio.create_task(jwks.verify(token(P256, "ES256", "k1"))) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    assert first.cancelled()
    assert not second.done()
    issuer.gate.set()
    assert (await second).user == "ann"
    assert issuer.fetches == 1


async def test_a_token_without_a_kid_is_good_only_while_there_is_a_single_key(
    jwks: Verifier, issuer: Issuer, clock: Clock
) -> None:
    text = token(P256, "ES256")
    assert (await jwks.verify(text)).user == "ann"
    issuer.document = document(jwk(P256, "k1"), jwk(ED25519, "k2"))
    clock.now += FETCH_INTERVAL
    assert (await jwks.verify(token(ED25519, "EdDSA", "k2"))).user == "ann"
    clock.now += FETCH_INTERVAL
    refused(jwks, text, "kid")
    assert issuer.fetches == 2


async def test_a_single_key_without_a_kid_serves_tokens_without_one(
    jwks: Verifier, issuer: Issuer
) -> None:
    issuer.document = document(jwk(P256), {"kty": "oct", "k": "AAAA", "kid": "ignored"})
    assert (await jwks.verify(token(P256, "ES256"))).user == "ann"


async def test_a_key_does_not_check_tokens_that_name_another(
    jwks: Verifier, issuer: Issuer
) -> None:
    issuer.document = document(jwk(P256, "a"), jwk(OTHER_P256, "b"), jwk(ED25519, "c"))
    assert (await jwks.verify(token(P256, "ES256", "a"))).user == "ann"
    refused(jwks, token(P256, "ES256", "b"), "does not match")
    refused(jwks, token(P256, "ES256", "c"), "not for its algorithm")
    assert issuer.fetches == 1


async def test_a_shared_secret_token_is_refused_without_a_fetch(
    jwks: Verifier, issuer: Issuer
) -> None:
    text = mint(secret=SECRET, user="ann", audience="push", ttl=60, now=NOW)
    with pytest.raises(InvalidToken, match="sign the token with one of: RS256, ES256, EdDSA"):
        await jwks.verify(text)
    assert issuer.fetches == 0


@pytest.mark.parametrize(
    "header",
    [
        {"jku": "https://evil.example/jwks.json"},
        {"x5u": "https://evil.example/cert.pem"},
        {"jwk": jwk(OTHER_P256)},
        {"x5c": ["AAAA"]},
        {"crit": ["exp"]},
        {"crit": []},
        {"kid": "' UNION SELECT 'k1' --"},
        {"kid": "/dev/null\x00"},
        {"kid": "k" * 129},
    ],
)
async def test_a_header_that_is_refused_causes_no_fetch(
    header: dict[str, Any], jwks: Verifier, issuer: Issuer
) -> None:
    with pytest.raises(InvalidToken):
        await jwks.verify(token(OTHER_P256, "ES256", **header))
    assert issuer.fetches == 0


@pytest.mark.parametrize(
    "kid", ["../../../../dev/null", "/etc/passwd", "k1=k1", "https://e.example/"]
)
async def test_a_kid_that_looks_like_a_path_is_only_ever_looked_up(
    kid: str, jwks: Verifier, issuer: Issuer
) -> None:
    with pytest.raises(InvalidToken, match="names no key"):
        await jwks.verify(token(OTHER_P256, "ES256", kid))
    assert issuer.fetches == 1  # of the one configured address, as fetch() asserts


async def test_a_thousand_unknown_kids_cause_one_fetch_per_30_seconds(
    jwks: Verifier, issuer: Issuer, clock: Clock
) -> None:
    await jwks.verify(token(P256, "ES256", "k1"))
    assert issuer.fetches == 1
    flood = [token(OTHER_P256, "ES256", f"unknown-{n}") for n in range(1000)]
    for round_ in range(3):
        clock.now = NOW + 1 + round_ * FETCH_INTERVAL
        for text in flood:
            with pytest.raises(InvalidToken, match="names no key"):
                await jwks.verify(text)
        assert issuer.fetches == 1 + round_
    error = refused(jwks, flood[0], "names no key")
    assert error.retry_after is not None
    assert 0 < error.retry_after <= FETCH_INTERVAL


async def test_a_thousand_unknown_kids_at_once_share_one_fetch(
    jwks: Verifier, issuer: Issuer
) -> None:
    flood = (token(OTHER_P256, "ES256", f"unknown-{n}") for n in range(1000))
    results = await asyncio.gather(*map(jwks.verify, flood), return_exceptions=True)
    assert {type(result) for result in results} == {InvalidToken}
    assert issuer.fetches == 1


async def test_a_new_key_is_found_by_its_unknown_kid(
    jwks: Verifier, issuer: Issuer, clock: Clock
) -> None:
    await jwks.verify(token(P256, "ES256", "k1"))
    issuer.document = document(jwk(P256, "k1"), jwk(OTHER_P256, "k2"))
    text = token(OTHER_P256, "ES256", "k2")
    refused(jwks, text, "names no key")
    clock.now += FETCH_INTERVAL
    assert (await jwks.verify(text)).user == "ann"
    assert (await jwks.verify(token(P256, "ES256", "k1"))).user == "ann"
    assert issuer.fetches == 2


async def test_a_key_that_was_rotated_out_stops_working(
    jwks: Verifier, issuer: Issuer, clock: Clock
) -> None:
    old = token(P256, "ES256", "k1", at=NOW + REFRESH_AFTER)
    await jwks.verify(old)
    issuer.document = document(jwk(OTHER_P256, "k2"))
    clock.now += REFRESH_AFTER
    assert jwks.verify_cached(old) is not None  # this use is what starts the refresh
    await settle()
    assert issuer.fetches == 2
    refused(jwks, old, "names no key")
    text = token(OTHER_P256, "ES256", "k2", at=clock.now)
    assert jwks.verify_cached(text) is not None


async def test_keys_are_refreshed_only_when_used_and_older_than_ten_minutes(
    jwks: Verifier, issuer: Issuer, clock: Clock
) -> None:
    text = token(P256, "ES256", "k1", at=NOW + 10 * REFRESH_AFTER)
    await jwks.verify(text)
    clock.now += REFRESH_AFTER - 1
    jwks.verify_cached(text)
    await settle()
    assert issuer.fetches == 1
    clock.now += 5 * REFRESH_AFTER
    await settle()
    assert issuer.fetches == 1
    for _ in range(3):
        jwks.verify_cached(text)
        await settle()
    assert issuer.fetches == 2


async def test_old_keys_work_while_the_refresh_runs(
    jwks: Verifier, issuer: Issuer, clock: Clock
) -> None:
    text = token(P256, "ES256", "k1", at=NOW + REFRESH_AFTER)
    await jwks.verify(text)
    issuer.gate = asyncio.Event()
    clock.now += REFRESH_AFTER
    for _ in range(5):
        assert jwks.verify_cached(text) is not None
        await settle()
    assert issuer.fetches == 2
    # An unknown kid waits for the refresh that runs already.
    issuer.document = document(jwk(P256, "k1"), jwk(OTHER_P256, "k2"))
    new = asyncio.create_task(jwks.verify(token(OTHER_P256, "ES256", "k2", at=clock.now)))
    await settle()
    assert not new.done()
    issuer.gate.set()
    assert (await new).user == "ann"
    assert issuer.fetches == 2


@pytest.mark.parametrize(
    "failure", [OSError("no route"), TimeoutError(), RuntimeError("boom"), asyncio.CancelledError()]
)
async def test_known_keys_go_on_working_for_as_long_as_fetching_fails(
    failure: BaseException, jwks: Verifier, issuer: Issuer, clock: Clock
) -> None:
    end = NOW + 2 * REFRESH_AFTER
    text = token(P256, "ES256", "k1", at=end)
    await jwks.verify(text)
    clock.now += REFRESH_AFTER
    issuer.failing = failure
    while clock.now < end:
        assert jwks.verify_cached(text) is not None
        await settle()
        clock.now += 1
    assert issuer.fetches == 1 + REFRESH_AFTER / FETCH_INTERVAL
    issuer.failing = None
    issuer.document = document(jwk(OTHER_P256, "k2"))
    clock.now += FETCH_INTERVAL
    jwks.verify_cached(text)
    await settle()
    refused(jwks, text, "names no key")


@pytest.mark.parametrize("text", [b"", b"<html>", b"{}", b"[" * 100_000, b" " * (MAX_JWKS + 1)])
async def test_a_bad_document_leaves_the_old_keys_in_use(
    text: bytes, jwks: Verifier, issuer: Issuer, clock: Clock
) -> None:
    good = token(P256, "ES256", "k1", at=NOW + REFRESH_AFTER)
    await jwks.verify(good)
    issuer.document = text
    clock.now += REFRESH_AFTER
    assert jwks.verify_cached(good) is not None
    await settle()
    assert issuer.fetches == 2
    assert jwks.verify_cached(good) is not None


async def test_without_keys_ever_fetched_tokens_wait_for_better_times(
    jwks: Verifier, issuer: Issuer, clock: Clock
) -> None:
    issuer.failing = OSError("no route")
    text = token(P256, "ES256", "k1")
    for _ in range(100):
        with pytest.raises(Unavailable) as caught:
            await jwks.verify(text)
        assert caught.value.retry_after == FETCH_INTERVAL
    assert issuer.fetches == 1
    issuer.failing = None
    clock.now += FETCH_INTERVAL
    assert (await jwks.verify(text)).user == "ann"


async def test_a_fetch_that_hangs_is_given_up(
    jwks: Verifier, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "FETCH_TIMEOUT", 0.01)
    issuer.gate = asyncio.Event()
    with pytest.raises(Unavailable):
        await jwks.verify(token(P256, "ES256", "k1"))


async def test_a_clock_set_back_does_not_stop_fetches(
    jwks: Verifier, issuer: Issuer, clock: Clock
) -> None:
    await jwks.verify(token(P256, "ES256", "k1"))
    clock.now -= 86_400
    issuer.document = document(jwk(OTHER_P256, "k2"))
    assert (await jwks.verify(token(OTHER_P256, "ES256", "k2"))).user == "ann"
    assert issuer.fetches == 2
    clock.now -= 86_400
    assert jwks.verify_cached(token(OTHER_P256, "ES256", "k2")) is not None
    await settle()
    assert issuer.fetches == 3


async def test_a_slow_fetch_is_not_joined_by_a_second_one(
    jwks: Verifier, issuer: Issuer, clock: Clock
) -> None:
    issuer.gate = asyncio.Event()
    waiting = []
    for _ in range(3):
        waiting.append(asyncio.create_task(jwks.verify(token(P256, "ES256", "k1"))))
        await settle()
        clock.now += FETCH_INTERVAL
    issuer.gate.set()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert issuer.fetches == 1


async def test_closing_stops_the_fetch_and_those_who_wait_for_it(
    jwks: Verifier, issuer: Issuer
) -> None:
    issuer.gate = asyncio.Event()
    waiting = asyncio.create_task(jwks.verify(token(P256, "ES256", "k1")))
    await settle()
    async with asyncio.timeout(1):
        await jwks.aclose()
    with pytest.raises(Unavailable):
        await waiting
    assert asyncio.all_tasks() == {asyncio.current_task()}
    with pytest.raises(Unavailable):
        await jwks.verify(token(P256, "ES256", "k1"))
    assert issuer.fetches == 1


async def test_known_keys_still_work_after_closing(
    jwks: Verifier, issuer: Issuer, clock: Clock
) -> None:
    text = token(P256, "ES256", "k1", at=NOW + REFRESH_AFTER)
    await jwks.verify(text)
    await jwks.aclose()
    await jwks.aclose()
    clock.now += REFRESH_AFTER
    assert jwks.verify_cached(text) is not None
    refused(jwks, token(OTHER_P256, "ES256", "k2"), "names no key")
    assert issuer.fetches == 1
