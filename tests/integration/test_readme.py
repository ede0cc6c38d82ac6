"""The README, done as it says: its commands, and each of its programs."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from pushsvc.server.embedded import EmbeddedServer
from tests.support.documents import ROOT, program
from tests.support.keys import jwk
from tests.support.nodes import wait_until
from tests.support.programs import need
from tests.support.provider import Provider

README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Running:
    """What ``make run`` printed."""

    url: str
    admin_url: str
    exports: dict[str, str]
    text: str
    home: Path

    @property
    def environ(self) -> dict[str, str]:
        """An environment in which the README's programs can be run as they stand there."""
        return clean(self.home) | self.exports | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The first command, as it stands in the README, on free ports."""
    command = re.search(r"```sh\n(make run)\n```", README)
    assert command is not None
    home = tmp_path_factory.mktemp("home")
    with _started(
        [*shlex.split(command[1]), "ARGS=--port 0 --admin-port 0"],
        tmp_path_factory.mktemp("readme") / "output",
        "hello",
        clean(home),
        ends=signal.SIGINT,
    ) as text:
        node = re.search(r"node +(http://\S+)", text)
        console = re.search(r"console +(http://[^/\s]+)/dev/console", text)
        assert node
        assert console
        source = re.search(r"^ *(\. \S.*)$", text, re.MULTILINE)
        assert source
        exports = dict(
            line.partition("=")[::2]
            for line in subprocess.check_output(
                ["sh", "-c", f"{source[1]} && env"], env=clean(home), text=True
            ).splitlines()
            if line.partition("=")[0].endswith(("_URL", "_TOKEN"))
        )
        assert exports["PUSH_URL"] == node[1]
        yield Running(node[1], console[1], exports, text, home)
    assert [each for each in home.rglob("*") if each.is_file()] == []


def clean(home: Path) -> dict[str, str]:
    """The environment of a newcomer with this home."""
    ours = ("PUSH", "XDG_STATE_HOME")
    return {name: each for name, each in os.environ.items() if not name.startswith(ours)} | {
        "HOME": str(home)
    }


@contextmanager
def _started(
    command: list[str],
    output: Path,
    until: str,
    environ: dict[str, str] | None = None,
    ends: signal.Signals = signal.SIGTERM,
) -> Iterator[str]:
    """A command that runs until it is sent a signal; what it printed so far."""
    with output.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=log, env=environ, start_new_session=True
        )

    def told() -> str:
        text = output.read_text()
        assert process.poll() is None, text
        return text if until in text else ""

    try:
        yield wait_until(told, f"{until!r} to be printed")
        assert "Traceback" not in output.read_text()
    finally:
        os.killpg(process.pid, ends)  # as Ctrl-C does: to all that the command started
        process.wait(30)


def acked(running: Running, notification_id: str) -> list[str]:
    """The devices of the demo user that acknowledged a notification."""
    answer = httpx.get(
        f"{running.url}/v1/users/demo/notifications",
        headers={"Authorization": f"Bearer {running.exports['PUBLISHER_TOKEN']}"},
        timeout=10,
    ).json()
    for note in answer["notifications"]:
        if note["id"] == notification_id:
            return [each["device"] for each in note["acked"]]
    return []


@pytest.mark.parametrize(
    ("name", "command", "text"),
    [
        ("publish.sh", ["bash"], "Order 17 is on its way"),
        ("publish.py", [sys.executable], "Order 18 is on its way"),
        ("publish.mjs", [str(BIN / "node")], "Order 19 is on its way"),
    ],
)
def test_each_way_to_publish_puts_the_notification_into_the_mailbox(
    running: Running, tmp_path: Path, name: str, command: list[str], text: str
) -> None:
    if name == "publish.sh":
        need("curl")
    path = tmp_path / name
    path.write_text(program("README.md", name))
    done = subprocess.run(
        [*command, path], env=running.environ, capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = re.search(r"\d{13}-\d+", done.stdout)
    assert found, done.stdout
    kept = httpx.get(
        f"{running.url}/v1/users/demo/notifications",
        headers={"Authorization": f"Bearer {running.exports['PUBLISHER_TOKEN']}"},
        timeout=10,
    ).json()["notifications"]
    assert {note["id"]: note["data"] for note in kept}[found[0]] == {"text": text}


def test_the_answer_is_the_one_that_is_shown(running: Running) -> None:
    need("curl")
    done = subprocess.run(
        ["bash", "-c", program("README.md", "publish.sh")],
        env=running.environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    shown = re.search(r"```json\n(\{\"id\".*?)\n```", README)
    assert shown
    answer = httpx.Response(200, content=done.stdout).json()
    assert answer.keys() == httpx.Response(200, content=shown[1]).json().keys()


@pytest.mark.parametrize(("name", "shown"), [
    ("listen", "order.shipped {'order': 17}"),
    ("connect", "demo Hello!"),
    ("inbox", "{'order': 17}"),
])  # fmt: skip
def test_the_programs_that_receive_in_the_python_document_show_what_comes(
    running: Running, tmp_path: Path, name: str, shown: str
) -> None:
    publisher = tmp_path / "publish.py"
    publisher.write_text(program("docs/python.md", "publish"))
    subprocess.run([sys.executable, publisher], env=running.environ, timeout=30, check=True)
    listener = tmp_path / "listener.py"
    listener.write_text(program("docs/python.md", name))
    command = [sys.executable, "-u", str(listener)]
    with _started(command, tmp_path / "output", shown, running.environ):
        pass


@pytest.mark.parametrize(("name", "shown"), [
    ("publish", ["memory", "accepted: Receipt", "accepted: Receipt"]),
    ("async", ["100 accepted"]),
    ("ask", ["offer {'off': 20} []", " listen to the scores", "\nrecalled\n", "demo recalled None",
             "receipts(after=...): "]),
])  # fmt: skip
def test_the_programs_that_publish_in_the_python_document_are_answered(
    running: Running, tmp_path: Path, name: str, shown: list[str]
) -> None:
    path = tmp_path / "publish.py"
    path.write_text(program("docs/python.md", name))
    done = subprocess.run(
        [sys.executable, path], env=running.environ, capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for text in shown:
        _, found, rest = done.stdout.partition(text)
        assert found, done.stdout
        done.stdout = rest


@pytest.mark.parametrize(
    ("name", "command"), [("receive.py", [sys.executable, "-u"]), ("listen", ["bash"])]
)
def test_each_way_to_receive_shows_and_acknowledges(
    running: Running, tmp_path: Path, name: str, command: list[str]
) -> None:
    path = tmp_path / name
    path.write_text(program("README.md", name))
    unique = os.urandom(4).hex()
    answer = httpx.post(
        f"{running.url}/v1/notifications",
        json={"to": {"user": "demo"}, "data": {"text": unique}},
        headers={"Authorization": f"Bearer {running.exports['PUBLISHER_TOKEN']}"},
        timeout=10,
    ).json()
    with _started([*command, str(path)], tmp_path / "output", unique, running.environ):
        wait_until(lambda: acked(running, answer["id"]), "the acknowledgement")


def test_the_addresses_that_make_run_prints_can_be_opened(running: Running) -> None:
    addresses = re.findall(r"^ +(?:demo|console) +(http://\S+)", running.text, re.MULTILINE)
    assert len(addresses) == 2
    for address in addresses:
        answer = httpx.get(address, timeout=10, follow_redirects=True)
        assert answer.status_code == 200, address
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert httpx.get(f"{running.url}/docs", timeout=10).status_code == 200


def test_what_make_run_prints_fits_a_small_screen(running: Running) -> None:
    lines = running.text.splitlines()
    begin = next(number for number, line in enumerate(lines) if "is running" in line)
    shown = lines[begin:]
    assert len(shown) <= 12
    assert all(len(line) < 80 for line in shown), shown
    assert "eyJ" not in running.text


def test_the_line_that_make_run_prints_publishes(running: Running) -> None:
    need("curl")
    pasted = running.text.partition("Publish to")[2].partition("\n")[2]
    done = subprocess.run(
        ["sh", "-c", pasted], env=clean(running.home), capture_output=True, text=True, timeout=30,
        check=True,
    )  # fmt: skip
    assert re.search(r"\d{13}-\d+", done.stdout)


def test_serving_for_real_takes_three_variables(valkey: EmbeddedServer, tmp_path: Path) -> None:
    text = program("README.md", "serve")
    assert "redis://redis.internal:6379/0" in text
    text = text.replace("redis://redis.internal:6379/0", valkey.url).rstrip()
    with Provider() as provider:
        key = ec.generate_private_key(ec.SECP256R1())
        provider.document = {"keys": [jwk(key, "k1")]}
        assert "https://id.example.com/.well-known/jwks.json" in text
        text = text.replace("https://id.example.com/.well-known/jwks.json", provider.url)
        serves(text, tmp_path)


def serves(text: str, tmp_path: Path) -> None:
    """A node that is started by a program becomes ready."""
    environ = {name: value for name, value in os.environ.items() if "PUSHSVC_" not in name}
    environ |= {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PUSHSVC_DRAIN_SECONDS": "0"}
    free = "--host 127.0.0.1 --port 0 --admin-host 127.0.0.1 --admin-port 0 --log-format json"
    output = tmp_path / "output"
    with _started(
        ["bash", "-c", f"{text} {free}"], output, '"event": "serving"', environ
    ) as printed:
        port = re.search(r'"admin_port": (\d+)', printed)
        assert port

        def ready() -> bool:
            return httpx.get(f"http://127.0.0.1:{port[1]}/readyz", timeout=10).status_code == 200

        wait_until(ready, "both workers to be ready")
