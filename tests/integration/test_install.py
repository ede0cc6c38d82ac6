"""What an installation without extras is: the client, small, and saying what else there is.

The wheel is built and installed into an environment that holds what it requires and nothing else,
taken from the environment of the tests, so that no registry is asked.
"""

import ast
import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pushsvc.cli import SERVER_COMMANDS, SERVER_MODULES, main
from pushsvc.server.embedded import EmbeddedServer
from tests.support.image import REPOSITORY
from tests.support.nodes import Node, publisher_token, token

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
MOST_PACKAGES = 6
PLATFORMS = {
    "Linux": {"os_name": "posix", "platform_system": "Linux", "sys_platform": "linux"},
    "macOS": {"os_name": "posix", "platform_system": "Darwin", "sys_platform": "darwin"},
    "Windows": {"os_name": "nt", "platform_system": "Windows", "sys_platform": "win32"},
}
ELSEWHERE = {"colorama"}
"""Packages for another platform than that of the tests, which require nothing themselves."""


def closure(requirements: list[str], platform: dict[str, str]) -> set[str]:
    """The names of all packages that these requirements bring on a platform."""
    found: dict[tuple[str, str], None] = {}

    def add(requirement: Requirement, extra: str) -> None:
        environment = platform | {"extra": extra}
        if requirement.marker is not None and not requirement.marker.evaluate(environment):
            return
        name = canonicalize_name(requirement.name)
        for wanted in ("", *requirement.extras):
            if (name, wanted) not in found:
                found[name, wanted] = None
                needs = [] if name in ELSEWHERE else metadata.requires(name) or []
                for each in needs:
                    add(Requirement(each), wanted)

    for each in requirements:
        add(Requirement(each), "")
    return {name for name, _ in found}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", directory],
        cwd=REPOSITORY, capture_output=True, check=True,
    )  # fmt: skip
    (built,) = directory.glob("*.whl")
    return built


class Installation:
    """An environment with the wheel, and what that requires without extras."""

    def __init__(self, directory: Path, wheel: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(directory)], check=True)
        self.python = directory / "bin" / "python"
        self.command = directory / "bin" / "pushsvc"
        subprocess.run(
            [sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet",
             "--disable-pip-version-check", "--no-index", "--no-deps", wheel],
            check=True,
        )  # fmt: skip
        (packages,) = directory.glob("lib/python*/site-packages")
        for name in closure(PROJECT["dependencies"], PLATFORMS["Linux"]):
            for path in metadata.files(name) or []:
                if ".." not in path.parts:  # commands
                    target = packages / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path.locate(), target)

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        # Elsewhere, so that the checkout is not what is imported.
        return subprocess.run(
            command, cwd=self.python.parent, env={"COLUMNS": "100"},
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip

    def pushsvc(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(self.command, *arguments)

    def tell(self, code: str) -> list[str]:
        """The words that a program prints."""
        done = self.run(self.python, "-W", "error", "-c", code)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()


@pytest.fixture(scope="module")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation(tmp_path_factory.mktemp("client") / "venv", wheel)


@pytest.fixture(scope="module")
def node(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node(valkey.url, tmp_path_factory.mktemp("node"), prefix="install") as running:
        yield running


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_client_brings_few_packages_and_none_of_the_server(platform: str) -> None:
    packages = closure(PROJECT["dependencies"], PLATFORMS[platform])
    server = closure(PROJECT["optional-dependencies"]["server"], PLATFORMS[platform])
    assert len(packages | {"pushsvc"}) <= MOST_PACKAGES
    assert not packages & server


def test_nothing_else_is_in_the_environment(installation: Installation) -> None:
    code = "from importlib.metadata import distributions as d; print(*(x.name for x in d()))"
    packages = {canonicalize_name(name) for name in installation.tell(code)}
    assert packages == closure(PROJECT["dependencies"], PLATFORMS["Linux"]) | {"pushsvc"}


def test_every_module_of_the_client_is_imported_without_the_server(
    installation: Installation,
) -> None:
    code = (
        "import importlib, pkgutil, pushsvc.client as client\n"
        "for each in pkgutil.iter_modules(client.__path__, 'pushsvc.client.'):\n"
        "    print(importlib.import_module(each.name).__file__)"
    )
    files = installation.tell(code)
    ours = list((REPOSITORY / "pushsvc" / "client").glob("[!_]*.py"))
    assert {Path(file).name for file in files} == {file.name for file in ours}
    assert all(file.startswith(str(installation.python.parents[1])) for file in files)


def test_publish_and_listen_work_without_the_server(
    installation: Installation, node: Node, user: str
) -> None:
    there = ("--url", node.url, "--token")
    done = installation.pushsvc("publish", *there, publisher_token(), "--user", user, '{"a": 1}')
    assert done.returncode == 0, done.stderr
    receipt = json.loads(done.stdout)
    done = installation.pushsvc("listen", *there, token(user), "--count", "1")
    assert done.returncode == 0, done.stderr
    welcome, notification = map(json.loads, done.stdout.splitlines())
    assert (welcome["type"], welcome["user"]) == ("welcome", user)
    assert (notification["id"], notification["data"]) == (receipt["id"], {"a": 1})


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--port", "0", "more"]], ids=" ".join)
@pytest.mark.parametrize("command", SERVER_COMMANDS)
def test_a_command_of_the_server_says_in_one_line_what_to_install(
    installation: Installation, command: str, arguments: list[str]
) -> None:
    done = installation.pushsvc(command, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    install = f"pip install 'pushsvc[{SERVER_COMMANDS[command].extra}]'"
    assert done.stderr == f"Error: pushsvc {command} needs the server: {install}\n"
    assert installation.run(installation.python, "-m", "pushsvc", command).stderr == done.stderr


def test_help_lists_all_commands_and_what_those_of_the_server_need(
    installation: Installation,
) -> None:
    done = installation.pushsvc("--help")
    assert done.returncode == 0, done.stderr
    listed = done.stdout.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == sorted(main.commands)
    for line in listed:
        command = SERVER_COMMANDS.get(line.split()[0])
        assert ("pip install" in line) == (command is not None)
        assert command is None or line.endswith(f"pip install 'pushsvc[{command.extra}]'")


@pytest.mark.parametrize("command", sorted(main.commands.keys() - SERVER_COMMANDS.keys()))
def test_a_command_of_the_client_needs_nothing_more(
    installation: Installation, command: str
) -> None:
    done = installation.pushsvc(command, "--help")
    assert done.returncode == 0, done.stderr
    assert "--token" in done.stdout


@pytest.mark.parametrize("module", SERVER_MODULES)
def test_one_module_that_is_missing_is_enough_to_say_what_to_install(module: str) -> None:
    code = f"import sys; sys.modules[{module!r}] = None; from pushsvc.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "serve"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "Error: pushsvc serve needs the server: pip install 'pushsvc[server]'\n"


def test_the_modules_that_the_commands_look_for_are_those_that_the_server_imports() -> None:
    imported = set()
    for file in (REPOSITORY / "pushsvc").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                imported.add(node.module.partition(".")[0])
    of_others = {
        "pushsvc", "click", "urllib3", "websockets", "opentelemetry", "pytest",
        "aiohttp", "h2", "hpack", "yarl",
    }  # fmt: skip
    assert set(SERVER_MODULES) == imported - sys.stdlib_module_names - of_others
