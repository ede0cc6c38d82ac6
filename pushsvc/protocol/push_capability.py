"""Capabilities: what a push carries, so that its device can fetch and mark one notification (pure).

A service worker has no token, and a push may carry ids only. Sealed by a key that all nodes share
(AES-256-GCM), a capability tells its holder nothing and cannot be made or altered; it names one
notification of one mailbox and the device that it is for, and is good until that expires.
"""

import base64
import hashlib
import re
import secrets
from typing import Final, NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pushsvc.errors import InvalidToken
from pushsvc.protocol import feeds, ids

PREFIX: Final = "pc1."
"""What every capability begins with; no JSON Web Token does."""
MAX_CAPABILITY: Final = 1200
"""Most characters of one: a user, a namespace and a device of the longest names fit."""
SECRET_BYTES: Final = 32
"""Bytes of the key that all nodes share."""

_SALT: Final = 16
_NONCE: Final = 12
_TAG: Final = 16
_PERSON: Final = b"pushsvc-pc1"
_match = re.compile(r"pc1\.[A-Za-z0-9_-]+").fullmatch


class Capability(NamedTuple):
    """What a capability opens."""

    mailbox: str
    """The feed of the user's mailbox."""
    notification: int
    """The id of the notification."""
    device: str
    """The device that the push went to."""
    expires: int
    """Until when it is good, in milliseconds since the epoch."""


class _Sealed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is inside: names as their owners call them, which are shorter than what is stored."""

    namespace: str
    user: str
    notification: str
    device: str
    expires: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Sealed).decode


def seal(secret: bytes, mailbox: str, notification: int, device: str, expires: int) -> str:
    """Make a capability.

    Args:
        secret: the key that all nodes share, of ``SECRET_BYTES``.
        mailbox: the feed of the user's mailbox.
        notification: the id of the notification.
        device: the device that the push goes to.
        expires: until when it is good, in milliseconds since the epoch.

    Returns:
        At most ``MAX_CAPABILITY`` characters of ASCII; another text each time.
    """
    inside = _Sealed(
        feeds.namespace_of(mailbox),
        feeds.name_of(mailbox),
        ids.render(notification),
        device,
        expires,
    )
    salt, nonce = secrets.token_bytes(_SALT), secrets.token_bytes(_NONCE)
    sealed = AESGCM(_key(secret, salt)).encrypt(nonce, _encode(inside), None)
    return PREFIX + base64.urlsafe_b64encode(salt + nonce + sealed).rstrip(b"=").decode()


def open_sealed(secret: bytes, text: str, now: int) -> Capability:
    """What a capability opens.

    Args:
        secret: the key that all nodes share, of ``SECRET_BYTES``.
        text: as it was sent.
        now: the time, in milliseconds since the epoch.

    Raises:
        InvalidToken: it is none, was altered, is sealed by another key, or has expired.
    """
    check_form(text)
    sealed = _bytes(text[len(PREFIX) :])
    salt, nonce, rest = sealed[:_SALT], sealed[_SALT : _SALT + _NONCE], sealed[_SALT + _NONCE :]
    if len(rest) < _TAG:
        raise _refused()
    try:
        inside = _decode(AESGCM(_key(secret, salt)).decrypt(nonce, rest, None))
    except InvalidTag:
        raise _refused() from None
    if now >= inside.expires:
        raise InvalidToken("the capability has expired with its notification: ask with a token")
    mailbox = feeds.mailbox(inside.user, inside.namespace)
    return Capability(mailbox, ids.parse(inside.notification), inside.device, inside.expires)


def check_form(text: str) -> None:
    """Check what can be told without the key.

    Args:
        text: as it was sent; its length is looked at first.

    Raises:
        InvalidToken: it is no capability.
    """
    if len(text) > MAX_CAPABILITY or not text.startswith(PREFIX) or not _match(text):
        raise InvalidToken(
            'send the "capability" of the push as it came: Authorization: Bearer pc1.…'
        )


def _bytes(text: str) -> bytes:
    """What base64url stands for, written in the one way that ``seal`` writes it.

    Raises:
        InvalidToken: it is none.
    """
    try:
        found = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raise _refused() from None
    # The last character has bits to spare: altered there, it would be the same capability.
    if base64.urlsafe_b64encode(found).rstrip(b"=").decode() != text:
        raise _refused()
    return found


def _key(secret: bytes, salt: bytes) -> bytes:
    """The key of one capability.

    One key for all would be worn out: of 2**32 random nonces two may be the same, which gives the
    key of the tags away, and a busy service makes as many in weeks.
    """
    return hashlib.blake2b(key=secret, salt=salt, person=_PERSON, digest_size=32).digest()


def _refused() -> InvalidToken:
    return InvalidToken(
        "the capability was not made here, or was altered: send that of the push unchanged"
    )
