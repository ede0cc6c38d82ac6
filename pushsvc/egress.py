"""The way out to other servers: the proxy that the environment names, and whom to trust."""

import ssl
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from urllib3 import make_headers
from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url

MAX_AUTHORITIES: Final = 1 << 20
"""Bytes of a file with authorities; those of the system are a quarter of it."""


def proxy_of(url: str) -> Url | None:
    """The proxy that the environment names for an address, in capitals or not.

    Raises:
        ValueError: it is of a kind that is not supported.
    """
    parts = urlsplit(url)
    named = getproxies().get(parts.scheme)
    if not named or proxy_bypass(parts.netloc):
        return None
    try:
        proxy = parse_url(named if "://" in named else f"http://{named}")
    except LocationParseError:
        proxy = Url()
    if proxy.scheme != "http" or not proxy.host or proxy.port == 0:
        raise ValueError(
            f"{parts.scheme.upper()}_PROXY is not http://[user:password@]host[:port], the one kind"
            " of proxy that is supported"
        )
    return proxy


def proxy_login(proxy: Url) -> dict[str, str]:
    """The headers that let this server use a proxy: none where its URL has no user."""
    login = proxy.auth if ":" in (proxy.auth or ":") else f"{proxy.auth}:"
    # As Latin-1, since urllib3 encodes it so: the bytes are those of the URL.
    return make_headers(proxy_basic_auth=unquote(login, "latin-1")) if login else {}


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """How servers are checked.

    Args:
        ca_file: PEM file with the authorities that may certify a server, in place of the system's.

    Raises:
        ValueError: the file cannot be used.
    """
    try:
        if ca_file is not None and ca_file.stat().st_size > MAX_AUTHORITIES:
            raise ValueError(f"'{ca_file}' is larger than {MAX_AUTHORITIES} bytes")
        context = ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        raise ValueError(f"'{ca_file}' is no PEM file of certificates") from None
    except OSError as error:
        raise ValueError(f"'{ca_file}' cannot be read: {error.strerror}") from None
    if ca_file is not None:
        # Python 3.13 refuses authorities without a key usage (RFC 5280, 4.2.1.3), as made by
        # `openssl req -x509`: one that is named is meant.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
