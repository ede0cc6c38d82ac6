"""The glossary: one meaning a word, in order, and each where it says."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENTRIES = re.findall(
    r"^\*\*(.+?)\*\* \(`(.+?)`\)\n((?:.+\n)+)",
    (ROOT / "docs" / "glossary.md").read_text(),
    re.MULTILINE,
)


def test_each_word_is_there_once_and_in_order() -> None:
    words = [word.lower() for word, _, _ in ENTRIES]
    assert words == sorted(set(words))
    assert len(words) > 50


@pytest.mark.parametrize(("word", "module"), [(word, module) for word, module, _ in ENTRIES])
def test_each_word_is_where_it_is_said_to_be(word: str, module: str) -> None:
    assert (ROOT / "pushsvc" / module).is_file(), word


def test_every_paragraph_is_an_entry_of_few_lines() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text()
    assert len(ENTRIES) == len(re.findall(r"^\*\*", text, re.MULTILINE))
    assert all(meaning.count("\n") <= 3 for _, _, meaning in ENTRIES)
