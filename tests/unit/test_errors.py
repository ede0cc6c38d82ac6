"""Errors: one class each, whichever way it is told."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc import errors
from pushsvc.codes import means_reconnect
from pushsvc.errors import PROBLEM_PREFIX, PushError, Unavailable
from pushsvc.protocol import encoding, messages
from tests.support.documents import PROTOCOL, descendants

EVERY = sorted(descendants(PushError), key=lambda kind: kind.__name__)


def test_every_error_code_is_documented_with_its_status() -> None:
    section = PROTOCOL.split("\n## Errors\n", 1)[1].split("| code | status | |")[1]
    documented = dict(re.findall(r"^\| `(\w+)` \| (\d+|none) \|", section, re.MULTILINE))
    codes = {kind.code: str(kind.status) for kind in descendants(PushError)}
    assert documented == codes | {"internal": "500", "token_expiring": "none"}


def test_the_error_tree_in_the_docstring_is_the_error_tree() -> None:
    assert errors.__doc__ is not None
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__))
    assert drawn == {kind.__name__ for kind in descendants(PushError)}


@pytest.mark.parametrize("kind", EVERY)
def test_whoever_may_try_again_is_not_told_to_stop(kind: type[PushError]) -> None:
    """Except where somebody else has to make room first."""
    if kind.temporary and kind.close is not None and kind is not errors.TooManyConnections:
        assert means_reconnect(kind.close)


@given(st.sampled_from(EVERY), st.text(), st.none() | st.integers(0, 10**6))
def test_a_problem_and_a_message_say_the_same(
    kind: type[PushError], detail: str, seconds: int | None
) -> None:
    detail = detail.encode("utf-8", "replace").decode()
    error = kind(detail) if seconds is None else kind(detail, retry_after=seconds)
    problem, told = error.problem(), json.loads(messages.error(error))
    assert problem["type"] == PROBLEM_PREFIX + told["code"]
    assert problem["status"] == kind.status
    assert problem["detail"] == told["detail"] == detail
    assert problem.get("retry_after") == told.get("retry_after")
    assert told["temporary"] == kind.temporary


@pytest.mark.parametrize("kind", [kind for kind in EVERY if issubclass(kind, Unavailable)])
def test_what_is_unavailable_always_says_when_to_try_again(kind: type[Unavailable]) -> None:
    assert kind("later").retry_after == 1.0


def test_a_bare_error_keeps_nothing_of_what_led_to_it() -> None:
    try:
        encoding.decode(b"x" * 100)
    except PushError as error:
        assert error.__context__ is not None  # noqa: PT017
        bare = error.bare()
    assert (bare.__context__, bare.__cause__, bare.__traceback__) == (None, None, None)
    assert "not JSON" in bare.detail
