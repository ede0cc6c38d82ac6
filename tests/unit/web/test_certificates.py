from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from structlog.testing import capture_logs

from pushsvc.web import certificates as module
from pushsvc.web.certificates import CertificateError, Certificates, load
from tests.support.certificates import P256, UNKNOWN_CURVE, Authority, change, write_key


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def refused(certificate: Path, key: Path) -> str:
    with pytest.raises(CertificateError) as caught:
        load(certificate, key)
    text = str(caught.value)
    assert text.isprintable()
    return text.replace(f"{certificate.parent}/", "")


def test_what_cannot_be_used_is_told_in_one_line(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue(tmp_path)
    (tmp_path / "other").mkdir()
    _, other = authority.issue(tmp_path / "other")
    nothing, nonsense, folder = tmp_path / "nothing", tmp_path / "nonsense", tmp_path / "other"
    nonsense.write_text("nonsense")
    assert (
        refused(nothing, key)
        == "TLS_CERT_FILE: 'nothing' cannot be read: No such file or directory"
    )
    assert refused(folder, key) == "TLS_CERT_FILE: 'other' cannot be read: Is a directory"
    assert refused(nonsense, key) == "TLS_CERT_FILE: 'nonsense' is not a PEM file with certificates"
    assert refused(key, key) == "TLS_CERT_FILE: 'tls.key' is not a PEM file with certificates"
    assert refused(certificate, nothing).startswith("TLS_KEY_FILE: 'nothing' cannot be read: No ")
    assert refused(certificate, nonsense) == (
        "TLS_KEY_FILE: 'nonsense' is not a PEM file with a private key"
    )
    assert refused(certificate, certificate).endswith("is not a PEM file with a private key")
    assert refused(certificate, other).endswith(
        "is not the key of the first certificate in TLS_CERT_FILE"
    )


def test_a_key_behind_a_passphrase_is_refused_and_nobody_is_asked(
    authority: Authority, tmp_path: Path
) -> None:
    certificate, key = authority.issue(tmp_path)
    private = load_pem_private_key(key.read_bytes(), None)
    write_key(key, private, b"a passphrase")  # type: ignore[arg-type]
    assert refused(certificate, key).endswith("is encrypted: write the key without a passphrase")


def test_a_certificate_that_openssl_does_not_take_is_refused(
    authority: Authority, tmp_path: Path
) -> None:
    certificate, key = authority.issue(tmp_path, weak=True)
    assert "is refused by OpenSSL: EE_KEY_TOO_SMALL" in refused(certificate, key)


def test_a_certificate_with_a_key_of_an_unknown_kind_or_none_is_refused(
    authority: Authority, tmp_path: Path
) -> None:
    certificate, key = authority.issue(tmp_path)
    change(certificate, P256, UNKNOWN_CURVE)
    assert refused(certificate, key) == (
        "TLS_CERT_FILE: 'tls.crt' has a public key of a kind that cannot be used: issue it for an "
        "RSA or a P-256 key"
    )
    certificate, key = authority.issue(tmp_path)
    private = load_pem_private_key(key.read_bytes(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    point = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    change(certificate, point, point[:1] + bytes(64))
    assert "has a public key of a kind that cannot be used" in refused(certificate, key)


def test_no_look_at_the_files_is_an_error(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = authority.issue(tmp_path)
    certificates = Certificates(certificate, key)
    first = certificates.context

    def unforeseen(*_: Path) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(module, "load", unforeseen)
    authority.issue(tmp_path)
    with capture_logs() as lines:
        for _ in range(3):
            certificates.tick()
    assert certificates.context is first
    (line,) = lines
    assert (line["log_level"], line["exc_info"]) == ("error", True)
    monkeypatch.undo()
    authority.issue(tmp_path)
    for _ in range(2):
        certificates.tick()
    assert certificates.context is not first


def test_files_are_read_again_once_they_have_come_to_rest(
    authority: Authority, tmp_path: Path
) -> None:
    certificate, key = authority.issue(tmp_path)
    certificates = Certificates(certificate, key)
    first = certificates.context
    certificates.tick()
    assert certificates.context is first

    authority.issue(tmp_path)
    certificates.tick()
    assert certificates.context is first, "the files changed within this second"
    certificates.tick()
    second = certificates.context
    assert second is not first

    half = key.read_bytes()
    authority.issue(tmp_path)
    key.write_bytes(half)
    for _ in range(3):
        certificates.tick()
    assert certificates.context is second
    authority.issue(tmp_path)
    for _ in range(2):
        certificates.tick()
    assert certificates.context is not second
