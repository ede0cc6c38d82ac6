"""The Lua scripts: one file an operation, each run atomically on one slot."""

import hashlib
from importlib.resources import files
from typing import Final

from pushsvc.feeds.pipe import Send

SHARED: Final = "lib.lua"
"""The file that is put before each of the others."""


class Scripts:
    """The scripts' texts, and the digests by which they are called, by the names of their files."""

    def __init__(self) -> None:
        folder = files("pushsvc.feeds") / "lua"
        shared = (folder / SHARED).read_text()
        by_name = {
            file.name.removesuffix(".lua"): shared + file.read_text()
            for file in folder.iterdir()
            if file.name.endswith(".lua") and file.name != SHARED
        }
        self.texts = tuple(by_name.values())
        # SHA-1 is how EVALSHA names a script, not a protection.
        self.digests = {
            name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
            for name, text in by_name.items()
        }

    async def load(self, send: Send) -> None:
        """Give a server those that it lacks.

        They are 150 KB, so after a failover only the first of many connections give them.

        Args:
            send: to the server.

        Raises:
            RedisError: it does not take them, or not yet.
        """
        (known,) = await send([("SCRIPT", "EXISTS", *self.digests.values())])
        if isinstance(known, Exception):
            raise known
        missing = [text for text, there in zip(self.texts, known, strict=True) if not there]
        if missing:
            for loaded in await send([("SCRIPT", "LOAD", text) for text in missing]):
                if isinstance(loaded, Exception):
                    raise loaded
