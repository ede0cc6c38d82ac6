"""When a push service that is in trouble is left alone (pure)."""

from collections import OrderedDict
from typing import Final

FAILURES: Final = 5
"""Attempts in a row that come to nothing, after which no more are made for a while."""
FIRST: Final = 5.0
"""Seconds of the first pause; each that follows at once is twice as long."""
LONGEST: Final = 300.0
PROBE: Final = 15.0
"""Seconds after which an attempt that was let through in between counts as lost."""
MAX_BREAKERS: Final = 1024


class Breaker:
    """A circuit breaker: closed, it lets all attempts through; open, none; then one at a time.

    Args:
        failures: that open it, in a row.
        first: seconds of the first pause.
        longest: seconds of the longest.
    """

    def __init__(
        self, failures: int = FAILURES, first: float = FIRST, longest: float = LONGEST
    ) -> None:
        self._limit = failures
        self._first = first
        self._longest = longest
        self._failed = 0
        self._pauses = 0
        self._until = 0.0
        self._probe: float | None = None

    def is_open(self) -> bool:
        """Whether attempts are held back."""
        return self._pauses > 0

    def wait(self, now: float) -> float:
        """Ask for an attempt: 0 lets it through, and it must be followed by ``done``.

        Args:
            now: seconds of a clock that only goes on.

        Returns:
            The seconds after which it is worth asking again.
        """
        if not self.is_open():
            return 0.0
        if now < self._until:
            return self._until - now
        if self._probe is not None and now < self._probe + PROBE:
            return self._probe + PROBE - now
        self._probe = now
        return 0.0

    def done(self, now: float, *, failed: bool) -> None:
        """Tell what came of an attempt.

        Args:
            now: as for ``wait``.
            failed: the service is overloaded, broken or out of reach.
        """
        if not failed:
            self._failed = self._pauses = 0
            self._probe = None
            return
        if self.is_open():
            # What was begun before it opened says nothing new.
            if self._probe is None or now < self._until:
                return
            self._pause(now)
            return
        self._failed += 1
        if self._failed >= self._limit:
            self._pause(now)

    def _pause(self, now: float) -> None:
        # Not 2 ** n: a service that is gone for years must not overflow it.
        length = self._first
        for _ in range(self._pauses):
            length = min(length * 2, self._longest)
            if length == self._longest:
                break
        self._until = now + length
        self._pauses += 1
        self._probe = None


class Breakers:
    """A breaker for each push service, made when it is asked for first."""

    def __init__(self) -> None:
        self._breakers: OrderedDict[tuple[str, str], Breaker] = OrderedDict()

    def of(self, provider: str, host: str) -> Breaker:
        """The breaker of a host; that of the host asked for longest ago is forgotten at last."""
        found = self._breakers.get((provider, host))
        if found is None:
            if len(self._breakers) >= MAX_BREAKERS:
                self._breakers.popitem(last=False)
            found = self._breakers[provider, host] = Breaker()
        self._breakers.move_to_end((provider, host))
        return found

    def open(self, provider: str) -> list[str]:
        """The hosts of a provider that are left alone, in order."""
        return sorted(
            host
            for (name, host), each in self._breakers.items()
            if name == provider and each.is_open()
        )
