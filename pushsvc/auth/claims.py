"""Which claims of a verified token are read, what they must hold, and how a refusal says so.

A claim is named by a path: a name that the token has as such, else names joined by dots that lead
through nested objects (``realm_access.roles``). At each object the longest name that it has is the
one that is meant, so names may hold dots themselves (``https://example.com/push.topics``).
"""

import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pushsvc.auth.tokens import LEEWAY, Claims, shared_scopes, split_scopes
from pushsvc.errors import InvalidToken
from pushsvc.protocol.grants import Grants, from_claim, grants
from pushsvc.protocol.names import NAME_RULE, is_name

NO_AUDIENCE: Final = "none"
"""Written for the claim of the audience, on purpose, where none is looked at."""
NO_ISSUER: Final = " "
"""What stands for the ``iss`` of the entry whose tokens have none."""
SHOWN: Final = 120
"""Most characters of what a claim holds that a refusal repeats."""

# The end of the year 9999. Past it lie dates that no calendar can show, and times in milliseconds.
_LAST_SECOND = 253_402_300_799


class _Missing:
    """What a claim holds that is not there, which is not the same as null."""


_MISSING: Final = _Missing()

Allowed = str | bool
"""What a required claim may have to hold."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the tokens of an issuer are read by.

    Attributes:
        name: of the issuer in the file of issuers; empty where there is no such file.
        issuer: what ``iss`` must be, compared exactly.
        any_issuer: whether ``iss`` is left unread without that; else a token must have none.
        audience: one of these must be, or be in, the claim of the audience.
        audience_claim: the path of that claim; None looks at none.
        user_claim: the path of the claim that names the user.
        scope_claims: the paths of claims with scopes: one string of them, or a list.
        scope_prefix: what is taken off the beginning of a scope that begins so.
        topics_claim: the path of the claim with the patterns of topics.
        require: paths of claims, each with the values of which it must hold one.
        max_scopes: the scopes that can be had from this issuer; None for all.
        max_topics: the topics that its tokens can open; None for all.
        namespace: of its users and topics.
        operator: whether its tokens may see several namespaces.
    """

    name: str = ""
    issuer: str | None = None
    any_issuer: bool = True
    audience: tuple[str, ...] = ("pushsvc",)
    audience_claim: str | None = "aud"
    user_claim: str = "sub"
    scope_claims: tuple[str, ...] = ("scope",)
    scope_prefix: tuple[str, ...] = ()
    topics_claim: str = "topics"
    require: tuple[tuple[str, tuple[Allowed, ...]], ...] = ()
    max_scopes: frozenset[str] | None = None
    max_topics: Grants | None = None
    namespace: str = ""
    operator: bool = False

    @property
    def identity(self) -> str:
        """The issuer that tokens are of: its ``iss``, whatever its entry is called.

        Empty where there is no file of issuers. The entry without ``issuer`` has one that no
        ``issuer`` of a file can be.
        """
        if not self.name:
            return ""
        return NO_ISSUER if self.issuer is None else self.issuer

    def setting(self, key: str) -> str:
        """What to change: the variable without its prefix, or the key in the file of issuers."""
        return f"{key} of issuers.{self.name} in AUTH_FILE" if self.name else f"JWT_{key.upper()}"


