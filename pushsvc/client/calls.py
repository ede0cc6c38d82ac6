"""One request with its retries: an answer and the time in; what to do next out."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pushsvc.client.backoff import Timing, delay
from pushsvc.client.errors import NotInTime, Refused, Unavailable

TRANSIENT: Final = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""
HELD_UP: Final = TRANSIENT - {429}
"""Those of a part of a request that is worth sending again for it. A limit is that of the part
alone, such as of what may wait for one user: the callers of the others would wait for it."""
TIMING: Final = Timing(first=0.2, longest=5.0)
"""Retries of a request: a backend waits for it, other than a phone that reconnects."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as it is sent and, if it has to be, sent again.

    Each of them may be: a publish has a key, and to ask, to recall, to revoke or to get a ticket
    twice is as good as once.
    """

    path: str
    """With its query."""
    body: bytes | None = None
    status: int = 202
    """Of the answer that says that it is done."""
    method: str = "POST"
    key: str | None = None
    """The idempotency key that it carries."""
    repeat: str | None = None
    """The key with which the caller repeats the call that this request is a part of; None where
    there is no such call, as of a batch of what several callers published."""
    count: int = 1
    """How many notifications it makes."""
    wait: float = 0.0
    """Seconds that the service may take because it was asked to wait."""
    bearer: str | None = field(default=None, repr=False)
    """The token that it is sent with; None for that of the publisher."""

    def headers(self, token: str) -> dict[str, str]:
        """The HTTP headers."""
        headers = {"Authorization": f"Bearer {token}"}
        if self.body is not None:
            headers["Content-Type"] = "application/json"
        if self.key is not None:
            quoted = self.key.replace("\\", "\\\\").replace('"', '\\"')
            headers["Idempotency-Key"] = f'"{quoted}"'
        return headers


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; the headers' names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Retry:
    """Send the same request again."""

    delay: float
    """Seconds from now."""
    new_token: bool = False
    """With a new token: the last one was refused."""
    why: Exception | None = field(default=None, compare=False)
    """What was wrong with the last try."""


@dataclass(frozen=True, slots=True)
class Done:
    """The parsed answer."""

    value: dict[str, Any]


class Call:
    """A request until it is answered, refused, or out of time.

    Args:
        request: what is sent, each time the same: its key makes that one publish.
        now: seconds on any steady clock.
        deadline: seconds from now after which nothing is tried any more.
        renewable: whether a new token can be had.
    """

    def __init__(self, request: Request, now: float, deadline: float, *, renewable: bool) -> None:
        self.request = request
        self._deadline = deadline
        self.until = now + deadline
        """When the deadline is, on the same clock."""
        self._renewable = renewable
        self._failures = 0
        self._last: Exception | None = None

    def left(self, now: float) -> float:
        """Seconds until the deadline."""
        return max(self.until - now, 0.0)

    def next(self, outcome: Answer | Exception, now: float, chance: float) -> Retry | Done:
        """What to do after a try.

        Args:
            outcome: the answer, or the error instead of one, of the network or of the function
                that returns tokens.
            now: seconds on the clock of the start.
            chance: a random number, at least 0 and below 1.

        Raises:
            Refused: the service does not take it.
            Unavailable: there is no time for another try.
        """
        if isinstance(outcome, Exception):
            return self._again(outcome, 0.0, now, chance)
        value = _parsed(outcome.body)
        if outcome.status == self.request.status and isinstance(value, dict):
            held_up = _held_up(value)
            if held_up is None:
                return Done(value)
            try:
                # What was published is answered again as it was; the rest has another chance.
                return self._again(held_up, held_up.retry_after or 0.0, now, chance)
            except Unavailable:
                return Done(value)
        refused = Refused.of(value, outcome.status, _seconds(outcome.headers.get("retry-after")))
        if outcome.status in TRANSIENT:
            return self._again(refused, refused.retry_after or 0.0, now, chance)
        if outcome.status == 401 and self._renewable:
            self._renewable = False  # once: what is refused anew is refused
            wait = refused.retry_after or 0.0  # an earlier one would be refused as well
            if now + wait < self.until:
                return Retry(wait, new_token=True, why=refused)
        raise refused.advised()

    def _again(self, why: Exception, retry_after: float, now: float, chance: float) -> Retry:
        if self._last is not None and isinstance(why, NotInTime):
            why = self._last  # that the time was up says less than what came before
        self._last = why
        wait = delay(self._failures, retry_after, TIMING, chance)
        if now + wait >= self.until:
            raise Unavailable(
                f"not done within {self._deadline:.3g} s; last: {why}", key=self.request.repeat
            ) from why
        self._failures += 1
        return Retry(wait, why=why)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _held_up(value: dict[str, Any]) -> Refused | None:
    """The first part of an answer that may succeed if the request is sent again."""
    results = value.get("results")
    for each in results if isinstance(results, list) else ():
        status = each.get("status") if isinstance(each, dict) else None
        if isinstance(status, int) and status in HELD_UP:
            return Refused.of(each, None)
    return None


def _seconds(header: str | None) -> float | None:
    try:
        return None if header is None else float(header)
    except ValueError:
        return None  # a date, which no node sends
