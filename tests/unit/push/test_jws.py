"""Signed claims, read by PyJWT."""

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pushsvc.push.jws import sign

CLAIMS = {"iss": "DEF123GHIJ", "iat": 1_764_547_200}


def test_a_key_on_p256_signs_es256() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    for _ in range(300):  # one number of a hundred is short, and wants zeros before it
        token = sign(key, {"kid": "ABC123DEFG"}, CLAIMS)
        assert jwt.decode(token, key.public_key(), algorithms=["ES256"]) == CLAIMS
    assert jwt.get_unverified_header(token) == {"alg": "ES256", "typ": "JWT", "kid": "ABC123DEFG"}


def test_an_rsa_key_signs_rs256() -> None:
    key = rsa.generate_private_key(65537, 2048)
    token = sign(key, {}, CLAIMS)
    assert jwt.decode(token, key.public_key(), algorithms=["RS256"]) == CLAIMS


def test_a_key_on_another_curve_is_refused() -> None:
    with pytest.raises(ValueError, match="secp384r1"):
        sign(ec.generate_private_key(ec.SECP384R1()), {}, CLAIMS)
