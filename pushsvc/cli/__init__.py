"""The ``pushsvc`` command.

The package without extras is the client, so the commands of the server are imported when one of
them is asked for, and only where the server is installed.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, NamedTuple, cast

import click
from click.shell_completion import CompletionItem

from pushsvc import __version__
from pushsvc.cli.asking import disconnect, erase, export, history, presence, recall, revoke, trace
from pushsvc.cli.client import listen, publish


class ServerCommand(NamedTuple):
    """A command of the server, as far as it is known without importing it."""

    extra: str
    """That it needs."""
    module: str
    help: str
    """Its own first sentence."""


SERVER_COMMANDS: Final = {
    "dev": ServerCommand(
        "server,embedded", "server", "Run a development node with an embedded Valkey."
    ),
    "doctor": ServerCommand("server", "doctor", "Check what a node needs, and say what to change."),
    "serve": ServerCommand("server", "server", "Run one node against a Redis or Valkey."),
    "token": ServerCommand("server", "server", "Mint a token with a secret of the settings."),
    "vapid": ServerCommand("server", "vapid", "Make the key of this service for Web Push (VAPID)."),
}
"""By name."""
SERVER_MODULES: Final = (
    "cryptography",
    "hiredis",
    "httptools",
    "jwt",
    "msgspec",
    "prometheus_client",
    "pydantic",
    "pydantic_core",
    "pydantic_settings",
    "redis",
    "structlog",
    "tornado",
    "uvloop",
)
"""What the server imports. All are looked for, as other packages may have brought some of them."""


class _NotInstalled(click.ClickException):
    exit_code = 2


def _not_installed(name: str) -> click.Command:
    """What stands for a command of the server: whatever its arguments, it says what to install."""
    install = f"pip install 'pushsvc[{SERVER_COMMANDS[name].extra}]'"

    def fail(**_: Any) -> None:
        raise _NotInstalled(f"pushsvc {name} needs the server: {install}")

    return click.Command(
        name,
        callback=fail,
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True},
        short_help=f"Needs the server: {install}",
        add_help_option=False,
    )


def _installed() -> bool:
    return all(map(find_spec, SERVER_MODULES))


class _Commands(click.Group):
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in SERVER_COMMANDS and _installed():
            module = import_module(f"pushsvc.cli.{SERVER_COMMANDS[cmd_name].module}")
            return cast("click.Command", getattr(module, cmd_name))
        return super().get_command(ctx, cmd_name)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands, without importing any: somebody waits with a finger on the key."""
        if not incomplete or incomplete[0].isalnum():
            helps = {name: each.get_short_help_str() for name, each in self.commands.items()}
            if _installed():
                helps |= {name: each.help for name, each in SERVER_COMMANDS.items()}
            return [
                CompletionItem(name, help=text)
                for name, text in sorted(helps.items())
                if name.startswith(incomplete)
            ]
        return super().shell_complete(ctx, incomplete)


@click.group(
    cls=_Commands,
    commands=[
        *(disconnect, erase, export, history, listen, presence, publish, recall, revoke, trace),
        *map(_not_installed, SERVER_COMMANDS),
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__)
def main() -> None:
    """Push notifications with an acknowledged, durable mailbox per user and device.

    Try it: `pushsvc dev` starts a node with an embedded Valkey and says what to do next.
    """
