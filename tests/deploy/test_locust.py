"""locustfile.py, run as its page in the documentation says, against a real node.

Locust replaces the sockets of the process that imports it, so it is never imported here.
"""

import csv
import json
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

from tests.support.image import REPOSITORY
from tests.support.nodes import SECRET, Node, wait_until

Rows = dict[tuple[str, str], dict[str, str]]
"""The table, by type and name."""


def documented_line() -> list[str]:
    """The first command of the page, as words."""
    page = (REPOSITORY / "docs/operations/load.md").read_text()
    found = re.search(r"^locust .*$", page, re.MULTILINE)
    assert found
    return shlex.split(found[0])


@dataclass
class Run:
    """One run of Locust.

    Args:
        process: that runs.
        tables: the start of its CSV files' names.
    """

    process: subprocess.Popen[str]
    tables: Path
    output: str = ""

    def finish(self) -> int:
        """Wait for its end; the exit code."""
        self.output, _ = self.process.communicate(timeout=90)
        assert "Traceback" not in self.output, self.output
        return self.process.returncode

    def rows(self) -> Rows:
        path = self.tables.with_name(self.tables.name + "_stats.csv")
        with path.open() as table:
            return {(row["Type"], row["Name"]): row for row in csv.DictReader(table)}

    def counts(self, column: str = "Request Count") -> dict[tuple[str, str], int]:
        return {key: int(row[column]) for key, row in self.rows().items()}

    def has(self, kind: str, name: str) -> bool:
        """Whether there is such a row already."""
        try:
            return self.counts().get((kind, name), 0) > 0
        except (FileNotFoundError, TypeError, ValueError):  # it is just being written
            return False


