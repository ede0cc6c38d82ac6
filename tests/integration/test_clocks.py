"""Nodes whose clocks are not Redis': what is revoked, what goes on, and what is said of it."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from pushsvc.auth.tokens import LEEWAY
from pushsvc.client import Notification, connect
from pushsvc.protocol.scheduled import TOLERANCE
from pushsvc.server.embedded import EmbeddedServer
from tests.support.backend import problem
from tests.support.nodes import Node, token, wait_until
from tests.support.phone import Phone
from tests.support.raw import Raw, request

SKEWS = (-60, -2, 2, 60)
RETENTION = 604_800
OFF = "this node's clock and Redis' differ"
RIGHT = "this node's clock and Redis' agree again"


@pytest.fixture(scope="module")
def prefix_of_all() -> str:
    return f"clocks-{time.time_ns():x}"


@pytest.fixture(scope="module")
def node(
    valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory, prefix_of_all: str
) -> Iterator[Node]:
    """One whose clock is right."""
    with Node(valkey.url, tmp_path_factory.mktemp("right"), prefix=prefix_of_all) as running:
        yield running


@pytest.fixture(scope="module")
def skewed(
    valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory, prefix_of_all: str
) -> Iterator[dict[int, Node]]:
    """One for each skew."""
    made = {
        skew: Node(valkey.url, tmp_path_factory.mktemp("skewed"), prefix=prefix_of_all, skew=skew)
        for skew in SKEWS
    }
    try:
        for each in made.values():
            each.launch()
        for each in made.values():
            each.await_start()
        yield made
    finally:
        for each in made.values():
            each.stop()
    for each in made.values():
        each.check_log()


def issued(user: str, skew: int, *scopes: str, ago: float = 0) -> str:
    """A token that a node with this skew takes: a node that is behind takes none that is new."""
    return token(user, *scopes, now=time.time() - ago + min(skew, 0))


def post(node: Node, skew: int, path: str, body: Any = None) -> httpx.Response:
    auth = issued("admin", skew, "push.admin", "push.publish")
    return node.post(path, body, headers={"Authorization": f"Bearer {auth}"})


def knock(node: Node, auth: str) -> httpx.Response:
    with Raw(node) as peer:
        peer.send(request(headers={"Authorization": f"Bearer {auth}"}))
        return peer.answer()


def said(node: Node, what: str) -> list[dict[str, Any]]:
    return [line for line in node.log_lines() if what in line["event"]]


@pytest.mark.parametrize("skew", SKEWS)
@pytest.mark.parametrize("by", ["disconnect", "revocations"])
async def test_a_user_is_revoked_whatever_the_clock_of_the_node_that_is_asked(
    node: Node, skewed: dict[int, Node], user: str, skew: int, by: str
) -> None:
    """The login was 1.2 seconds ago: with a clock that is 2 s behind it would be to come."""
    asked = skewed[skew]
    here, there = issued(user, 0, ago=1.2), issued(user, skew, ago=1.2)
    async with (
        Phone(node, user, "a", auth=here) as a,
        Phone(asked, user, "b", auth=there) as b,
    ):
        path, body = f"/v1/users/{user}/disconnect", None
        if by == "revocations":
            path, body = "/v1/revocations", {"user": user}
        answer = await asyncio.to_thread(post, asked, skew, path, body)
        assert answer.status_code == 201
        assert {await a.closed(), await b.closed()} == {4501}
        held = answer.json()
        assert 0 < held["issued_before"] - time.time() <= LEEWAY
    for which, auth in ((node, here), (asked, there)):
        refusal = await asyncio.to_thread(knock, which, auth)
        assert "revoked" in problem(refusal, 401, "invalid_token")["detail"]


async def test_who_logs_in_again_too_soon_is_let_in_a_little_later_by_itself(
    node: Node, skewed: dict[int, Node], user: str
) -> None:
    for skew in (60, 2):
        assert (await asyncio.to_thread(
            post, skewed[skew], skew, f"/v1/users/{user}/disconnect"
        )).status_code == 201  # fmt: skip
    while (refusal := await asyncio.to_thread(knock, node, token(user))).status_code == 101:
        await asyncio.sleep(0.05)  # the node looks twice a second what is revoked
    told = problem(refusal, 401, "invalid_token")
    assert 0 < told["retry_after"] <= LEEWAY + 1
    assert refusal.headers["Retry-After"] == str(told["retry_after"])
    assert "get a new one" in told["detail"]
    began = time.monotonic()
    async with connect(node.url, token=lambda _: token(user)) as client:
        sent = await asyncio.to_thread(node.publish, user, 1)
        async with asyncio.timeout(LEEWAY + 10):
            first = await anext(m async for m in client if isinstance(m, Notification))
        assert first.id == sent
    assert time.monotonic() - began < LEEWAY + 5


@pytest.mark.parametrize("skew", SKEWS)
async def test_notifications_and_tickets_go_by_redis_time(
    node: Node, skewed: dict[int, Node], user: str, skew: int
) -> None:
    other = skewed[skew]
    async with (
        Phone(node, user, "a") as a,
        Phone(other, user, "b", auth=issued(user, skew)) as b,
    ):
        note = {"to": {"user": user}, "data": 1, "ttl": 30}
        for which, of in ((node, 0), (other, skew)):
            answer = await asyncio.to_thread(post, which, of, "/v1/notifications", note)
            assert answer.json()["connections"] == 2
            for phone in (a, b):
                assert (await phone.notification())["id"] == answer.json()["id"]
    bearer = {"Authorization": f"Bearer {issued(user, skew)}"}
    for gives, takes in ((node, other), (other, node)):
        ticket = (await asyncio.to_thread(gives.post, "/v1/tickets", headers=bearer)).json()
        with Raw(takes) as peer:
            target = f"/v1/ws?ticket={ticket['ticket']}"
            peer.send(request(target=target, headers={"Authorization": None}))
            assert peer.answer().status_code == 101


@pytest.mark.parametrize("skew", SKEWS)
def test_a_node_whose_clock_is_off_says_so_and_stays_in_service(
    skewed: dict[int, Node], skew: int
) -> None:
    node = skewed[skew]
    assert node.metric("pushsvc_clock_skew_seconds") == pytest.approx(skew, abs=0.5)
    lines = said(node, OFF)
    if abs(skew) <= LEEWAY:
        assert lines == []
    else:
        (line,) = lines
        assert line["level"] == "warning"
        assert line["ahead_seconds"] == pytest.approx(skew, abs=0.5)
    assert node.is_ready()


def is_ahead(node: Node, skew: int) -> bool:
    return abs(node.metric("pushsvc_clock_skew_seconds") - skew) < 1


async def test_a_clock_that_is_set_while_the_node_runs_costs_nothing_but_two_lines(
    valkey: EmbeddedServer, tmp_path: Path, node: Node, prefix_of_all: str, user: str
) -> None:
    with Node(valkey.url, tmp_path, prefix=prefix_of_all, skew=0) as steps:
        async with Phone(steps, user) as phone:
            for skew in (60, 0, -60, 0):
                steps.set_clock(skew)
                await asyncio.to_thread(wait_until, partial(is_ahead, steps, skew), "the skew")
                sent = await asyncio.to_thread(node.publish, user, skew)
                assert (await phone.notification())["id"] == sent
                assert steps.is_ready()
        assert steps.metric("pushsvc_lease_lapses_total") == 0
        assert len(said(steps, OFF)) == len(said(steps, RIGHT)) == 2
    assert said(node, OFF) == []


@pytest.mark.parametrize("skew", SKEWS)
async def test_what_is_scheduled_goes_by_the_time_of_redis_whichever_node_is_asked(
    node: Node, skewed: dict[int, Node], user: str, skew: int
) -> None:
    asked, now = skewed[skew], time.time()

    def schedule(ahead: float) -> httpx.Response:
        at = datetime.fromtimestamp(now + ahead, UTC).isoformat()
        body = {"to": {"user": user}, "data": ahead, "at": at}
        return post(asked, skew, "/v1/notifications", body)

    # By its own clock some node would take both of these times for the other thing.
    past = problem(await asyncio.to_thread(schedule, -TOLERANCE - 20), 400, "invalid")
    assert "is past" in past["detail"]
    far = problem(await asyncio.to_thread(schedule, RETENTION + 20), 400, "invalid")
    assert "retention" in far["detail"]
    async with Phone(node, user) as phone:
        for ahead in (0.5, RETENTION - 30, 30 - TOLERANCE):
            assert (await asyncio.to_thread(schedule, ahead)).status_code == 202
        notes = await phone.notifications(2)
        assert sorted(note["data"] for note in notes) == [30 - TOLERANCE, 0.5]
        await phone.silent()
