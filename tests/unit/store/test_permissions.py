"""The list of permissions is what the code uses, and what the documentation tells."""

import re
from pathlib import Path

from pushsvc.store import permissions
from tests.support import acl

PACKAGE = Path(permissions.__file__).parents[1]
ELSEWHERE = {"WAIT", "WAITAOF", "ASKING", "CLUSTER", "INFO", "SCAN"}
"""Commands that only some need; the documentation has a table of them."""
PERMITTED = {"HELLO"}
"""What needs no permission."""
NO_COMMANDS = {"COUNT", "LIMIT", "MAXLEN", "MINID", "STREAM", "STREAMS", "WITHSCORES", "NOREPLICAS"}
NO_COMMANDS |= {"UNBLOCKED", "MISCONF", "BUSY", "LOAD", "PATTERN", "NOMKSTREAM"}


def tried() -> set[str]:
    return {command[0] for command in permissions.probe("key")}


def test_a_start_tries_every_command_that_the_code_uses() -> None:
    used = set()
    for folder in ("store", "feeds", "admin"):
        for file in (PACKAGE / folder).glob("*.py"):
            if file.name != "permissions.py":
                used |= set(re.findall(r'\(\s*"([A-Z]{3,})"', file.read_text()))
    for file in PACKAGE.glob("store/lua/*.lua"):
        used |= set(re.findall(r"'([A-Z]{3,})'", file.read_text()))
    assert used - NO_COMMANDS - ELSEWHERE - PERMITTED == tried()


def test_the_documented_rule_permits_what_is_tried_and_nothing_else() -> None:
    words = acl.documented()
    assert words[:6] == ["ACL", "SETUSER", "pushsvc", "reset", "on", ">PASSWORD"]
    assert words[6] == "~push:*"
    assert all(word.startswith("+") for word in words[7:])
    permitted = {word.removeprefix("+").partition("|")[0].upper() for word in words[7:]}
    assert len(set(words)) == len(words)
    assert permitted == tried()
