"""A page is reached while it is closed: from the permission to the click on what is shown."""

from urllib.parse import urlsplit

from tests.browser.pages import PageServer
from tests.browser.pushes import PushedTo
from tests.browser.tabs import ChromiumTabs, ClientTab
from tests.support.nodes import Node

ENABLE = """async (options) => {
  try {
    return await push.push.enable(options);
  } catch ({ code, message }) {
    return `${code}: ${message}`;
  }
}"""
REGISTER = """navigator.serviceWorker.register("/push-sw.js")
  .then(() => navigator.serviceWorker.ready).then(() => true)"""


def enable(tab: ClientTab, **options: object) -> object:
    return tab.page.evaluate(ENABLE, options)


def test_the_worker_shows_what_comes_in_place_of_older_ones_and_a_click_leads_there(
    tabs: ChromiumTabs, pages: PageServer, node: Node
) -> None:
    untitled = urlsplit(pages.url).netloc
    browser = PushedTo(tabs, pages, node)
    page = tabs.open(
        pages.put("/orders/5", "<!doctype html><title>Order 5</title>"), browser.context
    )
    page.evaluate(REGISTER)
    browser.watch_badge()

    pushed = {"v": 1, "id": "1764000000123-0", "title": "Shipped", "body": "It comes today."}
    browser.deliver({**pushed, "url": "/orders/5", "tag": "o5", "group": "order", "badge": 2})
    (shown,) = browser.shows("Shipped")
    assert (shown["body"], shown["tag"]) == ("It comes today.", "o5")
    browser.deliver(
        {**pushed, "id": "1764000000124-0", "title": "Arrived", "tag": "o5", "badge": 1}
    )
    browser.shows("Arrived")
    browser.deliver({**pushed, "id": "1764000000125-0", "title": "Other", "url": "/orders/5"})
    browser.deliver(
        {**pushed, "id": "1764000000126-0", "title": "Bad", "url": "javascript:alert(1)"}
    )
    browser.deliver("what another sender pushes, which another part of the worker shows")
    browser.deliver({"v": 1, "id": "1764000000127-0"})
    browser.shows("Arrived", "Other", "Bad", untitled)
    assert browser.badges() == [2, 1]

    assert browser.click("Other") == [f"focus {pages.url}/orders/5"]
    assert browser.click("Bad") == [f"open {pages.url}/"]
    page.close()
    assert browser.click("Arrived")[0].startswith("focus "), "any window, as it names none"
    browser.shows(untitled)
