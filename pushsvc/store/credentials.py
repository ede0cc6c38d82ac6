"""How a server of Redis lets a node in, and how the node knows the server: passwords and TLS.

The files are read for each new connection, so a Secret that was rotated where it is mounted needs
no restart.
"""

import functools
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as RedisConnectionError

from pushsvc.settings.secret_files import SecretFileError, read_secret


class AccessError(Exception):
    """A file that is to be let in with cannot be used.

    Args:
        variable: the setting, without the prefix.
        message: what is wrong with it; one line, without secrets.
    """

    def __init__(self, variable: str, message: str) -> None:
        super().__init__(f"{variable}: {message}")
        self.variable = variable
        self.message = message


@dataclass(frozen=True, slots=True)
class Login(CredentialProvider):
    """A user whose password is in a file.

    Attributes:
        password_file: read for each new connection.
        username: empty is the user ``default``.
    """

    password_file: Path
    username: str = ""

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """What to send with ``AUTH``.

        Raises:
            AuthenticationError: the file cannot be used.
        """
        try:
            password = read_secret(self.password_file)
        except SecretFileError as error:
            raise AuthenticationError(f"{self.password_file} {error}") from None
        return (self.username, password) if self.username else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """The same; the file is small, and read once a connection."""
        return self.get_credentials()


@dataclass(frozen=True, slots=True)
class TLS:
    """The TLS of connections to Redis: the chain and the name of the server are verified.

    Attributes:
        ca_file: PEM file of those who may certify a server; None takes the system's.
        cert_file: PEM file with the certificate to show, if one is asked for.
        key_file: PEM file with its private key; set where ``cert_file`` is.
    """

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def get(self) -> ssl.SSLContext:
        """What the next connection is to use.

        Raises:
            redis.exceptions.ConnectionError: a file cannot be used.
        """
        try:
            stamps = tuple(_stamp(file) for file in (self.ca_file, self.cert_file, self.key_file))
            return _loaded(self, stamps)
        except AccessError as error:
            raise RedisConnectionError(error.message) from None

    def load(self) -> ssl.SSLContext:
        """Read the files.

        Raises:
            AccessError: one of them cannot be used.
        """
        if self.ca_file is None:
            context = ssl.create_default_context()
        else:
            text = _read("REDIS_CA_FILE", self.ca_file)
            # What is around the certificates is comment, in any language.
            text = text.encode("ascii", "replace").decode()
            try:
                # Named authorities are trusted in place of the system's, not besides them.
                context = ssl.create_default_context(cadata=text)
                # Python 3.13 refuses authorities without a key usage (RFC 5280, 4.2.1.3), as
                # `openssl req -x509` makes them: one that is named is meant.
                context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            except ssl.SSLError:
                raise AccessError(
                    "REDIS_CA_FILE", f"{self.ca_file} is no PEM file of certificates"
                ) from None
        if self.cert_file is not None and self.key_file is not None:
            _read("REDIS_CERT_FILE", self.cert_file)
            _read("REDIS_KEY_FILE", self.key_file)
            try:
                # Without a password, OpenSSL would ask for one on the terminal.
                context.load_cert_chain(self.cert_file, self.key_file, password="")
            except (ssl.SSLError, ValueError):
                raise AccessError(
                    "REDIS_CERT_FILE",
                    f"{self.cert_file} is no PEM certificate that fits the key, not encrypted, in"
                    f" {self.key_file}",
                ) from None
        return context


@dataclass(frozen=True, slots=True)
class Access:
    """How to be let in where a URL leads.

    Attributes:
        login: to Redis; None where the URL says it, or nothing is asked for.
        sentinel: to the Sentinel processes themselves.
        tls: used where the URL begins with ``rediss``.
    """

    login: Login | None = None
    sentinel: Login | None = None
    tls: TLS = TLS()

    def check(self) -> None:
        """Use every file once.

        Raises:
            AccessError: one of them cannot be used.
        """
        for variable, login in (
            ("REDIS_PASSWORD_FILE", self.login),
            ("REDIS_SENTINEL_PASSWORD_FILE", self.sentinel),
        ):
            if login is not None:
                _read(variable, login.password_file)
        self.tls.load()


OPEN: Final = Access()
"""Where nothing is asked for beyond what the URL says."""


def _stamp(file: Path | None) -> tuple[int, ...]:
    """What changes with the content of a file: an edit, or the link that leads to it."""
    try:
        status = file.stat() if file is not None else None
    except OSError:
        status = None  # to read it will tell
    return () if status is None else (status.st_ino, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=1)
def _loaded(tls: TLS, stamps: tuple[tuple[int, ...], ...]) -> ssl.SSLContext:  # noqa: ARG001 - part of the key
    # To read the system's authorities takes 20 ms, and a Cluster has many servers.
    return tls.load()


def _read(variable: str, path: Path) -> str:
    try:
        return read_secret(path)
    except SecretFileError as error:
        raise AccessError(variable, f"{path} {error}") from None


class FreshTLS:
    """Adds to a TLS connection of redis-py that files which changed are used."""

    def __init__(self, *, tls: TLS, **options: Any) -> None:
        super().__init__(**options)
        # redis-py asks this for a context at each connect, and itself would keep its first one.
        self.ssl_context: Any = tls
