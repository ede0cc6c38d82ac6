"""Which addresses of subscriptions are taken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.push.hosts import MAX_ENDPOINT, Hosts, NotAllowed

TOKEN = "fX3:APA91b_-~!$&'()*+,;=@%2F"


@pytest.mark.parametrize("host", [
    "fcm.googleapis.com", "jmt17.google.com", "updates.push.services.mozilla.com",
    "web.push.apple.com", "wns2-par02p.notify.windows.com", "FCM.googleapis.com",
])  # fmt: skip
def test_the_push_services_of_browsers_are_known(host: str) -> None:
    url = f"https://{host}/fcm/send/{TOKEN}?token=1"
    endpoint = Hosts().endpoint(url)
    assert endpoint == (url, host.lower(), f"https://{host.lower()}", True)
    assert Hosts().endpoint(f"https://{host}:443/x").origin == f"https://{host.lower()}"


@pytest.mark.parametrize("url", [
    "http://fcm.googleapis.com/x", "https://fcm.googleapis.com:444/x",
    "https://fcm.googleapis.com:80/x", "https://fcm.googleapis.com:/x",
    "https://fcm.googleapis.com.evil.example/x", "https://evilfcm.googleapis.com/x",
    "https://evil.example/x", "https://notify.windows.com.evil.example/x",
    "https://evilnotify.windows.com/x", "https://notify.windows.com/x", "https://.notify.windows.com/",
    "https://fcm.googleapis.com@evil.example/x", "https://user@fcm.googleapis.com/x",
    "https://user:password@fcm.googleapis.com/x", "https://evil.example\\@fcm.googleapis.com/x",
    "https://evil.example#@fcm.googleapis.com/x", "https://evil.example?@fcm.googleapis.com/x",
    "https://fcm.googleapis.com/x#fragment", "https://fcm.googleapis.com/a\\b",
    "https://fcm.googleapis.com/a b", "https://fcm.googleapis.com/\u00e9", "https://fcm.googleapis.com/\n",
    "https://fcm.googleapis.com\t/x", " https://fcm.googleapis.com/x", "https:fcm.googleapis.com/x",
    "https:///fcm.googleapis.com/x", "//fcm.googleapis.com/x", "fcm.googleapis.com", "", "https://",
    "https://fcm\u3002googleapis.com/x", "https://fcm.googleapis.com./x", "https://[::1]/x",
    "https://127.0.0.1/x", "https://8.8.8.8/x", "https://fcm.googleapis.com?x",
    "javascript:alert(1)", "file:///etc/passwd", "ftp://fcm.googleapis.com/",
    "https://fcm.googleapis.com/" + "x" * MAX_ENDPOINT,
])  # fmt: skip
def test_everything_else_is_refused(url: str) -> None:
    with pytest.raises(NotAllowed):
        Hosts().endpoint(url)


def test_settings_add_hosts() -> None:
    hosts = Hosts(["push.example", "*.relays.example"])
    assert hosts.endpoint("https://push.example/x").known
    assert hosts.endpoint("https://a.b.relays.example/x").known
    assert hosts.endpoint("https://fcm.googleapis.com/x").known
    for host in ("a.push.example", "relays.example", "other.example"):
        with pytest.raises(NotAllowed, match=f"{host} is not among the push services"):
            hosts.endpoint(f"https://{host}/x")


def test_a_star_lets_every_name_in_and_no_address() -> None:
    hosts = Hosts(["*"])
    assert not hosts.endpoint("https://ntfy.example/up").known
    assert hosts.endpoint("https://web.push.apple.com/x").known
    for host in (
        "8.8.8.8",
        "134744072",
        "0x08080808",
        "8.8.2056",
        "010.8.8.8",
        "a.0x7f",
        "localhost",
    ):
        with pytest.raises(NotAllowed):
            hosts.endpoint(f"https://{host}/x")
    for url in ("http://ntfy.example/up", "https://ntfy.example:8443/up"):
        with pytest.raises(NotAllowed):
            hosts.endpoint(url)


def test_tests_may_use_any_host_and_port() -> None:
    hosts = Hosts(allow_private=True)
    assert hosts.endpoint("http://127.0.0.1:8080/x").origin == "http://127.0.0.1:8080"
    assert hosts.endpoint("https://localhost/x").origin == "https://localhost"
    for url in ("http://127.0.0.1:0/x", "http://127.0.0.1:65536/x", "ftp://localhost/x"):
        with pytest.raises(NotAllowed):
            hosts.endpoint(url)


@pytest.mark.parametrize("name", [
    "https://push.example", "push.example:443", "*.", "*.*", "a.*", "10.0.0.1", "*.1", "",
    "p\u00fcsh.example", "-a.example", "a_b.example", "a..b", "push.example/",
])  # fmt: skip
def test_a_setting_that_is_no_host_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"is not a host, \*\.host, or \*"):
        Hosts([name])


@given(st.text(max_size=80))
def test_no_text_brings_it_down(text: str) -> None:
    for url in (text, f"https://{text}", f"https://fcm.googleapis.com/{text}"):
        try:
            endpoint = Hosts(["*"]).endpoint(url)
        except NotAllowed:
            continue
        assert endpoint.url.isascii()
        assert endpoint.url.isprintable()