@contextmanager
def locust(directory: Path, *argv: str, **variables: str) -> Iterator[Run]:
    """Run it from the repository, as one would."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("PUSHSVC_", "LOAD_"))}
    tables = directory / "load"
    process = subprocess.Popen(
        [sys.executable, "-m", "locust", *argv, "--csv", str(tables)],
        cwd=REPOSITORY, env=environ | variables, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield Run(process, tables)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def line(node: Node, *more: str) -> list[str]:
    """The documented line, for this node; later options win over its own."""
    words = documented_line()[1:]
    words[words.index("--host") + 1] = node.url
    return [*words, *more]


def test_the_documented_line_shows_the_latency_of_deliveries_and_no_failure(
    node: Node, tmp_path: Path
) -> None:
    with locust(tmp_path, *line(node), PUSHSVC_JWT_SECRET=SECRET) as run:
        assert run.finish() == 0, run.output
    counts = run.counts()
    assert counts["connect", "socket"] == 45
    for kind in ("publish", "deliver"):
        for name in ("user", "topic"):
            assert counts[kind, name] > 0
            assert re.search(rf"^{kind} +{name} ", run.output, re.MULTILINE), run.output
    assert counts["deliver", "user"] == counts["publish", "user"], "each was waited for"
    assert counts["deliver", "topic"] > counts["publish", "topic"]
    assert 0 < float(run.rows()["deliver", "user"]["Median Response Time"]) < 1000
    assert counts["ack", "user"] > 0
    assert not any(run.counts("Failure Count").values())


def test_in_a_storm_all_connections_are_lost_at_once_and_nothing_is_missed(
    node: Node, tmp_path: Path
) -> None:
    argv = line(node, "-u", "20", "-t", "10s", "--storm-seconds", "2", "--publish-rate", "10")
    with locust(tmp_path, *argv, PUSHSVC_JWT_SECRET=SECRET, LOAD_SHAPE="storm") as run:
        assert run.finish() == 0, run.output
    counts = run.counts()
    assert 18 * 2 <= counts["connect", "socket"] <= 18 * 3, "once, and after each of two storms"
    assert counts["deliver", "user (was away)"] > 0
    delivered = counts["deliver", "user (was away)"] + counts["deliver", "user"]
    assert delivered == counts["publish", "user"]
    assert not any(run.counts("Failure Count").values())


def test_a_ramp_grows_to_the_number_of_users(node: Node, tmp_path: Path) -> None:
    argv = line(node, "-u", "10", "-t", "5s")
    with locust(tmp_path, *argv, PUSHSVC_JWT_SECRET=SECRET, LOAD_SHAPE="ramp") as run:
        assert run.finish() == 0, run.output
    spawned = [int(n) for n in re.findall(r"\((\d+) total users\)", run.output)]
    assert spawned[0] < 10
    assert spawned == sorted(spawned)
    assert spawned[-1] == 10


def test_a_node_that_sends_its_clients_elsewhere_is_no_failure(node: Node, tmp_path: Path) -> None:
    node.stop()
    node._environ["PUSHSVC_MAX_CONNECTION_AGE_SECONDS"] = "2"
    node.start()
    argv = line(node, "-u", "20", "-t", "6s")
    with locust(tmp_path, *argv, PUSHSVC_JWT_SECRET=SECRET) as run:
        assert run.finish() == 0, run.output
    assert run.counts()["close", "4001"] > 0
    assert not any(run.counts("Failure Count").values())


def test_a_node_that_dies_is_one(node: Node, tmp_path: Path) -> None:
    argv = line(node, "-u", "10", "-t", "60s", "--grace-seconds", "1")
    with locust(tmp_path, *argv, PUSHSVC_JWT_SECRET=SECRET) as run:
        wait_until(lambda: run.has("deliver", "user"), "deliveries", 30)
        node.kill()
        wait_until(lambda: run.has("close", "lost"), "it to be noticed", 30)
        run.process.send_signal(signal.SIGINT)
        assert run.finish() == 1, run.output
    failures = run.counts("Failure Count")
    assert failures["close", "lost"] > 0
    node.start()


def test_what_is_missing_in_its_surroundings_is_told_in_one_sentence(tmp_path: Path) -> None:
    argv = documented_line()[1:]
    with locust(tmp_path, *argv) as run:
        assert run.finish() == 1
        assert "PUSHSVC_JWT_SECRET is not set" in run.output
    with locust(tmp_path, *argv, LOAD_SHAPE="cube") as run:
        assert run.finish() == 1
        assert "LOAD_SHAPE=cube is no shape: choose one of steady, ramp, storm" in run.output


def test_what_comes_twice_out_of_order_or_not_at_all_is_a_failure() -> None:
    told = json.loads(
        subprocess.run(
            [sys.executable, "-c", _CHECK], cwd=REPOSITORY, capture_output=True, text=True,
            timeout=60, check=True,
        ).stdout
    )  # fmt: skip
    assert told == {
        "taken": [
            True,
            True,
            "came twice on one connection",
            "came out of order",
            "came again: its acknowledgement was late",
            True,  # another feed
            False,  # again, on the next connection
            True,
        ],
        "missing": [["deliver", "missing", "was not delivered"]] * 2,
        "ramp": [5, 50, 100, 100],
        "storms": [0, 1, 2, 2],
    }


_CHECK = """
import json
from types import SimpleNamespace
import locustfile as l

order, taken = l.Order(), []
def take(*notification):
    try:
        taken.append(order.take(*notification))
    except l.WrongDeliveryError as error:
        taken.append(str(error))
take("", "9-0")
take("", "10-0")
take("", "10-0")
take("", "9-0")
take("", "9-0", 2)
take("t", "1-0")
order.reconnected()
take("", "10-0")
take("", "10-1")

missing = []
environment = SimpleNamespace(
    parsed_options=SimpleNamespace(grace_seconds=0),
    events=SimpleNamespace(request=SimpleNamespace(fire=lambda **said: missing.append(
        [said["request_type"], said["name"], str(said["exception"])]))),
)
device = l.Device(environment)
device.topic, device.owed, device._socket = "t", {}, None
l.CROWD.add(device)
for fails in (False, True, False):
    try:
        with l.CROWD.owing(device, "t"):
            if fails:
                raise OSError
    except OSError:
        pass
device.on_stop()

print(json.dumps({
    "taken": taken,
    "missing": missing,
    "ramp": [l.ramp(t, 100, 100) for t in (0, 39, 80, 99)],
    "storms": [l.storms(t, 30, 70) for t in (29, 31, 61, 69)],
}))
"""
