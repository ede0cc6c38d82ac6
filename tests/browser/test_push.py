"""A page is reached while it is closed: from the permission to the click on what is shown."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pushsvc.server.embedded import EmbeddedServer
from tests.browser.engine import PATIENCE
from tests.browser.pages import PageServer
from tests.browser.pushes import PushedTo
from tests.browser.seen import shows
from tests.browser.tabs import LOST, ChromiumTabs, ClientTab
from tests.support.documents import program
from tests.support.nodes import Node, publisher_token, token, wait_until
from tests.support.push_service import Message, PushService, Subscription

REGISTER = """navigator.serviceWorker.register("/push-sw.js")
  .then(() => navigator.serviceWorker.ready).then(() => true)"""
ENABLE = """async (options) => {
  try {
    const { enabled, expires } = await push.push.enable(options);
    return enabled && expires ? "yes" : "no";
  } catch ({ code, message }) {
    return `${code}: ${message}`;
  }
}"""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[PushService]:
    """The push service of the browser."""
    with PushService(tmp_path) as running:
        yield running


@pytest.fixture
def node(
    valkey: EmbeddedServer,
    tmp_path: Path,
    prefix: str,
    pages: PageServer,
    service: PushService,
    request: pytest.FixtureRequest,
) -> Iterator[Node]:
    """A node that pushes to browsers, with more settings where the test has some."""
    key = ec.generate_private_key(ec.SECP256R1())
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "vapid.pem").write_bytes(key.private_bytes(*form))
    settings = {
        "push_vapid_key_file": tmp_path / "vapid.pem",
        "push_vapid_subject": "mailto:ops@example.com",
        "push_allow_private": "true",
        "push_ca_file": service.ca_file,
        "allowed_origins": pages.url,
        **getattr(request, "param", {}),
    }
    with Node(valkey.url, tmp_path, prefix=prefix, **settings) as running:
        yield running


def enable(tab: ClientTab, **options: object) -> str:
    """What a click on a button would; ``yes``, or why not."""
    why: str = tab.page.evaluate(ENABLE, options)
    return why


def asked(node: Node, method: str, path: str, user: str, **more: Any) -> Any:
    """The answer of a node to a user."""
    headers = {"Authorization": f"Bearer {token(user)}"}
    answer = httpx.request(method, node.url + path, headers=headers, timeout=10, **more)
    answer.raise_for_status()
    return answer.json()


def registered(node: Node, user: str) -> list[str]:
    """The providers of the user's devices that are registered."""
    devices = asked(node, "GET", f"/v1/users/{user}/devices", user)["devices"]
    return [each["push"]["provider"] for each in devices if each["push"]]


def came(service: PushService, subscription: Subscription) -> Message:
    """Wait for the one push to a browser."""
    wait_until(lambda: service.received(subscription), "the push", PATIENCE)
    assert service.mistakes == []
    (message,) = service.received(subscription)
    return message


def test_a_closed_page_is_told_and_a_click_marks_it_as_read_and_leads_there(
    tabs: ChromiumTabs, pages: PageServer, node: Node, service: PushService
) -> None:
    subscription = service.subscribe()
    browser = PushedTo(tabs, pages, node, subscription.to_json())
    guide = program("docs/push.md", "push.html").replace("https://push.example.com", node.url)
    guide = guide.replace("/push-token", pages.tokens("demo"))
    page = tabs.open(pages.put("/shop", guide), browser.context)
    page.click("#on")
    shows(page, "#on", "You will be told")
    assert registered(node, "demo") == ["web"]
    page.close()

    publish = program("docs/push.md", "push.sh").replace('"after":10', '"after":0.5')
    environ = {"PUSH_URL": node.url, "PUBLISHER_TOKEN": publisher_token()}
    subprocess.run(
        ["bash", "-c", publish], check=True, capture_output=True, env=os.environ | environ
    )
    message = came(service, subscription)
    assert "demo" not in str(message.data), "who it is for is nobody's business"
    browser.watch_badge()
    browser.deliver(message.data)
    (shown,) = browser.shows("Order 5 has shipped")
    assert (shown["body"], shown["tag"]) == ("It comes today.", "order-5")

    assert browser.click("Order 5 has shipped") == [f"open {pages.url}/orders/5"]
    listed = asked(node, "GET", "/v1/users/demo/notifications", "demo")
    assert [each["read"] for each in listed["notifications"]] == [True]
    assert listed["unread"] == 0
    assert browser.badges() == [1, 0]
    browser.shows()


