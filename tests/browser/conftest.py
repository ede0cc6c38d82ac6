"""A real Chromium, and whatever it must never do."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from pushsvc.embedded import EmbeddedServer
from tests.browser import chromium
from tests.browser.pages import PageServer
from tests.browser.tabs import Tabs
from tests.support.dev import Dev, dev
from tests.support.nodes import Node


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say once, before anything runs, that there is no browser."""
    here = Path(__file__).parent
    needed = any(here in item.path.parents and "browser" in _fixtures(item) for item in items)
    if needed and chromium.find() is None:
        raise pytest.UsageError(chromium.MISSING)


def _fixtures(item: pytest.Item) -> list[str]:
    return item.fixturenames if isinstance(item, pytest.Function) else []


# Playwright's synchronous API keeps an event loop running in this thread, which the asynchronous
# tests of other modules would stumble over: so a browser lives as long as its module.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser; each test has its own contexts."""
    with chromium.launch() as running:
        yield running


@pytest.fixture
def tabs(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Tabs]:
    """Tabs that may write no error to their console and ask nobody but this machine."""
    for server in {"node", "pair", "gateway", "development"}.intersection(request.fixturenames):
        request.getfixturevalue(server)  # so that it ends after the tabs
    opened = Tabs(browser)
    yield opened
    opened.close()
    opened.check()


@pytest.fixture(scope="session")
def pages() -> Iterator[PageServer]:
    """An application of its own origin, whose pages use the client."""
    with PageServer() as server:
        yield server


@pytest.fixture
def node(valkey: EmbeddedServer, tmp_path: Path, prefix: str, pages: PageServer) -> Iterator[Node]:
    """A node whose clients may be the pages of that application."""
    with Node(valkey.url, tmp_path, prefix=prefix, allowed_origins=pages.url) as running:
        yield running


@pytest.fixture(scope="module")
def development(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """What a newcomer has after ``make run``."""
    with dev(tmp_path_factory.mktemp("dev")) as running:
        yield running
