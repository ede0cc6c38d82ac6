"""One request with its retries: an answer and the time in; what to do next out."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pushsvc.client.backoff import Timing, delay
from pushsvc.client.errors import Refused, Unavailable
from pushsvc.client.publishing import TRANSIENT, Request

TIMING: Final = Timing(first=0.2, longest=5.0)
"""Retries of a request: a backend waits for it, other than a phone that reconnects."""


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
        self._until = now + deadline
        self._renewable = renewable
        self._failures = 0

    def left(self, now: float) -> float:
        """Seconds until the deadline."""
        return max(self._until - now, 0.0)

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
        if outcome.status == 202 and isinstance(value, dict):
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
            return Retry(0.0, new_token=True)
        raise refused

    def _again(self, why: Exception, retry_after: float, now: float, chance: float) -> Retry:
        wait = delay(self._failures, retry_after, TIMING, chance)
        if now + wait >= self._until:
            raise Unavailable(
                f"not done within {self._deadline:.3g} s; last: {why}", key=self.request.repeat
            ) from why
        self._failures += 1
        return Retry(wait)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _held_up(value: dict[str, Any]) -> Refused | None:
    """The first part of an answer that may succeed if the request is sent again."""
    results = value.get("results")
    for each in results if isinstance(results, list) else ():
        status = each.get("status") if isinstance(each, dict) else None
        if isinstance(status, int) and status in TRANSIENT:
            return Refused.of(each, None)
    return None


def _seconds(header: str | None) -> float | None:
    try:
        return None if header is None else float(header)
    except ValueError:
        return None  # a date, which no node sends
