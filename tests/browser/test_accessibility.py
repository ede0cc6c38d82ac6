"""The bar: axe-core has no serious finding on console and demo, and none on the bell.

All of them light and dark.
"""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.axe import ANY, findings
from tests.browser.bell import BELL_PAGE, given, items
from tests.browser.pages import OPERATOR, PageServer
from tests.browser.tabs import ChromiumTabs as Tabs
from tests.browser.traffic import Device
from tests.support.dev import Dev
from tests.support.nodes import Node, token

SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])
MOVING = """<!doctype html><html lang="en"><title>it moves</title>
<main><h1>Here</h1><div><template shadowrootmode="open"><style>
b { display: block; animation: come 3600s; }
@keyframes come { from { translate: 1rem; } }
</style><b>There</b></template></div></main>"""
DEMO_PAGES = ("", "/chat", "/document", "/game", "/ticker", "/scores", "/inbox")


@SCHEMES
def test_every_view_of_the_console_is_accessible(tabs: Tabs, node: Node, scheme: str) -> None:
    found = {}
    context = tabs.context(color_scheme=scheme)
    page = tabs.open(f"{node.admin_url}/console", context)
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    found["sign-in"] = findings(page)
    with Device(node, "u1", "phone") as phone, Device(node, "u1", "web", acks=False):
        notification = node.publish("u1", {"text": "hello"}, event="greeting")
        phone.wait_for({"text": "hello"})
        page.goto(f"{node.admin_url}/console#token={token('operator', *OPERATOR)}")
        page.reload()
        expect(page.locator("#main").get_by_text("The node is ready.")).to_be_visible()
        found["overview"] = findings(page)
        for view, sign in (
            ("user", "Show"),
            ("user/u1", "acked by phone"),
            (f"trace?id={notification}&user=u1", "Timeline"),
            ("send", "Time to live"),
            ("revocations", "Nothing is revoked."),
        ):
            page.evaluate("hash => { location.hash = hash }", f"#/{view}")
            expect(page.locator("#main").get_by_text(sign).first).to_be_visible()
            found[view] = findings(page)
        page.evaluate("location.hash = '#/user/u1'")
        page.get_by_role("button", name="Disconnect").click()
        expect(page.get_by_role("dialog")).to_be_visible()
        found["question"] = findings(page)
    assert not any(found.values()), found


def filled(page: Page) -> None:
    """Wait until all on a page of the demo is connected, and so shows what it has to show."""
    if page.url.endswith("/scores"):
        expect(page.locator("#ready")).to_have_text("24 screens are connected.")
        return
    expect(page.locator(".pair .state").first).to_have_attribute("data-status", "connected")
    expect(page.locator(".pair .state:not([data-status=connected])")).to_have_count(0)


@SCHEMES
def test_every_page_of_the_demo_is_accessible(tabs: Tabs, development: Dev, scheme: str) -> None:
    found = {}
    context = tabs.context(color_scheme=scheme)
    for path in DEMO_PAGES:
        page = tabs.open(f"{development.admin_url}/demo{path}", context)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        filled(page)
        found[path] = findings(page)
        page.close()
    assert not any(found.values()), found


@SCHEMES
@pytest.mark.parametrize("direction", ["ltr", "rtl"])
def test_every_state_of_the_bell_is_accessible(
    tabs: Tabs, node: Node, pages: PageServer, scheme: str, direction: str
) -> None:
    found = {}
    page = tabs.open(
        f"{pages.put('/bell', BELL_PAGE)}?client={node.url}", tabs.context(color_scheme=scheme)
    )
    page.wait_for_function("window.ready")
    page.evaluate("dir => { document.dir = dir }", direction)
    there = items("One", "Two", "Three", read=1)
    given(page, *there)
    found["closed"] = findings(page, ANY)
    page.get_by_role("button", name="Notifications, 2 unread").click()
    expect(page.get_by_role("dialog", name="Notifications")).to_be_visible()
    for state in ("loading", "ready", "offline", "error"):
        for shown in ([], there):
            given(page, *shown, state=state, more=bool(shown), unread=1000)
            found[f"{state}, {len(shown)}"] = findings(page, ANY)
    page.get_by_role("listitem").first.hover()
    found["hover"] = findings(page, ANY)
    page.emulate_media(forced_colors="active")
    found["forced colors"] = findings(page, ANY)
    assert not any(found.values()), found


def test_what_fades_in_is_looked_at_when_it_is_there(
    tabs: Tabs, node: Node, pages: PageServer
) -> None:
    page = tabs.open(f"{pages.put('/bell', BELL_PAGE)}?client={node.url}")
    page.wait_for_function("window.ready")
    slow = page.context.new_cdp_session(page)
    slow.send("Animation.enable")
    slow.send("Animation.setPlaybackRate", {"playbackRate": 0.001})
    given(page, state="loading")
    page.locator("pushsvc-inbox").click()
    expect(page.get_by_role("dialog", name="Notifications")).to_be_visible()
    assert findings(page, ANY) == []


def test_what_moves_for_those_who_asked_for_less_motion_is_found(
    tabs: Tabs, pages: PageServer
) -> None:
    page = tabs.open(pages.put("/moving", MOVING))
    (found,) = findings(page, ANY)
    assert found.endswith("<b>There</b> (come)")
