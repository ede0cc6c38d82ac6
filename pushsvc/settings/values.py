"""The types of single values, each with the check that a value has to pass."""

import base64
import re
from enum import StrEnum
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, Secret, SecretStr

from pushsvc.settings.names import PREFIX

# HMAC with SHA-256 needs a key of at least the hash's size (RFC 7518, section 3.2).
MIN_SECRET_BYTES: Final = 32


class Durability(StrEnum):
    """What must have happened to a notification before its publisher is told that it is stored."""

    MEMORY = "memory"
    """It is in the memory of the Redis primary."""
    REPLICA = "replica"
    """At least one replica has it too."""
    FSYNC = "fsync"
    """It is on the primary's disk."""


class RedisURL(Secret[str]):
    """A Redis URL; ``str`` and ``repr`` mask its passwords, ``get_secret_value()`` does not."""

    def _display(self) -> str:
        # "user:password@" keeps the user; what stands there without a colon may be a misplaced
        # password, so all of it goes.
        return re.sub(
            r"^([a-z+]+://)(?:([^:@/?#]*:)[^@/?#]*|[^@/?#]*)@", r"\1\2***@", self.get_secret_value()
        )


_SERVER = r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:/?#@,\[\]]+)"
_REDIS_URL = re.compile(
    rf"""
      rediss?://           (?:[^\s/?#@]*@)? (?P<server>{_SERVER}(?::[0-9]+)?) (?:/[0-9]{{0,5}})?
    | unix://              (?:[^\s/?#@]*@)? /[^\s?#]+ (?:\?db=[0-9]{{1,5}})?
    | rediss?\+sentinel:// (?:[^\s/?#@]*@)? (?P<sentinels>{_SERVER}:[0-9]+(?:,{_SERVER}:[0-9]+)*)
                           /[^\s/?#]+
    | rediss?\+cluster://  (?:[^\s/?#@]*@)? (?P<nodes>{_SERVER}:[0-9]+(?:,{_SERVER}:[0-9]+)*)
                           (?:/0?)?
    """,
    re.VERBOSE,
)


def _check_redis_url(url: RedisURL) -> RedisURL:
    text = url.get_secret_value()
    match = _REDIS_URL.fullmatch(text)
    if "://" not in text:
        raise ValueError("has no scheme: put redis:// before it, or rediss:// where it is TLS")
    if match is None and "?" in text and not text.startswith("unix:"):
        raise ValueError(
            "has options behind a question mark: these are settings of their own,"
            f" {PREFIX}REDIS_CA_FILE and the like"
        )
    if match is None or not text.isprintable() or " " in text:
        raise ValueError(
            "is not one of redis://[user:password@]host[:port][/database], unix:///path[?db=number],"
            " redis+sentinel://host:port[,host:port]/name, redis+cluster://host:port[,host:port];"
            " TLS: rediss://, rediss+sentinel://, rediss+cluster://;"
            " percent-encode special characters in a password"
        )
    for server in next(filter(None, match.groups()), "").split(","):
        _, _, port = server.rpartition("]")[2].partition(":")
        if port and not 1 <= int(port) <= 65535:
            raise ValueError("has a port outside 1 to 65535")
    return url


_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}|\*))?")


def _check_origin(origin: str) -> str:
    if origin == "*":
        return origin
    # Browsers send scheme and host in lower case and leave out the scheme's own port (RFC 6454,
    # section 6.2); written the same way here, comparing origins is comparing strings.
    match = _ORIGIN.fullmatch(origin.lower())
    if match is not None and match[3] == "*":
        return match[0]
    if match is None or not 0 < int(match[3] or "1") <= 65535:
        raise ValueError("is not an origin: write scheme://host[:port] without a path, or *")
    scheme, host, port = match.groups()
    if port is None or {"http": 80, "https": 443}.get(scheme) == int(port):
        return f"{scheme}://{host}"
    return f"{scheme}://{host}:{int(port)}"


def _check_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    # urlsplit drops line ends, and the HTTP client knows no user:password@
    if not good or "@" in parts.netloc or not re.fullmatch(r"[!-~]+", url):
        raise ValueError("is not an http:// or https:// URL without user and password")
    return url


def _check_secret(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value().encode()) < MIN_SECRET_BYTES:
        raise ValueError(f"is shorter than {MIN_SECRET_BYTES} bytes")
    return secret


