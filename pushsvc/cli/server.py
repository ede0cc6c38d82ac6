"""The commands of the server: parsing and calling, nothing else."""

import os
import secrets
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from pushsvc import __version__
from pushsvc.cli import development
from pushsvc.cli.durations import Duration
from pushsvc.cli.settings import BadSettings, load_settings, settings_flags
from pushsvc.settings import PREFIX, Settings, SettingsError, rows

if TYPE_CHECKING:  # imported where they are needed, so that the other commands start at once
    from pushsvc.admin.dev import Mint

DEV_USER: Final = "demo"
DEV_TTL: Final = 7 * 86400.0
_SECRET: Final = f"{PREFIX}JWT_SECRET"
DEV_DEFAULTS: Final = {
    "host": "127.0.0.1",
    "admin_host": "127.0.0.1",
    # Pages that one tries things out with, whatever serves them.
    "allowed_origins": "http://localhost:*, http://127.0.0.1:*, http://[::1]:*",
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


@click.command()
@settings_flags()
def serve(**flags: Any) -> None:
    """Run one node against a Redis or Valkey.

    Settings come from PUSHSVC_* variables, each also a flag; docs/settings.md lists them.
    """
    settings = load_settings(flags)
    # Imported here, so that a bad setting and the other commands are answered at once.
    from pushsvc.server import process, supervisor  # noqa: PLC0415

    _serve(lambda: (process if settings.workers == 1 else supervisor).serve(settings))


def _serve(serving: Callable[[], None]) -> None:
    try:
        serving()
    except SettingsError as error:
        raise BadSettings(str(error)) from None


@click.command()
@settings_flags(**DEV_DEFAULTS, redis_url="the embedded Valkey, no other")
def dev(**flags: Any) -> None:
    """Run a development node with an embedded Valkey.

    Everything is kept in memory and gone when it stops. Ctrl-C ends all of it.
    The demo at /demo on the admin port shows what it does.
    Tokens are in a file that it names, where publish and listen find them.
    Programs and pages on this machine get others from POST /dev/token, on the admin port.
    """
    from pushsvc.server import supervisor  # noqa: PLC0415
    from pushsvc.server.embedded import EmbeddedServer, EmbeddedServerError  # noqa: PLC0415

    if any(flags[field] is not None for field in _OTHER_SERVER):
        raise click.ClickException(
            "pushsvc dev brings its own Valkey: use pushsvc serve for another"
        )
    try:
        with EmbeddedServer() as server, ExitStack() as until_end:
            settings = load_settings(
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
                    lambda port, admin: _introduce(settings, port, admin, until_end),
                    _mint_for_all(settings),
                )
            )
    except EmbeddedServerError as error:
        raise click.ClickException(str(error)) from None


def _mint_for_all(settings: Settings) -> "Mint | None":
    """What makes tokens for whoever asks: nothing where other machines could ask."""
    from pushsvc.admin.dev import LOOPBACK  # noqa: PLC0415
    from pushsvc.errors import InvalidToken  # noqa: PLC0415

    def mint(*wanted: Any) -> str:
        try:
            return _mint(settings, *wanted)
        except click.ClickException as error:
            raise InvalidToken(error.message) from None

    return mint if settings.admin_host in LOOPBACK else None


