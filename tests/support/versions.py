"""Which pushsvc a node runs: that of the working tree, or an earlier one out of git."""

import hashlib
import io
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
_CODE: Final = "pushsvc"
_PINNED: Final = "requirements-runtime.txt"


class Version(NamedTuple):
    """Code that a node can run, and the interpreter that has what this needs."""

    name: str
    directory: Path
    """Holds the package ``pushsvc``; a node starts here, so it comes before any installed one."""
    python: str = sys.executable

    def check(self) -> None:
        """Check that this code is what a node would run, and no other that is installed.

        Raises:
            RuntimeError: it is not.
        """
        asked = [self.python, "-c", f"import {_CODE}; print({_CODE}.__file__)"]
        done = subprocess.run(
            asked, cwd=self.directory, check=False, capture_output=True, text=True
        )
        wanted = self.directory / _CODE / "__init__.py"
        if done.returncode or Path(done.stdout.strip()).resolve() != wanted.resolve():
            raise RuntimeError(f"{self.name} would not run {wanted}: {done.stdout}{done.stderr}")


HERE: Final = Version("the working tree", ROOT)


def earlier(ref: str, directory: Path, repository: Path = ROOT) -> Version:
    """The code of a git ref.

    Args:
        ref: a commit, tag or branch.
        directory: where to unpack it.
        repository: that has the ref.

    Raises:
        LookupError: the ref cannot be had here; the text says why, in a line.
        RuntimeError: something else than its code would run.
    """
    named = f"{ref}^{{commit}}"
    commit = _git(ref, repository, "rev-parse", "--verify", "--end-of-options", named)
    packed = _git(ref, repository, "archive", commit.decode().strip(), _CODE, _PINNED)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(directory, filter="data")
    version = Version(ref, directory, _interpreter(directory / _PINNED))
    version.check()
    return version


def _git(ref: str, repository: Path, *arguments: str) -> bytes:
    try:
        done = subprocess.run(
            ["git", "-C", str(repository), *arguments], check=False, capture_output=True
        )
    except FileNotFoundError:
        raise LookupError(f"{ref!r} comes out of git, which is not installed") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        why = said[0] if said else "no reason given"
        raise LookupError(f"{ref!r} is not to be had from the git clone here: {why}")
    return done.stdout


def _interpreter(requirements: Path) -> str:
    """An interpreter that has what is pinned: this one where the working tree pins the same.

    Else that of an environment of its own, which stays for the next time.
    """
    pinned = requirements.read_bytes()
    if pinned == (ROOT / _PINNED).read_bytes():
        return sys.executable
    home = ROOT / ".venv" / "versions" / hashlib.sha256(pinned).hexdigest()[:16]
    python, ready = home / "bin" / "python", home / ".ready"
    if not ready.exists():
        sys.stderr.write(f"its {_PINNED} differs: installing that into {home} ...\n")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        pins = ["--require-hashes", "--requirement", str(requirements)]
        subprocess.run([str(python), *install, *pins], check=True)
        ready.touch()
    return str(python)
