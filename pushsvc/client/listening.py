"""How a program begins: ``listen`` for notifications alone, ``connect`` for everything else."""

import logging
import ssl as tls
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Literal

from pushsvc.client.backoff import ReconnectPolicy, Timing
from pushsvc.client.connection import Client, State
from pushsvc.client.messages import Gap, Notification, Problem, Raw
from pushsvc.client.tokens import Token

_log = logging.getLogger("pushsvc.client")


def connect(
    url: str,
    *,
    token: Token,
    device: str = "default",
    topics: Iterable[str] | Mapping[str, str | None] = (),
    ack: Literal["auto", "manual"] = "auto",
    queue: int = 100,
    timing: Timing | None = None,
    patience: float | None = None,
    ssl: tls.SSLContext | None = None,
    on_state: Callable[[State], None] | None = None,
    on_message: Callable[[Raw], None] | None = None,
) -> Client:
    """A client of a node, which comes back by itself whatever happens to the connection.

    ::

        async with connect("https://push.example.com", token=token) as client:
            await client.subscribe("scores.nba")
            async for message in client:
                match message:
                    case Notification(): print(message.data)
                    case Presence(): print(message.joined)

    Args:
        url: of a node or of what stands before the nodes, http(s) or ws(s).
        token: the user's token, or a function that returns one, see ``Token``.
        device: whose place in the mailbox is used.
        topics: to listen to; a mapping says after which id, None being the topic's state. One that
            the token does not open, now or after a reconnect, is told as a ``Problem`` in the loop,
            and not listened to; all else goes on.
        ack: ``auto`` acknowledges a notification when the next one is asked for; with ``manual``
            the program calls ``await notification.ack()``. A notification is given once in the
            life of this client either way.
        queue: how many questions may wait for a connection.
        timing: how fast to come back.
        patience: seconds without a connection after which it gives up; None for never.
        ssl: for wss; the system's by default.
        on_state: called at each change of ``client.state``. What it raises ends the client.
        on_message: called with each message as it comes, repetitions too: for logs. What it raises
            ends the client.

    Raises:
        ValueError: the URL is none of http, https, ws or wss, or a position is no id.
    """
    positions = dict(topics) if isinstance(topics, Mapping) else dict.fromkeys(topics)
    reconnection = ReconnectPolicy(
        timing or Timing(), renewable=not isinstance(token, str), patience=patience
    )
    return Client(
        url, token, device, positions, auto_ack=ack == "auto", queue=queue,
        reconnection=reconnection, ssl=ssl, on_state=on_state, on_message=on_message,
    )  # fmt: skip


async def listen(
    url: str,
    *,
    token: Token,
    device: str = "default",
    topics: Iterable[str] | Mapping[str, str | None] = (),
    ack: Literal["auto", "manual"] = "auto",
    timing: Timing | None = None,
    patience: float | None = None,
    ssl: tls.SSLContext | None = None,
) -> AsyncGenerator[Notification]:
    """The notifications of a user's device, of the broadcast and of topics, each once, in order.

    ::

        async for notification in listen("https://push.example.com", token=token):
            print(notification.data)

    Comes back by itself when the connection ends, and goes on where it was. The arguments and the
    errors are those of ``connect``, which also tells of gaps, presence and what was withdrawn; but
    a topic that the token does not open ends the loop with ``Refused``, and a gap is a warning in
    the log. A notification is acknowledged when the next one is asked for; one at which the loop
    is left is not, and comes again, unless ``await notification.ack()`` was called.

    Whoever leaves the loop and goes on with the same device uses ``contextlib.aclosing``, as with
    any asynchronous generator: its end closes the connection and sends the last acks.
    """
    client = connect(
        url, token=token, device=device, topics=topics, ack=ack, timing=timing,
        patience=patience, ssl=ssl,
    )  # fmt: skip
    async with client, aclosing(aiter(client)) as messages:
        async for message in messages:
            if isinstance(message, Notification):
                yield message
            elif isinstance(message, Gap):
                where = message.topic or ("the broadcast" if message.broadcast else "the mailbox")
                _log.warning(
                    "some of %s are gone after %s (%s)", where, message.after, message.reason
                )
            elif isinstance(message, Problem) and (message.topic or message.code == "forbidden"):
                raise message.as_error()  # silence would look like a topic in which nothing happens
