"""The ``pushsvc`` command: parsing and calling, nothing else."""

import functools
import json
import os
import re
import secrets
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from pushsvc import __version__, logs
from pushsvc.settings import PREFIX, Settings, SettingsError, load, rows

if TYPE_CHECKING:  # imported where they are needed, so that the other commands start at once
    from pushsvc.client import Content, Note, PushError, Receipt, State
    from pushsvc.web.dev import Mint

DEV_USER: Final = "demo"
DEV_TTL: Final = 7 * 86400.0
DEV_DEFAULTS: Final = {
    "host": "127.0.0.1",
    "admin_host": "127.0.0.1",
    # Pages that one tries things out with, whatever serves them.
    "allowed_origins": "http://localhost:*,http://127.0.0.1:*",
    "drain_seconds": "0",
    "log_level": "warning",
    # Enough for what sends 20 times a second: cursors, positions.
    "rate_messages_per_second": "50",
    "rate_burst": "100",
}
"""What ``pushsvc dev`` assumes where neither a flag nor a variable says otherwise."""
_OTHER_SERVER: Final = [
    row.field for row in rows() if row.field.startswith("redis_") and row.field != "redis_prefix"
]
"""Where another server is and how it lets one in, which ``pushsvc dev`` has no use for."""
PUBLISH_DEADLINE: Final = 5.0
"""Seconds that `pushsvc publish` tries: somebody waits for it."""
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Duration(click.ParamType[float]):
    """A time such as 90s, 15m, 1h or 7d, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Parse."""
        match = re.fullmatch(r"(\d+)([smhd])", str(value))
        if not match:
            self.fail(f"{value!r} is no duration: write 90s, 15m, 1h or 7d", param, ctx)
        return int(match[1]) * _UNITS[match[2]]


