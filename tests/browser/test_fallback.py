"""Where a proxy breaks WebSockets, the page gets the same by other ways."""

from collections.abc import Iterator

import pytest

from tests.browser.gateway import Gateway
from tests.browser.pages import PageServer
from tests.browser.tabs import LOST, Tabs
from tests.browser.test_receive import acked
from tests.support.nodes import Node, wait_until

REFUSED = r"WebSocket connection to '\S+' failed"
QUICK = {"first": 100, "max": 500, "uptime": 1_000, "open": 1_500, "upgrade": 1_000}


@pytest.fixture
def gateway(node: Node) -> Iterator[Gateway]:
    """What stands between the page and the node."""
    with Gateway(node.port) as standing:
        yield standing


@pytest.mark.parametrize("upgrades", ["refuse", "strip", "hang"])
def test_a_proxy_that_refuses_upgrades_leaves_the_stream(
    tabs: Tabs, pages: PageServer, node: Node, gateway: Gateway, upgrades: str
) -> None:
    tabs.expected += [*LOST, REFUSED]
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
    tabs.expected += [*LOST, REFUSED]
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


@pytest.mark.parametrize("fallback", ["sse", "poll"])
def test_when_upgrades_work_again_the_page_moves_back_up(
    tabs: Tabs, pages: PageServer, node: Node, gateway: Gateway, fallback: str
) -> None:
    tabs.expected += [*LOST, REFUSED]
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
