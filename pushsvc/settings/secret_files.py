"""Secrets in files, as Kubernetes and other managers of secrets hand them over."""

from pathlib import Path
from typing import Final

MAX_SECRET: Final = 1024 * 1024
"""Bytes of such a file; more is some other file. The system's authorities are a quarter of it."""


class SecretFileError(Exception):
    """A secret's file cannot be used; the message says why, without the path or the content."""


def read_secret(path: Path) -> str:
    """The secret in a file, without the line end that an editor or ``echo`` put behind it.

    Raises:
        SecretFileError: it cannot be read, is empty, too long or no text.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SECRET + 1)
    except OSError as error:
        raise SecretFileError(f"cannot be read: {error.strerror}") from None
    except ValueError:  # a null byte, or what has no encoding
        raise SecretFileError("cannot be read: it is no path") from None
    if len(content) > MAX_SECRET:
        raise SecretFileError(f"holds more than {MAX_SECRET} bytes, which is no secret")
    try:
        secret = content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise SecretFileError("holds bytes that are not UTF-8") from None
    if not secret:
        raise SecretFileError("is empty")
    return secret
