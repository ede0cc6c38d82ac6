"""What the commands say of themselves: whole on a terminal, in docs/cli.md, and to a shell."""

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pushsvc.cli import SERVER_COMMANDS, main
from pushsvc.settings import rows

ROOT = Path(__file__).parents[3]
CONTEXT = click.Context(main)
COMMANDS = {name: main.get_command(CONTEXT, name) for name in main.list_commands(CONTEXT)}
SETTINGS = {row.flag for row in rows()}
SECTIONS = dict(
    re.findall(
        r"^## (\w+)\n(.*?)(?=^## |\Z)",
        (ROOT / "docs" / "cli.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
)


def command(name: str) -> click.Command:
    found = COMMANDS[name]
    assert found is not None
    return found


def flags(name: str) -> set[str]:
    """The long options of a command, without those that are settings."""
    return {
        flag
        for parameter in command(name).params
        if isinstance(parameter, click.Option)
        for flag in (*parameter.opts, *parameter.secondary_opts)
        if flag.startswith("--")
    } - (SETTINGS if name in {"dev", "doctor", "serve"} else set())


@pytest.mark.parametrize(
    "arguments", [["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join
)
def test_no_help_is_cut_off_on_a_terminal_of_80_columns(arguments: list[str]) -> None:
    done = CliRunner().invoke(main, arguments, terminal_width=80)
    assert done.exit_code == 0
    assert "..." not in re.sub(r"\[[A-Z_]+\]\.\.\.", "", done.output)
    # A long default is one word, which the terminal breaks.
    assert [
        line for line in done.output.splitlines() if len(line) > 80 and "[default" not in line
    ] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_every_option_of_it_has_a_help(name: str) -> None:
    assert command(name).help
    options = [each for each in command(name).params if isinstance(each, click.Option)]
    assert [each.name for each in options if not each.help] == []


@pytest.mark.parametrize("name", SERVER_COMMANDS)
def test_what_is_known_of_a_command_without_importing_it_is_what_it_says(name: str) -> None:
    assert SERVER_COMMANDS[name].help == str(command(name).help).partition("\n")[0]


def test_the_reference_has_every_command() -> None:
    assert set(COMMANDS) <= set(SECTIONS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_reference_has_every_option_and_no_other(name: str) -> None:
    told = set(re.findall(r"`(--[a-z-]+)", SECTIONS[name]))
    assert told - SETTINGS == flags(name) - {"--help"} - {"--url", "--token"} - SETTINGS


# --- completion ----------------------------------------------------------------------------------


MAIN = "from pushsvc.cli import main; main()"


def complete(*words: str, python: str = MAIN) -> list[str]:
    """What a bash is told that completes the last word."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv[0] = 'pushsvc'; {python}"],
        env=os.environ | {
            "COMP_WORDS": " ".join(("pushsvc", *words)), "COMP_CWORD": str(len(words)),
            "_PUSHSVC_COMPLETE": "bash_complete",
        },
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_a_shell_completes_commands_and_options() -> None:
    assert complete("") == sorted(COMMANDS)
    assert complete("re") == ["recall", "revoke"]
    assert "--collapse-key" in complete("publish", "--co")
    assert complete("publish", "--deliver", "a") == ["all", "any-device"]
    assert "--redis-url" in complete("serve", "--redis-u")


def test_completing_a_command_imports_nothing_of_the_server_or_the_client() -> None:
    heavy = ("pydantic", "structlog", "cryptography", "urllib3", "websockets", "asyncio")
    program = (
        "import atexit; from pushsvc.cli import main; "
        f"atexit.register(lambda: print('x,' + ','.join({heavy!r} & sys.modules.keys()))); main()"
    ).replace(repr(heavy), repr(set(heavy)))
    for words in (["re"], ["publish", "--co"]):
        assert complete(*words, python=program)[-1] == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_documented_line_gives_a_script_for_the_shell(shell: str) -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    assert f"_PUSHSVC_COMPLETE={shell}_source pushsvc" in text
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv[0] = 'pushsvc'; {MAIN}"],
        env=os.environ | {"_PUSHSVC_COMPLETE": f"{shell}_source"},
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert "_PUSHSVC_COMPLETE" in done.stdout


@pytest.mark.skipif(sys.platform == "darwin", reason="its bash is of 2007, which click refuses")
def test_a_bash_that_was_told_so_completes(tmp_path: Path) -> None:
    program = tmp_path / "pushsvc"
    program.write_text(f"#!{sys.executable}\n{MAIN}\n")
    program.chmod(0o755)
    script = (
        'eval "$(_PUSHSVC_COMPLETE=bash_source pushsvc)"; complete -p pushsvc; '
        "COMP_WORDS=(pushsvc pu) COMP_CWORD=1; _pushsvc_completion pushsvc; "
        'echo "${COMPREPLY[@]}"; '
        "COMPREPLY=(); "
        "COMP_WORDS=(pushsvc publish --col) COMP_CWORD=2; _pushsvc_completion pushsvc; "
        'echo "${COMPREPLY[@]}"'
    )
    path = os.pathsep.join((str(tmp_path), os.environ["PATH"]))
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    registered, commands, options = done.stdout.splitlines()
    assert "_pushsvc_completion" in registered
    assert (commands, options) == ("publish", "--collapse-key")
