"""What a run of the tests holds itself to: which tests, no skips, and that nothing is left."""

from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Final

import pytest

from tests.support.leftovers import Run

_UNIT: Final = Path(__file__).parent / "unit"
_RUN: Final = pytest.StashKey[Run]()
_LEFT: Final = pytest.StashKey[list[str]]()
_ERRORS: Final = pytest.StashKey["InternalErrors"]()
_WHOLE: Final = "pushsvc/whole"
"""In pytest's cache: whether the last run came to its end, so that what failed is all there is."""

MAY_SKIP: Final = {
    "builds the image as root, on Linux": "other systems have no namespaces to run it in",
    "its registry is out of reach": "Go's modules and Maven's are for one example each",
}
"""Reasons for which ``make test-all`` lets a test be skipped, and why no program would help."""


class InternalErrors:
    """Notes that there was one: a run of several processes goes on without the one that broke."""

    seen = False

    def pytest_internalerror(self) -> None:
        self.seen = True


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("pushsvc")
    group.addoption(
        "--promise",
        action="store_true",
        help="only what needs nothing but the pinned packages and is done in minutes: tests/unit,"
        " and what is marked as promise; files that are named run whole",
    )
    group.addoption("--no-skips", action="store_true", help="a test that is skipped fails")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "promise: part of `make test`, beside tests/unit")
    if config.args_source is pytest.Config.ArgsSource.ARGS:
        config.option.promise = False
    if config.getoption("lf", default=False) and not _told_whole(config):
        raise pytest.UsageError("the last run did not come to its end: run all of it again")


def _tell_whole(config: pytest.Config, whole: bool) -> None:  # noqa: FBT001 - what is told
    if cache := getattr(config, "cache", None):
        cache.set(_WHOLE, whole)


def _told_whole(config: pytest.Config) -> bool:
    return bool((cache := getattr(config, "cache", None)) and cache.get(_WHOLE, default=False))


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist starts its processes
def pytest_sessionstart(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):  # which such a process has
        session.config.stash[_RUN] = Run()
        session.config.stash[_ERRORS] = errors = InternalErrors()
        session.config.pluginmanager.register(errors)
        _tell_whole(session.config, whole=False)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("promise"):
        return
    kept: list[pytest.Item] = []
    left: list[pytest.Item] = []
    for each in items:
        promised = _UNIT in each.path.parents or each.get_closest_marker("promise")
        (kept if promised else left).append(each)
    config.hook.pytest_deselected(items=left)
    items[:] = kept


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _forbid_skip(item.config, report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _forbid_skip(collector.config, report)
    return report


def _forbid_skip(config: pytest.Config, report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = _reason(report)
    if config.getoption("no_skips") and reason is not None and reason not in MAY_SKIP:
        report.outcome = "failed"
        report.longrepr = f"skipped, which fails here: {reason}"


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str | None:
    """Why it was skipped, if it was."""
    if report.skipped and isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return None


@pytest.hookimpl(trylast=True)  # the processes of pytest-xdist have ended
def pytest_sessionfinish(session: pytest.Session) -> None:
    run = session.config.stash.get(_RUN, None)
    if run is None:
        return
    if session.config.stash[_ERRORS].seen:  # else it would pass without the tests of that process
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
    ends = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    _tell_whole(session.config, whole=session.exitstatus in ends)
    session.config.stash[_LEFT] = left = run.end()
    if left and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    skipped = Counter(_reason(report) for report in terminalreporter.stats.get("skipped", []))
    for reason, count in skipped.items():
        terminalreporter.write_line(f"{count} skipped: {reason}")
    for line in config.stash.get(_LEFT, []):
        terminalreporter.write_line(f"FAILED: the tests left behind: {line}", red=True)
