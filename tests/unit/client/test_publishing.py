"""Notifications as requests, and answers as receipts."""

import json
import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.client import publishing
from pushsvc.client.calls import Request
from pushsvc.client.errors import OutcomeUnknown, Refused, Unavailable
from pushsvc.client.publishing import MOST, Receipt


def test_a_note_becomes_the_documented_json() -> None:
    note = {"user": "u1", "data": None, "event": None, "ttl": 0, "deliver": "any-device"}
    assert json.loads(publishing.encode(note)) == {
        "to": {"user": "u1"}, "data": None, "ttl": 0, "deliver": "any-device",
    }  # fmt: skip
    assert json.loads(publishing.encode({"topic": "t", "broadcast": False, "data": b"\xff"})) == {
        "to": {"topic": "t"}, "data": "/w==", "encoding": "base64",
    }  # fmt: skip


def test_a_device_is_named_beside_its_user() -> None:
    note = {"user": "u1", "device": "phone", "data": 1}
    assert json.loads(publishing.encode(note))["to"] == {"user": "u1", "device": "phone"}
    assert json.loads(publishing.encode(note | {"device": None}))["to"] == {"user": "u1"}
    with pytest.raises(ValueError, match="name both"):
        publishing.encode({"topic": "t", "device": "phone", "data": 1})


def test_a_time_is_told_with_its_zone() -> None:
    when = datetime(2026, 1, 31, 9, 0, tzinfo=UTC)
    for at in (when, "2026-01-31T09:00:00+00:00"):
        for text in (
            publishing.encode({"user": "u", "data": 1, "at": at}),
            publishing.encode_for(["u"], {"data": 1, "at": at}),
        ):
            assert json.loads(text)["at"] == "2026-01-31T09:00:00+00:00"
    with pytest.raises(ValueError, match="time zone"):
        publishing.encode({"user": "u", "data": 1, "at": when.replace(tzinfo=None)})


def test_a_note_has_one_destination_and_json_data() -> None:
    for note in ({"data": 1}, {"data": 1, "user": "u", "topic": "t"}):
        with pytest.raises(ValueError, match="exactly one"):
            publishing.encode(note)
    with pytest.raises(ValueError, match="not JSON compliant"):
        publishing.encode({"user": "u", "data": math.nan})
    with pytest.raises(TypeError):
        publishing.encode({"user": "u", "data": object()})


@given(st.lists(st.binary(max_size=60), max_size=200), st.integers(30, 200))
def test_parts_keep_the_order_and_fit(notes: list[bytes], max_body: int) -> None:
    parts = publishing.split(notes, max_body)
    assert [note for part in parts for note in part] == notes
    for part in parts:
        assert part
        assert len(part) <= MOST
        assert len(part) == 1 or len(publishing.batch(part, "k", None).body or b"") <= max_body


def test_at_most_a_thousand_go_in_a_part() -> None:
    assert [len(part) for part in publishing.split([b"1"] * 2500, 2**20)] == [1000, 1000, 500]


def test_a_key_of_the_caller_makes_the_same_requests_again() -> None:
    notes = [publishing.encode({"user": "u", "data": n}) for n in range(1500)]
    first, again = (publishing.requests_for(notes, "k", 2**20) for _ in range(2))
    assert first == again
    assert [request.key for request in first] == ["k/0", "k/1"]
    assert [request.count for request in first] == [1000, 500]
    assert {request.repeat for request in first} == {"k"}  # what the caller gives again
    (one,) = publishing.requests_for(notes[:1], "k", 2**20)
    assert (one.key, one.repeat) == ("k", "k")
    to = publishing.requests_to(["a", "b"], {"data": 1}, None)
    assert to[0].count == 2
    assert len(to[0].key or "") == 32


def test_a_key_is_quoted_and_checked() -> None:
    headers = Request("/", b"", key='a"b\\c').headers("t")
    assert headers["Idempotency-Key"] == r'"a\"b\\c"'
    for key in ("", "é", "x" * 256):
        with pytest.raises(ValueError, match="printable"):
            publishing.key_of(key)


def test_the_receipt_of_what_is_scheduled_says_when_it_goes_out() -> None:
    told = {"id": "s-1", "at": "2026-01-31T09:00:00.000Z", "durability": "memory", "connections": 0}
    assert publishing.receipt(told).at == datetime(2026, 1, 31, 9, tzinfo=UTC)
    for wrong in ("soon", 17):
        with pytest.raises(OutcomeUnknown, match="no receipt"):
            publishing.receipt(told | {"at": wrong})


def test_results_are_receipts_refusals_and_what_may_be_repeated() -> None:
    told = {
        "results": [
            {"id": "1-0", "durability": "memory", "connections": 2},
            {"type": "urn:pushsvc:problem:invalid_name", "status": 400, "detail": "no"},
            {"type": "urn:pushsvc:problem:store_unavailable", "status": 503, "detail": "no"},
            {"type": "x:too_many_requests", "status": 429, "detail": "full", "retry_after": 9},
        ]
    }
    request = Request(publishing.MANY, b"", key="k1/0", repeat="k1", count=4)
    receipt, refused, unavailable, full = publishing.results(told, request)
    assert receipt == Receipt("1-0", "memory", 2)
    assert isinstance(refused, Refused)
    assert refused.code == "invalid_name"
    assert isinstance(unavailable, Unavailable)
    assert unavailable.key == "k1"
    assert isinstance(full, Refused)
    assert (full.code, full.retry_after) == ("too_many_requests", 9)


@pytest.mark.parametrize(
    "told", [{}, {"results": []}, {"results": None}, {"results": [{"durability": "memory"}] * 2}]
)
def test_an_answer_that_has_not_a_result_for_each_leaves_the_outcome_open(
    told: dict[str, object],
) -> None:
    request = Request(publishing.MANY, b"", key="k1", repeat="k1", count=3)
    with pytest.raises(OutcomeUnknown, match="each of 3"):
        publishing.results(told, request)
    with pytest.raises(OutcomeUnknown, match="no receipt"):
        publishing.receipt({"id": "1-0"})
    strange = publishing.results({"results": [None, 1, {"durability": "memory"}]}, request)
    assert [type(each) for each in strange] == [Refused, Refused, OutcomeUnknown]
