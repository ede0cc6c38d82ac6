"""The certificate of the public port: what stops the start, and how a new one takes over."""

import os
import shutil
import signal
import ssl
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import httpx
import psutil
import pytest

from pushsvc.server.embedded import EmbeddedServer
from tests.support.certificates import P256, UNKNOWN_CURVE, Authority, change
from tests.support.nodes import SECRET, Node, wait_until, workers
from tests.support.raw import Raw, RawSocket

EXPIRES = "pushsvc_tls_certificate_expires_timestamp_seconds"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def shown(node: Node) -> int:
    """The serial number of the certificate that a new connection gets."""
    with Raw(node) as raw:
        assert isinstance(raw.socket, ssl.SSLSocket)
        certificate = raw.socket.getpeercert()
        assert certificate is not None
        return int(str(certificate["serialNumber"]), 16)


def secret(
    mount: Path, version: str, authority: Authority, *, ends: timedelta = timedelta(days=30)
) -> None:
    """Fill a directory as the kubelet fills a mounted Secret: by swapping one symbolic link."""
    (mount / version).mkdir(parents=True)
    authority.issue(mount / version, ends=ends)
    (mount / "..new").symlink_to(version)
    (mount / "..new").rename(mount / "..data")
    for name in ("tls.crt", "tls.key"):
        if not (mount / name).is_symlink():
            (mount / name).symlink_to(f"..data/{name}")


def test_a_renewed_secret_is_shown_to_new_connections_and_the_old_ones_live_on(
    valkey: EmbeddedServer, authority: Authority, tmp_path: Path, prefix: str, user: str
) -> None:
    mount = tmp_path / "mount"
    secret(mount, "..1", authority)
    with Node(
        valkey.url, tmp_path, prefix=prefix, tls=authority.context(),
        tls_cert_file=mount / "tls.crt", tls_key_file=mount / "tls.key",
    ) as node, RawSocket(node, user) as old:  # fmt: skip
        first, expires = shown(node), node.metric(EXPIRES)
        assert expires > 0

        secret(mount, "..2", authority, ends=timedelta(days=90))
        shutil.rmtree(mount / "..1")
        wait_until(lambda: shown(node) != first, "the new certificate to be shown")
        assert node.metric(EXPIRES) > expires + 50 * 86400
        old.pong()
        sent = node.publish(user, "still here")
        assert old.message()["id"] == sent

        # A pair that cannot be used changes nothing.
        second, expires = shown(node), node.metric(EXPIRES)
        change(mount / "..2" / "tls.crt", P256, UNKNOWN_CURVE)
        wait_until(lambda: "the old one stays" in node.log(), "a warning")
        assert shown(node) == second
        (mount / "..2" / "tls.crt").write_text("nonsense")
        wait_until(lambda: node.log().count("the old one stays") >= 2, "another warning")
        assert shown(node) == second
        assert node.metric(EXPIRES) == expires
        (mount / "..2" / "tls.key").unlink()
        wait_until(lambda: node.log().count("the old one stays") >= 3, "a third warning")
        assert shown(node) == second

        # And the next good one is taken.
        secret(mount, "..3", authority)
        wait_until(lambda: shown(node) != second, "the third certificate to be shown")
        old.pong()


def test_an_expired_certificate_is_a_warning(
    valkey: EmbeddedServer, authority: Authority, tmp_path: Path, prefix: str
) -> None:
    certificate, key = authority.issue(tmp_path, ends=timedelta(days=-1))
    with Node(
        valkey.url, tmp_path, prefix=prefix, tls_cert_file=certificate, tls_key_file=key
    ) as node:
        (line,) = [each for each in node.log_lines() if "has expired" in each["event"]]
        assert line["level"] == "warning"
        assert 0 < node.metric(EXPIRES) < line_time(node)


def line_time(node: Node) -> float:
    return node._log_path.stat().st_mtime


@pytest.mark.parametrize("workers", [1, 2])
def test_a_key_of_another_certificate_stops_the_start_with_one_line(
    valkey: EmbeddedServer, authority: Authority, tmp_path: Path, workers: int
) -> None:
    (tmp_path / "other").mkdir()
    certificate, _ = authority.issue(tmp_path)
    _, key = authority.issue(tmp_path / "other")
    environ = {name: value for name, value in os.environ.items() if "PUSHSVC" not in name}
    environ |= {
        "PUSHSVC_REDIS_URL": valkey.url, "PUSHSVC_JWT_SECRET": SECRET, "PUSHSVC_PORT": "0",
        "PUSHSVC_HOST": "127.0.0.1", "PUSHSVC_ADMIN_HOST": "127.0.0.1", "PUSHSVC_ADMIN_PORT": "0",
        "PUSHSVC_TLS_CERT_FILE": str(certificate), "PUSHSVC_TLS_KEY_FILE": str(key),
        "PUSHSVC_WORKERS": str(workers), "PUSHSVC_LOG_LEVEL": "error",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "pushsvc", "serve"],
        env=environ, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "PUSHSVC_TLS_KEY_FILE: " in line
    assert "is not the key of the first certificate" in line


def test_a_worker_that_finds_bad_files_is_started_again_until_they_are_good(
    valkey: EmbeddedServer, authority: Authority, tmp_path: Path, prefix: str, user: str
) -> None:
    def troubles() -> str:
        return str(httpx.get(f"{node.admin_url}/readyz", timeout=5).json()["troubles"])

    def tries() -> int:
        children = psutil.Process(node.process.pid).children(recursive=True)
        seen.update(child.pid for child in children)
        return len(seen)

    certificate, key = authority.issue(tmp_path)
    (tmp_path / "other").mkdir()
    _, other = authority.issue(tmp_path / "other")
    with Node(
        valkey.url, tmp_path, prefix=prefix, tls=authority.context(), workers=2,
        tls_cert_file=certificate, tls_key_file=key,
    ) as node:  # fmt: skip
        kept = tmp_path / "kept"
        shutil.copy(key, kept)
        shutil.copy(other, key)
        left, killed = workers(node)
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: "PUSHSVC_TLS_KEY_FILE" in troubles(), "the reason to be told")
        seen: set[int] = set()
        before = tries()
        # The pauses between two tries grow to RESTART_SECONDS[1], beside what a start takes.
        wait_until(lambda: tries() >= before + 2, "it to be tried again", 60)
        assert workers(node) == [left]
        with RawSocket(node, user) as raw:  # the other one serves on
            raw.pong()
        lines = [each for each in node.log_lines() if "cannot run with its settings" in str(each)]
        (line,) = lines
        assert line["level"] == "error"
        assert "is not the key of the first certificate" in line["reason"]

        shutil.copy(kept, key)
        wait_until(node.is_ready, "both workers to be ready", 60)
        assert len(workers(node)) == 2
