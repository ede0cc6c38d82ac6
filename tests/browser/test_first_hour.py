"""The mistakes of a first hour: what a page's console says of each, and what to change.

The pages here listen to nothing but notifications, as those of a newcomer do.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import BrowserContext, Error, Page, Request, Route

from pushsvc.auth.tokens import mint
from pushsvc.server.embedded import EmbeddedServer
from tests.browser.gateway import Gateway
from tests.browser.pages import CLIENT_PAGE, PageServer, user_token
from tests.browser.tabs import LOST, ClientTab
from tests.browser.tabs import ChromiumTabs as Tabs
from tests.support.certificates import Authority
from tests.support.nodes import SECRET, Node, wait_until
from tests.support.ports import free_port

ELSEWHERE = "https://app.example.com"
QUICK = {"first": 50, "max": 100}
WRITTEN = (
    *LOST,
    r"WebSocket connection to '\S+' failed",
    r"Failed to load resource: ",
    r"blocked by CORS policy",
    r"console (warning|error): pushsvc: ",
)
"""What Chromium writes of connections that fail, and the client."""


@pytest.fixture(scope="module")
def node(
    valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory, pages: PageServer
) -> Iterator[Node]:
    """A node whose clients may be the pages of the application."""
    directory = tmp_path_factory.mktemp("open")
    with Node(valkey.url, directory, prefix="hour", allowed_origins=pages.url) as running:
        yield running


@pytest.fixture(scope="module")
def strict(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node to which those pages may not connect."""
    directory = tmp_path_factory.mktemp("strict")
    with Node(valkey.url, directory, prefix="strict", allowed_origins=ELSEWHERE) as running:
        yield running


