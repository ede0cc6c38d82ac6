"""Encryption of Web Push: RFC 8291, with the one record of RFC 8188 that a message takes (pure)."""

import hmac
import secrets
import struct
from base64 import b64decode
from binascii import Error as NotBase64
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

MAX_PLAINTEXT: Final = 2967
"""Bytes of a message. Encrypted they are 3,070, which is what Mozilla's service takes for Firefox
on Android, while others take 4,096."""

PUBLIC_BYTES: Final = 65
"""Of a public key on P-256, uncompressed."""
AUTH_BYTES: Final = 16
_SALT_BYTES: Final = 16
_RECORD: Final = 4096
_TAG_BYTES: Final = 16
_PAD: Final = 256
_LAST: Final = b"\x02"
_MAX_BASE64: Final = 128


def encrypt(
    plaintext: bytes,
    p256dh: bytes,
    auth: bytes,
    *,
    salt: bytes = b"",
    key: ec.EllipticCurvePrivateKey | None = None,
    pad: bool = True,
) -> bytes:
    """The body of a request with ``Content-Encoding: aes128gcm``.

    Args:
        plaintext: ``MAX_PLAINTEXT`` bytes at most.
        p256dh: the public key of the subscription, uncompressed.
        auth: its secret.
        salt: random, unless a test gives it.
        key: the key of this message alone, unless a test gives it.
        pad: hide the length, as far as the next multiple of 256 bytes hides it.

    Raises:
        ValueError: ``p256dh`` is not a point on the curve.
    """
    theirs = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), p256dh)
    key = key or ec.generate_private_key(ec.SECP256R1())
    salt = salt or secrets.token_bytes(_SALT_BYTES)
    ours = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    # RFC 8291, section 3.4: HKDF (RFC 5869), of which one block is enough each time.
    combined = hmac.digest(auth, key.exchange(ec.ECDH(), theirs), "sha256")
    secret = _expand(combined, b"WebPush: info\0" + p256dh + ours, 32)
    content = hmac.digest(salt, secret, "sha256")
    content_key = _expand(content, b"Content-Encoding: aes128gcm\0", 16)
    nonce = _expand(content, b"Content-Encoding: nonce\0", 12)
    padded = plaintext + _LAST
    if pad:
        length = min(-(-len(padded) // _PAD) * _PAD, MAX_PLAINTEXT + 1)
        padded = padded.ljust(length, b"\0")
    head = salt + struct.pack("!IB", _RECORD, len(ours)) + ours
    return head + AESGCM(content_key).encrypt(nonce, padded, None)


def _expand(key: bytes, info: bytes, length: int) -> bytes:
    return hmac.digest(key, info + b"\x01", "sha256")[:length]


def public_key(text: str) -> bytes:
    """The ``p256dh`` of a subscription.

    Raises:
        ValueError: it is none; the message says why.
    """
    point = decoded(text)
    if len(point) != PUBLIC_BYTES:
        raise ValueError(f"is not {PUBLIC_BYTES} bytes of base64url")
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except ValueError:
        raise ValueError("is not a point on the curve P-256, uncompressed") from None
    return point


def secret(text: str) -> bytes:
    """The ``auth`` of a subscription.

    Raises:
        ValueError: it is none; the message says why.
    """
    found = decoded(text)
    if len(found) != AUTH_BYTES:
        raise ValueError(f"is not {AUTH_BYTES} bytes of base64url")
    return found


def decoded(text: str) -> bytes:
    """What stands in base64url or base64, padded or not, as libraries give it; else nothing."""
    if len(text) > _MAX_BASE64 or not text.isascii():
        return b""
    bare = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except NotBase64:
        return b""
