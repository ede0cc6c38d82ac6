"""``pushsvc doctor``."""

import asyncio
import json
from dataclasses import asdict
from typing import Any

import click

from pushsvc import logs
from pushsvc.cli.development import find
from pushsvc.cli.settings import load_settings, settings_flags
from pushsvc.settings import Settings


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each check.")
@settings_flags()
def doctor(as_json: bool, **flags: Any) -> None:  # noqa: FBT001 - click passes what the options name
    """Check what a node needs, and say what to change.

    Takes the settings of `pushsvc serve`, so run it where the node runs, with its environment.
    Each line is ok, skip (it could not be checked), warn or fail.

    Exits with 0 if nothing failed, 1 if something did, 2 if a setting cannot be used.
    """
    settings = load_settings(flags)
    # What is logged meanwhile is what is told.
    logs.configure(settings.log_format, "error")
    if not asyncio.run(_examine(settings, as_json=as_json)):
        raise SystemExit(1)


async def _examine(settings: Settings, *, as_json: bool) -> bool:
    """Tell what is found, each at once; whether nothing failed."""
    from pushsvc.server.doctor import examine  # noqa: PLC0415
    from pushsvc.server.findings import Finding, State  # noqa: PLC0415

    good = True

    def tell(finding: Finding) -> None:
        click.echo(json.dumps(asdict(finding)) if as_json else str(finding))

    beside = find()
    if beside is not None and beside.runs:
        tell(
            Finding(
                State.SKIP, "development",
                f"that of `pushsvc dev` at {beside.url} is not looked at: what follows is about a"
                " `pushsvc serve` with the settings that are given here",
            )
        )  # fmt: skip
    async for finding in examine(settings):
        tell(finding)
        good = good and finding.state is not State.FAIL
    return good
