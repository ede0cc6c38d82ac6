"""The heads of answers of HTTP/1.1 (RFC 9112, section 4)."""

from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

Pairs = tuple[tuple[str, str], ...]
"""Headers of an answer: names and values."""


def head_of(status: int, headers: Pairs, length: int, now: int, *, last: bool) -> bytes:
    """The head of an answer.

    Args:
        status: of HTTP.
        headers: all that are particular to it; of ``Connection`` an ``Upgrade`` only.
        length: bytes of the body.
        now: Unix time in seconds.
        last: whether the connection ends with it.
    """
    said = _fixed(status, headers, last)
    if status in (204, 304):  # RFC 9110, section 8.6
        return b"%sDate: %s\r\n\r\n" % (said, _date(now))
    return b"%sDate: %s\r\nContent-Length: %d\r\n\r\n" % (said, _date(now), length)


@lru_cache(maxsize=256)
def _fixed(status: int, headers: Pairs, last: bool) -> bytes:  # noqa: FBT001 - part of the key
    """What does not differ between the answers of a kind."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    for name, value in headers:
        also = ", close" if last and name == "Connection" else ""
        lines.append(f"{name}: {value}{also}")
    if last and not any(name == "Connection" for name, _ in headers):
        lines.append("Connection: close")
    return "\r\n".join([*lines, ""]).encode("latin-1")


@lru_cache(maxsize=2)
def _date(now: int) -> bytes:
    """A time as answers have it (RFC 9110, section 5.6.7)."""
    return formatdate(now, usegmt=True).encode()
