"""Revoking: who is refused and who is closed, on every node, and who is not."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from websockets.exceptions import InvalidStatus

from pushsvc.auth.tokens import LEEWAY
from pushsvc.server.embedded import EmbeddedServer
from tests.support.backend import problem
from tests.support.nodes import SECRET, Node, nodes, publisher_token, token
from tests.support.phone import Phone
from tests.support.raw import Raw, request

pytestmark = pytest.mark.promise

REVOCATIONS = "/v1/revocations"
SOON = 1.0
"""Seconds in which a revoked socket must be closed."""


@pytest.fixture(scope="module")
def pair(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    with nodes(2, valkey.url, tmp_path_factory.mktemp("revoke"), prefix="revoke") as both:
        yield both


@pytest.fixture(scope="module")
def node(pair: list[Node]) -> Node:
    return pair[0]


def admin_token(**claims: Any) -> str:
    return token("admin", "push.admin", **claims)


def as_admin(node: Node, path: str, body: Any = None, **kwargs: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {admin_token()}"} | kwargs.pop("headers", {})
    return node.post(path, body, headers=headers, **kwargs)


async def revoke(node: Node, **body: Any) -> dict[str, Any]:
    answer = await asyncio.to_thread(as_admin, node, REVOCATIONS, body)
    assert answer.status_code == 201, answer.text
    held: dict[str, Any] = answer.json()
    return held


def shake(node: Node, auth: str) -> httpx.Response:
    with Raw(node) as peer:
        peer.send(request(headers={"Authorization": f"Bearer {auth}"}))
        return peer.answer()


async def refused(node: Node, auth: str) -> None:
    """Check that a handshake with this token is refused as revoked."""
    found = problem(await asyncio.to_thread(shake, node, auth), 401, "invalid_token")
    assert "revoked" in found["detail"]


@asynccontextmanager
async def phones(pair: list[Node], user: str, auth: str) -> AsyncIterator[list[Phone]]:
    """Two sockets of a token on each node."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(Phone(node, user, f"d{number}", auth=auth))
            for node in pair
            for number in range(2)
        ]


async def closed_soon(sockets: list[Phone]) -> None:
    """Check that all of them are closed as revoked, soon from now."""
    started = time.monotonic()
    assert await asyncio.gather(*(each.closed() for each in sockets)) == [4501] * len(sockets)
    assert time.monotonic() - started < SOON


async def newer(user: str, held: dict[str, Any]) -> str:
    """A token issued after everything that was revoked, once a node grants it its time."""
    issued = held["issued_before"] + 1
    while time.time() < issued - LEEWAY:
        await asyncio.sleep(0.02)
    return token(user, now=issued)


# --- what is closed and refused ------------------------------------------------------------------


async def test_revoking_a_user_closes_its_sockets_on_every_node_and_refuses_its_tokens(
    pair: list[Node], user: str
) -> None:
    auth = token(user)
    async with phones(pair, user, auth) as sockets, Phone(pair[1], user + "-other") as other:
        held = await revoke(pair[0], user=user)
        await closed_soon(sockets)
        assert set(held) == {"user", "issued_before", "expires_at"}
        assert held["user"] == user
        assert 0 < held["issued_before"] - time.time() <= LEEWAY
        assert abs(held["expires_at"] - time.time() - 30 * 86400 - 2 * LEEWAY) < 10
        for node in pair:
            await refused(node, auth)
        await other.silent()
    async with Phone(pair[1], user, auth=await newer(user, held)) as again:
        await again.silent()


async def test_a_disconnected_user_is_revoked(pair: list[Node], user: str) -> None:
    auth = token(user)
    async with phones(pair, user, auth) as sockets:
        path = f"/v1/users/{user}/disconnect"
        answer = await asyncio.to_thread(as_admin, pair[0], path)
        await closed_soon(sockets)
        assert answer.status_code == 201
        assert answer.json()["user"] == user
    await refused(pair[1], auth)
    answer = await asyncio.to_thread(as_admin, pair[0], path, {"ttl": 40 * 86400})
    assert answer.status_code == 201
    assert answer.json()["expires_at"] - time.time() > 39 * 86400