def settings_flags(**defaults: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command one flag for each setting; a flag wins over its environment variable.

    Args:
        defaults: by field name, for the help of a command that has its own.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for row in reversed(rows()):
            if row.flag is not None:
                default = defaults.get(row.field, row.default)
                command = click.option(
                    row.flag,
                    row.field,
                    metavar="|".join(row.choices) or None,
                    help=row.help + (f" [default: {default}]" if default else ""),
                )(command)
        return command

    return decorate


class _BadSettings(click.ClickException):
    exit_code = 2


def _load(flags: dict[str, Any], *, ignored: Collection[str] = (), **defaults: str) -> Settings:
    """The settings of a command.

    Args:
        flags: what the command line says.
        ignored: names of fields whose variables do not count.
        defaults: by field name, for what nothing else says.
    """
    environ = dict(os.environ)
    for field in ignored:
        environ.pop(f"{PREFIX}{field.upper()}", None)
    for field, value in defaults.items():
        name = f"{PREFIX}{field.upper()}"
        # A secret that somebody has in a file is said as well.
        if not flags.get(f"{field}_file") and not environ.get(f"{name}_FILE"):
            environ.setdefault(name, value)
    try:
        settings = load(environ, flags)
    except SettingsError as error:
        raise _BadSettings(str(error)) from None
    logs.configure(settings.log_format, settings.log_level)
    return settings


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def main() -> None:
    """Push notifications with an acknowledged, durable mailbox per user and device.

    Try it: `pushsvc dev` starts a node with an embedded Valkey and prints what to paste.
    """


@main.command()
@settings_flags()
def serve(**flags: Any) -> None:
    """Run one node against a Redis or Valkey.

    Settings come from PUSHSVC_* variables, each also a flag; docs/settings.md lists them.
    """
    # Imported here, so that the other commands start at once.
    from pushsvc import run, supervisor  # noqa: PLC0415

    settings = _load(flags)
    _serve(lambda: (run if settings.workers == 1 else supervisor).serve(settings))


def _serve(serving: Callable[[], None]) -> None:
    try:
        serving()
    except SettingsError as error:
        raise _BadSettings(str(error)) from None


@main.command()
@settings_flags(**DEV_DEFAULTS, redis_url="the embedded Valkey, no other")
def dev(**flags: Any) -> None:
    """Run a node with an embedded Valkey on this machine, for development.

    Everything is kept in memory and gone when it stops. Ctrl-C ends all of it.
    The demo at /demo on the admin port shows what it does.
    Programs on this machine get tokens from POST /dev/token, on the same port.
    """
    from pushsvc import supervisor  # noqa: PLC0415
    from pushsvc.embedded import EmbeddedServer, EmbeddedServerError  # noqa: PLC0415

    if any(flags[field] is not None for field in _OTHER_SERVER):
        raise click.ClickException(
            "pushsvc dev brings its own Valkey: use pushsvc serve for another"
        )
    try:
        with EmbeddedServer() as server:
            settings = _load(
                flags | {"redis_url": server.url},
                # They may be those of a node that runs here too.
                ignored=_OTHER_SERVER,
                jwt_secret=secrets.token_urlsafe(32),
                **DEV_DEFAULTS,
            )
            # The node is a child, even where it is the only one, so that it can be killed.
            _serve(
                lambda: supervisor.serve(
                    settings,
                    lambda port, admin: _introduce(settings, port, admin),
                    _mint_for_all(settings),
                )
            )
    except EmbeddedServerError as error:
        raise click.ClickException(str(error)) from None


def _mint_for_all(settings: Settings) -> "Mint | None":
    """What makes tokens for whoever asks: nothing where other machines could ask."""
    from pushsvc.web.dev import LOOPBACK  # noqa: PLC0415

    return functools.partial(_mint, settings) if settings.admin_host in LOOPBACK else None


def _introduce(settings: Settings, port: int, admin_port: int) -> None:
    from pushsvc.web.dev import address  # noqa: PLC0415

    node = f"http://{address(settings.host, port)}"
    here = f"http://{address(settings.admin_host, admin_port)}"
    demo = f"\n  demo             {here}/demo  (begin here)" if _mint_for_all(settings) else ""
    everything = {"subscribe": ("**",), "publish": ("**",)}
    user = _mint(settings, DEV_USER, (), DEV_TTL, everything)
    publisher = _mint(settings, "backend", ("push.publish",), DEV_TTL)
    admin = _mint(settings, "admin", ("push.admin", "push.publish"), DEV_TTL)
    click.echo(f"""
pushsvc {__version__} is running, with an embedded Valkey; Ctrl-C stops it.
{demo}
  console          {here}/console#token={admin}
  API reference    {node}/docs

  node             {node}
  user token       {user}
  publisher token  {publisher}
  admin token      {admin}

Listen as user "{DEV_USER}" in a second terminal:

  {_command()} listen --url {node} --token {user}

Publish to that user in a third one:

  curl -sS {node}/v1/notifications -H 'Content-Type: application/json' \\
    -H 'Authorization: Bearer {publisher}' \\
    -d '{{"to":{{"user":"{DEV_USER}"}},"data":{{"text":"hello"}}}}'

For programs, such as those of the README, paste this before you start them:

  export PUSH_URL={node} USER_TOKEN={user} PUBLISHER_TOKEN={publisher}
""")


def _command() -> str:
    """How this command was called, as one would type it again."""
    called = sys.argv[0]
    if called.endswith("__main__.py"):
        return f"{sys.executable} -m {__package__}"
    return os.path.relpath(called) if os.sep in called else called


def _mint(
    settings: Settings,
    user: str,
    scopes: Sequence[str],
    ttl: float,
    topics: Mapping[str, Sequence[str]] | None = None,
) -> str:
    from pushsvc.auth.tokens import mint  # noqa: PLC0415

    if settings.jwt_secret is None:
        raise click.ClickException(
            "PUSHSVC_JWT_SECRET is not set: tokens can be minted with a shared secret only"
        )
    return mint(
        secret=settings.jwt_secret.get_secret_value(),
        user=user,
        audience=settings.jwt_audience,
        scopes=scopes,
        topics=topics,
        ttl=ttl,
        issuer=settings.jwt_issuer,
    )


@main.command()
@click.option("--user", required=True, help="The user id (`sub`).")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(["push.receive", "push.publish", "push.admin", "push.observe"]),
    help="A scope; may be given several times.",
)
@click.option(
    "--subscribe",
    metavar="PATTERN",
    multiple=True,
    help="Topics it may subscribe to, such as scores.* or chat.**; may be given several times.",
)
@click.option(
    "--publish",
    metavar="PATTERN",
    multiple=True,
    help="Topics it may publish to on a socket; may be given several times.",
)
@click.option("--ttl", type=Duration(), default="1h", show_default=True, help="Time to live.")
def token(
    user: str,
    scopes: tuple[str, ...],
    subscribe: tuple[str, ...],
    publish: tuple[str, ...],
    ttl: float,
) -> None:
    """Mint a token with the secret in PUSHSVC_JWT_SECRET, for development."""
    from pushsvc.errors import InvalidName, InvalidToken  # noqa: PLC0415

    topics = {"subscribe": subscribe, "publish": publish}
    granted = {name: patterns for name, patterns in topics.items() if patterns}
    try:
        click.echo(_mint(_load({}), user, scopes, ttl, granted or None))
    except (InvalidName, InvalidToken) as error:
        raise click.ClickException(error.detail) from None


