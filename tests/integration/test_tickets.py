"""Tickets: once, for seconds, in the place of a token."""

import asyncio
import time
from collections.abc import Iterator
from typing import Self

import httpx
import jwt
import pytest
from websockets.asyncio.client import connect

from pushsvc.server.embedded import EmbeddedServer
from tests.support.backend import problem, publish
from tests.support.nodes import SECRET, Node, nodes, token
from tests.support.phone import Phone
from tests.support.raw import Raw, request

TICKETS = "/v1/tickets"


@pytest.fixture(scope="module")
def pair(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    with nodes(2, valkey.url, tmp_path_factory.mktemp("tickets"), prefix="tickets") as both:
        yield both


@pytest.fixture(scope="module")
def node(pair: list[Node]) -> Node:
    return pair[0]


def ticket_of(node: Node, auth: str) -> str:
    """A new ticket for a token."""
    answer = node.post(TICKETS, headers={"Authorization": f"Bearer {auth}"})
    assert answer.status_code == 201, answer.text
    assert set(answer.json()) == {"ticket", "expires_in"}
    assert answer.json()["expires_in"] == 30
    assert answer.headers["Cache-Control"] == "no-store"
    ticket: str = answer.json()["ticket"]
    return ticket


def shake(node: Node, ticket: str, **headers: str) -> httpx.Response:
    with Raw(node) as peer:
        target = f"/v1/ws?device=d&ticket={ticket}"
        peer.send(request(target=target, headers={"Authorization": None, **headers}))
        return peer.answer()


class TicketPhone(Phone):
    """A client that can set no header."""

    def __init__(self, node: Node, ticket: str, device: str = "web") -> None:
        super().__init__(node, device=device)
        self._address += f"&ticket={ticket}"

    async def __aenter__(self) -> Self:
        self.socket = await connect(self._address, **self._kwargs)
        self.welcome = await self.receive()
        assert self.welcome["type"] == "welcome"
        return self


async def test_a_ticket_opens_a_socket_as_its_tokens_user(pair: list[Node], user: str) -> None:
    auth = token(user)
    ticket = await asyncio.to_thread(ticket_of, pair[0], auth)
    assert ticket.replace("-", "").replace("_", "").isalnum()
    async with TicketPhone(pair[1], ticket) as phone:  # of another node
        assert phone.welcome["user"] == user
        expires = jwt.decode(auth, SECRET, ["HS256"], audience="pushsvc")["exp"]
        assert phone.welcome["expires_at"] == expires
        sent = await publish(pair[0], user, "hello")
        assert (await phone.notification())["id"] == sent


async def test_a_ticket_is_good_once(pair: list[Node], user: str) -> None:
    ticket = await asyncio.to_thread(ticket_of, pair[0], token(user))
    answers = await asyncio.gather(
        *(asyncio.to_thread(shake, pair[number % 2], ticket) for number in range(10))
    )
    assert sorted(answer.status_code for answer in answers) == [101] + [401] * 9
    found = problem(await asyncio.to_thread(shake, pair[0], ticket), 401, "invalid_token")
    assert "/v1/tickets" in found["detail"]


@pytest.mark.parametrize("ticket", ["", "x", "x" * 43, "%00", "a.b.c", "x" * 5000])
def test_what_is_no_ticket_is_refused(node: Node, ticket: str) -> None:
    problem(shake(node, ticket), 401, "invalid_token")


async def test_a_ticket_of_a_token_that_was_revoked_meanwhile_is_refused(
    node: Node, user: str
) -> None:
    ticket = await asyncio.to_thread(ticket_of, node, token(user))
    headers = {"Authorization": f"Bearer {token('admin', 'push.admin')}"}
    answer = await asyncio.to_thread(node.post, "/v1/revocations", {"user": user}, headers=headers)
    assert answer.status_code == 201
    found = problem(await asyncio.to_thread(shake, node, ticket), 401, "invalid_token")
    assert "revoked" in found["detail"]


async def test_a_socket_that_came_by_ticket_is_closed_when_its_token_is_revoked(
    pair: list[Node], user: str
) -> None:
    ticket = await asyncio.to_thread(ticket_of, pair[0], token(user))
    headers = {"Authorization": f"Bearer {token('admin', 'push.admin')}"}
    async with TicketPhone(pair[1], ticket) as phone:
        await asyncio.to_thread(pair[0].post, f"/v1/users/{user}/disconnect", headers=headers)
        assert await phone.closed() == 4501


def test_a_ticket_is_given_for_a_good_token_alone(node: Node) -> None:
    problem(httpx.post(node.url + TICKETS), 401, "invalid_token")
    for bad in ("x", "a.b.c", token("u1", now=time.time() - 1000)):
        answer = node.post(TICKETS, headers={"Authorization": f"Bearer {bad}"})
        problem(answer, 401, "invalid_token")
    auth = {"Authorization": f"Bearer {token('u1')}"}
    problem(httpx.get(node.url + TICKETS, headers=auth), 405, "method_not_allowed")


def test_a_ticket_is_given_to_a_request_without_any_body(node: Node) -> None:
    head = f"POST {TICKETS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token('u1')}\r\n\r\n"
    with Raw(node) as peer:
        peer.send(head.encode())
        assert peer.answer().status_code == 201


async def test_no_ticket_is_in_a_log(node: Node, user: str) -> None:
    tickets = [await asyncio.to_thread(ticket_of, node, token(user)) for _ in range(3)]
    for ticket in tickets:
        for _ in range(2):
            await asyncio.to_thread(shake, node, ticket)
        assert ticket not in node.log()
