"""What the import checker cannot see: only the way to Redis and the domain know what is in it."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pushsvc
from pushsvc.store import schema
from pushsvc.store.permissions import probe

ROOT: Final = Path(pushsvc.__file__).parent
KNOW_REDIS: Final = ("store", "feeds")
ELSEWHERE: Final = sorted(
    path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] not in KNOW_REDIS
)
COMMANDS: Final = {command[0] for command in probe("k", ("WAIT",))} | {"WAITAOF", "ZCARD"}
AMBIGUOUS: Final = {"GET", "SET", "DEL", "TIME"}
"""Commands that are words of HTTP and English as well."""
FEEDS: Final = {schema.RECEIPT, schema.REVOKED_USER}
"""Fields that begin as the names of feeds do."""
FIELDS: Final = {
    value
    for name, value in vars(schema).items()
    if name.isupper() and isinstance(value, str) and value not in FEEDS
}


def strings(tree: ast.AST) -> Iterator[ast.Constant]:
    """The strings of a module, without those that are documentation."""
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in told:
            yield node


def names_redis(constant: ast.Constant) -> bool:
    """Whether a string is a command, or a field of what is kept there."""
    value = constant.value
    if isinstance(value, str):
        long_field = len(value) > 1 and value in FIELDS
        return value in COMMANDS - AMBIGUOUS or long_field or value.startswith(schema.OWN)
    return isinstance(value, bytes) and value.decode("latin-1") in FIELDS


def test_nothing_else_names_a_command_or_a_field_of_redis() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in ELSEWHERE
        for node in strings(ast.parse(path.read_text()))
        if names_redis(node)
    ]
    assert len(ELSEWHERE) > 80
    assert found == []


STORED_FORMS: Final = {
    "protocol/feeds.py", "store/schema.py", "feeds/feed.py", "feeds/history.py",
    "feeds/receipts.py", "feeds/push_registrations.py", "feeds/pushes.py",
}  # fmt: skip
"""Where a name becomes its stored form or is read from it: names of feeds, and what is kept."""


def test_stored_forms_of_names_are_made_and_read_at_one_border() -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "pushsvc.protocol.names"
        if {alias.name for alias in node.names} & {"stored", "named"}
    }
    assert found == STORED_FORMS


def test_the_domain_answers_with_types_and_not_with_replies() -> None:
    untyped = [
        f"{path.name}: {node.name}"
        for path in sorted((ROOT / "feeds").glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("_")
        and node.returns is not None
        and {"Any", "Result"} & set(_names(node.returns))
    ]
    assert untyped == []


def _names(annotation: ast.expr) -> Iterator[str]:
    return (node.id for node in ast.walk(annotation) if isinstance(node, ast.Name))


DISPATCH: Final = (
    "broadcast", "catch_up", "channel", "dispatch", "dispatcher", "inbox_reader", "mailboxes",
    "registrations", "topics",
)  # fmt: skip
"""The modules of ``node/`` that a notification passes on its way to a connection."""


def test_dispatch_tells_what_happens_to_the_observer_and_to_nobody_else() -> None:
    found = [
        f"{name}: {alias.name}"
        for name in DISPATCH
        for node in ast.walk(ast.parse((ROOT / "node" / f"{name}.py").read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if alias.name in {"metrics", "EventLog", "Spans"}
        or getattr(node, "module", None) in {"pushsvc.feeds.event_log", "pushsvc.node.spans"}
    ]
    assert found == [], "add a method to Observer"