def _check_webhook_secret(secret: SecretStr) -> SecretStr:
    # Read again by pushsvc.protocol.webhooks; the settings import nothing of the service.
    text = secret.get_secret_value()
    try:
        key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not text.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise ValueError("is not whsec_ and the base64 of 24 to 64 random bytes")
    return secret


def _check_prefix(prefix: str) -> str:
    # Braces would mark a hash tag (Redis Cluster) and move every key to another slot.
    if re.fullmatch(r"[A-Za-z0-9._:-]{1,32}", prefix) is None:
        raise ValueError("is not 1 to 32 of the characters A-Z a-z 0-9 . _ : -")
    return prefix


def _check_text(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("contains a control character, or white space around it")
    return text


_HOST_PART = "[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_PUSH_HOST = re.compile(rf"\*|(?:\*\.)?{_HOST_PART}(?:\.{_HOST_PART})*")


def _check_push_host(host: str) -> str:
    host = host.lower()
    if len(host) > 253 or _PUSH_HOST.fullmatch(host) is None:
        raise ValueError(
            "is not a host such as push.example.com, *.example.com for all below it, or *"
            " for any public host"
        )
    return host


_SUBJECT = re.compile(r"mailto:[!-?A-~]+@[!-?A-~]+|https://[!-.0-~]+(?:/[!-~]*)?")


def _check_subject(subject: str) -> str:
    if len(subject) > 255 or _SUBJECT.fullmatch(subject) is None:
        raise ValueError(
            "is not where push services reach you: write mailto: and a mail address, or a URL that"
            " begins with https://"
        )
    return subject


def _check_apple_id(text: str) -> str:
    if re.fullmatch(r"[A-Z0-9]{10}", text) is None:
        raise ValueError("is not 10 characters A-Z and 0-9, as Apple's developer account shows it")
    return text


def _split(value: object) -> object:
    """Items separated by commas; white space around an item and empty items do not count."""
    if isinstance(value, str):
        return tuple(item for part in value.split(",") if (item := part.strip()))
    return value


MAX_CLAIM: Final = 255
"""Characters of a claim's path."""
MAX_SEGMENTS: Final = 16
"""Most parts of a claim's path, between dots."""


def check_claim(claim: str) -> str:
    """Check the path of a claim: its name, or names that lead through objects, joined by dots.

    Raises:
        ValueError: it is none.
    """
    if not 1 <= len(claim) <= MAX_CLAIM or not claim.isprintable() or claim != claim.strip():
        raise ValueError(f"is not the name of a claim: 1 to {MAX_CLAIM} printable characters")
    if claim.count(".") >= MAX_SEGMENTS:
        raise ValueError(f"has more than {MAX_SEGMENTS} parts between dots")
    return claim


def _check_some(items: tuple[str, ...]) -> tuple[str, ...]:
    if not items:
        raise ValueError("is empty")
    return items


Algorithm = Literal[
    "HS256", "HS384", "HS512",
    "RS256", "RS384", "RS512",
    "PS256", "PS384", "PS512",
    "ES256", "ES384", "ES512",
    "EdDSA",
]  # fmt: skip

Text = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_check_text)]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(ge=0.1, le=3600)]
URL = Annotated[str, AfterValidator(_check_url)]
RedisServer = Annotated[RedisURL, AfterValidator(_check_redis_url)]
RedisPrefix = Annotated[str, AfterValidator(_check_prefix)]
Origins = Annotated[
    tuple[Annotated[str, AfterValidator(_check_origin)], ...], BeforeValidator(_split)
]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_split)]
Claim = Annotated[str, AfterValidator(check_claim)]
ClaimNames = Annotated[tuple[Claim, ...], BeforeValidator(_split), AfterValidator(_check_some)]
Algorithms = Annotated[tuple[Algorithm, ...], BeforeValidator(_split)]
PushHosts = Annotated[
    tuple[Annotated[str, AfterValidator(_check_push_host)], ...], BeforeValidator(_split)
]
Subject = Annotated[str, AfterValidator(_check_subject)]
AppleID = Annotated[str, AfterValidator(_check_apple_id)]
SharedSecret = Annotated[SecretStr, AfterValidator(_check_secret)]
WebhookSecret = Annotated[SecretStr, AfterValidator(_check_webhook_secret)]
