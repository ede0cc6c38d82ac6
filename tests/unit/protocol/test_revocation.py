"""What a request to revoke may say."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.errors import InvalidRequest
from pushsvc.protocol.revocation import DEFAULT_TTL, MAX_TTL, Revocation, revocation_from

NOW = 1_800_000_000.4
UNTIL = 1_800_000_001 + DEFAULT_TTL


@pytest.mark.parametrize(
    ("body", "revocation", "told"),
    [
        (
            {"user": "u1"},
            Revocation(UNTIL, "u1", issued_before=1_800_000_000),
            {"user": "u1", "issued_before": 1_800_000_000, "expires_at": UNTIL},
        ),
        (
            {"user": "u1", "issued_before": 5},
            Revocation(UNTIL, "u1", issued_before=5),
            {"user": "u1", "issued_before": 5, "expires_at": UNTIL},
        ),
        (
            {"jti": "a b\u00e9", "ttl": 60},
            Revocation(1_800_000_061, token_id="a b\u00e9"),
            {"jti": "a b\u00e9", "expires_at": 1_800_000_061},
        ),
        (
            {"issued_before": 1_800_000_010},
            Revocation(UNTIL, issued_before=1_800_000_010),
            {"issued_before": 1_800_000_010, "expires_at": UNTIL},
        ),
    ],
)
def test_each_form_says_whose_tokens_are_revoked(
    body: Any, revocation: Revocation, told: Any
) -> None:
    assert revocation_from(body, NOW) == revocation
    assert revocation.told() == told


@pytest.mark.parametrize(
    "body",
    [
        None, [], "u1", {}, {"ttl": 5}, {"user": "u1", "jti": "x"},
        {"jti": "x", "issued_before": 1},
        {"user": None, "issued_before": 5}, {"jti": None, "issued_before": 5},
        {"user": "u1", "issued_before": None}, {"user": ""}, {"user": "a b"}, {"user": 7},
        {"jti": ""}, {"jti": "x" * 257}, {"jti": 7}, {"user": "u1", "reason": "x"},
        {"issued_before": -1}, {"issued_before": 1_800_000_011}, {"issued_before": True},
        {"issued_before": 1_800_000_000_000}, {"issued_before": "1"}, {"issued_before": 10**30},
        {"user": "u1", "ttl": 0}, {"user": "u1", "ttl": -1}, {"user": "u1", "ttl": MAX_TTL + 1},
        {"user": "u1", "ttl": "30d"}, {"user": "u1", "ttl": None}, {"user": "u1", "ttl": True},
    ],
    ids=repr,
)  # fmt: skip
def test_anything_else_is_refused(body: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        revocation_from(body, NOW)
    assert len(caught.value.detail) > 10


JSON = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9)


@given(st.dictionaries(st.sampled_from(["user", "jti", "issued_before", "ttl", "x"]), JSON))
def test_arbitrary_bodies_are_refused_or_revoke_what_they_name(body: dict[str, Any]) -> None:
    try:
        one = revocation_from(body, NOW)
    except InvalidRequest:
        return
    assert one.user == body.get("user")
    assert one.token_id == body.get("jti")
    assert NOW < one.until <= NOW + MAX_TTL + 1
    assert one.token_id is None or one.issued_before == 0
