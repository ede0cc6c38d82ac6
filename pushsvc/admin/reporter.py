"""What a node says of itself, summed up from its metrics: nothing is walked to know it."""

import asyncio
import os
import socket
import time
from collections.abc import Callable
from typing import Final

from pushsvc import __version__, metrics
from pushsvc.feeds.summaries import EVERY, Histogram, Summaries, Summary

CHECK_SECONDS: Final = 0.25
"""Seconds after which a change of the node's health is told."""
MOST_TROUBLES: Final = 10
MOST_TEXT: Final = 200
"""Characters of a text in a summary."""

TOTALS: Final[dict[str, tuple[metrics.Counter, tuple[str, ...]]]] = {
    "handshakes": (metrics.handshakes, ("accepted",)),
    "published": (metrics.published, ("accepted",)),
    "delivered": (metrics.delivered, ()),
    "redelivered": (metrics.redelivered, ()),
    "acked": (metrics.acked, ()),
    "gaps": (metrics.gaps, ()),
    "closes": (metrics.closes, ()),
    "client_errors": (metrics.client_errors, ()),
    "redis_errors": (metrics.redis_errors, ()),
}
"""The counters of a summary: a metric, and the first labels of the series that count."""


def total(metric: metrics.Counter, labels: tuple[str, ...]) -> int:
    """The sum of a counter's series whose first labels are these."""
    return sum(
        int(series.value) for values, series in metric.series() if values[: len(labels)] == labels
    )


def histogram(metric: metrics.Histogram) -> Histogram:
    """A histogram without labels."""
    bounds, counts = zip(*metric.cumulative(), strict=True)
    return Histogram(bounds[:-1], counts)


class Reporter:
    """Writes the summaries of this process.

    Args:
        summaries: where it is told.
        node: the node's id, as it is now.
        troubles: why the node should get no traffic.
        connections: how many it holds.
        started: when the node started, in Unix seconds.
        redis_time: now by Redis time, in Unix seconds.
        clock: seconds on a monotonic clock.
    """

    def __init__(
        self,
        summaries: Summaries,
        node: Callable[[], str],
        troubles: Callable[[], list[str]],
        connections: Callable[[], int],
        *,
        started: float,
        redis_time: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._summaries = summaries
        self._node = node
        self._troubles = troubles
        self._connections = connections
        self._started = round(started * 1000)
        self._redis_time = redis_time
        self._clock = clock
        self._last_health: tuple[str, list[str]] | None = None
        self._told_at = 0.0
        self._host = socket.gethostname()[:MOST_TEXT]

    def summary(self) -> Summary:
        """What there is to say now."""
        return Summary(
            self._node(),
            self._host,
            os.getpid(),
            __version__,
            self._started,
            tuple(trouble[:MOST_TEXT] for trouble in self._troubles()[:MOST_TROUBLES]),
            self._connections(),
            {name: total(*of) for name, of in TOTALS.items()},
            histogram(metrics.deliver_seconds),
            histogram(metrics.ack_seconds),
            histogram(metrics.loop_lag),
            round(1000 * self._redis_time()),
        )

    def check(self) -> None:
        """Tell it where that is due, or where the node's health has changed."""
        now = self._clock()
        health = (self._node(), self._troubles())
        if health != self._last_health or now - self._told_at >= EVERY:
            self._last_health, self._told_at = health, now
            self._summaries.tell(self.summary())

    async def run(self) -> None:
        """Check for as long as the node lives."""
        while True:
            self.check()
            await asyncio.sleep(CHECK_SECONDS)
