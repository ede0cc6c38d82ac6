"""The parts of the publish API that need no server."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.auth.tokens import Claims
from pushsvc.errors import InvalidRequest
from pushsvc.web.publish import Once, idempotency_key


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ('"7f3a-1"', "7f3a-1"),
        (" 7f3a-1 ", "7f3a-1"),
        ('"with space"', "with space"),
        ('"a\\"b"', 'a\\"b'),
        ('"' + "x" * 255 + '"', "x" * 255),
    ],
)
def test_a_key_is_a_quoted_string_or_a_bare_word(header: str, key: str) -> None:
    assert idempotency_key(header) == key


@pytest.mark.parametrize("header", ["", '""', '"', '"a', "a b", "ä", '"\x7f"', "x" * 256, '"a"b"'])
def test_anything_else_is_refused(header: str) -> None:
    with pytest.raises(InvalidRequest, match="Idempotency-Key"):
        idempotency_key(header)


@given(st.text(max_size=300))
def test_a_header_is_a_key_or_is_refused(header: str) -> None:
    with contextlib.suppress(InvalidRequest):
        assert 1 <= len(idempotency_key(header)) <= 255


def test_the_same_key_of_the_same_publisher_in_another_namespace_is_another() -> None:
    names = [("", "acme/pub"), ("acme", "pub"), ("", "pub"), ("other", "pub"), ("", "acme pub")]
    callers = [Claims(user, 4_000_000_000, namespace=each).caller for each, user in names]
    assert len({Once(caller, "k").digest for caller in callers}) == len(names)
    assert Claims("pub", 4_000_000_000).caller == "pub"  # as nodes without namespaces call it
