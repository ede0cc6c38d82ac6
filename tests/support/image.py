"""The container image, built and run without a container runtime.

Buildah builds it (as root, in a chroot), on a base that debootstrap makes from the same packages as
the one that is published. It runs in namespaces of its own, as a runtime would run it: as the user
and with the command and environment of its configuration, as process 1, on a root that is mounted
read-only, with nothing to write but a tmpfs at /tmp.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.support import debian, leftovers

REPOSITORY: Final = Path(__file__).parents[2]
TOOLS: Final = ("buildah", "debootstrap", "unshare", "setpriv")
_NAME: Final = "localhost/pushsvc"
_BUILD_SECONDS: Final = 300
# What makes docker's "slim" smaller than what debootstrap unpacks, and what describes this machine.
_NOT_IN_BASE: Final = (
    "usr/share/doc", "usr/share/man", "usr/share/locale", "etc/resolv.conf", "etc/hostname",
)  # fmt: skip
_EMPTY_IN_BASE: Final = ("var/cache/apt", "var/lib/apt/lists", "var/log")
_MOUNTS: Final = """
set -e
mount --bind "$1" "$1"
mount -o remount,bind,ro "$1"
mount -t tmpfs -o mode=1777,size=64m tmpfs "$1/tmp"
mount -t proc proc "$1/proc"
shift
exec "$@"
"""


def missing() -> str | None:
    """Why the image cannot be built here."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "builds the image as root, on Linux"
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"needs {', '.join(absent)}" if absent else None