@pytest.mark.parametrize("node", [{"push_content": "ids"}], indirect=True)
def test_where_only_ids_travel_the_worker_gets_the_text_from_the_node(
    tabs: ChromiumTabs, pages: PageServer, node: Node, service: PushService
) -> None:
    subscription = service.subscribe()
    browser = PushedTo(tabs, pages, node, subscription.to_json())
    tab = tabs.client(pages, node, context=browser.context)
    tab.connected()
    assert enable(tab) == "yes"
    tab.close()

    text = {"after": 0.5, "title": "Your results", "body": "All is well.", "url": "/results"}
    node.publish("u1", {}, push=text)
    message = came(service, subscription)
    assert sorted(message.data) == ["capability", "id", "v"]
    browser.deliver(message.data)
    (shown,) = browser.shows("Your results")
    assert shown["body"] == "All is well."
    assert browser.click("Your results") == [f"open {pages.url}/results"]

    # What has gone meanwhile is not known any more, and something is shown all the same.
    browser.deliver({**message.data, "capability": message.data["capability"] + "x"})
    browser.shows("an application")


def test_what_is_read_elsewhere_leaves_the_screen_while_a_page_is_open(
    tabs: ChromiumTabs, pages: PageServer, node: Node, service: PushService
) -> None:
    browser = PushedTo(tabs, pages, node, service.subscribe().to_json())
    tab = tabs.client(pages, node, context=browser.context)
    tab.connected()
    assert enable(tab) == "yes"
    ids = [node.publish("u1", {"number": number}) for number in range(3)]
    for number, each in enumerate(ids):
        browser.deliver({"v": 1, "id": each, "title": f"number {number}"})
    browser.shows("number 0", "number 1", "number 2")
    asked(node, "POST", "/v1/users/u1/read", "u1", json={"ids": [ids[1]]})
    browser.shows("number 0", "number 2")

    # Another page of that browser does it as well, which nobody told to.
    tab.page.reload()
    other = tabs.client(pages, node, context=browser.context)
    other.connected()
    asked(node, "POST", "/v1/users/u1/archive", "u1", json={"until": ids[2]})
    browser.shows()


def test_the_next_user_of_a_browser_takes_it_over_and_a_sign_out_ends_it(
    tabs: ChromiumTabs, pages: PageServer, node: Node, service: PushService
) -> None:
    browser = PushedTo(tabs, pages, node, service.subscribe().to_json())
    for user in ("ann", "ben"):
        tab = tabs.client(pages, node, user, context=browser.context)
        tab.connected()
        assert enable(tab) == "yes"
    assert (registered(node, "ann"), registered(node, "ben")) == ([], ["web"])
    keys = httpx.get(f"{node.url}/v1/push").json()["web"]["key"]
    assert tab.page.evaluate("keys") == [keys]

    assert tab.page.evaluate("push.push.status()")["enabled"] is True
    tab.page.evaluate("push.push.disable()")
    assert tab.page.evaluate("push.push.status()")["enabled"] is False
    assert registered(node, "ben") == []


def test_a_page_is_told_why_it_cannot_be_reached(
    tabs: ChromiumTabs,
    pages: PageServer,
    node: Node,
    service: PushService,
    valkey: EmbeddedServer,
    tmp_path: Path,
    prefix: str,
) -> None:
    tabs.expected += [*LOST, "Failed to load .* 400 .*devices/push", "unsupported MIME type"]
    tab = tabs.client(pages, node)
    tab.connected()
    assert enable(tab).startswith("denied: "), "where nobody said yes"

    keyless = {**service.subscribe().to_json(), "keys": {"p256dh": "short", "auth": "short"}}
    browser = PushedTo(tabs, pages, node, keyless)
    tab = tabs.client(pages, node, context=browser.context)
    tab.connected()
    pages.put("/push-sw.js", "<!doctype html><title>a page for every path</title>")
    assert enable(tab).startswith("no_service_worker: there is no /push-sw.js")
    pages.put("/own.js", "addEventListener('push', () => {});", "text/javascript")
    why = enable(tab, serviceWorker="/own.js")
    assert why.startswith(f"no_service_worker: {pages.url}/own.js does not have push-sw.js in it")
    tab.page.evaluate("navigator.serviceWorker.getRegistration().then((it) => it.unregister())")
    own = f"importScripts('{node.url}/push-sw.js');"
    pages.put("/other.js", own, "text/javascript")
    assert enable(tab, serviceWorker="/other.js").startswith("refused: ")
    tab.close()

    with Node(valkey.url, tmp_path, prefix=f"{prefix}x", allowed_origins=pages.url) as plain:
        tab = tabs.client(pages, plain, context=browser.context)
        tab.connected()
        assert enable(tab, serviceWorker="/other.js").startswith("not_configured: ")
        assert tab.page.evaluate("push.push.status()")["enabled"] is False
        tab.close()


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
