"""Which servers a client may have pushes sent to, by the address that it gives (pure)."""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

KNOWN: Final = (
    "fcm.googleapis.com",  # Chrome, Edge on Android, Opera, Samsung Internet, Brave
    "jmt17.google.com",  # Chromium as distributions build it
    "*.push.services.mozilla.com",  # Firefox
    "*.push.apple.com",  # Safari
    "*.notify.windows.com",  # Edge on Windows
)
"""The push services of browsers."""

ANY: Final = "*"
"""Stands for every public host."""

MAX_ENDPOINT: Final = 2048
"""Characters of an address."""

_NAME: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST: Final = rf"{_NAME}(?:\.{_NAME}){{0,126}}"
_PATTERN: Final = re.compile(rf"(?:\*\.)?{_HOST}")
# Nothing that two parsers may read in two ways: no user, no IPv6 address, no backslash, no
# fragment.
_ENDPOINT: Final = re.compile(
    rf"(https?)://({_HOST})(?::([0-9]{{1,5}}))?(/[!-\"$-\[\]-~]*)?", re.IGNORECASE
)
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORTS: Final = {"http": 80, "https": 443}


class NotAllowed(ValueError):
    """No push may be sent to an address; the message says why."""


class Endpoint(NamedTuple):
    """An address of a subscription, taken apart."""

    url: str
    host: str
    """In lower case."""
    origin: str
    """Scheme, host, and the port where it is not that of the scheme (RFC 6454, 6.2)."""
    known: bool
    """Whether its host is listed, and not only let in by ``*``."""


class Hosts:
    """The hosts that pushes may be sent to: the known push services, and more.

    Args:
        more: names of hosts, ``*.suffix`` for all below a name, or ``*`` for every public host.
        allow_private: for tests: any host and port, http too.

    Raises:
        ValueError: something in ``more`` is none of these.
    """

    def __init__(self, more: Sequence[str] = (), *, allow_private: bool = False) -> None:
        self.allow_private = allow_private
        self._any = ANY in more
        names = [each.lower() for each in (*KNOWN, *more) if each != ANY]
        for each in names:
            if not _PATTERN.fullmatch(each) or _is_number(each):
                raise ValueError(f"'{each}' is not a host, *.host, or *")
        self._names = frozenset(each for each in names if not each.startswith("*"))
        self._suffixes = tuple(each[1:] for each in names if each.startswith("*"))

    def endpoint(self, url: str) -> Endpoint:
        """Take an address apart.

        Raises:
            NotAllowed: nothing may be sent there.
        """
        if len(url) > MAX_ENDPOINT:
            raise NotAllowed(f"an address of more than {MAX_ENDPOINT} characters")
        match = _ENDPOINT.fullmatch(url)
        if match is None:
            raise NotAllowed("no address of a push service: not https://host/path")
        scheme, host, port = match[1].lower(), match[2].lower(), match[3]
        number = _PORTS[scheme] if port is None else int(port)
        known = host in self._names or host.endswith(self._suffixes)
        if not self.allow_private:
            if scheme != "https":
                raise NotAllowed("not https")
            if number != _PORTS["https"]:
                raise NotAllowed("a port other than 443")
            if _is_number(host):
                raise NotAllowed("an IP address in place of a host")
            if not known and not (self._any and "." in host):
                raise NotAllowed(f"{host} is not among the push services that are allowed")
        elif not 0 < number < 65_536:
            raise NotAllowed("no port")
        usual = number == _PORTS[scheme]
        origin = f"{scheme}://{host}" if usual else f"{scheme}://{host}:{number}"
        return Endpoint(url, host, origin, known)


def _is_number(host: str) -> bool:
    """Whether resolvers would take a host for an IPv4 address, in any of its spellings."""
    return _NUMBER.fullmatch(host.rpartition(".")[2]) is not None
