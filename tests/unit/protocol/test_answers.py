"""The heads of answers, as a client reads them."""

import pytest

from pushsvc.protocol.answers import head_of

NOW = 784_111_777
"""The example of RFC 9110, section 5.6.7."""


def test_a_head_has_its_status_headers_date_and_length() -> None:
    headers = (("Server", "pushsvc"), ("Content-Type", "application/json"))
    assert head_of(202, headers, 17, NOW, last=False) == (
        b"HTTP/1.1 202 Accepted\r\nServer: pushsvc\r\nContent-Type: application/json\r\n"
        b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 17\r\n\r\n"
    )


@pytest.mark.parametrize("status", [204, 304])
def test_what_has_no_body_has_no_length(status: int) -> None:
    assert b"Content-Length" not in head_of(status, (), 0, NOW, last=False)


@pytest.mark.parametrize(
    ("headers", "last", "said"),
    [
        ((), False, None),
        ((), True, b"close"),
        ((("Connection", "Upgrade"),), False, b"Upgrade"),
        ((("Connection", "Upgrade"),), True, b"Upgrade, close"),
    ],
)
def test_the_last_answer_says_that_it_is(
    headers: tuple[tuple[str, str], ...], said: bytes | None, *, last: bool
) -> None:
    lines = head_of(426, headers, 0, NOW, last=last).split(b"\r\n")
    assert [each[12:] for each in lines if each.startswith(b"Connection: ")] == (
        [] if said is None else [said]
    )


def test_each_second_has_its_date() -> None:
    first, second = (head_of(200, (), 0, NOW + each, last=False) for each in (0, 1))
    assert b"08:49:37" in first
    assert b"08:49:38" in second
