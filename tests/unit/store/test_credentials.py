"""The files that let a node in."""

from pathlib import Path

import pytest

from pushsvc.store.credentials import TLS, AccessError
from tests.support.certificates import Authority


def test_an_authoritys_file_may_say_anything_around_its_certificates(tmp_path: Path) -> None:
    ca = Authority(tmp_path).file
    pem = ca.read_text()
    ca.write_text(f"# Zertifizierungsstelle M\u00fcnchen\n{pem}\nSubject: \u015eifre\n{pem}")
    assert len(TLS(ca).load().get_ca_certs()) == 1
    assert TLS(ca).get().get_ca_certs()


@pytest.mark.parametrize("text", ["\u00fc", "no certificate"])
def test_a_file_without_a_certificate_is_told_by_its_setting(text: str, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text(text)
    with pytest.raises(AccessError, match=f"REDIS_CA_FILE: {ca} is no PEM file of certificates"):
        TLS(ca).load()


def test_a_certificate_with_a_letter_that_is_none_of_its_code_is_refused(tmp_path: Path) -> None:
    ca = Authority(tmp_path).file
    lines = ca.read_text().splitlines()
    lines[2] = "\u00fc" + lines[2][1:]
    ca.write_text("\n".join(lines))
    with pytest.raises(AccessError, match="is no PEM file of certificates"):
        TLS(ca).load()
