"""The checks of the handshake that need no socket."""

import pytest
from tornado.httputil import HTTPHeaders

from pushsvc.errors import InvalidRequest, OriginRefused
from pushsvc.web.cors import Origins
from pushsvc.web.socket import _offered


def headers(**values: str) -> HTTPHeaders:
    return HTTPHeaders({name.replace("_", "-"): value for name, value in values.items()})


@pytest.mark.parametrize(
    "given",
    [
        headers(Host="push.example.com"),
        headers(Host="push.example.com", Origin="https://app.example.com"),
        headers(Host="push.example.com", Origin="HTTPS://APP.example.com"),
        headers(Host="push.example.com", Origin="https://push.example.com"),
        headers(Host="127.0.0.1:8080", Origin="http://127.0.0.1:8080"),
    ],
)
def test_pages_of_a_listed_origin_or_the_node_itself_may_connect(given: HTTPHeaders) -> None:
    Origins(["https://app.example.com"]).check(given)


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "https://evil.example",
        "http://app.example.com",
        "https://app.example.com.evil.example",
        "https://app.example.com:444",
        "https://push.example.com@evil.example",
    ],
)
def test_pages_of_any_other_origin_may_not(origin: str) -> None:
    with pytest.raises(OriginRefused, match="ALLOWED_ORIGINS"):
        Origins(["https://app.example.com"]).check(headers(Host="push.example.com", Origin=origin))


def test_null_is_no_origin_even_where_all_are_allowed() -> None:
    Origins(["*"]).check(headers(Host="h", Origin="https://any.example"))
    with pytest.raises(OriginRefused):
        Origins(["*"]).check(headers(Host="h", Origin="null"))


def test_a_token_may_be_offered_as_a_subprotocol() -> None:
    offered = headers(Sec_WebSocket_Protocol="pushsvc.v1.json, bearer.aaa.bbb.ccc")
    assert _offered(offered) == ("pushsvc.v1.json", "aaa.bbb.ccc")
    assert _offered(headers()) == (None, None)


@pytest.mark.parametrize("offered", ["graphql-ws", "bearer.aaa", "", "pushsvc.v2.json"])
def test_subprotocols_without_one_that_is_spoken_are_refused(offered: str) -> None:
    with pytest.raises(InvalidRequest, match=r"pushsvc\.v1\.json"):
        _offered(headers(Sec_WebSocket_Protocol=offered))
