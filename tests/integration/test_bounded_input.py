"""What untrusted input costs a node in CPU and memory: what is too much is refused unparsed."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.support.backend import problem, told
from tests.support.nodes import PLAIN, Node, publisher_token, token
from tests.support.phone import Phone

MIB = 1 << 20
BATCH = "/v1/notifications/batch"
ONE = "/v1/notifications"
NDJSON = "application/x-ndjson"
JSON = "application/json"
EVENTS = "application/cloudevents-batch+json"

TIMES = 8
"""Requests that are measured: the kernel counts CPU in steps of 10 ms."""
MOST_MEMORY = 8 * MIB
"""A body, a copy of it as text, and what the allocator keeps."""


class Cost:
    """What requests cost a node, on average, and the memory that they took at most."""

    def __init__(self, node: Node, send: Callable[[], httpx.Response], times: int = TIMES) -> None:
        process = psutil.Process(node.process.pid)
        send()  # what is made once
        (Path("/proc") / str(process.pid) / "clear_refs").write_text("5")  # the peak begins anew
        before, memory = process.cpu_times(), process.memory_info().rss
        self.answers = [send() for _ in range(times)]
        after = process.cpu_times()
        self.cpu = (after.user + after.system - before.user - before.system) / times
        self.memory = _peak(process.pid) - memory


def _peak(pid: int) -> int:
    status = (Path("/proc") / str(pid) / "status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def client_token(user: str) -> str:
    return token(user, topics={"publish": ["chat.*"]})


def post(
    node: Node, body: bytes, kind: str, *, path: str = BATCH, by: str | None = None
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {by or publisher_token()}", "Content-Type": kind}
    return httpx.post(node.url + path, content=body, headers=headers, timeout=60, verify=PLAIN)


def good(size: int) -> dict[str, Any]:
    return {"to": {"topic": "chat.r1"}, "data": "x" * size, "ephemeral": True}


def filled(head: bytes, item: bytes, tail: bytes, size: int = MIB) -> bytes:
    return head + item * ((size - len(head) - len(tail)) // len(item)) + tail


TOO_MANY: dict[str, tuple[str, bytes]] = {
    "lines": (NDJSON, filled(b"", b"x\n", b"")),
    "blank lines": (NDJSON, filled(b"", b"\n", b"")),
    "arrays": (JSON, filled(b'{"notifications":[', b"[],", b"[]]}")),
    "objects": (JSON, filled(b'{"notifications": [', b"{},", b"{}] }")),
    "strings": (JSON, filled(b'{"notifications":[', b'"ab",', b'""]}')),
    "events": (EVENTS, filled(b"[", b"{},", b"{}]")),
}


@pytest.mark.parametrize(("kind", "body"), TOO_MANY.values(), ids=TOO_MANY)
def test_a_batch_of_far_too_many_costs_less_than_one_that_is_accepted(
    node: Node, kind: str, body: bytes
) -> None:
    accepted = b"\n".join([json.dumps(good(900)).encode()] * 1000)
    usual = Cost(node, lambda: post(node, accepted, NDJSON), 2)
    assert {answer.status_code for answer in usual.answers} == {202}
    refused = Cost(node, lambda: post(node, body, kind))
    for answer in refused.answers:
        problem(answer, 400, "invalid")
    assert refused.cpu < 0.050
    assert refused.cpu < usual.cpu
    assert refused.memory < MOST_MEMORY


def test_a_batch_of_a_client_is_as_long_as_two_messages_on_a_socket(node: Node, user: str) -> None:
    auth = client_token(user)
    cost = Cost(node, lambda: post(node, filled(b"", b"x\n", b""), NDJSON, by=auth))
    for answer in cost.answers:
        assert "131072" in problem(answer, 413, "too_large")["detail"]
    assert cost.cpu < 0.050
    assert cost.memory < MOST_MEMORY
    for path in (ONE, BATCH):
        problem(post(node, b" " * 131_073, JSON, path=path, by=auth), 413, "too_large")
        problem(post(node, b" " * 131_072, JSON, path=path, by=auth), 400, PARSED[path])
        problem(post(node, b" " * 131_073, JSON, path=path), 400, PARSED[path])


PARSED = {ONE: "invalid_json", BATCH: "invalid"}
"""What blanks are to each address, where they are not too many."""


def test_what_a_client_publishes_counts_bytes(node: Node, user: str) -> None:
    auth = client_token(user)
    bodies = [json.dumps(good(60_000)).encode()] * 12
    answers = [post(node, body, JSON, path=ONE, by=auth) for body in bodies]
    accepted = [answer for answer in answers if answer.status_code == 202]
    assert 4 <= len(accepted) < 12  # 256 KiB at once, then 128 KiB a second
    refused = [problem(each, 429, "rate_limited") for each in answers if each not in accepted]
    assert all("131072 bytes a second" in each["detail"] for each in refused)
    small = json.dumps(good(10)).encode()
    assert post(node, small, JSON, path=ONE, by=client_token(f"{user}-2")).status_code == 202


@pytest.mark.parametrize("line", [b"x", b"{}", json.dumps(good(1)).encode()])
def test_each_notification_of_a_clients_batch_counts_be_it_good_or_bad(
    node: Node, user: str, line: bytes
) -> None:
    auth = client_token(user)
    answer = post(node, b"\n".join([line] * 21), NDJSON, by=auth)
    assert "at most 20 at once" in problem(answer, 429, "rate_limited")["detail"]
    answer = post(node, b"\n".join([line] * 15), NDJSON, by=client_token(f"{user}-2"))
    assert answer.status_code == 202
    answer = post(node, b"\n".join([line] * 15), NDJSON, by=client_token(f"{user}-2"))
    problem(answer, 429, "rate_limited")


def test_the_answer_to_bad_lines_is_bounded_and_nothing_of_them_is_kept(node: Node) -> None:
    long = b'{"' + b"n" * 900 + b'":' * 40
    for line in (b"x", long, b'{"' + b"n" * 900 + b'":1}'):
        body = b"\n".join([line] * 1000)
        cost = Cost(node, lambda body=body: post(node, body, NDJSON), 4)  # type: ignore[misc]
        for answer in cost.answers:
            results = answer.json()["results"]
            assert len(results) == 1000
            for each in results:
                told(each, 400, each["type"].rpartition(":")[2])
            assert len(answer.content) < 1000 * 500
        assert cost.memory < 2 * MOST_MEMORY


def test_a_small_request_has_a_small_body(node: Node, user: str) -> None:
    body = json.dumps({"id": "1-0"}).encode().ljust(5000)
    admin = token(user, "push.admin")
    for path in ("/v1/ack", "/v1/tickets", "/v1/revocations", f"/v1/users/{user}/disconnect"):
        found = problem(post(node, body, JSON, path=path, by=admin), 413, "too_large")
        assert "4096" in found["detail"]
    answer = post(node, body[:4096], JSON, path="/v1/ack", by=token(user))
    assert answer.status_code == 200


def test_a_batch_is_the_same_however_it_is_spaced(node: Node) -> None:
    note = json.dumps(good(10)).encode()
    spaced = b' {\n"notifications"\t: [ ' + note + b" ,\r\n" + note + b" ] } \n"
    assert post(node, spaced, JSON).status_code == 202
    wrong: dict[bytes, str] = {
        spaced.replace(b"]", b""): "invalid_json",
        spaced.replace(b" ,", b" "): "invalid_json",
        spaced + b"x": "invalid",
        spaced.replace(b"notifications", b"others"): "invalid",
    }
    for body, code in wrong.items():
        problem(post(node, body, JSON), 400, code)


# --- on a socket ----------------------------------------------------------------------------------

SOCKETS = 16
AT_ONCE = 4
"""Messages of the largest kind that a connection may send at once."""


async def said(node: Node, user: str, **message: Any) -> float:
    """Seconds of CPU that a node takes for one message, sent as often as a user may at once."""
    process = psutil.Process(node.process.pid)
    async with contextlib.AsyncExitStack() as stack:
        phones = [
            await stack.enter_async_context(Phone(node, user, f"d{number}", max_size=None))
            for number in range(SOCKETS)
        ]
        before = process.cpu_times()
        for phone in phones:
            for _ in range(AT_ONCE):
                await phone.send(**message)
        for phone in phones:
            for _ in range(AT_ONCE):
                assert (await phone.receive())["type"] in ("pong", "error")
        after = process.cpu_times()
    return after.user + after.system - before.user - before.system


DIGITS = "x".join(["1" * 308] * 195)
"""Runs of digits, each of one too few for an integer that no double can hold."""


@pytest.mark.parametrize(
    "message",
    [
        {"type": "ping", "ref": DIGITS},
        {"type": DIGITS},
        {"type": "ping", DIGITS: 1},
        {"type": "publish", "topic": "t", "data": DIGITS},
    ],
    ids=["ref", "type", "name", "data"],
)
async def test_no_text_of_a_client_costs_much_more_than_another(
    node: Node, user: str, message: dict[str, Any]
) -> None:
    usual = await said(node, f"{user}-a", type="ping", ref="x" * len(DIGITS))
    assert await said(node, f"{user}-b", **message) < 3 * usual + 0.1  # it was 15 times as much
