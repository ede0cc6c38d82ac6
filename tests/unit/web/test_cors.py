"""Pages in browsers: who may call."""

import pytest
from tornado.httputil import HTTPHeaders

from pushsvc.errors import OriginRefused
from pushsvc.web.cors import Origins

PAGE = "https://app.example.com"
FOREIGN = "https://evil.example"


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
    Origins([PAGE]).check(given)


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
        "https://app.example.com,https://evil.example",
    ],
)
def test_pages_of_any_other_origin_may_not(origin: str) -> None:
    with pytest.raises(OriginRefused, match="ALLOWED_ORIGINS"):
        Origins([PAGE]).check(headers(Host="push.example.com", Origin=origin))


@pytest.mark.parametrize("port", ["", ":80", ":3000", ":65535"])
def test_an_origin_may_be_listed_with_any_port(port: str) -> None:
    origins = Origins(["http://localhost:*"])
    origins.check(headers(Host="h", Origin=f"http://localhost{port}"))
    for other in (f"https://localhost{port}", f"http://localhost.evil.example{port}"):
        with pytest.raises(OriginRefused):
            origins.check(headers(Host="h", Origin=other))
    with pytest.raises(OriginRefused):
        origins.check(headers(Host="h", Origin="http://localhost:3000:3000"))


def test_null_is_no_origin_even_where_all_are_allowed() -> None:
    Origins(["*"]).check(headers(Host="h", Origin="https://any.example"))
    with pytest.raises(OriginRefused):
        Origins(["*"]).check(headers(Host="h", Origin="null"))


def test_a_refusal_names_the_origin_and_the_setting_and_breaks_no_line() -> None:
    def told(origin: str) -> str:
        with pytest.raises(OriginRefused) as refused:
            Origins([PAGE]).check(headers(Host="push.example.com", Origin=origin))
        return refused.value.detail

    assert told(FOREIGN) == (
        f"pages of {FOREIGN} may not connect: add this origin to PUSHSVC_ALLOWED_ORIGINS"
    )
    assert "https://a\\x1b[31m\\x85\\xadb may not" in told("https://a\x1b[31m\x85\xadb")
    assert "PUSHSVC_ALLOWED_ORIGINS" in told("https://" + "a" * 16_000)
    assert len(told("https://" + "\x85" * 16_000)) < 2000
    assert "no origin" in told("null")
