"""Who this server is to push services: RFC 8292.

A key file is PEM with one or two private keys on P-256. New subscriptions are made with the first;
the second is the key of before, which those that were made with it go on to need.
"""

import re
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from pushsvc.push.jws import sign

LIFETIME: Final = 12 * 3600
"""Seconds that a token lives: half of what RFC 8292 allows, as clocks differ."""
RENEWED: Final = 3600
"""A token that has less than so many seconds left is made anew."""
MAX_KEYS: Final = 2
MAX_FILE: Final = 65_536
"""Bytes of a key file."""
MAX_SUBJECT: Final = 256
"""Characters of a subject."""
MAX_ORIGINS: Final = 256
"""Origins whose tokens are kept."""

# Some refuse whatever else RFC 6068 allows, such as brackets.
_SUBJECT: Final = re.compile(r"mailto:[^@\s<>]+@[^@\s<>]+|https://[^\s<>]+", re.ASCII)
_BEGIN: Final = b"-----BEGIN "
_END: Final = b"-----END "
_PARAMETERS: Final = b"-----BEGIN EC PARAMETERS-----"


class VapidKeys:
    """The keys of this server.

    Args:
        keys: one or two private keys on P-256, the newer first.
    """

    def __init__(self, keys: Sequence[ec.EllipticCurvePrivateKey]) -> None:
        self._keys = tuple(keys)
        self.public = tuple(map(public_text, keys))
        """The public keys (application server keys), in base64url of their uncompressed form."""

    def signer(self, subject: str, clock: Callable[[], float] = time.time) -> "Signer":
        """What makes the ``Authorization`` of requests.

        Args:
            subject: whom push services can ask, ``mailto:`` or ``https:``.
            clock: Unix seconds.
        """
        return Signer(self._keys, self.public, subject, clock)


class Signer:
    """Makes the ``Authorization`` of requests: a token for each push service, kept for hours.

    Args:
        keys: private keys.
        public: their public keys.
        subject: whom push services can ask.
        clock: Unix seconds.
    """

    def __init__(
        self,
        keys: Sequence[ec.EllipticCurvePrivateKey],
        public: Sequence[str],
        subject: str,
        clock: Callable[[], float],
    ) -> None:
        self._keys = keys
        self._public = public
        self._subject = subject
        self._clock = clock
        self._made: dict[tuple[str, int], tuple[float, str]] = {}

    def authorization(self, origin: str, which: int) -> str:
        """The header's value (RFC 8292, section 3).

        Args:
            origin: of the push service, as in ``Endpoint.origin``.
            which: the place of the key in the file.
        """
        now = self._clock()
        until, made = self._made.get((origin, which), (0.0, ""))
        if not RENEWED <= until - now <= LIFETIME:
            until = now + LIFETIME
            claims = {"aud": origin, "exp": int(until), "sub": self._subject}
            made = f"vapid t={sign(self._keys[which], {}, claims)}, k={self._public[which]}"
            if len(self._made) >= MAX_ORIGINS:
                self._made.clear()
            self._made[origin, which] = until, made
        return made


def load_keys(path: Path) -> VapidKeys:
    """The keys in a file.

    Raises:
        ValueError: it cannot be used; the message goes on behind the name of the file.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    if len(text) > MAX_FILE:
        raise ValueError(f"is larger than {MAX_FILE} bytes")
    # `openssl ecparam -genkey` puts the curve before the key.
    blocks = [each for each in _blocks(text) if not each.startswith(_PARAMETERS)]
    if not 0 < len(blocks) <= MAX_KEYS:
        raise ValueError(f"holds {len(blocks)} keys in PEM, not one or two")
    keys = [*map(_key, blocks)]
    if len({*map(public_text, keys)}) < len(keys):
        raise ValueError("holds the same key twice")
    return VapidKeys(keys)


def _blocks(text: bytes) -> list[bytes]:
    return [_BEGIN + each.partition(_END)[0] + _END + each.partition(_END)[2].partition(b"\n")[0]
            + b"\n" for each in text.split(_BEGIN)[1:]]  # fmt: skip


def _key(block: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(block, None)
    except TypeError:
        raise ValueError("holds a key that a password protects") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("holds something other than private keys in PEM") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("holds a key that is not on the curve P-256")  # noqa: TRY004 - of a file
    return key


def public_text(key: ec.EllipticCurvePrivateKey) -> str:
    """The public key (application server key), in base64url of its uncompressed form."""
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return urlsafe_b64encode(point).rstrip(b"=").decode()


def new_key() -> tuple[bytes, str]:
    """A new key: the PEM of the private key, and the public key as in ``public_text``."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem, public_text(key)


def is_subject(text: str) -> bool:
    """Whether push services take this for somebody to ask (RFC 8292, section 2.1)."""
    return len(text) <= MAX_SUBJECT and text.isascii() and bool(_SUBJECT.fullmatch(text))
