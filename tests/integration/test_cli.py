"""The ``pushsvc`` command, run as a user runs it."""

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import jwt
import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pushsvc.cli.server import DEV_DEFAULTS
from pushsvc.client import Publisher
from pushsvc.server.embedded import EmbeddedServer
from pushsvc.settings import rows
from tests.support.nodes import SECRET, Node, publisher_token, token, wait_until
from tests.support.ports import free_port
from tests.support.programs import need

ENTRY = [str(Path(sys.executable).with_name("pushsvc"))]
MODULE = [sys.executable, "-m", "pushsvc"]


def environ(**variables: str) -> dict[str, str]:
    """The environment with these variables of ours and no others."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PUSH")}
    return clean | variables


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MODULE, *arguments], env=environ(**variables), capture_output=True, text=True,
        timeout=30, check=False,
    )  # fmt: skip


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """Check that a command failed with one line; the line."""
    assert done.returncode not in (0, None)
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1, done.stderr
    return lines[0]


@contextmanager
def running(*command: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A command that runs until the end of the block, with its output in a pipe."""
    process = subprocess.Popen(
        command, env=environ(**variables), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line_of(process: subprocess.Popen[str]) -> Any:
    """The next line of output, which is JSON."""
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], 15)[0], "no output"
    return json.loads(process.stdout.readline())


# --- help and tokens -----------------------------------------------------------------------------


def test_help_lists_the_commands_and_what_to_try() -> None:
    done = run("--help")
    assert done.returncode == 0
    for command in ("dev", "serve", "token", "publish", "listen"):
        assert re.search(rf"^  {command}\s+\S", done.stdout, re.MULTILINE)


def test_version_is_told() -> None:
    done = run("--version")
    assert done.returncode == 0
    assert re.search(r"\d+\.\d+\.\d+", done.stdout)


