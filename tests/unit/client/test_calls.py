"""A request's retries: which answers are worth one, when it is made, and when time is up."""

import json
from typing import Any

import pytest

from pushsvc.client.calls import Answer, Call, Done, Request, Retry
from pushsvc.client.errors import NoAnswer, NotInTime, Refused, Unavailable
from pushsvc.client.publishing import MANY, ONE

ACCEPTED = {"id": "1-0", "durability": "memory", "connections": 0}


def call(path: str = ONE, *, renewable: bool = False) -> Call:
    return Call(Request(path, b"{}", key="k1/0", repeat="k1"), 0.0, 30.0, renewable=renewable)


def answer(status: int, body: Any = None, **headers: str) -> Answer:
    return Answer(status, headers, json.dumps(body).encode())


def problem(code: str, status: int) -> dict[str, Any]:
    return {"type": f"urn:pushsvc:problem:{code}", "status": status, "detail": "why"}


def test_an_accepted_request_is_done() -> None:
    assert call().next(answer(202, ACCEPTED), 0.0, 0.5) == Done(ACCEPTED)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_these_answers_are_worth_a_retry_after_what_the_service_says(status: int) -> None:
    step = call().next(Answer(status, {"retry-after": "3"}, b"<html>"), 0.0, 0.5)
    assert isinstance(step, Retry)
    assert 3 <= step.delay <= 3.2


def test_network_errors_are_retried_later_and_later() -> None:
    trying = call()
    delays = []
    for _ in range(6):
        step = trying.next(OSError("gone"), 0.0, 0.5)
        assert isinstance(step, Retry)
        delays.append(step.delay)
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.5])


def test_the_deadline_ends_it_with_the_key_and_the_last_error() -> None:
    with pytest.raises(Unavailable, match=r"same call, whole, .* 'k1' is safe") as error:
        call().next(OSError("gone"), 29.95, 0.9)
    assert error.value.key == "k1"
    assert "gone" in str(error.value)
    with pytest.raises(Unavailable):
        call().next(Answer(503, {"retry-after": "60"}, b""), 0.0, 0.0)


@pytest.mark.parametrize("status", [200, 301, 400, 403, 404, 413, 415, 422])
def test_these_answers_are_final(status: int) -> None:
    with pytest.raises(Refused) as error:
        call().next(answer(status, problem("forbidden", status)), 0.0, 0.5)
    assert (error.value.status, error.value.code, error.value.detail) == (
        status, "forbidden", "why",
    )  # fmt: skip


def test_a_refused_token_is_replaced_once() -> None:
    trying = call(renewable=True)
    assert trying.next(answer(401, problem("invalid_token", 401)), 0.0, 0.5) == Retry(0.0, True)
    with pytest.raises(Refused):
        trying.next(answer(401, problem("invalid_token", 401)), 0.0, 0.5)
    with pytest.raises(Refused):
        call().next(answer(401), 0.0, 0.5)


def test_a_new_token_that_would_be_refused_as_well_is_waited_for_as_long_as_there_is_time() -> None:
    refusal = answer(401, problem("invalid_token", 401), **{"retry-after": "8"})
    assert call(renewable=True).next(refusal, 0.0, 0.5) == Retry(8.0, True)
    with pytest.raises(Refused):
        call(renewable=True).next(refusal, 25.0, 0.5)


def test_a_batch_of_which_a_part_may_still_succeed_is_sent_again_until_the_deadline() -> None:
    mixed = {"results": [ACCEPTED, problem("store_unavailable", 503)]}
    assert isinstance(call(MANY).next(answer(202, mixed), 0.0, 0.5), Retry)
    assert call(MANY).next(answer(202, mixed), 29.99, 0.9) == Done(mixed)
    for own in (problem("invalid_name", 400), problem("too_many_requests", 429)):
        final = {"results": [ACCEPTED, own]}
        assert call(MANY).next(answer(202, final), 0.0, 0.5) == Done(final)


def test_the_last_reason_is_the_last_one_that_says_more_than_that_time_was_up() -> None:
    trying = call()
    step = trying.next(NoAnswer("h:1 refuses connections"), 0.0, 0.5)
    assert isinstance(step, Retry)
    late = NotInTime("h:1 does not answer in time")
    with pytest.raises(Unavailable, match="last: h:1 refuses connections"):
        trying.next(late, 30.0, 0.5)
    with pytest.raises(Unavailable, match="last: h:1 does not answer"):
        call().next(late, 30.0, 0.5)


def test_nothing_served_there_says_what_to_look_at_and_nothing_kept_does_not() -> None:
    for body in (
        {"type": "urn:pushsvc:problem:not_found", "detail": "nothing is served at this path"},
        "<html>",
    ):
        with pytest.raises(Refused, match="a node's public port") as error:
            call().next(answer(404, body), 0.0, 0.5)
        assert error.value.unserved
    kept = {"type": "urn:pushsvc:problem:not_found", "detail": "this mailbox does not hold it"}
    with pytest.raises(Refused) as error:
        call().next(answer(404, kept), 0.0, 0.5)
    assert str(error.value) == "404: this mailbox does not hold it"
