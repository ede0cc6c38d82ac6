"""The file of issuers: what stands in it, and what is wrong with it.

::

    [issuers.customers]
    issuer = "https://example.eu.auth0.com/"
    jwks_url = "https://example.eu.auth0.com/.well-known/jwks.json"
    audience = "https://push.example.com"

A table of ``issuers`` is an entry, and its name is what the log and refusals call it. Here the text
is read and checked; files that it names, and keys, are somebody else's.
"""

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from pushsvc.auth.claims import NO_AUDIENCE, Allowed, Rules
from pushsvc.auth.tokens import SCOPES
from pushsvc.errors import InvalidToken
from pushsvc.protocol.grants import Grants, grants
from pushsvc.protocol.names import NAMESPACE_RULE, is_namespace
from pushsvc.settings.values import check_claim

MAX_FILE: Final = 1024 * 1024
"""Bytes of the file."""
MAX_TEXT: Final = 255
"""Characters of an issuer, an audience, a prefix, a value."""

Kind = Literal["jwks_url", "discovery", "public_key_file", "secret", "secrets", "secret_file"]

_Some = str | list[str]

_TYPES: Final[Mapping[str, Any]] = {
    "issuer": str,
    "jwks_url": str,
    "discovery": bool,
    "public_key_file": str,
    "secret": str,
    "secrets": list[str],
    "secret_file": _Some,
    "algorithms": _Some,
    "audience": _Some,
    "audience_claim": str,
    "user_claim": str,
    "scope_claims": _Some,
    "scope_prefix": _Some,
    "topics_claim": str,
    "require": dict[str, str | bool | list[str | bool]],
    "max_scopes": _Some,
    "max_topics": dict[str, list[str]],
    "namespace": str,
    "operator": bool,
    "shared_users": bool,
}
"""Every key of an entry, with the type of its value."""

_SOURCES: Final[tuple[Kind, ...]] = (
    "jwks_url", "discovery", "public_key_file", "secret", "secrets", "secret_file",
)  # fmt: skip
_match_name = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch


class AuthFileError(Exception):
    """The file cannot be used.

    Args:
        message: which entry and key are wrong, and how; one line, without secrets.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def wrong(name: str, key: str, message: str) -> AuthFileError:
    """What is wrong with a key of an entry."""
    return AuthFileError(f"issuers.{name}: {key} {message}")


@dataclass(frozen=True, slots=True)
class Source:
    """Where the keys of an issuer are.

    Attributes:
        kind: the key of the entry that says so.
        values: an address, the issuer that has discovery, files, or secrets.
        algorithms: the accepted ones; empty for those that fit.
    """

    kind: Kind
    values: tuple[str, ...]
    algorithms: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Without the values: they may be secrets."""
        return f"Source({self.kind})"


@dataclass(frozen=True, slots=True)
class Entry:
    """One issuer.

    Attributes:
        rules: what its tokens are read by, and its name.
        source: where its keys are.
        shared_users: whether it may name the users of others in its namespace.
    """

    rules: Rules
    source: Source
    shared_users: bool


