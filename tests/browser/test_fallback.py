"""Where a proxy breaks WebSockets, the page gets the same by other ways."""

import re

import pytest

from tests.browser.backend import acked
from tests.browser.engine import EVERY_ENGINE
from tests.browser.gateway import Gateway
from tests.browser.pages import PageServer
from tests.browser.tabs import LOST, Tabs
from tests.support.nodes import Node, wait_until

pytestmark = EVERY_ENGINE

QUICK = {"first": 100, "max": 500, "uptime": 1_000, "open": 1_500, "upgrade": 1_000}


@pytest.mark.parametrize("upgrades", ["refuse", "strip", "hang"])
def test_a_proxy_that_refuses_upgrades_leaves_the_stream(
    tabs: Tabs, pages: PageServer, node: Node, gateway: Gateway, upgrades: str
) -> None:
    tabs.expected += LOST
    gateway.upgrades = upgrades  # type: ignore[assignment]  # one of the four, as above
    tab = tabs.client(
        pages, gateway.url, topics=["news"], device="web",
        timing={**QUICK, "upgrade": 60_000},
    )  # fmt: skip
    tab.connected("sse", seconds=20)
    last = ""
    for number in range(5):
        last = node.publish("u1", number)
        node.post("/v1/notifications", {"to": {"topic": "news"}, "data": f"news {number}"})
    tab.received(10)
    assert [d for d in tab.data() if isinstance(d, int)] == list(range(5))
    assert [d for d in tab.data() if isinstance(d, str)] == [f"news {n}" for n in range(5)]
    wait_until(lambda: acked(node, "u1", last) == ["web"], "the acknowledgement")
    assert gateway.refused > 0


def test_a_proxy_that_also_holds_streams_back_leaves_the_poll(
    tabs: Tabs, pages: PageServer, node: Node, gateway: Gateway
) -> None:
    tabs.expected += LOST
    gateway.upgrades, gateway.buffers = "refuse", True
    tab = tabs.client(
        pages, gateway.url, topics=["news"], device="web",
        timing={**QUICK, "upgrade": 60_000},
    )  # fmt: skip
    tab.connected("poll", seconds=20)
    last = ""
    for number in range(5):
        last = node.publish("u1", number)
        node.post("/v1/notifications", {"to": {"topic": "news"}, "data": f"news {number}"})
    tab.received(10)
    assert [d for d in tab.data() if isinstance(d, int)] == list(range(5))
    assert [d for d in tab.data() if isinstance(d, str)] == [f"news {n}" for n in range(5)]
    wait_until(lambda: acked(node, "u1", last) == ["web"], "the acknowledgement")


@pytest.mark.parametrize("part", ["client-fallback.js", "client-tabs.js"])
def test_a_part_that_cannot_be_loaded_once_is_loaded_at_the_next_turn(
    tabs: Tabs, pages: PageServer, node: Node, gateway: Gateway, part: str
) -> None:
    # A page that may not have a socket asks whether its origin may connect, which no poll does.
    tabs.expected += [*LOST, re.escape(part), "status of 405"]
    gateway.upgrades = "refuse" if part == "client-fallback.js" else "pass"
    gateway.loses = part
    context = tabs.context()
    timing = {**QUICK, "upgrade": 60_000}
    tab = tabs.client(pages, gateway.url, context=context, timing=timing)
    tab.connected("sse" if part == "client-fallback.js" else "websocket", seconds=20)
    node.publish("u1", "by whatever way")
    tab.received(1)
    # Without its part the first tab is alone; the ones after it share.
    for _ in range(2):
        tabs.client(pages, gateway.url, context=context, timing=timing).connected(seconds=20)
    assert gateway.asked_for_it > 1
    if part == "client-tabs.js":
        assert gateway.sockets == 2


@pytest.mark.parametrize("fallback", ["sse", "poll"])
def test_when_upgrades_work_again_the_page_moves_back_up(
    tabs: Tabs, pages: PageServer, node: Node, gateway: Gateway, fallback: str
) -> None:
    tabs.expected += LOST
    gateway.upgrades, gateway.buffers = "refuse", fallback == "poll"
    tab = tabs.client(pages, gateway.url, topics=["news"], timing=QUICK)
    tab.connected(fallback, seconds=20)
    count = 0

    def publish_some() -> None:
        nonlocal count
        node.publish("u1", count)
        node.post("/v1/notifications", {"to": {"topic": "news"}, "data": count})
        count += 1

    publish_some()
    tab.received(2)
    gateway.upgrades = "pass"
    while tab.state().get("transport") != "websocket":
        assert count < 500, "it stays below"
        publish_some()
    publish_some()
    tab.received(2 * count)
    handled = tab.notifications()
    assert [n["data"] for n in handled if not n.get("topic")] == list(range(count))
    assert [n["data"] for n in handled if n.get("topic")] == list(range(count))
    assert tab.kept("gaps") == []
