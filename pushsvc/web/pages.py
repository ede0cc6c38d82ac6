"""Pages that are files of the package: read once, served from memory, nothing else reachable."""

import hashlib
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath
from typing import ClassVar, Final, NamedTuple

from pushsvc.errors import NotFound
from pushsvc.web.base import Handler

TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""What is served, by the ends of the files' names; other files are not."""
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""What a page may do: nothing that does not come from the same origin, and no text as markup."""


class File(NamedTuple):
    """A file as it is served."""

    body: bytes
    media_type: str
    etag: str


def folder(name: str) -> dict[str, File]:
    """The files in a folder of this package, by their paths in it.

    Args:
        name: of a folder in ``pushsvc/web``.
    """
    found: dict[str, File] = {}
    _collect(files("pushsvc.web") / name, "", found)
    return found


def _collect(place: Traversable, prefix: str, found: dict[str, File]) -> None:
    for each in place.iterdir():
        path = prefix + each.name
        media_type = TYPES.get(PurePosixPath(each.name).suffix)
        if each.is_dir():
            _collect(each, path + "/", found)
        elif media_type is not None:
            body = each.read_bytes()
            found[path] = File(body, media_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


class PageHandler(Handler):
    """Serves a folder; the path that is asked for is a key, never a path of the system."""

    route: ClassVar[str] = "page"
    allow: ClassVar[str] = "GET, HEAD"

    def initialize(self, folder: dict[str, File], index: str = "") -> None:
        """Take what the application passes.

        Args:
            folder: what there is.
            index: what is served where the path names nothing.
        """
        self._folder = folder
        self._index = index

    def get(self, name: str = "") -> None:
        """Answer with a file, or with 304 where the browser holds it."""
        file = self._folder.get(name or self._index)
        if file is None:
            raise NotFound("there is no such file: load the page again")
        self.set_header("Content-Type", file.media_type)
        self.set_header("Content-Security-Policy", POLICY)
        # Kept, but asked for again each time: a new version is seen at once.
        self.set_header("Cache-Control", "no-cache")
        self.set_header("ETag", file.etag)
        if self.check_etag_header():
            self.set_status(304)
            self.finish()
        else:
            self.finish(file.body)

    head = get
