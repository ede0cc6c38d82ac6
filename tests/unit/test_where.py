"""Documents that point at code point at what is there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pushsvc"
DOCUMENTS = [ROOT / "CONTRIBUTING.md", ROOT / "docs" / "architecture.md"]
WORDS = re.findall(r"`([^`\n]+)`", "\n".join(each.read_text() for each in DOCUMENTS))
NAMES = sorted({word for word in WORDS if re.fullmatch(r"[\w/]+\.py:[\w.]+", word)})
METHODS = sorted({word for word in WORDS if re.fullmatch(r"[A-Z]\w+\.[a-z]\w+", word)})
FILES = sorted(
    {
        word
        for word in WORDS
        if re.fullmatch(r"[\w/]+\.(py|lua|js)", word)
        and word.partition("/")[0] in {each.name for each in PACKAGE.iterdir()}
    }
)


def targets(node: ast.stmt) -> set[str]:
    """The names that a statement binds."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return {node.name}
    bound = node.targets if isinstance(node, ast.Assign) else []
    if isinstance(node, ast.AnnAssign):
        bound = [node.target]
    return {each.id for each in bound if isinstance(each, ast.Name)}


@cache
def defined(module: str) -> frozenset[str]:
    """The names of a module, and those of its classes behind a dot."""
    names: set[str] = set()
    for node in ast.parse((PACKAGE / module).read_text()).body:
        names |= targets(node)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{name}" for inner in node.body for name in targets(inner)}
    return frozenset(names)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_a_module_is_there(name: str) -> None:
    module, _, what = name.partition(":")
    assert what in defined(module), f"{name}: it has another name or place now"


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_there(method: str) -> None:
    modules = (each.relative_to(PACKAGE).as_posix() for each in PACKAGE.rglob("*.py"))
    assert any(method in defined(module) for module in modules), f"{method}: no class has it"


@pytest.mark.parametrize("file", FILES)
def test_a_file_of_the_package_is_there(file: str) -> None:
    assert (PACKAGE / file).is_file(), file


def test_what_is_looked_for_is_found() -> None:
    assert len(NAMES) > 25
    assert len(METHODS) > 5
    assert len(FILES) > 60
