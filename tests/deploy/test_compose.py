"""``examples/compose``, run without Docker: its commands, its environment, its proxy's file."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from pushsvc.client import Publisher, listen
from pushsvc.server.embedded import find_server
from pushsvc.settings.table import Settings
from pushsvc.web.poll import MAX_WAIT
from tests.documents.tools import MODULES, need_tools, node
from tests.support.nodes import SECRET, Node, publisher_token, token, wait_until
from tests.support.ports import free_port
from tests.support.programs import need

FOLDER = Path(__file__).parents[2] / "examples" / "compose"
FILE = FOLDER / "compose.yaml"
PROXY = (FOLDER / "haproxy.cfg").read_text()
ENVIRON = {"PUSHSVC_JWT_SECRET": SECRET}
"""What whoever starts it has in the environment."""


def interpolated(text: str) -> str:
    """What Compose makes of ``${NAME:-default}`` and of ``${NAME:?error}``."""

    def value(match: re.Match[str]) -> str:
        name, kind, default = match.groups()
        return ENVIRON.get(name) or (default if kind == "-" else pytest.fail(f"{name} is not set"))

    return re.sub(r"\$\{(\w+):([-?])([^}]*)\}", value, text)


SERVICES: dict[str, Any] = yaml.safe_load(interpolated(FILE.read_text()))["services"]
NODES = ("node-a", "node-b")


def test_the_file_is_one_to_the_schema_of_compose() -> None:
    need_tools()
    node(MODULES / "dclint/bin/dclint.cjs", "--quiet", FILE)


def test_a_poll_and_the_time_between_heartbeats_are_shorter_than_the_patience_of_the_proxy() -> (
    None
):
    heartbeat = Settings.model_fields["heartbeat_seconds"].default
    for name in ("client", "server", "tunnel"):
        (seconds,) = re.findall(rf"^ +timeout {name} (\d+)s$", PROXY, re.MULTILINE)
        assert int(seconds) > max(MAX_WAIT, 2 * heartbeat)


def replaced(text: str, **others: str) -> str:
    """A text with other words in the place of some, each of which is there once."""
    for old, new in others.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


class Stack:
    """The services of the file as processes.

    Only what Docker gives is replaced: addresses, ports, folders, and how many files may be open.

    Args:
        directory: for what they keep and say.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        (directory / "data").mkdir()
        self.redis_port, self.port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.nodes = [self._node(SERVICES[name]) for name in NODES]
        self.valkey: subprocess.Popen[bytes]

    def _node(self, service: dict[str, Any]) -> Node:
        url = replaced(
            service["environment"]["PUSHSVC_REDIS_URL"],
            **{"valkey:6379": f"127.0.0.1:{self.redis_port}"},
        )
        settings = {
            name.removeprefix("PUSHSVC_").lower(): value
            for name, value in service["environment"].items()
            if name != "PUSHSVC_REDIS_URL"
        }
        return Node(url, self._directory, drain_seconds=None, **settings)

    def _start(self, name: str, *command: str | Path) -> subprocess.Popen[bytes]:
        with (self._directory / f"{name}.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=self._directory)

    def start_valkey(self) -> None:
        """Start Valkey, on what it has kept."""
        program, *options = SERVICES["valkey"]["command"]
        assert program == "valkey-server"
        place = ("--bind", "127.0.0.1", "--port", str(self.redis_port))
        folder = ("--dir", self._directory / "data")
        self.valkey = self._start("valkey", find_server(), *options, *place, *folder)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Have all of it for the length of a block."""
        haproxy = need("haproxy")
        self.start_valkey()
        proxy = None
        try:
            for each in self.nodes:
                each.launch()
            for each in self.nodes:
                each.await_start()
            proxy = self._start("proxy", haproxy, "-dW", "-db", "-f", self._proxy_file())
            wait_until(self.up, "the proxy to answer")
            yield
            for each in self.nodes:
                each.stop()
                each.check_log()
        finally:
            for each in self.nodes:
                if hasattr(each, "process"):
                    each.stop()
            for process in (proxy, self.valkey):
                if process is not None:
                    process.kill()
                    process.wait()

    def _proxy_file(self) -> Path:
        a, b = self.nodes
        file = self._directory / "haproxy.cfg"
        file.write_text(
            replaced(
                PROXY,
                **{
                    "maxconn 30000": "maxconn 200",
                    "bind :8080\n": f"bind 127.0.0.1:{self.port}\n",
                    "node-a:8080 port 9090": f"127.0.0.1:{a.port} port {a.admin_port}",
                    "node-b:8080 port 9090": f"127.0.0.1:{b.port} port {b.admin_port}",
                },
            )
        )
        return file

    def up(self) -> bool:
        try:
            return httpx.get(f"{self.url}/openapi.json", timeout=5).status_code == 200
        except httpx.TransportError:
            return False


# --- what becomes of notifications behind it -----------------------------------------------------

USER = "u1"
COUNT = 60


def auth() -> dict[str, str]:
    return {"Authorization": f"Bearer {token(USER)}"}


async def by_socket(url: str, device: str) -> AsyncIterator[Any]:
    async for note in listen(url, token=token(USER), device=device):
        yield note.data


async def by_stream(url: str, device: str) -> AsyncIterator[Any]:
    """As ``EventSource`` does: with the id of the last event it comes back, whatever happened."""
    position: dict[str, str] = {}
    while True:
        try:
            async with (
                httpx.AsyncClient(headers=auth() | position, timeout=20) as client,
                client.stream("GET", f"{url}/v1/stream?device={device}") as answer,
            ):
                async for line in answer.aiter_lines():
                    if line.startswith("id:"):
                        position["Last-Event-ID"] = line.removeprefix("id:").strip()
                    elif line.startswith("data:"):
                        message = json.loads(line.removeprefix("data:"))
                        if message["type"] == "notification":
                            yield message["data"]
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.1)  # as its "retry" says, or there is no end to a refusal


async def by_poll(url: str, device: str) -> AsyncIterator[Any]:
    after = ""
    async with httpx.AsyncClient(headers=auth(), timeout=20) as client:
        while True:
            query = {"device": device, "wait": "10", "after": after}
            try:
                answer = await client.get(f"{url}/v1/poll", params=query)
            except httpx.TransportError:
                continue
            if answer.status_code != 200:  # the proxy's, until it knows
                await asyncio.sleep(0.1)
                continue
            after = answer.json()["position"]
            for message in answer.json()["messages"]:
                yield message["data"]


class Listener:
    """Collects what comes to a device."""

    def __init__(self, source: AsyncIterator[Any]) -> None:
        self.came: list[Any] = []
        self.task = asyncio.create_task(self._collect(source))

    async def _collect(self, source: AsyncIterator[Any]) -> None:
        async for data in source:
            self.came.append(data)

    async def until(self, data: Any) -> None:
        """Wait until something came."""
        async with asyncio.timeout(30):
            while data not in self.came and not self.task.done():
                await asyncio.sleep(0.02)


async def test_a_node_is_killed_and_nothing_is_lost(tmp_path: Path) -> None:
    """The one with more of the sockets, streams and polls, while a backend publishes."""
    stack = Stack(tmp_path)
    with stack.running(), Publisher(stack.url, token=publisher_token()) as backend:
        check_health(stack.nodes[0])
        listeners = [
            Listener(source(stack.url, f"{source.__name__}.{number}"))
            for source in (by_socket, by_stream, by_poll)
            for number in range(2)
        ]
        try:
            # A device that comes when others have acknowledged something is not owed that.
            await asyncio.to_thread(
                wait_until, lambda: present(stack.url) == len(listeners), "all devices"
            )
            first = await asyncio.to_thread(backend.publish, user=USER, data=0)
            assert first.durability == "fsync"
            held = {each: each.metric("pushsvc_connections") for each in stack.nodes}
            busiest = max(held, key=lambda each: held[each])
            for number in range(1, COUNT):
                if number == COUNT // 2:
                    busiest.kill()
                await asyncio.to_thread(backend.publish, user=USER, data=number)
            for each in listeners:
                await each.until(COUNT - 1)
        finally:
            for each in listeners:
                each.task.cancel()
            await asyncio.wait([each.task for each in listeners])
        for each in listeners:
            assert sorted(set(each.came)) == list(range(COUNT))
        stack.valkey.kill()
        stack.valkey.wait()
        stack.start_valkey()
        assert wait_until(lambda: kept(stack.url), "the history") == list(range(COUNT))


def check_health(node: Node) -> None:
    """Run the health check of a node, which its container has."""
    kind, program, *options, code = SERVICES["node-a"]["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python3")
    code = replaced(code, **{":9090/": f":{node.admin_port}/"})
    subprocess.run([sys.executable, *options, code], check=True, timeout=20)


def present(url: str) -> int:
    """How many devices are there."""
    answer = httpx.get(f"{url}/v1/users/{USER}/presence", headers=auth(), timeout=10)
    return len(answer.json()["devices"]) if answer.status_code == 200 else 0


def kept(url: str) -> list[Any]:
    """What the mailbox keeps, oldest first; nothing while the store is away."""
    try:
        answer = httpx.get(
            f"{url}/v1/users/{USER}/notifications?limit=100", headers=auth(), timeout=10
        )
    except httpx.TransportError:
        return []
    found = answer.json()["notifications"] if answer.status_code == 200 else []
    return [each["data"] for each in reversed(found)]
