"""The certificate that the public port shows, read again when its files change."""

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pushsvc import metrics

log = structlog.get_logger("pushsvc.certificates")


class CertificateError(Exception):
    """A certificate or its key cannot be used.

    Args:
        variable: the setting that names the file, without its prefix.
        message: what is wrong with it; one line.
    """

    def __init__(self, variable: str, message: str) -> None:
        super().__init__(f"{variable}: {message}")
        self.variable = variable
        self.message = message


@dataclass(frozen=True, slots=True)
class Loaded:
    """A certificate that can be shown."""

    context: ssl.SSLContext
    begins: float
    """Unix time from which it is good."""
    ends: float
    """Unix time until which it is good."""


def load(certificate: Path, key: Path) -> Loaded:
    """Read a certificate and its key.

    Args:
        certificate: a PEM file: the node's own certificate, and behind it those that lead to the
            authority.
        key: a PEM file with the private key, not encrypted.

    Raises:
        CertificateError: a file cannot be read or used, or they do not belong together.
    """
    try:
        leaf, *_ = x509.load_pem_x509_certificates(_read("TLS_CERT_FILE", certificate))
    except ValueError:
        raise CertificateError(
            "TLS_CERT_FILE", f"'{certificate}' is not a PEM file with certificates"
        ) from None
    try:
        private = load_pem_private_key(_read("TLS_KEY_FILE", key), None)
    except TypeError:
        raise CertificateError(
            "TLS_KEY_FILE", f"'{key}' is encrypted: write the key without a passphrase"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(
            "TLS_KEY_FILE", f"'{key}' is not a PEM file with a private key"
        ) from None
    try:
        belong = private.public_key() == leaf.public_key()
        begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise CertificateError(
            "TLS_CERT_FILE",
            f"'{certificate}' has a public key of a kind that cannot be used: issue it for an RSA "
            "or a P-256 key",
        ) from None
    if not belong:
        raise CertificateError(
            "TLS_KEY_FILE", f"'{key}' is not the key of the first certificate in TLS_CERT_FILE"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # To a client that asks for it again and again it costs little, and the node much.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        # A passphrase is never asked for: files that change just now must not stop the node.
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        raise CertificateError(
            "TLS_CERT_FILE", f"'{certificate}' is refused by OpenSSL: {reason}"
        ) from None
    return Loaded(context, begins.timestamp(), ends.timestamp())


def _read(variable: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(variable, f"'{path}' cannot be read: {error.strerror}") from None


class Certificates:
    """The certificate in use.

    Whatever replaces the files shows in what the system says of them: a rename, a write, or the
    symbolic link that Kubernetes swaps in a mounted Secret. New connections get the new one; those
    that are there keep theirs. One that cannot be used changes nothing.

    Args:
        certificate: see ``load``.
        key: see ``load``.
        clock: Unix time in seconds.

    Raises:
        CertificateError: see ``load``.
    """

    def __init__(
        self, certificate: Path, key: Path, clock: Callable[[], float] = time.time
    ) -> None:
        self._files = (certificate, key)
        self._clock = clock
        self._found = self._tried = self._look()
        self._use(load(certificate, key))

    def tick(self) -> None:
        """Take a new certificate over; to be called once a second."""
        before, self._found = self._found, self._look()
        # Two files cannot be replaced at once, so they are read when they have come to rest.
        if self._found == self._tried or self._found != before:
            return
        self._tried = self._found
        try:
            loaded = load(*self._files)
        except CertificateError as error:
            log.warning(
                "the new certificate cannot be used, the old one stays",
                variable=error.variable,
                reason=error.message,
                expires=_date(self._ends),
            )
        except Exception:
            # A file must not end a worker, and every worker reads the same one.
            log.exception("the new certificate met an unexpected error, the old one stays")
        else:
            self._use(loaded)
            log.info("a new certificate is in use", expires=_date(loaded.ends))

    def _use(self, loaded: Loaded) -> None:
        self.context = loaded.context
        self._ends = loaded.ends
        metrics.certificate_expires.set(loaded.ends)
        if loaded.ends <= self._clock():
            log.warning("the certificate has expired", expired=_date(loaded.ends))
        elif loaded.begins > self._clock():
            log.warning("the certificate is not good yet", begins=_date(loaded.begins))

    def _look(self) -> list[tuple[int, ...] | None]:
        return [fingerprint(path) for path in self._files]


def fingerprint(path: Path) -> tuple[int, ...] | None:
    """What changes with a file; None while there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
