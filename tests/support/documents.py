"""Documents whose programs can be run."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def program(document: str, name: str) -> str:
    """The block of a document that is marked to be run under this name.

    Args:
        document: its path in the project.
        name: as in ``<!-- run: name -->`` before the block.
    """
    text = (ROOT / document).read_text()
    match = re.search(rf"<!-- run: {re.escape(name)} -->\n```\w+\n(.*?)```", text, re.DOTALL)
    assert match is not None, f"{document} has no block to run as {name}"
    return match[1]
