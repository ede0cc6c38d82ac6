"""Which topics a token opens on a socket: the patterns of its ``topics`` claim."""

import functools
from collections.abc import Iterable
from typing import Any, Final, Literal

import msgspec

from pushsvc.errors import InvalidToken
from pushsvc.protocol.names import MAX_NAME, is_topic

MAX_PATTERNS: Final = 64
"""Most patterns for each of subscribing and publishing."""

PATTERN_RULE: Final = (
    f"a topic, 1 to {MAX_NAME} bytes of printable UTF-8 without white space, in which * may stand "
    "for one dot-separated segment and ** at the end for the rest"
)
"""The rule as told to callers."""

_KINDS: Final = ("subscribe", "publish")


SOURCE: Final = "topics (JWT_TOPICS_CLAIM)"
"""The claim, unless a setting names another."""
_SHOWN: Final = 8
"""Most patterns that a refusal repeats."""
_SHOWN_OF_ONE: Final = 64
"""Most characters of what is no pattern that a refusal repeats."""


class Grants(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What a token allows on topics.

    A pattern is a topic's name in which ``*`` may take the place of a whole segment, between dots,
    and matches exactly one segment that is not empty. ``**`` may be the last segment only, and
    matches all that is left of the topic, which is one segment or more: ``chat.**`` is everything
    below ``chat.``, but not ``chat``. Upper and lower case differ.

    Args:
        subscribe: the patterns of topics that may be subscribed to.
        publish: the patterns of topics that may be published to.
        source: the claim that the patterns are from and the setting that names it, for people.
        limit: what must allow a topic as well: the most that the token's issuer may grant.
    """

    # gc=False: one of these lives as long as its connection and can never be part of a cycle.

    subscribe: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()
    source: str = SOURCE
    limit: "Grants | None" = None

    def may_subscribe(self, topic: str) -> bool:
        """Whether a topic, a valid name, may be subscribed to."""
        return (
            bool(self.subscribe)
            and _matcher(self.subscribe).matches(topic)
            and (self.limit is None or self.limit.may_subscribe(topic))
        )

    def may_publish(self, topic: str) -> bool:
        """Whether a topic, a valid name, may be published to."""
        return (
            bool(self.publish)
            and _matcher(self.publish).matches(topic)
            and (self.limit is None or self.limit.may_publish(topic))
        )

    def why_not(self, kind: Literal["subscribe", "publish"]) -> str:
        """What was looked at before a topic was refused, for people."""
        told = f"looked at {self.source}, {_named(self, kind)}"
        if self.limit is not None:
            told += f", and at {self.limit.source}, {_named(self.limit, kind)}"
        return told


NOTHING: Final = Grants()
"""What a token without the claim allows."""


def grants(
    subscribe: Iterable[str] = (),
    publish: Iterable[str] = (),
    source: str = SOURCE,
    limit: Grants | None = None,
) -> Grants:
    """The grants of these patterns: the same object for the same patterns, while many use it.

    Raises:
        InvalidToken: a pattern is not one, or there are too many; the detail says what to change.
    """
    return _interned(tuple(subscribe), tuple(publish), source, limit)


def from_claim(claim: Any, source: str = SOURCE, limit: Grants | None = None) -> Grants:
    """What the value of a ``topics`` claim grants: lists of patterns, either may be missing.

    Args:
        claim: the value.
        source: see ``Grants``.
        limit: see ``Grants``.

    Raises:
        InvalidToken: it has another shape; the detail says what to change.
    """
    if not isinstance(claim, dict) or not all(name in _KINDS for name in claim):
        raise InvalidToken(
            f'the topics claim must be an object {{"subscribe": [pattern, ...], "publish": '
            f"[pattern, ...]}} with nothing else in it: looked at {source}"
        )
    for name, patterns in claim.items():
        if not isinstance(patterns, list) or not all(isinstance(one, str) for one in patterns):
            raise InvalidToken(
                f"the topics claim's {name} must be a list of strings: looked at {source}"
            )
    return grants(claim.get("subscribe", ()), claim.get("publish", ()), source, limit)


def _named(granted: Grants, kind: Literal["subscribe", "publish"]) -> str:
    patterns = granted.subscribe if kind == "subscribe" else granted.publish
    if not patterns:
        return f"which has nothing under {kind}"
    more = f" and {len(patterns) - _SHOWN} more" if len(patterns) > _SHOWN else ""
    return f"whose {kind} is {', '.join(map(repr, patterns[:_SHOWN]))}{more}"


# Most tokens carry one of few combinations: their connections share the object. What is refused
# raises and is not remembered.
@functools.lru_cache(maxsize=1024)
def _interned(
    subscribe: tuple[str, ...], publish: tuple[str, ...], source: str, limit: Grants | None
) -> Grants:
    for name, patterns in zip(_KINDS, (subscribe, publish), strict=True):
        if len(patterns) > MAX_PATTERNS:
            raise InvalidToken(
                f"the topics claim's {name} may have at most {MAX_PATTERNS} patterns: "
                f"use * or ** to say more with one: looked at {source}"
            )
        for pattern in patterns:
            if not _is_pattern(pattern):
                held = repr(pattern[:_SHOWN_OF_ONE]) + "…" * (len(pattern) > _SHOWN_OF_ONE)
                raise InvalidToken(
                    f"each of the topics claim's {name} must be {PATTERN_RULE}, which {held} is "
                    f"not: looked at {source}"
                )
    if not subscribe and not publish and source == SOURCE and limit is None:
        return NOTHING
    return Grants(subscribe, publish, source, limit)


def _is_pattern(text: str) -> bool:
    if not is_topic(text.replace("*", "-")):
        return False
    *segments, last = text.split(".")
    return all(map(_is_segment, segments)) and (last == "**" or _is_segment(last))


def _is_segment(text: str) -> bool:
    return text == "*" or "*" not in text


# Regular expressions would take fifty times as long to get ready, which tokens with patterns of
# their own, such as "user.42.*", would each pay.
class _Matcher:
    """Patterns, sorted by how little it takes to match them."""

    __slots__ = ("below", "children", "names", "others")

    def __init__(self, patterns: tuple[str, ...]) -> None:
        names, children, below, others = [], [], [], []
        for pattern in patterns:
            head, star, rest = pattern.partition("*")
            if not star:
                names.append(pattern)
            elif not rest:  # one "*", at the end
                children.append(head)
            elif rest == "*":
                below.append(head)
            else:
                others.append(pattern.split("."))
        self.names = frozenset(names)
        self.children = frozenset(children)
        self.below = tuple(below)
        self.others = others

    def matches(self, topic: str) -> bool:
        return (
            topic in self.names
            # Something must follow the prefix: the last character does not count.
            or topic[:-1].startswith(self.below)
            or (topic[: topic.rfind(".") + 1] in self.children and topic[-1:] != ".")
            or (bool(self.others) and self._matches_others(topic.split(".")))
        )

    def _matches_others(self, segments: list[str]) -> bool:
        return any(_matches(pattern, segments) for pattern in self.others)


_matcher = functools.lru_cache(maxsize=1024)(_Matcher)


def _matches(pattern: list[str], segments: list[str]) -> bool:
    if pattern[-1] == "**":
        pattern = pattern[:-1]
        if segments[len(pattern) :] in ([], [""]):  # nothing is left
            return False
    elif len(segments) != len(pattern):
        return False
    return all(
        want == have or (want == "*" and have != "")
        for want, have in zip(pattern, segments, strict=False)
    )
