"""What a request to revoke may say."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.auth.tokens import LEEWAY
from pushsvc.errors import InvalidRequest
from pushsvc.protocol.revocation import (
    DEFAULT_TTL,
    MAX_TTL,
    TOLERANCE,
    Order,
    Revocation,
    order_from,
    token_key,
)

UNTIL = 1_800_000_001 + DEFAULT_TTL


@pytest.mark.parametrize(
    ("body", "order"),
    [
        ({"user": "u1"}, Order(DEFAULT_TTL, "u1")),
        ({"user": "u1", "issued_before": 5}, Order(DEFAULT_TTL, "u1", issued_before=5)),
        ({"jti": "a b\u00e9", "ttl": 60}, Order(60, token_id="a b\u00e9")),
        ({"issued_before": 0, "ttl": 1.5}, Order(1.5, issued_before=0)),
    ],
)
def test_each_form_says_whose_tokens_are_to_be_revoked(body: Any, order: Order) -> None:
    assert order_from(body) == order


@pytest.mark.parametrize(
    ("revocation", "told"),
    [
        (
            Revocation(UNTIL, "u1", issued_before=5),
            {"user": "u1", "issued_before": 5, "expires_at": UNTIL},
        ),
        (Revocation(UNTIL, token_id="a b\u00e9"), {"jti": "a b\u00e9", "expires_at": UNTIL}),
        (Revocation(UNTIL, issued_before=7), {"issued_before": 7, "expires_at": UNTIL}),
    ],
)
def test_each_form_tells_what_is_held(revocation: Revocation, told: Any) -> None:
    assert revocation.to_json() == told


def test_clocks_may_differ_by_as_much_as_tokens_are_granted() -> None:
    assert TOLERANCE == LEEWAY


@pytest.mark.parametrize(
    "body",
    [
        None, [], "u1", {}, {"ttl": 5}, {"user": "u1", "jti": "x"},
        {"jti": "x", "issued_before": 1},
        {"user": None, "issued_before": 5}, {"jti": None, "issued_before": 5},
        {"user": "u1", "issued_before": None}, {"user": ""}, {"user": "a\n"}, {"user": 7},
        {"jti": ""}, {"jti": "x" * 257}, {"jti": 7}, {"user": "u1", "reason": "x"},
        {"issued_before": -1}, {"issued_before": True}, {"issued_before": "1"},
        {"issued_before": 10**30},
        {"user": "u1", "ttl": 0}, {"user": "u1", "ttl": -1}, {"user": "u1", "ttl": MAX_TTL + 1},
        {"user": "u1", "ttl": "30d"}, {"user": "u1", "ttl": None}, {"user": "u1", "ttl": True},
    ],
    ids=repr,
)  # fmt: skip
def test_anything_else_is_refused(body: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        order_from(body)
    assert len(caught.value.detail) > 10


JSON = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9)


@given(st.dictionaries(st.sampled_from(["user", "jti", "issued_before", "ttl", "x"]), JSON))
def test_arbitrary_bodies_are_refused_or_revoke_what_they_name(body: dict[str, Any]) -> None:
    try:
        one = order_from(body)
    except InvalidRequest:
        return
    assert one.user == body.get("user")
    assert one.token_id == body.get("jti")
    assert one.issued_before == body.get("issued_before")
    assert 1 <= one.ttl <= MAX_TTL


def test_a_key_stands_for_a_token_id_on_every_node_and_none_for_none() -> None:
    assert token_key("t1") == 0xCBE920C372F7CF29 != token_key("t2")
    assert token_key(None) == token_key("") == 0
    assert 0 < token_key("\ud800") < 2**64
