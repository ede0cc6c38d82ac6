"""A page's tokens expire, are renewed, refused and revoked."""

import time

from pushsvc.auth.tokens import mint
from tests.browser.engine import EVERY_ENGINE
from tests.browser.pages import PageServer, user_token
from tests.browser.tabs import LOST, REFUSED, Tabs
from tests.support.nodes import SECRET, Node, token, wait_until

pytestmark = EVERY_ENGINE

QUICK = {"first": 100, "max": 500, "uptime": 1_000}
DENIED = (*REFUSED, r"status of 401")


def test_a_token_that_is_about_to_expire_is_renewed_on_the_live_socket(
    tabs: Tabs, pages: PageServer, node: Node
) -> None:
    # The node warns a minute before: with tokens of 61 s, a second after the connection.
    tab = tabs.client(pages, node, tokens=pages.tokens("u1", ttl=61.5), timing=QUICK)
    tab.connected()
    tab.wait("kept.asked.length >= 3", seconds=20)
    assert node.metric("pushsvc_handshakes_total", outcome="accepted") == 1
    assert not any(why.get("refused") for why in tab.kept("asked"))
    node.publish("u1", "still here")
    tab.received(1)


def test_a_token_that_expired_ends_the_socket_and_a_new_one_opens_the_next(
    tabs: Tabs, pages: PageServer, node: Node
) -> None:
    tabs.expected += [r"Failed to load resource: the server responded with a status of 500"]
    tabs.expected += [*LOST, *DENIED]  # on a slow machine a token has run out when it is used
    tab = tabs.client(pages, node, tokens=pages.tokens("u1", ttl=3), timing=QUICK)
    try:
        tab.connected()
        pages.no_tokens = True  # the renewal fails, and the token runs out
        tab.wait("kept.states.some(s => s.status !== 'connected' && s.error)", seconds=30)
        node.publish("u1", "meanwhile")
    finally:
        pages.no_tokens = False
    tab.connected()
    tab.received(1)
    assert tab.data() == ["meanwhile"]


def test_a_provider_that_fails_is_told_in_the_state_and_asked_again_with_backoff(
    tabs: Tabs, pages: PageServer, node: Node
) -> None:
    tabs.expected += [r"Failed to load resource: the server responded with a status of 500"]
    pages.no_tokens = True
    try:
        tab = tabs.client(pages, node, timing=QUICK)
        tab.wait("kept.states.some(s => s.status === 'waiting' && /no token/.test(s.error))")
        tab.wait("kept.asked.length >= 5")
        asked, seconds = tab.page.evaluate("[kept.asked.length, performance.now() / 1000]")
        assert asked <= 5 + 10 * seconds, f"asked {asked} times in {seconds} s"
    finally:
        pages.no_tokens = False
    tab.connected()


def test_a_refused_token_stops_the_client_with_an_error_that_says_so(
    tabs: Tabs, pages: PageServer, node: Node
) -> None:
    tabs.expected += DENIED
    tab = tabs.client(pages, node, token=of_another_service("u1"), timing=QUICK)
    tab.wait("state().status === 'closed'")
    assert "invalid_token" in tab.state()["error"], tab.state()
    handshakes = attempts(node)
    assert handshakes <= 3
    time.sleep(1.5)
    assert attempts(node) == handshakes, "it goes on trying"


def test_a_provider_is_asked_once_more_after_a_refusal(
    tabs: Tabs, pages: PageServer, node: Node
) -> None:
    tabs.expected += DENIED
    node.post("/v1/notifications", {"to": {"user": "u1"}, "data": "kept"})
    tab = tabs.client(pages, node, token=user_token("nobody"), timing=QUICK)
    tab.connected()
    tab.page.evaluate("push.close()")
    bad, good = of_another_service("u1"), user_token("u1")
    tab.page.evaluate(
        """([url, bad, good]) => {
          window.why = [];
          window.push = connect({ url, share: false, token: (why) => {
            window.why.push(why);
            return why.refused ? good : bad;
          }});
        }""",
        [node.url, bad, good],
    )
    tab.connected()
    assert tab.page.evaluate("window.why.map(w => w.refused)") == [False, True]
    assert tab.state()["user"] == "u1"


def test_a_user_whose_access_is_revoked_is_disconnected_for_good(
    tabs: Tabs, pages: PageServer, node: Node
) -> None:
    tabs.expected += [*LOST, *DENIED]
    tab = tabs.client(pages, node, timing=QUICK)
    tab.connected()
    answer = node.post(
        "/v1/users/u1/disconnect",
        headers={"Authorization": f"Bearer {token('operator', 'push.admin')}"},
    )
    assert answer.status_code == 201, answer.text
    tab.wait("state().status === 'closed'")
    assert "revoked" in tab.state()["error"], tab.state()
    handshakes = attempts(node)
    time.sleep(1.5)
    assert attempts(node) == handshakes
    wait_until(lambda: node.metric("pushsvc_connections") == 0, "no connection")


def of_another_service(user: str) -> str:
    """A token that is good elsewhere."""
    return mint(secret=SECRET, user=user, audience="another", ttl=600)


def attempts(node: Node) -> float:
    """Every handshake, refused or not."""
    return node.metric("pushsvc_handshakes_total")
