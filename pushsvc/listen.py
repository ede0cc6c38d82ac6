"""A small listener for the command line: reconnects, acknowledges, gives up when told to."""

import json
import random
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from pushsvc.codes import means_reconnect

FIRST_WAIT = 0.5
LONGEST_WAIT = 30.0
SUBSCRIBING = 0
"""The ``ref`` of the one message that asks for the topics."""


class Refused(Exception):
    """The server says that coming back is useless."""


def notifications(
    url: str, token: str, device: str, topics: Iterable[str] = (), *, ack: bool, count: int | None
) -> Iterator[str]:
    """The messages of a device's mailbox, of the broadcast and of topics, as JSON texts.

    Args:
        url: of a node, http(s) or ws(s).
        token: the user's token.
        device: whose cursor is used.
        topics: to subscribe to; after a reconnect they go on where they were.
        ack: whether notifications are acknowledged once the caller asks for the next message.
        count: how many notifications to wait for; None for no end.

    Raises:
        Refused: the server refused the token or a topic, or closed with a code that says stop.
    """
    wait = FIRST_WAIT
    left = count
    last: dict[str, str | None] = dict.fromkeys(topics)
    while True:
        hint = 0.0
        try:
            with _open(url, token, device) as socket:
                wait = FIRST_WAIT
                if last:
                    wanted = {"type": "subscribe", "topics": last, "ref": SUBSCRIBING}
                    socket.send(json.dumps(wanted))
                for text in socket:
                    yield str(text)
                    message = json.loads(text)
                    _learn(last, message)
                    if message["type"] == "error" and message.get("ref") == SUBSCRIBING:
                        hint = _retry_after(message)
                        break
                    if message["type"] == "reconnect":
                        hint = message["retry_after"]
                    if message["type"] == "notification":
                        if ack and "id" in message and "topic" not in message:
                            socket.send(json.dumps(_ack(message)))
                        left = None if left is None else left - 1
                    if left == 0:
                        return
        except (InvalidStatus, ConnectionClosed, OSError) as error:
            hint = hint or _pause(error)
        time.sleep(hint + random.random() * wait)  # noqa: S311 - full jitter, not a secret
        wait = min(wait * 2, LONGEST_WAIT)


def _learn(last: dict[str, str | None], message: dict[str, Any]) -> None:
    """Remember where to go on in each topic."""
    if message["type"] == "reply" and "topics" in message:
        last |= {name: at for name, at in message["topics"].items() if last[name] is None}
    elif message["type"] == "notification" and "topic" in message and "id" in message:
        last[message["topic"]] = message["id"]


def _retry_after(error: dict[str, Any]) -> float:
    """How long to wait until the topics are asked for again, in seconds.

    Raises:
        Refused: they will not be had.
    """
    if not error["temporary"]:
        raise Refused(error["detail"])
    return float(error.get("retry_after", 0.0))


def _ack(message: dict[str, Any]) -> dict[str, Any]:
    where = {"broadcast": True} if "broadcast" in message else {}
    return {"type": "ack", "id": message["id"], **where}


def _pause(error: Exception) -> float:
    """How long the server wants a client to wait that met this error, in seconds.

    Raises:
        Refused: coming back is useless.
    """
    if isinstance(error, InvalidStatus):
        if error.response.status_code not in (429, 503):
            raise Refused(_reason(error)) from None
        return float(error.response.headers.get("Retry-After", 1))
    if isinstance(error, ConnectionClosed):
        if error.rcvd is not None and not means_reconnect(error.rcvd.code):
            raise Refused(f"{error.rcvd.code}: {error.rcvd.reason}") from None
    else:
        sys.stderr.write(f"the node cannot be reached ({error}); trying again\n")
    return 0.0


def _open(url: str, token: str, device: str) -> ClientConnection:
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    address = urlunsplit(
        (scheme, parts.netloc, parts.path.rstrip("/") + "/v1/ws", urlencode({"device": device}), "")
    )
    return connect(
        address,
        subprotocols=[Subprotocol("pushsvc.v1.json")],
        additional_headers={"Authorization": f"Bearer {token}"},
    )


def _reason(error: InvalidStatus) -> str:
    status = error.response.status_code
    try:
        return f"{status}: {json.loads(error.response.body)['detail']}"
    except (ValueError, KeyError, TypeError):
        return f"the server answered {status}"
