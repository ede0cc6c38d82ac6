"""The Lua scripts: one file an operation, each run atomically on one slot."""

import hashlib
import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from pushsvc.store.calls import Script
from pushsvc.store.server_connection import Send

LIBRARY: Final = "lib"
"""What the names of the files begin with that are no operations: ``lib.lua``, which is put before
each of the others, ``lib_runs.lua``, which is put behind it, and ``lib_<name>.lua``, which only
goes before those that name it.
"""
_with = re.compile(r"^-- WITH: (.+)$", re.MULTILINE).search
_constants = re.compile(
    r"^local ([A-Z_]+(?:, [A-Z_]+)*) = ('[^']*'(?:, '[^']*')*|\d+)\n", re.MULTILINE
)
_runs = re.compile(r"^-- RUNS: (\d+)$", re.MULTILINE).search


class Scripts:
    """The scripts' texts, and how they are called, by the names of their files."""

    def __init__(self) -> None:
        folder = files("pushsvc.store") / "lua"
        by_name = {
            file.name.removesuffix(".lua"): _whole(folder, file)
            for file in folder.iterdir()
            if file.name.endswith(".lua") and not file.name.startswith(LIBRARY)
        }
        self.texts = tuple(by_name.values())
        self.by_name = {name: _script(text) for name, text in by_name.items()}

    async def load(self, send: Send) -> None:
        """Give a server those that it lacks.

        They are about 240 KB, so after a failover only the first of many connections give them.

        Args:
            send: to the server.

        Raises:
            RedisError: it does not take them, or not yet.
        """
        digests = [script.digest for script in self.by_name.values()]
        (known,) = await send([("SCRIPT", "EXISTS", *digests)])
        if isinstance(known, Exception):
            raise known
        missing = [text for text, there in zip(self.texts, known, strict=True) if not there]
        if missing:
            for loaded in await send([("SCRIPT", "LOAD", text) for text in missing]):
                if isinstance(loaded, Exception):
                    raise loaded


def _whole(folder: Traversable, file: Traversable) -> str:
    """A script as the body of a function, with the libraries round it.

    What these define costs each call a little, so constants are put where their names stand.
    """
    text = file.read_text()
    named = _with(text)
    names = [LIBRARY, *(f"{LIBRARY}_{each}" for each in (named[1].split(", ") if named else ()))]
    before = "".join((folder / f"{name}.lua").read_text() for name in names)
    behind = (folder / f"{LIBRARY}_runs.lua").read_text()
    return _folded(f"{before}local function run(KEYS, ARGV)\n{text}end\n{behind}")


def _folded(text: str) -> str:
    """A script with its constants, lines of ``local NAME = value``, where their names stand."""
    values: dict[str, str] = {}
    for names, given in _constants.findall(text):
        values |= zip(names.split(", "), given.split(", "), strict=True)
    name = re.compile(rf"(?<!')\b({'|'.join(values)})\b(?!')")
    return name.sub(lambda found: values[found[1]], _constants.sub("", text))


def _script(text: str) -> Script:
    most = _runs(text)
    # SHA-1 is how EVALSHA names a script, not a protection.
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    return Script(digest, int(most[1]) if most else 1)
