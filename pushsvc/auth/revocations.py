"""The revoked tokens, as one process holds them: a look-up or two for each token."""

from collections.abc import Iterable
from typing import Final

from pushsvc.protocol.revocation import Revocation, token_key

PRUNE_SECONDS: Final = 60.0
"""Time between two walks over everything for what is over."""


class Revocations:
    """Which tokens are revoked; times in Unix seconds."""

    __slots__ = ("_all", "_pruned", "_tokens", "_users", "active")

    def __init__(self) -> None:
        self.active = False
        """Whether anything is revoked at all."""
        self._users: dict[str, tuple[int, int]] = {}  # the newest time of issue, and until when
        self._tokens: dict[int, int] = {}
        self._all = (-1, 0)
        self._pruned = 0.0

    def __len__(self) -> int:
        return len(self._users) + len(self._tokens) + (self._all[1] > 0)

    def revoked(self, user: str, token_id: str | None, issued: int | None, now: float) -> bool:
        """Whether a token is revoked.

        Args:
            user: its subject.
            token_id: its ``jti``.
            issued: its ``iat``; without one it counts as issued at 0.
            now: the time.
        """
        return self.active and self.revoked_key(user, token_key(token_id), issued or 0, now)

    def revoked_key(self, user: str, token_key: int, issued: int, now: float) -> bool:
        """The same for a connection that holds of its token no more than this.

        Args:
            user: its subject.
            token_key: what ``token_key`` made of its ``jti``.
            issued: its ``iat``, 0 without one.
            now: the time.
        """
        before, until = self._all
        if issued <= before and now < until:
            return True
        held = self._users.get(user)
        if held is not None and issued <= held[0] and now < held[1]:
            return True
        return token_key != 0 and now < self._tokens.get(token_key, 0)

    def issued_after(self, user: str) -> int:
        """The second after which a token must be issued to be good, whatever its id."""
        held = self._users.get(user)
        return max(self._all[0], held[0] if held is not None else -1)

    def load(self, entries: Iterable[Revocation], now: float, *, afresh: bool = False) -> None:
        """Take in what was revoked; of two for the same tokens the newer one counts.

        Args:
            entries: what was revoked.
            now: the time; what is over by then is dropped, now or within a minute.
            afresh: forget everything else.
        """
        if afresh:
            self.clear()
        for entry in entries:
            if entry.token_id is not None:
                self._tokens[token_key(entry.token_id)] = entry.until
            elif entry.user is not None:
                self._users[entry.user] = (entry.issued_before, entry.until)
            else:
                self._all = (entry.issued_before, entry.until)
        self.active = len(self) > 0
        self.prune(now)

    def clear(self) -> None:
        """Forget everything."""
        self._users = {}
        self._tokens = {}
        self._all = (-1, 0)
        self.active = False

    def prune(self, now: float) -> None:
        """Drop what is over; walks over everything, but once a minute at most."""
        if not self.active or 0 <= now - self._pruned < PRUNE_SECONDS:
            return
        self._pruned = now
        self._users = {user: held for user, held in self._users.items() if now < held[1]}
        self._tokens = {key: until for key, until in self._tokens.items() if now < until}
        if now >= self._all[1]:
            self._all = (-1, 0)
        self.active = len(self) > 0
