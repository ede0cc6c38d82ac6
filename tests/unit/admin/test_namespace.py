"""In which namespace the console acts."""

import pytest

from pushsvc.admin.namespace import within
from pushsvc.auth.tokens import Claims
from pushsvc.errors import Forbidden, InvalidName

TENANT = Claims("ann", 4_000_000_000, namespace="acme")
OPERATOR = Claims("ops", 4_000_000_000, operator=True)


def test_a_token_acts_in_its_own_namespace_whether_that_is_named_or_not() -> None:
    assert within(TENANT, None) is TENANT
    assert within(TENANT, "acme") is TENANT
    assert within(OPERATOR, None) is OPERATOR
    assert within(OPERATOR, "") is OPERATOR


@pytest.mark.parametrize("other", ["", "other", "acme-2"])
def test_another_namespace_is_for_operators(other: str) -> None:
    with pytest.raises(Forbidden, match=r"sees its own namespace only.*an operator"):
        within(TENANT, other)
    assert within(OPERATOR, other).namespace == other
    assert within(OPERATOR, other).user == "ops"


@pytest.mark.parametrize("text", ["Acme", "a/b", "-a", "a" * 64, "a\n", "\u00e4", "{a}"])
def test_what_is_no_namespace_is_refused(text: str) -> None:
    for claims in (TENANT, OPERATOR):
        with pytest.raises(InvalidName, match="namespace must be a string of 1 to 63"):
            within(claims, text)
