"""Files of the package: read once, served from memory, nothing else reachable."""

import functools
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, ClassVar, Final, NamedTuple

from pushsvc.errors import NotFound
from pushsvc.web.base import Handler

TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""What is served, by the ends of the files' names; other files are not."""


class File(NamedTuple):
    """A file as it is served."""

    body: bytes
    media_type: str
    etag: str


@functools.cache
def folder(package: str, name: str) -> Mapping[str, File]:
    """The files in a folder of a package, by their paths in it.

    Args:
        package: its dotted name.
        name: of a folder in it.
    """
    found: dict[str, File] = {}
    _collect(files(package) / name, "", found)
    return MappingProxyType(found)


def _collect(directory: Traversable, prefix: str, found: dict[str, File]) -> None:
    for each in directory.iterdir():
        path = prefix + each.name
        media_type = TYPES.get(PurePosixPath(each.name).suffix)
        if each.is_dir():
            _collect(each, path + "/", found)
        elif media_type is not None:
            body = each.read_bytes()
            found[path] = File(body, media_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


class FileHandler(Handler):
    """Serves a folder; the path that is asked for is a key, never a path of the system.

    Args:
        folder: what there is; a page is found without its ``.html`` too.
        headers: what each answer has besides those of all files.
        index: what is served where the path names nothing.
        missing: the error of a request for anything else.
    """

    route: ClassVar[str] = "file"
    allow: ClassVar[str] = "GET, HEAD"

    def initialize(
        self,
        folder: Mapping[str, File],
        headers: Mapping[str, str],
        index: str = "",
        missing: str = "there is no such file: load the page again",
    ) -> None:
        self._folder = folder
        self._besides = headers
        self._index = index
        self._missing = missing

    def get(self, name: str | None = None) -> None:
        """Answer with a file, or with 304 where the client has it."""
        name = name or self._index
        file = self._folder.get(name) or self._folder.get(f"{name}.html")
        if file is None:
            raise NotFound(self._missing)
        self.set_header("Content-Type", file.media_type)
        # Kept, but asked for again each time: a new version is seen at once.
        self.set_header("Cache-Control", "no-cache")
        self.set_header("ETag", file.etag)
        for header, value in self._besides.items():
            self.set_header(header, value)
        if self.check_etag_header():
            self.set_status(304)
            self.finish()
        else:
            self.finish(file.body)

    head = get


CLIENT: Final = r"/((?:client(?:-fallback|-inbox|-push|-tabs)?|inbox|push-sw)\.js)"


def client() -> list[Any]:
    """The JavaScript client, which every node serves on both ports: built in ``clients/js``.

    It is a module, and four parts that it loads from beside it when it needs them. Pages of any
    origin may load it: it holds no secret. Asked for each time, it fits the node after an update.
    The bell is a module of its own, which loads the client likewise. The service worker is a
    script: a page registers it from its own origin only, while a worker of any may import it.
    """
    headers = {
        "Access-Control-Allow-Origin": "*",
        # A page of another origin that isolates itself may load it too.
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
    return [(CLIENT, FileHandler, {"folder": folder("pushsvc.web", "assets"), "headers": headers})]
