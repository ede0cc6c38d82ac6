"""The settings of a command: a flag for each, and reading them."""

import os
from collections.abc import Callable, Collection
from typing import Any, Final

import click

from pushsvc import logs
from pushsvc.settings import PREFIX, Settings, SettingsError, load, rows

_LONGEST: Final = 40
"""Characters of the choices that stand beside a flag."""


def settings_flags(**defaults: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command one flag for each setting; a flag wins over its environment variable.

    Args:
        defaults: by field name, for the help of a command that has its own.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for row in reversed(rows()):
            if row.flag is not None:
                default = defaults.get(row.field, row.default)
                choices = "|".join(row.choices)
                help_text = row.help + (f" [default: {default}]" if default else "")
                if len(choices) > _LONGEST:  # one word, on which no line could be broken
                    choices, help_text = "", f"{help_text} [{', '.join(row.choices)}]"
                command = click.option(
                    row.flag,
                    row.field,
                    metavar=choices or None,
                    help=help_text,
                )(command)
        return command

    return decorate


class BadSettings(click.ClickException):
    """A setting cannot be used."""

    exit_code = 2


def load_settings(
    flags: dict[str, Any], *, ignored: Collection[str] = (), **defaults: str
) -> Settings:
    """The settings of a command.

    Args:
        flags: what the command line says.
        ignored: names of fields whose variables do not count.
        defaults: by field name, for what nothing else says.
    """
    environ = dict(os.environ)
    for field in ignored:
        environ.pop(f"{PREFIX}{field.upper()}", None)
    if flags.get("auth_file") or environ.get(f"{PREFIX}AUTH_FILE"):
        defaults.pop("jwt_secret", None)  # the file has its own
    for field, value in defaults.items():
        name = f"{PREFIX}{field.upper()}"
        # A secret that somebody has in a file is said as well.
        if not flags.get(f"{field}_file") and not environ.get(f"{name}_FILE"):
            environ.setdefault(name, value)
    try:
        settings = load(environ, flags)
    except SettingsError as error:
        raise BadSettings(str(error)) from None
    logs.configure(settings.log_format, settings.log_level)
    return settings
