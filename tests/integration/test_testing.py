"""The node for other people's tests, used as docs/guides/testing.md says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from pushsvc.client import Publisher, Refused
from pushsvc.testing import node
from tests.support.documents import program
from tests.support.nodes import wait_until

GUIDE = "docs/guides/testing.md"


def environ(**more: str) -> dict[str, str]:
    """That of a terminal in which nothing is set."""
    return {name: value for name, value in os.environ.items() if "PYTEST" not in name} | more


def written(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).write_text(program(GUIDE, name))


def run(directory: Path, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=directory, env=environ(**more), capture_output=True,
        text=True, timeout=100, check=False,
    )  # fmt: skip


def test_the_tests_of_the_guide_pass_as_they_stand_there_and_leave_nothing(tmp_path: Path) -> None:
    written(tmp_path, "conftest.py", "test_orders.py")
    done = run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio")
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


def test_the_programs_of_the_guide_print_what_they_say(tmp_path: Path) -> None:
    written(tmp_path, "settings.py", "mint.py")
    done = run(tmp_path, "settings.py")
    kept = re.fullmatch(r"(\d+) of 40 are kept\n", done.stdout)
    assert kept, done.stderr
    assert 10 <= int(kept[1]) < 40
    done = run(tmp_path, "mint.py", PUSHSVC_JWT_SECRET="x" * 32)
    assert [len(line.split(".")) for line in done.stdout.splitlines()] == [3, 3], done.stderr


def test_a_run_that_is_killed_leaves_neither_a_node_nor_its_valkey(tmp_path: Path) -> None:
    forever = (
        "from pushsvc.testing import node\nwith node() as it: print(it.url, flush=True), input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", forever], cwd=tmp_path, env=environ(), stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        url = running.stdout.readline().strip()
        children = psutil.Process(running.pid).children(recursive=True)
        assert len(children) >= 2
        assert httpx.get(f"{url}/openapi.json", timeout=10).status_code == 200
        running.kill()

    def gone() -> bool:
        return not any(
            each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in children
        )

    wait_until(gone, "the node and its Valkey to be gone")


def test_what_lies_about_in_the_working_folder_is_no_module_of_the_node(tmp_path: Path) -> None:
    (tmp_path / "jwt.py").write_text("raise SystemExit('not meant for a node')")
    start = "from pushsvc.testing import node\nwith node() as it: print(it.url)"
    done = run(tmp_path, "-P", "-c", start)
    assert done.stdout.startswith("http://"), done.stderr


def test_its_tokens_are_taken_and_open_what_they_say() -> None:
    # With the settings that the guide gives to a container, save the address of its Valkey.
    given = dict(re.findall(r"-e PUSHSVC_(\w+)=(\S+)", program(GUIDE, "containers")))
    assert given.pop("REDIS_URL") == "redis://valkey:6379/0"
    with node(**{name.lower(): value for name, value in given.items()}) as running:
        assert running.secret == given["JWT_SECRET"]
        with running.publisher() as publisher:
            assert publisher.publish(user="u", data=1).id
            assert publisher.disconnect("u").user == "u"
        late = running.token("backend", scopes=["push.publish"], ttl=-60)
        with (
            Publisher(running.url, token=late) as publisher,
            pytest.raises(Refused, match="expired"),
        ):
            publisher.publish(user="u", data=1)


def test_a_setting_that_is_wrong_is_told_as_the_node_tells_it() -> None:
    with pytest.raises(RuntimeError, match="PUSHSVC_MAILBOX_MAX"), node(mailbox_max="many"):
        pass
