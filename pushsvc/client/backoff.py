"""When to come back after a connection ended, and when not to: a rule, without clock or dice."""

from dataclasses import dataclass, field

from pushsvc.client.errors import PushError, Refused, Unavailable

TOKEN_EXPIRED = 4100
DOUBLINGS = 30
"""Failures after which a delay does not double any more: 2**30 times any first one is enough."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How a client comes back; times in seconds."""

    first: float = 1.0
    """The most random delay before the first try."""
    longest: float = 30.0
    """The most random delay before any try; it doubles from ``first`` up to this."""
    uptime: float = 10.0
    """A connection that lived for so long was no failure: delays begin at ``first`` again."""
    open: float = 10.0
    """What the service has to accept a connection, and then to say ``welcome``."""
    answer: float = 30.0
    """What the service has, on a live connection, to answer a question."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a connection, or the try to make one, ended."""

    up: float = 0.0
    """Seconds that it was up."""
    close_code: int | None = None
    """The code with which the service closed it; None where it said nothing."""
    reason: str = ""
    retry_after: float = 0.0
    """Seconds that the service asked to wait."""
    refusal: Refused | None = None
    """The HTTP answer, where it was no acceptance."""
    error: Exception | None = None
    """What happened instead: a network error, or one of the token provider."""


@dataclass(frozen=True, slots=True)
class Again:
    """Come back."""

    delay: float
    """Seconds from now."""
    new_token: bool = False
    """With a new token."""
    refused: bool = False
    """Because the last one was refused."""


def delay(failures: int, retry_after: float, timing: Timing, chance: float) -> float:
    """Seconds to wait before the next try: as long as the service said, and full jitter on top.

    Args:
        failures: tries that failed one after the other before this end.
        retry_after: what the service said, in seconds.
        timing: the bounds.
        chance: a random number, at least 0 and below 1.
    """
    doubled = timing.first * 2.0 ** min(failures, DOUBLINGS)
    return retry_after + chance * min(timing.longest, doubled)


@dataclass(slots=True)
class ReconnectPolicy:
    """The tries of one client."""

    timing: Timing
    renewable: bool
    """Whether a new token can be had."""
    patience: float | None = None
    """Seconds without a connection after which it gives up; None for never."""
    failures: int = 0
    _refusals: int = field(default=0, init=False)
    _down_since: float | None = field(default=None, init=False)

    def after(self, ended: Ended, now: float, chance: float) -> Again | PushError:
        """What to do now: come back, or give up because of this error.

        Args:
            ended: what happened.
            now: seconds on any steady clock.
            chance: a random number, at least 0 and below 1.
        """
        if ended.up > 0:
            self._refusals = 0
            self._down_since = None
        if ended.up >= self.timing.uptime:
            self.failures = 0
        unauthorized = ended.refusal is not None and ended.refusal.status == 401
        if unauthorized:
            # Where the service says when a new token will be good, the one got before then is none.
            self._refusals = 0 if ended.retry_after else self._refusals + 1
        final = self._final(ended)
        if final is not None:
            return final
        if self._down_since is None:
            self._down_since = now
        wait = delay(self.failures, ended.retry_after, self.timing, chance)
        if self.patience is not None and now + wait - self._down_since > self.patience:
            return _gave_up(ended, self.patience)
        self.failures += 1
        expired = ended.close_code == TOKEN_EXPIRED
        return Again(wait, new_token=unauthorized or expired, refused=unauthorized)

    def _final(self, ended: Ended) -> PushError | None:
        """Why coming back is useless, if it is."""
        code = ended.close_code
        if code is not None and 4500 <= code <= 4999:
            return Refused(ended.reason or "the connection is closed", code="closed", status=code)
        if code == TOKEN_EXPIRED and not self.renewable:
            # A token that is a plain string will not get any better.
            return Refused(
                "the token expired: give a function that returns a new one", code="closed",
                status=code,
            )  # fmt: skip
        refusal = ended.refusal
        if refusal is None or refusal.status is None or refusal.status in (408, 429):
            return None
        if refusal.status == 401:
            return refusal if not self.renewable or self._refusals > 1 else None
        return refusal if refusal.status < 500 else None


def _gave_up(ended: Ended, patience: float) -> Unavailable:
    last = ended.refusal or ended.error or ended.reason or ended.close_code or "nothing was said"
    error = Unavailable(f"no connection within {patience:g} s; last: {last}")
    error.__cause__ = ended.refusal or ended.error
    return error