@pytest.mark.parametrize("command", ["serve", "dev"])
def test_every_setting_is_a_flag_that_help_explains(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    text = " ".join(done.stdout.split())
    for row in rows():
        if row.flag is None:
            assert f" --{row.field.replace('_', '-')} " not in text
        else:
            assert f" {row.flag} " in text
            assert row.help.split(":")[0].split(";")[0][:30] in text


@pytest.mark.parametrize("command", ["token", "publish", "listen"])
def test_every_command_has_help(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert "Usage:" in done.stdout


def test_token_mints_what_a_node_accepts(node: Node) -> None:
    done = run(
        "token", "--user", "u1", "--scope", "push.publish", "--scope", "push.admin",
        "--ttl", "15m", PUSHSVC_JWT_SECRET=SECRET,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    minted = done.stdout.strip()
    claims = jwt.decode(minted, SECRET, ["HS256"], audience="pushsvc")
    assert claims["sub"] == "u1"
    assert claims["scope"].split() == ["push.publish", "push.admin"]
    assert abs(claims["exp"] - time.time() - 900) < 30
    auth = {"Authorization": f"Bearer {minted}"}
    body = {"to": {"user": "u1"}, "data": 1}
    assert node.post("/v1/notifications", body, headers=auth).status_code == 202


def test_token_says_what_it_lacks() -> None:
    assert "PUSHSVC_JWT_SECRET" in refused(run("token", "--user", "u1"))
    assert "user" in refused(run("token", "--user", "a\tb", PUSHSVC_JWT_SECRET=SECRET))
    assert run("token", PUSHSVC_JWT_SECRET=SECRET).returncode == 2
    done = run("token", "--user", "u1", "--ttl", "soon", PUSHSVC_JWT_SECRET=SECRET)
    assert done.returncode == 2
    assert "90s" in done.stderr


# --- publish and listen --------------------------------------------------------------------------


def publish(node: Node, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("publish", "--url", node.url, *arguments, PUBLISHER_TOKEN=publisher_token())


def listen(*arguments: str) -> list[str]:
    return [*MODULE, "listen", *arguments]


def test_what_is_published_is_listened_to_and_acked(node: Node, user: str) -> None:
    auth = token(user)
    with running(*listen("--url", node.url, "--token", auth, "--count", "3")) as listener:
        welcome = line_of(listener)
        assert (welcome["type"], welcome["user"]) == ("welcome", user)
        assert welcome["device"] == "default"
        done = publish(node, "--user", user, '{"a": [1, 2]}')
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["connections"] == 1
        note = line_of(listener)
        assert note["id"] == json.loads(done.stdout)["id"]
        assert note["data"] == {"a": [1, 2]}
        publish(node, "--user", user, "--event", "greeted", "hello, world")
        note = line_of(listener)
        assert (note["event"], note["data"]) == ("greeted", "hello, world")
        repeat = ("--user", user, "--idempotency-key", user, "1")
        ids = {json.loads(publish(node, *repeat).stdout)["id"] for _ in range(2)}
        assert len(ids) == 1
        assert line_of(listener)["data"] == 1
        assert listener.wait(10) == 0
    with running(*listen("--url", node.url, "--token", auth)) as listener:
        line_of(listener)
        publish(node, "--user", user, "--user", f"{user}-2", "--ttl", "60s", '"next"')
        assert line_of(listener)["data"] == "next"  # the others were acked


def test_what_is_read_elsewhere_is_a_line_too_and_a_signal_is_not_counted(
    node: Node, user: str
) -> None:
    auth = token(user)
    with running(*listen("--url", node.url, "--token", auth, "--count", "3")) as listener:
        assert line_of(listener)["unread"] == 0
        sent = json.loads(publish(node, "--user", user, "1").stdout)["id"]
        assert line_of(listener)["id"] == sent
        assert publish(node, "--user", user, "--no-inbox", '"signal"').returncode == 0
        note = line_of(listener)
        assert (note["data"], note["inbox"]) == ("signal", False)
        with Publisher(node.url, token=auth) as own:
            assert own.read(user) == 1
            assert own.read(user, sent) == 0
        assert line_of(listener) == {"type": "read", "ids": [sent], "unread": 0}
        publish(node, "--user", user, "2")
        assert line_of(listener)["data"] == 2
        assert listener.wait(10) == 0


def test_topics_and_the_broadcast_are_listened_to_where_they_were_left(
    node: Node, user: str
) -> None:
    auth = token(user, topics={"subscribe": ["cli.**"]})
    arguments = ("--url", node.url, "--token", auth, "--topic", "cli.news")
    with running(*listen(*arguments)) as listener:
        line_of(listener)
        assert line_of(listener)["topics"].keys() == {"cli.news"}
        assert publish(node, "--topic", "cli.news", "1").returncode == 0
        note = line_of(listener)
        assert (note["topic"], note["data"]) == ("cli.news", 1)
        assert publish(node, "--broadcast", "2").returncode == 0
        note = line_of(listener)
        assert (note["broadcast"], note["data"]) == (True, 2)
    assert publish(node, "--topic", "cli.news", "--broadcast", "3").returncode == 2


def test_listening_without_ack_leaves_the_mailbox_as_it_is(node: Node, user: str) -> None:
    sent = node.publish(user, "again")
    for _ in range(2):
        command = listen("--url", node.url, "--token", token(user), "--no-ack", "--count", "1")
        with running(*command, "--device", "d1") as listener:
            assert line_of(listener)["device"] == "d1"
            assert line_of(listener)["id"] == sent
            assert listener.wait(10) == 0


def test_listen_comes_back_when_its_node_does(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    with (
        Node(valkey.url, tmp_path, prefix=prefix) as node,
        running(*listen("--url", node.url, "--token", token("u1"))) as listener,
    ):
        first = line_of(listener)
        node.stop()
        message = line_of(listener)
        assert message["type"] == "reconnect"
        node.start()
        assert line_of(listener)["connection"] != first["connection"]
        sent = node.publish("u1", 1)
        assert line_of(listener)["id"] == sent
        listener.send_signal(signal.SIGINT)
        assert listener.wait(10) == 0


def test_listen_gives_up_where_coming_back_is_useless(node: Node) -> None:
    done = run("listen", "--url", node.url, "--token", "not.a.token")
    assert "401" in refused(done)
    done = run("listen", "--url", node.url, "--token", token("u1"), "--device", "a\tb")
    assert "400" in refused(done)


def test_listen_says_why_it_may_not_listen_to_a_topic(node: Node, user: str) -> None:
    auth = token(user, topics={"subscribe": ["cli.*"]})
    done = run("listen", "--url", node.url, "--token", auth, "--topic", "other.news")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert "topics.subscribe" in line


def test_a_token_that_is_missing_is_told_with_its_variable_and_where_one_comes_from(
    tmp_path: Path,
) -> None:
    for command in (["listen"], ["publish", "--user", "u1", "1"]):
        line = refused(run(*command, XDG_STATE_HOME=str(tmp_path)))
        variable = "USER_TOKEN" if command == ["listen"] else "PUBLISHER_TOKEN"
        for part in (variable, "--token", "make run", "pushsvc dev"):
            assert part in line


def test_a_token_that_is_refused_is_told_with_where_it_is_from(node: Node) -> None:
    old = token("u1", ttl=-100)
    line = refused(run("listen", "--url", node.url, USER_TOKEN=old))
    assert "expired" in line
    assert "USER_TOKEN" in line
    line = refused(run("publish", "--url", node.url, "--token", old, "--user", "u1", "1"))
    assert "expired" in line
    assert "--token" in line


def test_what_is_written_wrong_is_told_with_what_to_write() -> None:
    done = run("publish", "--url", "localhost:8080", "--token", "x", "--user", "u1", "1")
    assert "write 'http://localhost:8080'" in done.stderr
    for option in ("--user", "--topic"):
        done = run("publish", "--url", "http://localhost:1", "--token", "x", option, "", "1")
        assert done.returncode == 2
        assert "take a name" in done.stderr


def test_listen_names_an_address_where_nothing_listens_once() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with running(*MODULE, "listen", "--url", url, "--token", "x") as it:
        assert it.stderr is not None
        line = it.stderr.readline()
    assert line.count(url) == 1
    assert line.endswith("trying again\n")


def test_publish_says_why_it_was_refused(node: Node) -> None:
    assert "401" in refused(run("publish", "--url", node.url, "--token", "x", "--user", "u1", "1"))
    line = refused(publish(node, "--user", "a\tb", "1"))
    assert "400" in line
    assert "user id" in line
    done = run("publish", "--url", "http://127.0.0.1:1", "--token", "x", "--user", "u1", "1")
    assert "127.0.0.1:1" in refused(done)
    done = run("publish", "--url", "file:///etc/passwd", "--token", "x", "--user", "u1", "1")
    assert done.returncode == 2
    assert "http://" in done.stderr


def test_the_admin_port_says_that_it_is_no_place_for_clients(node: Node) -> None:
    for command in (["listen"], ["publish", "--user", "u1", "1"]):
        line = refused(run(*command, "--url", node.admin_url, "--token", publisher_token()))
        assert node.admin_url in line
        assert "this is the admin port" in line
        assert "8080" in line


# --- bad settings --------------------------------------------------------------------------------

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
PEM = KEY.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

BAD_SETTINGS: dict[str, tuple[dict[str, str], str]] = {
    "an unknown variable": ({"PUSHSVC_HEARTBEAT": "5"}, "PUSHSVC_HEARTBEAT"),
    "a number that is none": ({"PUSHSVC_PORT": "http"}, "PUSHSVC_PORT"),
    "a number out of bounds": ({"PUSHSVC_ACK_WINDOW": "0"}, "PUSHSVC_ACK_WINDOW"),
    "an unknown choice": ({"PUSHSVC_DURABILITY": "paper"}, "PUSHSVC_DURABILITY"),
    "an unknown level": ({"PUSHSVC_LOG_LEVEL": "loud"}, "PUSHSVC_LOG_LEVEL"),
    "a Redis URL that is none": ({"PUSHSVC_REDIS_URL": "http://x"}, "PUSHSVC_REDIS_URL"),
    "an origin with a path": (
        {"PUSHSVC_ALLOWED_ORIGINS": "https://a/b"}, "PUSHSVC_ALLOWED_ORIGINS",
    ),
    "a short secret": ({"PUSHSVC_JWT_SECRET": "short"}, "PUSHSVC_JWT_SECRET"),
    "a secret too short for its algorithm": (
        {"PUSHSVC_JWT_ALGORITHMS": "HS512"}, "PUSHSVC_JWT_SECRET",
    ),
    "a public key for a secret": ({"PUSHSVC_JWT_SECRET": PEM}, "PUSHSVC_JWT_SECRET"),
    "no key": ({"PUSHSVC_JWT_SECRET": ""}, "PUSHSVC_JWT_SECRET"),
    "two key sources": ({"PUSHSVC_JWT_JWKS_URL": "http://127.0.0.1:1/"}, "PUSHSVC_JWT_SECRET"),
    "an algorithm that does not fit": (
        {"PUSHSVC_JWT_ALGORITHMS": "RS256"}, "PUSHSVC_JWT_ALGORITHMS",
    ),
    "no algorithm": ({"PUSHSVC_JWT_ALGORITHMS": "none"}, "PUSHSVC_JWT_ALGORITHMS"),
    "a key file that is not there": (
        {"PUSHSVC_JWT_SECRET": "", "PUSHSVC_JWT_PUBLIC_KEY_FILE": "/nowhere.pem"},
        "PUSHSVC_JWT_PUBLIC_KEY_FILE",
    ),
    "a key file that is none": (
        {"PUSHSVC_JWT_SECRET": "", "PUSHSVC_JWT_PUBLIC_KEY_FILE": __file__},
        "PUSHSVC_JWT_PUBLIC_KEY_FILE",
    ),
    "a host that is none": ({"PUSHSVC_HOST": "no.such.host.invalid"}, "PUSHSVC_HOST"),
    "an address of another machine": ({"PUSHSVC_HOST": "192.0.2.1"}, "PUSHSVC_HOST"),
    "an admin address of another machine": (
        {"PUSHSVC_ADMIN_HOST": "192.0.2.1"}, "PUSHSVC_ADMIN_HOST",
    ),
    "a Kubernetes Service's variable": (
        {"PUSHSVC_PORT": "tcp://10.0.0.1:8080"}, "enableServiceLinks",
    ),
}  # fmt: skip


def serve(valkey: EmbeddedServer, *flags: str, **variables: str) -> str:
    """The line with which a node refuses to start."""
    good = {
        "PUSHSVC_REDIS_URL": valkey.url, "PUSHSVC_JWT_SECRET": SECRET,
        "PUSHSVC_HOST": "127.0.0.1", "PUSHSVC_PORT": "0",
        "PUSHSVC_ADMIN_HOST": "127.0.0.1", "PUSHSVC_ADMIN_PORT": "0",
        "PUSHSVC_LOG_LEVEL": "error",
    }  # fmt: skip
    done = run("serve", *flags, **(good | variables))
    assert "Traceback" not in done.stderr
    return refused(done)


@pytest.mark.parametrize(("variables", "named"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_a_bad_setting_stops_the_start_with_one_line_that_names_it(
    valkey: EmbeddedServer, variables: dict[str, str], named: str
) -> None:
    line = serve(valkey, **variables)
    assert named in line
    assert SECRET not in line


def test_a_bad_flag_is_named_as_a_flag(valkey: EmbeddedServer) -> None:
    assert "--port" in serve(valkey, "--port", "70000")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_in_use_stops_the_start_with_one_line(valkey: EmbeddedServer, workers: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for variable, flag in (("PUSHSVC_PORT", "--port"), ("PUSHSVC_ADMIN_PORT", "--admin-port")):
            line = serve(valkey, **{variable: port, "PUSHSVC_WORKERS": workers})
            way_out = f"choose another with {flag} or {variable}"
            assert line.endswith(f"{variable}: 127.0.0.1:{port} is in use: {way_out}")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_node_without_redis_says_once_where_it_looked_and_what_to_start(
    tmp_path: Path, prefix: str, workers: int
) -> None:
    node = Node("redis://127.0.0.1:1/0", tmp_path, prefix=prefix, workers=workers)

    def lines() -> list[dict[str, Any]]:
        return [each for each in node.log_lines() if "--redis-url" in str(each["event"])]

    try:
        node.start(ready=False)
        (line,) = wait_until(lines, "the line")
        assert "127.0.0.1:1/0" in line["redis_url"]
        for part in ("start one", "PUSHSVC_REDIS_URL", "pushsvc dev"):
            assert part in line["event"]
    finally:
        node.stop()


def test_several_workers_say_once_what_stops_them(valkey: EmbeddedServer) -> None:
    line = serve(valkey, PUSHSVC_WORKERS="2", PUSHSVC_DURABILITY="fsync")
    assert "PUSHSVC_DURABILITY" in line


# --- dev -----------------------------------------------------------------------------------------


class Terminal:
    """A pseudo-terminal with a command in it."""

    def __init__(self, *command: str) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.execve(command[0], command, environ())
        self.text = ""
        self._open = True
        self._exit_code: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._exit_code is None:
            os.kill(self.pid, signal.SIGTERM)
            self.exit_code()
        self.close()

    def read(self) -> str:
        """All that it showed so far."""
        while self._open and select.select([self._fd], [], [], 0.05)[0]:
            try:
                self.text += os.read(self._fd, 4096).decode()
            except OSError:
                break
        return self.text

    def press(self, keys: bytes) -> None:
        """Type."""
        os.write(self._fd, keys)

    def close(self) -> None:
        """Close the window."""
        if self._open:
            self._open = False
            os.close(self._fd)

    def exit_code(self) -> int:
        """Wait for the end of the command."""
        if self._exit_code is None:

            def ended() -> bool:
                self.read()
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self._exit_code = os.waitstatus_to_exitcode(status)
                return bool(pid)

            wait_until(ended, "the command to end")
        assert self._exit_code is not None
        return self._exit_code


@contextmanager
def dev(command: list[str]) -> Iterator[Terminal]:
    """``pushsvc dev`` in a terminal, of which nothing may be left in the end."""
    with Terminal(*command, "dev", "--port", "0", "--admin-port", "0") as shown:
        wait_until(lambda: "data" in shown.read(), "the introduction")
        family = psutil.Process(shown.pid).children(recursive=True)
        assert any("valkey" in " ".join(child.cmdline()) for child in family)
        try:
            yield shown
            wait_until(lambda: not any(child.is_running() for child in family), "the server's end")
        finally:
            for child in family:
                with suppress(psutil.NoSuchProcess):
                    child.kill()
        assert "Traceback" not in shown.text


def to_paste(text: str) -> str:
    """The lines that publish."""
    return text.partition("Publish to")[2].partition("\n")[2].replace("\r", "")


@pytest.mark.parametrize("command", [ENTRY, MODULE], ids=["entry point", "module"])
def test_dev_prints_commands_that_work_when_pasted_and_ctrl_c_ends_all_of_it(
    command: list[str],
) -> None:
    need("curl")
    with dev(command) as shown:
        text = shown.read()
        console = re.search(r"(http://127.0.0.1:\d+/dev/console)", text)
        assert console
        curl = ["curl", "-sSfL", console[1]]
        assert b"<html" in subprocess.run(curl, capture_output=True, check=True).stdout

        listening = re.search(r"^ *listen +(\S.*)$", text, re.MULTILINE)
        assert listening
        with running("bash", "-c", f"exec {listening[1].strip()}") as listener:
            assert line_of(listener)["user"] == "demo"
            done = subprocess.run(
                ["bash", "-c", to_paste(text)], env=environ(),
                capture_output=True, text=True, timeout=20, check=True,
            )  # fmt: skip
            answer = json.loads(done.stdout)
            assert answer["connections"] == 1
            note = line_of(listener)
            assert note["id"] == answer["id"]
            assert note["data"] == {"text": "hello"}
            shown.press(b"\x03")
            assert shown.exit_code() == 0


def kept_in(directory: Path) -> list[str]:
    """The names of the files with tokens."""
    return sorted(each.name for each in (directory / "pushsvc").glob("*"))


def test_dev_ends_all_of_it_when_its_window_is_closed() -> None:
    with dev(MODULE) as shown:
        shown.close()
        assert shown.exit_code() == 0


def introduced(process: subprocess.Popen[str]) -> str:
    """What ``pushsvc dev`` printed, once that is all."""
    assert process.stdout is not None
    text = ""
    while "hello" not in text:
        assert process.poll() is None
        text += process.stdout.readline()
    return text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_dev_in_a_pipe_is_ended_by_a_signal_and_takes_its_tokens_with_it(
    tmp_path: Path, number: signal.Signals
) -> None:
    command = [*MODULE, "dev", "--port", "0", "--admin-port", "0"]
    with running(*command, XDG_STATE_HOME=str(tmp_path)) as process:
        introduced(process)
        assert len(kept_in(tmp_path)) == 1
        family = psutil.Process(process.pid).children(recursive=True)
        assert family
        process.send_signal(number)
        assert process.wait(15) == 0
        wait_until(lambda: not any(child.is_running() for child in family), "the server to end")
    assert kept_in(tmp_path) == []


def test_listen_finds_the_dev_that_runs_and_says_that_one_was_killed(tmp_path: Path) -> None:
    state = {"XDG_STATE_HOME": str(tmp_path)}
    command = [*MODULE, "dev", "--port", "0", "--admin-port", "0"]
    with running(*command, **state) as process:
        found = re.search(r"node +(\S+)", introduced(process))
        assert found
        done = run("publish", "--user", "demo", '"found"', **state)
        assert done.returncode == 0, done.stderr
        for where in ({}, {"PUSH_URL": found[1]}):
            with running(*listen("--no-ack", "--count", "1"), **state, **where) as listener:
                assert line_of(listener)["user"] == "demo"
                assert line_of(listener)["data"] == "found"
        # Who sources its file mints tokens of one's own for it.
        (file,) = kept_in(tmp_path)
        sourced = f'. {tmp_path}/pushsvc/{file}; exec "$@"'
        made = subprocess.run(
            ["sh", "-c", sourced, "-", *MODULE, "token", "--user", "ann"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        with running(*listen("--count", "1"), **state, USER_TOKEN=made.stdout.strip()) as listener:
            assert line_of(listener)["user"] == "ann"
        # What is given wins.
        assert "401" in refused(run("listen", USER_TOKEN="x", **state))
        nowhere = run("publish", "--url", "http://127.0.0.1:1", "--user", "u", "1", **state)
        assert "PUBLISHER_TOKEN" in refused(nowhere)
        process.kill()
        process.wait()
        line = refused(run("listen", **state))
        assert f"no development node answers at {found[1]}" in line
        assert "make run" in line
        assert kept_in(tmp_path) != []
    with running(*command, **state) as process:
        introduced(process)
        assert len(kept_in(tmp_path)) == 1  # what the killed one left is gone


def test_dev_runs_where_it_cannot_keep_its_tokens_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    state = str(tmp_path / "file" / "state")
    command = [*MODULE, "dev", "--port", "0", "--admin-port", "0"]
    with running(*command, XDG_STATE_HOME=state) as process:
        assert process.stdout is not None
        lines: list[str] = []
        while not lines or "tokens" not in lines[-1]:
            assert process.poll() is None
            lines.append(process.stdout.readline())
        assert f"{state}/pushsvc: Not a directory" in lines[-1]
        process.terminate()
        assert process.wait(15) == 0
        assert process.stdout.read() == ""
        assert process.stderr is not None
        assert process.stderr.read() == ""


OTHER_SERVER = {
    row.field: "redis://127.0.0.1:1/0" if row.field == "redis_url" else __file__
    for row in rows()
    if row.field.startswith("redis_") and row.field != "redis_prefix"
}


@pytest.mark.parametrize("field", OTHER_SERVER)
def test_dev_refuses_a_flag_about_another_server(field: str) -> None:
    line = refused(run("dev", "--" + field.replace("_", "-"), OTHER_SERVER[field]))
    assert "pushsvc serve" in line


def test_dev_uses_its_own_valkey_whatever_the_variables_of_another_node_say() -> None:
    need("curl")
    command = [*MODULE, "dev", "--port", "0", "--admin-port", "0"]
    others = {f"PUSHSVC_{field.upper()}": value for field, value in OTHER_SERVER.items()}
    with running(*command, **others) as process:
        curl = ["bash", "-c", to_paste(introduced(process))]
        done = subprocess.run(curl, capture_output=True, text=True, timeout=20, check=True)
        assert "id" in json.loads(done.stdout)
        process.terminate()
        assert process.wait(15) == 0


def test_the_help_of_dev_tells_the_defaults_of_dev() -> None:
    text = " ".join(run("dev", "--help").stdout.split())
    for flag, value in DEV_DEFAULTS.items():
        told = re.search(rf" --{flag.replace('_', '-')} .*?\[default: (.*?)\]( -|$)", text)
        assert told is not None
        assert told[1] == value
    assert "[default: the embedded Valkey, no other]" in text


def test_dev_says_in_one_line_that_its_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        line = refused(run("dev", "--port", port, "--admin-port", "0"))
        assert line.endswith(
            f"127.0.0.1:{port} is in use: choose another with --port or PUSHSVC_PORT"
        )