class Image:
    """An image that was built, unpacked.

    Args:
        root: its file system.
        config: of the OCI image: ``User``, ``Env``, ``Entrypoint`` and so on.
        size: bytes of its layers, not compressed.
    """

    def __init__(self, root: Path, config: Mapping[str, Any], size: int) -> None:
        self.root = root
        self.config = config
        self.size = size

    def files(self) -> Iterator[Path]:
        """Everything in it, but for what a runtime mounts."""
        mounted = {self.root / name for name in ("dev", "proc", "sys", "tmp")}
        for path, names, files in os.walk(self.root):
            names[:] = [name for name in names if Path(path, name) not in mounted]
            yield from (Path(path, name) for name in (*names, *files))

    def argv(self, *command: str, environ: Mapping[str, str]) -> list[str]:
        """What runs a command in it, or its own."""
        inside = command or (*self.config["Entrypoint"], *self.config["Cmd"])
        # The mark of the run, so that one that outlives it is found.
        environ = {leftovers.MARK: os.environ.get(leftovers.MARK, "")} | dict(environ)
        variables = [*self.config["Env"], *(f"{name}={value}" for name, value in environ.items())]
        return [
            "unshare", "--mount", "--pid", "--ipc", "--fork", "--kill-child", "--",
            "sh", "-c", _MOUNTS, "sh", str(self.root),
            "setpriv", "--no-new-privs",
            "chroot", f"--userspec={self.config['User']}", str(self.root),
            "env", "-i", "-C", self.config["WorkingDir"], *variables, *inside,
        ]  # fmt: skip

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run another command than its own, to its end."""
        argv = self.argv(*command, environ={})
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


class Container:
    """The image's own command, running.

    Args:
        image: what runs.
        log: where its output goes.
        environ: variables of the container.
    """

    def __init__(self, image: Image, log: Path, environ: Mapping[str, str]) -> None:
        self._image = image
        self._log = log
        self._environ = environ
        self._process: subprocess.Popen[bytes]

    def start(self) -> None:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._image.argv(environ=self._environ), stdout=log, stderr=log
            )

    def log(self) -> str:
        return self._log.read_text()

    def log_line(self, event: str) -> dict[str, Any] | None:
        """The first line of the log with this event; an error if it ended meanwhile."""
        ended = self._process.poll() is not None
        for text in self.log().splitlines():
            if text.startswith("{"):
                line: dict[str, Any] = json.loads(text)
                if line.get("event") == event:
                    return line
        if ended:
            raise RuntimeError(f"the container ended: {self.log()}")
        return None

    def process_1(self) -> int:
        """Its first process, by the number that it has outside."""
        [child] = children(self._process.pid)
        return child

    def children(self) -> list[int]:
        """The processes that process 1 started and has not yet reaped."""
        return children(self.process_1())

    def stop(self) -> int:
        """SIGTERM to process 1; the exit code."""
        os.kill(self.process_1(), signal.SIGTERM)
        return self._process.wait(30)

    def close(self) -> None:
        if self._process.poll() is None:
            # By itself: that it ends with its parent was forgotten as it became another user.
            for child in children(self._process.pid):
                os.kill(child, signal.SIGKILL)
            self._process.kill()
            self._process.wait()


@contextmanager
def built(**arguments: str) -> Iterator[Image]:
    """Build the image of this repository; it is gone when the context ends.

    Args:
        arguments: of the build (``ARG``).
    """
    directory = Path(tempfile.mkdtemp(prefix="pushsvc-image-"))
    storage = ["--root", f"{directory}/root", "--runroot", f"{directory}/run"]

    def buildah(*argv: str) -> str:
        command = ["buildah", *storage, "--storage-driver", "vfs", *argv]
        done = subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True,
            timeout=_BUILD_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{shlex.join(argv)}\n{done.stdout[-4000:]}{done.stderr}"
        return done.stdout.strip()

    try:
        _make_base(buildah)
        buildah(
            "bud", "--isolation", "chroot", "--pull-never", *_secrets(directory),
            *(f"--build-arg={name}={value}" for name, value in arguments.items()),
            "--tag", _NAME, ".",
        )  # fmt: skip
        [listed] = json.loads(buildah("images", "--json", _NAME))
        config = json.loads(buildah("inspect", "--type", "image", _NAME))["OCIv1"]["config"]
        container = buildah("from", "--pull-never", _NAME)
        root = Path(buildah("mount", container))
        yield Image(root, config, _bytes(listed["size"]))
        buildah("umount", container)
    finally:
        shutil.rmtree(directory)


def base() -> str:
    """The image that the Dockerfile begins with."""
    text = (REPOSITORY / "Dockerfile").read_text()
    found = re.search(r"^FROM (debian:\S+-slim) ", text, re.MULTILINE)
    assert found, "the Dockerfile begins with a Debian slim image"
    return found[1]


def _make_base(buildah: Callable[..., str]) -> None:
    """Make the base image here, from Debian's packages, under its own name."""
    container = buildah("from", "scratch")
    root = Path(buildah("mount", container))
    suite = base().rpartition(":")[2].removesuffix("-slim")
    debian.bootstrap(root, suite)
    for name in _NOT_IN_BASE:
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for name in _EMPTY_IN_BASE:
        shutil.rmtree(root / name)
        (root / name).mkdir()
    buildah("umount", container)
    buildah("commit", "--quiet", "--rm", container, base())


def _secrets(directory: Path) -> list[str]:
    """How pip reaches its index from here, for the build only."""
    told = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    found = dict(re.findall(r"^(?:global|:env:)\.([a-z-]+)='(.*)'$", told, re.MULTILINE))
    names = ("index-url", "extra-index-url", "trusted-host", "proxy", "cert")
    values = {name: found[name] for name in names if name in found}
    secrets = []
    if "cert" in values:
        secrets.append(f"--secret=id=ca,src={values['cert']}")
        values["cert"] = "/run/secrets/ca"
    config = directory / "pip.conf"
    lines = (f"{name} = {value}\n" for name, value in values.items())
    config.write_text("[global]\n" + "".join(lines))
    return [*secrets, f"--secret=id=pip,src={config}"]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _bytes(size: str) -> int:
    """``198 MB`` as a number."""
    number, unit = size.split()
    return int(float(number) * {"KB": 1e3, "MB": 1e6, "GB": 1e9}[unit])
