"""How fast each caller may send requests.

A caller is who its token says, and nothing that it can choose: a device that is named anew for each
request would have a rate of its own each time.
"""

from collections import OrderedDict
from itertools import islice
from typing import Final

from pushsvc.errors import RateLimited
from pushsvc.protocol.limits import Rate, owe, spend

MAX_CALLERS: Final = 10_000
"""Most callers whose rate is remembered; the least recent is forgotten first."""


class RequestRates:
    """The rates of many callers; a rate of 0 does not limit.

    Args:
        per_second: requests in the long run.
        burst: requests at once; twice the rate where it is not given.
        advice: what else a caller can do than wait.
        what: is limited, as callers are told.
    """

    def __init__(
        self,
        per_second: float,
        burst: float | None = None,
        advice: str = "",
        what: str = "requests",
    ) -> None:
        if burst is None:
            burst = max(1.0, 2 * per_second)
        self._rate = Rate(per_second, burst) if per_second > 0 else None
        self._advice = advice
        self._what = what
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def spend(self, caller: str, now: float, cost: float = 1) -> None:
        """Account for one request, or for as many as it stands for.

        Raises:
            RateLimited: the caller is over its rate.
        """
        if self._rate is None:
            return
        full_at = self._full_at
        full_at[caller], wait = spend(full_at.pop(caller, 0.0), now, cost, self._rate)
        if len(full_at) > MAX_CALLERS:
            full_at.popitem(last=False)
        self._forget(now)
        if wait:
            advice = f"wait{self._advice}"
            if cost > max(1, self._rate.burst - 1):  # never fits: the request itself took one
                advice = f"send at most {self._rate.burst:g} at once"
            raise RateLimited(
                f"over {self._rate.per_second:g} {self._what} a second: {advice}",
                retry_after=wait,
            )

    def owe(self, caller: str, now: float, cost: float) -> None:
        """Account for what a request turned out to cost besides: the next ones wait for it."""
        if self._rate is not None and cost > 0:
            self._full_at[caller] = owe(self._full_at.pop(caller, 0.0), now, cost, self._rate)

    def _forget(self, now: float) -> None:
        """Forget callers whose bucket is full again: it is as one that was never used.

        Two at each request, so that those who came once take no memory for good.
        """
        full_at = self._full_at
        for caller in list(islice(full_at, 2)):
            if full_at[caller] > now:
                return
            del full_at[caller]
