"""The commands of the client, which need nothing of the server."""

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, cast

import click

from pushsvc.cli.development import Node, to_node
from pushsvc.cli.durations import Duration, Moment
from pushsvc.printable import printable

if TYPE_CHECKING:  # imported where they are needed, so that the other commands start at once
    from pushsvc.client import Content, Note, Publisher, PushError, Receipt, State

logging.getLogger("pushsvc.client").addHandler(logging.NullHandler())
# What the client warns of is said by the commands, once, in words of theirs.

DEADLINE: Final = 5.0
"""Seconds that a command tries: somebody waits for it."""


@contextmanager
def publisher_of(node: Node) -> Iterator["Publisher"]:
    """What a command asks a node with; what goes wrong is told as a command ends."""
    from pushsvc.client import Publisher, PushError  # noqa: PLC0415

    try:
        with Publisher(node.url, token=node.token, deadline=DEADLINE) as publisher:
            yield publisher
    except PushError as error:
        raise failed(node, error) from None
    except ValueError as error:
        raise click.UsageError(printable(str(error))) from None


def failed(node: Node, error: Exception) -> click.ClickException:
    """What a command ends with, in one line."""
    told = f"{node.url}: {error}"
    if getattr(error, "code", None) == "invalid_token":
        told += f" (the token is that of {node.source})"
    return click.ClickException(printable(told))


def _push_of(_: click.Context, __: click.Parameter, text: str | None) -> Any:
    """What a push shows, of the option."""
    if text is None:
        return None
    try:
        push = json.loads(text)
    except ValueError:
        push = None
    if not isinstance(push, dict):
        raise click.BadParameter('not a JSON object, such as \'{"after": 10, "title": "Hello"}\'')
    return push


@click.command()
@to_node("publisher")
@click.option("--user", "users", multiple=True, help="To this user; may be repeated.")
@click.option("--device", help="To this device of the user alone.")
@click.option("--topic", help="To who listens to this topic.")
@click.option("--broadcast", is_flag=True, help="To everyone.")
@click.option("--event", help="What kind of notification it is, such as order.shipped.")
@click.option("--ttl", type=Duration(), help="How long it is worth delivering; 0s is live only.")
@click.option("--at", type=Moment(), help="When: +10m, or 2026-01-31T09:00:00Z. [default: now]")
@click.option("--collapse-key", help="It takes the place of an older one with the same key.")
@click.option("--ephemeral", is_flag=True, help="It is worthless a moment later, and not stored.")
@click.option(
    "--deliver",
    type=click.Choice(["all", "any-device"]),
    help="To all devices of the user, or until any one acknowledges it. [default: all]",
)
@click.option("--receipt", is_flag=True, help="Have the service tell what becomes of it.")
@click.option(
    "--push",
    callback=_push_of,
    help='What devices that are away are shown, as JSON: {"after": 10, "title": "Hello"}.',
)
@click.option(
    "--no-inbox",
    "inbox",
    flag_value=False,
    default=True,
    help="A signal: not counted as unread, nor in the list.",
)
@click.option("--idempotency-key", help="Makes a retry safe: one key, one notification.")
@click.argument("data")
def publish(
    node: Node,
    users: tuple[str, ...],
    device: str | None,
    topic: str | None,
    broadcast: bool,  # noqa: FBT001 - click passes what the options name
    inbox: bool,  # noqa: FBT001 - the same
    idempotency_key: str | None,
    data: str,
    **fields: Any,
) -> None:
    """Publish one notification.

    DATA is JSON; anything else is sent as a string. With - it is read from standard input.
    Prints the answer as a line of JSON. Fails if it was not accepted for each user.
    """
    if [bool(users), topic is not None, broadcast].count(True) != 1:
        raise click.UsageError("name --user, --topic or --broadcast, one of them")
    if "" in (*users, topic, device):
        raise click.UsageError("--user, --device and --topic take a name: this one is empty")
    if device is not None and len(users) != 1:
        raise click.UsageError("--device is one of a single user: give it with one --user")
    # What was not given is left out: some fields are for users only.
    given = {
        name: value for name, value in fields.items() if value is not None and value is not False
    }
    if not inbox:
        given["inbox"] = False
    content = cast("Content", {"data": _value(data), **given})
    refused = 0
    with publisher_of(node) as publisher:
        if len(users) > 1:
            results = publisher.publish_to_users(users, idempotency_key=idempotency_key, **content)
            told: Any = {"results": [_to_json(result) for result in results]}
            refused = sum(isinstance(result, Exception) for result in results)
        else:
            note = cast("Note", dict(content))
            if topic is not None:
                note["topic"] = topic
            elif broadcast:
                note["broadcast"] = True
            else:
                note["user"] = users[0]
                note["device"] = device
            told = _to_json(publisher.publish(idempotency_key=idempotency_key, **note))
    click.echo(json.dumps(told, default=text_of))
    if refused:
        raise click.ClickException(f"{refused} of {len(users)} were not published: see above")


