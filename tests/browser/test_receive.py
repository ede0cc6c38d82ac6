"""A page receives what is published, whatever happens to it and to the network in between."""

import time

from tests.browser.backend import acked
from tests.browser.engine import PROMISED_IN_CHROMIUM, Page, until
from tests.browser.pages import PageServer, user_token
from tests.browser.seen import shows, text
from tests.browser.tabs import LOST, Tabs
from tests.support.documents import program
from tests.support.nodes import Node, wait_until

pytestmark = PROMISED_IN_CHROMIUM

# No back-off, a random part of this, is as short as a test: who is back sooner was woken.
PATIENT = {"first": 86_400_000, "max": 86_400_000}


def test_a_newcomers_page_of_five_lines_shows_a_notification_and_acknowledges_it(
    tabs: Tabs, pages: PageServer, node: Node
) -> None:
    snippet = program("README.md", "browser")
    assert len(snippet.strip().splitlines()) <= 5
    own = snippet.replace("http://127.0.0.1:8080", node.url).replace("eyJ…", user_token("u1"))
    assert own != snippet
    page = tabs.open(pages.put("/newcomer", own))

    first = node.publish("u1", {"text": "hello"})
    shows(page, "body", "hello")
    wait_until(lambda: acked(node, "u1", first), "the acknowledgement")

    # What was shown is done with: it does not come again.
    page.reload()
    node.publish("u1", {"text": "and again"})
    shows(page, "body", "and again")
    assert text(page, "body").strip() == "and again"


def test_a_page_that_was_offline_catches_up_in_order_soon_after_it_is_online(
    tabs: Tabs, pages: PageServer, node: Node
) -> None:
    tabs.expected += LOST
    context = tabs.context()
    timing = {**PATIENT, "first": 2_000}  # what it waits at most for others to come first
    tab = tabs.client(pages, node, context=context, topics=["news"], timing=timing, share=False)
    tab.connected()
    publish(node, range(3))
    tab.received(6)

    node.kill()
    context.set_offline(True)
    tab.wait("state().status === 'waiting'")
    node.start()
    publish(node, range(3, 10))
    time.sleep(0.5)
    assert len(tab.notifications()) == 6

    context.set_offline(False)
    tab.received(20)
    mailbox, topic = split(tab.notifications())
    assert mailbox == topic == list(range(10))


def test_a_page_that_becomes_visible_does_not_wait_for_its_next_attempt(
    tabs: Tabs, pages: PageServer, node: Node
) -> None:
    tabs.expected += LOST
    tab = tabs.client(pages, node, timing=PATIENT, share=False)
    tab.connected()

    node.kill()
    tab.wait("state().status === 'waiting'")
    node.start()
    show(tab.page, visible=False)
    time.sleep(0.5)
    assert tab.state()["status"] == "waiting"
    show(tab.page, visible=True)
    tab.connected()
    node.publish("u1", 1)
    assert [n["data"] for n in tab.received(1)] == [1]


def test_a_page_that_comes_back_from_the_history_is_connected_again(
    tabs: Tabs, pages: PageServer, node: Node
) -> None:
    tab = tabs.client(pages, node)
    tab.connected()
    elsewhere = pages.put("/elsewhere", "<!doctype html><html lang=en><title>elsewhere</title>")
    tab.page.goto(elsewhere)
    wait_until(lambda: not node.metric("pushsvc_connections"), "the connection of the page to end")
    node.publish("u1", "while it was away")
    tab.page.go_back()
    # A browser may show the page as it was, or load it again: then it starts anew.
    until(tab.page, "window.ready")
    if tab.page.evaluate("!window.push"):
        tab.page.evaluate("options => start(options)", {"tokens": pages.tokens("u1")})
    tab.connected()
    tab.wait("kept.notifications.some(n => n.data === 'while it was away')")


def publish(node: Node, numbers: range) -> None:
    """Publish each number to the user and to the topic."""
    for number in numbers:
        node.publish("u1", number)
        answer = node.post("/v1/notifications", {"to": {"topic": "news"}, "data": number})
        assert answer.status_code == 202, answer.text


def split(notifications: list[dict[str, object]]) -> tuple[list[object], list[object]]:
    """The data of the mailbox's, and of the topic's."""
    return (
        [n["data"] for n in notifications if not n.get("topic")],
        [n["data"] for n in notifications if n.get("topic")],
    )


def show(page: Page, *, visible: bool) -> None:
    """Tell a page that its tab went to the background or came to the front.

    A browser without a screen has no background: the page is told what it would be told.
    """
    page.evaluate(
        """visible => {
          const state = visible ? "visible" : "hidden";
          Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
          Object.defineProperty(document, "hidden", { value: !visible, configurable: true });
          document.dispatchEvent(new Event("visibilitychange", { bubbles: true }));
        }""",
        visible,
    )
