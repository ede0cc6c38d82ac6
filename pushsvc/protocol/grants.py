"""Which topics a token opens on a socket: the patterns of its ``topics`` claim."""

import functools
import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from pushsvc.errors import InvalidToken
from pushsvc.protocol.names import MAX_NAME

MAX_PATTERNS: Final = 64
"""Most patterns for each of subscribing and publishing."""

PATTERN_RULE: Final = (
    f"1 to {MAX_NAME} characters of A-Z a-z 0-9 . _ - : @ =, where * may stand for one "
    "dot-separated segment and ** at the end for the rest"
)
"""The rule as told to callers."""

_KINDS: Final = ("subscribe", "publish")
_match_segment = re.compile(r"[A-Za-z0-9_:@=-]*|\*").fullmatch


class Grants(msgspec.Struct, frozen=True, gc=False):
    """What a token allows on topics.

    A pattern is a topic's name in which ``*`` may take the place of a whole segment, between dots,
    and matches exactly one segment that is not empty. ``**`` may be the last segment only, and
    matches all that is left of the topic, which is one segment or more: ``chat.**`` is everything
    below ``chat.``, but not ``chat``. Upper and lower case differ.

    Args:
        subscribe: the patterns of topics that may be subscribed to.
        publish: the patterns of topics that may be published to.
    """

    # gc=False: one of these lives as long as its connection and can never be part of a cycle.

    subscribe: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()

    def may_subscribe(self, topic: str) -> bool:
        """Whether a topic, a valid name, may be subscribed to."""
        return bool(self.subscribe) and _matcher(self.subscribe).matches(topic)

    def may_publish(self, topic: str) -> bool:
        """Whether a topic, a valid name, may be published to."""
        return bool(self.publish) and _matcher(self.publish).matches(topic)


NOTHING: Final = Grants()
"""What a token without the claim allows."""


def grants(subscribe: Iterable[str] = (), publish: Iterable[str] = ()) -> Grants:
    """The grants of these patterns: the same object for the same patterns, while many use it.

    Raises:
        InvalidToken: a pattern is not one, or there are too many; the detail says what to change.
    """
    return _interned(tuple(subscribe), tuple(publish))


def from_claim(claim: Any) -> Grants:
    """What the value of a ``topics`` claim grants: lists of patterns, either may be missing.

    Raises:
        InvalidToken: it has another shape; the detail says what to change.
    """
    if not isinstance(claim, dict) or not all(name in _KINDS for name in claim):
        raise InvalidToken(
            'the topics claim must be an object {"subscribe": [pattern, ...], "publish": '
            "[pattern, ...]} with nothing else in it"
        )
    for name, patterns in claim.items():
        if not isinstance(patterns, list) or not all(isinstance(one, str) for one in patterns):
            raise InvalidToken(f"the topics claim's {name} must be a list of strings")
    return grants(claim.get("subscribe", ()), claim.get("publish", ()))


# Most tokens carry one of few combinations: their connections share the object. What is refused
# raises and is not remembered.
@functools.lru_cache(maxsize=1024)
def _interned(subscribe: tuple[str, ...], publish: tuple[str, ...]) -> Grants:
    for name, patterns in zip(_KINDS, (subscribe, publish), strict=True):
        if len(patterns) > MAX_PATTERNS:
            raise InvalidToken(
                f"the topics claim's {name} may have at most {MAX_PATTERNS} patterns: "
                "use * or ** to say more with one"
            )
        if not all(map(_is_pattern, patterns)):
            raise InvalidToken(f"each of the topics claim's {name} must be {PATTERN_RULE}")
    return Grants(subscribe, publish) if subscribe or publish else NOTHING


def _is_pattern(text: str) -> bool:
    if not 1 <= len(text) <= MAX_NAME:
        return False
    *segments, last = text.split(".")
    return all(map(_match_segment, segments)) and (last == "**" or bool(_match_segment(last)))


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
