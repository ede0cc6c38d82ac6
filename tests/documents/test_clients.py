"""Clients that others' generators make of the served document, against a real node.

Each program publishes to one user, to a list and in a batch, and reads it by a poll and in the
history; that these are typed is in the programs, for the type checker.
"""

import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pushsvc.server.embedded import EmbeddedServer
from tests.documents.tools import MODULES, PROGRAMS, need_tools, node, python
from tests.support.nodes import Node, publisher_token, token


@pytest.fixture(scope="module")
def served(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    directory = tmp_path_factory.mktemp("documents")
    with Node(valkey.url, directory, prefix=f"t{uuid.uuid4().hex[:10]}") as running:
        yield running


def arguments(served: Node, user: str) -> list[str]:
    """What a program is told: the node, both tokens, and for whom it publishes."""
    own = token(user, topics={"subscribe": ["news"]})
    return [served.url, publisher_token(), own, user, f"{user}-2"]


def check(told: dict[str, Any]) -> None:
    """Hold what a program saw to what it did."""
    published = told.pop("published")
    assert published.endswith("-0")
    assert told == {
        "listed": [True, True],
        "batch": ["id", 400],
        "polled": [{"order": 17}, "for both", 1],
        "acked": True,
        "history": [1, "for both", {"order": 17}],
        "acknowledged": [["phone"]] * 3,
        "refused": "urn:pushsvc:problem:forbidden",
    }


def test_a_client_in_python_is_generated_typed_and_publishes(served: Node, tmp_path: Path) -> None:
    client = tmp_path / "client"
    said = python(
        "-m", "openapi_python_client", "generate", "--fail-on-warning",
        "--url", f"{served.url}/openapi.json", "--output-path", client,
    )  # fmt: skip
    assert "arning" not in said
    program = shutil.copy(PROGRAMS / "publish.py", client)
    python("-m", "compileall", "-q", client)
    python(
        "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}/cache", client,
        cwd=client,
    )  # fmt: skip
    check(json.loads(python(program, *arguments(served, "auth0|python/1"), cwd=client)))


def test_a_client_in_typescript_is_generated_typed_and_publishes(
    served: Node, tmp_path: Path
) -> None:
    need_tools()
    (tmp_path / "node_modules").symlink_to(MODULES)
    program = shutil.copy(PROGRAMS / "publish.mts", tmp_path)
    said = node(
        MODULES / "openapi-typescript/bin/cli.js", f"{served.url}/openapi.json",
        "--output", tmp_path / "schema.d.ts",
    )  # fmt: skip
    assert "arn" not in said.replace("warning: 0", "")
    shutil.copy(PROGRAMS / "tsconfig.json", tmp_path)
    node(MODULES / "typescript/bin/tsc", "--project", tmp_path)
    told = json.loads(node(program, *arguments(served, "auth0|typescript/1"), cwd=tmp_path))
    assert all(told.pop("typed"))
    check(told)
