"""One connection of the public port, on a real socket, beside what it is part of."""

import asyncio
import select
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from types import SimpleNamespace
from typing import ClassVar, cast

import pytest
import tornado.web

from pushsvc import metrics
from pushsvc.auth.tokens import SCOPE_PUBLISH, Claims
from pushsvc.errors import InvalidRequest
from pushsvc.node.readiness import ReadinessSet
from pushsvc.web.admission import Admission
from pushsvc.web.api import Operations
from pushsvc.web.front import Front
from pushsvc.web.handshake import Handshakes
from pushsvc.web.http_connection import IN_A_TURN, IN_ONE, MAX_AHEAD, READ_BYTES
from pushsvc.web.operation import ANYONE, Admitted, Answer, Operation, Request, problem

BACKEND = Claims("b", 0, scopes=frozenset({SCOPE_PUBLISH}))


class Waiting(Operation):
    """An operation that takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.end = asyncio.Event()

    async def admit(self, request: Request) -> Admitted:  # noqa: ARG002 - the interface
        return Admitted(ANYONE, 100)

    async def answer(self, request: Request, admitted: Admitted, body: bytes) -> Answer:  # noqa: ARG002 - the interface
        await self.end.wait()
        return problem(InvalidRequest("at last"))


class Sink(Operation):
    """An operation that takes a body, and says how long it was."""

    allow: ClassVar[str] = "POST"

    async def admit(self, request: Request) -> Admitted:  # noqa: ARG002 - the interface
        return Admitted(BACKEND, 1000)

    async def answer(self, request: Request, admitted: Admitted, body: bytes) -> Answer:  # noqa: ARG002 - the interface
        return Answer(200, b"%d" % len(body))


class Page(tornado.web.RequestHandler):
    """A page that is more than one write."""

    def get(self) -> None:
        self.write(b"x" * 2 * IN_ONE)


class Slow(tornado.web.RequestHandler):
    """A page that takes its time."""

    end: ClassVar[asyncio.Event]

    async def get(self) -> None:
        await self.end.wait()


@pytest.fixture
async def front() -> AsyncIterator[Front]:
    readiness = ReadinessSet()
    open_to_all = cast("Admission", SimpleNamespace(draining=False))
    operations = Operations({"/waiting": Waiting(), "/sink": Sink()}, {"/disconnect": Waiting()})
    made = Front(
        readiness, open_to_all, cast("Handshakes", None), operations,
        tornado.web.Application([("/page", Page), ("/slow", Slow)]),
        request_timeout=10, max_places=100, max_bodies=1000,
    )  # fmt: skip
    yield made
    await made.aclose()
    readiness.close()


def connected() -> tuple[socket.socket, socket.socket]:
    """A client, and the socket that was accepted of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    accepted.setblocking(False)
    client.setblocking(False)
    return client, accepted


@pytest.fixture
async def peer(front: Front) -> AsyncIterator[socket.socket]:
    client, accepted = connected()
    front.take(accepted)
    with client:
        yield client


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def refused() -> float:
    return metrics.http_requests.labels("other", "400").value


async def test_a_peer_that_pipelines_without_end_has_its_turn_and_no_more(
    front: Front, peer: socket.socket
) -> None:
    """Each piece that came had begun a round of its own: in the end 300 requests in a turn."""
    request = b"GET /v1/users/%/disconnect HTTP/1.1\r\nHost: x\r\n\r\n"
    flood, at = request * 2000, 0
    (connection,) = front._fresh
    before = refused()
    for _ in range(400):
        try:
            at = (at + peer.send(flood[at:])) % len(flood)
            peer.recv(1 << 20)
        except BlockingIOError:
            pass
        begun = refused()
        await asyncio.sleep(0)
        assert refused() - begun <= 2 * IN_A_TURN
        assert connection._reader.buffered <= MAX_AHEAD + READ_BYTES
    assert refused() - before > 400


@pytest.mark.parametrize("body", [b"", b"x"])
async def test_a_request_whose_client_has_gone_counts_until_it_ends(
    front: Front, peer: socket.socket, body: bytes
) -> None:
    """Who came, asked and went had any number of requests carried out at once."""
    peer.send(b"GET /waiting HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await until(lambda: front.under_way == 1)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
    await until(lambda: front._places == 0)
    assert front.under_way == 1
    operation = front.operations.whole["/waiting"]
    assert isinstance(operation, Waiting)
    operation.end.set()
    await until(lambda: front.under_way == 0)
    assert len(front.tasks) == 0
    front.bodies.take(1000)  # all of it has been given back


async def test_a_page_whose_client_has_gone_counts_no_more(
    front: Front, peer: socket.socket
) -> None:
    """Each had counted for ever, and in the end requests took all of their places."""
    peer.send(b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n")
    peer.close()
    await until(lambda: front._places == 0)
    assert front.under_way == 0


async def test_a_request_behind_another_counts_by_itself(front: Front, peer: socket.socket) -> None:
    Slow.end = asyncio.Event()
    operation = front.operations.whole["/waiting"]
    assert isinstance(operation, Waiting)
    operation.end.set()
    first, second = (
        b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % each for each in (b"waiting", b"slow")
    )
    peer.send(first + second)
    (connection,) = front._fresh
    await until(lambda: connection._begun and connection._task is None)
    assert front.under_way == 1
    Slow.end.set()
    await until(lambda: front.under_way == 0)


async def test_a_request_whose_body_will_not_come_ends_with_its_client(
    front: Front, peer: socket.socket
) -> None:
    peer.send(b"POST /waiting HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx")
    await until(lambda: front.under_way == 1)
    peer.close()
    await until(lambda: front.under_way == 0 and len(front.tasks) == 0)
    front.bodies.take(1000)


async def test_a_connection_that_cannot_be_watched_is_closed_and_takes_no_place(
    front: Front,
) -> None:
    """It stayed in the table, in no count, and took one place off when it was dropped."""
    client, accepted = connected()
    front.readiness.poller.add(accepted.fileno())  # which is refused a second time
    with client:
        front.take(accepted)
        assert front._places == 0
        assert list(front.readiness) == []
        assert client.recv(1) == b""
        assert front.troubles()


async def test_of_bodies_that_overrun_the_budget_in_one_turn_those_are_read_that_fit(
    front: Front,
) -> None:
    """Each was measured beside the others, which were refused as well: all got 503."""
    head, half = b"POST /sink HTTP/1.1\r\nHost: x\r\nContent-Length: 800\r\n\r\n", b"x" * 400
    pairs = [connected() for _ in range(2)]
    clients = [client for client, _ in pairs]
    with ExitStack() as stack:
        for client, accepted in pairs:
            stack.enter_context(client)
            front.take(accepted)
            client.send(head + half)
        await until(lambda: front.bodies._left == 200)
        for client in clients:
            client.send(half)  # in one turn of the loop, which has not run since
        answers = []
        for client in clients:
            while not select.select([client], [], [], 0)[0]:
                await asyncio.sleep(0.001)
            answers.append(client.recv(100)[:12])
    assert sorted(answers) == [b"HTTP/1.1 200", b"HTTP/1.1 503"]
    assert front.bodies._left == 1000
