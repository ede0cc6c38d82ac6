"""The users of Redis that docs/operations/redis.md describes."""

import contextlib
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis

from pushsvc.server.embedded import EmbeddedServer

DOCUMENT = Path(__file__).parents[2] / "docs" / "operations" / "redis.md"
USER, PASSWORD = "pushsvc", "a-password-for-tests-only"

_users: dict[str, str] = {}
"""For the address of each server that has the user, the URL of that user."""


def documented() -> list[str]:
    """The words of the rule for a node."""
    match = re.search(r"<!-- acl: node -->\n```\n(.+)\n```", DOCUMENT.read_text())
    assert match is not None
    return match[1].split()


def addition(row: str) -> list[str]:
    """The words of the rule in the row of the table that begins like this."""
    match = re.search(
        rf"^\| {re.escape(row)}[^|]*\| `(ACL .+)` \|$", DOCUMENT.read_text(), re.MULTILINE
    )
    assert match is not None, row
    return match[1].replace("\\|", "|").split()


def give(client: Any, words: list[str], keys: str = "~push:*") -> None:
    """Execute a documented rule, with the password of the tests and other keys."""
    put = {">PASSWORD": f">{PASSWORD}", "~push:*": keys}
    client.execute_command(*(put.get(word, word) for word in words))


def restrict(server: EmbeddedServer) -> None:
    """Have the nodes that are to use a server be the documented user; on the keys of any prefix."""
    with redis.Redis(port=server.port) as client:
        give(client, documented(), "~*")
        give(client, addition("`PUSHSVC_DURABILITY=replica`"))
        with contextlib.suppress(redis.ResponseError):  # before 7.2 there is no such command
            give(client, addition("`PUSHSVC_DURABILITY=fsync`"))
    _users[server.url] = as_user(server.url)


def another(server: EmbeddedServer, name: str, row: str) -> str:
    """The URL of a user that may what the documented one may, and what is in a row of the table."""
    with redis.Redis(port=server.port) as client:
        for rule in (documented(), addition(row)):
            give(client, [name if word == USER else word for word in rule], "~*")
    return as_user(server.url, name)


def as_user(url: str, name: str = USER) -> str:
    """The URL with the documented user in it, or another one with its password."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{name}:{PASSWORD}@{parts.netloc}").geturl()


def url_of_node(url: str) -> str:
    """What a node is given to reach a server: its user's URL, if the server has that user."""
    return _users.get(url, url)
