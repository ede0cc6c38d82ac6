"""Receipts as a publisher asks for, reads and is sent them."""

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from standardwebhooks import Webhook

from pushsvc.server.embedded import EmbeddedServer
from tests.support.backend import problem
from tests.support.nodes import Node, nodes, token, wait_until
from tests.support.phone import Phone
from tests.support.services import HTTPService, QuietHandler

PATH = "/v1/receipts"
MAILBOX = 5
SECRET = "whsec_" + "QUJD" * 10


@pytest.fixture(scope="module")
def node(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node(
        valkey.url, tmp_path_factory.mktemp("receipts"), prefix="receipts", mailbox_max=MAILBOX
    ) as running:
        yield running


class Backend:
    """A publisher that no other test uses."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.name = f"p-{uuid.uuid4().hex[:10]}"
        self.headers = {"Authorization": f"Bearer {token(self.name, 'push.publish')}"}

    def publish(self, user: str, **fields: Any) -> str:
        body = {"to": {"user": user}, "data": 1, "receipt": True, **fields}
        answer = self.node.post("/v1/notifications", body, headers=self.headers)
        assert answer.status_code == 202, answer.text
        sent: str = answer.json()["id"]
        return sent

    def get(self, **query: Any) -> httpx.Response:
        return httpx.get(self.node.url + PATH, params=query, headers=self.headers, timeout=20)

    def read(self, **query: Any) -> dict[str, Any]:
        answer = self.get(**query)
        assert answer.status_code == 200, answer.text
        assert answer.headers["Content-Type"] == "application/json"
        found: dict[str, Any] = answer.json()
        return found

    def until(self, count: int) -> list[dict[str, Any]]:
        """So many receipts, as soon as there are that many."""
        wait_until(lambda: len(self.read()["receipts"]) >= count, f"{count} receipts")
        found: list[dict[str, Any]] = self.read()["receipts"]
        assert len(found) == count
        return found


@pytest.fixture
def backend(node: Node) -> Backend:
    return Backend(node)


# --- what becomes of a notification --------------------------------------------------------------


async def test_a_publisher_reads_who_acked_and_when(backend: Backend, user: str) -> None:
    async with Phone(backend.node, user, "phone") as phone:
        sent = await asyncio.to_thread(backend.publish, user)
        assert await asyncio.to_thread(backend.read) == {"receipts": [], "next": "0-0"}
        note = await phone.notification()
        assert "receipt" not in note
        await phone.acked(sent)
        (told,) = await asyncio.to_thread(backend.until, 1)
    assert told == {
        "id": told["id"], "type": "receipt", "time": told["time"],
        "notification": sent, "user": user, "status": "acked", "device": "phone",
        "at": told["at"],
    }  # fmt: skip
    assert note["time"] <= told["at"] <= told["time"]


async def test_a_second_device_that_acks_makes_no_second_receipt(
    backend: Backend, user: str
) -> None:
    async with Phone(backend.node, user, "a") as a, Phone(backend.node, user, "b") as b:
        first, second = [await asyncio.to_thread(backend.publish, user) for _ in range(2)]
        await b.notifications(2)
        await b.acked(first)
        await a.notifications(2)
        await a.acked(second)
        told = await asyncio.to_thread(backend.until, 2)
    assert [(each["notification"], each["device"]) for each in told] == [
        (first, "b"),
        (second, "a"),
    ]


def test_what_nobody_acks_in_time_expires(backend: Backend, user: str) -> None:
    sent = backend.publish(user, ttl=0.1)
    (told,) = backend.until(1)
    assert (told["notification"], told["status"]) == (sent, "expired")
    assert "device" not in told


def test_what_makes_room_for_newer_ones_is_told_at_once(backend: Backend, user: str) -> None:
    sent = [backend.publish(user) for _ in range(MAILBOX + 2)]
    told = backend.until(2)
    assert [(each["notification"], each["status"]) for each in told] == [
        (sent[0], "trimmed"),
        (sent[1], "trimmed"),
    ]


def test_what_is_recalled_is_told_at_once(backend: Backend, user: str) -> None:
    sent = backend.publish(user)
    answer = httpx.delete(
        f"{backend.node.url}/v1/users/{user}/notifications/{sent}", headers=backend.headers
    )
    assert answer.status_code == 200, answer.text
    (told,) = backend.until(1)
    assert (told["notification"], told["status"]) == (sent, "recalled")


async def test_each_user_of_a_list_gets_a_receipt_of_its_own(backend: Backend, user: str) -> None:
    users = [f"{user}-{n}" for n in range(3)]
    body = {"to": {"users": users}, "data": 1, "receipt": True, "ttl": 0.1}
    await asyncio.to_thread(backend.node.post, "/v1/notifications", body, headers=backend.headers)
    told = await asyncio.to_thread(backend.until, 3)
    assert {each["user"] for each in told} == set(users)


async def test_who_asks_for_none_gets_none(backend: Backend, user: str) -> None:
    async with Phone(backend.node, user) as phone:
        for wanted in (False, True):
            sent = await asyncio.to_thread(backend.publish, user, receipt=wanted)
            await phone.notification()
            await phone.acked(sent)
        (told,) = await asyncio.to_thread(backend.until, 1)
    assert told["notification"] == sent


def test_a_repeated_request_makes_no_second_receipt(backend: Backend, user: str) -> None:
    body = {"to": {"user": user}, "data": 1, "receipt": True, "ttl": 0.1}
    headers = backend.headers | {"Idempotency-Key": '"k"'}
    answers = [backend.node.post("/v1/notifications", body, headers=headers) for _ in range(2)]
    assert len({answer.json()["id"] for answer in answers}) == 1
    backend.until(1)
    backend.publish(user + "-2", ttl=0.1)
    backend.until(2)


async def test_an_ack_on_one_node_is_a_receipt_on_another(
    valkey: EmbeddedServer, tmp_path: Path, user: str
) -> None:
    with nodes(2, valkey.url, tmp_path) as (a, b):
        backend = Backend(a)
        async with Phone(b, user) as phone:
            sent = await asyncio.to_thread(backend.publish, user)
            await phone.notification()
            await phone.acked(sent)
            (told,) = await asyncio.to_thread(backend.until, 1)
    assert told["status"] == "acked"


# --- reading -------------------------------------------------------------------------------------


def test_receipts_are_read_in_parts_that_join_up(backend: Backend, user: str) -> None:
    for n in range(5):
        backend.publish(f"{user}-{n}", ttl=0.1)
    everything = backend.until(5)
    read: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        page = backend.read(**query)
        assert "gap" not in page
        if not page["receipts"]:
            break
        assert len(page["receipts"]) <= 2
        read += page["receipts"]
        query["after"] = page["next"]
    assert read == everything
    assert query["after"] == read[-1]["id"]
    assert page["next"] == query["after"]


def test_a_position_that_is_not_known_is_told_as_a_gap(backend: Backend, user: str) -> None:
    backend.publish(user, ttl=0.1)
    everything = backend.until(1)
    page = backend.read(after="99999999999999-0")
    assert page["gap"] == "reset"
    assert page["receipts"] == everything


async def test_a_reader_may_wait_for_a_receipt(backend: Backend, user: str) -> None:
    async with Phone(backend.node, user) as phone:
        sent = await asyncio.to_thread(backend.publish, user)
        waiting = asyncio.create_task(asyncio.to_thread(backend.read, wait=15))
        await phone.notification()
        await phone.acked(sent)
        (told,) = (await waiting)["receipts"]
    assert told["notification"] == sent
    assert backend.read(after=told["id"], wait=1) == {"receipts": [], "next": told["id"]}


def test_every_publisher_reads_its_own(backend: Backend, user: str) -> None:
    backend.publish(user, ttl=0.1)
    backend.until(1)
    assert Backend(backend.node).read()["receipts"] == []


def test_only_publishers_read_receipts(node: Node) -> None:
    problem(httpx.get(node.url + PATH), 401, "invalid_token")
    headers = {"Authorization": f"Bearer {token('u1')}"}
    found = problem(httpx.get(node.url + PATH, headers=headers), 403, "forbidden")
    assert "push.publish" in found["detail"]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=1001", "limit=x", "limit=", "limit=1&limit=2", "limit=%D9%A3",
        "wait=26", "wait=-1", "wait=0.5", "after=", "after=x", "after=1-0&after=1-0", "after=%ff",
    ],
)  # fmt: skip
def test_a_query_that_is_wrong_is_told(backend: Backend, query: str) -> None:
    answer = httpx.get(f"{backend.node.url}{PATH}?{query}", headers=backend.headers)
    found = problem(answer, 400, "invalid")
    assert query.partition("=")[0] in found["detail"]


def test_other_methods_are_refused(node: Node) -> None:
    answer = httpx.post(node.url + PATH)
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET"


# --- webhooks ------------------------------------------------------------------------------------


class Receiver(QuietHandler):
    """Keeps what it was sent; refuses as often as its test says."""

    came: ClassVar[list[dict[str, Any]]] = []
    refuse: ClassVar[list[int]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.came.append(Webhook(SECRET).verify(body, dict(self.headers)))
        self.send_response(self.refuse.pop() if self.refuse else 204)
        self.end_headers()


@pytest.fixture
def receiver() -> Iterator[str]:
    """The address of a receiver."""
    Receiver.came.clear()
    Receiver.refuse.clear()
    with HTTPService(Receiver) as served:
        yield f"{served.url}/hooks/a-secret-path"


def delivered(node: Node) -> float:
    return node.metric("pushsvc_webhooks_total", outcome="delivered")


def test_receipts_are_posted_signed_until_they_are_accepted(
    valkey: EmbeddedServer, tmp_path: Path, receiver: str, user: str
) -> None:
    Receiver.refuse[:] = [500]
    settings = {"webhook_url": receiver, "webhook_secret": SECRET}
    with nodes(2, valkey.url, tmp_path, **settings) as (a, b):
        backend = Backend(a)
        backend.publish(user, ttl=0.1)
        (told,) = backend.until(1)
        wait_until(lambda: len(Receiver.came) == 2, "the receipt to be posted twice")
        first, second = Receiver.came
        assert first == second
        assert first == {
            "type": "receipt",
            "timestamp": told["time"],
            "data": told | {"publisher": backend.name},
        }
        wait_until(
            lambda: (
                sum(n.metric("pushsvc_webhooks_total", outcome="delivered") for n in (a, b)) == 1
            ),
            "the delivery to be counted",
        )
        log = a.log() + b.log()
    assert "a-secret-path" not in log
    assert SECRET not in log


def test_a_node_with_an_address_and_no_secret_does_not_start(
    valkey: EmbeddedServer, tmp_path: Path
) -> None:
    node = Node(valkey.url, tmp_path, webhook_url="https://example.com/")
    with pytest.raises(RuntimeError, match=r"PUSHSVC_WEBHOOK_SECRET: .* set both or neither"):
        node.start()
