"""The examples in PROTOCOL.md, executed, and what the documents name."""

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.nodes import Node, token
from tests.support.phone import Phone

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PROTOCOL = (ROOT / "PROTOCOL.md").read_text()


def example(name: str) -> Any:
    """The JSON example of PROTOCOL.md with this name."""
    match = re.search(rf"<!-- example: {name} -->\n```json\n(.*?)```", PROTOCOL, re.DOTALL)
    assert match is not None
    return json.loads(match[1])


def block(document: str, language: str, begins: str) -> str:
    """A code block that begins with a text."""
    for match in re.finditer(rf"```{language}\n(.*?)```", document, re.DOTALL):
        if match[1].startswith(begins):
            return match[1]
    raise AssertionError(f"no {language} block begins with {begins!r}")


def messages_in(text: str) -> list[dict[str, Any]]:
    """The messages of a block of PROTOCOL.md, one a line."""
    return [json.loads(line) for line in text.splitlines()]


def test_the_publish_example_is_accepted_and_answered_as_shown(node: Node) -> None:
    answer = node.post("/v1/notifications", example("publish"))
    assert answer.status_code == 202
    assert answer.json().keys() == example("accepted").keys()


def test_the_batch_example_is_accepted(node: Node) -> None:
    answer = node.post("/v1/notifications/batch", example("batch"))
    assert answer.status_code == 202
    assert [result.keys() for result in answer.json()["results"]] == [
        example("accepted").keys()
    ] * 2


def test_the_problem_example_is_what_a_token_without_the_scope_gets(node: Node) -> None:
    answer = node.post(
        "/v1/notifications", example("publish"), headers={"Authorization": f"Bearer {token('u1')}"}
    )
    assert answer.json() == example("problem")


async def test_messages_have_the_fields_that_are_shown(node: Node, user: str) -> None:
    shown: dict[tuple[str, bool], dict[str, Any]] = {}
    for message in messages_in(block(PROTOCOL, "json", '{"type":"welcome"')):
        shown.setdefault((message["type"], "attempt" in message), message)
    topics = {"subscribe": ["chat.*", "scores.*"], "publish": ["chat.*"]}
    async with Phone(node, user, auth=token(user, topics=topics)) as phone:
        assert phone.welcome.keys() == shown["welcome", False].keys()
        await asyncio.to_thread(node.publish, user, {"order": 17}, event="order.shipped")
        note = await phone.notification()
        assert list(note) == list(shown["notification", False])
        for message in messages_in(block(PROTOCOL, "json", '{"type":"ack"')):
            sent = message | ({"token": token(user, topics=topics)} if "token" in message else {})
            sent |= {"id": note["id"]} if "id" in message else {}
            await phone.send(**sent)
        by_ref: dict[int, dict[str, Any]] = {}
        others: list[dict[str, Any]] = []
        while len(by_ref) < 8 or len(others) < 2:
            message = await phone.receive()
            if "ref" in message:
                by_ref[message["ref"]] = message
            elif message["type"] == "notification":
                others.append(message)
        assert by_ref[1] == shown["reply", False] | {"acked": note["id"]}
        assert by_ref[2].keys() == {"type", "ref", "topic", "last"}
        assert by_ref[3].keys() == {"type", "ref", "topics"}
        assert by_ref[3]["topics"].keys() == {"chat.r1", "chat.r2"}
        assert by_ref[4] == {"type": "reply", "ref": 4, "topic": "scores.nba"}
        assert by_ref[5].keys() == {"type", "ref", "expires_at"}
        assert by_ref[6] == shown["pong", False]
        assert by_ref[7].keys() == {"type", "ref", "id", "durability", "connections"}
        assert by_ref[8].keys() == {"type", "ref", "topic", "users", "count"}
        shown_others = messages_in(block(PROTOCOL, "json", '{"type":"welcome"'))
        for kind, has in (("id", "from"), ("ephemeral", "from")):
            (theirs,) = [each for each in others if kind in each]
            (ours,) = [each for each in shown_others if kind in each and has in each]
            assert set(theirs) - {"event"} == set(ours) - {"event"}
        await phone.send(type="nope", ref=1)
        assert set(await phone.receive()) <= set(shown["error", False])


def test_the_root_of_the_public_port_leads_to_the_page(node: Node) -> None:
    answer = httpx.get(node.url, timeout=10)
    assert (answer.status_code, answer.headers["Location"]) == (302, "/docs")
    for path in ("/docs", "/openapi.json", "/asyncapi.json"):
        head, whole = (httpx.request(m, node.url + path, timeout=10) for m in ("HEAD", "GET"))
        assert (head.status_code, head.content) == (200, b"")
        same = ("Content-Type", "Content-Length")
        assert [head.headers[name] for name in same] == [whole.headers[name] for name in same]


@pytest.mark.parametrize(
    "target",
    ["run", "test", "unit", "test-all", "bare", "upgrade", "lint", "bench", "lock", "autobahn"],
)
def test_every_make_target_that_is_documented_exists(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert f"make {target}" in README + (ROOT / "CONTRIBUTING.md").read_text()


def test_a_python_that_can_make_no_environment_is_told_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "ensurepip.py").write_text("raise ImportError")  # as where Debian's is not there
    done = subprocess.run(
        ["make", "run", f"VENV={tmp_path}/venv", f"PYTHON={sys.executable}"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    line, *_ = done.stderr.splitlines()
    assert "apt-get install python3-venv" in line
    assert "python3-venv" in README
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "venv").exists()
