"""The servers that are compared: where each is found, how it is built, and how it is run.

Each is set up to keep and recover what is published, as far as it can, by its own documentation;
tokens are signed with the same secret, and no heartbeat falls into a measurement.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import version as version_of
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Final

from bench.generator import CACHE, built
from bench.harness import SECRET, Process, Server, node, say
from pushsvc import __version__
from pushsvc.server.embedded import EmbeddedServer

MOST_CONNECTIONS: Final = 18_000
HISTORY: Final = 1_000
"""Notifications that are kept of each channel, for a week: what pushsvc keeps by default."""
_HEARTBEAT_SECONDS: Final = 300
_SOCKETIO: Final = Path(__file__).parent / "socketio"
_NCHAN_FOLDERS: Final = ("/usr/lib/nginx/modules", "/usr/share/nginx/modules")


class Running:
    """A server that serves, with its Valkey.

    Args:
        process: of the server.
        redis_url: of its Valkey; empty if it has none.
    """

    def __init__(self, process: Process, redis_url: str) -> None:
        self.process = process
        self.redis_url = redis_url

    @property
    def address(self) -> str:
        """Where it serves."""
        return f"127.0.0.1:{self.process.port}"


class Peer(ABC):
    """A server that can be compared."""

    name: ClassVar[str]
    protocol: ClassVar[str]
    """What ``bench/load`` calls what it speaks."""
    publishes: ClassVar[bool] = True
    batches: ClassVar[bool] = True
    note: ClassVar[str]
    """What it does not do of the work, or otherwise."""

    @abstractmethod
    def version(self) -> str:
        """Its version."""

    @abstractmethod
    def running(self) -> AbstractContextManager[Running]:
        """The server while that is entered."""

    def missing(self) -> str:
        """What has to be done before it can be run; empty if nothing."""
        return ""

    def build(self) -> None:
        """Do that in the cache folder, where the machine has what it takes; it may take long.

        Raises:
            RuntimeError: the machine lacks something, or it is not to be built here.
            subprocess.CalledProcessError: it cannot be built.
        """
        raise RuntimeError(f"is not built here: {self.missing()}")


class Ours(Peer):
    """pushsvc with one worker."""

    name = "pushsvc"
    protocol = "pushsvc"
    note = "each notification to a user is acknowledged, and the ack stored in Valkey"

    def version(self) -> str:
        """The version of the working tree."""
        return __version__

    @contextmanager
    def running(self) -> Iterator[Running]:
        """A node as production has it."""
        with node(max_connections=MOST_CONNECTIONS) as server:
            yield Running(server, server.redis_url)


class Centrifugo(Peer):
    """Centrifugo with its Redis engine."""

    name = "Centrifugo"
    protocol = "centrifugo"
    note = (
        "a personal channel for each user, with history and recovery; no acks: what a client has "
        "had is a matter of its own; batches are `/api/batch` with `parallel`"
    )
    _build = "go install github.com/centrifugal/centrifugo/v6@latest"

    def _program(self) -> str | None:
        return shutil.which("centrifugo", path=_path())

    def version(self) -> str:
        """What Go says that it was built from, or what it says itself."""
        told = _output(["go", "version", "-m", str(self._program())]) if shutil.which("go") else ""
        found = re.search(r"\tmod\t\S+\tv(\S+)", told)
        return found[1] if found else _output([str(self._program()), "version"])

    def missing(self) -> str:
        """The program."""
        return "" if self._program() else self._build

    def build(self) -> None:
        """Build it with Go."""
        _built_with("go", self._build, GOBIN=str(CACHE), CGO_ENABLED="0")

    @contextmanager
    def running(self) -> Iterator[Running]:
        """A node whose channels keep as much as pushsvc's."""
        keeps = {"history_size": HISTORY, "history_ttl": "168h", "force_recovery": True}
        with EmbeddedServer() as valkey, _folder() as folder:
            port = _free_port()
            configuration: dict[str, Any] = {
                "http_server": {"address": "127.0.0.1", "port": port},
                "http_api": {"key": SECRET},
                "client": {
                    "token": {"hmac_secret_key": SECRET},
                    "ping_interval": f"{_HEARTBEAT_SECONDS}s",
                    "subscribe_to_user_personal_channel": {
                        "enabled": True,
                        "personal_channel_namespace": "user",
                    },
                },
                "usage_stats": {"disabled": True},
                "engine": {"type": "redis", "redis": {"address": [valkey.url]}},
                "channel": {
                    "namespaces": [
                        {"name": "user", **keeps},
                        {"name": "topic", "allow_subscribe_for_client": True, **keeps},
                    ]
                },
                "log": {"level": "error"},
            }
            file = folder / "config.json"
            file.write_text(json.dumps(configuration))
            with _Listening(port, [str(self._program()), "-c", str(file)]) as process:
                yield Running(process, valkey.url)


