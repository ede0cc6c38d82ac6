"""The commands of a backend beside publishing, which need nothing of the server.

What is found is printed as lines of JSON.
"""

import json
import time
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

import click

from pushsvc.cli.client import DEADLINE, failed, publisher_of, text_of
from pushsvc.cli.development import ADMIN_URL, TOKENS, Node, NoNode, to_node
from pushsvc.cli.durations import Duration, Moment
from pushsvc.printable import printable

TRACE: Final = "/console/api/trace"
"""Of the admin port."""

_ttl = click.option(
    "--ttl",
    type=Duration(),
    help="How long it is kept: longer than the tokens live. [default: 30d]",
)


def _say(value: Any) -> None:
    """Print a line of JSON."""
    click.echo(json.dumps(value, default=text_of))


def _known(told: dict[str, Any]) -> dict[str, Any]:
    """Only what there is."""
    return {name: value for name, value in told.items() if value is not None}


@click.command()
@to_node("publisher")
@click.option("--limit", type=click.IntRange(1), help="How many at most. [default: all]")
@click.option("--before", metavar="ID", help="Only those before this one.")
@click.argument("user")
def history(node: Node, limit: int | None, before: str | None, user: str) -> None:
    """Print what a user's mailbox keeps, newest first.

    Each line has the devices that acknowledged it. A user's own token reads its own.
    """
    with publisher_of(node) as publisher:
        for kept in publisher.history(user, limit=limit, before=before):
            _say(kept.raw)


@click.command()
@to_node("publisher")
@click.option("--user", help="From this user.")
@click.option("--topic", help="From this topic, before it is out.")
@click.option("--broadcast", is_flag=True, help="It is for everyone, and not out yet.")
@click.argument("notification", metavar="ID")
def recall(
    node: Node,
    user: str | None,
    topic: str | None,
    broadcast: bool,  # noqa: FBT001 - click passes what the options name
    notification: str,
) -> None:
    """Take a notification back.

    Devices of a user that have not acknowledged it never see it, or are told that it is
    withdrawn. What is scheduled never goes out.
    """
    if [user is not None, topic is not None, broadcast].count(True) != 1:
        raise click.UsageError("name --user, --topic or --broadcast, one of them")
    with publisher_of(node) as publisher:
        recalled = publisher.recall(notification, user=user, topic=topic, broadcast=broadcast)
    if recalled is None:
        if user is not None:
            why = (
                f"the mailbox of {user!r} keeps no {notification}: it has expired, was"
                " trimmed or recalled, or is of another user"
            )
        else:
            why = f"{notification} does not wait there: it is out, or was published elsewhere"
        raise click.ClickException(printable(f"{node.url}: {why}"))
    told = asdict(recalled)
    if not recalled.cancelled:
        del told["cancelled"]
    _say(_known(told))


@click.command()
@to_node("publisher")
@click.option("--user", help="The devices of this user.")
@click.option("--topic", help="The users who listen to this topic, at most 500 by name.")
def presence(node: Node, user: str | None, topic: str | None) -> None:
    """Print a user's devices that are connected, or a topic's users.

    Of a user a line for each device, of a topic one line.
    """
    if (user is None) == (topic is None):
        raise click.UsageError("name --user or --topic, one of them")
    with publisher_of(node) as publisher:
        if user is not None:
            for device in publisher.devices(user):
                _say(
                    {
                        "device": device.name,
                        "connections": device.connections,
                        "since": device.since,
                    }
                )
        if topic is not None:
            present = publisher.presence(topic)
            users, count = present
            _say({"users": users, "count": count, "sample": present.sample})


@click.command()
@to_node("admin")
@_ttl
@click.argument("user")
def disconnect(node: Node, ttl: float | None, user: str) -> None:
    """Close a user's connections, and refuse the tokens so far."""
    with publisher_of(node) as publisher:
        _say(_known(asdict(publisher.disconnect(user, ttl=ttl))))


@click.command()
@to_node("admin")
@click.argument("user")
def erase(node: Node, user: str) -> None:
    """Erase all that is kept of a user.

    Connections begin anew, and tokens stay good: `disconnect` refuses those.
    """
    with publisher_of(node) as publisher:
        _say(asdict(publisher.erase(user)))


