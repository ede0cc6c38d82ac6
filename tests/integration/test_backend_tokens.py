"""docs/guides/tokens.md: the program of each language mints tokens that a node takes."""

import asyncio
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pushsvc.server.embedded import EmbeddedServer
from tests.support.documents import ROOT, program
from tests.support.js import NODE
from tests.support.nodes import SECRET, Node
from tests.support.phone import Phone
from tests.support.programs import need

PAGE = "docs/guides/tokens.md"
PINNED = ROOT / "tests" / "backends"
NIMBUS = "com.nimbusds:nimbus-jose-jwt:10.10"
NIMBUS_SHA256 = "0edd2fbaab79e13f87d145d021f85a5c59956b2b6b5e761c0d664c87f94cda15"

OUT_OF_REACH = r"dial tcp|no such host|unknown host|could not transfer|time(d )?.?out|proxyconnect"


def run(command: list[str], directory: Path, **environ: str) -> str:
    """A command to its end, which has to be a good one; what it printed."""
    done = subprocess.run(
        command, cwd=directory, env=os.environ | environ, capture_output=True, text=True,
        timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def fetch(command: list[str], directory: Path) -> None:
    """Get a library of another language, if its registry can be reached."""
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=240, check=False
    )
    told = done.stdout + done.stderr
    if done.returncode and re.search(OUT_OF_REACH, told, re.IGNORECASE):
        pytest.skip("its registry is out of reach")
    assert done.returncode == 0, told


def python(_: Path) -> list[str]:
    return [sys.executable, "-W", "error", "tokens.py"]


def node_js(directory: Path) -> list[str]:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(PINNED / name, directory)
    path = f"{Path(NODE).parent}{os.pathsep}{os.environ['PATH']}"
    quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]
    run(["npm", "ci", *quiet], directory, PATH=path)
    return [NODE, "tokens.mjs"]


def go(directory: Path) -> list[str]:
    for name in ("go.mod", "go.sum"):
        shutil.copy(PINNED / name, directory)
    fetch([need("go"), "mod", "download"], directory)
    return [need("go"), "run", "."]


def java(directory: Path) -> list[str]:
    found = need("java")
    asked = ["-Dmdep.stripVersion", f"-Dartifact={NIMBUS}", "-DoutputDirectory=."]
    fetch([need("mvn"), "--quiet", "--batch-mode", "dependency:copy", *asked], directory)
    library = directory / "nimbus-jose-jwt.jar"
    assert hashlib.sha256(library.read_bytes()).hexdigest() == NIMBUS_SHA256
    return [found, "-cp", library.name, "Tokens.java"]


def php(_: Path) -> list[str]:
    return [need("php"), "-d", "error_reporting=E_ALL", "-d", "display_errors=1", "tokens.php"]


def ruby(_: Path) -> list[str]:
    return [need("ruby"), "-w", "tokens.rb"]


@pytest.mark.timeout(300)  # the first time, Go compiles its library and Maven fetches itself
@pytest.mark.parametrize(
    ("file", "prepared"),
    [
        ("tokens.py", python),
        ("tokens.mjs", node_js),
        ("tokens.go", go),
        ("Tokens.java", java),
        ("tokens.php", php),
        ("tokens.rb", ruby),
    ],
)
async def test_a_backend_in_each_language_mints_tokens_that_are_taken(
    node: Node, tmp_path: Path, file: str, prepared: Callable[[Path], list[str]]
) -> None:
    (tmp_path / file).write_text(program(PAGE, file))
    command = prepared(tmp_path)
    printed = await asyncio.to_thread(run, command, tmp_path, PUSHSVC_JWT_SECRET=SECRET)
    user, publisher = printed.split()
    async with Phone(node, "ann", file, auth=user) as phone:
        assert phone.welcome["user"] == "ann"
        await phone.send(type="subscribe", topic="scores.nba", ref=1)
        assert (await phone.receive())["topic"] == "scores.nba"
        note = {"to": {"user": "ann"}, "data": file}
        authorized = {"Authorization": f"Bearer {publisher}"}
        answer = await asyncio.to_thread(node.post, "/v1/notifications", note, headers=authorized)
        assert answer.status_code == 202, answer.text
        assert (await phone.notification())["data"] == file
        await phone.acked(answer.json()["id"])
        refused = await asyncio.to_thread(
            node.post, "/v1/notifications", note, headers={"Authorization": f"Bearer {user}"}
        )
        assert refused.status_code == 403


async def test_a_key_pair_takes_the_place_of_the_secret(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    need("openssl")
    run(["bash", "-ec", program(PAGE, "keys.sh")], tmp_path)
    (tmp_path / "es256.py").write_text(program(PAGE, "es256.py"))
    auth = run([sys.executable, "es256.py"], tmp_path).strip()
    public = tmp_path / "push.pub"
    with Node(
        valkey.url, tmp_path, prefix=prefix, jwt_secret=None, jwt_public_key_file=public
    ) as node:
        async with Phone(node, "ann", auth=auth) as phone:
            assert phone.welcome["user"] == "ann"
