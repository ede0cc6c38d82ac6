"""``pushsvc vapid``."""

import os
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import click

from pushsvc.cli.settings import BadSettings
from pushsvc.push.vapid import is_subject, load_keys, new_key
from pushsvc.settings import PREFIX

_EXAMPLE: Final = "mailto:you@example.com"
_LIBRARY: Final = "aiohttp"
"""What Web Push needs beside the server."""


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--show", is_flag=True, help="Print the public keys of a file, and do nothing.")
@click.option(
    "--subject", default=_EXAMPLE, show_default=True,
    help="Whom push services can ask: mailto: or https://.",
)  # fmt: skip
def vapid(file: Path, show: bool, subject: str) -> None:  # noqa: FBT001 - click passes what the options name
    """Make the key of this service for Web Push (VAPID).

    FILE is made, readable by you alone, and never overwritten: subscriptions are bound to its key.
    Printed are the settings that a node needs, as lines that a shell sources, and the public key.
    """
    if show:
        try:
            keys = load_keys(file)
        except ValueError as error:
            raise BadSettings(f"'{file}' {error}") from None
        click.echo("\n".join(keys.public))
        return
    if not is_subject(subject):
        raise BadSettings("--subject is neither mailto:name@host nor https://host")
    pem, public = new_key()
    try:
        _write(file, pem)
    except FileExistsError:
        raise BadSettings(
            f"'{file}' is there already, and is not overwritten: --show prints its public key"
        ) from None
    except OSError as error:
        raise BadSettings(f"'{file}' cannot be written: {error.strerror}") from None
    click.echo(
        f"# The application server key: {public}\n"
        f"{PREFIX}PUSH_VAPID_KEY_FILE={shlex.quote(str(file.absolute()))}\n"
        f"{PREFIX}PUSH_VAPID_SUBJECT={shlex.quote(subject)}"
    )
    if find_spec(_LIBRARY) is None:
        click.echo("A node needs more to send: pip install 'pushsvc[push]'", err=True)


def _write(file: Path, content: bytes) -> None:
    """Write a new file that only its owner can read, whatever the umask is."""
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as out:
        out.write(content)
