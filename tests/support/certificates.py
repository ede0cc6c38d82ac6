"""An authority of our own, and the certificates that it gives out."""

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

P256 = bytes.fromhex("06082a8648ce3d030107")
"""The curve of the keys, as it is written in a certificate."""
UNKNOWN_CURVE = bytes.fromhex("06082a8648ce3d030001")

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def write_key(path: Path, key: Key, passphrase: bytes | None = None) -> None:
    hidden = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden))


def change(certificate: Path, old: bytes, new: bytes) -> None:
    """Have the first certificate of a file say something else; its signature is wrong then."""
    leaf, *chain = x509.load_pem_x509_certificates(certificate.read_bytes())
    der = leaf.public_bytes(Encoding.DER)
    changed = x509.load_der_x509_certificate(der.replace(old, new))
    certificate.write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in [changed, *chain]))


class Authority:
    """A root, and an intermediate that signs for it.

    Args:
        directory: where the root's certificate is written, as ``ca.pem``.
        usage: whether certificates of authorities say what their keys are for.
    """

    def __init__(self, directory: Path, *, usage: bool = True) -> None:
        self._usage = usage
        self._root, self._root_key = self._signed("root", None, None, authority=True)
        self._middle, self._middle_key = self._signed(
            "intermediate", self._root, self._root_key, authority=True
        )
        self.file = directory / "ca.pem"
        self.file.write_bytes(self._root.public_bytes(Encoding.PEM))

    def context(self) -> ssl.SSLContext:
        """How a client trusts it, and nobody else."""
        return ssl.create_default_context(cafile=str(self.file))

    def issue(
        self, directory: Path, *, ends: timedelta = timedelta(days=30), weak: bool = False
    ) -> tuple[Path, Path]:
        """A certificate with its chain, and its key, for 127.0.0.1: the files."""
        leaf, key = self._signed("node", self._middle, self._middle_key, ends=ends, weak=weak)
        certificate_file, key_file = directory / "tls.crt", directory / "tls.key"
        chain = [each.public_bytes(Encoding.PEM) for each in (leaf, self._middle)]
        certificate_file.write_bytes(b"".join(chain))
        write_key(key_file, key)
        return certificate_file, key_file

    def _signed(
        self,
        name: str,
        issuer: x509.Certificate | None,
        issuer_key: Key | None,
        *,
        ends: timedelta = timedelta(days=30),
        authority: bool = False,
        weak: bool = False,
    ) -> tuple[x509.Certificate, Key]:
        key: Key = rsa.generate_private_key(65537, 1024) if weak else ec.generate_private_key(
            ec.SECP256R1()
        )  # fmt: skip
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(name) if issuer is None else issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=60))
            .not_valid_after(now + ends)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(
                    (issuer_key or key).public_key()
                ),
                False,
            )
        )
        if authority and self._usage:
            usage = x509.KeyUsage(
                digital_signature=False, content_commitment=False, key_encipherment=False,
                data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=True,
                encipher_only=False, decipher_only=False,
            )  # fmt: skip
            builder = builder.add_extension(usage, critical=True)
        if not authority:
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            names = x509.SubjectAlternativeName([address, x509.DNSName("localhost")])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(issuer_key or key, hashes.SHA256()), key
