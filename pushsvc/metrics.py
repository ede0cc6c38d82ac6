"""Every metric of the service; the name of a metric is in this module only.

Hot paths count a batch with one call.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.registry import Collector

# A second series for each counter would only say when this process started.
disable_created_metrics()  # type: ignore[no-untyped-call]

_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_AGE = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 600, 3600, 86400, 604800)
_LAG = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


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


def fold(pid: int, directory: Path) -> None:
    """Add what a worker that ended has counted to what those before it had; its files are removed.

    A counter must not fall, and each file makes every scrape slower. A gauge says what is: it goes.

    Args:
        pid: of the worker.
        directory: where the workers keep their metrics.

    Raises:
        OSError: a file cannot be opened; to be called again.
    """
    for path in list(directory.glob(f"*_{pid}.db")):
        kind, *_ = path.name.split("_")
        ended = path.with_name(f"{kind}_ended.db")
        if kind == "gauge" or not path.stat().st_size:  # killed before its first page was there
            path.unlink()
        elif not ended.exists():
            path.rename(ended)
        else:
            counted = list(MmapedDict.read_all_values_from_file(path))  # type: ignore[no-untyped-call]
            sums = MmapedDict(str(ended))  # type: ignore[no-untyped-call]
            for series, value, *_ in counted:
                held, _ = sums.read_value(series)  # type: ignore[no-untyped-call]
                sums.write_value(series, held + value, 0.0)  # type: ignore[no-untyped-call]
            sums.close()  # type: ignore[no-untyped-call]
            path.unlink()


connections = Gauge("pushsvc_connections", "Connections held", multiprocess_mode="livesum")
node_ready = Readiness()
REGISTRY.register(node_ready)
ready = Gauge(
    "pushsvc_ready_workers", "Workers that pass their readiness checks", multiprocess_mode="livesum"
)
max_connections = Gauge(
    "pushsvc_max_connections", "Connections that there is room for", multiprocess_mode="livesum"
)
build_info = Gauge(
    "pushsvc_build_info", "1, for the version that runs", ["version"], multiprocess_mode="livemax"
)
certificate_expires = Gauge(
    "pushsvc_tls_certificate_expires_timestamp_seconds",
    "Unix time at which the certificate in use expires; 0 without TLS",
    multiprocess_mode="livemin",
)
auth_file_refused = Gauge(
    "pushsvc_auth_file_refused",
    "1 while the file of issuers cannot be used as it is, and the one before stays in force",
    multiprocess_mode="livemax",
)
tls_handshakes_failed = Counter(
    "pushsvc_tls_handshakes_failed", "TLS handshakes that failed, be it that the peer spoke no TLS"
)
clock_skew = Gauge(
    "pushsvc_clock_skew_seconds",
    "How far the node's clock is ahead of Redis', at the least; negative where it is behind",
    multiprocess_mode="livemostrecent",
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
    "pushsvc_http_seconds", "Time to answer an HTTP request", ["route"], buckets=_LATENCY
)
published = Counter(
    "pushsvc_published",
    "Notifications handed to the store, by outcome: accepted, scheduled or the error's code",
    ["outcome"],
)
scheduled_late = Histogram(
    "pushsvc_scheduled_late_seconds",
    "From the time for which something was scheduled to its append",
    buckets=_LATENCY,
)
client_bytes = Counter(
    "pushsvc_client_bytes", "Bytes that clients' publishes took out of their users' budgets"
)
receipts = Counter("pushsvc_receipts", "Receipts given, by status", ["status"])
webhooks = Counter(
    "pushsvc_webhooks", "Attempts to send a receipt on, or the end of them, by outcome", ["outcome"]
)
webhook_seconds = Histogram(
    "pushsvc_webhook_seconds", "Time that the webhook address takes to answer", buckets=_LATENCY
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
    buckets=_LATENCY,
)
ack_seconds = Histogram(
    "pushsvc_publish_to_ack_seconds", "From the append to the acknowledgement", buckets=_AGE
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
    "pushsvc_redis_seconds", "Time of a pipeline to Redis, by queue", ["lane"], buckets=_LATENCY
)
redis_errors = Counter(
    "pushsvc_redis_errors", "Errors of Redis, by queue and kind", ["lane", "kind"]
)
loop_lag = Histogram(
    "pushsvc_loop_lag_seconds", "How late the event loop runs what is due", buckets=_LAG
)

# A series that begins with its first event hides that event from rate() and increase(), which
# alerts on rare events must not miss.
for _reason in ("trimmed", "reset", "claimed"):
    gaps.labels(_reason)
for _outcome in ("delivered", "retry", "gone", "given_up", "trimmed"):
    webhooks.labels(_outcome)
