"""The processes of ``pushsvc dev``: they end together, and the node's can be killed for real."""

import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.backend import problem
from tests.support.dev import Dev, dev, start
from tests.support.nodes import wait_until


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    with dev(tmp_path_factory.mktemp("dev"), "--allowed-origins", "http://app.test") as running:
        yield running


def alive(process: psutil.Process) -> bool:
    """Whether it runs; what was orphaned may be left as a zombie where nobody reaps it."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def test_a_dev_that_is_killed_leaves_nothing_behind(tmp_path: Path) -> None:
    process, local = start(tmp_path)
    family = psutil.Process(process.pid).children(recursive=True)
    (valkey,) = (each for each in family if each.name() == "valkey-server")
    directory = Path(valkey.cwd())
    assert directory.exists()
    process.kill()
    process.wait()
    try:
        wait_until(lambda: not any(alive(each) for each in family), "the end of all of it")
        wait_until(lambda: not directory.exists(), "its files to be removed")
    finally:
        for each in family:
            with suppress(psutil.NoSuchProcess):
                each.kill()
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{local.url}/docs")


def test_what_lies_about_in_the_working_folder_is_no_module_of_a_worker(tmp_path: Path) -> None:
    (tmp_path / "socket.py").write_text("raise SystemExit('not meant for a node')")
    script = Path(sys.executable).with_name("pushsvc")
    process, _ = start(tmp_path, command=[str(script)], cwd=tmp_path)
    process.terminate()
    assert process.wait(30) == 0


def kill(local: Dev, **node: str) -> httpx.Response:
    return httpx.post(f"{local.admin_url}/dev/kill", json=node)


def serving(local: Dev) -> str:
    """The id of the node that serves, once there is one."""

    def node() -> str:
        (found,) = httpx.get(f"{local.admin_url}/dev/node").json()["nodes"]
        return str(found["node"]) if found["ready"] else ""

    found: str = wait_until(node, "a node that serves", 40)
    return found


@pytest.mark.parametrize("named", [True, False])
def test_a_node_that_is_killed_is_replaced(local: Dev, *, named: bool) -> None:
    before = serving(local)
    answer = kill(local, node=before) if named else kill(local)
    assert answer.status_code == 200
    assert answer.json()["node"] == before
    assert not psutil.pid_exists(answer.json()["pid"])
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{local.url}/docs")
    problem(kill(local), 404, "not_found")  # it is dead already
    wait_until(lambda: httpx.get(f"{local.admin_url}/readyz").status_code == 503, "unready")
    assert serving(local) not in ("", before)
    assert httpx.get(f"{local.url}/docs").status_code == 200


def test_a_node_that_is_not_there_cannot_be_killed(local: Dev) -> None:
    before = serving(local)
    problem(kill(local, node="someone"), 404, "not_found")
    assert kill(local, nodes="x").status_code == 400
    assert serving(local) == before


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://app.test"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "demo.test"}, 403),
        ({"Content-Type": "text/plain"}, 415),
    ],
)
def test_a_page_of_another_origin_kills_nothing(
    local: Dev, headers: dict[str, str], status: int
) -> None:
    before = serving(local)
    sent = {"Content-Type": "application/json"} | headers
    answer = httpx.post(f"{local.admin_url}/dev/kill", content=b"{}", headers=sent)
    assert answer.status_code == status
    assert serving(local) == before


def test_what_wants_the_port_of_another_dev_is_told(local: Dev, tmp_path: Path) -> None:
    port = local.url.rpartition(":")[2]
    with pytest.raises(RuntimeError, match="PUSHSVC_PORT"):
        start(tmp_path, "--port", port)


def test_several_workers_are_killed_by_name(tmp_path: Path) -> None:
    with dev(tmp_path, "--workers", "2") as local:

        def nodes() -> list[str]:
            found = httpx.get(f"{local.admin_url}/dev/node").json()["nodes"]
            return [each["node"] for each in found if each["ready"]]

        one, two = nodes()
        answer = kill(local)
        problem(answer, 400, "invalid")
        assert one in answer.json()["detail"]
        assert kill(local, node=two).json()["node"] == two
        assert nodes() == [one]
        wait_until(lambda: len(nodes()) == 2, "another node in its place", 40)
        assert one in nodes()


def test_ctrl_c_while_it_starts_ends_it_quietly(tmp_path: Path) -> None:
    process, local = start(tmp_path)
    kill(local)
    # The replacement is being started, or waits to be.
    (worker,) = wait_until(
        lambda: [
            each for server in psutil.Process(process.pid).children()
            if "spawn_main" in " ".join(server.cmdline())
            for each in server.children() if each.status() != psutil.STATUS_ZOMBIE
        ],
        "the new worker of the fork server",
    )  # fmt: skip
    worker.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    assert process.wait(15) == 0
    assert "Traceback" not in local.output.read_text()
    assert "KeyboardInterrupt" not in local.output.read_text()