@pytest.fixture(scope="module")
def secure(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that speaks TLS."""
    directory = tmp_path_factory.mktemp("secure")
    authority = Authority(directory)
    certificate, key = authority.issue(directory)
    with Node(
        valkey.url, directory, prefix="secure", tls=authority.context(),
        tls_cert_file=certificate, tls_key_file=key,
    ) as running:  # fmt: skip
        yield running


def opened(
    tabs: Tabs, pages: PageServer, node: Node, context: BrowserContext | None = None
) -> Page:
    """A page of the application, with the client that a node serves, not connected."""
    tabs.expected += WRITTEN
    page = tabs.open(f"{pages.url}/?client={node.url}", context)
    page.wait_for_function("window.ready")
    return page


def said(page: Page, how: str = "warning", **options: Any) -> str:
    """What a client writes to the console once it is connected with these options."""
    given = {"token": user_token("u1"), "timing": QUICK, "share": False, **options}
    with page.expect_console_message(lambda it: it.text.startswith("pushsvc: ")) as message:
        page.evaluate(
            """options => {
              window.push = connect(options);
              push.on("notification", () => {});
            }""",
            given,
        )
    assert message.value.type == how, message.value.text
    return message.value.text


def code(page: Page) -> str:
    found: str = page.evaluate("push.state.error?.code")
    return found


# --- the address ---------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["push.example.com", "localhost:8080", "//push.example.com"])
def test_an_address_without_a_scheme_is_refused_with_what_to_write(
    tabs: Tabs, pages: PageServer, node: Node, url: str
) -> None:
    page = opened(tabs, pages, node)
    with pytest.raises(Error, match=r"connect needs a url such as https://") as refused:
        page.evaluate("url => { connect({ url, token: 't' }); }", url)
    assert f'not "{url}"' in str(refused.value)


def test_a_path_is_one_of_the_origin_of_the_page(tabs: Tabs, pages: PageServer, node: Node) -> None:
    page = opened(tabs, pages, node)
    assert f"{pages.url}/push/v1/stream answered with 404" in said(page, url="/push")


def test_a_port_where_nothing_listens_is_told(tabs: Tabs, pages: PageServer, node: Node) -> None:
    page = opened(tabs, pages, node)
    url = f"http://127.0.0.1:{free_port()}"
    assert said(page, url=url) == (
        f"pushsvc: no connection yet: nothing answers at {url}: is a node running there, "
        "and is this its port?"
    )
    assert code(page) == "lost"


def test_a_port_where_another_program_listens_is_told(
    tabs: Tabs, pages: PageServer, node: Node
) -> None:
    page = opened(tabs, pages, node)
    with PageServer() as other:
        assert f"what answers at {other.url} is no node" in said(page, url=other.url)
        # Between two looks at why, an attempt has its own error.
        wait_until(lambda: code(page) == "unusable", "the code")


def test_the_admin_port_says_that_it_is_not_for_clients(
    tabs: Tabs, pages: PageServer, node: Node
) -> None:
    page = opened(tabs, pages, node)
    assert "this is the admin port" in said(page, url=node.admin_url)
    assert "PUSHSVC_PORT" in page.evaluate("push.state.error.message")


def test_http_is_told_to_be_https_where_the_node_speaks_tls(
    tabs: Tabs, pages: PageServer, node: Node, secure: Node
) -> None:
    page = opened(tabs, pages, node, tabs.context(ignore_https_errors=True))
    url = f"http://127.0.0.1:{secure.port}"
    assert f"nothing answers at {url}, but {secure.url} does: use that" in said(page, url=url)


def test_https_is_told_to_be_http_where_the_node_speaks_no_tls(
    tabs: Tabs, pages: PageServer, node: Node
) -> None:
    page = opened(tabs, pages, node)
    url = f"https://127.0.0.1:{node.port}"
    # The node waits for the rest of what is no request; a page is more patient by default.
    text = said(page, url=url, transports=["sse"], timing={**QUICK, "open": 1_500})
    assert f"nothing answers at {url}, but {node.url} does: use that" in text


def test_a_page_with_https_is_told_that_browsers_keep_it_from_http(tabs: Tabs, node: Node) -> None:
    tabs.expected += [
        *WRITTEN, r"Mixed Content: ", r"leaves this machine: (https?|wss?)://(app|push)\.example/",
    ]  # fmt: skip
    context = tabs.context()

    def serve(route: Route) -> None:
        """As a server of the page and the client, with a certificate that is good."""
        path = urlsplit(route.request.url).path
        if path == "/":
            route.fulfill(content_type="text/html", body=CLIENT_PAGE)
        else:
            route.fulfill(response=context.request.get(node.url + path))

    context.route("https://app.example/**", serve)
    page = tabs.open("https://app.example/?client=https://app.example", context)
    page.wait_for_function("window.ready")
    text = said(page, url="http://push.example")
    assert "no https page connect to http://push.example: use https://push.example" in text


# --- the token -----------------------------------------------------------------------------------


def test_a_token_of_another_key_ends_the_client_with_an_error_in_the_console(
    tabs: Tabs, pages: PageServer, node: Node
) -> None:
    page = opened(tabs, pages, node)
    wrong = mint(secret=SECRET[::-1], user="u1", audience="pushsvc", ttl=600)
    assert "signature" in said(page, "error", url=node.url, token=wrong)
    assert page.evaluate("push.state.status") == "closed"


def test_a_token_that_expired_ends_the_client_with_an_error_in_the_console(
    tabs: Tabs, pages: PageServer, node: Node
) -> None:
    page = opened(tabs, pages, node)
    assert "expired" in said(page, "error", url=node.url, token=user_token("u1", ttl=-3600))
    assert page.evaluate("push.state.status") == "closed"


def test_a_token_that_is_missing_is_refused_at_once(
    tabs: Tabs, pages: PageServer, node: Node
) -> None:
    page = opened(tabs, pages, node)
    with pytest.raises(Error, match="connect needs a token"):
        page.evaluate("url => { connect({ url }); }", node.url)


# --- the origin ----------------------------------------------------------------------------------


def test_a_refused_origin_is_named_with_the_setting_in_the_console_and_in_the_log_of_the_node(
    tabs: Tabs, pages: PageServer, strict: Node
) -> None:
    page = opened(tabs, pages, strict)
    asked: list[tuple[str, str]] = []

    def note(request: Request) -> None:
        asked.append((request.method, urlsplit(request.url).path))

    page.on("request", note)
    text = said(page, url=strict.url)
    assert f"{strict.url} refuses pages of {pages.url}" in text
    assert "PUSHSVC_ALLOWED_ORIGINS" in text
    wait_until(lambda: code(page) == "origin_refused", "the code")

    # It goes on trying, and asks more and more rarely for the reason: at 1, 2, 4, 8 and so on.
    page.evaluate(
        """() => {
          window.tries = 0;
          push.on("state", ({ status }) => { window.tries += status === "connecting"; });
        }"""
    )
    page.wait_for_function("window.tries >= 16")
    wait_until(lambda: code(page) == "origin_refused", "the code")
    probes = asked.count(("HEAD", "/v1/poll"))
    at_most: int = (page.evaluate("tries") + 2).bit_length()
    assert 2 <= probes <= at_most
    assert asked.count(("HEAD", "/client.js")) <= 2 * at_most
    assert ("OPTIONS", "/v1/poll") not in asked, "no preflight"
    told = [line for line in strict.log_lines() if line.get("code") == "origin_refused"]
    detail = f"pages of {pages.url} may not connect: add this origin to PUSHSVC_ALLOWED_ORIGINS"
    assert {line["event"] for line in told} == {"handshake refused", "request refused"}
    assert {line["detail"] for line in told} == {detail}


def test_an_origin_that_is_refused_once_the_node_is_there_is_told_then(
    tabs: Tabs, pages: PageServer, node: Node, valkey: EmbeddedServer, tmp_path: Path
) -> None:
    page = opened(tabs, pages, node)
    url = f"http://127.0.0.1:{free_port()}"
    assert f"nothing answers at {url}: " in said(page, url=url)
    port = urlsplit(url).port
    with (
        page.expect_console_message(lambda it: "PUSHSVC_ALLOWED_ORIGINS" in it.text),
        Node(valkey.url, tmp_path, prefix="strict", port=port, allowed_origins=ELSEWHERE),
    ):
        page.wait_for_function("push.state.error?.code === 'origin_refused'")


def test_a_page_that_was_connected_does_not_ask_for_the_reason_when_its_node_is_restarted(
    tabs: Tabs, pages: PageServer, valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    tabs.expected += LOST
    asked: list[str] = []
    context = tabs.context()
    with Node(valkey.url, tmp_path, prefix=prefix, allowed_origins=pages.url) as mortal:
        timing = {"first": 86_400_000, "max": 86_400_000}  # it tries when it is looked at
        tab = tabs.client(pages, mortal, context=context, timing=timing, share=False)
        tab.connected()
        context.on("request", lambda request: asked.append(urlsplit(request.url).path))
        look = "document.dispatchEvent(new Event('visibilitychange', { bubbles: true }))"
        mortal.kill()
        tab.wait("state().status === 'waiting'")
        tab.page.evaluate(look)
        tab.wait("kept.states.some((s) => s.status === 'connecting' && s.error)")
        tab.wait("state().status === 'waiting'")
        mortal.start()
        tab.page.evaluate(look)
        tab.connected()
    assert set(asked) <= {"/token"}


def test_a_page_from_a_file_is_told_to_be_served(tabs: Tabs, strict: Node, tmp_path: Path) -> None:
    tabs.expected += [*WRITTEN, r"leaves this machine: file:"]
    file = tmp_path / "index.html"
    file.write_text(CLIENT_PAGE)
    page = tabs.open(f"{file.as_uri()}?client={strict.url}")
    page.wait_for_function("window.ready")
    text = said(page, url=strict.url)
    assert f"{strict.url} refuses pages without an origin, such as files: serve this one" in text


# --- history -------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["websocket", "sse", "poll"])
def test_a_page_reads_the_history_over_any_transport(
    tabs: Tabs, pages: PageServer, node: Node, transport: str
) -> None:
    user = f"history {transport}"
    sent = [node.publish(user, number) for number in range(45)]
    tab = tabs.client(pages, node, user, transports=[transport])
    tab.connected(transport)
    tab.received(45)
    assert paged(tab, 20) == sent[::-1]
    assert all_of(tab) == sent[::-1]


def test_each_tab_reads_the_history_and_gets_a_token_for_it_itself(
    tabs: Tabs, pages: PageServer, node: Node, gateway: Gateway
) -> None:
    user = "history of tabs"
    sent = [node.publish(user, number) for number in range(3)]
    browser = tabs.context()
    open_tabs = [tabs.client(pages, gateway.url, user, context=browser) for _ in range(2)]
    for tab in open_tabs:
        tab.connected()
        assert paged(tab, 2) == sent[::-1]
    assert gateway.sockets == 1
    tabs.expected += [r"status of 401"]
    for tab in open_tabs:
        tab.page.evaluate(
            """([url, old, fresh]) => {
              window.push = connect({ url, token: ({ refused }) => refused ? fresh : old });
            }""",
            [gateway.url, user_token(user, ttl=-3600), user_token(user)],
        )
        assert all_of(tab) == sent[::-1]
        assert tab.page.evaluate("push.state.status") != "closed"


def paged(tab: ClientTab, limit: int) -> list[str]:
    """The ids of the history, by pages."""
    found: list[str] = tab.page.evaluate(
        """async limit => {
          const ids = [];
          for (let before; before !== null;) {
            const page = await push.history({ before, limit });
            ids.push(...page.notifications.map(({ id }) => id));
            before = page.next;
          }
          return ids;
        }""",
        limit,
    )
    return found


def all_of(tab: ClientTab) -> list[str]:
    """The ids of the history, one by one."""
    found: list[str] = tab.page.evaluate(
        """async () => {
          const ids = [];
          for await (const { id } of push.history()) ids.push(id);
          return ids;
        }"""
    )
    return found


# --- numbers -------------------------------------------------------------------------------------


def test_a_whole_number_that_a_double_cannot_hold_is_rounded_and_a_string_is_not(
    tabs: Tabs, pages: PageServer, node: Node
) -> None:
    tab = tabs.client(pages, node, "numbers")
    tab.connected()
    node.publish("numbers", {"number": 2**53 + 1, "text": str(2**53 + 1)})
    assert tab.received(1)[0]["data"] == {"number": 2**53, "text": str(2**53 + 1)}
    assert tab.page.evaluate("BigInt(kept.notifications[0].data.text).toString()") == str(2**53 + 1)
