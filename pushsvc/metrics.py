"""Every metric of the service; the name of a metric is in this module only.

What is counted are plain numbers, since it is counted at every notification; the Prometheus client
sees them when they are scraped. They belong to the thread of the event loop. With several workers
each tells its parent now and then all that it has counted, and the parent exposes the sum.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from math import inf
from operator import itemgetter
from typing import Any, ClassVar, Final, Self

from prometheus_client import REGISTRY
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_AGE = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 600, 3600, 86400, 604800)
_LAG = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)

Numbers = tuple[float, ...]
"""Of one series; those of several processes are merged place by place."""
Counted = dict[str, dict[tuple[str, ...], Numbers]]
"""What a process has counted since it started: by the name of the metric and its labels."""


class Metric:
    """A metric: its one series, or by labels several, each of the same class.

    Args:
        name: without what Prometheus appends.
        documentation: what it says.
        labels: their names.
    """

    __slots__ = ("_by_labels", "documentation", "label_names", "name")

    family: ClassVar[Any]
    """What the Prometheus client has for it."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self.documentation = documentation
        self.label_names = tuple(labels)
        self._by_labels: dict[tuple[str, ...], Any] = {} if labels else {(): self}

    def labels(self, *values: str) -> Self:
        """The series with these labels, which there is from now on."""
        series: Self | None = self._by_labels.get(values)
        if series is None:
            if len(values) != len(self.label_names):
                raise ValueError(f"{self.name} has the labels {self.label_names}, not {values}")
            series = self._by_labels[values] = self._further()
        return series

    def series(self) -> Iterator[tuple[tuple[str, ...], Self]]:
        """Each series with its labels."""
        return iter(self._by_labels.items())

    def numbers(self) -> Numbers:
        """What this series has counted."""
        raise NotImplementedError

    def merged(self, of_processes: Sequence[float]) -> float:
        """One number of those that several processes have at the same place."""
        return sum(of_processes)

    def collect(self, series: Mapping[tuple[str, ...], Numbers]) -> Family:
        """What Prometheus is told of some numbers."""
        family: Family = self.family(self.name, self.documentation, labels=self.label_names)
        for labels, numbers in series.items():
            self._add(family, labels, numbers)
        return family

    def _add(self, family: Any, labels: tuple[str, ...], numbers: Numbers) -> None:
        family.add_metric(labels, *numbers)

    def _further(self) -> Self:
        """One more series of this metric."""
        return type(self)(self.name, self.documentation)


class Counter(Metric):
    """A number that only grows."""

    __slots__ = ("value",)

    family = CounterMetricFamily

    def __init__(self, name: str, documentation: str, labels: Sequence[str] = ()) -> None:
        super().__init__(name, documentation, labels)
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        """Count so many more."""
        self.value += amount

    def numbers(self) -> Numbers:
        """The one."""
        return (self.value,)


class Gauge(Metric):
    """A number that rises and falls.

    Args:
        name: of the metric.
        documentation: what it says.
        labels: their names.
        merge: makes one of what the living workers say, of whom the last has spoken last.
    """

    __slots__ = ("_function", "_merge", "value")

    family = GaugeMetricFamily

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str] = (),
        merge: Callable[[Sequence[float]], float] = sum,
    ) -> None:
        super().__init__(name, documentation, labels)
        self.value = 0.0
        self._function: Callable[[], float] | None = None
        self._merge = merge

    def inc(self, amount: float = 1) -> None:
        """There are so many more."""
        self.value += amount

    def dec(self, amount: float = 1) -> None:
        """There are so many less."""
        self.value -= amount

    def set(self, value: float) -> None:
        """Say this from now on."""
        self.value = value

    def set_function(self, function: Callable[[], float]) -> None:
        """Say from now on what this says whenever it is asked."""
        self._function = function

    def numbers(self) -> Numbers:
        """The one, as it is now."""
        return (self.value if self._function is None else float(self._function()),)

    def merged(self, of_processes: Sequence[float]) -> float:
        """By the way of this gauge."""
        return self._merge(of_processes)