def _value(data: str) -> Any:
    """What is published: JSON, or else a string."""
    if data == "-":
        try:
            data = sys.stdin.buffer.read().decode()
        except UnicodeDecodeError:
            raise click.UsageError("what comes on standard input is not UTF-8") from None
        data = data.removesuffix("\n")  # with which a shell ends what it prints
    try:
        return json.loads(data)
    except RecursionError:
        raise click.UsageError("DATA is nested too deeply") from None
    except ValueError:
        return data


def text_of(value: datetime) -> str:
    """A time as the service writes it."""
    return value.isoformat().replace("+00:00", "Z")


def _to_json(result: "Receipt | PushError") -> dict[str, Any]:
    """What became of one publish, as the service says it."""
    told = asdict(result) if is_dataclass(result) else {"error": str(result)}
    return {name: value for name, value in told.items() if value is not None}


@click.command()
@to_node("user")
@click.option("--device", default="default", show_default=True, help="Whose cursor to use.")
@click.option("--topic", "topics", multiple=True, help="Listen to a topic too; may be repeated.")
@click.option("--ack/--no-ack", default=True, show_default=True, help="Acknowledge what comes.")
@click.option("--count", type=click.IntRange(1), help="End after so many notifications.")
def listen(
    node: Node,
    device: str,
    topics: tuple[str, ...],
    ack: bool,  # noqa: FBT001 - click passes what the options name
    count: int | None,
) -> None:
    """Listen as a device: print each message, and acknowledge it.

    Each is a line of JSON; so is what the user has read or archived elsewhere. Reconnects by itself
    until the server says that it is useless.
    """
    import asyncio  # noqa: PLC0415

    from pushsvc.client import PushError  # noqa: PLC0415

    try:
        asyncio.run(_listen(node, device, topics, ack=ack, count=count))
    except (PushError, ValueError) as error:
        raise failed(node, error) from None
    except KeyboardInterrupt:
        return


async def _listen(
    node: Node, device: str, topics: Sequence[str], *, ack: bool, count: int | None
) -> None:
    from pushsvc.client import Notification, Problem, connect  # noqa: PLC0415

    def shown(message: dict[str, Any]) -> None:
        """Answers and the like; what the loop below is given is shown when it is its turn."""
        if message["type"] in ("welcome", "reply", "reconnect"):
            click.echo(json.dumps(message))

    def waits(state: "State") -> None:
        if state.status == "waiting" and state.error is not None:
            why = str(state.error)
            told = why if node.url in why else f"{node.url} cannot be reached: {why}"
            click.echo(printable(f"{told}; trying again"), err=True)

    client = connect(
        node.url, token=node.token, device=device, topics=topics, ack="auto" if ack else "manual",
        on_message=shown, on_state=waits,
    )  # fmt: skip
    left = count
    async with client:
        async for message in client:
            click.echo(json.dumps(message.raw))
            if isinstance(message, Problem) and message.topic is not None:
                raise message.as_error()
            if isinstance(message, Notification) and left is not None:
                left -= 1
                if left == 0:
                    if ack:
                        await message.ack()
                    return
