"""The demo, as a newcomer clicks through it."""

import re
import subprocess

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.tabs import LOST, Tabs
from tests.support.dev import Dev


def demo(tabs: Tabs, development: Dev, page: str = "") -> Page:
    """A tab with a page of the demo; motion is asked for, so that the game moves."""
    opened = tabs.open(
        f"{development.admin_url}/demo{page}", tabs.context(reduced_motion="no-preference")
    )
    expect(opened.get_by_role("heading", level=1)).to_be_visible()
    return opened


def card(page: Page, name: str) -> Locator:
    """What a user of the page sees."""
    return page.locator("section.card").filter(
        has=page.get_by_role("heading", name=name, exact=True)
    )


def connected(page: Page, *names: str) -> None:
    for name in names:
        expect(card(page, name).locator(".state")).to_have_attribute("data-status", "connected")


@pytest.mark.timeout(180)
def test_every_step_of_the_demo_does_what_it_says_even_the_kill(
    tabs: Tabs, development: Dev
) -> None:
    tabs.expected += LOST
    page = demo(tabs, development)
    connected(page, "Anna", "Ben")
    anna = card(page, "Anna")

    page.get_by_role("button", name="Send", exact=True).click()
    expect(anna.get_by_role("list")).to_contain_text("Your order has shipped")
    done(page, "send")
    expect(page.locator("#sent")).to_contain_text("✓✓ acknowledged after")

    anna.get_by_role("switch").uncheck()
    page.get_by_role("button", name="Send 3").click()
    done(page, "offline")
    expect(page.locator("#count-waiting")).to_have_text("3")
    done(page, "presence")
    anna.get_by_role("switch").check()
    done(page, "return")
    expect(anna.get_by_role("listitem")).to_have_count(4)
    told = anna.get_by_role("listitem").all_inner_texts()
    assert [re.findall(r"\((\d) of 3\)", text) for text in told] == [[], ["1"], ["2"], ["3"]]

    for death in range(2):
        page.get_by_role("button", name="kill -9 the node").click(timeout=30_000)
        expect(page.locator("#story")).to_contain_text(
            "none are missing, none came twice", timeout=60_000
        )
        expect(page.locator("#count-received")).to_have_text(str(4 + 10 * (death + 1)))
    done(page, "kill")

    page.wait_for_function("document.querySelector('#curl').textContent.includes('curl')")
    subprocess.run(
        ["sh", "-c", page.locator("#curl").inner_text()], check=True, capture_output=True
    )
    done(page, "curl")
    for count in ("missing", "twice", "disorder"):
        expect(page.locator(f"#count-{count}")).to_have_text("0")


def done(page: Page, step: str) -> None:
    """Wait until the page ticks a step off."""
    expect(page.locator(f"#step-{step}")).to_have_class(re.compile("done"), timeout=15_000)


def test_the_demo_leads_to_the_console_signed_in(tabs: Tabs, development: Dev) -> None:
    page = demo(tabs, development)
    connected(page, "Anna", "Ben")
    link = page.get_by_role("link", name="Console")
    expect(link).to_have_attribute("href", re.compile("#token="))
    with page.context.expect_page() as opened:
        link.click()
    console = opened.value
    expect(console.get_by_text("Signed in as admin")).to_be_visible()
    expect(console.locator("#main").get_by_text("The node is ready.")).to_be_visible()
    connected(page, "Anna", "Ben")  # they stay in their tab


def test_the_public_port_leads_to_the_demo(tabs: Tabs, development: Dev) -> None:
    page = tabs.open(f"{development.url}/demo/chat")
    assert page.url == f"{development.admin_url}/demo/chat"


def test_two_users_chat_and_see_who_types_and_who_has_read(tabs: Tabs, development: Dev) -> None:
    page = demo(tabs, development, "/chat")
    connected(page, "Anna", "Ben")
    anna, ben = card(page, "Anna"), card(page, "Ben")
    expect(anna.locator(".here")).to_have_text("Here: Anna (you), Ben")
    anna.get_by_label("Anna says").press_sequentially("Hello Ben")
    expect(ben.locator(".doing")).to_contain_text("Anna is typing")
    anna.get_by_label("Anna says").press("Enter")
    for one in (anna, ben):
        expect(one.get_by_role("listitem").last).to_contain_text("Anna: Hello Ben")
    expect(anna.get_by_role("listitem").last).to_contain_text("read by Ben")
    ben.get_by_label("Ben says").fill("Hello Anna")
    ben.get_by_label("Ben says").press("Enter")
    expect(anna.get_by_role("listitem").last).to_contain_text("Ben: Hello Anna")


