"""An agenda of feeds that are to be looked at, which all nodes share and any node works off.

A feed is put on it before that happens for which it has to be looked at, so that a node that dies
in between forgets nothing. Whoever looks has a claim that ends by itself, so that what a dead node
had taken is taken again. A feed that was put there a moment ago is not removed because there was
nothing to find: what is to come may be under way.
"""

import secrets
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from pushsvc.feeds.keys import Keys
from pushsvc.feeds.lane import Lane
from pushsvc.feeds.scripts import Scripts

SETTLING: Final = 45.0
"""Seconds that may pass between putting a feed there and what it was put there for: longer than any
command waits for Redis."""
AGAIN: Final = 15.0
"""Seconds until the next look meanwhile."""


class Claim(NamedTuple):
    """A feed that this node works on."""

    feed: str
    token: bytes


class Agenda:
    """One agenda.

    Args:
        name: what the feeds are looked at for.
        lane: any without a tail.
        keys: the key names.
        scripts: the operations.
        hold: seconds that a claim lasts, longer than any look.
        keep: seconds that a feed may have to stay there.
    """

    def __init__(
        self, name: str, lane: Lane, keys: Keys, scripts: Scripts, *, hold: float, keep: float
    ) -> None:
        self._lane = lane
        self._digests = scripts.digests
        self._due = keys.agenda(name, "due")
        self._owed = keys.agenda(name, "owed")
        self._claims = keys.agenda(name, "claims")
        self._hold = round(hold * 1000)
        self._keep = round(keep * 1000)
        self._holder: Final = secrets.token_hex(6)

    async def owe(self, looks: Mapping[str, float]) -> None:
        """Put feeds there; of several looks at a feed the earliest counts.

        Args:
            looks: feed to seconds from now.

        Raises:
            PushError: Redis cannot be reached or refuses: they may not be there.
        """
        pairs = [each for feed, wait in looks.items() for each in (feed, round(wait * 1000))]
        await self._lane.one(
            "EVALSHA", self._digests["owe"], 2, self._due, self._owed, self._keep, *pairs
        )

    async def claim(self, most: int) -> list[Claim]:
        """Take feeds that are due.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        found = await self._lane.one(
            "EVALSHA", self._digests["claim"], 2, self._due, self._claims,
            self._hold, most, self._holder, self._keep,
        )  # fmt: skip
        return [Claim(found[i].decode(), found[i + 1]) for i in range(0, len(found), 2)]

    async def release(self, done: Iterable[tuple[Claim, float | None]]) -> None:
        """Give feeds back, each with the seconds until the next look, None if there is no need.

        Raises:
            PushError: Redis cannot be reached or refuses: the claims end by themselves.
        """
        await self._release([(claim, wait, False) for claim, wait in done])

    async def rest(self, claim: Claim, seconds: float) -> None:
        """Give a feed back that nobody is to look at for a while, whatever puts it there again.

        Raises:
            PushError: Redis cannot be reached or refuses: the claim ends by itself.
        """
        await self._release([(claim, seconds, True)])

    async def _release(self, done: Iterable[tuple[Claim, float | None, bool]]) -> None:
        fields: list[str | bytes | int] = []
        for claim, wait, rest in done:
            look = "" if wait is None else round(wait * 1000)
            fields += [claim.feed, claim.token, look, "1" if rest else ""]
        await self._lane.one(
            "EVALSHA", self._digests["release"], 3, self._due, self._owed, self._claims,
            round(SETTLING * 1000), round(AGAIN * 1000), *fields,
        )  # fmt: skip
