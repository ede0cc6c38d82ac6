"""The tabs of a browser share one connection."""

from typing import Any

import pytest

from tests.browser.backend import Backend
from tests.browser.engine import EVERY_ENGINE
from tests.browser.gateway import Gateway
from tests.browser.pages import PageServer
from tests.browser.tabs import LOST, ClientTab, Tabs
from tests.support.nodes import Node, wait_until

pytestmark = EVERY_ENGINE


def sockets(node: Node, count: int) -> None:
    """Wait until the node holds exactly so many connections."""
    wait_until(lambda: node.metric("pushsvc_connections") == count, f"{count} connections")


def test_two_tabs_of_a_user_share_one_socket_and_both_get_everything_once(
    tabs: Tabs, pages: PageServer, node: Node, gateway: Gateway
) -> None:
    browser = tabs.context()
    first = tabs.client(pages, gateway.url, context=browser, topics=["news"])
    first.connected()
    second = tabs.client(pages, gateway.url, context=browser, topics=["news"])
    second.connected()
    for number in range(20):
        node.publish("u1", number)
        node.post("/v1/notifications", {"to": {"topic": "news"}, "data": f"news {number}"})
    expected = [item for number in range(20) for item in (number, f"news {number}")]
    for tab in (first, second):
        tab.received(40)
        assert sorted(map(str, tab.data())) == sorted(map(str, expected))
        assert [d for d in tab.data() if isinstance(d, int)] == list(range(20))
    assert gateway.sockets == 1
    sockets(node, 1)


def test_another_user_in_a_third_tab_has_a_connection_of_its_own(
    tabs: Tabs, pages: PageServer, node: Node
) -> None:
    browser = tabs.context()
    mine = tabs.client(pages, node, context=browser)
    theirs = tabs.client(pages, node, "u2", context=browser)
    mine.connected()
    theirs.connected()
    sockets(node, 2)
    node.publish("u1", "mine")
    node.publish("u2", "theirs")
    mine.received(1)
    theirs.received(1)
    assert mine.data() == ["mine"]
    assert theirs.data() == ["theirs"]


@pytest.mark.parametrize("goes", ["is closed", "leaves the page", "closes its client"])
def test_when_the_tab_with_the_socket_goes_another_takes_over(
    tabs: Tabs, pages: PageServer, node: Node, gateway: Gateway, goes: str
) -> None:
    browser = tabs.context()
    leader = tabs.client(pages, gateway.url, context=browser, topics=["news"])
    leader.connected()
    others = [tabs.client(pages, gateway.url, context=browser, topics=["news"]) for _ in range(2)]
    for tab in others:
        tab.connected()
    for number in range(5):
        node.publish("u1", number)
        node.post("/v1/notifications", {"to": {"topic": "news"}, "data": number})
    for tab in others:
        tab.received(10)

    if goes == "is closed":
        leader.close()
    elif goes == "leaves the page":
        leader.page.goto("about:blank")
    else:
        leader.page.evaluate("push.close()")
    for number in range(5, 15):  # while nobody may be connected
        node.publish("u1", number)
        node.post("/v1/notifications", {"to": {"topic": "news"}, "data": number})
    for tab in others:
        tab.received(30)
    sockets(node, 1)
    node.publish("u1", 15)
    for tab in others:
        tab.received(31)
        handled = tab.notifications()
        assert [n["data"] for n in handled if not n.get("topic")] == list(range(16))
        assert [n["data"] for n in handled if n.get("topic")] == list(range(15))
    assert gateway.sockets == 2


def test_tabs_that_come_and_go_miss_nothing_of_what_goes_on(
    tabs: Tabs, pages: PageServer, node: Node, gateway: Gateway
) -> None:
    browser = tabs.context()
    rounds = 6
    backend = Backend(node, {"user": "u1"}, {"topic": "news"})
    gone: list[list[dict[str, Any]]] = []
    leader = tabs.client(pages, gateway.url, context=browser, topics=["news"])
    leader.connected()
    with backend.publishing():
        for _ in range(rounds):
            follower = tabs.client(pages, gateway.url, context=browser, topics=["news"])
            follower.connected()
            follower.received(10)
            gone.append(leader.notifications())
            leader.close()
            leader = follower
            leader.received(len(leader.notifications()) + 10)
    count = backend.accepted
    leader.wait("['news', undefined].every(topic => kept.notifications.some(\n"
                "  n => n.topic === topic && n.data === it))", count - 1)  # fmt: skip
    for handled in (*gone, leader.notifications()):
        for topic in (None, "news"):
            numbers = [n["data"] for n in handled if n.get("topic") == topic]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert gateway.sockets == rounds + 1


