"""The budget of bytes that all bodies share."""

import pytest

from pushsvc.errors import Overloaded
from pushsvc.web.bodies import Bodies


def test_what_is_given_back_can_be_taken_again_and_a_refusal_takes_nothing() -> None:
    bodies = Bodies(10)
    bodies.take(6)
    with pytest.raises(Overloaded, match="over 10 bytes"):
        bodies.take(5)
    bodies.take(4)
    bodies.give(5)
    bodies.take(5)
