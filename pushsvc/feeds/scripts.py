"""The Lua scripts: one file an operation, each run atomically on one feed."""

import hashlib
from importlib.resources import files
from typing import Final

from pushsvc.feeds.connect import Client

NAMES: Final = ("ack", "check", "join", "lease", "publish", "read")


class Scripts:
    """The scripts' texts and the digests by which they are called."""

    def __init__(self) -> None:
        folder = files("pushsvc.feeds") / "lua"
        shared = (folder / "lib.lua").read_text()
        self._texts = {name: shared + (folder / f"{name}.lua").read_text() for name in NAMES}
        # SHA-1 is how EVALSHA names a script, not a protection.
        self.digests = {
            name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
            for name, text in self._texts.items()
        }

    async def load(self, client: Client) -> None:
        """Put all scripts into the script cache of the server, of every one in a Cluster."""
        for text in self._texts.values():
            await client.script_load(text)
