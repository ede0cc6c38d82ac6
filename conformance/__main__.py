"""``python -m conformance [--only TEXT] [-- DRIVER COMMAND…]``: holds a client to the table."""

import asyncio
import shlex
import sys
import time

import click

from conformance.driver import DriverFailed
from conformance.drivers import ours
from conformance.run import AT_ONCE, Outcome, client_of, run_all
from conformance.table import Scenario, load


@click.command(context_settings={"ignore_unknown_options": False})
@click.option("--only", metavar="TEXT", help="Only scenarios whose name or file has this in it.")
@click.option("--list", "listing", is_flag=True, help="Print the names and end.")
@click.option("--at-once", default=AT_ONCE, show_default=True, help="Scenarios at a time.")
@click.argument("driver", nargs=-1, type=click.UNPROCESSED)
def main(only: str | None, *, listing: bool, at_once: int, driver: tuple[str, ...]) -> None:
    """Run the scenarios against a client.

    DRIVER is the command that starts its driver, after --; without one, the clients of this
    repository are held to the table. Ends with 0 where nothing failed, 1 where something did, and
    2 where a driver cannot be started.
    """
    scenarios = [each for each in load() if only is None or only in f"{each.group}: {each.name}"]
    if not scenarios:
        raise click.UsageError(f"no scenario has {only!r} in its name; --list prints all")
    if listing:
        for scenario in scenarios:
            click.echo(f"{scenario.group}: {scenario.name}")
        return
    commands = [list(driver)] if driver else list(ours().values())
    clients = [_client(command) for command in commands]
    results = [
        _report(scenarios, client, command, at_once)
        for client, command in zip(clients, commands, strict=True)
    ]
    for _, summary in results:
        click.echo(summary)
    sys.exit(0 if all(passed for passed, _ in results) else 1)


def _client(command: list[str]) -> str:
    """The name of a driver's client; ends the program where the driver cannot be started."""
    try:
        return asyncio.run(client_of(command))
    except DriverFailed as error:
        click.echo(f"Error: the driver `{shlex.join(command)}`: {error}", err=True)
        sys.exit(2)


def _report(
    scenarios: list[Scenario], client: str, command: list[str], at_once: int
) -> tuple[bool, str]:
    """Run the scenarios with one driver and print how it went.

    Returns:
        Whether none failed, and a line that sums it up.
    """
    started = time.monotonic()
    width = max(len(each.name) for each in scenarios)
    click.echo(f"{' '.join(command)}\n")
    outcomes = asyncio.run(run_all(scenarios, command, at_once=at_once))
    group = ""
    for outcome in outcomes:
        if outcome.scenario.group != group:
            group = outcome.scenario.group
            click.echo(group)
        click.echo(_line(outcome, width))
    failed = sum(outcome.wrong is not None for outcome in outcomes)
    skipped = sum(bool(outcome.lacks) for outcome in outcomes)
    passed = len(outcomes) - failed - skipped
    click.echo()
    return failed == 0, (
        f"{client}: {passed} passed, {failed} failed, {skipped} did not apply,"
        f" in {time.monotonic() - started:.1f} s"
    )


def _line(outcome: Outcome, width: int) -> str:
    name = outcome.scenario.name
    if outcome.lacks:
        return f"  {name:<{width}}  does not apply: needs {', '.join(sorted(outcome.lacks))}"
    if outcome.wrong is None:
        return f"  {name:<{width}}  passed  {outcome.seconds:5.2f} s"
    return f"  {name:<{width}}  FAILED  {outcome.seconds:5.2f} s\n      {outcome.wrong}"


if __name__ == "__main__":
    main()
