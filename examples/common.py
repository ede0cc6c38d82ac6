"""What the examples share: where the node is, tokens, and how a program ends.

In production your own backend makes the tokens; here ``pushsvc dev`` does, for whoever asks.
"""

import asyncio
import errno
import json
import logging
import os
import sys
from collections.abc import Coroutine
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from pushsvc.client import Client, PushError, Refused, connect

NODE = os.environ.get("PUSH_URL", "http://127.0.0.1:8080")
ADMIN = os.environ.get("PUSH_ADMIN_URL", "http://127.0.0.1:9090")
PATIENCE = 10.0
"""Seconds without a node after which an example gives up; a real client would not."""


async def token_for(user: str, *, topics: str = "", scope: str = "") -> str:
    """A token for a user: for the topics of a pattern, or with a scope."""
    wanted: dict[str, Any] = {"user": user, "scopes": scope.split()}
    if topics:
        wanted["topics"] = {"subscribe": [topics], "publish": [topics]}
    request = Request(
        f"{ADMIN}/dev/token", json.dumps(wanted).encode(), {"Content-Type": "application/json"}
    )

    def send() -> str:
        try:
            with urlopen(request, timeout=10) as answer:
                return str(json.load(answer)["token"])
        except HTTPError as error:
            raise Refused(f"{request.full_url} makes no tokens", status=error.code) from None

    return await asyncio.to_thread(send)


def connected(token: str, device: str = "example") -> Client:
    """A client of the node, for ``async with``."""
    return connect(NODE, token=token, device=device, patience=PATIENCE)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run an example until it ends or Ctrl-C."""
    # What the client would log of its attempts and of the end, the last line says.
    logging.getLogger("pushsvc.client").setLevel(logging.CRITICAL)
    try:
        asyncio.run(main)
    except KeyboardInterrupt:
        pass
    except Exception as error:
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]  # the others follow from it
        if not isinstance(error, PushError | OSError):
            raise
        sys.exit(_explained(error))


def _explained(error: Exception) -> str:
    """What went wrong, in one line."""
    if isinstance(error, Refused):
        return f"the node refused: {error}"
    cause: BaseException = error.__cause__ or error
    if getattr(getattr(cause, "reason", cause), "errno", None) == errno.EMFILE:
        return "too many open files: allow more with `ulimit -n 65536`, or take fewer sockets"
    # Tokens are asked for by HTTP; all else goes to the node itself.
    name, address = ("PUSH_ADMIN_URL", ADMIN) if isinstance(error, URLError) else ("PUSH_URL", NODE)
    return (
        f"the node cannot be reached at {name} {address} ({error}): start one with `make run`, or "
        "say with PUSH_URL and PUSH_ADMIN_URL where it is"
    )


def at_least_one(text: str) -> int:
    """A count on the command line."""
    if (number := int(text)) < 1:
        raise ValueError
    return number