@click.command()
@to_node("admin")
@click.argument("user")
def export(node: Node, user: str) -> None:
    """Print all that is kept of a user, in parts of a line each."""
    with publisher_of(node) as publisher:
        for part in publisher.export(user):
            _say(part)


@click.command()
@to_node("admin")
@click.option("--user", help="The tokens of this user.")
@click.option("--jti", help="The one token with this id.")
@click.option("--everyone", is_flag=True, help="All tokens, yours too; with --issued-before.")
@click.option(
    "--issued-before",
    type=Moment(),
    help="Only tokens issued up to then: now, -10m, or 2026-01-31T09:00:00Z.",
)
@_ttl
@click.option("--list", "listing", is_flag=True, help="Print what is revoked, and do nothing.")
def revoke(
    node: Node,
    user: str | None,
    jti: str | None,
    everyone: bool,  # noqa: FBT001 - click passes what the options name
    issued_before: datetime | None,
    ttl: float | None,
    listing: bool,  # noqa: FBT001 - the same
) -> None:
    """Refuse tokens from now on, and close their connections."""
    named = [user is not None, jti is not None, everyone, listing].count(True)
    if named != 1:
        raise click.UsageError("name --user, --jti, --everyone or --list, one of them")
    with publisher_of(node) as publisher:
        if listing:
            for each in publisher.revocations():
                _say(_known(asdict(each)))
            return
        revoked = publisher.revoke(
            user=user, jti=jti, everyone=everyone, issued_before=issued_before, ttl=ttl
        )
        _say(_known(asdict(revoked)))


@click.command()
@to_node("observer")
@click.option(
    "--admin-url",
    envvar=ADMIN_URL,
    help=f"The admin port of any node, or set {ADMIN_URL}."
    " [default: that of pushsvc dev on this machine]",
)
@click.option("--user", help="Whose mailbox it is in, for one that was published long ago.")
@click.option("--topic", help="The topic that it was published to.")
@click.option("--broadcast", is_flag=True, help="It was for everyone.")
@click.option("--namespace", help="Where it is, for a token of an operator.")
@click.argument("notification", metavar="ID")
def trace(
    node: Node,
    admin_url: str | None,
    user: str | None,
    topic: str | None,
    broadcast: bool,  # noqa: FBT001 - click passes what the options name
    namespace: str | None,
    notification: str,
) -> None:
    """Print where a notification is, from accepted to acknowledged.

    Asks all nodes, by the admin port of one; push.observe or push.admin is the scope.
    """
    from pushsvc.client.calls import Request  # noqa: PLC0415
    from pushsvc.client.errors import Refused  # noqa: PLC0415
    from pushsvc.client.http import Http  # noqa: PLC0415

    if [user is not None, topic is not None, broadcast].count(True) > 1:
        raise click.UsageError("name --user, --topic or --broadcast, one of them at most")
    at = _admin_port(node, admin_url)
    given = {
        "id": notification, "user": user, "topic": topic, "namespace": namespace,
        "broadcast": "true" if broadcast else None,
    }  # fmt: skip
    query = {name: value for name, value in given.items() if value is not None}
    request = Request(f"{TRACE}?{urlencode(query, quote_via=quote)}", method="GET", status=200)
    try:
        with Http(at.url, 1, None) as http:
            answer = http.send(request, at.token, DEADLINE, time.monotonic() + DEADLINE)
    except ValueError as error:
        raise click.UsageError(printable(str(error))) from None
    if isinstance(answer, Exception):
        raise failed(at, answer)
    try:
        told = json.loads(answer.body)
    except (ValueError, RecursionError):
        told = None
    if answer.status == request.status and isinstance(told, dict):
        _say(told)
        return
    raise failed(at, Refused.of(told, answer.status))


def _admin_port(node: Node, given: str | None) -> Node:
    """Where to ask, and with which token.

    Raises:
        NoNode: there is no such address, or no token for it.
    """
    url = given or node.admin_url
    if url is None:
        raise NoNode(
            f"no admin port: set {ADMIN_URL}, or give --admin-url, such as http://127.0.0.1:9090"
        )
    if node.source == "pushsvc dev" and url.rstrip("/") != (node.admin_url or "").rstrip("/"):
        raise NoNode(f"no token for {url}: set {TOKENS['observer']}, or give --token")
    return Node(url, node.token, node.source, url)
