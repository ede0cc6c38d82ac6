"""Key files, and what push services are told of this server."""

import base64
import json
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st
from py_vapid import Vapid02

from pushsvc.push.vapid import LIFETIME, MAX_FILE, RENEWED, is_subject, load_keys, new_key

ORIGIN = "https://fcm.googleapis.com"
SUBJECT = "mailto:push@example.com"


def write(path: Path, *keys: bytes) -> Path:
    path.write_bytes(b"".join(keys))
    return path


def pem(key: object, password: bytes | None = None) -> bytes:
    assert hasattr(key, "private_bytes")
    hidden = BestAvailableEncryption(password) if password else NoEncryption()
    made = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden)
    assert isinstance(made, bytes)
    return made


def test_a_file_has_the_keys_in_its_order(tmp_path: Path) -> None:
    (new, new_public), (old, old_public) = new_key(), new_key()
    assert load_keys(write(tmp_path / "one", new)).public == (new_public,)
    assert load_keys(write(tmp_path / "two", new, old)).public == (new_public, old_public)
    spaced = b"a comment\n" + new.replace(b"\n", b"\r\n") + b"\n\n" + old.rstrip()
    assert load_keys(write(tmp_path / "spaced", spaced)).public == (new_public, old_public)
    assert len(base64.urlsafe_b64decode(new_public + "=")) == 65


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_other_programs_make_keys_too(tmp_path: Path, form: PrivateFormat) -> None:
    vapid = Vapid02()
    vapid.generate_keys()
    text = vapid.private_key.private_bytes(Encoding.PEM, form, NoEncryption())
    public = base64.urlsafe_b64decode(load_keys(write(tmp_path / "key", text)).public[0] + "=")
    assert Vapid02.from_raw_public(base64.urlsafe_b64encode(public)).public_key == vapid.public_key


def test_what_openssl_writes_is_taken_with_the_curve_before_it(tmp_path: Path) -> None:
    file = tmp_path / "key"
    command = ["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-out", str(file)]
    subprocess.run(command, check=True, capture_output=True)
    assert b"EC PARAMETERS" in file.read_bytes()
    assert len(load_keys(file).public) == 1


KEY = new_key()[0]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "holds 0 keys in PEM, not one or two"),
        (b"\xff\0", "holds 0 keys"),
        (b"".join(new_key()[0] for _ in range(3)), "holds 3 keys"),
        (KEY + KEY, "holds the same key twice"),
        (pem(ec.generate_private_key(ec.SECP384R1())), "not on the curve P-256"),
        (pem(rsa.generate_private_key(65537, 2048)), "not on the curve P-256"),
        (pem(ed25519.Ed25519PrivateKey.generate()), "not on the curve P-256"),
        (pem(ec.generate_private_key(ec.SECP256R1()), b"secret"), "a password protects"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "something other"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "something other"),
        (KEY[:-40], "something other"),
        (b"#" * (MAX_FILE + 1), f"is larger than {MAX_FILE} bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # keys differ each time
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, content: bytes, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        load_keys(write(tmp_path / "key", content))


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read: No such file or directory"):
        load_keys(tmp_path / "none")
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        load_keys(tmp_path)


@given(st.binary(max_size=400))
def test_no_file_brings_it_down(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any"
    head = b"-----BEGIN PRIVATE KEY-----\n"
    for text in (content, head + content, head + base64.b64encode(content) + b"\n-----END x-----"):
        file.write_bytes(text)
        with pytest.raises(ValueError, match="holds"):
            load_keys(file)


def claims(authorization: str) -> dict[str, object]:
    part = authorization.split(".")[1]
    found = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    assert isinstance(found, dict)
    return found


def test_a_push_service_is_told_who_this_is(tmp_path: Path) -> None:
    keys = load_keys(write(tmp_path / "keys", KEY, new_key()[0]))
    now = 1_764_000_000.0
    signer = keys.signer(SUBJECT, lambda: now)
    for which, public in enumerate(keys.public):
        made = signer.authorization(ORIGIN, which)
        assert made.startswith("vapid t=")
        assert made.endswith(f", k={public}")
        assert Vapid02.verify(made.replace(", ", ","))
        assert claims(made) == {"aud": ORIGIN, "exp": now + LIFETIME, "sub": SUBJECT}


def test_a_token_is_made_anew_before_it_ends_or_where_the_clock_was_wrong(tmp_path: Path) -> None:
    now = 1_764_000_000.0
    signer = load_keys(write(tmp_path / "key", KEY)).signer(SUBJECT, lambda: now)
    first = signer.authorization(ORIGIN, 0)
    assert signer.authorization("https://web.push.apple.com", 0) != first
    now += LIFETIME - RENEWED - 1
    assert signer.authorization(ORIGIN, 0) == first
    now += 2
    second = signer.authorization(ORIGIN, 0)
    assert claims(second)["exp"] == now + LIFETIME
    now -= 86_400
    assert claims(signer.authorization(ORIGIN, 0))["exp"] == now + LIFETIME


def test_tokens_for_push_services_without_end_take_no_memory_without_end(tmp_path: Path) -> None:
    signer = load_keys(write(tmp_path / "key", KEY)).signer(SUBJECT)
    for number in range(600):
        signer.authorization(f"https://{number}.example", 0)
    assert len(signer._made) <= 256


@pytest.mark.parametrize("text", ["mailto:push@example.com", "https://example.com/contact"])
def test_somebody_to_ask_is_a_mail_address_or_a_page(text: str) -> None:
    assert is_subject(text)


@pytest.mark.parametrize("text", [
    "", "push@example.com", "http://example.com", "mailto:", "https://", "mailto: push@example.com",
    "mailto:push@example.com\n", "mailto:p\u00fcsh@example.com", "mailto:" + "x" * 300,
    "mailto:<push@example.com>", "mailto:push",
])  # fmt: skip
def test_others_are_not(text: str) -> None:
    assert not is_subject(text)
