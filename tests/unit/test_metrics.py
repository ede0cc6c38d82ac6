"""What workers counted outlives them; the files that they kept it in do not."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector

from pushsvc import metrics
from tests.support.documents import ROOT


def keep(directory: Path, kind: str, pid: int, name: str, value: float, **labels: str) -> None:
    """Count what a process counts."""
    series = "requests" if kind == "counter" else "seconds"
    file = MmapedDict(str(directory / f"{kind}_{pid}.db"))  # type: ignore[no-untyped-call]
    key = mmap_key(series, name, list(labels), list(labels.values()), "help")
    held, _ = file.read_value(key)  # type: ignore[no-untyped-call]
    file.write_value(key, held + value, 0.0)  # type: ignore[no-untyped-call]
    file.close()  # type: ignore[no-untyped-call]


def told(directory: Path) -> list[str]:
    """What ``/metrics`` says."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(directory))  # type: ignore[no-untyped-call]
    return sorted(generate_latest(registry).decode().splitlines())


pids = st.integers(1, 6)
amounts = st.integers(0, 1000)  # as floats they sum up exactly, in whatever order
counts = st.tuples(st.just("counter"), pids, st.sampled_from(["a", "b", "ü"]), amounts)
times = st.tuples(st.just("histogram"), pids, st.sampled_from(["0.1", "1.0", "+Inf"]), amounts)


@given(st.lists(counts | times, max_size=40), st.lists(pids, unique=True))
def test_what_is_told_of_counters_and_histograms_stays_as_processes_end(
    tmp_path_factory: pytest.TempPathFactory,
    events: list[tuple[str, int, str, int]],
    ended: list[int],
) -> None:
    directory = tmp_path_factory.mktemp("metrics")
    for kind, pid, which, amount in events:
        if kind == "counter":
            keep(directory, kind, pid, "requests_total", amount, code=which)
        else:
            keep(directory, kind, pid, "seconds_bucket", 1, route="r", le=which)
            keep(directory, kind, pid, "seconds_sum", amount, route="r")
    before = told(directory)
    for pid in ended:
        metrics.fold(pid, directory)
        assert told(directory) == before
    left = {each.name for each in directory.iterdir()}
    assert not {name for name in left for pid in ended if name.endswith(f"_{pid}.db")}
    for pid in ended:  # once more adds nothing
        metrics.fold(pid, directory)
    assert told(directory) == before


def test_a_worker_killed_before_it_wrote_anything_is_no_trouble(tmp_path: Path) -> None:
    keep(tmp_path, "counter", 1, "requests_total", 3, code="a")
    metrics.fold(1, tmp_path)
    before = told(tmp_path)
    (tmp_path / "counter_2.db").touch()  # between the file's making and its first page
    keep(tmp_path, "gauge_livesum", 2, "seconds", 3)
    metrics.fold(2, tmp_path)
    assert told(tmp_path) == before
    assert [each.name for each in tmp_path.iterdir()] == ["counter_ended.db"]


def test_every_metric_is_of_a_kind_that_can_be_folded() -> None:
    for metric in vars(metrics).values():
        if isinstance(metric, Gauge):
            assert metric._multiprocess_mode.startswith("live")
        elif isinstance(metric, MetricWrapperBase):
            assert isinstance(metric, Counter | Histogram)


def test_every_metric_is_documented_and_nothing_else() -> None:
    section = (ROOT / "docs" / "metrics.md").read_text()
    documented = set(re.findall(r"^\| `(pushsvc_\w+)`", section, re.MULTILINE))
    assert documented == {
        metric.name + ("_total" if metric.type == "counter" else "")
        for metric in REGISTRY.collect()
        if metric.name.startswith("pushsvc_")
    }
