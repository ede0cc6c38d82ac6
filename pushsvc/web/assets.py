"""``/client.js``: the JavaScript client, served by the node that it connects to."""

import functools
import hashlib
from importlib.resources import files
from typing import ClassVar, Final

from pushsvc.web.base import Handler


@functools.cache
def _module(name: str) -> tuple[bytes, str]:
    """A module, built by ``npm run build`` in ``clients/js``, and its entity tag."""
    content = (files("pushsvc.web") / "assets" / name).read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'


class ClientHandler(Handler):
    """The client, for pages of any origin: it holds no secret.

    It is a module, and two parts that it loads from beside it when it needs them.
    """

    route: ClassVar[str] = "client"
    allow: ClassVar[str] = "GET, HEAD"

    def get(self, name: str) -> None:
        """Answer with a module, or with 304 to who has it."""
        content, etag = _module(name)
        self.set_header("Content-Type", "text/javascript; charset=utf-8")
        self.set_header("Access-Control-Allow-Origin", "*")
        # A page of another origin that isolates itself may load it too.
        self.set_header("Cross-Origin-Resource-Policy", "cross-origin")
        # Asked for each time: after an update the node and its client fit each other.
        self.set_header("Cache-Control", "no-cache")
        self.set_header("Etag", etag)
        if self.check_etag_header():
            self.set_status(304)
            self.finish()
        else:
            self.finish(content)

    head = get


RULE: Final[tuple[str, type[Handler]]] = (
    r"/(client(?:-fallback|-tabs)?\.js)",
    ClientHandler,
)
"""For the public port and the admin port."""
