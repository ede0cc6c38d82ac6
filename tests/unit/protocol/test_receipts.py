"""What a receipt looks like, and when a mailbox is worth another look."""

import json

from hypothesis import given
from hypothesis import strategies as st

from pushsvc.protocol import ids
from pushsvc.protocol.receipts import (
    LONGEST_LOOK,
    SHORTEST_LOOK,
    Status,
    body,
    next_look,
    receipt,
)


def test_a_receipt_says_what_became_of_which_notification_and_when() -> None:
    stored = body(ids.parse("1764000000001-2"), "u1", Status.ACKED, 1764000001234, "phone")
    assert json.loads(receipt(ids.parse("1764000002000-0"), stored)) == {
        "id": "1764000002000-0",
        "type": "receipt",
        "time": "2025-11-24T16:00:02.000Z",
        "notification": "1764000000001-2",
        "user": "u1",
        "status": "acked",
        "device": "phone",
        "at": "2025-11-24T16:00:01.234Z",
    }


def test_a_device_is_named_only_where_one_acknowledged() -> None:
    told = json.loads(receipt(1, body(1, "u1", Status.EXPIRED, 0, ""), publisher="p"))
    assert "device" not in told
    assert told["publisher"] == "p"


@given(st.integers(0, 10**12), st.integers(0, 10**9), st.integers(0, 10**9))
def test_looks_get_rarer_and_none_is_later_than_an_expiry(now: int, left: int, age: int) -> None:
    look = next_look(now, now + left, now - age)
    assert 0 <= look <= LONGEST_LOOK
    assert look <= left / 1000
    assert look >= min(left / 1000, SHORTEST_LOOK)


def test_an_expiry_that_has_passed_is_looked_at_now() -> None:
    assert next_look(10_000, 9_000, 0) == 0