class Histogram(Metric):
    """How often something was at most so much.

    Args:
        name: of the metric.
        documentation: what it says.
        labels: their names.
        bounds: of its buckets, in order; one more has none.
    """

    __slots__ = ("_bounds", "_counts", "_sum")

    family = HistogramMetricFamily

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str] = (), *, bounds: Sequence[float]
    ) -> None:
        super().__init__(name, documentation, labels)
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, amount: float) -> None:
        """Count one of so much."""
        self._sum += amount
        self._counts[bisect_left(self._bounds, amount)] += 1

    def cumulative(self) -> list[tuple[float, int]]:
        """How often it was at most each of the bounds; the last is infinite."""
        return list(zip((*self._bounds, inf), accumulate(self._counts), strict=True))

    def numbers(self) -> Numbers:
        """The sum of all, and the count of each bucket by itself."""
        return (self._sum, *self._counts)

    def _add(self, family: Any, labels: tuple[str, ...], numbers: Numbers) -> None:
        total, *counts = numbers
        bounds = (repr(float(bound)) for bound in self._bounds)
        buckets = zip((*bounds, "+Inf"), accumulate(counts), strict=True)
        family.add_metric(labels, list(buckets), total)

    def _further(self) -> Self:
        return type(self)(self.name, self.documentation, bounds=self._bounds)


