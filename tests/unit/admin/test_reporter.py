"""What a node says of itself."""

from pushsvc import __version__, metrics
from pushsvc.admin import console_api, reporter
from pushsvc.admin.reporter import TOTALS, Reporter, histogram, total
from pushsvc.feeds import summaries
from pushsvc.feeds.summaries import Summary


class Told(summaries.Summaries):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.all: list[Summary] = []

    def tell(self, summary: Summary) -> None:
        self.all.append(summary)


class Health:
    """A node that can be put into trouble."""

    def __init__(self) -> None:
        self.node = "n1"
        self.troubles: list[str] = []
        self.told = Told()
        self.now = 100.0
        self.reporter = Reporter(
            self.told, lambda: self.node, lambda: list(self.troubles), lambda: 42,
            started=1764.0, redis_time=lambda: self.now - 50, clock=lambda: self.now,
        )  # fmt: skip

    def look(self, after: float) -> int:
        """Look once more, so many seconds later; how often something was said."""
        self.now += after
        before = len(self.told.all)
        self.reporter.check()
        return len(self.told.all) - before


def test_a_counter_is_summed_over_the_labels_that_count() -> None:
    counter = metrics.Counter("x", "x", ["kind", "where"])
    assert total(counter, ()) == 0
    counter.labels("a", "here").inc(2)
    counter.labels("a", "there").inc(3)
    counter.labels("b", "there").inc(5)
    assert total(counter, ()) == 10
    assert total(counter, ("a",)) == 5
    assert total(counter, ("a", "there")) == 3
    assert total(counter, ("c",)) == 0


def test_a_histogram_is_told_with_its_last_bucket_and_without_its_bound() -> None:
    observed = metrics.Histogram("y", "y", bounds=(0.5, 1, 2))
    assert histogram(observed) == summaries.Histogram((0.5, 1, 2), (0, 0, 0, 0))
    for value in (0.1, 0.5, 1.5, 9):
        observed.observe(value)
    assert histogram(observed) == summaries.Histogram((0.5, 1, 2), (2, 2, 3, 4))


def test_a_summary_says_what_the_metrics_say() -> None:
    health = Health()
    before = health.reporter.summary()
    metrics.delivered.inc(3)
    metrics.handshakes.labels("accepted").inc()
    metrics.handshakes.labels("invalid_token").inc()
    metrics.deliver_seconds.observe(0.003)
    after = health.reporter.summary()
    assert after.totals["delivered"] - before.totals["delivered"] == 3
    assert after.totals["handshakes"] - before.totals["handshakes"] == 1
    assert after.deliver.counts[-1] - before.deliver.counts[-1] == 1
    assert (after.node, after.connections, after.started) == ("n1", 42, 1_764_000)
    assert after.version == __version__
    assert after.time == 50_000  # by the clock of all nodes


def test_the_console_tells_every_total_that_a_node_counts() -> None:
    assert tuple(TOTALS) == console_api.TOTALS


def test_what_a_node_says_is_bounded() -> None:
    health = Health()
    health.troubles = ["x" * 1000] * 1000
    said = health.reporter.summary()
    assert len(said.troubles) == reporter.MOST_TROUBLES
    assert {len(trouble) for trouble in said.troubles} == {reporter.MOST_TEXT}


def test_a_change_of_health_is_told_at_once_and_the_rest_every_two_seconds() -> None:
    health = Health()
    assert [health.look(0.5) for _ in range(9)] == [1, 0, 0, 0, 1, 0, 0, 0, 1]
    health.troubles.append("draining")
    assert [health.look(0.25), health.look(0.25)] == [1, 0]
    assert health.told.all[-1].troubles == ("draining",)
    health.node = "n2"
    assert health.look(0.25) == 1
    assert health.told.all[-1].node == "n2"