async def test_revoking_a_token_by_its_id_leaves_the_users_others(
    pair: list[Node], user: str
) -> None:
    auth = token(user)
    token_id = jwt.decode(auth, SECRET, ["HS256"], audience="pushsvc")["jti"]
    async with phones(pair, user, auth) as sockets, Phone(pair[1], user, "other") as other:
        held = await revoke(pair[0], jti=token_id, ttl=60)
        await closed_soon(sockets)
        assert set(held) == {"jti", "expires_at"}
        await other.silent()
    for node in pair:
        await refused(node, auth)


async def test_revoking_by_issue_time_leaves_what_is_younger(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    old = token("u1", now=time.time() - 100)
    with nodes(2, valkey.url, tmp_path, prefix=prefix) as pair:
        async with phones(pair, "u1", old) as sockets, Phone(pair[1], "u1", "young") as young:
            await revoke(pair[0], user="u2", issued_before=int(time.time()))
            for each in sockets:
                await each.silent()
            await revoke(pair[0], issued_before=int(time.time()) - 50)
            await closed_soon(sockets)
            await young.silent()
        await refused(pair[1], old)
        # Everything that is as old, whatever it was for.
        headers = {"Authorization": f"Bearer {admin_token(now=time.time() - 100)}"}
        problem(pair[0].post(REVOCATIONS, {"user": "u1"}, headers=headers), 401, "invalid_token")


async def test_an_older_token_of_the_user_alone_is_closed(pair: list[Node], user: str) -> None:
    old, young = token(user, now=time.time() - 60), token(user)
    async with Phone(pair[0], user, "a", auth=old) as a, Phone(pair[0], user, "b", auth=young) as b:
        await revoke(pair[1], user=user, issued_before=int(time.time()) - 30)
        await closed_soon([a])
        await b.silent()


async def test_who_brought_a_newer_token_stays(pair: list[Node], user: str) -> None:
    old, young = token(user, now=time.time() - 60), token(user)
    async with Phone(pair[0], user, auth=old) as phone:
        await phone.send(type="refresh", token=young, ref="r")
        assert (await phone.receive())["type"] == "reply"
        await revoke(pair[0], user=user, issued_before=int(time.time()) - 30)
        await phone.silent()
        await revoke(pair[0], user=user)
        await closed_soon([phone])


async def test_a_revoked_token_renews_nothing(pair: list[Node], user: str) -> None:
    old, young = token(user, now=time.time() - 60), token(user)
    await revoke(pair[0], user=user, issued_before=int(time.time()) - 30)
    async with Phone(pair[0], user, auth=young) as phone:
        await phone.send(type="refresh", token=old, ref="r")
        message = await phone.receive()
        assert (message["type"], message["ref"]) == ("error", "r")
        assert message["code"] == "invalid_token"


async def test_a_revoked_publisher_publishes_no_more(pair: list[Node], user: str) -> None:
    auth = publisher_token(user)
    body = {"to": {"user": "u1"}, "data": 1}
    headers = {"Authorization": f"Bearer {auth}"}
    assert pair[0].post("/v1/notifications", body, headers=headers).status_code == 202
    await revoke(pair[0], user=user)
    answer = pair[0].post("/v1/notifications", body, headers=headers)
    problem(answer, 401, "invalid_token")


async def test_a_node_that_starts_later_knows_what_is_revoked(
    valkey: EmbeddedServer, tmp_path: Path, pair: list[Node], user: str
) -> None:
    auth = token(user)
    await revoke(pair[0], user=user)
    with Node(valkey.url, tmp_path, prefix="revoke") as late:
        await refused(late, auth)


async def test_no_handshake_slips_through_while_its_token_is_revoked(
    pair: list[Node], user: str
) -> None:
    auth = token(user)

    async def knock(number: int) -> int:
        try:
            async with Phone(pair[number % 2], user, f"d{number % 8}", auth=auth) as phone:
                return await phone.closed()
        except InvalidStatus as refusal:
            return refusal.response.status_code

    knocking = [asyncio.create_task(knock(number)) for number in range(24)]
    await revoke(pair[0], user=user)
    assert set(await asyncio.gather(*knocking)) <= {401, 4501}


# --- the requests --------------------------------------------------------------------------------


def test_the_newest_revocations_are_listed_first(node: Node, user: str) -> None:
    bodies: list[dict[str, Any]] = [
        {"user": user, "issued_before": 5}, {"jti": f"{user}/1"}, {"user": user + ":x"},
    ]  # fmt: skip
    held = [as_admin(node, REVOCATIONS, body).json() for body in bodies]
    auth = {"Authorization": f"Bearer {admin_token()}"}
    answer = httpx.get(node.url + REVOCATIONS, headers=auth)
    assert answer.status_code == 200
    assert answer.json()["revocations"][:3] == held[::-1]


def test_a_revocation_is_never_weakened(node: Node, user: str) -> None:
    first = as_admin(node, REVOCATIONS, {"user": user, "issued_before": 50, "ttl": 600}).json()
    later = as_admin(node, REVOCATIONS, {"user": user, "issued_before": 40, "ttl": 60}).json()
    assert later == first


@pytest.mark.parametrize("scopes", [(), ("push.publish",), ("push.receive", "push.Admin")])
def test_only_an_administrator_revokes(node: Node, user: str, scopes: tuple[str, ...]) -> None:
    headers = {"Authorization": f"Bearer {token(user, *scopes)}"}
    for path in (REVOCATIONS, f"/v1/users/{user}/disconnect"):
        problem(node.post(path, {"user": user}, headers=headers), 403, "forbidden")
    problem(httpx.get(node.url + REVOCATIONS, headers=headers), 403, "forbidden")
    problem(httpx.get(node.url + REVOCATIONS), 401, "invalid_token")


@pytest.mark.parametrize(
    "body",
    [
        {}, [], {"user": None, "issued_before": 1}, {"user": "u1", "jti": "x"}, {"ttl": 60},
        {"user": "u1", "ttl": 0}, {"user": "u1", "ttl": 366 * 86400}, {"jti": ""},
        {"issued_before": 10**11}, {"issued_before": -1}, {"user": "u1", "why": "x"},
    ],
    ids=repr,
)  # fmt: skip
def test_a_body_of_another_shape_is_refused(node: Node, body: Any) -> None:
    answer = as_admin(node, REVOCATIONS, content=str(body), headers={"Content-Type": "text/plain"})
    problem(answer, 415, "unsupported_media_type")
    answer = as_admin(node, REVOCATIONS, json=body)
    problem(answer, 400, "invalid")


def test_bad_names_and_bodies_are_refused(node: Node) -> None:
    problem(as_admin(node, REVOCATIONS, {"user": "a\tb"}), 400, "invalid_name")
    for name in ("a%09b", "a" * 257, "%C3%A9" * 129, "a%0Db"):
        problem(as_admin(node, f"/v1/users/{name}/disconnect"), 400, "invalid_name")
    bodies: list[Any] = [{"user": "u1"}, {"ttl": None}, [], {"issued_before": 1}]
    for body in bodies:
        problem(as_admin(node, "/v1/users/u1/disconnect", body), 400, "invalid")
    kind = {"Content-Type": "application/json"}
    answer = as_admin(node, REVOCATIONS, content=b"{", headers=kind)
    problem(answer, 400, "invalid_json")


def test_other_methods_are_refused(node: Node) -> None:
    auth = {"Authorization": f"Bearer {admin_token()}"}
    for path, method in (
        (REVOCATIONS, "PUT"), (REVOCATIONS, "DELETE"), ("/v1/users/u1/disconnect", "GET"),
    ):  # fmt: skip
        answer = httpx.request(method, node.url + path, headers=auth)
        problem(answer, 405, "method_not_allowed")


def test_a_user_with_any_character_that_names_have_is_disconnected(node: Node, user: str) -> None:
    name = f"{user}:a@b.c=1"
    for path in (name, name.replace(":", "%3A").replace("@", "%40").replace("=", "%3D")):
        answer = as_admin(node, f"/v1/users/{path}/disconnect")
        assert answer.status_code == 201, answer.text
        assert answer.json()["user"] == name


def test_a_request_without_any_body_disconnects(node: Node, user: str) -> None:
    head = (
        f"POST /v1/users/{user}/disconnect HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {admin_token()}\r\n\r\n"
    )
    with Raw(node) as peer:
        peer.send(head.encode())
        assert peer.answer().status_code == 201