class Nchan(Peer):
    """nginx with Nchan, on Redis."""

    name = "Nchan"
    protocol = "nchan"
    batches = False
    note = (
        "nginx with one worker; keeps what is published in Redis and resumes by message id; no "
        "tokens (a request to a backend would check them, which is not counted here), no acks, "
        "no batches"
    )

    def version(self) -> str:
        """What Debian calls it."""
        said = _output(["dpkg-query", "-W", "-f", "${Version}", "libnginx-mod-nchan"])
        return said.removeprefix("1:").split("+")[0] or "?"

    def missing(self) -> str:
        """The server and its module, which Debian has."""
        there = shutil.which("nginx", path=_path()) and self._module()
        return "" if there else "apt-get install nginx-light libnginx-mod-nchan"

    def _module(self) -> Path | None:
        files = (Path(folder) / "ngx_nchan_module.so" for folder in _NCHAN_FOLDERS)
        return next((file for file in files if file.exists()), None)

    @contextmanager
    def running(self) -> Iterator[Running]:
        """An nginx with a location to subscribe and one to publish."""
        with EmbeddedServer() as valkey, _folder() as folder:
            port = _free_port()
            temporary = "\n".join(
                f"{kind}_temp_path {folder}/{kind};"
                for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            )
            (folder / "nginx.conf").write_text(f"""
                load_module {self._module()};
                {"user root;" if os.geteuid() == 0 else ""}
                daemon off; worker_processes 1; pid {folder}/pid; error_log stderr error;
                events {{ worker_connections {2 * MOST_CONNECTIONS}; }}
                http {{
                    access_log off; {temporary}
                    keepalive_requests 1000000000; tcp_nodelay on;
                    nchan_shared_memory_size 1024M;
                    upstream store {{
                        nchan_redis_server {valkey.url};
                        nchan_redis_storage_mode distributed;
                    }}
                    server {{
                        listen 127.0.0.1:{port} backlog=4096;
                        nchan_channel_id $arg_id;
                        nchan_message_buffer_length {HISTORY};
                        nchan_message_timeout 7d;
                        location = /sub {{ nchan_subscriber websocket; nchan_redis_pass store; }}
                        location = /pub {{ nchan_publisher http; nchan_redis_pass store; }}
                    }}
                }}
            """)
            command = [
                str(shutil.which("nginx", path=_path())), "-p", str(folder), "-c", "nginx.conf"
            ]  # fmt: skip
            with _Listening(port, command) as process:
                yield Running(process, valkey.url)


class SocketIO(Peer):
    """Socket.IO with its adapter on Redis streams."""

    name = "Socket.IO"
    protocol = "socketio"
    note = (
        "a room for each user, the adapter on Redis streams, connection state recovery (2 minutes, "
        "of 10,000 packets of all users together); no acks that are stored; published through a "
        "path of its own HTTP server, which batches have as well"
    )
    _folder = CACHE / "socketio"

    def version(self) -> str:
        """What is installed."""
        package = self._folder / "node_modules/socket.io/package.json"
        return str(json.loads(package.read_text())["version"])

    def missing(self) -> str:
        """Its packages, as the lock pins them."""
        locks = [folder / "package-lock.json" for folder in (_SOCKETIO, self._folder)]
        if (self._folder / "node_modules").exists() and (
            locks[0].read_bytes() == locks[1].read_bytes()
        ):
            return ""
        return f"npm ci, in a copy of bench/peers/socketio at {self._folder}"

    def build(self) -> None:
        """Install them."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for file in _SOCKETIO.glob("package*.json"):
            shutil.copy(file, self._folder)
        _built_with("npm", "npm ci --ignore-scripts --no-audit --no-fund", cwd=self._folder)

    @contextmanager
    def running(self) -> Iterator[Running]:
        """The server of ``socketio/server.mjs``, beside the packages that it imports."""
        program = Path(shutil.copy(_SOCKETIO / "server.mjs", self._folder))
        with EmbeddedServer() as valkey:
            settings = {
                "BENCH_SECRET": SECRET,
                "BENCH_REDIS_URL": valkey.url,
                "BENCH_PING_MS": str(1000 * _HEARTBEAT_SECONDS),
                "NODE_ENV": "production",
            }
            with _Saying([str(shutil.which("node", path=_path())), str(program)], settings) as it:
                yield Running(it, valkey.url)


class Sockudo(Peer):
    """Sockudo, a server of Pusher's protocol in Rust, with its Redis adapter."""

    name = "Sockudo"
    protocol = "pusher"
    note = (
        "Pusher's protocol: a private channel for each user, whose signature stands for a token; "
        "Redis is for publish and subscribe between nodes, and connections recover from a buffer "
        "in the node's memory (100 messages, 2 minutes); no acks, nothing kept in Redis"
    )
    _build = "cargo install sockudo --locked --features redis"

    def _program(self) -> str | None:
        return shutil.which("sockudo", path=_path())

    def version(self) -> str:
        """What it says."""
        return _output([str(self._program()), "--version"]).split()[-1]

    def missing(self) -> str:
        """The program, and what Rust needs to build it."""
        if self._program():
            return ""
        protoc = "" if shutil.which("protoc") else "apt-get install protobuf-compiler; "
        return protoc + self._build

    def build(self) -> None:
        """Build it with Cargo, which takes half an hour of a core or two."""
        if not shutil.which("protoc"):
            raise RuntimeError("needs protoc (Debian: apt-get install protobuf-compiler)")
        target = CACHE / "sockudo-target"  # where a build that was interrupted goes on
        _built_with("cargo", f"{self._build} --root {CACHE / 'sockudo'}",
                    CARGO_TARGET_DIR=str(target))  # fmt: skip
        shutil.rmtree(target, ignore_errors=True)

    @contextmanager
    def running(self) -> Iterator[Running]:
        """A node with one app."""
        with EmbeddedServer() as valkey:
            port, metrics = _free_port(), _free_port()
            app = {
                "ID": "bench", "KEY": "bench", "SECRET": SECRET, "ENABLED": "true",
                "MAX_CONNECTIONS": str(MOST_CONNECTIONS), "MAX_EVENT_BATCH_SIZE": "1000",
                "MAX_BACKEND_EVENTS_PER_SECOND": "10000000",
            }  # fmt: skip
            settings = {f"SOCKUDO_DEFAULT_APP_{k}": v for k, v in app.items()} | {
                "HOST": "127.0.0.1", "PORT": str(port), "METRICS_PORT": str(metrics),
                "METRICS_ENABLED": "false", "RATE_LIMITER_ENABLED": "false",
                "ADAPTER_DRIVER": "redis", "REDIS_URL": valkey.url, "CACHE_DRIVER": "redis",
                "QUEUE_DRIVER": "memory", "CONNECTION_RECOVERY_ENABLED": "true",
                "WEBSOCKET_PING_INTERVAL": str(_HEARTBEAT_SECONDS),
                "WEBSOCKET_IDLE_TIMEOUT": str(2 * _HEARTBEAT_SECONDS), "RUST_LOG": "error",
            }  # fmt: skip
            with _Listening(port, [str(self._program())], settings) as process:
                yield Running(process, valkey.url)


