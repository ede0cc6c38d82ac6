"""Which source of keys the settings name, and which of them is told to be wrong."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from pushsvc.auth.tokens import Verifier
from pushsvc.server.verifier import verifier_of
from pushsvc.settings import SettingsError, load
from tests.support.keys import pem

SECRET = "0123456789abcdef" * 4
URL = "https://issuer.example/jwks.json"
ISSUER = "https://issuer.example/"


def verifier(**values: object) -> Verifier:
    environ = {f"PUSHSVC_JWT_{name.upper()}": str(value) for name, value in values.items()}
    one = verifier_of(load(environ, {}))
    assert isinstance(one, Verifier)
    return one


def refusal(**values: object) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        verifier(**values)
    assert SECRET not in str(caught.value)
    return caught.value


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "key.pem"
    file.write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))
    return file


def test_each_source_has_its_algorithms(key_file: Path) -> None:
    assert verifier(secret=SECRET).algorithms == ("HS256",)
    assert verifier(secret=SECRET, algorithms="HS512").algorithms == ("HS512",)
    assert verifier(public_key_file=key_file).algorithms == ("ES256",)
    assert verifier(jwks_url=URL).algorithms == ("RS256", "ES256", "EdDSA")


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"jwks_url": URL}, f"no keys yet from {URL}: "),
        ({"jwks_url": URL, "issuer": ISSUER}, f"no keys yet from {URL}: "),
        ({"issuer": ISSUER}, f"no keys yet from {ISSUER}.well-known/openid-configuration: "),
    ],
)
def test_an_issuer_alone_is_asked_where_its_keys_are(values: Mapping[str, str], found: str) -> None:
    one = verifier(**values)
    (trouble,) = one.troubles()
    assert trouble.startswith(found)


@pytest.mark.parametrize("values", [{}, {"issuer": "accounts.google.com"}])
def test_one_source_of_keys_must_be_set(values: Mapping[str, str]) -> None:
    error = refusal(**values)
    assert error.variable == "PUSHSVC_JWT_SECRET"
    assert "none is set" in error.message


def test_more_than_one_source_of_keys_is_an_error(key_file: Path) -> None:
    error = refusal(secret=SECRET, public_key_file=key_file, jwks_url=URL)
    assert error.variable == "PUSHSVC_JWT_SECRET"
    assert "exactly one" in error.message
    assert "JWT_SECRET and JWT_PUBLIC_KEY_FILE and JWT_JWKS_URL are set" in error.message


def test_what_is_wrong_is_told_by_the_name_of_its_setting(key_file: Path, tmp_path: Path) -> None:
    missing, other = tmp_path / "none.pem", Path(__file__)
    for values, variable in (
        ({"secret": pem(ec.generate_private_key(ec.SECP256R1())).decode()}, "SECRET"),
        ({"secret": SECRET, "algorithms": "ES256"}, "ALGORITHMS"),
        ({"public_key_file": missing}, "PUBLIC_KEY_FILE"),
        ({"public_key_file": other}, "PUBLIC_KEY_FILE"),
        ({"public_key_file": key_file, "algorithms": "RS256"}, "ALGORITHMS"),
        ({"jwks_url": URL, "algorithms": "HS256"}, "ALGORITHMS"),
        ({"jwks_url": URL, "ca_file": missing}, "CA_FILE"),
        ({"jwks_url": URL, "ca_file": other}, "CA_FILE"),
        ({"issuer": ISSUER, "algorithms": "HS256"}, "ALGORITHMS"),
        ({"issuer": ISSUER + "?tenant=a"}, "ISSUER"),
    ):
        assert refusal(**values).variable == f"PUSHSVC_JWT_{variable}"
