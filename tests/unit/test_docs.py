"""What the documents say is what the code does."""

import re
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import REGISTRY

import pushsvc.metrics  # noqa: F401  # registers the metrics
from pushsvc import errors
from pushsvc.codes import Close, means_reconnect
from pushsvc.errors import PushError

ROOT = Path(__file__).parents[2]
PROTOCOL = (ROOT / "PROTOCOL.md").read_text()


def table(document: str, heading: str) -> list[list[str]]:
    """The rows of the first table below a heading."""
    section = document.split(f"\n{heading}\n", 1)[1]
    rows = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert rows is not None
    lines = rows[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def descendants(kind: type[PushError]) -> Iterator[type[PushError]]:
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from descendants(child)


def test_every_close_code_is_documented_with_what_to_do() -> None:
    documented = {
        int(code): (reason, act) for code, reason, act in table(PROTOCOL, "## Close codes")
    }
    assert set(documented) == set(Close)
    for code in Close:
        reason, act = documented[code]
        if code.reason:
            assert reason == code.reason
        assert len(code.reason.encode()) <= 123
        if code >= 4000:
            assert act.startswith("reconnect" if means_reconnect(code) else "stop")


def test_every_error_code_is_documented_with_its_status() -> None:
    section = PROTOCOL.split("\n## Errors\n", 1)[1].split("| code | status | |")[1]
    documented = dict(re.findall(r"^\| `(\w+)` \| (\d+|none) \|", section, re.MULTILINE))
    codes = {kind.code: str(kind.status) for kind in descendants(PushError)}
    assert documented == codes | {"internal": "500", "token_expiring": "none"}


def test_the_error_tree_in_the_docstring_is_the_error_tree() -> None:
    assert errors.__doc__ is not None
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__))
    assert drawn == {kind.__name__ for kind in descendants(PushError)}


def test_every_metric_is_documented_and_nothing_else() -> None:
    section = (ROOT / "docs" / "metrics.md").read_text()
    documented = set(re.findall(r"^\| `(pushsvc_\w+)`", section, re.MULTILINE))
    assert documented == {
        metric.name + ("_total" if metric.type == "counter" else "")
        for metric in REGISTRY.collect()
        if metric.name.startswith("pushsvc_")
    }