class Tornado(Peer):
    """Tornado's own WebSocket handler, as ``bench.stock`` has it."""

    name = "Tornado"
    protocol = "bare"
    publishes = False
    note = "a bare `WebSocketHandler` on uvloop: no tokens, no Redis, nothing to publish with"

    def version(self) -> str:
        """What is installed."""
        return version_of("tornado")

    @contextmanager
    def running(self) -> Iterator[Running]:
        """The bare handler."""
        with Server("bench.stock", "uvloop") as process:
            yield Running(process, "")


class Null(Peer):
    """The least that a server could do: what the generator is checked against."""

    name = "null"
    protocol = "pushsvc"
    note = "the generator's own null server"

    def version(self) -> str:
        """It has none."""
        return ""

    @contextmanager
    def running(self) -> Iterator[Running]:
        """``load null``."""
        with _Saying([str(built()), "null"]) as process:
            yield Running(process, "")


PEERS: Final[tuple[Peer, ...]] = (
    Ours(), Centrifugo(), Nchan(), SocketIO(), Sockudo(), Tornado(),
)  # fmt: skip


class _Saying(Process):
    """A server whose log says which port it serves."""

    def _serving(self, log: str) -> bool:
        for line in log.splitlines():
            if '"serving"' in line:
                self.port = json.loads(line)["port"]
                return True
        return False


class _Listening(Process):
    """A server that is told which port to serve: it does once it answers, and not with a 503."""

    def __init__(
        self, port: int, command: list[str], settings: dict[str, str] | None = None
    ) -> None:
        super().__init__(command, settings)
        self.port = port

    def _serving(self, log: str) -> bool:
        del log
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"GET /pub?id=probe HTTP/1.0\r\n\r\n")
                answer = connection.recv(64)
                return bool(answer) and b" 503 " not in answer
        except OSError:
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="pushsvc-bench-") as directory:
        yield Path(directory)


def _path() -> str:
    """Where programs are looked for: what was built, this environment's Node.js, the machine's."""
    folders = (CACHE, CACHE / "sockudo/bin", Path(sys.executable).parent)
    return os.pathsep.join([*map(str, folders), os.environ.get("PATH", ""), "/usr/sbin"])


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _built_with(tool: str, command: str, cwd: Path | None = None, **settings: str) -> None:
    program = shutil.which(tool, path=_path())
    if program is None:
        raise RuntimeError(f"needs {tool}")
    say(command)
    environ = os.environ | {"PATH": _path()} | settings
    nice = ["nice", "-n", "19"] if shutil.which("nice") else []
    subprocess.run([*nice, program, *command.split()[1:]], cwd=cwd, env=environ, check=True)
