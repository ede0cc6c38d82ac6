"""What a program is told of a refusal, however misshapen it comes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc import errors as ours
from pushsvc.client.errors import Refused, Unavailable

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
PROBLEM = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("type", "title", "status", "detail", "code", "retry_after"), JSON),
)


@given(JSON | PROBLEM, st.none() | st.integers(100, 4999), st.none() | st.floats(0, 100))
def test_whatever_was_answered_is_a_refusal(
    problem: Any, status: int | None, wait: float | None
) -> None:
    refused = Refused.of(problem, status, wait)
    assert refused.detail
    assert refused.code
    assert status is None or refused.status == status
    assert str(refused).endswith(refused.detail)


def test_a_problem_of_the_service_is_told_in_full() -> None:
    problem = ours.RateLimited("slow down", retry_after=2.5).problem()
    refused = Refused.of(problem, None, 9)
    assert (refused.code, refused.status) == ("rate_limited", 429)
    assert (refused.detail, refused.retry_after) == ("slow down", 2.5)


@pytest.mark.parametrize("problem", [{}, {"title": ""}, [], "no", None])
def test_an_answer_that_says_nothing_is_said_to_say_nothing(problem: Any) -> None:
    refused = Refused.of(problem, 502, 3.0)
    assert str(refused) == "502: the answer says no more"
    assert refused.retry_after == 3.0


def test_whoever_may_repeat_a_call_is_told_its_key() -> None:
    assert Unavailable("no answer").key is None
    assert str(Unavailable("no answer")) == "no answer"
    assert "'k-1'" in str(Unavailable("no answer", key="k-1"))
