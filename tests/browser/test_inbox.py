"""The inbox: what was read in one place is read in all."""

from typing import Any

import pytest

from tests.browser.engine import EVERY_ENGINE
from tests.browser.gateway import Gateway
from tests.browser.inboxes import InboxTab, marked
from tests.browser.pages import PageServer
from tests.browser.tabs import LOST, Tabs
from tests.support.nodes import Node

pytestmark = EVERY_ENGINE

TRANSPORTS = ("websocket", "sse", "poll")
QUICK = {"first": 100, "max": 500}


def test_what_is_read_in_one_browser_is_read_in_the_other_and_for_other_programs(
    tabs: Tabs, pages: PageServer, node: Node, record_property: Any
) -> None:
    first, second, third = (node.publish("u1", number) for number in range(3))
    here, there = (InboxTab(tabs.client(pages, node)) for _ in range(2))
    for inbox in (here, there):
        inbox.shows([third, second, first], 3)
    began = here.act(f"read(['{second}'])")
    for inbox in (here, there):
        inbox.shows([third, second, first], 2, read=[second])
    record_property("milliseconds until it is read elsewhere", there.since(began, [second]))
    assert marked(node, "u1", "read", ids=[]) == 2

    assert marked(node, "u1", "archive", ids=[first]) == 1
    for inbox in (here, there):
        inbox.shows([third, second], 1, read=[second])
    there.act(f"unread(['{second}'])")
    there.act(f"unarchive(['{first}'])")
    for inbox in (here, there):
        inbox.shows([third, second, first], 2, read=[first])
    here.act("readAll()")
    newest = node.publish("u1", "after")
    for inbox in (here, there):
        inbox.shows([newest, third, second, first], 1, read=[third, second, first])
    assert marked(node, "u1", "read", ids=[]) == 1


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_over_every_transport_a_page_shows_and_marks(
    tabs: Tabs, pages: PageServer, node: Node, transport: str
) -> None:
    first, second = (node.publish("u1", number) for number in range(2))
    tab = tabs.client(pages, node, transports=[transport])
    tab.connected(transport)
    inbox = InboxTab(tab)
    inbox.shows([second, first], 2)
    third = node.publish("u1", 2)
    inbox.shows([third, second, first], 3)
    marked(node, "u1", "read", until=second)
    inbox.shows([third, second, first], 1, read=[second, first])
    inbox.act(f"archive(['{third}'])")
    inbox.shows([second, first], 0, read=[second, first])
    assert marked(node, "u1", "unread", ids=[first]) == 1
    inbox.shows([second, first], 1, read=[second])
    assert "read" not in tab.kept("errors")


def test_tabs_that_share_a_connection_show_the_same(
    tabs: Tabs, pages: PageServer, node: Node, gateway: Gateway
) -> None:
    first, second = (node.publish("u1", number) for number in range(2))
    browser = tabs.context()
    both: list[InboxTab] = []
    for _ in range(2):
        tab = tabs.client(pages, gateway.url, context=browser)
        tab.connected()
        both.append(InboxTab(tab))
    elsewhere = InboxTab(tabs.client(pages, node))
    everywhere = [*both, elsewhere]
    for inbox in everywhere:
        inbox.shows([second, first], 2)
    assert gateway.sockets == 1
    leader, follower = both
    follower.act(f"read(['{first}'])")
    for inbox in everywhere:
        inbox.shows([second, first], 1, read=[first])
    leader.act(f"archive(['{first}'])")
    for inbox in everywhere:
        inbox.shows([second], 1)
    marked(node, "u1", "unread", ids=[first])
    for inbox in everywhere:
        inbox.shows([second, first], 2)
    leader.tab.close()
    follower.act(f"read(['{second}'])")
    for inbox in (follower, elsewhere):
        inbox.shows([second, first], 1, read=[second])
    third = node.publish("u1", 2)
    for inbox in (follower, elsewhere):
        inbox.shows([third, second, first], 2, read=[second])


def test_what_goes_without_a_word_is_not_counted(tabs: Tabs, pages: PageServer, node: Node) -> None:
    inbox = InboxTab(tabs.client(pages, node))
    inbox.shows([], 0)
    old = node.publish("u1", "old", collapse_key="k")
    other = node.publish("u1", "other")
    inbox.shows([other, old], 2)
    new = node.publish("u1", "new", collapse_key="k")
    inbox.shows([new, other], 2)
    node.publish("u1", "a signal", inbox=False)
    brief = node.publish("u1", "brief", ttl=2)
    inbox.shows([brief, new, other], 3)
    inbox.act("refresh()")  # which tells until when it is kept
    inbox.shows([new, other], 2)


def test_without_a_network_it_shows_what_it_had_and_catches_up_afterwards(
    tabs: Tabs, pages: PageServer, node: Node
) -> None:
    tabs.expected += [*LOST, "Failed to load resource"]
    first, second = (node.publish("u1", number) for number in range(2))
    context = tabs.context()
    tab = tabs.client(pages, node, context=context, timing=QUICK)
    inbox = InboxTab(tab)
    inbox.shows([second, first], 2)
    context.set_offline(True)
    inbox.shows([second, first], 2, state="offline")
    tab.page.evaluate(f"void inbox.read(['{first}'])")
    inbox.shows([second, first], 1, read=[first], state="offline")
    third = node.publish("u1", 2)
    marked(node, "u1", "archive", ids=[second])
    context.set_offline(False)
    inbox.shows([third, first], 1, read=[first])
    assert marked(node, "u1", "read", ids=[]) == 1


def test_many_that_ask_share_one_request_and_pages_come_one_by_one(
    tabs: Tabs, pages: PageServer, node: Node
) -> None:
    ids = [node.publish("u1", number) for number in range(5)][::-1]
    inbox = InboxTab(tabs.client(pages, node), pageSize=2)
    inbox.shows(ids[:2], 5)
    lists = "performance.getEntriesByType('resource').filter(e => /notifications/.test(e.name))"
    for _ in range(2):
        inbox.tab.page.evaluate("""async () => {
          const same = [1, 2, 3].map(() => push.inbox({ pageSize: 2 }));
          for (const each of same) each.subscribe(() => {});
          await Promise.all(same.map((each) => each.loadMore()));
        }""")
    inbox.shows(ids, 5)
    assert inbox.tab.page.evaluate(f"{lists}.length") == 3
    inbox.act("refresh()")
    inbox.shows(ids, 5)
    assert inbox.tab.page.evaluate(f"{lists}.length") == 4


def test_its_part_is_loaded_again_where_it_could_not_be(
    tabs: Tabs, pages: PageServer, node: Node, gateway: Gateway
) -> None:
    tabs.expected += [*LOST, "client-inbox"]
    gateway.loses = "client-inbox.js"
    first = node.publish("u1", 0)
    tab = tabs.client(pages, gateway.url)
    tab.connected()
    InboxTab(tab).shows([first], 1)
    assert tab.page.evaluate("shown.some(({ state }) => state === 'error')")
