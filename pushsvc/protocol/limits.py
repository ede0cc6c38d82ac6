"""Token buckets that take one float each.

The generic cell rate algorithm (ITU-T I.371, annex A) keeps, instead of a token count and a time,
the theoretical arrival time at which the bucket would be full again. An unused bucket is the
shared constant ``0.0``, so idle connections pay nothing for their limits.
"""

from typing import NamedTuple


class Rate(NamedTuple):
    """A limit: ``per_second`` units in the long run, ``burst`` units at once."""

    per_second: float
    burst: float


def spend(full_at: float, now: float, cost: float, rate: Rate) -> tuple[float, float]:
    """Take ``cost`` units out of a bucket.

    Args:
        full_at: the bucket: when it is full again, seconds on the clock of ``now``.
        now: seconds on a monotonic clock.
        cost: units to take.
        rate: the limit.

    Returns:
        The bucket afterwards and the seconds to wait before the same cost fits; a wait of zero
        means that the units were taken.
    """
    taken = max(full_at, now) + cost / rate.per_second
    wait = taken - now - rate.burst / rate.per_second
    if wait > 1e-9:
        return full_at, wait
    return taken, 0.0


def owe(full_at: float, now: float, cost: float, rate: Rate) -> float:
    """Take ``cost`` units out of a bucket, even if it holds less: it was used already.

    Returns:
        The bucket afterwards; who has overdrawn it waits the longer.
    """
    return max(full_at, now) + cost / rate.per_second