_url = click.option(
    "--url",
    default="http://127.0.0.1:8080",
    show_default=True,
    envvar="PUSH_URL",
    help="The node's address, or set PUSH_URL.",
)


def _token(variable: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--token", required=True, envvar=variable, help=f"The token, or set {variable}."
    )


@main.command()
@_url
@_token("PUBLISHER_TOKEN")
@click.option("--user", "users", multiple=True, help="To this user; may be repeated.")
@click.option("--topic", help="To who listens to this topic.")
@click.option("--broadcast", is_flag=True, help="To everyone.")
@click.option("--event", help="What kind of notification it is, such as order.shipped.")
@click.option("--ttl", type=Duration(), help="How long it is worth delivering; 0s is live only.")
@click.option("--idempotency-key", help="Makes a retry safe: one key, one notification.")
@click.argument("data")
def publish(
    url: str,
    token: str,
    users: tuple[str, ...],
    topic: str | None,
    broadcast: bool,  # noqa: FBT001 - click passes what the options name
    event: str | None,
    ttl: float | None,
    idempotency_key: str | None,
    data: str,
) -> None:
    """Publish one notification. DATA is JSON; anything else is sent as a string."""
    if [bool(users), topic is not None, broadcast].count(True) != 1:
        raise click.UsageError("name --user, --topic or --broadcast, one of them")
    try:
        value = json.loads(data)
    except ValueError:
        value = data
    from pushsvc.client import Publisher, PushError  # noqa: PLC0415

    content: Content = {"data": value, "event": event, "ttl": ttl}
    try:
        with Publisher(url, token=token, deadline=PUBLISH_DEADLINE) as publisher:
            if len(users) > 1:
                results = publisher.publish_to_users(
                    users, idempotency_key=idempotency_key, **content
                )
                told: Any = {"results": [_told(result) for result in results]}
            else:
                note: Note = {"data": value, "event": event, "ttl": ttl}
                if topic is not None:
                    note["topic"] = topic
                elif broadcast:
                    note["broadcast"] = True
                else:
                    note["user"] = users[0]
                told = _told(publisher.publish(idempotency_key=idempotency_key, **note))
    except PushError as error:
        raise click.ClickException(f"{url}: {error}") from None
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    click.echo(json.dumps(told))


def _told(result: "Receipt | PushError") -> dict[str, Any]:
    """What became of one publish, as the service says it."""
    told = asdict(result) if is_dataclass(result) else {"error": str(result)}
    return {name: value for name, value in told.items() if value is not None}


@main.command()
@_url
@_token("USER_TOKEN")
@click.option("--device", default="default", show_default=True, help="Whose cursor to use.")
@click.option("--topic", "topics", multiple=True, help="Listen to a topic too; may be repeated.")
@click.option("--ack/--no-ack", default=True, show_default=True, help="Acknowledge what comes.")
@click.option("--count", type=click.IntRange(1), help="End after so many notifications.")
def listen(
    url: str,
    token: str,
    device: str,
    topics: tuple[str, ...],
    ack: bool,  # noqa: FBT001 - click passes what the options name
    count: int | None,
) -> None:
    """Print each message as a line of JSON, and acknowledge notifications.

    Reconnects by itself until the server says that it is useless.
    """
    import asyncio  # noqa: PLC0415

    from pushsvc.client import PushError  # noqa: PLC0415

    try:
        asyncio.run(_listen(url, token, device, topics, ack=ack, count=count))
    except (PushError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        return


async def _listen(
    url: str, token: str, device: str, topics: Sequence[str], *, ack: bool, count: int | None
) -> None:
    from pushsvc.client import Notification, Problem, connect  # noqa: PLC0415

    def shown(message: dict[str, Any]) -> None:
        """Answers and the like; what the loop below is given is shown when it is its turn."""
        if message["type"] in ("welcome", "reply", "reconnect"):
            click.echo(json.dumps(message))

    def waits(state: "State") -> None:
        if state.status == "waiting" and state.error is not None:
            click.echo(f"{url} cannot be reached ({state.error}); trying again", err=True)

    client = connect(
        url, token=token, device=device, topics=topics, ack="auto" if ack else "manual",
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