def in_python(page: Page, development: Dev, example: str) -> None:
    """The page names the line that runs the example in Python with this node."""
    where = f"PUSH_URL={development.url} PUSH_ADMIN_URL={development.admin_url}"
    expect(page.locator("#python")).to_have_text(f"{where} .venv/bin/python examples/{example}")


@pytest.mark.parametrize("example", ["chat.py --user carla", "game.py", "ticker.py", "scores.py"])
def test_the_line_that_runs_an_example_in_python_names_this_node(
    tabs: Tabs, development: Dev, example: str
) -> None:
    in_python(demo(tabs, development, f"/{example.partition('.')[0]}"), development, example)


def test_copies_of_a_document_end_up_the_same(tabs: Tabs, development: Dev) -> None:
    page = demo(tabs, development, "/document")
    in_python(page, development, "document.py")
    connected(page, "Anna", "Ben")
    anna, ben = card(page, "Anna"), card(page, "Ben")
    expect(ben.get_by_role("textbox")).to_have_count(3)
    page.get_by_role("button", name="Both change line 2 at once").click()
    for one in (anna, ben):
        expect(one.locator(".edits")).to_have_text("5 edits")
    ben.get_by_role("switch").uncheck()
    anna.get_by_label("Anna, line 3").fill("- rye bread")
    anna.get_by_label("Anna, line 3").press("Enter")
    expect(anna.locator(".edits")).to_have_text("6 edits")
    expect(ben.locator(".edits")).to_have_text("5 edits")
    ben.get_by_role("switch").check()
    expect(ben.get_by_label("Ben, line 3")).to_have_value("- rye bread")
    page.get_by_role("button", name="Carla joins").click()
    expect(card(page, "Carla").locator(".edits")).to_have_text("6 edits")
    expect(page.locator("#same")).to_have_text("All copies are the same.")


def test_players_see_each_other_move(tabs: Tabs, development: Dev) -> None:
    page = demo(tabs, development, "/game")
    connected(page, "Anna", "Ben")
    dot = card(page, "Ben").locator('[data-name="anna"]')
    expect(dot).to_be_attached()
    before = dot.get_attribute("transform")
    expect(dot).not_to_have_attribute("transform", before or "")
    rate = card(page, "Ben").locator(".rate")
    expect(rate).to_have_text(re.compile(r"(1\d|2\d) positions/s from Anna"), timeout=10_000)


def test_a_newcomer_to_the_ticker_has_the_latest_prices_first(tabs: Tabs, development: Dev) -> None:
    page = demo(tabs, development, "/ticker")
    connected(page, "Anna")
    page.get_by_role("button", name="Open the exchange").click()
    expect(card(page, "Anna").locator("tbody tr")).to_have_count(4)
    expect(page.locator("#count")).to_contain_text(re.compile(r"^([6-9]|\d\d) prices"))
    page.get_by_role("button", name="Ben joins").click()
    ben = card(page, "Ben")
    expect(ben.locator("tbody tr")).to_have_count(4)
    expect(ben.locator(".told")).to_have_text(re.compile(r"^4 kept, then [1-9]\d* new"))


def test_every_screen_hears_of_every_goal(tabs: Tabs, development: Dev) -> None:
    page = demo(tabs, development, "/scores")
    ready = page.locator("#ready")
    expect(ready).to_have_text(re.compile(r"^(\d+ of 24 connected|24 screens are connected\.)$"))
    page.get_by_role("button", name="Kick off").click(timeout=20_000)
    expect(ready).to_have_text("24 screens are connected.")
    rows = page.locator("#goals li")
    expect(rows).to_have_count(7, timeout=40_000)
    for text in rows.all_inner_texts():
        assert "24 screens: half after" in text, text
    final = page.locator("#score").inner_text()
    for screen in page.locator("#screens li").all_inner_texts():
        assert screen.startswith(final), screen
