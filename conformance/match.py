"""Comparing what came with what a scenario expects."""

from collections.abc import Mapping
from typing import Any, Final

ANY: Final = "<any>"
"""Stands for a value that is there, whatever it is."""
NONE: Final = "<none>"
"""Stands for a member that is not there, or null; TOML has no null of its own."""
WHATEVER: Final = "<whatever>"
"""Stands for a member that may be there or not."""


def difference(expected: Any, got: Any, where: str = "") -> str | None:
    """What is wrong with ``got``, in words; None where it is as expected.

    An expected object names the members that matter; others may be there as well, as a client
    has to pass on, and a server to ignore, what is new.
    """
    name = where or "it"
    if expected == WHATEVER:
        return None
    if expected == NONE:
        return None if got is None else f"{name} is {got!r}, and should not be there"
    if got is None and expected is not None:
        return f"{name} is missing, and should be {expected!r}"
    if expected == ANY:
        return None
    if isinstance(expected, Mapping):
        if not isinstance(got, Mapping):
            return f"{name} is {got!r}, and should be an object"
        for key, value in expected.items():
            found = difference(value, got.get(key), f"{where}.{key}" if where else str(key))
            if found is not None:
                return found
        return None
    return None if expected == got else f"{name} is {got!r}, and should be {expected!r}"


def filled(value: Any, variables: Mapping[str, Any]) -> Any:
    """``value`` with every string that is ``$name`` replaced by that variable, where it is one."""
    if isinstance(value, str) and value.startswith("$"):
        return variables.get(value[1:], value)
    if isinstance(value, Mapping):
        return {key: filled(member, variables) for key, member in value.items()}
    if isinstance(value, list):
        return [filled(member, variables) for member in value]
    return value


def sendable(value: Any) -> Any:
    """``value`` with null for every ``<none>``: what is sent, where it is not expected."""
    if isinstance(value, Mapping):
        return {key: sendable(member) for key, member in value.items()}
    if isinstance(value, list):
        return [sendable(member) for member in value]
    return None if value == NONE else value
