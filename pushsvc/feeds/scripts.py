"""The Lua scripts: one file an operation, each run atomically on one feed."""

import hashlib
from importlib.resources import files
from typing import Final

NAMES: Final = ("ack", "check", "join", "lease", "publish", "read")


class Scripts:
    """The scripts' texts and the digests by which they are called."""

    def __init__(self) -> None:
        folder = files("pushsvc.feeds") / "lua"
        shared = (folder / "lib.lua").read_text()
        by_name = {name: shared + (folder / f"{name}.lua").read_text() for name in NAMES}
        self.texts = tuple(by_name.values())
        # SHA-1 is how EVALSHA names a script, not a protection.
        self.digests = {
            name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
            for name, text in by_name.items()
        }
