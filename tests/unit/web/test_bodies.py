"""The budget of bytes that all bodies share."""

from contextlib import ExitStack

import pytest

from pushsvc.auth.tokens import SCOPE_PUBLISH, Claims
from pushsvc.errors import Overloaded, RateLimited
from pushsvc.web.bodies import AT_ONCE, Bodies


def test_what_is_given_back_can_be_taken_again_and_a_refusal_takes_nothing() -> None:
    bodies = Bodies(10)
    bodies.take(6)
    with pytest.raises(Overloaded, match="over 10 bytes"):
        bodies.take(5)
    bodies.take(4)
    bodies.give(5)
    bodies.take(5)


def test_a_client_waits_with_few_bodies_and_a_backend_with_any() -> None:
    bodies = Bodies(10)
    client, other = Claims("u", 0), Claims("v", 0)
    backend = Claims("b", 0, scopes=frozenset({SCOPE_PUBLISH}))
    with ExitStack() as stack:
        for _ in range(AT_ONCE):
            stack.enter_context(bodies.awaited(client))
        with pytest.raises(RateLimited, match="of this user"), bodies.awaited(client):
            pass
        stack.enter_context(bodies.awaited(other))
        for _ in range(AT_ONCE + 1):
            stack.enter_context(bodies.awaited(backend))
    assert not bodies._awaited
    with bodies.awaited(client):
        pass
