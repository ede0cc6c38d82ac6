"""Keys of our own, in the forms that they are published in."""

import json
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

PrivateKey = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)


def document(*jwks: Any) -> bytes:
    """A key set."""
    return json.dumps({"keys": jwks}).encode()


def pem(key: PrivateKey | dsa.DSAPrivateKey) -> bytes:
    """The public key as a PEM file."""
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
