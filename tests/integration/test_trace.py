"""Where a notification is: the console's trace, over several real nodes."""

import asyncio
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from pushsvc.admin.trace import PATIENCE
from pushsvc.protocol import ids
from pushsvc.server.embedded import EmbeddedServer
from tests.support.backend import problem
from tests.support.nodes import Node, nodes, publisher_token, token, wait_until
from tests.support.phone import Phone

PATH = "/console/api/trace"


@pytest.fixture(scope="module")
def team(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    """Two nodes of one service."""
    directory = tmp_path_factory.mktemp("trace")
    with nodes(2, valkey.url, directory, ack_timeout_seconds=1, ack_window=2) as started:
        yield started


def ask(node: Node, auth: str | None = None, **query: Any) -> httpx.Response:
    """What is answered, once not too much was asked just before."""
    if auth is None:
        auth = token("operator", "push.observe")
    headers = {"Authorization": f"Bearer {auth}"} if auth else {}

    answers: list[httpx.Response] = []

    def answered() -> bool:
        answers.append(httpx.get(node.admin_url + PATH, params=query, headers=headers, timeout=20))
        return answers[-1].status_code != 429

    wait_until(answered, "an answer")
    return answers[-1]


def trace(node: Node, notification: str, **feed: Any) -> dict[str, Any]:
    answer = ask(node, id=notification, **feed)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert found["id"] == notification
    times = [step["time"] for step in found["steps"]]
    assert times == sorted(times)
    assert all(node["answered"] for node in found["nodes"]), found["nodes"]
    return found


def until(node: Node, notification: str, status: str, **feed: Any) -> dict[str, Any]:
    """The trace, once it has a status."""

    def reached() -> dict[str, Any] | None:
        found = trace(node, notification, **feed)
        return found if found["status"] == status else None

    found: dict[str, Any] = wait_until(reached, f"{notification} to be {status}")
    return found


def whats(found: dict[str, Any]) -> list[str]:
    return [step["what"] for step in found["steps"]]


def device(found: dict[str, Any], name: str) -> dict[str, Any]:
    devices: list[dict[str, Any]] = found["devices"]
    (one,) = [each for each in devices if each["device"] == name]
    return one


async def in_thread(function: Any, *args: Any, **kwargs: Any) -> Any:
    return await asyncio.to_thread(function, *args, **kwargs)


# --- the way of a notification -------------------------------------------------------------------


async def test_a_trace_goes_from_accepted_to_acknowledged_over_two_nodes(
    team: list[Node], user: str
) -> None:
    here, there = team
    async with Phone(there, user, "phone") as phone:
        sent = await in_thread(here.publish, user, {"n": 1}, event="order.shipped")
        await phone.notification()
        await phone.ack(sent)
        found = await in_thread(until, here, sent, "acked", user=user)
    accepted, routed, handed, acked = found["steps"]
    assert [accepted["what"], routed["what"]] == ["accepted", "routed"]
    assert accepted["by"] == "backend"
    assert accepted["node"] == routed["node"]
    assert accepted["note"] == "durability memory"
    assert handed["what"] == "sent"
    assert (handed["device"], handed["attempt"]) == ("phone", 1)
    assert handed["node"] != accepted["node"]
    assert handed["connection"] == phone.welcome["connection"]
    assert routed["note"] == f"to 1 connection on {handed['node']}"
    assert acked == {"time": acked["time"], "what": "acked", "device": "phone"}
    assert device(found, "phone") == {"device": "phone", "status": "acked", "time": acked["time"]}
    assert found["feed"] == {"user": user}
    assert found["notification"]["data"] == {"n": 1}
    assert found["notification"]["event"] == "order.shipped"
    assert [each["device"] for each in found["notification"]["acked"]] == ["phone"]
    assert found["note"] == ""
    assert found["also"] == []


async def test_the_id_alone_is_enough_for_what_was_lately(team: list[Node], user: str) -> None:
    here, there = team
    async with Phone(there, user) as phone:
        sent = await in_thread(here.publish, user, 1)
        await phone.notification()
        await phone.ack(sent)
        by_id = await in_thread(until, there, sent, "acked")
        named = await in_thread(trace, here, sent, user=user)
    assert by_id == named


async def test_what_is_not_acknowledged_is_sent_and_sent_again(team: list[Node], user: str) -> None:
    here, there = team
    async with Phone(there, user) as phone:
        sent = await in_thread(here.publish, user, 1)
        await phone.notification()
        found = await in_thread(until, here, sent, "sent", user=user)
        assert device(found, "phone")["why"] == "not acknowledged yet"
        again = await phone.notification()
        assert again["attempt"] == 2
        found = await in_thread(trace, here, sent, user=user)
        attempts = [step["attempt"] for step in found["steps"] if step["what"] == "sent"]
        assert attempts[:2] == [1, 2]
        assert device(found, "phone")["status"] == "sent"
        assert "times, not acknowledged" in device(found, "phone")["why"]


async def test_a_full_window_is_the_reason_to_wait(team: list[Node], user: str) -> None:
    async with Phone(team[1], user) as phone:
        _, second, third = [await in_thread(team[0].publish, user, n) for n in range(3)]
        await phone.notifications(2)
        found = await in_thread(trace, team[0], third, user=user)
        assert found["status"] == "waiting"
        assert device(found, "phone") == {
            "device": "phone",
            "status": "waiting",
            "why": "2 before it are not acknowledged: the window is full",
        }
        assert "sent" not in whats(found)
        await phone.ack(second)
        await in_thread(until, team[0], third, "sent", user=user)


async def test_a_device_that_is_offline_is_told_apart_from_one_that_has_it(
    team: list[Node], user: str
) -> None:
    async with Phone(team[0], user, "tablet") as tablet:
        earlier = await in_thread(team[0].publish, user, 0)
        await tablet.notification()
        await tablet.ack(earlier)
        await in_thread(until, team[0], earlier, "acked")
    async with Phone(team[1], user, "phone") as phone:
        await in_thread(team[0].publish, user, 1)
        sent = await in_thread(team[0].publish, user, 2)
        notes = await phone.notifications(2)
        await phone.ack(notes[-1]["id"])
        found = await in_thread(until, team[1], sent, "sent", user=user)
        wait_for = in_thread(
            wait_until,
            lambda: device(trace(team[1], sent, user=user), "phone")["status"] == "acked",
            "the ack",
        )
        await wait_for
        found = await in_thread(trace, team[1], sent, user=user)
    assert device(found, "tablet") == {
        "device": "tablet",
        "status": "offline",
        "why": "not connected: it is sent when the device comes back, after 1 other",
    }


async def test_a_connection_that_closed_before_it_acknowledged_is_told(
    team: list[Node], user: str
) -> None:
    async with Phone(team[1], user) as phone:
        sent = await in_thread(team[0].publish, user, 1)
        await phone.notification()
    found = await in_thread(
        wait_until,
        lambda: next((t for t in [trace(team[0], sent, user=user)] if "closed" in whats(t)), None),
        "the close",
    )
    assert whats(found)[:3] == ["accepted", "routed", "sent"]
    assert device(found, "phone")["status"] == "offline"
    assert "sent again when the device comes back" in device(found, "phone")["why"]


def test_a_user_who_never_connected_is_waited_for(team: list[Node], user: str) -> None:
    sent = team[0].publish(user, 1)
    found = trace(team[1], sent, user=user)
    assert found["status"] == "waiting"
    assert whats(found) == ["accepted", "routed"]
    assert found["steps"][1]["note"] == "nobody was connected"
    assert found["devices"] == []
    assert found["note"] == "No device of the user has connected yet: it waits for the first."


async def test_what_a_device_reads_when_it_comes_is_told_as_sent(
    team: list[Node], user: str
) -> None:
    sent = await in_thread(team[0].publish, user, 1)
    async with Phone(team[1], user) as phone:
        await phone.notification()
        found = await in_thread(trace, team[0], sent)
    assert whats(found) == ["accepted", "routed", "sent"]
    assert found["steps"][2]["connection"] == phone.welcome["connection"]


# --- what is over --------------------------------------------------------------------------------


async def test_a_recalled_notification_is_gone_and_says_so(team: list[Node], user: str) -> None:
    async with Phone(team[1], user) as phone:
        sent = await in_thread(team[0].publish, user, 1)
        await phone.notification()
        answer = await in_thread(
            httpx.delete,
            f"{team[0].url}/v1/users/{user}/notifications/{sent}",
            headers={"Authorization": f"Bearer {publisher_token()}"},
        )
        assert answer.status_code == 200
        assert (await phone.receive())["type"] == "withdrawn"
        found = await in_thread(trace, team[0], sent, user=user)
    assert found["status"] == "gone"
    assert found["notification"] is None
    assert whats(found) == ["accepted", "routed", "sent", "withdrawn"]
    assert found["note"] == "It is not kept: it was recalled."


def test_what_outlived_its_time_is_expired(team: list[Node], user: str) -> None:
    sent = team[0].publish(user, 1, ttl=0.1)
    found = until(team[1], sent, "expired", user=user)
    assert whats(found)[-1] == "expired"
    assert found["notification"] is None


def test_an_id_that_nobody_remembers_asks_for_the_user(team: list[Node], user: str) -> None:
    found = trace(team[0], "1764000000000-7")
    assert found["status"] == "unknown"
    assert found["feed"] is None
    assert "Name the user" in found["note"]
    team[0].publish(user, 1)
    assert trace(team[0], "1764000000000-7", user=user)["status"] == "gone"
    assert trace(team[0], "9764000000000-7", user=user)["status"] == "unknown"


# --- topics and the broadcast --------------------------------------------------------------------


async def test_a_topics_fan_out_is_one_step_a_node(team: list[Node], user: str) -> None:
    name = f"scores.{user}"
    auth = token(user, topics={"subscribe": [name]})
    async with (
        Phone(team[0], user, "a", auth=auth) as a,
        Phone(team[1], user, "b", auth=auth) as b,
        Phone(team[1], user, "c", auth=auth) as c,
    ):
        for phone in (a, b, c):
            await phone.send(type="subscribe", topic=name, ref=1)
            assert (await phone.receive())["type"] == "reply"
        answer = await in_thread(
            team[0].post, "/v1/notifications", {"to": {"topic": name}, "data": 1}
        )
        sent = answer.json()["id"]
        for phone in (a, b, c):
            await phone.notification()
        found = await in_thread(trace, team[0], sent, topic=name)
        assert await in_thread(trace, team[0], sent) == found
    assert found["feed"] == {"topic": name}
    assert found["status"] == "sent"
    assert found["devices"] == []
    notes = sorted(step["note"] for step in found["steps"] if step["what"] == "sent")
    assert notes == ["to 1 connection", "to 2 connections"]


async def test_the_broadcast_is_traced_as_well(team: list[Node], user: str) -> None:
    async with Phone(team[1], user) as phone:
        answer = await in_thread(
            team[0].post, "/v1/notifications", {"to": {"broadcast": True}, "data": 1}
        )
        await phone.notification()
        found = await in_thread(trace, team[0], answer.json()["id"], broadcast="true")
    assert found["feed"] == {"broadcast": True}
    assert found["status"] == "sent"
    assert found["notification"]["data"] == 1


# --- who asks ------------------------------------------------------------------------------------


def test_what_the_console_sends_is_traced_too(team: list[Node], user: str) -> None:
    answer = httpx.post(
        team[0].admin_url + "/console/api/notifications",
        json={"to": {"user": user}, "data": 1},
        headers={"Authorization": f"Bearer {token('op', 'push.admin', 'push.publish')}"},
        timeout=20,
    )
    assert answer.status_code == 202, answer.text
    found = trace(team[0], answer.json()["id"])
    assert found["steps"][0]["by"] == "op"


def test_only_who_may_see_the_console_is_answered(team: list[Node], user: str) -> None:
    assert ask(team[0], auth="", id="1-1").status_code == 401
    assert ask(team[0], auth=token(user), id="1-1").status_code == 403
    assert ask(team[0], auth=token("op", "push.admin"), id="1-1").status_code == 200


async def test_how_much_is_asked_is_bounded_however_many_operators_ask(
    valkey: EmbeddedServer, tmp_path: Path, user: str
) -> None:
    with nodes(1, valkey.url, tmp_path) as (node,):
        async with httpx.AsyncClient(base_url=node.admin_url, timeout=30) as client:
            answers = await asyncio.gather(
                *(
                    client.get(
                        PATH,
                        params={"id": "1-1", "user": user},
                        headers={"Authorization": f"Bearer {token(f'op-{n}', 'push.observe')}"},
                    )
                    for n in range(100)
                )
            )
    told = [answer.status_code for answer in answers]
    assert set(told) == {200, 429}
    assert told.count(200) >= 20
    refused = next(answer for answer in answers if answer.status_code == 429)
    problem(refused, 429, "rate_limited")
    assert int(refused.headers["Retry-After"]) >= 1


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ({}, '"id" is missing'),
        ({"id": "seven"}, "an id looks like"),
        ({"id": ["1-1", "1-2"]}, "at most one of"),
        ({"id": "1-1", "user": "a", "topic": "b"}, "one of"),
        ({"id": "1-1", "who": "a"}, "at most one of"),
        ({"id": "1-1", "user": "a\tb"}, "user id"),
        ({"id": "1-1", "broadcast": "1"}, '"true"'),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(
    team: list[Node], query: dict[str, Any], told: str
) -> None:
    answer = ask(team[0], auth=token(f"op-{len(told)}-{len(query)}", "push.observe"), **query)
    assert answer.status_code == 400
    assert told in answer.json()["detail"]


# --- nodes that are not there --------------------------------------------------------------------


async def test_a_killed_node_is_named_and_the_rest_is_told_all_the_same(
    valkey: EmbeddedServer, tmp_path: Path, user: str
) -> None:
    with nodes(2, valkey.url, tmp_path, lease_seconds=2) as (here, there):
        async with Phone(there, user) as phone:
            sent = await in_thread(here.publish, user, 1)
            await phone.notification()
            connection = phone.welcome["connection"]
            gone = connection.partition(".")[0]
            there.kill()
        found = ask(here, id=sent, user=user).json()
        silent = {each["node"] for each in found["nodes"] if not each["answered"]}
        assert silent == {gone}
        assert f"Did not answer in time, so what they did is missing here: {gone}." in found["note"]
        assert [step["what"] for step in found["steps"]] == ["accepted", "routed"]
        assert found["status"] == "waiting"

        def forgotten() -> bool:
            return len(ask(here, id=sent, user=user).json()["nodes"]) == 1

        await in_thread(wait_until, forgotten, "the lease to lapse")
        found = trace(here, sent)
        assert f"Has ended, and its journal with it: {gone}." in found["note"]
        assert device(found, "phone")["status"] == "offline"


def test_a_node_that_has_been_dead_for_a_while_is_not_waited_for(
    valkey: EmbeddedServer, tmp_path: Path, user: str
) -> None:
    with nodes(3, valkey.url, tmp_path, lease_seconds=30) as (here, _, dead):
        gone = httpx.get(f"{dead.admin_url}/readyz").json()["node"]
        sent = here.publish(user, 1)
        assert len(trace(here, sent)["nodes"]) == 3
        dead.kill()

        def missed() -> dict[str, Any] | None:
            answer: dict[str, Any] = ask(here, id=sent).json()
            return answer if [each for each in answer["nodes"] if not each["asked"]] else None

        found = wait_until(missed, "the node to be missed")
        assert {each["node"]: each["answered"] for each in found["nodes"]}[gone] is False
        assert [each["node"] for each in found["nodes"] if not each["asked"]] == [gone]
        assert f"seem to be dead: {gone}." in found["note"]

        def is_quick(query: dict[str, str]) -> bool:
            # A node that is waited for is waited for each time, and for all of PATIENCE.
            began = time.monotonic()
            ask(here, **query)
            return time.monotonic() - began < PATIENCE

        for query in ({"id": sent}, {"id": sent, "user": user}, {"id": "5-5"}):
            wait_until(partial(is_quick, query), f"a quick answer to {query}", 5 * PATIENCE)


def test_the_supervisor_of_several_workers_asks_all_of_them(
    valkey: EmbeddedServer, tmp_path: Path, user: str
) -> None:
    with nodes(1, valkey.url, tmp_path, workers=2) as (node,):
        wait_until(lambda: len(ask(node, id="1-1").json()["nodes"]) == 2, "both workers to be live")
        sent = node.publish(user, 1)
        found = trace(node, sent)
        assert found["status"] == "waiting"
        assert len(found["nodes"]) == 2
        assert ids.parse(found["id"]) == ids.parse(sent)


def test_without_a_journal_the_feed_still_says_what_it_knows(
    valkey: EmbeddedServer, tmp_path: Path, user: str
) -> None:
    with nodes(1, valkey.url, tmp_path, trace_events=0) as (node,):
        sent = node.publish(user, {"n": 1})
        assert trace(node, sent)["status"] == "unknown"
        found = trace(node, sent, user=user)
    assert found["status"] == "waiting"
    assert whats(found) == ["accepted"]
    assert "No node remembers who published it" in found["note"]