class Reader:
    """Reads claims by rules.

    Args:
        rules: to go by.
        leeway: seconds of clock skew granted to ``exp``, ``nbf`` and ``iat``.

    Raises:
        ValueError: the audience or the issuer is empty, which an empty claim would meet.
    """

    def __init__(self, rules: Rules, leeway: float = LEEWAY) -> None:
        if rules.issuer == "" or (
            rules.audience_claim is not None and not all(rules.audience or ("",))
        ):
            raise ValueError("an expected audience or issuer is not empty")
        self.rules = rules
        self._leeway = leeway
        self._issuer = rules.issuer
        # Held by every connection.
        self._identity = sys.intern(rules.identity)
        self._audience = rules.audience[0] if rules.audience else ""
        self._audiences = frozenset(rules.audience)
        self._audience_claim = rules.audience_claim
        self._user = rules.user_claim
        self._scope_claims = rules.scope_claims
        self._topics = rules.topics_claim
        # A refusal names them; shared by all grants of this issuer.
        self._topics_source = sys.intern(f"{rules.topics_claim} ({rules.setting('topics_claim')})")
        self._limit_source = rules.setting("max_topics")
        self._nothing = grants((), (), self._topics_source, rules.max_topics)
        # What nearly all tokens are read by takes no walk and no list.
        plain = len(rules.scope_claims) == 1 and "." not in rules.scope_claims[0]
        narrowed = rules.scope_prefix or rules.max_scopes is not None
        self._scope = rules.scope_claims[0] if plain and not narrowed else None

    def read(self, payload: dict[str, Any], now: float) -> Claims:
        """What a token says.

        Args:
            payload: its claims; the signature was verified.
            now: Unix seconds.

        Raises:
            InvalidToken: it is not good here; the detail says what to change.
        """
        expires, issued = self._times(payload, now)
        self._check(payload)
        user = payload.get(self._user, _MISSING)
        if user is _MISSING:
            user = _walk(payload, self._user)
        if not isinstance(user, str) or not is_name(user):
            wanted = f"must be a string of {NAME_RULE}"
            raise self._refused(self._user, "user_claim", wanted, payload)
        token_id = payload.get("jti")
        if token_id is not None and not isinstance(token_id, str):
            raise InvalidToken("the jti claim must be a string")
        scope = None if self._scope is None else payload.get(self._scope, "")
        rules = self.rules
        return Claims(
            user,
            int(expires),
            split_scopes(scope) if isinstance(scope, str) else self._scopes(payload),
            None if issued is None else int(issued),
            token_id,
            from_claim(payload[self._topics], self._topics_source, rules.max_topics)
            if self._topics in payload
            else self._nested_grants(payload),
            rules.namespace,
            rules.operator,
            self._identity,
        )

    def _times(self, payload: dict[str, Any], now: float) -> tuple[float, float | None]:
        """When the token ends, and when it was issued."""
        expires = _numeric_date(payload, "exp")
        if expires is None:
            raise InvalidToken("the exp claim is required")
        if now >= expires + self._leeway:
            raise InvalidToken("the token has expired: get a new one")
        not_before = _numeric_date(payload, "nbf")
        if not_before is not None and now < not_before - self._leeway:
            raise InvalidToken("the token is not valid yet (nbf): check the issuer's clock")
        issued = _numeric_date(payload, "iat")
        if issued is not None and now < issued - self._leeway:
            raise InvalidToken("the token was issued in the future (iat): check the issuer's clock")
        return expires, issued

    def _check(self, payload: dict[str, Any]) -> None:
        """See to it that the token is of this issuer, and for this service."""
        if self._issuer is not None:
            if payload.get("iss") != self._issuer:
                raise self._refused("iss", "issuer", f"must be exactly {self._issuer!r}", payload)
        elif not self.rules.any_issuer and "iss" in payload:
            raise self._refused("iss", "issuer", "must not be there", payload)
        claim = self._audience_claim
        if claim is not None:
            audience = payload.get(claim, _MISSING)
            if audience is _MISSING:
                audience = _walk(payload, claim)
            # One comparison for nearly all tokens.
            if audience != self._audience and not self._contains(audience):
                raise self._refused(claim, "audience", self._wanted_audience(), payload)
        for required, allowed in self.rules.require:
            if not _holds(find(payload, required), allowed):
                wanted = f"must hold {_one_of(allowed)}"
                raise self._refused(required, "require", wanted, payload)

    def _nested_grants(self, payload: dict[str, Any]) -> Grants:
        topics = _walk(payload, self._topics)
        if topics is _MISSING:
            return self._nothing
        return from_claim(topics, self._topics_source, self.rules.max_topics)

    def setting(self, key: str) -> str:
        """See ``Rules.setting``."""
        return self.rules.setting(key)

    def looked_at(self, payload: dict[str, Any]) -> str:
        """Where scopes were looked for, what was there, and which setting says so."""
        rules = self.rules
        seen = " and ".join(
            f"{claim}, which {_held(find(payload, claim))}" for claim in self._scope_claims
        )
        told = f"looked at {seen} ({rules.setting('scope_claims')})"
        if rules.scope_prefix:
            told += (
                f"; {_one_of(rules.scope_prefix)} is taken off ({rules.setting('scope_prefix')})"
            )
        if rules.max_scopes is not None:
            most = " ".join(sorted(rules.max_scopes)) or "none"
            told += f"; allowed at most: {most} ({rules.setting('max_scopes')})"
        return told

    def _scopes(self, payload: dict[str, Any]) -> frozenset[str]:
        found: list[str] = []
        for claim in self._scope_claims:
            scope = payload.get(claim, _MISSING)
            if scope is _MISSING:
                scope = _walk(payload, claim)
                if scope is _MISSING:
                    continue
            if isinstance(scope, str):
                found += scope.split(" ")
            elif isinstance(scope, list) and all(isinstance(one, str) for one in scope):
                found += scope
            else:
                wanted = "must be one string of space-separated scopes, or a list of them"
                raise self._refused(claim, "scope_claims", wanted, payload)
        return _chosen(tuple(found), self.rules.scope_prefix, self.rules.max_scopes)

    def _contains(self, audience: Any) -> bool:
        if isinstance(audience, str):
            return audience in self._audiences
        return (
            isinstance(audience, list)
            and all(isinstance(one, str) for one in audience)
            and not self._audiences.isdisjoint(audience)
        )

    def _wanted_audience(self) -> str:
        if len(self._audiences) == 1:
            return f"must be or contain exactly {self._audience!r}"
        return f"must be or contain {_one_of(self.rules.audience)}"

    def _refused(self, claim: str, key: str, wanted: str, payload: dict[str, Any]) -> InvalidToken:
        held = find(payload, claim)
        told = f"the {claim} claim {wanted} ({self.rules.setting(key)}): it {_held(held)}"
        if held is _MISSING and key == "audience":
            told += f"; another claim is looked at with {self.rules.setting('audience_claim')}"
        return InvalidToken(told)


