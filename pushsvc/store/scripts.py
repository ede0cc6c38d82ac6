"""The Lua scripts: one file an operation, each run atomically on one slot."""

import hashlib
import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from pushsvc.store.server_connection import Send

LIBRARY: Final = "lib"
"""What the names of the files begin with that are no operations: ``lib.lua``, which is put before
each of the others, and ``lib_<name>.lua``, which only goes before those that name it.
"""
_with = re.compile(r"^-- WITH: (.+)$", re.MULTILINE).search


class Scripts:
    """The scripts' texts, and the digests by which they are called, by the names of their files."""

    def __init__(self) -> None:
        folder = files("pushsvc.store") / "lua"
        by_name = {
            file.name.removesuffix(".lua"): _whole(folder, file)
            for file in folder.iterdir()
            if file.name.endswith(".lua") and not file.name.startswith(LIBRARY)
        }
        self.texts = tuple(by_name.values())
        # SHA-1 is how EVALSHA names a script, not a protection.
        self.digests = {
            name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
            for name, text in by_name.items()
        }

    async def load(self, send: Send) -> None:
        """Give a server those that it lacks.

        They are 105 KB, so after a failover only the first of many connections give them.

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


def _whole(folder: Traversable, file: Traversable) -> str:
    """A script with the libraries before it: what is defined there costs each call a little."""
    text = file.read_text()
    named = _with(text)
    names = [LIBRARY, *(f"{LIBRARY}_{each}" for each in (named[1].split(", ") if named else ()))]
    return "".join((folder / f"{name}.lua").read_text() for name in names) + text
