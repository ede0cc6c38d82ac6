"""The README's two commands in a Debian that has what the README asks for, and nothing else.

``make bare`` runs it: as root, on Linux, with debootstrap. A folder as argument is the system that
is made and used again; otherwise it is a temporary one. How pip and npm reach their registries is
taken over from this machine.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.support import debian
from tests.support.image import REPOSITORY, base

PACKAGES: Final = ("python3", "python3-venv", "make", "git")
"""What the README asks for."""
_CLONE: Final = "root/pushsvc"
_CONFIGURATION: Final = (
    "/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs", "/etc/pip.conf", "/root/.config/pip",
    "/root/.pip", "/etc/npmrc", "/usr/local/etc/npmrc", "/root/.npmrc",
)  # fmt: skip
_VARIABLES: Final = re.compile(
    r"PIP_.*|npm_config_.*|.*_proxy|.*CERT(S|_FILE|_DIR)?|.*CA_(BUNDLE|CERTS)", re.IGNORECASE
)
_MOUNTS: Final = """
mount --rbind /dev "$1/dev" && mount -t proc proc "$1/proc" || exit 1
root=$1
shift
chroot "$root" "$@"
exit $?
"""
"""The shell stays as process 1, which reaps what nobody waits for."""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bare-", dir="/var/tmp") as temporary:
        root = Path(sys.argv[1] if len(sys.argv) > 1 else temporary).absolute()
        if not (root / "usr/bin/make").exists():
            print("making a bare Debian ...", flush=True)  # noqa: T201
            debian.bootstrap(root, base().rpartition(":")[2].removesuffix("-slim"), PACKAGES)
        _configure(root)
        _clone(root / _CLONE)
        done = subprocess.run(_argv(root), stdin=subprocess.DEVNULL, check=False)
    raise SystemExit(done.returncode)


def _configure(root: Path) -> None:
    """Let pip and npm reach their registries in there as out here."""
    links = os.environ.get("PIP_FIND_LINKS", "").split()
    for name in (*_CONFIGURATION, *(each for each in links if each.startswith("/"))):
        source, target = Path(name), root / name.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        # What was there may be links that lead, from here, to this machine's own files.
        if source.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, ignore_dangling_symlinks=True)
        elif source.exists():
            target.unlink(missing_ok=True)
            shutil.copyfile(source, target)


def _clone(target: Path) -> None:
    """The files of this working tree, without what is ignored."""
    shutil.rmtree(target, ignore_errors=True)
    listed = subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, text=True,
    )  # fmt: skip
    for name in filter(None, listed.split("\0")):
        source = REPOSITORY / name
        if source.exists():  # or it is deleted and not yet committed
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / name)


def _argv(root: Path) -> list[str]:
    """What runs the commands in namespaces of their own, so that all of it ends with them."""
    passed = {name: value for name, value in os.environ.items() if _VARIABLES.fullmatch(name)}
    environ = {
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }
    return [
        "unshare", "--mount", "--pid", "--ipc", "--fork", "--kill-child", "--",
        "sh", "-c", _MOUNTS, "sh", str(root),
        "env", "-i", *(f"{name}={value}" for name, value in (passed | environ).items()),
        "python3", f"/{_CLONE}/tests/deploy/newcomer.py",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
