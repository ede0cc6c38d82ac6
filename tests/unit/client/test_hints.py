"""What is said where an address, a token or an answer is not what it should be."""

import socket
import ssl as tls

import pytest

from pushsvc.client import Refused
from pushsvc.client.errors import NoAnswer, NotInTime
from pushsvc.client.hints import checked_token, no_answer, place, split_address

URL = "http://push.example.com:8080/base"


@pytest.mark.parametrize("url", ["localhost:8080", "push.example.com", "127.0.0.1:8080/v1"])
def test_an_address_without_a_scheme_is_told_with_one(url: str) -> None:
    with pytest.raises(ValueError, match=f"no scheme: write 'http://{url}', or https://"):
        split_address(url, "http", "https")


@pytest.mark.parametrize("url", ["ftp://h", "http://", "http:///v1", "file:///etc/passwd"])
def test_an_address_of_something_else_is_told_how_one_begins(url: str) -> None:
    with pytest.raises(ValueError, match="begins with http:// or https:// and a host"):
        split_address(url, "http", "https")


def test_a_port_that_is_none_is_an_error_at_once() -> None:
    with pytest.raises(ValueError, match="Port could not be"):
        split_address("http://h:80a", "http")
    assert split_address("http://h:80", "http").port == 80


@pytest.mark.parametrize("token", ["eyJ.secret.x\n", "secret secret", "sécret", "", "\nsecret"])
def test_what_is_no_token_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(Refused, match="the token") as refused:
        checked_token(token)
    assert "cret" not in str(refused.value)
    assert checked_token("a.b-_~.c") == "a.b-_~.c"


def after(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def test_a_refused_connection_names_the_address_and_before_the_first_answer_what_to_do() -> None:
    error = after(RuntimeError("pool"), ConnectionRefusedError(111, "refused"))
    told = no_answer(error, URL, first=True)
    assert isinstance(told, NoAnswer)
    assert str(told) == (
        "http://push.example.com:8080 refuses connections; start a node there, or correct the host"
        " and port of the URL"
    )
    assert told.__cause__ is error
    assert str(no_answer(error, URL, first=False)).endswith("refuses connections")


def test_an_unknown_host_and_a_certificate_that_is_not_trusted_are_told() -> None:
    assert "correct the URL" in str(no_answer(socket.gaierror(-2, "?"), URL, first=False))
    error = tls.SSLCertVerificationError(1, "no")
    error.verify_message = "self-signed"
    assert "not trusted (self-signed): give `ssl` a context" in str(
        no_answer(error, "https://h", first=False)
    )


@pytest.mark.parametrize(
    ("error", "url", "advice"),
    [
        (EOFError("closed"), URL, "if it speaks TLS, write https://push.example.com:8080"),
        (TimeoutError(), "ws://h", "if it speaks TLS, write https://h:80"),
        (TimeoutError(), "wss://h", "if it does not speak TLS, write http://h:443"),
        (tls.SSLError(1, "WRONG"), "https://h:1", "if it does not speak TLS, write http://h:1"),
    ],
)
def test_what_may_be_the_wrong_scheme_is_told_until_there_was_an_answer(
    error: Exception, url: str, advice: str
) -> None:
    assert str(no_answer(error, url, first=True)).endswith("; " + advice)
    assert "TLS" not in str(no_answer(error, url, first=False))


def test_what_is_wrapped_says_more_and_a_time_out_is_known_as_one() -> None:
    told = no_answer(after(RuntimeError("aborted"), OSError("reset")), URL, first=False)
    assert str(told) == "no answer of http://push.example.com:8080 (reset)"
    assert type(told) is NoAnswer
    late = no_answer(after(RuntimeError("x"), TimeoutError()), URL, first=False)
    assert type(late) is NotInTime
    assert "EOFError" in str(no_answer(EOFError(), URL, first=False))


def test_no_password_and_no_path_is_shown_of_an_address() -> None:
    assert place("wss://me:secret@[::1]/base?q") == "https://[::1]:443"
