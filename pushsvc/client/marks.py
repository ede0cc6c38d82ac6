"""A change of what a user has read or archived: as it is asked for, and as it is told."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, get_args

from pushsvc.client.feed import parse

MarkKind = Literal["read", "unread", "archive", "unarchive"]
KINDS: Final = frozenset(get_args(MarkKind))
"""The types of the messages that ask for one, or tell one."""
MOST: Final = 1000
"""Ids of one mark."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What becomes of some notifications of a mailbox: those that are named, or all up to one.

    The service tells one without any where nothing is marked and only the count is another.

    Raises:
        ValueError: it names too many, or both, or an id is none.
    """

    kind: MarkKind
    ids: tuple[str, ...] = ()
    until: str | None = None
    """All up to this one, itself too. What came after it stays as it is."""

    def __post_init__(self) -> None:
        if self.ids and self.until is not None:
            raise ValueError("name ids, or until, one of them")
        if len(self.ids) > MOST:
            raise ValueError(f"{len(self.ids)} ids are more than {MOST}: mark them in parts")
        for each in self.ids if self.until is None else (self.until,):
            parse(each)

    @classmethod
    def of(cls, kind: MarkKind, ids: str | Iterable[str], until: str | None) -> list[Self]:
        """As a program asks for it, in parts where it is much; none where there is nothing to do.

        Args:
            kind: what becomes of them.
            ids: one, or any number.
            until: all up to this one, instead.
        """
        named = (ids,) if isinstance(ids, str) else tuple(dict.fromkeys(ids))
        if until is not None:
            return [cls(kind, named, until)]
        return [cls(kind, named[at : at + MOST]) for at in range(0, len(named), MOST)]

    @classmethod
    def told(cls, message: Mapping[str, Any]) -> Self:
        """As the service tells it.

        Raises:
            LookupError, TypeError, ValueError: it is not as documented.
        """
        until = message.get("until")
        ids = message["ids"] if until is None else message.get("ids", ())
        return cls(message["type"], tuple(ids), until)

    @property
    def nothing(self) -> bool:
        """Whether nothing is marked, and only the count is told."""
        return not self.ids and self.until is None

    def which(self) -> dict[str, Any]:
        """The members of a message, or of a body, that name them."""
        return {"until": self.until} if self.until is not None else {"ids": list(self.ids)}

    def among(self, ids: Iterable[str]) -> set[str]:
        """Those of these notifications that it is about."""
        if self.until is None:
            return set(self.ids).intersection(ids)
        last = parse(self.until)
        return {each for each in ids if parse(each) <= last}


EMPTY: Final = {"type": "read", "ids": []}
"""The message that changes nothing, and is answered with the count."""
