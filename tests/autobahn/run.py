"""Runs the Autobahn test suite against the connection core.

The suite needs Python 2.7. It gets a virtual environment of its own, which is made the first time;
nothing else of this project uses it.

    python -m tests.autobahn.run
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
import uvloop

from pushsvc import logs
from pushsvc.web.websocket import PATH
from tests.autobahn.echo import HOST, echo_server

CASES: Final = {"1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 37, "10": 1}
"""How many cases there are in each group: framing, pings, reserved bits, opcodes, fragmentation,
UTF-8, closing and automatic fragmentation. Groups 12 and 13 are about compression, which is not
negotiated, and 9 measures speed with messages in up to 65,536 fragments, which are refused."""
INFORMATIONAL: Final = frozenset({"7.1.6", "7.13.1", "7.13.2"})
"""Cases that have no right answer, so that the suite calls every answer informational."""
VERDICTS: Final = ("OK", "NON-STRICT", "FAILED", "INFORMATIONAL")
SUITE_SECONDS: Final = 600
"""The suite takes some ten seconds; one that hangs is ended after this time."""

# The last versions that are for Python 2.7. The suite imports all of these, and nothing else; on
# common platforms none needs a compiler.
PINS: Final = (
    "attrs==21.4.0",
    "autobahn==0.10.9",
    "autobahntestsuite==0.8.2",
    "cffi==1.15.1",
    "constantly==15.1.0",
    "cryptography==3.3.2",
    "enum34==1.1.10",
    "hyperlink==21.0.0",
    "idna==2.10",
    "incremental==22.10.0",
    "ipaddress==1.0.23",
    "Jinja2==2.11.3",
    "linecache2==1.0.0",
    "MarkupSafe==1.1.1",
    "pyOpenSSL==21.0.0",
    "six==1.17.0",
    "traceback2==1.4.0",
    "Twisted==20.3.0",
    "txaio==2.1.0",
    "typing==3.10.0.0",
    "unittest2==1.1.0",
    "zope.interface==5.4.0",
)
# The last virtualenv that makes environments for Python 2.7.
VIRTUALENV: Final = (
    "virtualenv==20.21.1",
    "distlib==0.4.4",
    "filelock==3.32.7",
    "platformdirs==3.11.0",
)


class AutobahnError(click.ClickException):
    """The suite could not be run."""


# --- the suite's environment -------------------------------------------------------------------


def python27(given: str | None) -> str:
    """A Python 2.7: the given one, else the first on the path or of pyenv that works.

    Raises:
        AutobahnError: there is none.
    """
    for candidate in [given] if given else _candidates():
        if _is_27(candidate):
            return candidate
    raise AutobahnError(
        f"{given} is not a Python 2.7 with SSL" if given
        else "no Python 2.7 was found on the path or in pyenv: name one with --python"
    )  # fmt: skip


def _candidates() -> Iterator[str]:
    for name in ("python2.7", "python2"):
        if found := shutil.which(name):
            yield found
    root = os.environ.get("PYENV_ROOT")
    if not root and (pyenv := shutil.which("pyenv")):
        answer = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=False)
        root = answer.stdout.strip()
    if root:
        yield from map(str, sorted(Path(root).glob("versions/2.7*/bin/python2.7"), reverse=True))


def _is_27(python: str) -> bool:
    code = "import ssl, sys; sys.stdout.write('%d.%d' % sys.version_info[:2])"
    try:
        answer = subprocess.run([python, "-c", code], capture_output=True, check=False)
    except OSError:
        return False
    return answer.stdout == b"2.7"


def suite_python(directory: Path, given: str | None) -> Path:
    """The interpreter that has the suite; its environment is made unless that was done before.

    Raises:
        AutobahnError: it could not be made.
    """
    environment, ready = directory / "python2.7", directory / "installed.txt"
    wanted = "\n".join((*VIRTUALENV, *PINS, ""))
    python = environment / "bin" / "python"
    if ready.is_file() and ready.read_text() == wanted and _is_27(str(python)):
        return python
    old = python27(given)
    click.echo(f"installing the suite into {environment} ...", err=True)
    ready.unlink(missing_ok=True)
    tool = directory / "virtualenv"
    for leftover in (environment, tool):
        shutil.rmtree(leftover, ignore_errors=True)
    pip = ["-m", "pip", "--quiet", "--disable-pip-version-check"]
    _call([sys.executable, *pip, "install", "--target", str(tool), *VIRTUALENV])
    _call(
        [sys.executable, "-m", "virtualenv", "--quiet", "--python", old,
         "--app-data", str(tool / "app-data"), str(environment)],
        PYTHONPATH=str(tool),
    )  # fmt: skip
    _call([str(python), *pip, "--no-python-version-warning", "install", "--no-deps", *PINS])
    ready.write_text(wanted)
    return python


def _call(command: list[str], **environ: str) -> None:
    answer = subprocess.run(
        command, env=os.environ | environ, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    if answer.returncode:
        raise AutobahnError(f"{' '.join(command)} failed:\n{answer.stdout}")


# --- the run -----------------------------------------------------------------------------------


async def run(python: Path, directory: Path) -> dict[str, dict[str, Any]]:
    """Run the suite against an echo server; its report by case.

    Raises:
        AutobahnError: the suite did not end well.
    """
    report, spec, output = directory / "report", directory / "spec.json", directory / "output.txt"
    shutil.rmtree(report, ignore_errors=True)
    async with echo_server(0) as port:
        spec.write_text(json.dumps({
            "outdir": str(report),
            "servers": [{"agent": "pushsvc", "url": f"ws://{HOST}:{port}{PATH}"}],
            "cases": [f"{group}.*" for group in CASES],
            "exclude-cases": [],
            "exclude-agent-cases": {},
        }))  # fmt: skip
        with output.open("wb") as stream:
            suite = await asyncio.create_subprocess_exec(
                python, "-W", "ignore", "-m", "autobahntestsuite.wstest",
                "--mode", "fuzzingclient", "--spec", spec,
                cwd=directory, stdout=stream, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
            try:
                async with asyncio.timeout(SUITE_SECONDS):
                    await suite.wait()
            except TimeoutError:
                raise AutobahnError(f"the suite hangs: see {output}") from None
            finally:
                if suite.returncode is None:
                    suite.kill()
    try:
        cases: dict[str, dict[str, Any]] = json.loads((report / "index.json").read_text())[
            "pushsvc"
        ]
    except (OSError, ValueError, KeyError):
        raise AutobahnError(f"the suite wrote no report: see {output}") from None
    return cases


def verdict(case: dict[str, Any]) -> str:
    """The worse of what a case says about the messages and about the close."""
    both = {case["behavior"], case["behaviorClose"]}
    for worst in ("NON-STRICT", "INFORMATIONAL", "OK"):
        if worst in both and both <= {worst, "INFORMATIONAL", "OK"}:
            return worst
    return "FAILED"


def summary(cases: dict[str, dict[str, Any]]) -> tuple[list[str], list[str]]:
    """The table of verdicts, a line for each group, and what is wrong, if anything."""
    lines = ["  ".join(("group", "cases", *(each.rjust(5) for each in VERDICTS)))]
    troubles = []
    for group, expected in CASES.items():
        of_group = {name: case for name, case in cases.items() if name.split(".")[0] == group}
        counts = Counter(map(verdict, of_group.values()))
        cells = [group, str(len(of_group)), *(str(counts[each]) for each in VERDICTS)]
        widths = (5, 5, *(max(5, len(each)) for each in VERDICTS))
        lines.append("  ".join(map(str.rjust, cells, widths)))
        if len(of_group) != expected:
            troubles.append(f"group {group}: {len(of_group)} cases ran, not {expected}")
        troubles += [
            f"case {name}: {case['behavior']}, close {case['behaviorClose']}"
            for name, case in of_group.items()
            if verdict(case) != "OK"
            and not (verdict(case) == "INFORMATIONAL" and name in INFORMATIONAL)
        ]
    return lines, troubles


@click.command()
@click.option(
    "--directory",
    envvar="AUTOBAHN_DIRECTORY",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(sys.prefix) / "autobahn",
    help="Where the suite's environment and its report are kept (AUTOBAHN_DIRECTORY); "
    "inside the environment that runs this if not given.",
)
@click.option(
    "--python",
    envvar="AUTOBAHN_PYTHON",
    help="A Python 2.7 (AUTOBAHN_PYTHON); searched on the path and in pyenv if not given.",
)
def main(directory: Path, python: str | None) -> None:
    """Run the Autobahn test suite, and fail unless every case is passed strictly."""
    logs.configure("console", "error")  # most cases are refusals, which are logged as warnings
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    interpreter = suite_python(directory, python)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        lines, troubles = summary(runner.run(run(interpreter, directory)))
    click.echo("\n".join(lines))
    if troubles:
        click.echo("\n".join(troubles), err=True)
        raise AutobahnError(f"not all is well: see {directory / 'report' / 'index.html'}")
    click.echo("every case is passed strictly")


if __name__ == "__main__":
    main(prog_name="python -m tests.autobahn.run")