def parse(content: bytes) -> tuple[Entry, ...]:
    """The entries of a file.

    Args:
        content: of the file.

    Raises:
        AuthFileError: it cannot be used.
    """
    if len(content) > MAX_FILE:
        raise AuthFileError(f"has more than {MAX_FILE} bytes")
    try:
        document = tomllib.loads(content.decode())
    except UnicodeDecodeError:
        raise AuthFileError("is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise AuthFileError(f"is not TOML: {error}") from None
    except RecursionError:
        raise AuthFileError("is nested too deeply") from None
    for key in document:
        if key != "issuers":
            raise AuthFileError(f"has {key[:MAX_TEXT]!r}: write each issuer as [issuers.<name>]")
    tables = document.get("issuers")
    if not isinstance(tables, dict) or not tables:
        raise AuthFileError("names no issuer: write each as [issuers.<name>]")
    entries = tuple(_entry(name, table) for name, table in tables.items())
    _check_apart(entries)
    return entries


def _entry(name: str, table: Any) -> Entry:
    if _match_name(name) is None:
        raise AuthFileError(
            f"issuers.{name[:MAX_TEXT]!r}: the name is not 1 to 64 characters of A-Z a-z 0-9 _ -"
        )
    if not isinstance(table, dict):
        raise AuthFileError(f"issuers.{name} is not a table: write [issuers.{name}]")
    for key in table:
        if key not in _TYPES:
            close = difflib.get_close_matches(key, _TYPES, n=1)
            hint = f": did you mean {close[0]}?" if close else ""
            raise AuthFileError(f"issuers.{name}: {key[:MAX_TEXT]!r} is not a key{hint}")
    values = _Values(name, table)
    issuer = values.text("issuer")
    audience_claim = values.claim("audience_claim", "aud")
    unaudienced = audience_claim == NO_AUDIENCE
    audience = values.texts("audience", () if unaudienced else ("pushsvc",))
    if unaudienced and audience:
        raise wrong(name, "audience", f"is set and audience_claim is {NO_AUDIENCE}: take one")
    if not unaudienced and not audience:
        raise wrong(
            name, "audience", f'is empty: name one, or set audience_claim = "{NO_AUDIENCE}"'
        )
    scopes = values.some("max_scopes", None)
    for scope in scopes or ():
        if scope not in SCOPES:
            raise wrong(name, "max_scopes", f"has {scope[:MAX_TEXT]!r}, not {_one_of(SCOPES)}")
    namespace = values.get("namespace", "")
    if "namespace" in table and not is_namespace(namespace):
        raise wrong(name, "namespace", f"is not {NAMESPACE_RULE}")
    rules = Rules(
        name=name,
        issuer=issuer,
        any_issuer=False,
        audience=audience,
        audience_claim=None if unaudienced else audience_claim,
        user_claim=values.claim("user_claim", "sub"),
        scope_claims=values.claims("scope_claims", ("scope",)),
        scope_prefix=values.texts("scope_prefix", ()),
        topics_claim=values.claim("topics_claim", "topics"),
        require=_require(values),
        max_scopes=None if scopes is None else frozenset(scopes),
        max_topics=_max_topics(values),
        namespace=namespace,
        operator=values.get("operator", False),
    )
    return Entry(rules, _source(values, issuer), values.get("shared_users", False))


class _Values:
    """The values of an entry, each of the type that its key has."""

    def __init__(self, name: str, table: dict[str, Any]) -> None:
        self.name = name
        self._table = table

    def __contains__(self, key: str) -> bool:
        return key in self._table

    def get(self, key: str, default: Any) -> Any:
        if key not in self._table:
            return default
        try:
            return msgspec.convert(self._table[key], _TYPES[key])
        except msgspec.ValidationError as error:
            # It names types and the place, and no value.
            raise wrong(self.name, key, f"has the wrong type: {error}") from None

    def text(self, key: str) -> str | None:
        value = self.get(key, None)
        return None if value is None else self.checked(key, value)

    def some(self, key: str, default: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """One string or a list of them."""
        value = self.get(key, None)
        if value is None:
            return default
        return (value,) if isinstance(value, str) else tuple(value)

    def texts(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(self.checked(key, one) for one in self.some(key, default) or ())

    def claim(self, key: str, default: str) -> str:
        return self.path(key, self.get(key, default))

    def claims(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        paths = tuple(self.path(key, one) for one in self.some(key, default) or ())
        if not paths:
            raise wrong(self.name, key, "is empty")
        return paths

    def path(self, key: str, claim: str) -> str:
        try:
            return check_claim(claim)
        except ValueError as error:
            raise wrong(self.name, key, f"{claim[:MAX_TEXT]!r} {error}") from None

    def checked(self, key: str, text: str) -> str:
        if not 1 <= len(text) <= MAX_TEXT or not text.isprintable() or text != text.strip():
            raise wrong(
                self.name,
                key,
                f"has what is not 1 to {MAX_TEXT} printable characters without spaces around them",
            )
        return text


def _require(values: _Values) -> tuple[tuple[str, tuple[Allowed, ...]], ...]:
    wanted: dict[str, Any] = values.get("require", {})
    found = []
    for claim, value in wanted.items():
        allowed = tuple(value) if isinstance(value, list) else (value,)
        if not allowed:
            raise wrong(values.name, "require", f"allows {claim[:MAX_TEXT]!r} no value")
        found.append((values.path("require", claim), allowed))
    return tuple(found)


def _max_topics(values: _Values) -> Grants | None:
    most: dict[str, list[str]] | None = values.get("max_topics", None)
    if most is None:
        return None
    for kind in most:
        if kind not in {"subscribe", "publish"}:
            raise wrong(
                values.name, "max_topics", f"has {kind[:MAX_TEXT]!r}: it has subscribe and publish"
            )
    source = f"max_topics of issuers.{values.name} in AUTH_FILE"
    try:
        return grants(most.get("subscribe", ()), most.get("publish", ()), source)
    except InvalidToken as error:
        raise wrong(values.name, "max_topics", f"is refused: {error.detail}") from None


def _source(values: _Values, issuer: str | None) -> Source:
    given = [key for key in _SOURCES if key in values and values.get(key, None) is not False]
    if len(given) != 1:
        told = " and ".join(given) or "none"
        raise AuthFileError(f"issuers.{values.name}: set one of {', '.join(_SOURCES)}, not {told}")
    (kind,) = given
    algorithms = values.some("algorithms", ()) or ()
    if kind == "discovery":
        if issuer is None:
            raise wrong(values.name, "discovery", "needs issuer, whose address it begins with")
        return Source(kind, (issuer,), algorithms)
    found = values.some(kind, ()) or ()
    if not found or not all(found):
        raise wrong(values.name, kind, "is empty")
    return Source(kind, found, algorithms)


def _check_apart(entries: Sequence[Entry]) -> None:
    """Refuse issuers of which one could pass for another."""
    seen: dict[str | None, str] = {}
    for entry in entries:
        name, issuer = entry.rules.name, entry.rules.issuer
        if issuer in seen:
            twice = "is missing, as it is of" if issuer is None else "is that of"
            raise wrong(name, "issuer", f"{twice} issuers.{seen[issuer]}")
        seen[issuer] = name
    by_namespace: dict[str, list[Entry]] = {}
    for entry in entries:
        by_namespace.setdefault(entry.rules.namespace, []).append(entry)
    for namespace, group in by_namespace.items():
        apart = [entry.rules.name for entry in group if not entry.shared_users]
        if len(group) > 1 and apart:
            names = " and ".join(f"issuers.{entry.rules.name}" for entry in group)
            where = f"the namespace {namespace}" if namespace else "the default namespace"
            raise wrong(
                apart[0],
                "shared_users",
                f"is not true: {names} have their users in {where}, so each could speak for the"
                " users of the others; give each a namespace, or say on all of them that it is"
                " meant: shared_users = true",
            )


def _one_of(values: frozenset[str]) -> str:
    return "one of " + ", ".join(sorted(values))