def find(payload: dict[str, Any], claim: str) -> Any:
    """What a claim holds, by its path; ``_MISSING`` where it is not there."""
    value = payload.get(claim, _MISSING)
    return _walk(payload, claim) if value is _MISSING else value


def _walk(payload: dict[str, Any], claim: str) -> Any:
    """What a claim holds that the token does not have under its whole path."""
    if "." not in claim:
        return _MISSING
    segments = claim.split(".")
    value: Any = payload
    while segments:
        if not isinstance(value, dict):
            return _MISSING
        for end in range(len(segments), 0, -1):
            name = ".".join(segments[:end])
            if name in value:
                value = value[name]
                segments = segments[end:]
                break
        else:
            return _MISSING
    return value


def _holds(value: Any, allowed: Sequence[Allowed]) -> bool:
    """Whether a claim is one of the values, or a list with one; true is not 1."""
    held = value if isinstance(value, list) else [value]
    return any(type(one) is type(want) and one == want for one in held for want in allowed)


# Few combinations of scopes are ever granted: connections share the sets.
@functools.lru_cache(maxsize=256)
def _chosen(
    found: tuple[str, ...], prefixes: tuple[str, ...], most: frozenset[str] | None
) -> frozenset[str]:
    # One scope each, whatever is in it: what stands in a list is not taken apart at spaces.
    scopes = frozenset(stripped(scope, prefixes) for scope in found) - {""}
    return shared_scopes(scopes if most is None else scopes & most)


def stripped(scope: str, prefixes: tuple[str, ...]) -> str:
    """A scope without the longest of the prefixes that it begins with."""
    for prefix in sorted(prefixes, key=len, reverse=True):
        if scope.startswith(prefix):
            return scope[len(prefix) :]
    return scope


def _held(value: Any) -> str:
    return "is missing" if value is _MISSING else f"held {shown(value)}"


def shown(value: Any) -> str:
    """What a claim holds, for people: short, on one line, whatever is in it."""
    if isinstance(value, list):
        # The beginning is enough, and what is nested deeply is not walked through.
        inner = ", ".join(_shown_item(one) for one in value[:SHOWN])
        text = f"[{inner}]"
    else:
        text = _shown_item(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def _shown_item(value: Any) -> str:
    match value:
        case str():
            return repr(value[:SHOWN]) + ("…" if len(value) > SHOWN else "")
        case None | True | False:
            return {None: "null", True: "true", False: "false"}[value]
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case _:
            return "an object"


def _one_of(values: Sequence[Allowed]) -> str:
    told = ", ".join(map(_shown_item, values))
    return told if len(values) == 1 else f"one of {told}"


def _numeric_date(payload: dict[str, Any], claim: str) -> float | None:
    """A claim in Unix seconds, whole or not (RFC 7519, section 2); None when it is not there."""
    if claim not in payload:
        return None
    value = payload[claim]
    # Exact, since a bool is an int.
    if type(value) is not int and type(value) is not float:
        raise InvalidToken(f"the {claim} claim must be a number of seconds since 1970")
    if not 0 <= value <= _LAST_SECOND:
        raise InvalidToken(f"the {claim} claim must be seconds, not milliseconds, since 1970")
    return value