def test_a_tab_without_the_socket_subscribes_publishes_and_asks_as_if_it_had_it(
    tabs: Tabs, pages: PageServer, node: Node
) -> None:
    browser = tabs.context()
    leader = tabs.client(pages, node, context=browser)
    leader.connected()
    follower = tabs.client(pages, node, context=browser)
    follower.connected()
    # What is asked for and fails must not hang, but say why.
    told = follower.page.evaluate("push.subscribe('chat.r1')")
    assert "last" in told
    published = follower.page.evaluate("push.publish('chat.r1', 'hi', { event: 'message' })")
    assert published["id"]
    follower.received(1)
    assert follower.data() == ["hi"]
    presence = follower.page.evaluate("push.presence('chat.r1')")
    assert presence["users"] == ["u1"]
    assert leader.data() == [], "the leader did not subscribe"

    follower.page.evaluate("push.unsubscribe('chat.r1')")
    refused = follower.page.evaluate("push.publish('not a name', 1).catch(e => e.code)")
    assert refused == "invalid_name"
    sockets(node, 1)


def test_a_tab_that_leaves_a_topic_leaves_it_to_the_others(
    tabs: Tabs, pages: PageServer, node: Node
) -> None:
    browser = tabs.context()
    stays, goes = (tabs.client(pages, node, context=browser, topics=["news"]) for _ in range(2))
    for tab in (stays, goes):
        tab.connected()
    _topic(node, 1)
    for tab in (stays, goes):
        tab.received(1)
    goes.page.evaluate("push.unsubscribe('news')")
    _topic(node, 2)
    stays.received(2)
    assert goes.data() == [1]


def test_what_no_tab_has_handled_is_not_acknowledged_for_it(
    tabs: Tabs, pages: PageServer, node: Node
) -> None:
    browser = tabs.context()
    first = tabs.client(pages, node, context=browser)
    first.connected()
    node.publish("u1", "seen by one")
    first.received(1)
    late: ClientTab = tabs.client(pages, node, context=browser)
    late.connected()
    node.publish("u1", "seen by both")
    for tab in (first, late):
        tab.wait("kept.notifications.some(n => n.data === 'seen by both')")
    assert late.data() == ["seen by both"]


@pytest.mark.parametrize("shared", [True, False], ids=["both listen", "only the heir listens"])
def test_a_tab_that_takes_over_misses_nothing_of_a_topic_it_saw_nothing_of(
    tabs: Tabs, pages: PageServer, node: Node, *, shared: bool
) -> None:
    tabs.expected += LOST
    _topic(node, "long ago")
    browser, timing = tabs.context(), {"first": 3_000, "max": 3_000}
    leader = tabs.client(
        pages, node, context=browser, topics=["news"] if shared else [], timing=timing
    )
    leader.connected()
    heir = tabs.client(pages, node, context=browser, topics=["news"], timing=timing)
    heir.connected()
    heir.page.evaluate("push.subscribe('news')")
    heir.page.evaluate("push.presence('news')")  # answered behind what was kept
    if shared:
        heir.wait("performance.getEntriesByType('resource').some(e => e.name.includes('/v1/poll'))")
    node.kill()
    leader.close()
    heir.wait("state().status === 'waiting'")
    node.start()
    _topic(node, "meanwhile")
    heir.received(1)
    assert heir.data() == ["meanwhile"]


def _topic(node: Node, data: object) -> None:
    answer = node.post("/v1/notifications", {"to": {"topic": "news"}, "data": data})
    assert answer.status_code == 202, answer.text
