"""What is counted is what Prometheus is told, and what workers counted outlives them."""

import re
from collections import Counter as Tally

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client import Counter as TheirCounter
from prometheus_client import Gauge as TheirGauge
from prometheus_client import Histogram as TheirHistogram
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from pushsvc import metrics
from pushsvc.metrics import Counted, Counter, Gauge, Histogram, Metric, Sum
from tests.support.documents import ROOT

LAG = tuple(bound for bound, _ in metrics.loop_lag.cumulative()[:-1])
BOUNDS = (0.001, 0.5, 1, 604800)


def exposed(collector: Collector) -> list[str]:
    """What ``/metrics`` says, in both formats."""
    registry = CollectorRegistry()
    registry.register(collector)
    text = generate_latest(registry) + openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
    return [line for line in text.decode().splitlines() if "_created" not in line]


class One(Collector):
    """A single metric."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> list[Family]:
        return [self._metric.collect({k: v.numbers() for k, v in self._metric.series()})]


amounts = st.floats(-1, 1e6) | st.sampled_from(BOUNDS)
labels = st.sampled_from(["a", "b", "ü", '"\n'])


@given(st.lists(st.tuples(labels, st.floats(0, 1e6))), st.lists(amounts))
def test_a_metric_says_what_that_of_the_prometheus_client_says(
    counts: list[tuple[str, float]], observed: list[float]
) -> None:
    registry = CollectorRegistry()
    counter, theirs = (
        Counter("c", "help", ["x"]),
        TheirCounter("c", "help", ["x"], registry=registry),
    )
    gauge, their_gauge = Gauge("g", "help"), TheirGauge("g", "help", registry=registry)
    for label, amount in counts:
        counter.labels(label).inc(amount)
        theirs.labels(label).inc(amount)
        gauge.inc(amount)
        their_gauge.inc(amount)
        gauge.dec()
        their_gauge.dec()
    times = Histogram("h", "help", bounds=BOUNDS)
    their_times = TheirHistogram("h", "help", buckets=BOUNDS, registry=registry)
    for amount in observed:
        times.observe(amount)
        their_times.observe(amount)
    assert exposed(One(counter)) == exposed(theirs)
    assert exposed(One(gauge)) == exposed(their_gauge)
    assert exposed(One(times)) == exposed(their_times)


def test_a_gauge_may_be_asked_for() -> None:
    gauge = Gauge("g", "help")
    gauge.set(3)
    assert gauge.numbers() == (3,)
    gauge.set_function(lambda: True)
    assert gauge.numbers() == (1,)


def test_labels_are_as_many_as_the_metric_has() -> None:
    with pytest.raises(ValueError, match="x"):
        Counter("c", "help", ["x"]).labels("a", "b")
    with pytest.raises(ValueError, match="c has"):
        Counter("c", "help").labels("a")


# --- several workers -----------------------------------------------------------------------------


def worker(codes: Tally[str], seconds: list[int], held: int) -> Counted:
    """What a worker says."""
    lag = Histogram("h", "help", bounds=LAG)
    for each in seconds:  # integers: as floats they sum up exactly, in whatever order
        lag.observe(each)
    return {
        metrics.client_errors.name: {(code,): (n,) for code, n in codes.items()},
        metrics.acked.name: {(): (sum(codes.values()),)},
        metrics.connections.name: {(): (held,)},
        metrics.loop_lag.name: {(): lag.numbers()},
    }


workers = st.builds(
    worker,
    st.lists(st.sampled_from(["a", "b", "ü"]), max_size=5).map(Tally),
    st.lists(st.integers(0, 10), max_size=5),
    st.just(0),
)


@given(st.dictionaries(st.integers(1, 6), workers), st.lists(st.integers(1, 6), unique=True))
def test_what_is_told_of_counters_and_histograms_stays_as_processes_end(
    living: dict[int, Counted], ended: list[int]
) -> None:
    total = Sum(living.values)

    def told() -> list[str]:
        return sorted(line for line in exposed(total) if "pushsvc_connections" not in line)

    before = told()
    for number in ended:
        total.keep(living.pop(number, {}))
        assert told() == before


def value(collector: Collector, name: str, **labels: str) -> float | None:
    registry = CollectorRegistry()
    registry.register(collector)
    return registry.get_sample_value(name, labels)


def test_what_several_workers_say_is_summed() -> None:
    one, other = worker(Tally("aab"), [1, 7], 5), worker(Tally("b"), [2], 6)
    total = Sum(lambda: [one, other])
    assert value(total, "pushsvc_client_errors_total", code="a") == 2
    assert value(total, "pushsvc_client_errors_total", code="b") == 2
    assert value(total, "pushsvc_acks_total") == 4
    assert value(total, "pushsvc_connections") == 11
    assert value(total, "pushsvc_loop_lag_seconds_sum") == 10
    assert value(total, "pushsvc_loop_lag_seconds_count") == 3
    assert value(total, "pushsvc_loop_lag_seconds_bucket", le="1.0") == 1
    assert value(total, "pushsvc_loop_lag_seconds_bucket", le="+Inf") == 3


def test_a_gauge_goes_with_its_process() -> None:
    living = [worker(Tally(), [], 5), worker(Tally(), [], 6)]
    total = Sum(lambda: living)
    total.keep(living.pop())
    assert value(total, "pushsvc_connections") == 5


@pytest.mark.parametrize(
    ("gauge", "expected"),
    [
        (metrics.ready, 6),
        (metrics.max_connections, 6),
        (metrics.certificate_expires, 1),
        (metrics.auth_file_refused, 3),
        (metrics.clock_skew, 2),  # of the last that spoke
    ],
)
def test_a_gauge_is_merged_in_its_way(gauge: Gauge, expected: float) -> None:
    total = Sum(lambda: [{gauge.name: {(): (value,)}} for value in (1.0, 3.0, 2.0)])
    assert value(total, gauge.name) == expected


def test_what_this_process_counted_is_what_a_worker_says() -> None:
    before = metrics.counted()[metrics.sweeps.name].get(("late",), (0,))
    metrics.sweeps.labels("late").inc(2)
    after = metrics.counted()
    assert after[metrics.sweeps.name]["late",] == (before[0] + 2,)
    assert exposed(Sum(lambda: [after])) == exposed(Sum(lambda: [metrics.counted()]))
    assert REGISTRY.get_sample_value("pushsvc_swept_total", {"finding": "late"}) == before[0] + 2
    assert after.keys() == {
        each.name for each in vars(metrics).values() if isinstance(each, Metric)
    }


def test_every_metric_is_documented_and_nothing_else() -> None:
    section = (ROOT / "docs" / "metrics.md").read_text()
    documented = set(re.findall(r"^\| `(pushsvc_\w+)`", section, re.MULTILINE))
    assert documented == {
        metric.name + ("_total" if metric.type == "counter" else "")
        for metric in REGISTRY.collect()
        if metric.name.startswith("pushsvc_")
    }
