"""Encryption of Web Push, by the example of its RFC and by an implementation that is not ours."""

import secrets
from base64 import urlsafe_b64decode

import http_ece
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.push.encryption import MAX_PLAINTEXT, decoded, encrypt, public_key, secret


def raw(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def key_of(text: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(raw(text)), ec.SECP256R1())


# RFC 8291, section 5 and appendix A.
PLAINTEXT = b"When I grow up, I want to be a watermelon"
RECEIVER = "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"
P256DH = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
AUTH = "BTBZMqHH6r4Tts7J_aSIgg"
SENDER = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"
SALT = "DGv6ra1nlYgDCS1FRnbzlw"
BODY = (
    "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27ml"
    "mlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPT"
    "pK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
)


def test_the_example_of_the_rfc_comes_out_byte_for_byte() -> None:
    body = encrypt(
        PLAINTEXT, public_key(P256DH), secret(AUTH), salt=raw(SALT), key=key_of(SENDER), pad=False
    )
    assert body == raw(BODY)


def test_what_the_rfc_gives_is_decrypted_by_whom_it_is_for() -> None:
    """The tests' own way of decrypting."""
    key = key_of(RECEIVER)
    opened = http_ece.decrypt(
        raw(BODY), private_key=key, auth_secret=raw(AUTH), version="aes128gcm"
    )
    assert opened == PLAINTEXT


@given(st.binary(max_size=MAX_PLAINTEXT))
def test_everything_that_fits_comes_out_again(plaintext: bytes) -> None:
    key, auth = ec.generate_private_key(ec.SECP256R1()), secrets.token_bytes(16)
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    body = encrypt(plaintext, point, auth)
    opened = http_ece.decrypt(body, private_key=key, auth_secret=auth, version="aes128gcm")
    assert opened == plaintext
    assert len(body) <= 3070
    assert (len(body) - 86 - 16) % 256 == 0 or len(body) == 3070


def test_no_two_messages_share_a_key_or_a_salt() -> None:
    bodies = [encrypt(b"x", raw(P256DH), raw(AUTH)) for _ in range(20)]
    assert len({each[:16] for each in bodies}) == len({each[21:86] for each in bodies}) == 20


@pytest.mark.parametrize("change", [
    lambda point: point[:-1] + bytes([point[-1] ^ 1]),  # not on the curve
    lambda point: b"\x02" + point[1:],
    lambda _: b"\x04" + bytes(64),
    lambda _: b"\x04" + b"\xff" * 64,
])  # fmt: skip
def test_a_point_that_is_not_on_the_curve_is_never_used(change: object) -> None:
    assert callable(change)
    with pytest.raises(ValueError, match=r"[Ii]nvalid|[Pp]oint|curve|infinity"):
        encrypt(b"x", change(raw(P256DH)), raw(AUTH))


@pytest.mark.parametrize("text", ["-_8", "-_8=", "+/8", "+/8=", "-/8="])
def test_base64_is_read_as_libraries_write_it(text: str) -> None:
    assert decoded(text) == b"\xfb\xff"


@pytest.mark.parametrize("text", ["", "A", "é", "a b c", "a=b=", "\n", "A" * 129, "\ud800"])
def test_what_is_no_base64_is_nothing(text: str) -> None:
    assert decoded(text) == b""
