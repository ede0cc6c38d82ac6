"""Several issuers on real nodes: who gets in, and what happens when the file changes."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from pushsvc.auth.tokens import mint
from pushsvc.server.embedded import EmbeddedServer
from tests.support.backend import problem
from tests.support.nodes import Node, wait_until, workers
from tests.support.phone import Phone

USERS, BACKENDS = "users" * 10, "backends" * 6
FILE = f"""
[issuers.users]
issuer = "https://users.example/"
secret = "{USERS}"
shared_users = true
max_scopes = []
max_topics = {{subscribe = ["room.*"]}}

[issuers.backends]
issuer = "backends"
secret = "{BACKENDS}"
shared_users = true
"""


def user_token(user: str, *scopes: str) -> str:
    return mint(
        secret=USERS, issuer="https://users.example/", user=user, audience="pushsvc",
        scopes=scopes, topics={"subscribe": ["**"], "publish": ["**"]}, ttl=600,
    )  # fmt: skip


def backend_token(user: str = "backend") -> str:
    return mint(
        secret=BACKENDS, issuer="backends", user=user, audience="pushsvc",
        scopes=["push.publish", "push.admin"], ttl=600,
    )  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "auth.toml"
    path.write_text(FILE)
    return path


@pytest.fixture(params=[1, 2])
def node(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str, path: Path, request: pytest.FixtureRequest
) -> Iterator[Node]:
    with Node(
        valkey.url, tmp_path, prefix=prefix, jwt_secret="", auth_file=path, workers=request.param
    ) as one:
        yield one


def ask(
    node: Node, token: str, method: str = "POST", path: str = "/v1/notifications", **kwargs: Any
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if method == "POST":
        kwargs.setdefault("body", {"to": {"user": "ann"}, "data": 1})
    body = kwargs.get("body")
    return httpx.request(method, node.url + path, headers=headers, json=body, timeout=20)


def taken_over(node: Node) -> bool:
    """Whether every worker has read the new file, and the console, which has it for itself."""
    read = [line for line in node.log_lines() if line["event"].endswith("was read again")]
    # The only worker has no process of its own.
    return len(read) == max(1, len(workers(node))) + 1


async def until(phone: Phone, kind: str) -> dict[str, Any]:
    """The next message of a type."""
    while (message := await phone.receive())["type"] != kind:
        pass
    return message


async def test_each_issuer_does_what_it_may_and_is_told_what_it_may_not(node: Node) -> None:
    assert (await asyncio.to_thread(ask, node, backend_token())).status_code == 202
    refused = await asyncio.to_thread(ask, node, user_token("ann", "push.publish"))
    detail = problem(refused, 403, "forbidden")["detail"]
    assert "a token without the scope" in detail
    assert "max_topics of issuers.users in AUTH_FILE, which has nothing under publish" in detail
    path = "/v1/users/bob/presence"
    refused = await asyncio.to_thread(ask, node, user_token("ann", "push.admin"), "GET", path)
    detail = problem(refused, 403, "forbidden")["detail"]
    assert "looked at scope, which held 'push.admin'" in detail
    assert "allowed at most: none (max_scopes of issuers.users in AUTH_FILE)" in detail
    async with Phone(node, "ann", auth=user_token("ann")) as phone:
        await phone.send(type="subscribe", ref=1, topic="room.a")
        assert (await until(phone, "reply"))["topic"] == "room.a"
        await phone.send(type="subscribe", ref=2, topic="hall.a")
        error = await until(phone, "error")
        assert "max_topics of issuers.users in AUTH_FILE" in error["detail"]
        # the other issuer has the same users, as both entries say
        await phone.send(type="refresh", ref=3, token=backend_token("ann"))
        assert (await until(phone, "reply"))["ref"] == 3
        await phone.send(type="refresh", token=backend_token("bob"))
        assert await phone.closed() == 4500
    stolen = mint(
        secret=BACKENDS, issuer="https://users.example/", user="x", audience="pushsvc", ttl=60
    )
    problem(await asyncio.to_thread(ask, node, stolen), 401, "invalid_token")
    lines = [line for line in node.log_lines() if line["event"] == "request refused"]
    assert any("max_scopes of issuers.users" in line["detail"] for line in lines)
    assert "eyJ" not in node.log()


async def test_an_issuer_that_goes_takes_its_sockets_and_tickets_with_it(
    node: Node, path: Path
) -> None:
    before, after = FILE.split("[issuers.backends]")
    tickets = await asyncio.to_thread(ask, node, user_token("ann"), path="/v1/tickets", body=None)
    ticket = tickets.json()["ticket"]
    assert len(ticket) == 44
    users = [Phone(node, f"u{n}", auth=user_token(f"u{n}")) for n in range(4)]
    async with Phone(node, "backend", auth=backend_token()) as backend:
        async with AsyncExitStack() as stack:
            for each in users:
                await stack.enter_async_context(each)
            await asyncio.to_thread(path.write_text, "[issuers.backends]" + after)
            for each in users:
                assert await each.closed() == 4501
        answer = await asyncio.to_thread(ask, node, user_token("ann"))
        detail = problem(answer, 401, "invalid_token")["detail"]
        assert "the iss claim must be exactly the issuer of an entry in AUTH_FILE" in detail
        poll = f"/v1/poll?wait=0&ticket={ticket}"
        answer = await asyncio.to_thread(ask, node, "", "GET", poll)
        assert "not trusted here any more" in problem(answer, 401, "invalid_token")["detail"]
        assert (await asyncio.to_thread(ask, node, backend_token())).status_code == 202
        await backend.send(type="ping", ref=1)
        assert (await until(backend, "pong"))["ref"] == 1
    # one that cannot be used leaves these in force, and the node ready
    await asyncio.to_thread(path.write_text, before + "audeince = 1\n")
    refused = "pushsvc_auth_file_refused"
    await asyncio.to_thread(wait_until, lambda: node.metric(refused) == 1, "the metric")
    assert node.is_ready()
    assert (await asyncio.to_thread(ask, node, backend_token())).status_code == 202
    assert "did you mean audience?" in node.log()
    await asyncio.to_thread(path.write_text, FILE)
    await asyncio.to_thread(wait_until, lambda: node.metric(refused) == 0, "the metric")
    async with Phone(node, "ann", auth=user_token("ann")):
        pass


async def test_a_poll_whose_issuer_moves_meanwhile_is_answered_that_it_may_try_again(
    node: Node, path: Path
) -> None:
    auth = user_token("ann")
    polling = asyncio.create_task(
        asyncio.to_thread(ask, node, auth, "GET", "/v1/poll?wait=60&device=d")
    )
    await asyncio.to_thread(wait_until, lambda: node.metric("pushsvc_connections") == 1, "a poll")
    moved = FILE.replace(f'"{USERS}"', f'"{USERS}"\nnamespace = "moved"')
    await asyncio.to_thread(path.write_text, moved)
    await asyncio.to_thread(wait_until, lambda: taken_over(node), "the new file")
    await asyncio.to_thread(ask, node, backend_token())  # something to be answered with
    problem(await polling, 503, "unavailable")
    answer = await asyncio.to_thread(ask, node, auth, "GET", "/v1/poll?wait=0&device=d")
    assert answer.status_code == 200
