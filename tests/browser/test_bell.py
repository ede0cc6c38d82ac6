"""``<pushsvc-inbox>``: the bell of a page, as its users see it, in each engine."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from pushsvc.server.embedded import EmbeddedServer
from tests.browser.backend import acked
from tests.browser.bell import (
    BELL_PAGE,
    attribute,
    focused,
    given,
    items,
    press,
    seen,
    shows,
)
from tests.browser.engine import EVERY_ENGINE, Page, until
from tests.browser.pages import PageServer, user_token
from tests.browser.tabs import REFUSED, Tabs
from tests.support.documents import program
from tests.support.nodes import Node, wait_until

pytestmark = EVERY_ENGINE

ROWS = "li [part=item-title]"


@pytest.fixture(scope="module")
def node(
    valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory, pages: PageServer
) -> Iterator[Node]:
    """A node whose clients may be the pages of the application."""
    directory = tmp_path_factory.mktemp("bell")
    with Node(valkey.url, directory, prefix="bell", allowed_origins=pages.url) as running:
        yield running


@pytest.fixture
def bell(tabs: Tabs, pages: PageServer, node: Node) -> Page:
    """A page with a bell whose inbox the test decides."""
    page = tabs.open(f"{pages.put('/bell', BELL_PAGE)}?client={node.url}")
    until(page, "window.ready")
    return page


def opened(page: Page, *there: dict[str, Any], **changes: Any) -> Page:
    """Have it hold something, and open its panel."""
    given(page, *there, **changes)
    page.click("[part~=button]")
    shows(page, "[part=title]", "Notifications")
    return page


def done(page: Page) -> list[list[str]]:
    """What the bell asked of its inbox."""
    asked: list[list[str]] = page.evaluate("inbox.done")
    return asked


# --- the bell ------------------------------------------------------------------------------------


def test_the_badge_says_how_many_are_unread_up_to_99(bell: Page) -> None:
    assert seen(bell, "[part=badge]") == []
    for unread, badge in ((1, "1"), (99, "99"), (100, "99+"), (12_000, "99+")):
        given(bell, unread=unread)
        shows(bell, "[part=badge]", badge)
        label = f"Notifications, {badge} unread"
        assert attribute(bell, "[part=button]", "aria-label") == label
    given(bell, unread=0)
    assert seen(bell, "[part=badge]") == []
    assert attribute(bell, "[part=button]", "aria-label") == "Notifications"


def test_a_screen_reader_is_told_each_new_count_and_not_the_first(bell: Page) -> None:
    told = "bell.shadowRoot.querySelector('[role=status]').textContent"
    given(bell, unread=3)
    assert bell.evaluate(told) == ""
    for number in range(4, 9):
        given(bell, unread=number)
    assert bell.evaluate(told) == "", "those that come at once are told as one"
    until(bell, f"{told} === '8 unread'")
    given(bell, unread=0)
    until(bell, f"{told} === '0 unread'")


def test_the_panel_opens_by_the_button_and_closes_by_it_or_a_click_elsewhere(bell: Page) -> None:
    expanded = ("[part=button]", "aria-expanded")
    assert attribute(bell, *expanded) == "false"
    opened(bell, *items("One"))
    assert attribute(bell, *expanded) == "true"
    bell.click("[part=header]")  # inside
    assert attribute(bell, *expanded) == "true"
    bell.click("[part~=button]")
    shows(bell, "[part=panel]")
    assert attribute(bell, *expanded) == "false"
    bell.click("[part~=button]")
    assert attribute(bell, *expanded) == "true"
    bell.click("header b")
    shows(bell, "[part=panel]")
    assert attribute(bell, *expanded) == "false"


# --- what there is -------------------------------------------------------------------------------


def test_each_state_has_its_words(bell: Page) -> None:
    opened(bell, state="loading")
    notice = "[part=notice-text]"
    shows(bell, notice, "Loading…")
    given(bell)
    shows(bell, notice, "No notifications")
    given(bell, state="offline")
    shows(bell, notice, "No connection. New notifications come once it is back.")
    given(bell, *items("One"), state="offline")
    shows(bell, notice, "No connection. New notifications come once it is back.")
    shows(bell, ROWS, "One")
    given(bell, *items("One"))
    shows(bell, notice)
    assert seen(bell, "[part=retry]") == []
    given(bell, state="error")
    shows(bell, notice, "The notifications could not be loaded.")
    bell.click("[part~=retry]")
    assert done(bell) == [["refresh"]]


def test_what_was_read_or_put_aside_is_told_to_the_inbox(bell: Page) -> None:
    opened(bell, *items("One", "Two", "Three", read=1))
    shows(bell, "[part=badge]", "2")
    shows(bell, "[part~=item-unread] [part=item-title]", "One", "Two")
    bell.click("li:nth-child(1) [part~=toggle]")
    shows(bell, "[part=badge]", "1")
    bell.click("li:nth-child(3) [part~=toggle]")
    shows(bell, "[part~=item-unread] [part=item-title]", "Two", "Three")
    bell.click("li:nth-child(2) [part~=archive]")
    shows(bell, ROWS, "One", "Three")
    bell.click("[part~=read-all]")
    shows(bell, "[part~=item-unread]")
    shows(bell, "[part=read-all]")
    assert done(bell) == [["read", "9-0"], ["unread", "7-0"], ["archive", "8-0"], ["readAll"]]


def test_a_mark_that_fails_is_told(tabs: Tabs, bell: Page) -> None:
    tabs.expected += [r"pushsvc-inbox: Error: refused"]
    opened(bell, *items("One"))
    bell.evaluate("inbox.refuses = true")
    bell.click("[part~=archive]")
    shows(bell, "[part=notice-text]", "That could not be saved. Try again.")
    bell.evaluate("inbox.refuses = false")
    bell.click("[part~=toggle]")
    shows(bell, "[part=notice-text]")


def test_older_ones_come_when_they_are_asked_for(bell: Page) -> None:
    bell.evaluate("later => { inbox.later = later }", items("Three", first=7))
    opened(bell, *items("One", "Two"), more=True)
    bell.click("[part~=more]")
    shows(bell, ROWS, "One", "Two", "Three")
    shows(bell, "[part=more]")


def test_a_new_one_enters_at_the_top_and_what_is_there_stays(bell: Page) -> None:
    there = items("Two", "One", first=8)
    opened(bell, *there)
    row = "bell.shadowRoot.querySelector('li:last-child')"
    bell.evaluate(f"void (window.last = {row})")
    given(bell, *items("Three"), *there)
    shows(bell, ROWS, "Three", "Two", "One")
    assert bell.evaluate(f"last === {row}")


def test_what_it_says_is_never_taken_for_html(bell: Page) -> None:
    evil = "<img src=x onerror=alert(1)><b>bold</b>"
    row = {**items("One")[0], "data": {"title": evil, "body": evil}}
    opened(bell, row)
    shows(bell, ROWS, evil)
    shows(bell, "[part=body]", evil)
    assert bell.evaluate("bell.shadowRoot.querySelectorAll('img, b').length") == 0


@pytest.mark.parametrize(
    ("data", "title", "body"),
    [
        ({"text": "Shipped"}, "Shipped", []),
        ("Just a text", "Just a text", []),
        (17, "17", []),
        ({"title": {"no": "text"}, "body": ["none"]}, "Notifications", []),
        (None, "order.shipped", []),
        ({"title": "", "body": "Only a body"}, "Notifications", ["Only a body"]),
    ],
)
def test_data_of_any_shape_has_a_title(
    bell: Page, data: object, title: str, body: list[str]
) -> None:
    opened(bell, {**items("One")[0], "event": "order.shipped", "data": data})
    shows(bell, ROWS, title)
    shows(bell, "[part=body]", *body)


def test_a_page_decides_what_is_shown_of_a_notification(bell: Page) -> None:
    opened(bell, {**items("One")[0], "data": {"order": 17}})
    bell.evaluate(
        "void (bell.render = ({ data }) => ({ title: `Order ${data.order}`, url: '/orders' }))"
    )
    shows(bell, ROWS, "Order 17")
    assert attribute(bell, "[part=open]", "href").endswith("/orders")


def test_a_notification_that_the_page_cannot_render_hides_no_other(tabs: Tabs, bell: Page) -> None:
    tabs.expected += ["pushsvc-inbox: render failed"]
    opened(bell, {**items("One")[0], "data": None, "event": "odd"}, *items("Two", first=8))
    bell.evaluate("void (bell.render = ({ data }) => ({ title: data.title.toUpperCase() }))")
    shows(bell, ROWS, "odd", "TWO")


# --- where a click leads -------------------------------------------------------------------------


def leading(bell: Page, url: object) -> Page:
    """Open a panel with one notification that leads there."""
    return opened(bell, {**items("One")[0], "data": {"title": "One", "url": url}})


def test_a_click_leads_where_the_notification_says_once_it_is_marked(
    bell: Page, pages: PageServer
) -> None:
    there = pages.put("/orders", "<!doctype html><html lang=en><title>orders</title>")
    leading(bell, "/orders?id=17")
    bell.click("[part~=open]")
    until(bell, "location.pathname === '/orders'")
    assert bell.url == f"{there}?id=17"


def test_a_page_that_leads_there_itself_prevents_it(bell: Page) -> None:
    here = bell.url
    leading(bell, "/orders")
    bell.evaluate("void (window.stays = true)")
    bell.click("[part~=open]")
    until(bell, "inbox.done.length")
    assert done(bell) == [["read", "9-0"]]
    (told,) = bell.evaluate("opened")
    assert (told["id"], told["url"].endswith("/orders")) == ("9-0", True)
    assert bell.url == here


@pytest.mark.parametrize(
    "url",
    [
        "javascript:document.body.remove()",
        " java\nscript:document.body.remove()",
        "JAVASCRIPT:document.body.remove()",
        "data:text/html,<script>alert(1)</script>",
        "vbscript:x",
        "file:///etc/passwd",
        "blob:http://127.0.0.1/1",
        "ftp://example.com/",
        "http://[",
        {"toString": "/orders"},
        17,
        "",
    ],
)
def test_what_is_no_address_of_the_web_leads_nowhere(bell: Page, url: object) -> None:
    here = bell.url
    leading(bell, url)
    assert bell.evaluate("!bell.shadowRoot.querySelector('a')")
    bell.click("[part~=open]")
    until(bell, "inbox.done.length")
    assert bell.evaluate("opened") == [{"id": "9-0", "url": None}]
    assert (bell.url, bell.evaluate("!!document.body")) == (here, True)


# --- keys ----------------------------------------------------------------------------------------


def test_all_of_it_works_by_keys(bell: Page) -> None:
    given(bell, *items("One", "Two", "Three"), more=True)
    bell.press("[part~=button]", "Enter")
    assert focused(bell) == "panel"
    for key, at in (
        ("ArrowDown", "open 1"),
        ("ArrowDown", "open 2"),
        ("ArrowUp", "open 1"),
        ("ArrowUp", "open 1"),
        ("End", "more"),
        ("ArrowDown", "more"),
        ("ArrowUp", "open 3"),
        ("Home", "open 1"),
    ):
        press(bell, key)
        assert focused(bell) == at, key
    press(bell, "Enter")
    until(bell, "inbox.done.length")
    assert done(bell) == [["read", "9-0"]]
    press(bell, "Escape")
    shows(bell, "[part=panel]")
    assert focused(bell) == "button"


def test_the_focus_stays_where_a_notification_was_put_aside(bell: Page) -> None:
    opened(bell, *items("One", "Two", "Three"))
    for left in (["One", "Three"], ["One"]):
        last = "li:nth-child(2) [part~=archive]"
        bell.press(last, "Enter")
        shows(bell, ROWS, *left)
        assert focused(bell) == f"action archive {min(2, len(left))}"
    bell.press("[part~=archive]", "Enter")
    shows(bell, ROWS)
    assert focused(bell) == "panel"


def test_the_first_of_the_older_ones_has_the_focus(bell: Page) -> None:
    bell.evaluate("later => { inbox.later = later }", items("Three", first=7))
    opened(bell, *items("One", "Two"), more=True)
    bell.press("[part~=more]", "Enter")
    shows(bell, ROWS, "One", "Two", "Three")
    until(bell, "bell.shadowRoot.activeElement?.part.value === 'open'")
    assert focused(bell) == "open 3"


# --- words and directions ------------------------------------------------------------------------


def test_times_and_numbers_are_of_the_language_of_the_page(bell: Page) -> None:
    opened(bell, *items("One"))
    shows(bell, "[part=time]", "1 minute ago")
    bell.evaluate("void (bell.lang = 'de')")
    shows(bell, "[part=time]", "vor 1 Minute")
    bell.evaluate("void (bell.lang = 'no language')")
    assert len(seen(bell, "[part=time]")) == 1


def test_its_words_can_be_those_of_the_page(bell: Page) -> None:
    unread = {"one": "{n} nowe", "few": "{n} nowe", "other": "{n} nowych"}
    words = {"title": "Powiadomienia", "unread": unread}
    bell.evaluate("words => bell.setAttribute('labels', words)", json.dumps(words))
    bell.evaluate("void (bell.lang = 'pl')")
    for number, label in ((3, "Powiadomienia, 3 nowe"), (5, "Powiadomienia, 5 nowych")):
        given(bell, unread=number)
        assert attribute(bell, "[part=button]", "aria-label") == label
    bell.click("[part~=button]")
    shows(bell, "[part=title]", "Powiadomienia")
    shows(bell, "[part=read-all]", "Mark all as read")


def test_how_long_ago_it_was_goes_on_while_one_looks(bell: Page) -> None:
    bell.evaluate(
        """void (setInterval = ((own) => (run, ms) => own(() => {
          const { now } = Date;
          Date.now = () => now() + 3_600_000;
          run();
          Date.now = now;
        }, 50))(setInterval))"""
    )
    opened(bell, *items("One"))
    shows(bell, "[part=time]", "1 hour ago")


def box(page: Page, selector: str) -> dict[str, float]:
    found: dict[str, float] = page.evaluate(
        "selector => bell.shadowRoot.querySelector(selector).getBoundingClientRect().toJSON()",
        selector,
    )
    return found


@pytest.mark.parametrize("direction", ["ltr", "rtl"])
def test_the_panel_is_at_its_button_in_either_direction_and_within_the_window(
    bell: Page, direction: str
) -> None:
    bell.evaluate("dir => { document.dir = dir }", direction)
    opened(bell, *items("One"))
    button, panel = box(bell, "[part=button]"), box(bell, "[part=panel]")
    edge = "right" if direction == "ltr" else "left"
    assert abs(button[edge] - panel[edge]) < 2
    assert panel["top"] >= button["bottom"]
    width = bell.evaluate("document.documentElement.clientWidth")
    assert panel["left"] >= 0
    assert panel["right"] <= width


# --- its life ------------------------------------------------------------------------------------


def test_a_bell_that_is_moved_goes_on_and_one_that_is_removed_listens_no_more(bell: Page) -> None:
    assert bell.evaluate("inbox.listeners") == 1
    bell.evaluate("document.querySelector('main').append(bell)")
    assert bell.evaluate("inbox.listeners") == 1
    opened(bell, *items("One"))
    bell.evaluate("bell.remove()")
    assert bell.evaluate("inbox.listeners") == 0
    bell.evaluate("document.querySelector('main').append(bell)")
    assert bell.evaluate("inbox.listeners") == 1
    shows(bell, "[part=panel]")
    bell.click("[part~=button]")
    shows(bell, ROWS, "One")
    # What others do with the inbox is no business of the bell.
    assert done(bell) == []


def test_a_bell_that_gets_another_user_shows_nothing_of_the_one_before(bell: Page) -> None:
    opened(bell, *items("Of Ann"))
    bell.evaluate(
        """notification => {
          const other = new inbox.constructor();
          bell.push = { inbox: () => other };
          other.set({ items: [notification], unread: 1, state: "ready" });
        }""",
        items("Of Ben")[0],  # with the same id
    )
    shows(bell, ROWS, "Of Ben")
    bell.click("[part~=button]")
    bell.evaluate("void (bell.push = { inbox: () => inbox })")
    bell.click("[part~=button]")
    shows(bell, ROWS, "Of Ann")


def test_the_bell_of_the_next_user_has_a_connection_of_its_own(
    tabs: Tabs, pages: PageServer, node: Node, user: str
) -> None:
    page = at(tabs, pages, node, user)
    until(page, "!!document.querySelector('pushsvc-inbox').push")
    page.evaluate(
        """() => {
          const bell = document.querySelector("pushsvc-inbox");
          window.before = bell.push;
          document.body.append(bell);  // moved
        }"""
    )
    until(page, "document.querySelector('pushsvc-inbox').push === before")
    page.evaluate(
        """() => {
          const bell = document.querySelector("pushsvc-inbox");
          const next = bell.cloneNode();
          bell.remove();
          document.body.append(next);
        }"""
    )
    until(page, "!!document.querySelector('pushsvc-inbox').push")
    assert page.evaluate("document.querySelector('pushsvc-inbox').push !== before")
    until(page, "before.state.status === 'closed'")


def test_what_was_set_before_the_module_came_counts_and_it_may_come_twice(
    tabs: Tabs, pages: PageServer, node: Node
) -> None:
    page = tabs.open(f"{pages.put('/bell', BELL_PAGE)}?client={node.url}&late")
    until(page, "window.ready")
    page.evaluate("void (bell.labels = { title: 'Inbox' })")
    given(page, *items("One"))
    page.evaluate("url => import(url)", f"{node.url}/inbox.js")
    page.evaluate("url => import(url)", f"{node.url}/inbox.js?again")
    shows(page, "[part=badge]", "1")
    page.click("[part~=button]")
    shows(page, "[part=title]", "Inbox")
    shows(page, ROWS, "One")


# --- with a node ---------------------------------------------------------------------------------


@pytest.fixture
def user() -> str:
    """A user that no other test uses: they share a node."""
    return f"u-{uuid.uuid4().hex[:10]}"


NEWCOMER = program("README.md", "bell")


def at(tabs: Tabs, pages: PageServer, node: Node, user: str) -> Page:
    """The page of a newcomer, for a user, in a profile of its own."""
    pages.put(f"/token-of-{user}", user_token(user))
    own = NEWCOMER.replace("http://127.0.0.1:8080", node.url).replace(
        "push-token", f"token-of-{user}"
    )
    assert own.count(node.url) == own.count(user) == 1
    return tabs.open(pages.put(f"/bell-of-{user}", f"<!doctype html><body>{own}"))


def test_a_bell_takes_a_newcomer_two_lines(
    tabs: Tabs, pages: PageServer, node: Node, user: str
) -> None:
    assert len(NEWCOMER.strip().splitlines()) <= 6
    page = at(tabs, pages, node, user)
    node.publish(user, {"title": "Order 17", "body": "It is on its way", "url": "/orders/17"})
    shows(page, "[part=badge]", "1")
    page.click("[part~=button]")
    shows(page, ROWS, "Order 17")
    shows(page, "[part=body]", "It is on its way")
    assert attribute(page, "[part=open]", "href") == f"{pages.url}/orders/17"
    # What the bell has is acknowledged, so that all the others come too.
    for number in range(70):
        last = node.publish(user, {"title": f"Order {number}"})
    shows(page, "[part=badge]", "71")
    wait_until(lambda: acked(node, user, last), "the acknowledgement")


def test_the_page_of_the_guide_shows_and_opens_orders(
    tabs: Tabs, pages: PageServer, node: Node, user: str
) -> None:
    own = program("docs/guides/bell.md", "bell.html").replace("https://push.example.com", node.url)
    pages.put("/push-token", user_token(user))
    page = tabs.open(pages.put("/guide", f"<!doctype html><body>{own}"))
    node.publish(user, {"order": 17, "note": "It comes tomorrow"})
    shows(page, "[part=badge]", "1")
    assert attribute(page, "[part=button]", "aria-label") == "Orders, 1 new order"
    page.click("[part~=button]")
    shows(page, ROWS, "Order 17")
    shows(page, "[part=body]", "It comes tomorrow")
    page.click("[part~=open]")
    until(page, "location.pathname === '/orders/17'")
    shows(page, "[part=badge]")


def test_what_is_read_on_one_device_is_read_on_the_other(
    tabs: Tabs, pages: PageServer, node: Node, user: str
) -> None:
    phone = at(tabs, pages, node, user)
    laptop = at(tabs, pages, node, user)
    for title in ("One", "Two", "Three", "Four"):
        node.publish(user, {"title": title})
    for page in (phone, laptop):
        shows(page, "[part=badge]", "4")
        page.click("[part~=button]")
        shows(page, ROWS, "Four", "Three", "Two", "One")
    phone.click("li:nth-child(2) [part~=toggle]")
    for page in (phone, laptop):
        shows(page, "[part=badge]", "3")
        shows(page, f"[part~=item-unread] {ROWS.split()[1]}", "Four", "Two", "One")
    laptop.click("li:nth-child(1) [part~=archive]")
    for page in (phone, laptop):
        shows(page, "[part=badge]", "2")
        shows(page, ROWS, "Three", "Two", "One")
    phone.click("li:nth-child(1) [part~=toggle]")
    for page in (phone, laptop):
        shows(page, "[part=badge]", "3")
    laptop.click("[part~=read-all]")
    for page in (phone, laptop):
        shows(page, "[part=badge]")
    # A page that comes later says the same.
    later = at(tabs, pages, node, user)
    later.click("[part~=button]")
    shows(later, ROWS, "Three", "Two", "One")
    shows(later, "[part~=item-unread]")


def test_a_mark_outlives_the_page_that_a_click_leaves(
    tabs: Tabs, pages: PageServer, node: Node, user: str
) -> None:
    pages.put("/orders/18", "<!doctype html><html lang=en><title>order 18</title>")
    page, other = at(tabs, pages, node, user), at(tabs, pages, node, user)
    node.publish(user, {"title": "Order 18", "url": "/orders/18"})
    shows(other, "[part=badge]", "1")
    page.click("[part~=button]")
    page.click("[part~=open]")
    until(page, "location.pathname === '/orders/18'")
    shows(other, "[part=badge]")


def test_a_bell_says_why_it_has_nothing_and_tries_again_when_it_is_told_to(
    tabs: Tabs, pages: PageServer, node: Node, user: str
) -> None:
    tabs.expected += [*REFUSED, "401", "console (error|warning): pushsvc: "]
    refused = user_token(user, ttl=-60)
    page = at(tabs, pages, node, user)
    pages.put(f"/token-of-{user}", refused)
    page.reload()
    page.click("[part~=button]")
    shows(page, "[part=notice-text]", "The notifications could not be loaded.")
    pages.put(f"/token-of-{user}", user_token(user))
    node.publish(user, {"title": "There it is"})
    page.click("[part~=retry]")
    shows(page, ROWS, "There it is")


def test_the_bells_of_a_page_share_a_connection_and_take_one_that_is_given(
    tabs: Tabs, pages: PageServer, node: Node, user: str
) -> None:
    page = at(tabs, pages, node, user)
    connections = "pushsvc_connections"
    wait_until(lambda: node.metric(connections) == 1, "the connection")
    page.evaluate(
        """() => {
          const bell = document.querySelector("pushsvc-inbox");
          window.more = [1, 2, 3].map(() => bell.cloneNode());
          document.body.append(...more);
        }"""
    )
    until(page, "more.every((bell) => bell.push)")
    assert page.evaluate("new Set(more.map((bell) => bell.push)).size") == 1
    page.evaluate("void more.forEach((bell) => bell.remove())")
    node.publish(user, {"title": "One"})
    shows(page, "[part=badge]", "1")
    assert node.metric(connections) == 1
    page.evaluate("document.querySelector('pushsvc-inbox').remove()")
    wait_until(lambda: node.metric(connections) == 0, "the connection to end")
    page.evaluate(
        """async ([url, token]) => {
          const { connect } = await import(`${url}/client.js`);
          const bell = document.createElement("pushsvc-inbox");
          bell.push = connect({ url, token });
          document.body.append(bell);
        }""",
        [node.url, user_token(user)],
    )
    shows(page, "[part=badge]", "1")
