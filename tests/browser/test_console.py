"""The console, as an operator uses it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from pushsvc.server.embedded import EmbeddedServer
from tests.browser.pages import OPERATOR, user_token
from tests.browser.tabs import ChromiumTabs as Tabs
from tests.browser.traffic import Device
from tests.support.nodes import Node, nodes, token, wait_until
from tests.support.tenants import ACME, OTHER, tenancy

REFUSED = r"Failed to load resource: the server responded with a status of 40[13]"


@pytest.fixture
def pair(valkey: EmbeddedServer, tmp_path: Path) -> Iterator[list[Node]]:
    """Two nodes of one service."""
    with nodes(2, valkey.url, tmp_path) as running:
        yield running


def console(tabs: Tabs, node: Node, *scopes: str, view: str = "", **options: object) -> Page:
    """A tab with the console, signed in with a token in its address."""
    page = tabs.open(
        f"{node.admin_url}/console#token={token('operator', *(scopes or OPERATOR))}",
        tabs.context(**options),
    )
    expect(page.get_by_text("Signed in as operator")).to_be_visible()
    if view:
        page.evaluate("hash => { location.hash = hash }", view)
    return page


def test_a_pasted_token_signs_in_for_as_long_as_the_tab_lives(tabs: Tabs, node: Node) -> None:
    page = tabs.open(f"{node.admin_url}/console")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.get_by_label("Token").fill(token("operator", "push.admin"))
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("Signed in as operator")).to_be_visible()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()

    page.reload()
    expect(page.get_by_text("Signed in as operator")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    page.reload()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_who_has_a_namespace_sees_that_and_nothing_of_the_nodes(
    tabs: Tabs, valkey: EmbeddedServer, tmp_path: Path
) -> None:
    with tenancy(valkey.url, tmp_path) as (node, _):
        for tenant in (ACME, OTHER):
            body = {"to": {"user": "u1"}, "data": tenant.name}
            headers = {"Authorization": f"Bearer {tenant.backend()}"}
            assert node.post("/v1/notifications", body, headers=headers).status_code == 202
        page = tabs.open(f"{node.admin_url}/console#token={ACME.admin()}")
        expect(page.get_by_text("in the namespace acme")).to_be_visible()
        expect(page.get_by_role("heading", name="Users")).to_be_visible()
        expect(page.get_by_role("link", name="Overview")).to_be_hidden()
        page.evaluate("hash => { location.hash = hash }", "#/user/u1")
        expect(page.get_by_text(ACME.name).first).to_be_visible()
        expect(page.get_by_text(OTHER.name)).to_have_count(0)


def test_a_token_in_the_address_is_taken_out_of_it(tabs: Tabs, node: Node) -> None:
    page = console(tabs, node)
    assert "token" not in page.url
    assert "eyJ" not in page.evaluate("JSON.stringify({ ...localStorage })")
    page.go_back()
    assert "eyJ" not in page.url


@pytest.mark.parametrize(
    ("bad", "why"), [("not-a-token", "JWT"), (user_token("u1", ttl=86400), "push.admin")]
)
def test_a_token_that_does_not_do_is_refused_with_the_reason(
    tabs: Tabs, node: Node, bad: str, why: str
) -> None:
    tabs.expected.append(REFUSED)
    page = tabs.open(f"{node.admin_url}/console")
    page.get_by_label("Token").fill(bad)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator(".notice.bad")).to_contain_text(why)
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_the_overview_shows_every_node_and_its_live_numbers(tabs: Tabs, pair: list[Node]) -> None:
    with Device(pair[0], "u1"), Device(pair[1], "u2"):
        page = console(tabs, pair[0])
        expect(page.locator("#main").get_by_text("nodes are ready.")).to_be_visible()
        rows = page.get_by_role("table", name="Nodes").locator("tbody tr")
        expect(rows).to_have_count(2)
        for node in pair:
            row = rows.filter(has_text=f"pid {node.process.pid}")
            expect(row).to_contain_text("ready")
            expect(row.locator("td.number").nth(1)).to_have_text("1", timeout=10_000)
        for number in range(30):
            pair[0].publish("u2", number)
        published = page.locator(".tile", has_text="Published")
        expect(published).to_contain_text("30 since the nodes started", timeout=10_000)
        acked = page.locator(".tile", has_text="Acked")
        expect(acked).to_contain_text("30 since the nodes started", timeout=10_000)

        pair[1].kill()
        expect(page.locator(".headline")).to_contain_text("1 of 2 nodes is silent", timeout=10_000)
        expect(rows.filter(has_text="has said nothing for")).to_have_count(1)
        expect(rows).to_have_count(1, timeout=20_000)
        expect(page.locator(".headline")).to_contain_text("The node is ready.")


def test_a_users_page_shows_devices_mailbox_and_who_acknowledged(
    tabs: Tabs, pair: list[Node]
) -> None:
    with Device(pair[0], "u1", "phone") as phone, Device(pair[1], "u1", "web", acks=False):
        notification = pair[0].publish("u1", {"text": "hello"}, event="greeting")
        phone.wait_for({"text": "hello"})
        page = console(tabs, pair[0])
        page.get_by_label("Find a user by id").fill("u1")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="u1")).to_be_visible()
        expect(page.locator("#main").get_by_text("Online with 2 connections")).to_be_visible()
        devices = page.get_by_role("table", name="Devices").locator("tbody tr")
        expect(devices.filter(has_text="phone")).to_contain_text(notification)
        expect(devices.filter(has_text="web").locator("td.number")).to_have_text("1")
        card = page.locator(".card", has_text=notification)
        expect(card).to_contain_text("greeting")
        expect(card).to_contain_text("acked by phone")
        expect(card).not_to_contain_text("acked by web")

    expect(page.locator("#main").get_by_text("Offline", exact=True)).to_be_visible()


def test_a_trace_tells_the_way_from_accepted_to_acknowledged(tabs: Tabs, pair: list[Node]) -> None:
    with Device(pair[1], "u1", "phone") as phone:
        notification = pair[0].publish("u1", "traced")
        phone.wait_for("traced")
        page = console(tabs, pair[0], view="#/user/u1")
        page.get_by_role("link", name=f"Trace {notification}").click()
        steps = page.locator("ol.timeline > li")
        expect(steps.first).to_contain_text("accepted")
        expect(steps.filter(has_text="acked").first).to_contain_text("phone")
        expect(page.locator(".summary")).to_contain_text("acknowledged")
        expect(page.locator(".summary")).to_contain_text("Acknowledged by phone")
        told = steps.all_inner_texts()
        order = [next(i for i, t in enumerate(told) if what in t) for what in ("accepted", "acked")]
        assert order == sorted(order), told


def test_a_trace_of_what_waits_says_for_whom_and_follows_it(tabs: Tabs, pair: list[Node]) -> None:
    with Device(pair[0], "u1", "phone"):
        pass
    notification = pair[0].publish("u1", "patience")
    page = console(tabs, pair[0], view="#/trace")
    page.get_by_label("Id", exact=True).fill(notification)
    page.get_by_label("Look in").select_option(label="A user's mailbox")
    page.get_by_label("Name").fill("u1")
    page.get_by_role("button", name="Trace").click()
    expect(page.locator(".summary")).to_contain_text("offline")
    with Device(pair[1], "u1", "phone"):
        expect(page.locator(".summary")).to_contain_text("Acknowledged by phone")


def test_an_id_that_several_have_is_told_for_one_and_leads_to_the_others(
    tabs: Tabs, node: Node
) -> None:
    users = [f"user-{number}" for number in range(200)]
    batch = [{"to": {"user": user}, "data": user} for user in users]
    shared: dict[str, list[str]] = {}

    def one_twice() -> bool:
        """Each mailbox counts for itself: two of the same millisecond have the same id."""
        shared.clear()
        answer = node.post("/v1/notifications/batch", {"notifications": batch})
        for user, sent in zip(users, answer.json()["results"], strict=True):
            shared.setdefault(sent["id"], []).append(user)
        return any(len(several) > 1 for several in shared.values())

    wait_until(one_twice, "an id to be given twice")
    several = max(shared, key=lambda each: len(shared[each]))
    first, second, *_ = sorted(shared[several])
    page = console(tabs, node, view=f"#/trace?id={several}")
    expect(page.locator(".summary")).to_contain_text(f"To user {first}.")
    expect(page.locator(".summary")).to_contain_text("Something else has this id too")
    page.locator(".summary").get_by_role("link", name=f"user {second}", exact=True).click()
    expect(page.locator(".summary")).to_contain_text(f"To user {second}.")


@pytest.mark.parametrize(
    ("query", "field", "why"),
    [
        ("id=nonsense", "Id", "one looks like 1764000000123-0"),
        ("id=001-0", "Id", "an id looks like 1764000000000-0"),
        ("id=1764000000123-0&user=no%09name", "Name", "user id"),
    ],
)
def test_what_cannot_be_traced_is_said_at_the_field(
    tabs: Tabs, node: Node, query: str, field: str, why: str
) -> None:
    tabs.expected.append(r"Failed to load resource: the server responded with a status of 400")
    page = console(tabs, node, view=f"#/trace?{query}")
    wrong = page.get_by_label(field, exact=True)
    expect(wrong).to_have_attribute("aria-invalid", "true")
    expect(wrong).to_have_accessible_description(re.compile(why))
    expect(page.locator(".summary")).to_have_count(0)


def test_an_id_that_nobody_knows_is_said_to_be_that(tabs: Tabs, node: Node) -> None:
    page = console(tabs, node, view="#/trace?id=1764000000123-0")
    expect(page.locator(".summary")).to_contain_text("No node remembers this id")
    page.evaluate("location.hash = '#/trace?id=1764000000123-0&user=nobody'")
    expect(page.locator(".summary")).to_contain_text("Nothing was published there")
    page.evaluate("location.hash = '#/user/nobody'")
    expect(page.get_by_role("heading", name="nobody")).to_be_visible()
    expect(page.locator("#main").get_by_text("Nothing is known of this user")).to_be_visible()


def test_whatever_a_notification_holds_is_shown_as_text(tabs: Tabs, node: Node) -> None:
    user = "a:b@c=d"
    markup = '<img src=x onerror="document.title = 1"><script>document.title = 1</script>'
    sent = node.publish(user, {"html": markup, "long": "x" * 300}, event="a=b")
    page = console(tabs, node)
    page.get_by_label("Find a user by id").fill(user)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=user, exact=True)).to_be_visible()
    expect(page.locator(".card pre")).to_contain_text("<script>document.title = 1</script>")
    expect(page.locator(".card pre")).to_contain_text("x" * 300)
    page.get_by_role("link", name=f"Trace {sent}").click()
    expect(page.locator(".summary")).to_contain_text(f"To user {user}.")
    expect(page.locator("pre")).to_contain_text("onerror=")
    expect(page.locator("main :is(img, script)")).to_have_count(0)
    wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert not page.evaluate(wide)
    page.get_by_role("link", name="Open the user's page").click()
    expect(page.get_by_role("heading", name=user, exact=True)).to_be_visible()


def test_a_browser_that_keeps_nothing_for_pages_shows_the_console_all_the_same(
    tabs: Tabs, node: Node
) -> None:
    context = tabs.context()
    context.add_init_script(
        """for (const name of ["localStorage", "sessionStorage"]) {
          Object.defineProperty(window, name, {
            get() { throw new DOMException("denied", "SecurityError"); },
          });
        }"""
    )
    page = tabs.open(f"{node.admin_url}/console", context)
    page.get_by_label("Token").fill(token("operator", "push.admin"))
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("Signed in as operator")).to_be_visible()
    page.get_by_role("button", name="Theme").click()
    expect(page.get_by_role("button", name="Theme: light")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_text_cannot_become_markup_or_code_in_the_page(tabs: Tabs, node: Node) -> None:
    tabs.expected.append("TrustedHTML|Trusted Type")
    page = console(tabs, node)
    refused = page.evaluate(
        "() => { try { document.body.innerHTML = '<p>'; } catch (error) { return error.name; } }"
    )
    assert refused == "TypeError"


def test_a_test_notification_reaches_the_device_and_can_be_traced(
    tabs: Tabs, pair: list[Node]
) -> None:
    with Device(pair[1], "u1", "phone") as phone:
        page = console(tabs, pair[0], view="#/send")
        page.get_by_label("User id").last.fill("u1")
        page.get_by_label("Data").fill("{not json")
        page.get_by_role("button", name="Send").click()
        expect(page.locator("#main").get_by_text("This is not JSON")).to_be_visible()
        page.get_by_label("Data").fill('{"from": "the console"}')
        page.get_by_role("button", name="Send").click()
        expect(page.locator("#main").get_by_text("Accepted as")).to_be_visible()
        phone.wait_for({"from": "the console"})
        page.get_by_role("link", name="Trace it").click()
        expect(page.locator(".summary")).to_contain_text("Acknowledged by phone")


def test_disconnecting_a_user_asks_first_and_closes_the_phone(tabs: Tabs, pair: list[Node]) -> None:
    with Device(pair[1], "u1", "phone") as phone:
        page = console(tabs, pair[0], view="#/user/u1")
        page.get_by_role("button", name="Disconnect").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("button", name="Cancel").click()
        assert phone.close_code is None
        page.get_by_role("button", name="Disconnect").click()
        dialog.get_by_role("button", name="Disconnect").click()
        wait_until(lambda: phone.close_code == 4501, "the phone to be closed")
        expect(page.locator("#main").get_by_text("u1 is disconnected")).to_be_visible()
        page.get_by_role("link", name="Revocations").click()
        held = page.get_by_role("table", name=re.compile("Revocations"))
        expect(held.locator("tbody tr")).to_contain_text("u1")


@pytest.mark.parametrize(
    ("user", "shown"),
    [("..", ".."), ("a/b?c#d%2F", "a/b?c#d%2F"), ("x\u202ey\u05d0", r"x\u202ey\u05d0")],
)
def test_a_user_of_any_name_is_found_recalled_from_and_shown_apart(
    tabs: Tabs, node: Node, user: str, shown: str
) -> None:
    notification = node.publish(user, "a mistake")
    page = console(tabs, node)
    page.get_by_label("Find a user by id").fill(user)
    page.keyboard.press("Enter")
    expect(page.locator("h1 > bdi")).to_have_text(shown.replace(r"\u05d0", "\u05d0"))
    page.get_by_role("button", name=f"Recall {notification}").click()
    page.get_by_role("dialog").get_by_role("button", name="Recall").click()
    expect(page.locator("#main").get_by_text(f"{notification} is recalled")).to_be_visible()
    assert "\u202e" not in page.locator("body").inner_text()


def test_a_notification_is_recalled_after_a_question(tabs: Tabs, node: Node) -> None:
    notification = node.publish("u1", "a mistake")
    page = console(tabs, node, view="#/user/u1")
    page.get_by_role("button", name=f"Recall {notification}").click()
    page.get_by_role("dialog").get_by_role("button", name="Recall").click()
    expect(page.locator("#main").get_by_text(f"{notification} is recalled")).to_be_visible()
    expect(page.locator(".card")).to_have_count(0)


def test_one_token_is_revoked_by_its_id(tabs: Tabs, node: Node) -> None:
    page = console(tabs, node, view="#/revocations")
    expect(page.locator("#main").get_by_text("Nothing is revoked.")).to_be_visible()
    page.get_by_label("One token").check()
    page.get_by_label("Token id (jti)").fill("leaked-1")
    page.get_by_role("button", name="Revoke").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    held = page.get_by_role("table", name=re.compile("Revocations"))
    expect(held.locator("tbody tr")).to_contain_text("leaked-1")
    told = page.locator(".notice.ok > div")
    assert told.inner_text() == "Revoked: the token leaked-1."  # in one line


def test_an_observer_sees_everything_and_can_do_nothing(tabs: Tabs, node: Node) -> None:
    notification = node.publish("u1", "seen")
    page = console(tabs, node, "push.observe", view="#/user/u1")
    expect(page.locator(".card")).to_contain_text(notification)
    expect(page.get_by_role("button", name="Disconnect")).to_be_disabled()
    expect(page.get_by_role("button", name=f"Recall {notification}")).to_be_disabled()
    page.get_by_role("link", name="Send").click()
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    page.get_by_role("link", name="Revocations").click()
    expect(page.get_by_role("button", name="Revoke")).to_be_disabled()
    expect(page.locator("#main").get_by_text("Nothing is revoked.")).to_be_visible()


def test_without_push_publish_an_admin_is_told_why_nothing_can_be_sent(
    tabs: Tabs, node: Node
) -> None:
    page = console(tabs, node, "push.admin", view="#/send")
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    expect(page.get_by_text("push.publish")).to_be_visible()


def test_everything_on_a_page_is_there_as_json(tabs: Tabs, node: Node) -> None:
    node.publish("u1", "as JSON")
    page = console(tabs, node, view="#/user/u1")
    expect(page.locator(".card")).to_have_count(1)
    page.get_by_role("button", name="JSON").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("GET /console/api/user?user=u1")
    expect(dialog).to_contain_text('"as JSON"')
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)


def test_a_dead_node_is_told_in_the_page_and_forgotten_when_it_is_back(
    tabs: Tabs, node: Node
) -> None:
    tabs.expected.append(r"Failed to load resource: net::ERR_CONNECTION_REFUSED")
    page = console(tabs, node)
    expect(page.locator(".headline")).to_contain_text("The node is ready.")
    node.kill()
    expect(page.locator(".headline")).to_contain_text("Stale", timeout=15_000)
    node.start()
    expect(page.locator(".headline")).to_contain_text(re.compile("ready"), timeout=20_000)


def test_the_keyboard_is_enough_to_find_a_user_and_disconnect_it(tabs: Tabs, node: Node) -> None:
    with Device(node, "u1", "phone") as phone:
        page = tabs.open(f"{node.admin_url}/console")
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        keys = page.keyboard
        tab_to(page, "Token")
        keys.type(token("operator", *OPERATOR))
        keys.press("Enter")
        expect(page.get_by_role("heading", name="Overview")).to_be_focused()
        keys.press("/")
        keys.type("u1")
        keys.press("Enter")
        expect(page.get_by_role("heading", name="u1")).to_be_focused()
        expect(page.locator("#main").get_by_text("Online with 1 connection")).to_be_visible()
        tab_to(page, "Disconnect…")
        keys.press("Enter")
        expect(page.get_by_role("dialog").get_by_role("button", name="Cancel")).to_be_focused()
        tab_to(page, "Disconnect")
        keys.press("Enter")
        wait_until(lambda: phone.close_code == 4501, "the phone to be closed")


def tab_to(page: Page, name: str) -> None:
    """Press Tab until the focus is on what has this name; what is focused must be to be seen."""
    for _ in range(40):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            """() => {
              const { activeElement: it } = document;
              const style = getComputedStyle(it);
              return {
                name: it.labels?.[0]?.textContent ?? it.textContent.trim(),
                seen: it.matches(":focus-visible") && style.outlineStyle !== "none",
                page: it === document.body,
              };
            }"""
        )
        if focused["page"]:
            continue  # the browser's own controls
        assert focused["seen"], f"the focus on {focused['name']!r} is not to be seen"
        if focused["name"] == name:
            return
    pytest.fail(f"Tab does not lead to {name!r}")


def test_on_a_phone_nothing_of_a_device_is_cut_off(tabs: Tabs, node: Node) -> None:
    with Device(node, "u1", "phone") as phone:
        notification = node.publish("u1", "small")
        phone.wait_for("small")
        screen = {"width": 390, "height": 800}
        page = console(tabs, node, view="#/user/u1", viewport=screen, has_touch=True)
        row = page.get_by_role("table", name="Devices").locator("tbody tr")
        expect(row).to_contain_text(notification)
        for cell in (row.locator("td.number"), row.locator("td", has_text=notification)):
            box = cell.bounding_box()
            assert box is not None
            assert box["x"] + box["width"] <= 390
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        expect(page.locator("#search kbd")).to_be_hidden()  # there is no key to press


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_console_follows_the_system_and_the_choice(tabs: Tabs, node: Node, scheme: str) -> None:
    page = console(tabs, node, color_scheme=scheme)
    dark = "getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g)[0] < 100"
    assert page.evaluate(dark) == (scheme == "dark")
    other = "light" if scheme == "dark" else "dark"
    for _ in range(3):
        page.get_by_role("button", name="Theme").click()
        if page.get_by_role("button", name=f"Theme: {other}").count():
            break
    assert page.evaluate(dark) == (other == "dark")
    page.reload()
    expect(page.get_by_text("Signed in as operator")).to_be_visible()
    assert page.evaluate(dark) == (other == "dark")
