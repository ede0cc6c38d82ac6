"""The development node of this machine: ``pushsvc dev`` keeps its tokens, commands find them.

While it runs, a file of the user's state directory has its addresses and tokens, as lines that a
shell sources. The process holds a lock on it, so that a file that was left by ``kill -9`` is known.
"""

import errno
import functools
import os
import secrets
import shlex
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import click

Role = Literal["user", "publisher", "admin", "observer"]
TOKENS: Final[Mapping[Role, str]] = {
    "user": "USER_TOKEN",
    "publisher": "PUBLISHER_TOKEN",
    "admin": "ADMIN_TOKEN",
    "observer": "OBSERVER_TOKEN",
}
"""The variable that holds the token of each role."""
URL: Final = "PUSH_URL"
ADMIN_URL: Final = "PUSH_ADMIN_URL"
DEFAULT_URL: Final = "http://127.0.0.1:8080"
START: Final = "`make run`, or `pushsvc dev`, starts one"
MAX_FILE: Final = 64 * 1024
"""Bytes of a file that are read; eight tokens have a tenth of that."""
_HTTP: Final = {"http": "http", "ws": "http", "https": "https", "wss": "https"}
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class Development:
    """A development node, as its file describes it.

    Args:
        values: addresses and tokens, by the names of their variables.
        runs: whether the process that wrote them is still there.
        started_at: of the file, in seconds.
    """

    values: Mapping[str, str]
    runs: bool
    started_at: float

    @property
    def url(self) -> str:
        """Of the public port."""
        return self.values[URL]

    @property
    def admin_url(self) -> str:
        """Of the admin port."""
        return self.values[ADMIN_URL]


@dataclass(frozen=True, slots=True)
class Node:
    """What a command talks to.

    Args:
        url: of the public port.
        token: to send there.
        source: where the token is from, as one would look for it.
        admin_url: of the admin port; None where nothing names it.
    """

    url: str
    token: str
    source: str
    admin_url: str | None = None


class NoNode(click.ClickException):
    """There is no token, or no node; the message says what to change."""

    exit_code = 2


def directory() -> Path:
    """Where the files are: of the user, and never the working folder.

    Raises:
        OSError: this user has no place for them.
    """
    # A relative path would be one (XDG Base Directory Specification).
    if (named := Path(os.environ.get("XDG_STATE_HOME", ""))).is_absolute():
        return named / "pushsvc"
    try:
        home = Path.home()
    except RuntimeError:
        home = Path()
    if not home.is_absolute():
        raise FileNotFoundError(errno.ENOENT, "there is no home directory")
    state = "Library/Application Support" if sys.platform == "darwin" else ".local/state"
    return home / state / "pushsvc"


@contextmanager
def kept(values: Mapping[str, str]) -> Iterator[Path]:
    """Have a node's addresses and tokens in a file until the end of the block.

    Args:
        values: by the names of their variables; the port of the public address names the file.

    Raises:
        OSError: it cannot be written.
    """
    import fcntl  # noqa: PLC0415 - Windows has none, and no node either

    place = directory()
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = f"dev-{urlsplit(values[URL]).port}.env"
    text = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in values.items())
    # All of it is done in this very directory, wherever its name leads meanwhile.
    folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(folder).st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "it belongs to another user", str(place))
        os.fchmod(folder, 0o700)
        _forget_the_dead(place)
        new = f".{name}.{secrets.token_hex(8)}"
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                with open(file, "w", encoding="utf-8", closefd=False) as out:
                    out.write(text)
                os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                os.unlink(new, dir_fd=folder)
                raise
            try:
                yield place / name
            finally:
                with suppress(OSError):  # or it is another's by now
                    if os.path.samestat(os.stat(name, dir_fd=folder), os.fstat(file)):
                        os.unlink(name, dir_fd=folder)
        finally:
            os.close(file)
    finally:
        os.close(folder)


def find(url: str | None = None) -> Development | None:
    """A development node of this user: one that runs, if there is one.

    Args:
        url: the public address that it has to have; None for the usual one, else the newest.
    """
    found = [each for each in _all() if url is None or _same(each.url, url)]
    return max(
        found,
        key=lambda each: (each.runs, _same(each.url, DEFAULT_URL), each.started_at),
        default=None,
    )


