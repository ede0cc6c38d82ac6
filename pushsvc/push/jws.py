"""Signs what push providers ask of a server: a claim set as a compact JWS (pure; RFC 7515, 3.1).

Only made here, never read: who reads tokens is ``auth``, with PyJWT.
"""

from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_P256_BYTES: Final = 32


def sign(key: SigningKey, header: Mapping[str, str], claims: Mapping[str, Any]) -> str:
    """A signed token: ES256 with a key on the curve P-256, RS256 with an RSA key.

    Args:
        key: the private key.
        header: what stands in the header beside ``alg`` and ``typ``.
        claims: the claim set; JSON.

    Raises:
        ValueError: the key is on another curve.
    """
    elliptic = isinstance(key, ec.EllipticCurvePrivateKey)
    head = {"alg": "ES256" if elliptic else "RS256", "typ": "JWT", **header}
    signed = f"{_encoded(msgspec.json.encode(head))}.{_encoded(msgspec.json.encode(claims))}"
    return f"{signed}.{_encoded(_signature(key, signed.encode()))}"


def _signature(key: SigningKey, signed: bytes) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
    if key.curve.name != ec.SECP256R1.name:
        raise ValueError(f"the key is on the curve {key.curve.name} and not on P-256")
    # OpenSSL gives two numbers in DER, RFC 7518 (3.4) wants them as they are, 32 bytes each.
    r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(_P256_BYTES, "big") + s.to_bytes(_P256_BYTES, "big")


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
