"""What a backend's scripts do with the ``pushsvc`` command: publish with every option, and ask."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pushsvc.cli import main
from pushsvc.cli.client import publish as publish_command
from pushsvc.client.publishing import Content, Note
from tests.support.nodes import Node, publisher_token, token, wait_until
from tests.support.phone import Phone
from tests.support.ports import free_port

Run = Callable[..., Result]
NAME = "ü \u202e&?#%2F+/.."
"""A user whom no terminal may be shown as it is."""


@pytest.fixture
def run(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command on the node, as a backend with all tokens."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    environ = {
        "PUSH_URL": node.url, "PUSH_ADMIN_URL": node.admin_url,
        "PUBLISHER_TOKEN": publisher_token(), "ADMIN_TOKEN": token("admin", "push.admin"),
        "OBSERVER_TOKEN": token("observer", "push.observe"), "USER_TOKEN": None,
    }  # fmt: skip

    def call(*arguments: str, data: str | bytes | None = None, **variables: str | None) -> Result:
        done = CliRunner().invoke(main, arguments, input=data, env=environ | variables)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        assert done.output.isascii() or done.exit_code == 2  # where click repeats an argument
        return done

    return call


def lines(done: Result) -> list[Any]:
    """What a command printed."""
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


def refusal(done: Result, code: int = 1) -> str:
    """The one line with which a command failed."""
    assert (done.exit_code, done.stdout) == (code, ""), done.output
    *_, line = done.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


# --- publish -------------------------------------------------------------------------------------


def test_publish_has_an_option_for_every_field_of_a_notification() -> None:
    options = {each.name for each in publish_command.params}
    fields = {*Content.__annotations__, *Note.__annotations__} - {"user"}
    assert fields <= options
    assert "users" in options


def test_every_option_is_sent_as_the_field_that_it_is(user: str, run: Run) -> None:
    (told,) = lines(run(
        "publish", "--user", user, "--event", "cart.left", "--ttl", "1h", "--collapse-key", "cart",
        "--deliver", "any-device", "--receipt", '{"items": 2}',
    ))  # fmt: skip
    (kept,) = lines(run("history", user))
    assert (kept["id"], kept["event"], kept["data"]) == (told["id"], "cart.left", {"items": 2})
    (newer,) = lines(run("publish", "--user", user, "--collapse-key", "cart", "null"))
    assert [each["id"] for each in lines(run("history", user))] == [newer["id"]]
    lines(run("publish", "--user", user, "--device", "phone", "1"))
    assert lines(run("history", user, "--limit", "1"))[0]["device"] == "phone"
    for wrong in (("--topic", "t"), ("--user", user, "--user", "u2")):
        assert "one --user" in refusal(run("publish", *wrong, "--device", "phone", "1"), 2)
    (live,) = lines(run("publish", "--user", user, "--ttl", "0s", "1"))
    assert live["id"]
    (gone,) = lines(run("publish", "--user", user, "--ephemeral", "1"))
    assert "id" not in gone
    assert len(lines(run("history", user))) == 2


def test_data_come_from_standard_input_as_they_are(user: str, run: Run) -> None:
    for given, data in (
        (b'{"a": 1}\n', {"a": 1}),
        (b"hello\n", "hello"),
        ("é\n\n".encode(), "é\n"),
    ):
        lines(run("publish", "--user", user, "-", data=given))
        assert lines(run("history", user, "--limit", "1"))[0]["data"] == data
    done = run("publish", "--user", user, "-", data=b"\xff")
    assert "not UTF-8" in refusal(done, 2)
    done = run("publish", "--user", user, "-", data="[" * 100_000)
    assert "nested too deeply" in refusal(done, 2)


def test_of_several_users_one_that_is_refused_is_told_and_fails(user: str, run: Run) -> None:
    done = run("publish", "--user", user, "--user", "a\tb", "1")
    assert done.exit_code == 1
    assert "Error: " in done.stderr


def test_what_the_service_refuses_is_told_in_one_line(run: Run, user: str) -> None:
    line = refusal(run("publish", "--topic", "t", "--deliver", "any-device", "1"))
    assert '400: "deliver" and "receipt" are for "user" and "users" only' in line
    assert "+10m" in refusal(run("publish", "--user", user, "--at", "soon", "1"), 2)


# --- asking --------------------------------------------------------------------------------------


def test_history_goes_from_page_to_page_and_names_who_acknowledged(
    node: Node, user: str, run: Run
) -> None:
    name = user + NAME
    sent = [node.publish(name, number) for number in range(105)]
    told = lines(run("history", name))
    assert [each["id"] for each in told] == sent[::-1]
    assert told[0]["acked"] == []
    assert [each["data"] for each in lines(run("history", name, "--limit", "2"))] == [104, 103]
    (before,) = lines(run("history", name, "--limit", "1", "--before", sent[50]))
    assert before["id"] == sent[49]
    own = token(name)
    assert len(lines(run("history", name, "--limit", "3", PUBLISHER_TOKEN=own))) == 3
    assert lines(run("history", f"{user}-nobody")) == []
    assert "403" in refusal(run("history", user, PUBLISHER_TOKEN=own))


def test_what_is_recalled_is_gone_and_what_is_not_there_is_told(
    node: Node, user: str, run: Run
) -> None:
    name = user + NAME
    sent = node.publish(name, 1)
    assert lines(run("recall", sent, "--user", name)) == [{"id": sent, "acked": []}]
    assert lines(run("history", name)) == []
    line = refusal(run("recall", sent, "--user", f"{user}-nobody\u202e"))
    assert f"keeps no {sent}" in line
    assert "\\u202e" in line
    assert "no id" in refusal(run("recall", "last", "--user", user), 2)


def test_what_is_published_later_is_taken_back_until_then(user: str, run: Run) -> None:
    (told,) = lines(run("publish", "--user", user, "--at", "+10m", "1"))
    assert told["id"].startswith("s-")
    assert lines(run("history", user)) == []
    assert lines(run("recall", told["id"], "--user", user)) == [
        {"id": told["id"], "acked": [], "cancelled": True}
    ]
    assert "keeps no" in refusal(run("recall", told["id"], "--user", f"{user}-other"))
    (told,) = lines(run("publish", "--user", user, "--at", "now", "2"))
    wait_until(lambda: lines(run("history", user)), "it to go out")
    (recalled,) = lines(run("recall", told["id"], "--user", user))
    assert recalled["notification"]
    assert lines(run("history", user)) == []


@pytest.mark.parametrize("where", [["--topic", "room.1"], ["--broadcast"]])
def test_what_waits_for_a_topic_or_for_everyone_is_taken_back_too(
    run: Run, where: list[str]
) -> None:
    (told,) = lines(run("publish", *where, "--at", "+10m", "1"))
    assert told["at"].endswith("Z")
    (recalled,) = lines(run("recall", told["id"], *where))
    assert recalled["cancelled"]
    unknown = f"s-{'0' * 24}"
    assert "does not wait there" in refusal(run("recall", unknown, *where))
    for whose in ([], [*where, "--user", "u"]):
        assert "one of them" in refusal(run("recall", unknown, *whose), 2)


async def test_who_is_there_is_told(node: Node, user: str, run: Run) -> None:
    topic = f"chat.{user}"
    auth = token(user, topics={"subscribe": ["chat.*"]})
    assert lines(run("presence", "--user", user)) == []
    async with Phone(node, user, "tablet", auth=auth) as phone:
        await phone.send(type="subscribe", topic=topic, ref=1)
        assert (await phone.receive())["type"] == "reply"
        (device,) = lines(run("presence", "--user", user))
        assert (device["device"], device["connections"]) == ("tablet", 1)
        assert device["since"].endswith("Z")
        told = {"users": [user], "count": 1, "sample": False}
        assert lines(run("presence", "--topic", topic)) == [told]
    assert "--topic" in refusal(run("presence"), 2)


async def test_a_user_is_disconnected_and_tokens_are_revoked(
    node: Node, user: str, run: Run
) -> None:
    async with Phone(node, user) as phone:
        (told,) = lines(run("disconnect", user, "--ttl", "1h"))
        assert told["user"] == user
        assert await phone.closed() == 4501
    (told,) = lines(run("revoke", "--jti", f"{user}-7", "--ttl", "1h"))
    assert told.keys() == {"jti", "expires_at"}
    assert told["jti"] == f"{user}-7"
    (told,) = lines(run("revoke", "--user", f"{user}-2", "--issued-before", "-10m"))
    assert told["issued_before"].endswith("Z")
    revoked = lines(run("revoke", "--list"))
    assert {user, f"{user}-2"} <= {each.get("user") for each in revoked}
    for arguments in ([], ["--user", user, "--everyone"], ["--list", "--user", user]):
        assert "one of them" in refusal(run("revoke", *arguments), 2)
    assert "issued_before" in refusal(run("revoke", "--everyone"), 2)
    assert "push.admin" in refusal(run("disconnect", user, ADMIN_TOKEN=publisher_token()))


def test_what_is_kept_of_a_user_is_printed_and_erased(user: str, run: Run) -> None:
    (sent,) = lines(run("publish", "--user", user, "1"))
    parts = lines(run("export", user))
    assert [each["id"] for part in parts for each in part["notifications"]] == [sent["id"]]
    (told,) = lines(run("erase", user))
    assert told["user"] == user
    assert not lines(run("export", user))[0]["notifications"]


async def test_a_notification_is_traced_from_accepted_to_acknowledged(
    node: Node, user: str, run: Run
) -> None:
    async with Phone(node, user) as phone:
        sent = node.publish(user, 1)
        assert (await phone.notification())["id"] == sent
        await phone.acked(sent)
    (told,) = lines(run("trace", sent, "--user", user))
    assert (told["id"], told["feed"]) == (sent, {"user": user})
    assert {"accepted", "sent"} <= {step["what"] for step in told["steps"]}
    assert lines(run("trace", sent))[0]["id"] == sent
    assert "push.observe" in refusal(run("trace", sent, OBSERVER_TOKEN=publisher_token()))
    assert "401" in refusal(run("trace", sent, OBSERVER_TOKEN="x.y.z"))
    assert "400" in refusal(run("trace", "last"))
    assert "one of them" in refusal(run("trace", sent, "--user", user, "--broadcast"), 2)
    nobody = f"http://127.0.0.1:{free_port()}"
    assert nobody in refusal(run("trace", sent, "--admin-url", nobody))
    # The public port serves no console: what answers is told, and not taken for a trace.
    assert "404" in refusal(run("trace", sent, "--admin-url", node.url))
    assert "no address of a node" in refusal(run("trace", sent, "--admin-url", "x://y"), 2)


# --- without a token -----------------------------------------------------------------------------

NEEDS = {
    "disconnect": "ADMIN_TOKEN", "erase": "ADMIN_TOKEN", "export": "ADMIN_TOKEN",
    "history": "PUBLISHER_TOKEN", "listen": "USER_TOKEN",
    "presence": "PUBLISHER_TOKEN", "publish": "PUBLISHER_TOKEN", "recall": "PUBLISHER_TOKEN",
    "revoke": "ADMIN_TOKEN", "trace": "OBSERVER_TOKEN",
}  # fmt: skip
ARGUMENTS = {
    "disconnect": ["u"], "erase": ["u"], "export": ["u"],
    "history": ["u"], "presence": ["--user", "u"],
    "publish": ["--user", "u", "1"], "recall": ["1-0", "--user", "u"], "revoke": ["--list"],
    "trace": ["1-0"],
}  # fmt: skip


@pytest.mark.parametrize("command", NEEDS)
def test_a_command_without_a_token_names_the_variable_and_pushsvc_dev(
    run: Run, command: str
) -> None:
    without: dict[str, str | None] = dict.fromkeys([*NEEDS.values(), "PUSH_URL"])
    line = refusal(run(command, *ARGUMENTS.get(command, []), **without), 2)
    assert f"set {NEEDS[command]}" in line
    assert "pushsvc dev" in line


def test_a_trace_without_an_admin_port_names_the_variable(run: Run) -> None:
    assert "PUSH_ADMIN_URL" in refusal(run("trace", "1-0", PUSH_ADMIN_URL=None), 2)


@pytest.mark.parametrize("command", ["history", "trace"])
def test_a_node_that_is_not_there_is_told_by_its_address(run: Run, command: str) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    began = time.monotonic()
    done = run(
        command, *ARGUMENTS[command], PUSH_URL=nobody, PUSH_ADMIN_URL=nobody
    )  # fmt: skip
    assert nobody in refusal(done)
    assert time.monotonic() - began < 10
