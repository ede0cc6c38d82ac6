"""What to change, said where something cannot work: addresses, tokens, and answers that miss."""

import socket
import ssl as tls
from collections.abc import Iterator
from typing import Final
from urllib.parse import SplitResult, urlsplit

from pushsvc.client.errors import NoAnswer, NotInTime, Refused

_PORTS: Final = {"http": 80, "https": 443}
_SAME: Final = {"ws": "http", "wss": "https"}


def split_address(url: str, *schemes: str) -> SplitResult:
    """The parts of the address of a node.

    Args:
        url: as the program gives it.
        schemes: those that it may have.

    Raises:
        ValueError: it has another one, or none, or no host.
    """
    if "://" not in url:
        raise ValueError(
            f"{url!r} has no scheme: write {f'http://{url}'!r}, or https:// where the service"
            " speaks TLS"
        )
    parts = urlsplit(url)
    if parts.scheme not in schemes or not parts.hostname:
        known = " or ".join(f"{scheme}://" for scheme in schemes)
        raise ValueError(f"{url!r} is no address of a node: it begins with {known} and a host")
    parts.port  # noqa: B018 - raises ValueError where it is none
    return parts


def checked_token(token: str) -> str:
    """A token that can be sent.

    Raises:
        Refused: it holds what no token has, which is not shown.
    """
    if token and token.isascii() and token.isprintable() and " " not in token:
        return token
    wrong = "has white space or other characters that no token has, as the end of a line"
    raise Refused(
        f"the token {'is empty' if not token else wrong}: look where the program has it from",
        code="invalid_token",
    )


def place(url: str) -> str:
    """What of an address is shown in logs: ``http://host:port``."""
    parts = urlsplit(url)
    scheme = _SAME.get(parts.scheme, parts.scheme)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{scheme}://{host}:{parts.port or _PORTS[scheme]}"


def no_answer(error: BaseException, url: str, *, first: bool) -> NoAnswer:
    """The error that there is instead of an answer, in words that say what to change.

    Args:
        error: of the network, or of the libraries that speak on it.
        url: of the service.
        first: whether there was never an answer, so that the address may be wrong.
    """
    causes = list(_causes(error))
    kind = NotInTime if any(isinstance(each, TimeoutError) for each in causes) else NoAnswer
    told = kind(_told(causes, place(url), first=first))
    told.__cause__ = error
    return told


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _told(causes: list[BaseException], where: str, *, first: bool) -> str:
    for each in causes:
        if isinstance(each, ConnectionRefusedError):
            advice = "; start a node there, or correct the host and port of the URL" * first
            return f"{where} refuses connections{advice}"
        if isinstance(each, socket.gaierror):
            return f"the host of {where} is not known: correct the URL"
        if isinstance(each, tls.SSLCertVerificationError):
            return (
                f"the certificate of {where} is not trusted ({each.verify_message}): give `ssl` a"
                " context that trusts its authority, ssl.create_default_context(cafile=…)"
            )
    timed_out = any(isinstance(each, TimeoutError) for each in causes)
    # Who speaks no TLS waits for more, or hangs up, which OpenSSL may tell as either.
    no_tls = timed_out or any(isinstance(each, (tls.SSLError, ConnectionError)) for each in causes)
    scheme, rest = where.split(":", 1)
    advice = ""
    if first and scheme == "http":
        advice = f"; if it speaks TLS, write https:{rest}"
    elif first and no_tls:
        advice = f"; if it does not speak TLS, write http:{rest}"
    if timed_out:
        return f"{where} does not answer in time{advice}"
    said = [str(each) for each in causes[:2] if str(each)]  # what the libraries wrap says more
    return f"no answer of {where} ({said[-1] if said else type(causes[0]).__name__}){advice}"
