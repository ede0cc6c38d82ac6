"""Topics in tokens, from the command line to the socket."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.support.nodes import SECRET, Node, token
from tests.support.phone import Phone

PUSHSVC = [sys.executable, "-m", "pushsvc"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PUSH")}
    return subprocess.run(
        [*PUSHSVC, *arguments], env=clean | {"PUSHSVC_JWT_SECRET": SECRET},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def claims_of(text: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(text, SECRET, ["HS256"], audience="pushsvc")
    return claims


def test_token_grants_the_topics_that_it_is_told() -> None:
    done = run(
        "token", "--user", "u1", "--subscribe", "scores.*", "--subscribe", "chat.**",
        "--publish", "chat.room1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    topics = {"subscribe": ["scores.*", "chat.**"], "publish": ["chat.room1"]}
    assert claims_of(done.stdout.strip())["topics"] == topics
    done = run("token", "--user", "u1", "--publish", "a")
    assert claims_of(done.stdout.strip())["topics"] == {"publish": ["a"]}
    assert "topics" not in claims_of(run("token", "--user", "u1").stdout.strip())


def test_token_says_what_is_wrong_with_a_pattern() -> None:
    done = run("token", "--user", "u1", "--subscribe", "a**")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "subscribe must be" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_dev_keeps_tokens_of_the_secret_in_the_environment(tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PUSH")}
    with subprocess.Popen(
        [*PUSHSVC, "dev", "--port", "0", "--admin-port", "0"],
        env=clean | {"PUSHSVC_JWT_SECRET": SECRET, "XDG_STATE_HOME": str(tmp_path)},
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        text = ""
        while "curl" not in text:
            text += process.stdout.readline()
            assert process.poll() is None
        (file,) = (tmp_path / "pushsvc").iterdir()
        kept = file.read_text()
        process.terminate()
    assert SECRET not in kept
    found = re.findall(r"(\w+)_TOKEN=(\S+)", kept)
    tokens = {kind.lower(): claims_of(each) for kind, each in found}
    assert set(tokens) == {"user", "publisher", "admin", "observer"}
    assert tokens["user"]["topics"] == {"subscribe": ["**"], "publish": ["**"]}
    assert [tokens[kind]["scope"] for kind in ("user", "publisher", "admin")] == [
        "", "push.publish", "push.admin push.publish",
    ]  # fmt: skip
    assert "topics" not in tokens["publisher"]


async def test_a_socket_may_subscribe_and_publish_where_its_token_says(
    node: Node, user: str
) -> None:
    topics = {"subscribe": ["scores.*"], "publish": ["chat.**"]}
    async with Phone(node, user, auth=token(user, topics=topics)) as phone:
        await phone.send(type="subscribe", topic="scores.nba", ref=1)
        reply = await phone.receive()
        assert (reply["type"], reply["topic"]) == ("reply", "scores.nba")
        await phone.send(type="publish", topic="chat.a.b", data=1, ref=2)
        assert (await phone.receive())["type"] == "reply"
        refused: list[dict[str, Any]] = [
            {"type": "subscribe", "topic": "scores.nba.x"},
            {"type": "subscribe", "topic": "chat.a"},
            {"type": "subscribe", "topics": {"scores.nba": None, "chat.a": None}},
            {"type": "publish", "topic": "scores.nba", "data": 1},
            {"type": "presence", "topic": "chat.a"},
        ]
        for message in refused:
            await phone.send(**message, ref=json.dumps(message))
            error = await phone.receive()
            assert (error["type"], error["code"]) == ("error", "forbidden"), error
            assert error["ref"] == json.dumps(message)
        await phone.silent()


@pytest.mark.parametrize("name", ["a\r\nb", "a*", "*", "**", "a b", "a" * 257, "", "é" * 129])
async def test_a_pattern_grants_no_names_that_are_none(node: Node, user: str, name: str) -> None:
    topics = {"subscribe": ["**"], "publish": ["**"]}
    async with Phone(node, user, auth=token(user, topics=topics)) as phone:
        for message in ({"type": "subscribe"}, {"type": "publish", "data": 1}):
            await phone.send(**message, topic=name, ref=1)
            error = await phone.receive()
            assert (error["type"], error["code"]) == ("error", "invalid_name")


async def test_a_token_without_topics_opens_none(node: Node, user: str) -> None:
    async with Phone(node, user) as phone:
        for message in ({"type": "subscribe"}, {"type": "publish", "data": 1}):
            await phone.send(**message, topic="a", ref=1)
            error = await phone.receive()
            assert (error["type"], error["code"]) == ("error", "forbidden")