def reach(role: Role, url: str | None, token: str | None, source: str = "--token") -> Node:
    """The node of a command, and the token to send there.

    Args:
        role: what the token is for.
        url: that was asked for; None for the development node.
        token: that was given; None for that of the development node, which no other is sent.
        source: where that token is from.

    Raises:
        NoNode: there is no token, the node has ended, or the address is not one of a node.
    """
    if url is not None and "://" not in url:
        raise NoNode(
            f"{url!r} has no scheme: write {f'http://{url}'!r}, or https:// where it is TLS"
        )
    node = find(url)
    if node is None and url is not None:
        for each in _all():
            if each.runs and _same(each.admin_url, url):
                raise NoNode(f"{url} is the admin port: the public one is {each.url}")
    if token is not None:
        if node is None or not node.runs:
            return Node(url or DEFAULT_URL, token, source)
        return Node(url or node.url, token, source, node.admin_url)
    if node is None:
        name = TOKENS[role]
        raise NoNode(
            f"no token: set {name}, or give --token; a development node's is found by itself,"
            f" and none is known{f' at {url}' if url else ''}: {START}"
        )
    if not node.runs:
        raise NoNode(f"no development node answers at {node.url} any more: {START}")
    if TOKENS[role] not in node.values:
        raise NoNode(f"the development node has no {role} token: set {TOKENS[role]}")
    # Its own address: another name of this machine may lead to another process.
    return Node(node.url, node.values[TOKENS[role]], "pushsvc dev", node.admin_url)


def to_node(role: Role) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command ``--url`` and ``--token``; it is called with the ``node`` that they name."""
    variable = TOKENS[role]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @click.option(
            "--url",
            envvar=URL,
            help=f"The node's address, or set {URL}. [default: that of pushsvc dev on this machine,"
            f" else {DEFAULT_URL}]",
        )
        @click.option(
            "--token",
            envvar=variable,
            help=f"The token, or set {variable}. [default: that of pushsvc dev on this machine]",
        )
        @functools.wraps(command)
        def called(*args: Any, url: str | None, token: str | None, **kwargs: Any) -> Any:
            given = click.get_current_context().get_parameter_source("token")
            source = variable if given is click.core.ParameterSource.ENVIRONMENT else "--token"
            return command(*args, node=reach(role, url, token, source), **kwargs)

        return called

    return decorate


def _all() -> list[Development]:
    """Every file of this user that describes a node."""
    found: list[Development] = []
    if os.name != "posix":
        return found  # where no node runs
    with suppress(OSError):
        for path in directory().glob("dev-*.env"):
            with suppress(OSError, ValueError):
                found.append(_read(path))
    return found


def _read(path: Path) -> Development:
    """What a file says.

    Raises:
        OSError: it cannot be read, or is none of this user.
        ValueError: it is not such a file.
    """
    import fcntl  # noqa: PLC0415

    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = os.fstat(file)
        if found.st_uid != os.geteuid() or not stat.S_ISREG(found.st_mode):
            raise PermissionError(errno.EPERM, "it belongs to another user", str(path))
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            runs = False
        except BlockingIOError:
            runs = True
        words = shlex.split(os.read(file, MAX_FILE).decode(), comments=True)
    finally:
        os.close(file)
    pairs = (word.partition("=") for word in words if word != "export")
    values = {name: value for name, _, value in pairs}
    if not values.keys() >= {URL, ADMIN_URL}:
        raise ValueError("it does not say all")
    return Development(values, runs, found.st_mtime)


def _forget_the_dead(place: Path) -> None:
    """Remove what nodes left that were killed."""
    for path in place.glob("dev-*.env"):
        with suppress(OSError, ValueError):
            if not _read(path).runs:
                path.unlink()


def _same(one: str, other: str) -> bool:
    """Whether two addresses lead to one port, whichever name this machine has in them."""
    try:
        ours, theirs = urlsplit(one), urlsplit(other)
        hosts = {ours.hostname, theirs.hostname}
        return (
            _HTTP.get(ours.scheme) == _HTTP.get(theirs.scheme, "")
            and ours.port == theirs.port
            and (len(hosts) == 1 or hosts <= _LOOPBACK)
        )  # fmt: skip
    except ValueError:
        return False
