"""The bar: a node dies fifty times under a page, and nothing is missing, repeated or misplaced."""

import pytest

from tests.browser.backend import Backend
from tests.browser.engine import EVERY_ENGINE
from tests.browser.pages import PageServer
from tests.browser.tabs import LOST, Tabs
from tests.support.nodes import Node, wait_until

pytestmark = EVERY_ENGINE

DEATHS = {"chromium": 50, "firefox": 12, "webkit": 12}
"""Fifty take minutes where two other browsers share the machine."""
QUICK = {"first": 50, "max": 250, "uptime": 1_000}


@pytest.mark.timeout(300)
def test_a_node_killed_and_restarted_again_and_again_costs_a_page_nothing(
    tabs: Tabs, pages: PageServer, node: Node, request: pytest.FixtureRequest
) -> None:
    deaths = DEATHS[request.node.callspec.params["browser"]]
    tabs.expected += [*LOST, "status of 503"]  # it has just started, or the store was not there
    tab = tabs.client(pages, node, topics=["news"], timing=QUICK)
    tab.connected()
    backend = Backend(node, {"user": "u1"}, {"topic": "news"})
    with backend.publishing():
        for death in range(deaths):
            seen = len(tab.notifications())
            tab.received(
                seen + 2 + death % 20, seconds=30
            )  # so that it dies at another moment each time
            node.kill()
            node.start()
    count = backend.accepted
    assert count > deaths
    assert backend.retries > 0
    wait_until(lambda: len(tab.notifications()) >= 2 * count, "everything to arrive")

    handled = tab.notifications()
    expected = list(range(count))
    assert [n["data"] for n in handled if not n.get("topic")] == expected
    assert [n["data"] for n in handled if n.get("topic")] == expected
    assert tab.kept("gaps") == []
    assert tab.kept("errors") == []