class Readiness(Collector):
    """Whether ``/readyz`` says ready, asked at each scrape.

    No Gauge: with several workers only their parent knows, and what a Gauge holds is of one worker.
    """

    def __init__(self) -> None:
        self._ready: Callable[[], bool] = lambda: False

    def set_function(self, ready: Callable[[], bool]) -> None:
        """Say from now on what ``ready`` says."""
        self._ready = ready

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The one sample: 1 or 0."""
        yield GaugeMetricFamily(
            "pushsvc_ready", "1 while /readyz says ready, else 0", value=float(self._ready())
        )


connections = Gauge("pushsvc_connections", "Connections held")
node_ready = Readiness()
REGISTRY.register(node_ready)
ready = Gauge("pushsvc_ready_workers", "Workers that pass their readiness checks")
max_connections = Gauge("pushsvc_max_connections", "Connections that there is room for")
build_info = Gauge("pushsvc_build_info", "1, for the version that runs", ["version"], merge=max)
certificate_expires = Gauge(
    "pushsvc_tls_certificate_expires_timestamp_seconds",
    "Unix time at which the certificate in use expires; 0 without TLS",
    merge=min,
)
auth_file_refused = Gauge(
    "pushsvc_auth_file_refused",
    "1 while the file of issuers cannot be used as it is, and the one before stays in force",
    merge=max,
)
tls_handshakes_failed = Counter(
    "pushsvc_tls_handshakes_failed", "TLS handshakes that failed, be it that the peer spoke no TLS"
)
clock_skew = Gauge(
    "pushsvc_clock_skew_seconds",
    "How far the node's clock is ahead of Redis', at the least; negative where it is behind",
    merge=itemgetter(-1),
)
handshakes = Counter(
    "pushsvc_handshakes", "Handshakes, by outcome: accepted or the error's code", ["outcome"]
)
closes = Counter("pushsvc_closes", "Connections closed, by close code", ["code"])
client_errors = Counter("pushsvc_client_errors", "Error frames sent, by code", ["code"])
http_requests = Counter(
    "pushsvc_http_requests", "HTTP requests, by route and status", ["route", "status"]
)
http_seconds = Histogram(
    "pushsvc_http_seconds", "Time to answer an HTTP request", ["route"], bounds=_LATENCY
)
published = Counter(
    "pushsvc_published",
    "Notifications handed to the store, by outcome: accepted, scheduled or the error's code",
    ["outcome"],
)
scheduled_late = Histogram(
    "pushsvc_scheduled_late_seconds",
    "From the time for which something was scheduled to its append",
    bounds=_LATENCY,
)
client_bytes = Counter(
    "pushsvc_client_bytes", "Bytes that clients' publishes took out of their users' budgets"
)
receipts = Counter("pushsvc_receipts", "Receipts given, by status", ["status"])
webhooks = Counter(
    "pushsvc_webhooks", "Attempts to send a receipt on, or the end of them, by outcome", ["outcome"]
)
webhook_seconds = Histogram(
    "pushsvc_webhook_seconds", "Time that the webhook address takes to answer", bounds=_LATENCY
)
PUSH_OUTCOMES: Final = (
    "sent", "gone", "retry", "too_large", "refused", "credentials", "expired", "cancelled",
)  # fmt: skip
pushes = Counter(
    "pushsvc_pushes",
    "Attempts to push to a device that is away, or the end of them, by provider and outcome",
    ["provider", "outcome"],
)
push_seconds = Histogram(
    "pushsvc_push_seconds", "Time of an attempt, by provider", ["provider"], bounds=_LATENCY
)
push_late = Histogram(
    "pushsvc_push_late_seconds",
    "How long after it was due an attempt to push began",
    bounds=_LATENCY,
)
pushes_in_flight = Gauge(
    "pushsvc_pushes_in_flight", "Attempts under way, by provider", ["provider"]
)
push_provider_stopped = Gauge(
    "pushsvc_push_provider_stopped",
    "Whether the pushes of a provider wait, by reason; breaker: those of one push service or more",
    ["provider", "reason"],
)
delivered = Counter("pushsvc_delivered", "Notifications handed to a socket for the first time")
ephemeral_dropped = Counter(
    "pushsvc_ephemeral_dropped", "Ephemeral messages dropped, by where there was no room", ["where"]
)
redelivered = Counter("pushsvc_redelivered", "Notifications handed to a socket again")
acked = Counter("pushsvc_acks", "Acknowledgements that moved a cursor")
gaps = Counter(
    "pushsvc_gaps",
    "Gaps told to clients, by reason, of those told at the start of a connection one a user in ten"
    " minutes; claimed: reset, from a position that nobody but the client knows of",
    ["reason"],
)
deliver_seconds = Histogram(
    "pushsvc_publish_to_deliver_seconds",
    "From the append to the socket, for what came by the inbox",
    bounds=_LATENCY,
)
ack_seconds = Histogram(
    "pushsvc_publish_to_ack_seconds", "From the append to the acknowledgement", bounds=_AGE
)
courier_entries = Counter(
    "pushsvc_courier_entries", "Entries that came by the inbox, by what became of them", ["fate"]
)
courier_lost = Counter(
    "pushsvc_courier_lost", "Entries that could not be put into a node's inbox (read later)"
)
feed_reads = Counter("pushsvc_feed_reads", "Reads of a feed, by cause", ["cause"])
sweeps = Counter("pushsvc_swept", "Registrations that the sweep checked, by finding", ["finding"])
lease_lapses = Counter("pushsvc_lease_lapses", "Times that the node came back under a new id")
redis_seconds = Histogram(
    "pushsvc_redis_seconds", "Time of a pipeline to Redis, by queue", ["lane"], bounds=_LATENCY
)
redis_errors = Counter(
    "pushsvc_redis_errors", "Errors of Redis, by queue and kind", ["lane", "kind"]
)
loop_lag = Histogram(
    "pushsvc_loop_lag_seconds", "How late the event loop runs what is due", bounds=_LAG
)

# A series that begins with its first event hides that event from rate() and increase(), which
# alerts on rare events must not miss.
for _reason in ("trimmed", "reset", "claimed"):
    gaps.labels(_reason)
for _outcome in ("delivered", "retry", "gone", "given_up", "trimmed"):
    webhooks.labels(_outcome)

ALL: Final = tuple(each for each in list(globals().values()) if isinstance(each, Metric))


def counted() -> Counted:
    """What this process has counted."""
    return {
        metric.name: {labels: series.numbers() for labels, series in metric.series()}
        for metric in ALL
    }


class Sum(Collector):
    """What several processes have counted, as Prometheus is told.

    What counters and histograms of an ended process have counted stays in the sum, which must not
    fall; a gauge says what is, so it goes.

    Args:
        living: what each that lives has counted, in the order in which they spoke last.
    """

    def __init__(self, living: Callable[[], Iterable[Counted]]) -> None:
        self._living = living
        self._ended: Counted = {}

    def keep(self, counted: Counted) -> None:
        """A process has ended, and this is the last that it said."""
        self._ended = {
            metric.name: _merged(metric, [self._ended, counted])
            for metric in ALL
            if not isinstance(metric, Gauge)
        }

    def collect(self) -> Iterable[Family]:
        """All metrics, with what there is now."""
        processes = [self._ended, *self._living()]
        return (metric.collect(_merged(metric, processes)) for metric in ALL)


def _merged(metric: Metric, processes: Sequence[Counted]) -> dict[tuple[str, ...], Numbers]:
    """The numbers of a metric over all processes, by labels."""
    found: dict[tuple[str, ...], list[Numbers]] = {}
    for process in processes:
        for labels, numbers in process.get(metric.name, {}).items():
            found.setdefault(labels, []).append(numbers)
    return {
        labels: tuple(map(metric.merged, zip(*each, strict=True))) for labels, each in found.items()
    }


REGISTRY.register(Sum(lambda: [counted()]))
