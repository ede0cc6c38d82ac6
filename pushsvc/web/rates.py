"""How fast each caller may send requests."""

from collections import OrderedDict
from typing import Final

from pushsvc.errors import RateLimited
from pushsvc.protocol.limits import Rate, spend

MAX_CALLERS: Final = 10_000
"""Most callers whose rate is remembered; the least recent is forgotten first."""


class RequestRates:
    """The rates of many callers; a rate of 0 does not limit.

    Args:
        per_second: requests in the long run.
        burst: requests at once; twice the rate where it is not given.
        advice: what else a caller can do than wait.
    """

    def __init__(self, per_second: float, burst: float | None = None, advice: str = "") -> None:
        if burst is None:
            burst = max(1.0, 2 * per_second)
        self._rate = Rate(per_second, burst) if per_second > 0 else None
        self._advice = advice
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def spend(self, caller: str, now: float, cost: float = 1) -> None:
        """Account for one request, or for as many as it stands for.

        Raises:
            RateLimited: the caller is over its rate.
        """
        if self._rate is None:
            return
        full_at = self._full_at.pop(caller, 0.0)
        self._full_at[caller], wait = spend(full_at, now, cost, self._rate)
        if len(self._full_at) > MAX_CALLERS:
            self._full_at.popitem(last=False)
        if wait:
            raise RateLimited(
                f"over {self._rate.per_second:g} requests a second: wait{self._advice}",
                retry_after=wait,
            )
