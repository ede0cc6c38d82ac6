"""Real browsers, and whatever they must never do."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pushsvc.server.embedded import EmbeddedServer
from tests.browser import chromium, firefox, webkit
from tests.browser.engine import Engine
from tests.browser.gateway import Gateway
from tests.browser.pages import PageServer
from tests.browser.tabs import AnyTabs, ChromiumTabs
from tests.support.dev import Dev, dev
from tests.support.nodes import Node


# Playwright's synchronous API keeps an event loop running in this thread, which the asynchronous
# tests of other modules would stumble over: so a browser lives as long as its module.
@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator[Engine[Any]]:
    """One browser, a Chromium unless the module says so; each test has its own contexts."""
    match getattr(request, "param", "chromium"):
        case "firefox":
            with firefox.launch() as running:
                yield running
        case "webkit":
            with webkit.launch() as starting:
                yield starting
        case _:
            if chromium.find() is None:
                pytest.skip(chromium.MISSING)
            with chromium.launch() as driven:
                yield chromium.Chromium(driven)


@pytest.fixture
def tabs(browser: Engine[Any], request: pytest.FixtureRequest) -> Iterator[AnyTabs[Any]]:
    """Tabs that may write no error to their console and ask nobody but this machine."""
    for server in {"node", "pair", "gateway", "development"}.intersection(request.fixturenames):
        request.getfixturevalue(server)  # so that it ends after the tabs
    in_chromium = isinstance(browser, chromium.Chromium)
    opened = ChromiumTabs(browser) if in_chromium else AnyTabs(browser)
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


@pytest.fixture
def gateway(node: Node) -> Iterator[Gateway]:
    """What stands between the page and the node."""
    with Gateway(node.port) as standing:
        yield standing


@pytest.fixture(scope="module")
def development(
    browser: Engine[Any],  # noqa: ARG001 - each has one, where nothing has happened yet
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Dev]:
    """What a newcomer has after ``make run``."""
    with dev(tmp_path_factory.mktemp("dev")) as running:
        yield running