def _introduce(settings: Settings, port: int, admin_port: int, until_end: ExitStack) -> None:
    """Keep the tokens until the end, and print where everything is: on a screen of twelve lines."""
    from pushsvc.admin.dev import address  # noqa: PLC0415

    node = f"http://{address(settings.host, port)}"
    here = f"http://{address(settings.admin_host, admin_port)}"
    for_all = _mint_for_all(settings) is not None
    addresses = {
        "demo": f"{here}/demo" if for_all else "",
        "console": f"{here}/dev/console" if for_all else f"{here}/console",
        "API reference": f"{node}/docs",
        "node": node,
    }
    values = {development.URL: node, development.ADMIN_URL: here} | _tokens(settings)
    if (
        settings.jwt_secret is not None
        and _SECRET not in os.environ
        and not settings.jwt_secret_file
    ):
        # So that `pushsvc token`, and the programs of a backend, make tokens that this node takes.
        values[_SECRET] = settings.jwt_secret.get_secret_value()
    publish = ""
    try:
        file = _typed(until_end.enter_context(development.kept(values)))
    except OSError as error:
        why = f"{error.filename}: {error.strerror}"
        addresses["tokens"] = f"not kept: {why}; name another folder in XDG_STATE_HOME"
    else:
        elsewhere = "" if node == development.DEFAULT_URL else f" --url {node}"
        addresses |= {"tokens": file, "listen": f"{_command()} listen{elsewhere}"}
        publish = _PUBLISH.format(file=file)
    table = "".join(f"  {name:13}  {value}\n" for name, value in addresses.items() if value)
    click.echo(
        f"pushsvc {__version__} is running, with an embedded Valkey; Ctrl-C stops it.\n"
        f"{table}{publish}",
        nl=False,
    )


_PUBLISH: Final = f"""Publish to the user "{DEV_USER}":
  . {{file}}
  curl $PUSH_URL/v1/notifications -H "Authorization: Bearer $PUBLISHER_TOKEN" \\
    -H Content-Type:application/json \\
    -d '{{{{"to":{{{{"user":"{DEV_USER}"}}}},"data":{{{{"text":"hello"}}}}}}}}'
"""


def _tokens(settings: Settings) -> dict[str, str]:
    """A token for each role, by its variable; the file of issuers may grant fewer."""
    everything = {"subscribe": ("**",), "publish": ("**",)}
    tokens = {development.TOKENS["user"]: _mint(settings, DEV_USER, (), DEV_TTL, everything)}
    others: dict[development.Role, tuple[str, Sequence[str]]] = {
        "publisher": ("backend", ("push.publish",)),
        "admin": ("admin", ("push.admin", "push.publish")),
        "observer": ("observer", ("push.observe",)),
    }
    for role, (user, scopes) in others.items():
        with suppress(click.ClickException):
            tokens[development.TOKENS[role]] = _mint(settings, user, scopes, DEV_TTL)
    return tokens


def _typed(path: Path) -> str:
    """A path as one would type it in a shell."""
    home = os.environ.get("HOME", "")
    if home == shlex.quote(home) and path.is_relative_to(home):
        return f"$HOME/{shlex.quote(str(path.relative_to(home)))}"
    return shlex.quote(str(path))


def _command() -> str:
    """How this command was called, as one would type it again."""
    called = sys.argv[0]
    if called.endswith("__main__.py"):
        return f"{sys.executable} -m pushsvc"
    return os.path.relpath(called) if os.sep in called else called


def _mint(
    settings: Settings,
    user: str,
    scopes: Sequence[str],
    ttl: float,
    topics: Mapping[str, Sequence[str]] | None = None,
    issuer: str | None = None,
) -> str:
    from pushsvc.server.minting import NoSecretError, mint_for  # noqa: PLC0415

    try:
        return mint_for(settings, user, scopes, ttl, topics, issuer=issuer)
    except NoSecretError as error:
        raise click.ClickException(str(error)) from None


@click.command()
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
@click.option(
    "--issuer", metavar="NAME", help="Whose secret signs it, where PUSHSVC_AUTH_FILE has several."
)
@click.option("--ttl", type=Duration(), default="1h", show_default=True, help="Time to live.")
def token(
    user: str,
    scopes: tuple[str, ...],
    subscribe: tuple[str, ...],
    publish: tuple[str, ...],
    issuer: str | None,
    ttl: float,
) -> None:
    """Mint a token with a secret of the settings.

    For development: in production, what logs users in does so.
    """
    from pushsvc.errors import InvalidName, InvalidToken  # noqa: PLC0415

    topics = {"subscribe": subscribe, "publish": publish}
    granted = {name: patterns for name, patterns in topics.items() if patterns}
    try:
        click.echo(_mint(load_settings({}), user, scopes, ttl, granted or None, issuer))
    except (InvalidName, InvalidToken) as error:
        raise click.ClickException(error.detail) from None
